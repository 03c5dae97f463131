"""The way a vehicle came to its newest keyframe, and what it says about the ground."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vo_stream.se3 import Array

SLOPE_STD_RAD = math.radians(0.7)
"""Between the ground and the way the camera went: suspension, waves in the road."""
ROLL_STD_RAD = math.radians(3.0)
PITCH_STD_RAD = math.radians(10.0)
"""Of how the camera is mounted, and leans in curves."""

BASELINE_RATIO = 1.3
"""Between the keyframes that are used; those in between would tell little more."""
MIN_BASELINE_PART = 0.02
"""Keyframes nearer than this part of the window's longest baseline do not count."""

_TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class DrivenWay:
    """How m older `keyframes` (their indices, by falling baseline) lie to the newest one.

    `rotations` (m, 3, 3), `translations` (m, 3): older_from_newest. `baselines`: (m,). `ways`:
    (m, 3) the directions from the newest one, in its frame. `curvatures`: (m,) turn to the right,
    radians over the map's unit.
    """

    keyframes: list[int]
    rotations: Array
    translations: Array
    baselines: Array
    ways: Array
    curvatures: Array

    def information(self, weights: Array) -> Array:
        """Return (3, 3) what is known about the ground's normal, the keyframes being weighted."""
        information = np.einsum("m,mi,mj->ij", weights / weights.sum(), self.ways, self.ways)
        information /= SLOPE_STD_RAD**2
        return np.asarray(information + np.diag([ROLL_STD_RAD**-2, 0.0, PITCH_STD_RAD**-2]))

    @property
    def normal(self) -> Array:
        """(3,) that of the ground, as the way tells it."""
        return level_normal(self.information(np.ones(len(self.baselines))))


def level_normal(information: Array) -> Array:
    """Return the (3,) unit vector, downwards, that agrees best with what is known."""
    normal = np.linalg.eigh(information)[1][:, 0]
    return np.asarray(normal * np.sign(normal[1]))


def driven_way(rotations: Array, translations: Array) -> DrivenWay | None:
    """Choose of older_from_newest, (n, 3, 3) and (n, 3), by the baselines; None where none is."""
    lengths = np.linalg.norm(translations, axis=1)
    longest = lengths.max()
    if not longest > _TINY:
        return None
    chosen: list[int] = []
    for j in np.argsort(-lengths):
        if not chosen or (
            MIN_BASELINE_PART * longest < lengths[j] < lengths[chosen[-1]] / BASELINE_RATIO
        ):
            chosen.append(int(j))
    rotations, translations, baselines = rotations[chosen], translations[chosen], lengths[chosen]
    ways = np.einsum("mji,mj->mi", rotations, translations) / baselines[:, None]
    curvatures = 0.5 * (rotations[:, 0, 2] - rotations[:, 2, 0]) / baselines
    return DrivenWay(chosen, rotations, translations, baselines, ways, curvatures)
