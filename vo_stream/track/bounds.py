"""Where uncertainty ends, and where a motion cannot be true."""

from __future__ import annotations

import logging

import numpy as np

from vo_stream.config import TrackConfig
from vo_stream.pose_error import PoseError
from vo_stream.se3 import Array
from vo_stream.values import Motion

logger = logging.getLogger(__name__)

MAX_STD = np.array([1e4, 1e4, 1e4, np.pi, np.pi, np.pi])
"""Uncertainty ends here, metres and radians: a camera lost for long must not overflow."""

SHORTEST_STEP_S = 0.02
"""Speeds are judged over at least this long: stamps jitter."""


def bounded(error: PoseError) -> PoseError:
    """Scale an error down, axis by axis, to at most `MAX_STD`; its covariances stay symmetric and
    positive."""
    shrink = _shrink(error.covariance)
    return PoseError(
        bounded_covariance(error.covariance),
        bounded_covariance(error.of_steps),
        error.lasting * shrink[:, None],
    )


def bounded_covariance(covariance: Array) -> Array:
    """Scale a covariance down, axis by axis, to at most `MAX_STD`; keeps it symmetric, positive."""
    shrink = _shrink(covariance)
    return np.asarray(covariance * np.outer(shrink, shrink))


def _shrink(covariance: Array) -> Array:
    return np.asarray(np.minimum(1.0, MAX_STD / np.sqrt(np.diag(covariance))))


def fault_of(motion: Motion | None, dt_s: float, config: TrackConfig) -> str:
    """Return why a backend's motion cannot be true; empty where it can."""
    if motion is None:
        return "the backend gave no motion"
    if not motion.is_finite:
        return "the backend's motion is not finite"
    dt_s = max(dt_s, SHORTEST_STEP_S)
    speed = float(np.linalg.norm(motion.prev_from_curr.translation)) / dt_s
    if speed > config.max_speed_m_s:
        logger.info("the backend's motion is %.0f m/s", speed)
        return "the backend's motion is too fast"
    turn_rate = motion.prev_from_curr.angle / dt_s
    if turn_rate > config.max_turn_rate_rad_s:
        logger.info("the backend's turn is %.1f rad/s", turn_rate)
        return "the backend's turn is too fast"
    return ""
