"""What a camera sees of the road: images made comparable, and the loops that compare them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from vo_stream.adjust.compiled import compiled
from vo_stream.camera import CameraModel
from vo_stream.corners import Image
from vo_stream.se3 import Array

Floats: TypeAlias = npt.NDArray[np.float32]
Indices: TypeAlias = npt.NDArray[np.intp]

VIEW_PIXELS = 80_000
"""Images are scaled down, by a whole number, to about this many pixels before they are cut."""
MIN_ROWS = 24
WINDOW_PX = 15
"""Side of the window whose mean and contrast are taken out."""
NOISE_GREY = 4.0
"""Contrast, as a standard deviation of grey levels, that is taken for noise."""
CELL_PX = 3
"""Of each cell of this side the pixel with the most texture is compared."""
ROBUST = 0.4
"""Difference of two normalised grey levels from which on it counts for ever less."""

_NEAREST = 0.05
"""Points closer to the camera than this part of their depth in the other one are not compared."""
_TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class RoadPixels:
    """n pixels of a view: `rays` (n, 3) their (x, y, 1), `values` (n,) their grey levels there."""

    rays: Floats
    values: Floats

    def where(self, chosen: Indices) -> RoadPixels:
        """Return some of them, contiguous as the loops below like it."""
        return RoadPixels(self.rays.take(chosen, axis=0), self.values.take(chosen))


@dataclass(frozen=True, slots=True, eq=False)
class RoadView:
    """The lower part of an image, small, with the brightness and contrast of each place taken out.

    `pixels`: (rows, columns) float32 of about unit deviation. `pinhole`: fx, fy, cx, cy in its
    pixels. `top`: its first row in the image. `shrink`: how many pixels of the image make one.
    """

    pixels: Floats
    pinhole: tuple[float, float, float, float]
    top: int
    shrink: int

    @staticmethod
    def of(image: Image, camera: CameraModel, normal: Array, slope: float) -> RoadView | None:
        """Cut off what lies above all rays (x, y, 1) with `normal @ ray` = `slope`.

        `normal`: (3,) of the ground. Returns None where hardly anything is left.
        """
        sides = (np.array([0.0, camera.width - 1.0]) - camera.cx) / camera.fx
        rows = (slope - normal[2] - sides * normal[0]) / normal[1] * camera.fy + camera.cy
        top = max(0, math.floor(rows.min()))
        shrink = max(1, round(math.sqrt(camera.width * camera.height / VIEW_PIXELS)))
        if camera.height - top < MIN_ROWS * shrink:
            return None
        pinhole = (
            camera.fx / shrink,
            camera.fy / shrink,
            (camera.cx + 0.5) / shrink - 0.5,
            (camera.cy - top + 0.5) / shrink - 0.5,
        )
        return RoadView(_normalised(image, top, shrink), pinhole, top, shrink)

    def like(self, image: Image) -> RoadView:
        """Return the same part of another image of the camera."""
        pixels = _normalised(image, self.top, self.shrink)
        return RoadView(pixels, self.pinhole, self.top, self.shrink)

    def textured(self) -> RoadPixels:
        """Return the pixel with the steepest slope in each cell of a grid."""
        pixels, steep = self.pixels, np.zeros_like(self.pixels)
        steep[1:-1, 1:-1] = np.abs(pixels[1:-1, 2:] - pixels[1:-1, :-2])
        steep[1:-1, 1:-1] += np.abs(pixels[2:, 1:-1] - pixels[:-2, 1:-1])
        rows, columns = pixels.shape[0] // CELL_PX, pixels.shape[1] // CELL_PX
        cells = steep[: rows * CELL_PX, : columns * CELL_PX]
        cells = cells.reshape(rows, CELL_PX, columns, CELL_PX).swapaxes(1, 2)
        best_v, best_u = np.divmod(cells.reshape(rows, columns, -1).argmax(axis=2), CELL_PX)
        v = (best_v + CELL_PX * np.arange(rows)[:, None]).ravel()
        u = (best_u + CELL_PX * np.arange(columns)).ravel()
        fx, fy, cx, cy = self.pinhole
        rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(len(u))], axis=1)
        return RoadPixels(rays.astype(np.float32), pixels[v, u])


def _normalised(image: Image, top: int, shrink: int) -> Floats:
    rows, columns = (image.shape[0] - top) // shrink, image.shape[1] // shrink
    part = image[top : top + rows * shrink, : columns * shrink]
    small = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    mean = cv2.blur(small, (WINDOW_PX, WINDOW_PX))
    square = cv2.sqrBoxFilter(small, cv2.CV_32F, (WINDOW_PX, WINDOW_PX))
    small -= mean
    np.multiply(mean, mean, out=mean)
    square -= mean
    contrast = np.sqrt(np.maximum(square, 0.0, out=square), out=square)
    contrast += np.float32(NOISE_GREY)
    small /= contrast
    return np.asarray(small)


def compile_ground() -> None:
    """Compile the loops below, or load what an earlier process compiled."""
    pixels, pinhole = np.zeros((4, 4), dtype=np.float32), (1.0, 1.0, 1.0, 1.0)
    rays, values = np.ones((2, 3), dtype=np.float32), np.ones(2, dtype=np.float32)
    pose, plane = (np.eye(3), np.zeros(3)), np.array([0.0, 1.0, 0.0])
    correlations(pixels, pinhole, rays, values, *pose, plane[None], 0.5)
    normal_equations(pixels, pinhole, rays, values, *pose, plane)


@compiled
def correlations(
    pixels: Floats,
    pinhole: tuple[float, float, float, float],
    rays: Floats,
    values: Floats,
    rotation: Array,
    translation: Array,
    planes: Array,
    min_share: float,
) -> Array:
    """Return the correlation of one view with another, predicted by each of (k, 3) planes.

    `pixels`, `pinhole`: of the older view. `rays` (n, 3), `values` (n,): of the newest one.
    `rotation`, `translation`: older_from_newest. -1 where fewer than `min_share` of them are seen.
    """
    fx, fy, cx, cy = pinhole
    height, width = pixels.shape
    result = np.full(len(planes), -1.0)
    for k in range(len(planes)):
        count, ab, aa, bb = 0, 0.0, 0.0, 0.0
        for i in range(len(rays)):
            x, y = rays[i, 0], rays[i, 1]
            inverse = planes[k, 0] * x + planes[k, 1] * y + planes[k, 2]
            px = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] + inverse * translation[0]
            py = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] + inverse * translation[1]
            pz = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] + inverse * translation[2]
            if not pz > _NEAREST:
                continue
            u, v = fx * px / pz + cx, fy * py / pz + cy
            if not (0.0 <= u < width - 1 and 0.0 <= v < height - 1):
                continue
            c, r = int(u), int(v)
            a, b = u - c, v - r
            upper = (1.0 - a) * pixels[r, c] + a * pixels[r, c + 1]
            lower = (1.0 - a) * pixels[r + 1, c] + a * pixels[r + 1, c + 1]
            grey = (1.0 - b) * upper + b * lower
            count += 1
            ab += grey * values[i]
            aa += grey * grey
            bb += values[i] * values[i]
        if count >= min_share * len(rays):
            result[k] = ab / math.sqrt(aa * bb + _TINY)
    return result


@compiled
def normal_equations(
    pixels: Floats,
    pinhole: tuple[float, float, float, float],
    rays: Floats,
    values: Floats,
    rotation: Array,
    translation: Array,
    plane: Array,
) -> tuple[Array, Array, tuple[float, float, float]]:
    """Return what one older view says of the plane and of its own rotation.

    Arguments as above. The (6, 6) matrix and (6,) gradient, of the plane and of a rotation vector
    on the left of older_from_newest, are those of unit noise and robust weights (Geman and McClure
    1985). Then the share of the pixels seen, the weighted variance and the plain correlation.
    """
    fx, fy, cx, cy = pinhole
    height, width = pixels.shape
    matrix, gradient, slope = np.zeros((6, 6)), np.zeros(6), np.zeros(6)
    count, total, squares, ab, aa, bb = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(rays)):
        x, y = rays[i, 0], rays[i, 1]
        inverse = plane[0] * x + plane[1] * y + plane[2]
        px = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] + inverse * translation[0]
        py = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] + inverse * translation[1]
        pz = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] + inverse * translation[2]
        if not pz > _NEAREST:
            continue
        p, q = px / pz, py / pz
        u, v = fx * p + cx, fy * q + cy
        if not (0.0 <= u < width - 1 and 0.0 <= v < height - 1):
            continue
        c, r = int(u), int(v)
        a, b = u - c, v - r
        p00, p01, p10, p11 = pixels[r, c], pixels[r, c + 1], pixels[r + 1, c], pixels[r + 1, c + 1]
        grey = (1.0 - b) * ((1.0 - a) * p00 + a * p01) + b * ((1.0 - a) * p10 + a * p11)
        gp = fx * ((1.0 - b) * (p01 - p00) + b * (p11 - p10))
        gq = fy * ((1.0 - a) * (p10 - p00) + a * (p11 - p01))
        by_inverse = gp * (translation[0] - p * translation[2])
        by_inverse = (by_inverse + gq * (translation[1] - q * translation[2])) / pz
        slope[0], slope[1], slope[2] = by_inverse * x, by_inverse * y, by_inverse
        slope[3] = -gp * p * q - gq * (1.0 + q * q)
        slope[4] = gp * (1.0 + p * p) + gq * p * q
        slope[5] = gq * p - gp * q
        error = grey - values[i]
        weight = (1.0 / (1.0 + (error / ROBUST) ** 2)) ** 2
        for m in range(6):
            gradient[m] += weight * error * slope[m]
            for n in range(m + 1):
                matrix[m, n] += weight * slope[m] * slope[n]
        count += 1
        total += weight
        squares += weight * error * error
        ab += grey * values[i]
        aa += grey * grey
        bb += values[i] * values[i]
    for m in range(6):
        for n in range(m):
            matrix[n, m] = matrix[m, n]
    variance = (squares + _TINY) / (total + _TINY)
    return matrix, gradient, (count / len(rays), variance, ab / math.sqrt(aa * bb + _TINY))
