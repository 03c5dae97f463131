"""What the textures of the demo worlds are painted with: noise, cracks, writing, clutter."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Picture: TypeAlias = npt.NDArray[np.float32]

BLACK, WHITE = 12.0, 245.0


def noise(
    rng: np.random.Generator,
    size: tuple[int, int],
    decay: float,
    finest: float = 1.0,
    tiles: int = 1,
) -> Picture:
    """Return (height, width) fractal noise of mean 0 and deviation 1 that wraps around.

    `size`: (width, height). `decay`: how fast the amplitude falls with the frequency; 0 is white.
    `finest`: the smallest blobs, in pixels. `tiles`: made once and laid so often along each side.
    """
    width, height = size[0] // tiles, size[1] // tiles
    spectrum = np.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    square = (fx * fx + fy * fy).astype(np.float32)
    square[0, 0] = np.inf  # the mean
    filtered = spectrum * square ** np.float32(-0.5 * decay)
    square[0, 0] = 0.0
    filtered *= np.exp(np.float32(-0.5 * finest**2) * square)
    filtered[0, 0] = 0.0
    picture = np.fft.irfft2(filtered, s=(height, width)).astype(np.float32)
    return np.tile(picture / picture.std(), (tiles, tiles))


def crack(rng: np.random.Generator, picture: Picture, tone: float) -> None:
    """Draw a crack in the grey `tone` somewhere in the middle of a picture."""
    height, width = picture.shape
    steps = rng.normal(0, 9, (30, 2)) + rng.normal(0, 9, 2)
    points = rng.uniform(0.25, 0.75, 2) * [width, height] + np.cumsum(steps, axis=0)
    points = np.clip(points, 4, [width - 5, height - 5]).astype(np.int32)
    cv2.polylines(picture, [points], False, tone, int(rng.integers(1, 4)))


def letters(rng: np.random.Generator, picture: Picture, box: tuple[int, int, int, int]) -> None:
    """Write glyph-like strokes on a plate."""
    x, y, w, h = box
    plate, ink = rng.choice([20.0, 235.0, 60.0, 170.0], 2, replace=False)
    cv2.rectangle(picture, (x, y), (x + w, y + h), float(plate), -1)
    thick, step = max(1, h // 8), max(4, int(h * 0.6))
    for left in range(x + step // 2, x + w - step, step):
        if rng.random() < 0.12:
            continue
        points = rng.uniform(0.15, 0.85, (int(rng.integers(3, 6)), 2)) * [0.8 * step, h] + [left, y]
        cv2.polylines(picture, [points.astype(np.int32)], False, float(ink), thick)


def clutter(rng: np.random.Generator, picture: Picture, count: int) -> None:
    """Strew blocks and discs over a picture."""
    height, width = picture.shape
    for _ in range(count):
        x, y = int(rng.integers(2, width - 10)), int(rng.integers(2, height - 10))
        w = int(rng.integers(6, max(7, min(70, width - x))))
        h = int(rng.integers(6, max(7, min(70, height - y))))
        if rng.random() < 0.7:
            cv2.rectangle(picture, (x, y), (x + w, y + h), rng.uniform(20, 235), -1)
        else:
            cv2.circle(picture, (x, y), w // 2 + 2, rng.uniform(20, 235), -1)
