"""What the live odometry says of the way from one keyframe to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vo_stream.se3 import SE3, Array
from vo_stream.values import Estimate

LIVE_STD_FACTOR = 4.0
"""The live motion is trusted this much less than it claims: a classical front end sees the same
corners as the adjuster, so its errors are not independent of theirs."""

UNKNOWN_LENGTH = 0.8
"""A step that is not sure of its length by this part has begun a scale of its own."""

NO_LENGTH = 1.5
"""One that is unsure by more is too short to begin one: a turn, a moment of rest."""

UNSEEN_STD = (100.0, 100.0, 100.0, 1.0, 1.0, 1.0)
"""Least standard deviations of a step that was not seen, in its own unit and radians."""

SMALLEST_STD = 1e-6
"""Floor of a step's standard deviations, in its own unit and radians."""


class Step(NamedTuple):
    """The live motion between two frames, in the backend's own lengths.

    `prev_from_curr`; `covariance` (6, 6) of its error twist (v, w) in the current camera.
    """

    prev_from_curr: SE3
    covariance: Array

    @property
    def std(self) -> Array:
        """(6,) standard deviations of the error twist."""
        return np.sqrt(np.diag(self.covariance))


def step_between(before: Estimate, after: Estimate) -> Step:
    """Return the live motion between two estimates of a session, frames left out included."""
    moved = before.odom_from_camera.inverse() @ after.odom_from_camera
    grown = after.covariance_of_steps - moved.inverse().transport(before.covariance_of_steps)
    units = np.repeat([1.0 / after.scale, 1.0], 3)
    values, vectors = np.linalg.eigh(grown * np.outer(units, units))
    covariance = (vectors * np.maximum(values, SMALLEST_STD**2)) @ vectors.T
    # A covariance that has reached its bound grows no more.
    least = after.motion.std * units if after.motion else np.array(UNSEEN_STD)
    covariance += np.diag(np.maximum(least**2 - np.diag(covariance), 0.0))
    pose = SE3(np.concatenate([moved.wxyz_xyz[:4], moved.translation / after.scale]))
    return Step(pose, covariance)


@dataclass(frozen=True, slots=True, eq=False)
class LiveMotion:
    """The live motion since a keyframe, in the backend's own lengths.

    `keyframe_from_here`; `covariance` (6, 6) of its error twist (v, w) here;
    `scale_variance`: of the logarithm by which the unit of length may have changed on the way.
    """

    keyframe_from_here: SE3
    covariance: Array
    scale_variance: float

    @staticmethod
    def none() -> LiveMotion:
        """Return no motion."""
        return LiveMotion(SE3.identity(), np.zeros((6, 6)), 0.0)

    def after(self, step: Step) -> LiveMotion:
        """Return the motion with one more step."""
        there = step.prev_from_curr
        unsure = float(np.linalg.norm(step.std[:3]))
        length = float(np.linalg.norm(there.translation))
        restarted = UNKNOWN_LENGTH * length < unsure < NO_LENGTH * length
        return LiveMotion(
            self.keyframe_from_here @ there,
            there.inverse().transport(self.covariance) + step.covariance,
            self.scale_variance + ((unsure / length) ** 2 if restarted else 0.0),
        )

    @property
    def information(self) -> Array:
        """(6, 6) information of the error twist, as far as it is trusted."""
        values, vectors = np.linalg.eigh(self.covariance)  # an inverse may not be positive
        variances = LIVE_STD_FACTOR**2 * (np.maximum(values, 0.0) + SMALLEST_STD**2)
        return np.asarray((vectors / variances) @ vectors.T)


def at_scale(motion: SE3, factor: float) -> SE3:
    """Return a motion with its translation multiplied."""
    return SE3(np.concatenate([motion.wxyz_xyz[:4], factor * motion.translation]))
