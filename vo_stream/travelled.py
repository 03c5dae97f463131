"""From the speed that a robot's wheels report to the distance that its camera has come."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vo_stream.se3 import SE3
from vo_stream.values import NANOSECONDS

MAX_EXTRAPOLATION_S = 0.2
"""For this long after a sample the camera is taken to go on at its speed."""

MAX_GAP_S = 0.5
"""Over a longer pause between samples the distance is not known."""

MAX_BACKWARDS_S = 1.0
"""A sample that is older than the last by less is dropped; by more, time has begun anew."""

MAX_ACCELERATION_M_S2 = 5.0
SPEED_NOISE_M_S = 0.05
SPEED_NOISE = 0.2
"""A speed that changes by more than this acceleration, an offset and a part of the speed allow is
that of a wheel that slips or reports nonsense."""

MAX_SPEED_M_S = 1000.0
"""A faster sample is none."""

STRETCH_M = 1e5
"""A stretch begins this far below the end of the one before. Between the two the distance is not
known, and any difference across is negative, however many readings of them are lost on the way."""

SAMPLES = 4096
"""The newest are kept: 40 s at 100 Hz."""


def camera_speed(
    linear: npt.ArrayLike, angular: npt.ArrayLike, base_from_camera: SE3 | None
) -> float:
    """Return the camera's speed in m/s.

    `linear` (3,) m/s and `angular` (3,) rad/s: twist of the robot's base, in its own frame.
    `base_from_camera`: None where it is not known; the camera is then taken to be at the base.
    """
    velocity, turn = (np.asarray(part, dtype=np.float64) for part in (linear, angular))
    if base_from_camera is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # nonsense makes nan, no warning
            velocity = velocity + np.cross(turn, base_from_camera.translation)
    return math.hypot(*velocity)


def camera_speed_of(message: Any, base_from_camera: SE3 | None) -> float:
    """Return the camera's speed in m/s by a nav_msgs/Odometry or geometry_msgs/TwistStamped.

    The twist is taken to be that of the robot's base, whatever the message calls its frame.
    """
    twist = message.twist.twist if hasattr(message.twist, "twist") else message.twist
    v, w = twist.linear, twist.angular
    return camera_speed([v.x, v.y, v.z], [w.x, w.y, w.z], base_from_camera)


class _Sample(NamedTuple):
    stamp_ns: int
    speed_m_s: float
    travelled_m: float


class TravelledDistance:
    """The distance that the camera has come, integrated from samples of its speed.

    It grows over a **stretch** of samples. Where they pause for too long, jump in time, or change
    faster than anything that rolls, a new stretch begins, far below the one before: the difference
    of two readings is the way between them, or it is negative and says nothing. What is no sample
    is dropped: a speed that is no number, negative or absurd, a stamp that repeats or comes late.
    `dropped` and `breaks` count. Not for two threads at a time.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.breaks = 0
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)

    def add(self, stamp_ns: int, speed_m_s: float) -> bool:
        """Take in the speed at an instant; say whether it could be used."""
        if not 0.0 <= speed_m_s <= MAX_SPEED_M_S:  # nan is not
            self.dropped += 1
            return False
        travelled = 0.0
        if self._samples:
            last = self._samples[-1]
            passed_s = (stamp_ns - last.stamp_ns) / NANOSECONDS
            if -MAX_BACKWARDS_S <= passed_s <= 0.0:
                self.dropped += 1
                return False
            if _is_one_stretch(passed_s, last.speed_m_s, speed_m_s):
                travelled = last.travelled_m + 0.5 * passed_s * (last.speed_m_s + speed_m_s)
            else:
                travelled = last.travelled_m - STRETCH_M
                self.breaks += 1
            if passed_s < 0.0:
                self._samples.clear()
        self._samples.append(_Sample(stamp_ns, speed_m_s, travelled))
        return True

    def at(self, stamp_ns: int) -> float:
        """Return the distance in metres at an instant; nan where it is not known.

        That is before the samples that are kept, after a stretch and its extrapolation.
        """
        if not self._samples or stamp_ns < self._samples[0].stamp_ns:
            return math.nan
        after = None
        for sample in reversed(self._samples):
            if sample.stamp_ns <= stamp_ns:
                return _between(sample, after, stamp_ns)
            after = sample
        return math.nan


def _is_one_stretch(passed_s: float, before_m_s: float, after_m_s: float) -> bool:
    noise_m_s = SPEED_NOISE_M_S + SPEED_NOISE * max(before_m_s, after_m_s)
    possible_m_s = MAX_ACCELERATION_M_S2 * passed_s + noise_m_s
    return 0.0 < passed_s <= MAX_GAP_S and abs(after_m_s - before_m_s) <= possible_m_s


def _between(before: _Sample, after: _Sample | None, stamp_ns: int) -> float:
    """Return the distance between two samples, the second of which may be missing."""
    passed_s = (stamp_ns - before.stamp_ns) / NANOSECONDS
    gained_m_s = 0.0
    if after is not None and after.travelled_m >= before.travelled_m:
        whole_s = (after.stamp_ns - before.stamp_ns) / NANOSECONDS
        gained_m_s = (after.speed_m_s - before.speed_m_s) * passed_s / whole_s
    elif passed_s > MAX_EXTRAPOLATION_S:
        return math.nan
    return before.travelled_m + passed_s * (before.speed_m_s + 0.5 * gained_m_s)
