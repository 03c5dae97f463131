"""Textures that are held at every size, so that they neither shimmer nor blur.

Width and height are halved apart from each other (a "ripmap"): a road seen at a grazing angle is
made small along its length alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Image: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.float32]

_SMALLEST_LEVEL_TEXELS = 4


class Texture:
    """A grey image that repeats in both directions, held at every size.

    `image`: (height, width) numbers, sides powers of two, 0 to 255.
    """

    def __init__(self, image: npt.NDArray[np.floating[Any]]) -> None:
        self.height, self.width = image.shape
        wide, self._x_levels = _all_sizes(np.asarray(image, dtype=np.float32))
        tall, self._y_levels = _all_sizes(np.ascontiguousarray(wide.T))
        self._ripmap = np.ascontiguousarray(np.clip(np.rint(tall.T), 0, 255).astype(np.uint8))

    def sample(self, u: Floats, v: Floats, texels_u: Floats, texels_v: Floats) -> Image:
        """Return the grey values at `u`, `v`, both (h, w) in repeats of the texture.

        `texels_u`, `texels_v`: (h, w) texels from one sample to the next, along each direction.
        """
        x, y = self._x_levels.place(u, texels_u), self._y_levels.place(v, texels_v)
        return np.asarray(cv2.remap(self._ripmap, x, y, cv2.INTER_LINEAR), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class _Levels:
    """Where the sizes of a texture lie along one axis, by the float32 exponent of the footprint."""

    start: Floats
    length: Floats

    def place(self, position: Floats, texels: Floats) -> Floats:
        """Return the ripmap coordinate of a position given in repeats."""
        exponent = (texels.view(np.int32) >> 23).astype(np.uint8)  # floor(log2), biased by 127
        place = position - np.floor(position)
        place *= cv2.LUT(exponent, self.length)
        place += cv2.LUT(exponent, self.start)
        return place


def _all_sizes(image: Floats) -> tuple[Floats, _Levels]:
    """Lay an image, halved in width again and again, side by side (each wrapped by one column)."""
    parts: list[Floats] = []
    starts: list[float] = []
    lengths: list[float] = []
    start = 0
    while True:
        width = image.shape[1]
        parts.append(np.pad(image, ((0, 0), (1, 1)), mode="wrap"))
        starts.append(start + 0.5)  # one column of wrap, less half a texel to the first centre
        lengths.append(float(width))
        start += width + 2
        if width <= _SMALLEST_LEVEL_TEXELS:
            break
        before, after = np.roll(image, 1, axis=1), np.roll(image, -1, axis=1)
        image = 0.375 * (image[:, ::2] + image[:, 1::2])
        image += 0.125 * (before[:, ::2] + after[:, 1::2])
    level = np.clip(np.arange(256) - 127, 0, len(parts) - 1)
    levels = _Levels(np.array(starts, np.float32)[level], np.array(lengths, np.float32)[level])
    return np.concatenate(parts, axis=1), levels
