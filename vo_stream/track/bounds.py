"""Where uncertainty ends."""

from __future__ import annotations

import numpy as np

from vo_stream.se3 import Array

MAX_STD = np.array([1e4, 1e4, 1e4, np.pi, np.pi, np.pi])
"""Uncertainty ends here, metres and radians: a camera lost for long must not overflow."""


def bounded(covariance: Array) -> Array:
    """Scale a covariance down, axis by axis, to at most `MAX_STD`; keeps it symmetric, positive."""
    shrink = np.minimum(1.0, MAX_STD / np.sqrt(np.diag(covariance)))
    return np.asarray(covariance * np.outer(shrink, shrink))
