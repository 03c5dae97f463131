"""Recorded footage: reading it, running it, judging the result."""
