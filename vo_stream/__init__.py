"""Streaming visual odometry for robots with one camera."""

__version__ = "0.1.0"
