"""What the calibration left of the lens's radial distortion.

A point p on the plane z = 1 is seen at (1 + bend |p|^2) p.
"""

from __future__ import annotations

from dataclasses import dataclass

from vo_stream.adjust.solver import Solution

BEND_STD = 0.01
"""Residual radial distortion of a calibrated lens, before anything was seen of it."""

LEAST_BEND_STD = 0.001
"""It is never known better than this: a lens moves a little with temperature."""


@dataclass(frozen=True, slots=True)
class Bend:
    """Residual radial distortion of the lens, and the standard deviation it is known to."""

    value: float = 0.0
    std: float = BEND_STD

    def after(self, solution: Solution, window: int) -> Bend:
        """Return what is known after a window; its keyframes stay for as many more of them."""
        before, now = self.std**-2, solution.bend_std**-2
        information = before + max(0.0, now - before) / window
        return Bend(float(solution.state.bend[0]), max(information**-0.5, LEAST_BEND_STD))
