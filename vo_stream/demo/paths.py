"""How the cameras of the demo worlds move: smooth, exact, and for as long as asked.

The world's x and y axes are level, z points up; poses are those of the optical frame.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from vo_stream.se3 import SE3, Array, rotation_from_vector

CAMERA_HEIGHT_M = 1.65
STRAIGHTS_M = (60.0, 45.0)
"""The two straights of the street's loop; between them lie left turns of 90 degrees."""
TURN_LENGTH_M = 28.0
TURN_EASE = 0.3
"""The part of a turn in which the wheel is brought in, and again in which it is brought back."""
START_M = 38.0
"""Where on the first straight the drive begins."""

STREET_STOP_S = (3.6, 5.1)
"""The car stands from the first to the second instant of every `STREET_PERIOD_S`."""
STREET_PERIOD_S = 20.0
_SPEED_KNOTS = ((0.0, 9.0), (0.9, 9.3), (3.6, 0.0), (5.1, 0.0), (7.6, 7.2), (11.0, 7.2),
                (13.5, 9.8), (20.0, 9.0))  # fmt: skip

ROOM_PIVOT_S = (5.6, 7.0)
"""The hand only rotates the camera from the first to the second instant of `ROOM_PERIOD_S`."""
ROOM_PERIOD_S = 10.0
_PACE_KNOTS = ((0.0, 1.0), (5.0, 1.0), (5.6, 0.0), (7.0, 0.0), (7.6, 1.0), (10.0, 1.0))

_OPTICAL_IN_BODY = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""body_from_camera: body x forward, y left, z up (REP-103)."""

_STEP_S = 1e-3
_STEP_M = 0.01


def street_pose(seconds: float) -> SE3:
    """Return world_from_camera of the car's camera, metres, after so many seconds."""
    distance = START_M + _travelled(seconds, _SPEED_KNOTS)
    steps, x, y, heading = _lap()
    s = distance % float(steps[-1])
    place = [np.interp(s, steps, x), np.interp(s, steps, y)]
    # The road's unevenness belongs to the place, so a car that stands does not sway.
    bounce = 0.012 * math.sin(distance / 1.3) + 0.006 * math.sin(distance / 0.53)
    pitch = 0.004 * math.sin(distance / 1.1 + 1.0) + 0.002 * math.sin(distance / 0.41)
    roll = 0.004 * math.sin(distance / 1.7 + 2.0)
    rotation = _attitude(float(np.interp(s, steps, heading)), pitch, roll)
    return SE3.from_rotation_translation(rotation, [*place, CAMERA_HEIGHT_M + bounce])


def room_pose(seconds: float) -> SE3:
    """Return world_from_camera of the hand-held camera, metres, after so many seconds."""
    t, p = seconds, _travelled(seconds, _PACE_KNOTS)
    place = [
        0.75 * math.sin(0.55 * p) + 0.12 * math.sin(1.9 * p + 0.4) + 0.015 * math.sin(7.1 * p),
        0.55 * math.sin(0.43 * p + 1.0) + 0.13 * math.sin(1.6 * p + 2.0) + 0.012 * math.sin(8 * p),
        1.45 + 0.15 * math.sin(0.9 * p + 0.5) + 0.05 * math.sin(2.3 * p) + 0.01 * math.sin(9 * p),
    ]
    yaw = 0.22 * t + 0.3 * math.sin(0.8 * t) + 0.05 * math.sin(2.7 * t) + 0.008 * math.sin(9 * t)
    pitch = 0.12 + 0.14 * math.sin(0.7 * t + 1.2) + 0.03 * math.sin(2.9 * t)
    roll = 0.08 * math.sin(0.6 * t + 0.3) + 0.03 * math.sin(2.2 * t + 1.0)
    return SE3.from_rotation_translation(_attitude(yaw, pitch, roll), place)


def _attitude(yaw: float, pitch: float, roll: float) -> Array:
    """Return the rotation world_from_camera: yaw to the left, pitch down, roll to the right."""
    turned = rotation_from_vector([0.0, 0.0, yaw]) @ rotation_from_vector([0.0, pitch, 0.0])
    return np.asarray(turned @ rotation_from_vector([roll, 0.0, 0.0]) @ _OPTICAL_IN_BODY)


def _travelled(seconds: float, knots: tuple[tuple[float, float], ...]) -> float:
    """Return the integral of a periodic speed that eases from knot (time, speed) to knot."""
    instants, distance = _integral(knots)
    periods, rest = divmod(seconds, float(instants[-1]))
    return float(periods * distance[-1] + np.interp(rest, instants, distance))


@cache
def _integral(knots: tuple[tuple[float, float], ...]) -> tuple[Array, Array]:
    times, speeds = np.array(knots).T
    instants = np.arange(round(times[-1] / _STEP_S) + 1) * _STEP_S
    at = np.clip(np.searchsorted(times, instants, side="right") - 1, 0, len(times) - 2)
    fraction = (instants - times[at]) / (times[at + 1] - times[at])
    speed = speeds[at] + (speeds[at + 1] - speeds[at]) * _smoothstep(fraction)
    return instants, _cumulative(speed, _STEP_S)


@cache
def _lap() -> tuple[Array, Array, Array, Array]:
    """Return distance, x, y and heading along one lap (counter-clockwise, closed)."""
    straights = [np.zeros(round(length / _STEP_M)) for length in STRAIGHTS_M * 2]
    fraction = (np.arange(round(TURN_LENGTH_M / _STEP_M)) + 0.5) * _STEP_M / TURN_LENGTH_M
    turn = _smoothstep(np.clip(np.minimum(fraction, 1.0 - fraction) / TURN_EASE, 0.0, 1.0))
    turn *= 0.5 * math.pi / (turn.sum() * _STEP_M)
    curvature: Array = np.concatenate([part for straight in straights for part in (straight, turn)])
    heading = np.concatenate([[0.0], np.cumsum(curvature) * _STEP_M])
    middle = 0.5 * (heading[1:] + heading[:-1])
    x = np.concatenate([[0.0], np.cumsum(np.cos(middle)) * _STEP_M])
    y = np.concatenate([[0.0], np.cumsum(np.sin(middle)) * _STEP_M])
    return np.arange(len(x), dtype=np.float64) * _STEP_M, x, y, heading


def lap_bounds() -> tuple[float, float, float, float]:
    """Return the least x and y and the greatest x and y of the street's lap in metres."""
    _, x, y, _ = _lap()
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _smoothstep(x: npt.NDArray[np.float64]) -> Array:
    return np.asarray(x * x * (3.0 - 2.0 * x))


def _cumulative(values: Array, step: float) -> Array:
    """Return the running integral by the trapezoid rule, 0 at the first value."""
    return np.concatenate([[0.0], np.cumsum(0.5 * (values[1:] + values[:-1])) * step])
