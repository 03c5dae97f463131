"""Telling rest from motion: a camera that stands still must not drift.

Small patches of the picture are compared with what they were when the camera came to rest; one
Lucas-Kanade step says how far each has moved since, to a few hundredths of a pixel. Comparing with
the start of the rest, not with the previous frame, slow motion adds up and ends it; what it moved
until then is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vo_stream.se3 import Array

PATCH_PX = 11
"""Side of a patch."""

GRID = (12, 20)
"""Rows and columns of patches."""

MIN_TEXTURE = 400.0
"""Smallest eigenvalue of a patch's gradient matrix, squared grey levels, for its motion to be
known to 0.1 px at a sensor noise of 2 levels."""

MIN_CORRELATION = 0.5
"""A patch that looks less like itself than this shows something else: the step means nothing."""

MIN_PATCHES = 12
"""With fewer textured patches nothing can be said."""

STILL_SHARE = 0.75
"""Share of the patches that must stand still; what moves before a resting camera is the rest."""

SETTLE_NS = 500_000_000
"""Stillness must have lasted this long before it counts as rest, so that slow motion is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """The picture against which stillness is judged.

    `stamp_ns`: when it was taken. `rows`, `columns`: (k, PATCH_PX^2) pixel indices of the k
    textured patches. `patches`: (k, PATCH_PX^2) their grey levels less their mean.
    `solver`: (k, 2, PATCH_PX^2) maps a patch's change to its displacement (x, y) in pixels.
    """

    stamp_ns: int
    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    patches: Array
    solver: Array

    @staticmethod
    def at(stamp_ns: int, image: npt.NDArray[np.uint8]) -> Rest:
        """Take an image as the picture to compare with."""
        height, width = image.shape
        half = PATCH_PX // 2
        offset = np.arange(-half, half + 1)
        v = np.linspace(half + 1, max(half + 1, height - half - 2), GRID[0]).astype(int)
        u = np.linspace(half + 1, max(half + 1, width - half - 2), GRID[1]).astype(int)
        if height < PATCH_PX + 2 or width < PATCH_PX + 2:
            v, u = v[:0], u[:0]
        rows = (v[:, None, None, None] + offset[:, None]).repeat(len(u), 1).repeat(PATCH_PX, 3)
        columns = (u[None, :, None, None] + offset).repeat(len(v), 0).repeat(PATCH_PX, 2)
        rows, columns = rows.reshape(-1, PATCH_PX**2), columns.reshape(-1, PATCH_PX**2)
        gx = 0.5 * (_grey(image, rows, columns + 1) - _grey(image, rows, columns - 1))
        gy = 0.5 * (_grey(image, rows + 1, columns) - _grey(image, rows - 1, columns))
        gx -= gx.mean(axis=1, keepdims=True)  # a change of brightness is no motion
        gy -= gy.mean(axis=1, keepdims=True)
        xx, xy, yy = (gx * gx).sum(axis=1), (gx * gy).sum(axis=1), (gy * gy).sum(axis=1)
        smallest = 0.5 * (xx + yy - np.sqrt((xx - yy) ** 2 + 4.0 * xy * xy))
        keep = smallest > MIN_TEXTURE
        rows, columns, gx, gy, xx, xy, yy = (a[keep] for a in (rows, columns, gx, gy, xx, xy, yy))
        determinant = (xx * yy - xy * xy)[:, None]
        solver = np.stack(
            [
                (xy[:, None] * gy - yy[:, None] * gx) / determinant,
                (xy[:, None] * gx - xx[:, None] * gy) / determinant,
            ],
            axis=1,
        )
        return Rest(stamp_ns, rows, columns, _levelled(image, rows, columns), solver)

    def holds(self, image: npt.NDArray[np.uint8], threshold_px: float) -> bool:
        """Return whether the camera has not moved since: no more than `threshold_px`."""
        if len(self.patches) < MIN_PATCHES:
            return False
        now = _levelled(image, self.rows, self.columns)
        displacement = np.einsum("kij,kj->ki", self.solver, now - self.patches)
        still = np.linalg.norm(displacement, axis=1) < threshold_px
        still &= _correlation(now, self.patches) > MIN_CORRELATION
        return bool(still.mean() >= STILL_SHARE)


def _correlation(a: Array, b: Array) -> Array:
    """Return the (k,) correlations of patches without mean; 0 where one is flat."""
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / np.maximum(lengths, 1e-9))


def _grey(
    image: npt.NDArray[np.uint8], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> Array:
    return image[rows, columns].astype(np.float64)


def _levelled(
    image: npt.NDArray[np.uint8], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> Array:
    grey = _grey(image, rows, columns)
    return np.asarray(grey - grey.mean(axis=1, keepdims=True))
