"""Camera models, and the Rectifier that brings any camera's image to a network's input.

Pixel centres have integer coordinates, the top left one is (0, 0) (the convention of ROS and
OpenCV). Rays are points (x, y, 1) on the plane z = 1 of the optical frame (x right, y down, z
forward). Distortion formulas: OpenCV "camera calibration" chapter (Brown 1966 and its rational
extension; Kannala and Brandt 2006 for equidistant).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from vo_stream.errors import ConfigError
from vo_stream.se3 import Array

DISTORTION_COUNTS = {
    "none": (0,),
    "plumb_bob": (4, 5),
    "rational_polynomial": (8,),
    "equidistant": (4,),
}
"""Each distortion model and the number of coefficients it takes, in ROS (CameraInfo.d) order."""

_ALIASES = {
    "": "none",
    "pinhole": "none",
    "radtan": "plumb_bob",
    "radial-tangential": "plumb_bob",
    "fisheye": "equidistant",
    "kannala_brandt4": "equidistant",
}

MAX_HALF_FOV_RAD = math.radians(60.0)
"""A pinhole image wider than twice this would spend most of its pixels on the rim."""

MAX_SIDE_PX = 16384
"""Larger images than this are taken for a broken header."""

MAX_NUMBER_PX = 1e7
"""Larger focal lengths and principal points are taken for a broken file."""

MIN_FOCAL_PX = 1e-3
"""Shorter focal lengths are zero but for rounding."""

MAX_COEFFICIENT = 1e6
"""Larger coefficients of distortion are taken for a broken file."""

NEGLIGIBLE = 1e-12
"""Coefficients of a polynomial below this only make its roots overflow."""

_NEWTON_STEPS = 20
_STEEPEST_START_RAD = 1.5
_DIFFERENCE = 1e-7
"""Step of the numeric derivatives, on the plane z = 1."""

_CONVERGED = 1e-11
_INVERSE_TOLERANCE = 1e-9
"""Largest distance, on the plane z = 1, between a distorted point and the one asked for."""


@dataclass(frozen=True, slots=True)
class CameraModel:
    """A calibrated camera: pinhole with one of `DISTORTION_COUNTS`.

    `width`, `height`, focal lengths `fx`, `fy` and principal point `cx`, `cy` in pixels.
    Raises ConfigError where the numbers cannot be a camera's. Equal models compare equal.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = "none"
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        model = _ALIASES.get(self.distortion_model, self.distortion_model)
        distortion = tuple(float(d) for d in self.distortion)
        if model not in DISTORTION_COUNTS and any(distortion):
            known = ", ".join(DISTORTION_COUNTS)
            raise ConfigError(f"distortion model {model!r} is not supported; use one of: {known}")
        if not any(distortion) and not (model == "equidistant" and distortion):
            model, distortion = "none", ()
        if len(distortion) not in DISTORTION_COUNTS[model]:
            takes = " or ".join(map(str, DISTORTION_COUNTS[model]))
            raise ConfigError(f"{model} takes {takes} coefficients, not {len(distortion)}")
        if not (1 <= self.width <= MAX_SIDE_PX and 1 <= self.height <= MAX_SIDE_PX):
            raise ConfigError(f"an image of {self.width}x{self.height} pixels is not possible")
        numbers = (self.fx, self.fy, self.cx, self.cy, *distortion)
        if not all(math.isfinite(n) for n in numbers):
            raise ConfigError("the calibration holds a number that is not finite")
        if max(map(abs, numbers[:4])) > MAX_NUMBER_PX:
            raise ConfigError("focal length or principal point is too large for any camera")
        if max(map(abs, distortion), default=0.0) > MAX_COEFFICIENT:
            raise ConfigError("a coefficient of distortion is too large for any lens")
        if min(self.fx, self.fy) < MIN_FOCAL_PX:
            raise ConfigError(
                f"focal length {self.fx} x {self.fy} px: not calibrated (must be positive)"
            )
        object.__setattr__(self, "distortion_model", model)
        object.__setattr__(self, "distortion", distortion)

    @staticmethod
    def from_camera_info(
        width: int,
        height: int,
        distortion_model: str,
        d: Sequence[float],
        k: Sequence[float],
        p: Sequence[float],
        binning: tuple[int, int] = (0, 0),
        roi: tuple[int, int, int, int] = (0, 0, 0, 0),
        rectified: bool = False,
    ) -> CameraModel:
        """Build from the fields of a sensor_msgs/CameraInfo.

        `roi` is (x_offset, y_offset, width, height) in full-resolution pixels, (0, 0, 0, 0) for
        all; binning 0 means 1. `rectified`: the image went through rectification already, so the
        left three columns of `p` hold and there is no distortion. Raises ConfigError.
        """
        if rectified:
            fx, fy, cx, cy = p[0], p[5], p[2], p[6]
            distortion_model, d = "none", ()
        else:
            fx, fy, cx, cy = k[0], k[4], k[2], k[5]
        bin_x, bin_y = max(1, binning[0]), max(1, binning[1])
        x_offset, y_offset, roi_width, roi_height = roi
        return CameraModel(
            width=(roi_width or width) // bin_x,
            height=(roi_height or height) // bin_y,
            fx=float(fx) / bin_x,
            fy=float(fy) / bin_y,
            cx=(float(cx) - x_offset) / bin_x,
            cy=(float(cy) - y_offset) / bin_y,
            distortion_model=distortion_model,
            distortion=tuple(d),
        )

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.width, self.height

    def project(self, points: npt.ArrayLike) -> Array:
        """Project (..., 3) points in the optical frame to (..., 2) pixels.

        Points that are not in front of the camera become NaN.
        """
        p = np.asarray(points, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            plane = np.where(p[..., 2:] > 0.0, p[..., :2] / p[..., 2:], np.nan)
            plane[np.hypot(plane[..., 0], plane[..., 1]) > self._fold()] = np.nan
            distorted = self._distort(plane)
        pixels = distorted * [self.fx, self.fy] + [self.cx, self.cy]
        return np.asarray(pixels, dtype=np.float64)

    def back_project(self, pixels: npt.ArrayLike) -> Array:
        """Return the (..., 3) rays (x, y, 1) of (..., 2) pixels.

        Pixels that no ray in front of the camera reaches become NaN.
        """
        uv = np.asarray(pixels, dtype=np.float64)
        plane = self._undistort((uv - [self.cx, self.cy]) / [self.fx, self.fy])
        return np.concatenate([plane, np.ones_like(plane[..., :1])], axis=-1)

    def _distort(self, plane: Array) -> Array:
        """Map ideal to distorted points (..., 2) on the plane z = 1."""
        if self.distortion_model == "none":
            return plane
        x, y = plane[..., 0], plane[..., 1]
        r2 = x * x + y * y
        if self.distortion_model == "equidistant":
            r = np.sqrt(r2)
            scale = self._equidistant(np.arctan(r)) / np.where(r > 0.0, r, 1.0)
            scale = np.where(r > 0.0, scale, 1.0)
            return np.stack([x * scale, y * scale], axis=-1)
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.distortion, 0.0, 0.0, 0.0, 0.0)[:8]
        radial = (1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1.0 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        xy2 = 2.0 * x * y
        return np.stack(
            [
                x * radial + p1 * xy2 + p2 * (r2 + 2.0 * x * x),
                y * radial + p1 * (r2 + 2.0 * y * y) + p2 * xy2,
            ],
            axis=-1,
        )

    def _equidistant(self, theta: Array) -> Array:
        k1, k2, k3, k4 = self.distortion
        t2 = theta * theta
        return np.asarray(theta * (1.0 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))))

    def _fold(self) -> float:
        """Return the distance from the axis, on the plane z = 1, where the distortion turns back.

        A lens does not: beyond it the polynomial says nothing. Infinite where it never does.
        """
        if self.distortion_model == "none":
            return math.inf
        if self.distortion_model == "equidistant":  # in the square of the angle
            slopes = [np.polynomial.Polynomial([1.0, *np.multiply(self.distortion, (3, 5, 7, 9))])]
        else:  # in the square of the distance
            k1, k2, _, _, k3, k4, k5, k6 = (*self.distortion, 0.0, 0.0, 0.0, 0.0)[:8]
            n, d = (np.polynomial.Polynomial([1.0, *k]) for k in ((k1, k2, k3), (k4, k5, k6)))
            s = np.polynomial.Polynomial([0.0, 2.0])
            slopes = [(n + s * n.deriv()) * d - s * n * d.deriv(), d]
        roots = np.concatenate([slope.trim(NEGLIGIBLE).roots() for slope in slopes])
        real = roots.real[(abs(roots.imag) < 1e-9) & (roots.real > 0.0)]
        nearest = math.sqrt(min(real, default=math.inf))
        if self.distortion_model == "equidistant":
            return math.tan(nearest) if nearest < 0.5 * math.pi else math.inf
        return nearest

    def _undistort(self, target: Array) -> Array:
        """Invert `_distort` by Newton's method; NaN where it does not arrive."""
        if self.distortion_model == "none":
            return target
        plane = target.copy()
        if self.distortion_model == "equidistant":  # start on the right side of the tangent
            r = np.linalg.norm(target, axis=-1, keepdims=True)
            plane *= np.tan(np.minimum(r, _STEEPEST_START_RAD)) / np.where(r > 0.0, r, 1.0)
        step = _DIFFERENCE
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON_STEPS):
                here = self._distort(plane)
                dx = (self._distort(plane + [step, 0.0]) - here) / step
                dy = (self._distort(plane + [0.0, step]) - here) / step
                error = target - here
                determinant = dx[..., 0] * dy[..., 1] - dx[..., 1] * dy[..., 0]
                move_x = (error[..., 0] * dy[..., 1] - error[..., 1] * dy[..., 0]) / determinant
                move_y = (dx[..., 0] * error[..., 1] - dx[..., 1] * error[..., 0]) / determinant
                plane += np.stack([move_x, move_y], axis=-1)
                if np.nanmax(np.abs(error), initial=0.0) < _CONVERGED:
                    break
            # A fold of the distortion has a second, mirrored solution: it is not the lens's.
            missed = np.abs(self._distort(plane) - target).max(axis=-1) > _INVERSE_TOLERANCE
            missed |= (determinant <= 0.0) | ~np.isfinite(plane).all(axis=-1)
            missed |= np.hypot(plane[..., 0], plane[..., 1]) > self._fold()
        plane[missed] = np.nan
        return np.asarray(plane)


def reduced_size(size: tuple[int, int], max_pixels: int, multiple: int = 1) -> tuple[int, int]:
    """Return (width, height) of an image scaled down to about `max_pixels`, never up.

    Both are multiples of `multiple`; the aspect ratio is kept as far as that allows.
    """
    scale = min(1.0, math.sqrt(max_pixels / (size[0] * size[1]))) / multiple
    width, height = (multiple * max(1, round(side * scale)) for side in size)
    return width, height


class Rectifier:
    """Turns one camera's images into undistorted ones of a given size.

    `camera`: the pinhole camera of the result. It sees the largest upright rectangle of rays
    that the source image covers, at most `MAX_HALF_FOV_RAD` to each side.
    `rays`: (height, width, 2) float32, read-only: x and y of each result pixel's ray (x, y, 1).
    The maps are made once, here; a call costs one `cv2.remap`, or nothing where the image
    already is as asked. Raises ConfigError where the distortion leaves no usable view.
    """

    def __init__(self, source: CameraModel, size: tuple[int, int]) -> None:
        self.source = source
        self.camera = _pinhole_inside(source, size)
        width, height = size
        v, u = np.indices((height, width), dtype=np.float64)
        rays = self.camera.back_project(np.stack([u, v], axis=-1))
        self.rays = rays[..., :2].astype(np.float32)
        self.rays.flags.writeable = False
        if self.camera == source:
            self._maps = None
            return
        pixels = np.nan_to_num(source.project(rays), nan=-1.0, posinf=-1.0, neginf=-1.0)
        pixels = np.clip(pixels, -1.0, MAX_SIDE_PX).astype(np.float32)
        # Fixed-point maps (1/32 px) halve the cost of a call.
        self._maps = cv2.convertMaps(pixels[..., 0], pixels[..., 1], cv2.CV_16SC2)

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the (height, width) uint8 image that `camera` would have taken."""
        if self._maps is None:
            return image
        rectified = cv2.remap(image, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(rectified, dtype=np.uint8)


def _pinhole_inside(source: CameraModel, size: tuple[int, int]) -> CameraModel:
    """Return the pinhole camera of `size` whose view just fits inside the source image."""
    width, height = source.size
    if source.distortion_model == "none" and size == source.size:
        return source  # kept bit for bit, so that such an image is passed through untouched
    edge_u, edge_v = np.linspace(-0.5, width - 0.5, 65), np.linspace(-0.5, height - 0.5, 65)
    left, right = (_edge_rays(source, np.full_like(edge_v, u), edge_v, 0) for u in edge_u[[0, -1]])
    top, bottom = (_edge_rays(source, edge_u, np.full_like(edge_u, v), 1) for v in edge_v[[0, -1]])
    limit = math.tan(MAX_HALF_FOV_RAD)
    x0, x1 = max([-limit, *left]), min([limit, *right])
    y0, y1 = max([-limit, *top]), min([limit, *bottom])
    if not (x0 < x1 and y0 < y1):
        raise ConfigError(
            f"the {source.distortion_model} distortion leaves no usable view: check the calibration"
        )
    corners = source.project([(x, y, 1.0) for x in (x0, x1) for y in (y0, y1)])
    if not (np.abs(2.0 * corners - [width - 1, height - 1]) <= [width + 1, height + 1]).all():
        raise ConfigError(
            f"the {source.distortion_model} distortion leaves no usable view: check the calibration"
        )
    fx, fy = size[0] / (x1 - x0), size[1] / (y1 - y0)
    return CameraModel(*size, fx, fy, -0.5 - x0 * fx, -0.5 - y0 * fy)


def _edge_rays(source: CameraModel, u: Array, v: Array, axis: int) -> list[float]:
    """Return one coordinate of the rays at pixels (u, v), without those that have no ray."""
    rays = source.back_project(np.stack([u, v], axis=-1))[:, axis]
    return [float(x) for x in rays if math.isfinite(x)]
