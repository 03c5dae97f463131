"""The real-time half: from frames to poses."""
