"""The height of a camera above the road it drives on, in the map's unit of length.

The road is a plane q of the newest camera: q @ (x, y, 1) is the inverse depth at which a ray meets
it, 1 / |q| the camera's height. With it the newest image predicts each older one (a plane-induced
homography). Heights are tried until the two look alike, then the plane is refined on grey levels,
together with small errors of the keyframes' rotations. The way the camera went says roughly how
the plane lies: a vehicle moves along the ground. In a curve the road lies along the arc that is
driven; straight ahead there is the verge, often higher. After Geiger, Ziegler and Stiller,
"StereoScan" (2011) and Song, Frost and Chandraker, "Robust scale estimation in real-time monocular
SFM" (2014).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vo_stream.adjust.driven_way import DrivenWay, driven_way, level_normal
from vo_stream.adjust.road_view import Indices, RoadPixels, RoadView, correlations, normal_equations
from vo_stream.camera import CameraModel
from vo_stream.corners import Image
from vo_stream.se3 import SE3, Array, rotation_from_vector
from vo_stream.values import read_only

MAX_TILT_RAD = math.radians(12.0)
"""Largest angle between the ground's normal and the camera's y axis."""
ROTATION_STD_RAD = 3e-4
"""Error of the rotation between two keyframes."""
OWN_LOG_STD = 0.02
"""What no image shows: the road's crown, the load on the wheels, the length of the baselines."""

REACH = 8.0
HALF_WIDTH = 1.3
"""How far ahead, and how far to each side of the arc that is driven, the road is looked at, in
camera heights."""
MIN_PIXELS = 200
SEARCH_PIXELS = 500
"""Textured pixels of the road that are needed, and that are compared in the search."""

MIN_BASELINE, MAX_BASELINE = 0.3, 3.0
"""Between two keyframes that are compared, in camera heights."""
REFINE_BASELINES = (0.6, 1.2, 2.0)
"""Those wished for in the refinement, in camera heights."""
WAY_BASELINE = 2.0
"""That over which the way best tells slope and curvature, in camera heights. Over much shorter ones
it is suspension and noise, over much longer ones another piece of road."""
SEARCH_STEP = 0.05
"""Of the logarithm of the heights that are tried."""

MIN_SHARE = 0.5
"""Of the pixels that an older keyframe must show too."""
MIN_SEARCH_CORRELATION = 0.3
MIN_CORRELATION = 0.35
"""Between the newest image and each older one, in the search and at the end."""
RIVAL_DISTANCE = 0.25
MAX_RIVAL = 0.9
"""A height whose logarithm is that far off must not correlate by more than this part as well."""
MAX_SURPRISE = 7.8
"""Squared standard deviations between the plane and the way (chi-square, 3 degrees, 95 %)."""
MAX_LOG_STD = 0.15
CORRELATED_PIXELS = 20.0
"""Pixels whose errors are one: their windows overlap, and the road is not quite a plane."""

MIN_LANDMARKS = 10
MAX_BELOW = 0.3
BELOW = 1.2
"""Of so many landmarks over the road this part may lie below it, deeper than so many camera
heights by three of their standard deviations."""

_STEPS = 8
_CONVERGED = 2e-3
"""Step of the plane, as a part of it."""
_TINY, _HUGE = 1e-12, 1e12


_Views: TypeAlias = Callable[[int], RoadView]


@dataclass(frozen=True, slots=True, eq=False)
class GroundPlane:
    """The ground as the newest keyframe's camera saw it.

    `normal`: (3,) unit vector in its optical frame, downwards. `height`: of the camera above the
    plane, in the map's unit. `log_std`: standard deviation of the height's logarithm; windows that
    share keyframes share most of their error. `pairs`: how many older keyframes were compared, and
    `correlation`: the lowest with one of them, 1 where the plane explains all.
    """

    normal: Array
    height: float
    log_std: float
    correlation: float
    pairs: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "normal", read_only(self.normal))


@dataclass(frozen=True, slots=True)
class NoGround:
    """No ground was measured. `reason` says why, for the log; it is never parsed."""

    reason: str


def height_above_ground(
    camera: CameraModel,
    images: Sequence[Image],
    map_from_cameras: Sequence[SE3],
    landmarks: npt.NDArray[np.floating],
    landmark_stds: npt.NDArray[np.floating],
) -> GroundPlane | NoGround:
    """Measure the height of the newest keyframe's camera above the road ahead of it.

    `camera`: without distortion. `images`: (height, width) uint8 of the keyframes and
    `map_from_cameras` their poses, oldest first. `landmarks`: (n, 3) in the map; `landmark_stds`:
    (n,) standard deviations along the ray, as a part of the depth. Landmarks can only contradict:
    what has much below it is no ground. There may be none (n = 0). Reversing is refused.
    """
    if len(images) < 2 or len(images) != len(map_from_cameras):
        return NoGround("fewer than two keyframes")
    if camera.distortion_model != "none" or any(i.shape != camera.size[::-1] for i in images):
        return NoGround("the images are not the rectified camera's")
    if landmarks.shape != (len(landmark_stds), 3):
        return NoGround("landmarks and their deviations do not match")
    numbers = [landmarks, landmark_stds, *(pose.wxyz_xyz for pose in map_from_cameras)]
    if not all((np.abs(n) < _HUGE).all() for n in numbers):  # nor where they are not finite
        return NoGround("a pose or landmark is not finite")
    newest = map_from_cameras[-1]
    rotations = np.array([pose.rotation for pose in map_from_cameras])
    positions = np.array([pose.translation for pose in map_from_cameras])
    turned = rotations[:-1].swapaxes(1, 2)
    shifts = positions[-1] - positions[:-1]
    window = driven_way(turned @ rotations[-1], np.einsum("mij,mj->mi", turned, shifts))
    if window is None:
        return NoGround("the camera stood still")
    if window.normal[1] < math.cos(MAX_TILT_RAD):
        return NoGround("the way was not level")
    view = RoadView.of(images[-1], camera, window.normal, 0.5 / REACH)
    if view is None:
        return NoGround("too little of the road is in view")
    pixels = view.textured()
    older = cache(lambda k: view.like(images[window.keyframes[k]]))
    height = _searched(pixels, window, older)
    if isinstance(height, NoGround):
        return height
    plane = _refined(pixels, window, older, height)
    if isinstance(plane, GroundPlane) and _undercut(
        plane, newest.inverse().apply(landmarks), landmark_stds
    ):
        return NoGround("landmarks lie below the plane")
    return plane


def _road(pixels: RoadPixels, normal: Array, turn: float) -> Indices | None:
    """Return which lie on the road; `turn`: to the right, radians over a camera height."""
    slope = pixels.rays @ normal.astype(np.float32)  # the inverse depth, in camera heights
    square, sideways = slope * slope, pixels.rays[:, 0] * slope
    road = (slope > 1.0 / REACH) & (np.abs(sideways - 0.5 * turn) < HALF_WIDTH * square)
    indices = np.flatnonzero(road)
    return indices if len(indices) >= MIN_PIXELS else None


def _searched(pixels: RoadPixels, window: DrivenWay, older: _Views) -> float | NoGround:
    """Return the height at which a plane, level with the way, makes the images most alike.

    Each height is tried on the keyframe whose baseline is nearest to it.
    """
    normal, some = window.normal, np.arange(len(window.baselines))[::-2][::-1]
    baselines = window.baselines[some]
    lowest, highest = baselines[-1] / MAX_BASELINE, baselines[0] / MIN_BASELINE
    heights = np.exp(np.arange(math.log(lowest), math.log(highest), SEARCH_STEP))
    nearest = np.abs(np.log(baselines / heights[:, None])).argmin(axis=1)
    scores = np.full(len(heights), -1.0)
    for k in np.unique(nearest):
        tried = nearest == k
        j = int(some[k])
        road = _road(pixels, normal, window.curvatures[j] * float(np.median(heights[tried])))
        if road is None:
            continue
        few = pixels.where(road[:: max(1, len(road) // SEARCH_PIXELS)])
        scores[tried] = correlations(
            older(j).pixels,
            older(j).pinhole,
            few.rays,
            few.values,
            window.rotations[j],
            window.translations[j],
            normal / heights[tried, None],
            MIN_SHARE,
        )
    best = int(scores.argmax())
    if scores[best] < MIN_SEARCH_CORRELATION:
        return NoGround("no level plane explains the images")
    if best in (0, len(heights) - 1):  # no peak, so nothing ties it to the baselines
        return NoGround("the ground is not between the heights that the baselines show")
    rivals = scores[np.abs(np.log(heights / heights[best])) > RIVAL_DISTANCE]
    if rivals.max(initial=-1.0) > MAX_RIVAL * scores[best]:
        return NoGround("several heights explain the images")
    return float(heights[best])


def _refined(
    pixels: RoadPixels, window: DrivenWay, older: _Views, height: float
) -> GroundPlane | NoGround:
    """Refine the plane and a rotation for each keyframe by Gauss and Newton's method."""
    baselines = window.baselines / height
    off = np.log(baselines / WAY_BASELINE)
    turn = window.curvatures[np.abs(off).argmin()] * height
    information = window.information(np.exp(-off * off) + _TINY)
    level = level_normal(information)
    lying = _road(pixels, level, turn)
    if lying is None:
        return NoGround("too little texture on the road")
    road = pixels.where(lying)
    fit = np.flatnonzero((baselines > MIN_BASELINE) & (baselines < MAX_BASELINE))
    if len(fit) == 0:
        return NoGround("no keyframe at a distance that shows the ground")
    wishes = {int(fit[np.abs(np.log(baselines[fit] / b)).argmin()]) for b in REFINE_BASELINES}
    pairs = sorted(wishes, reverse=True)  # the shortest baselines first
    size = 3 + 3 * len(pairs)
    state = np.concatenate(
        [level / height, np.zeros(size - 3)]
    )  # the plane, then a turn for each pair
    prior = np.eye(size) / ROTATION_STD_RAD**2
    correlation = np.zeros(len(pairs))
    for step in range(_STEPS):
        height = 1.0 / float(np.linalg.norm(state[:3]))
        prior[:3, :3] = information * height**2
        matrix, gradient = prior.copy(), prior @ state
        for k, j in enumerate(pairs):
            both = np.array([0, 1, 2, 3 + 3 * k, 4 + 3 * k, 5 + 3 * k])
            turn = rotation_from_vector(state[both[3:]])
            seen = normal_equations(
                older(j).pixels,
                older(j).pinhole,
                road.rays,
                road.values,
                turn @ window.rotations[j],
                turn @ window.translations[j],
                state[:3],
            )
            share, variance, correlation[k] = seen[2]
            if not share >= MIN_SHARE:
                return NoGround("the road left the view")
            matrix[both[:, None], both] += seen[0] / (CORRELATED_PIXELS * variance)
            gradient[both] += seen[1] / (CORRELATED_PIXELS * variance)
        covariance = np.linalg.inv(matrix)
        change = covariance @ gradient
        state -= change
        if not (np.isfinite(state).all() and state[1] > 0.0):
            return NoGround("the refinement diverged")
        if step > 1 and np.linalg.norm(change[:3]) * height < _CONVERGED:
            break
    height = 1.0 / float(np.linalg.norm(state[:3]))
    normal = state[:3] * height
    variance = float(normal @ covariance[:3, :3] @ normal) * height**2
    log_std = math.sqrt(variance + OWN_LOG_STD**2)
    surprise = normal @ information @ normal - level @ information @ level
    if correlation.min() < MIN_CORRELATION:
        return NoGround("the plane does not explain the images")
    if surprise > MAX_SURPRISE:
        return NoGround("the plane is not the one that was driven on")
    if normal[1] < math.cos(MAX_TILT_RAD):
        return NoGround("the plane is not level")
    if not log_std < MAX_LOG_STD:
        return NoGround("the images show the height too weakly")
    return GroundPlane(normal, height, log_std, float(correlation.min()), len(pairs))


def _undercut(plane: GroundPlane, points: Array, stds: npt.NDArray[np.floating]) -> bool:
    """Say whether many (n, 3) points of the newest camera's frame lie below the plane."""
    depth = points @ plane.normal / plane.height
    slope = depth / np.maximum(points[:, 2] / plane.height, _TINY)
    over_road = (points[:, 2] > 0.0) & (slope > 1.0 / REACH)
    over_road &= np.abs(points[:, 0]) < HALF_WIDTH * plane.height
    below = over_road & (depth * (1.0 - 3.0 * stds) > BELOW)
    count = np.count_nonzero(over_road)
    return bool(count >= MIN_LANDMARKS and np.count_nonzero(below) > MAX_BELOW * count)
