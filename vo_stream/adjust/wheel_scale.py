"""How long the map's unit is, by the distance that the robot's wheels report.

A keyframe is measured by its way from the last one before it that has a reading, so measurements
share no data. The way between two keyframes is taken to be straight: one that turns by 0.3 rad is
0.4 % longer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from vo_stream.adjust.solver import Indices
from vo_stream.adjust.window import WindowKeyframe
from vo_stream.se3 import Array
from vo_stream.values import NANOSECONDS

POSITION_STD = 0.002
"""Standard deviation of the way from keyframe to keyframe, as a part of the scene's depth."""

TIMING_STD_S = 0.007
"""Standard deviation of the time between two images, as the wheels' clock has it."""

LEVER_STD_M = 0.1
"""How far the camera may be from the point whose speed is reported: in a turn, one of the two goes
further."""

LARGEST_STD = 0.1
"""A way less sure than this, apart from the wheels, says nothing."""

FEWEST_COMPARED = 4
MOST_SPREAD = 1.5
"""So many ways in the window must agree on the scale, each with the next since the map's may drift:
how far they are apart, in standard deviations, has a median of 0.7 where all is well. Wheels that
slip now and then disagree with themselves, and the mean of what they say is no distance."""

STANDING = 1e-9
"""Metres over the map's unit, where the wheels say that there was no way."""


def wheel_scale(
    keyframes: Sequence[WindowKeyframe], points: Array, wheel_std: float
) -> tuple[float, float] | None:
    """Return the logarithm of metres over the map's unit and its standard deviation.

    `points` (n, 3): the landmarks. `wheel_std`: of the wheels' distance, as a part of it. None
    where the newest keyframe has no reading, is too near to the one before, or the wheels say that
    it is where that was, and where they do not agree with the window on the way.
    """
    travelled = np.array([k.travelled_m for k in keyframes])
    read = np.flatnonzero(np.isfinite(travelled))
    if len(read) < 2 or read[-1] != len(keyframes) - 1 or not len(points):
        return None
    poses = [k.map_from_camera for k in keyframes]
    steps = [one.inverse() @ other for one, other in pairwise(poses)]
    lengths = _between(read, [float(np.linalg.norm(step.translation)) for step in steps])
    turns = _between(read, [step.angle for step in steps])
    seconds = np.diff(np.array([k.stamp_ns for k in keyframes])[read]) / NANOSECONDS
    metres = np.diff(travelled[read])
    depth = float(np.median(np.abs(poses[-1].inverse().apply(points)[:, 2])))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.maximum(metres / lengths, STANDING))
        middle = np.median(logs[metres >= 0.0]) if (metres >= 0.0).any() else math.nan
        position = np.hypot(POSITION_STD * depth, LEVER_STD_M * math.exp(-middle) * turns)
        stds = np.hypot(TIMING_STD_S / seconds, position / lengths)
    sure = (metres >= 0.0) & (stds <= LARGEST_STD)
    stds = np.hypot(wheel_std, stds)
    if not (sure[-1] and metres[-1] > 0.0):
        return None
    if sure.sum() >= FEWEST_COMPARED:
        apart = np.diff(logs[sure]) / np.hypot(stds[sure][1:], stds[sure][:-1])
        if np.median(np.abs(apart)) > MOST_SPREAD:
            return None
    return float(logs[-1]), float(stds[-1])


def _between(read: Indices, of_steps: Sequence[float]) -> Array:
    """Return the sums over the steps from each keyframe with a reading to the next."""
    return np.diff(np.concatenate([[0.0], np.cumsum(of_steps)])[read])
