"""Corners in grey images: finding them evenly, following them to the next image.

Shi and Tomasi, "Good features to track" (1994); Bouguet, "Pyramidal implementation of the Lucas
Kanade feature tracker" (2000). Pixels are (n, 2) float32, x first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Image: TypeAlias = npt.NDArray[np.uint8]
Pixels: TypeAlias = npt.NDArray[np.float32]

MIN_CORNER_RESPONSE = 2e-4
"""Smaller eigenvalue of the gradient matrix (cv2.cornerMinEigenVal's unit) that makes a corner;
sensor noise of 2 grey levels gives 0.5e-4."""

IMAGE_NOISE = 4.0
"""Standard deviation, in grey levels, between a patch and itself one frame later."""

MIN_EXPOSURE_CHANGE = 2.0
"""Change of the mean grey level from which on an image is brought to the other's exposure."""

_EIGENVALUE_UNIT = 1024.0
"""Squared grey levels per pixel squared in one unit of OpenCV's minimal eigenvalue (its Scharr
derivatives are 32 times the gradient, and it divides by 2^20)."""

_MIN_EIGENVALUE = 1e-6
_MIN_CONTRAST = 1.0
_GAIN_RANGE = (0.5, 2.0)
_BLOCK_PX = 3
_ITERATIONS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.02)


@dataclass(frozen=True, slots=True)
class CornerTracker:
    """The tracker's settings; it holds no state.

    `window_px`: side of the window compared. `levels`: pyramid levels.
    `forward_backward_px`: largest distance between a corner and its track there and back.
    """

    window_px: int = 15
    levels: int = 4
    forward_backward_px: float = 0.5

    def track(
        self, before: Image, after: Image, pixels: Pixels, guess: Pixels | None = None
    ) -> tuple[Pixels, npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """Follow `pixels` of `before` into `after`, starting at `guess` where there is one.

        Returns the (n, 2) pixels found; the (n,) mask of those that can be trusted, inside the
        image and back at their start when tracked the other way; and the (n,) standard
        deviations, in pixels, that image noise gives them on the texture they have.
        """
        if len(pixels) == 0:
            return pixels, np.zeros(0, dtype=bool), np.zeros(0)
        start = pixels if guess is None else guess
        before = same_exposure(before, after)
        there, found, texture = self._flow(before, after, pixels, start, self.levels)
        # Starting from the true place the way back needs one level only.
        back, found_back, _ = self._flow(after, before, there, pixels, 1)
        height, width = after.shape
        inside = (there >= 0).all(axis=1) & (there <= [width - 1, height - 1]).all(axis=1)
        returned = np.abs(back - pixels).max(axis=1) < self.forward_backward_px
        gradient = _EIGENVALUE_UNIT * np.maximum(texture, _MIN_EIGENVALUE)
        variance = IMAGE_NOISE**2 / (self.window_px**2 * gradient)
        return there, found & found_back & inside & returned, np.sqrt(variance)

    def _flow(
        self, before: Image, after: Image, pixels: Pixels, start: Pixels, levels: int
    ) -> tuple[Pixels, npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        found, status, texture = cv2.calcOpticalFlowPyrLK(
            before,
            after,
            pixels.reshape(-1, 1, 2),
            start.reshape(-1, 1, 2).copy(),
            winSize=(self.window_px, self.window_px),
            maxLevel=levels - 1,
            criteria=_ITERATIONS,
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW | cv2.OPTFLOW_LK_GET_MIN_EIGENVALS,
        )
        found = found.reshape(-1, 2)
        return (
            found,
            (status[:, 0] > 0) & np.isfinite(found).all(axis=1),
            texture[:, 0].astype(np.float64),
        )


def detect(image: Image, count: int, taken: Pixels, border_px: int) -> Pixels:
    """Find the best corner of each grid cell that has none yet.

    The grid has about `count` cells. `taken`: (m, 2) pixels already tracked. No corner comes
    closer to the rim than `border_px`. Returns (k, 2) pixels.
    """
    height, width = image.shape
    cell = max(8, round(math.sqrt(height * width / count)))
    rows, columns = (height - 2 * border_px) // cell, (width - 2 * border_px) // cell
    if rows < 1 or columns < 1:
        return np.empty((0, 2), dtype=np.float32)
    response = cv2.cornerMinEigenVal(image, _BLOCK_PX)
    inner = response[border_px : border_px + rows * cell, border_px : border_px + columns * cell]
    cells = inner.reshape(rows, cell, columns, cell).swapaxes(1, 2).reshape(rows * columns, -1)
    best = cells.argmax(axis=1)
    free = cells[np.arange(len(cells)), best] > MIN_CORNER_RESPONSE
    at = np.floor((taken - border_px) / cell).astype(int)
    on_grid = (at >= 0).all(axis=1) & (at < [columns, rows]).all(axis=1)
    free[at[on_grid, 1] * columns + at[on_grid, 0]] = False
    row, column = np.divmod(np.arange(len(cells)), columns)
    x = border_px + column * cell + best % cell
    y = border_px + row * cell + best // cell
    return np.asarray(np.stack([x, y], axis=1)[free], dtype=np.float32)


def same_exposure(image: Image, reference: Image) -> Image:
    """Return `image` with the brightness and contrast of `reference`, where they differ.

    Lucas and Kanade's tracker takes grey levels as constant; cameras change their exposure.
    """
    (mean, std), (mean_ref, std_ref) = (
        (float(v[0, 0]) for v in cv2.meanStdDev(i[::4, ::4])) for i in (image, reference)
    )
    if abs(mean_ref - mean) < MIN_EXPOSURE_CHANGE or std < _MIN_CONTRAST:
        return image
    gain = float(np.clip(std_ref / std, *_GAIN_RANGE))
    levels = (np.arange(256) - mean) * gain + mean_ref
    return np.asarray(cv2.LUT(image, np.clip(np.rint(levels), 0, 255).astype(np.uint8)))
