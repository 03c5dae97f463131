"""How wrong the geometric backend's motions may be, from the residuals that are left."""

from __future__ import annotations

import numpy as np

from vo_stream.net.landmarks import Mask, Solution
from vo_stream.net.two_view import MIN_POINTS
from vo_stream.se3 import SE3, Array

FIRST_NOISE_PX = 0.5
"""Standard deviation of a tracked corner, before the residuals have told it."""

NOISE_RANGE_PX = (0.2, 3.0)
"""Where the residuals may move it."""

NOISE_RATE = 0.2
"""Share of each frame's evidence that enters it."""

NOISE_MAX_DEPTH_STD = 0.3
"""Only landmarks whose depth is known to this part of it are evidence."""

MEDIAN_OF_RAYLEIGH = 1.1774
"""Median length of a two-dimensional error whose coordinates have a standard deviation of 1."""

COMMON_ERROR_PX = 0.2
"""What calibration, rolling shutter and the like shift all corners by together: it does not
average out, so no motion is known better."""

COMMON_SCALE_ERROR = 0.02
"""The same for a motion's length and direction, as a part of it."""

RESTART_SCALE_STD = 0.5
"""How wrong a scale may be that was started anew, as a part of it."""


def motion_std(solution: Solution, depth: float, pixel: float, restarted: bool) -> Array:
    """Return the (6,) standard deviations of a solved motion.

    `depth`: the scene's median depth. `pixel`: size of a pixel on the plane z = 1. `restarted`:
    the scale was started anew, after one that was lost.
    """
    covariance = np.linalg.inv(solution.information)
    common = common_std(solution.curr_from_prev, depth, pixel)
    std = np.sqrt(np.maximum(np.diag(covariance), 0.0) + common**2)
    if restarted:
        length = float(np.linalg.norm(solution.curr_from_prev.translation))
        std[:3] = np.hypot(std[:3], RESTART_SCALE_STD * length)
    return np.asarray(std)


def common_std(motion: SE3, depth: float, pixel: float) -> Array:
    """Return the (6,) standard deviations that no number of corners brings down."""
    angle = COMMON_ERROR_PX * pixel
    length = COMMON_SCALE_ERROR * float(np.linalg.norm(motion.translation))
    return np.repeat([np.hypot(angle * depth, length), angle], 3)


def learned_noise_px(noise_px: float, solution: Solution, supported: Mask) -> float:
    """Return the corner noise moved towards what the residuals show."""
    known = supported & (solution.landmarks.relative_std < NOISE_MAX_DEPTH_STD)
    if known.sum() < MIN_POINTS:
        return noise_px
    ratio = float(np.median(solution.errors[known])) / MEDIAN_OF_RAYLEIGH
    return float(np.clip(noise_px * ratio**NOISE_RATE, *NOISE_RANGE_PX))
