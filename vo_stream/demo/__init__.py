"""Footage of our own: rendered worlds with exact poses, for the demo, the tests and training."""
