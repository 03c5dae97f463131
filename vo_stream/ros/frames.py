"""From the camera's optical frame to base_link and odom as ROS means them (REP-103, REP-105).

The odometer's odom is the optical frame of the session's first image. ROS's odom is base_link where
the session began: x forward, y left, z up, and the first pose is the identity. Where the camera
sits, `base_from_camera`, is fixed, so a pose in the one is the other's, conjugated with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vo_stream.se3 import SE3, Array
from vo_stream.track.bounds import MAX_STD, bounded_covariance
from vo_stream.values import Estimate, read_only

FORWARD = SE3(np.array([0.5, -0.5, 0.5, -0.5, 0.0, 0.0, 0.0]))
"""base_from_camera of a camera at base_link's origin that looks along its x axis."""

UNKNOWN_UNIT_STD = 10.0
"""Standard deviation of the factor, its mean 1, that turns an unknown unit of length to metres."""

SHORTEST_STEP_S = 1e-3
"""Stamps closer together tell of no speed."""

MIN_STD = 1e-5
"""Metres and radians. A filter inverts covariances: none may be zero in any direction."""

MIN_VARIANCE_RATIO = 1e-12
"""Of the smallest variance to the largest, for positions and for rotations: what rounding leaves
positive."""


@dataclass(frozen=True, slots=True, eq=False)
class BaseState:
    """Pose and speed of base_link, as nav_msgs/Odometry wants them.

    `odom_from_base`: pose in ROS's odom. `pose_covariance`: (6, 6) of the errors of position (m)
    and rotation (rad), both about odom's axes: x, y, z, rotation about X, Y, Z.
    `twist`: (6,) velocity (m/s) and turn rate (rad/s) of base_link about its own axes.
    `twist_covariance`: (6, 6), likewise. Covariances are symmetric and positive definite.
    """

    odom_from_base: SE3
    pose_covariance: Array
    twist: Array
    twist_covariance: Array

    def __post_init__(self) -> None:
        for name in ("pose_covariance", "twist", "twist_covariance"):
            object.__setattr__(self, name, read_only(getattr(self, name)))


def base_state(
    estimate: Estimate, base_from_camera: SE3, dt_s: float, unseen_rates: Array
) -> BaseState:
    """Return what an estimate of the camera says of base_link.

    `dt_s`: the time that the estimate's motion took. `unseen_rates`: (6,) standard deviations of
    base_link's twist (m/s, rad/s) where nothing is known of it: without a motion, or with a dt_s
    that is nan or shorter than `SHORTEST_STEP_S`; the twist is zero then.

    Where lengths are not metres, they are the camera's true ones divided by a factor of which
    nothing is known but `UNKNOWN_UNIT_STD`, and the covariances say so: the direction of travel
    stays known, its length does not, and rest stays rest.
    """
    odom_from_base = moved_to_base(estimate.odom_from_camera, base_from_camera)
    twist, twist_covariance = _twist(estimate, base_from_camera, dt_s, unseen_rates)
    return BaseState(
        odom_from_base=odom_from_base,
        pose_covariance=_pose_covariance(estimate, base_from_camera, odom_from_base.rotation),
        twist=twist,
        twist_covariance=twist_covariance,
    )


def moved_to_base(pose: SE3, base_from_camera: SE3) -> SE3:
    """Return the pose or motion of base_link that belongs to one of the camera's optical frame."""
    return base_from_camera @ pose @ base_from_camera.inverse()


def _pose_covariance(estimate: Estimate, base_from_camera: SE3, rotation: Array) -> Array:
    """Return the (6, 6) covariance of base_link's pose about odom's axes.

    The estimate's error is a twist on the right, seen from the moving frame. A consumer of
    nav_msgs/Odometry adds errors to the position, and turns the attitude, each about odom's axes.
    So each is turned by itself: with the twist on the left that the adjoint would give, a position
    far from the origin would take on an uncertainty from the heading a second time.
    """
    covariance = _usable(estimate.covariance)
    if not estimate.metric:
        pose = estimate.odom_from_camera
        covariance = _of_unknown_unit(covariance, pose.rotation.T @ pose.translation)
    covariance = base_from_camera.transport(covariance)
    turn = np.zeros((6, 6))
    turn[:3, :3] = turn[3:, 3:] = rotation
    return _usable(turn @ covariance @ turn.T)


def _twist(
    estimate: Estimate, base_from_camera: SE3, dt_s: float, unseen_rates: Array
) -> tuple[Array, Array]:
    """Return base_link's (6,) twist and its (6, 6) covariance, for steps that turn a little."""
    motion = estimate.motion
    if motion is None or not dt_s >= SHORTEST_STEP_S:  # nan is not
        return np.zeros(6), np.diag(unseen_rates**2)
    moved = motion.prev_from_curr.log()
    covariance = np.diag(np.minimum(motion.std, MAX_STD) ** 2)
    if not estimate.metric:
        covariance = _of_unknown_unit(covariance, moved[:3])
    twist = base_from_camera.adjoint() @ moved / dt_s
    return twist, _usable(base_from_camera.transport(covariance)) / dt_s**2


def _of_unknown_unit(covariance: Array, length: Array) -> Array:
    """Return the (6, 6) covariance of an error twist whose lengths are in an unknown unit.

    `length`: (3,) what the unit multiplies, in the twist's frame. With s of mean 1 and standard
    deviation k, independent of x: cov(s x) = (1 + k^2) cov(x) + k^2 x x^T.
    """
    spread = UNKNOWN_UNIT_STD * length
    # Not cut by `bounded_covariance`: axis by axis would turn the direction of travel.
    spread *= min(1.0, MAX_STD[0] / max(float(np.linalg.norm(spread)), MIN_STD))
    widened: Array = covariance.copy()
    widened[:3, :3] *= 1.0 + UNKNOWN_UNIT_STD**2
    widened[:3, :3] += np.outer(spread, spread)
    return widened


def _usable(covariance: Array) -> Array:
    """Return a covariance made symmetric, bounded, and positive definite in spite of rounding."""
    variances = np.diag(covariance)
    largest = np.repeat([variances[:3].max(), variances[3:].max()], 3)
    symmetric = 0.5 * covariance + 0.5 * covariance.T
    return bounded_covariance(symmetric + np.diag(MIN_STD**2 + MIN_VARIANCE_RATIO * largest))
