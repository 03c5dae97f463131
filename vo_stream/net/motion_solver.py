"""The motion that a set of matches shows: with the landmarks' scale, or with a new one.

Three things can go wrong with landmarks: there are too few of known depth to say how long a step
was; the search starts too far from the truth; or their depths are wrong together, so that a wrong
motion explains them. Each is noticed from the matches, and answered from two views alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vo_stream.corners import Pixels
from vo_stream.net.landmarks import Landmarks, Mask, Solution, solve, step_length
from vo_stream.net.two_view import (
    TwoView,
    epipolar_distance,
    median_depth,
    rotation_between,
)
from vo_stream.se3 import SE3, Array

MIN_PARALLAX_PX = 1.0
"""With a smaller median parallax two views show a rotation only."""

MIN_PARALLAX_TO_NOISE = 5.0
"""The parallax must be this many times what is left of it across the epipolar lines."""

MIN_SCALE_INFORMATION = 50.0
"""Summed over landmarks, inverse squared relative depth error below which there is no scale: it
would be known to 14 % at best."""

BEST_DEPTH_STD = 0.1
"""No landmark counts for more than one whose depth is known to this part of it."""

GAUGE_STD = 0.01
"""How tightly a new scale is held while its first depths are found, as a part of it."""

OUTLIER = 5.0
"""Reprojection error, in standard deviations, beyond which a landmark is dropped."""

EPIPOLAR_SLACK = 2.0
"""A match may lie this many times farther from its epipolar line than the two views' own fit
allows: the motion was not fitted to that distance."""

BEHIND = 2.0
"""A depth this many standard deviations behind the camera is wrong."""

GOOD_SUPPORT = 0.8
"""Share of the matches that must agree with a motion before it is taken without trying another."""

MIN_SUPPORT = 0.5
"""With less support than this the landmarks are wrong and the scale is started anew."""

CONTRADICTION = 2.0
"""The landmarks are doubted when their motion's epipolar error is this many times the best one."""

CONTRADICTION_CUTOFF_PX = 2.0
CONTRADICTION_FLOOR_PX = 0.1
"""Errors count up to the first; below the second no difference tells anything."""

MAX_DOUBTS = 3
"""Landmarks doubted in so many frames on end are given up."""

DOUBT = 0.1
"""Share of what is known of their depths that landmarks keep when doubted."""

NO_GAUGE = np.zeros((6, 6))


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """n corners followed from the last good image (prev) into the new one (curr).

    `pixels`: (n, 2) in the new image. `prev`, `curr`: (n, 2) on the plane z = 1. `landmarks`: n,
    in the frame of prev. `noise`: (n,) standard deviation of `curr`. `two_view`: the motion that
    fits them best on their own. `pixel`: size of a pixel on the plane z = 1. `epipolar_px`:
    distance from an epipolar line that two views allow.
    """

    pixels: Pixels
    prev: Array
    curr: Array
    landmarks: Landmarks
    noise: Array
    two_view: TwoView
    pixel: float
    epipolar_px: float


def solve_motion(matches: Matches, predicted: SE3, depth: float, doubts: int) -> Solution | None:
    """Find motion and depths; None where there is neither a scale nor parallax to start one.

    `predicted`: prev_from_curr as expected. `depth`: the scene's median depth so far. `doubts`:
    in how many frames on end the landmarks were contradicted.
    """
    best, speed = None, float(np.linalg.norm(predicted.translation))
    if scale_information(matches.landmarks) >= MIN_SCALE_INFORMATION:
        best = _with_scale(matches, predicted)
        if supported_by(best, matches).mean() >= MIN_SUPPORT:
            if not is_contradicted(best, matches):
                return best
            if doubts < MAX_DOUBTS:
                known = matches.landmarks.information * DOUBT
                doubted = replace(matches.landmarks, information=known)
                return solve(doubted, matches.curr, matches.noise, best.curr_from_prev, NO_GAUGE)
            speed = 0.0  # the motions before were as wrong as this one
    return _new_scale(matches, speed, depth) if _parallax_shows(matches) else best


def _with_scale(matches: Matches, predicted: SE3) -> Solution:
    """Solve from the predicted motion, and from the two views' where that has little support."""
    landmarks, two_view = matches.landmarks, matches.two_view
    best = solve(landmarks, matches.curr, matches.noise, predicted.inverse(), NO_GAUGE)
    support = supported_by(best, matches)
    if support.mean() >= GOOD_SUPPORT:
        return best
    start = two_view.curr_from_prev(
        step_length(landmarks, matches.curr, two_view.curr_from_prev(1.0))
    )
    other = solve(landmarks, matches.curr, matches.noise, start, NO_GAUGE)
    return other if supported_by(other, matches).sum() > support.sum() else best


def _new_scale(matches: Matches, speed: float, depth: float) -> Solution:
    """Start the scale from two views: the step is as long as the last, `speed`.

    Where that was nothing, or nothing to rely on, the scene's median depth is what it was.
    """
    depth_in_steps = median_depth(matches.prev, matches.curr, matches.two_view)
    standing = speed < MIN_PARALLAX_PX * matches.pixel * depth
    length = depth / depth_in_steps if standing else speed
    start = matches.two_view.curr_from_prev(length)
    landmarks = Landmarks.first_seen(matches.prev, 1.0 / (depth_in_steps * length))
    along = start.translation / (GAUGE_STD * length**2)
    gauge = np.zeros((6, 6))
    gauge[:3, :3] = np.outer(along, along)
    solution = solve(landmarks, matches.curr, matches.noise, start, gauge)
    return replace(solution, new_scale=True)


def scale_information(landmarks: Landmarks) -> float:
    """Return how well the landmarks know the scale: its inverse squared relative error."""
    relative = np.maximum(landmarks.relative_std, BEST_DEPTH_STD)
    return float((1.0 / relative**2).sum())


def supported_by(solution: Solution, matches: Matches) -> Mask:
    """Return the (n,) matches that agree: with landmark, depth's sign and two-view geometry."""
    landmarks = solution.landmarks
    std = 1.0 / np.sqrt(np.maximum(landmarks.information, 1e-12))
    distance = epipolar_distance(matches.prev, matches.curr, solution.curr_from_prev)
    return np.asarray(
        solution.valid
        & (solution.errors < OUTLIER)
        & (landmarks.inverse_depth > -BEHIND * std)
        & (distance < EPIPOLAR_SLACK * matches.epipolar_px * matches.pixel)
    )


def is_contradicted(solution: Solution, matches: Matches) -> bool:
    """Return whether two views alone say clearly that the landmarks' motion is wrong.

    Depths that are wrong together can explain a wrong motion (the bas-relief ambiguity) and then
    confirm themselves from frame to frame; the epipolar errors grow all the same.
    """
    limit = CONTRADICTION_CUTOFF_PX * matches.pixel
    mine, two_view = (
        float((np.minimum(epipolar_distance(matches.prev, matches.curr, m), limit) ** 2).mean())
        for m in (solution.curr_from_prev, matches.two_view.curr_from_prev(1.0))
    )
    floor = (CONTRADICTION_FLOOR_PX * matches.pixel) ** 2
    return mine + floor > CONTRADICTION**2 * (two_view + floor)


def parallax_px(matches: Matches, solution: Solution) -> float:
    """Return the median distance, in pixels, that the solved turn leaves between matches."""
    turned = np.concatenate([matches.prev, np.ones((len(matches.prev), 1))], axis=1)
    turned = turned @ solution.curr_from_prev.rotation.T
    distance = np.linalg.norm(turned[:, :2] / turned[:, 2:] - matches.curr, axis=1)
    return float(np.median(distance)) / matches.pixel


def _parallax_shows(matches: Matches) -> bool:
    """Return whether two views show more than a rotation."""
    _, parallax = rotation_between(matches.prev, matches.curr, matches.pixel)
    motion = matches.two_view.curr_from_prev(1.0)
    across = epipolar_distance(matches.prev, matches.curr, motion)
    noise = float(np.sqrt((across**2).mean()))
    least = max(MIN_PARALLAX_PX * matches.pixel, MIN_PARALLAX_TO_NOISE * noise)
    return float(np.median(parallax)) > least
