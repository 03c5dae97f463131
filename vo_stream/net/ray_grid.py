"""From a grid of rays back to the pinhole camera that has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vo_stream.corners import Pixels
from vo_stream.se3 import Array


@dataclass(frozen=True, slots=True, eq=False)
class RayGrid:
    """The pinhole camera behind a grid of rays: `focal` and `centre`, (2,) each, in pixels."""

    focal: Array
    centre: Array

    @staticmethod
    def of(rays: npt.NDArray[np.float32]) -> RayGrid:
        """Read it off the (height, width, 2) rays that a Rectifier makes."""
        height, width = rays.shape[:2]
        first, last = rays[0, 0].astype(np.float64), rays[-1, -1].astype(np.float64)
        pixels, span = np.array([width - 1.0, height - 1.0]), last - first
        seen = span > 0.0  # not so for an image that is one pixel wide
        focal = np.where(seen, pixels / np.where(seen, span, 1.0), 1.0)
        return RayGrid(focal, -first * focal)

    @property
    def pixel(self) -> float:
        """Size of a pixel on the plane z = 1."""
        return float(1.0 / self.focal.mean())

    def plane(self, pixels: Pixels) -> Array:
        """Return the points on the plane z = 1 of (n, 2) pixels."""
        return np.asarray((pixels - self.centre) / self.focal, dtype=np.float64)
