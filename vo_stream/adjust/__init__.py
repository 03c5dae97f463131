"""The background half: keyframes, refined together over a window."""
