"""The motion between two views, from matched points alone.

Points are (n, 2) on the plane z = 1. Nister, "An efficient solution to the five-point relative
pose problem" (2004); Torr and Zisserman, "MLESAC" (2000), for MSAC; Chum et al., "Locally
optimized RANSAC" (2003); Hartley, "In defence of the 8-point algorithm" (1997).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from vo_stream.se3 import SE3, Array, rotation_from_vector, skew

Mask = npt.NDArray[np.bool_]

MIN_POINTS = 8
"""Fewer matches than this are no evidence of a motion."""

FARTHEST_STEPS = 1e3
"""Scenes deeper than this many steps of the camera show no parallax."""

_FARTHEST_BASELINES = 1e4
"""Points farther than this many steps do not vote for which of the four motions is real."""

_CONFIDENCE = 0.999
_MAX_SAMPLES = 500
_ROTATION_ITERATIONS = 10


@dataclass(frozen=True, slots=True, eq=False)
class TwoView:
    """`curr_from_prev`: `rotation` (3, 3) and unit `direction` (3,); `inliers`: (n,)."""

    rotation: Array
    direction: Array
    inliers: Mask

    def curr_from_prev(self, length: float) -> SE3:
        """Return the motion with a translation of that length."""
        return SE3.from_rotation_translation(self.rotation, length * self.direction)


def essential_motion(
    prev: Array, curr: Array, threshold: float, solver: str, seed: int
) -> TwoView | None:
    """Fit an essential matrix by robust sampling; None where no motion has support.

    `threshold`: largest epipolar distance on the plane z = 1. `solver`: "five_point" or
    "eight_point". Equal seeds give equal results.
    """
    if len(prev) < MIN_POINTS:
        return None
    params = cv2.UsacParams()
    params.confidence = _CONFIDENCE
    params.maxIterations = _MAX_SAMPLES
    params.threshold = threshold
    params.randomGeneratorState = seed
    params.score = cv2.SCORE_METHOD_MSAC
    params.sampler = cv2.SAMPLING_UNIFORM
    params.loMethod = cv2.LOCAL_OPTIM_INNER_AND_ITER_LO
    if hasattr(params, "final_polisher"):  # from OpenCV 4.8 on
        params.final_polisher = cv2.LSQ_POLISHER
    params.isParallel = False
    eye, none = np.eye(3), np.zeros(4)
    try:
        if solver == "five_point":
            e, mask = cv2.findEssentialMat(prev, curr, eye, eye, none, none, params)
        else:
            e, mask = cv2.findFundamentalMat(prev, curr, params)
    except cv2.error:  # raised for some degenerate samples
        return None
    if e is None or e.shape != (3, 3) or mask is None:
        return None
    inliers = mask.ravel() > 0
    if inliers.sum() < MIN_POINTS:
        return None
    _, rotation, direction, *_ = cv2.recoverPose(
        e, prev[inliers], curr[inliers], eye, distanceThresh=_FARTHEST_BASELINES
    )
    return TwoView(rotation, direction.ravel(), inliers)


def rotation_between(prev: Array, curr: Array, scale: float) -> tuple[Array, Array]:
    """Fit the rotation that maps `prev` to `curr` best, as if all points were at infinity.

    Robust least squares (Cauchy weights of the given scale, on the plane z = 1). Returns
    curr_from_prev (3, 3) and the (n,) distances that are left: the parallax.
    """
    rays = np.concatenate([prev, np.ones((len(prev), 1))], axis=1)
    rotation = np.eye(3)
    parallax = np.zeros(len(prev))
    for _ in range(_ROTATION_ITERATIONS):
        p = rays @ rotation.T
        xy = p[:, :2] / np.maximum(p[:, 2:], 1e-3)
        r = curr - xy
        parallax = np.linalg.norm(r, axis=1)
        w = 1.0 / (1.0 + (parallax / scale) ** 2)
        x, y = xy[:, 0], xy[:, 1]
        j = np.stack(
            [np.stack([-x * y, 1 + x * x, -y], 1), np.stack([-1 - y * y, x * y, x], 1)], axis=1
        )
        h = np.einsum("n,nki,nkj->ij", w, j, j)
        g = np.einsum("n,nki,nk->i", w, j, r)
        step = np.linalg.solve(h + 1e-12 * np.eye(3), g)
        rotation = rotation_from_vector(step) @ rotation
        if np.abs(step).max() < 1e-8:
            break
    return rotation, parallax


def epipolar_distance(prev: Array, curr: Array, curr_from_prev: SE3) -> Array:
    """Return the (n,) Sampson distances of matches from a motion, on the plane z = 1.

    A motion without translation is a mere rotation: the distance then is that of the points.
    """
    ones = np.ones((len(prev), 1))
    x0, x1 = np.concatenate([prev, ones], axis=1), np.concatenate([curr, ones], axis=1)
    length = float(np.linalg.norm(curr_from_prev.translation))
    if length == 0.0:
        turned = x0 @ curr_from_prev.rotation.T
        return np.asarray(np.linalg.norm(turned[:, :2] / turned[:, 2:] - curr, axis=1))
    essential = skew(curr_from_prev.translation / length) @ curr_from_prev.rotation
    line1, line0 = x0 @ essential.T, x1 @ essential
    gradient = (line0[:, :2] ** 2).sum(axis=1) + (line1[:, :2] ** 2).sum(axis=1)
    return np.asarray(np.abs((x1 * line1).sum(axis=1)) / np.sqrt(np.maximum(gradient, 1e-18)))


def median_depth(prev: Array, curr: Array, two_view: TwoView) -> float:
    """Return the median depth of matches in the previous view, in steps of the camera.

    At most `FARTHEST_STEPS`, also where most points are at infinity or behind.
    """
    ones = np.ones((len(prev), 1))
    turned = np.concatenate([prev, ones], axis=1) @ two_view.rotation.T
    rays = np.concatenate([curr, ones], axis=1)
    across, moved = np.cross(rays, turned), np.cross(rays, two_view.direction)
    inverse = -(across * moved).sum(axis=1) / np.maximum((moved * moved).sum(axis=1), 1e-18)
    return 1.0 / max(float(np.median(inverse)), 1.0 / FARTHEST_STEPS)
