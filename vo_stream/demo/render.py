"""A small renderer of textured rectangles, exact to a few hundredths of a pixel.

The inverse depth of a plane, and the numerators of its texture coordinates, are affine functions of
the pixel. So a rectangle's outline is one interval per row, the depth test one comparison, and no
ray is ever cast. Each pixel is the mean of `SAMPLES` x `SAMPLES` samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from vo_stream.camera import CameraModel
from vo_stream.demo.ripmap import Floats, Image, Texture
from vo_stream.se3 import SE3, Array
from vo_stream.values import read_only

SAMPLES = 2
"""Samples along each side of a pixel."""

NEAR_M = 0.05
"""What is nearer to the camera than this is not drawn."""

NO_SURFACE = -1
"""`Rendering.surface` where a pixel shows the sky, or more than one rectangle."""

_HAZE_GREY = 190
"""Below the horizon, where no rectangle is."""

_LEAST_INVERSE_DEPTH = 1e-6
"""Beyond a rectangle its inverse depth may be 0 or less; what is computed there is not used."""

_EDGE_SLACK_PX = 1e-4
"""Rectangles that share an edge overlap by this, so that rounding opens no gap between them."""

_FLAT = 1e-12
"""Stands for the slope of an edge that has none, as a level road's has."""

_BLENDS = np.exp2((np.arange(SAMPLES**2, dtype=np.float32) + 0.5) / SAMPLES**2)
_BLENDS = _BLENDS.reshape(SAMPLES, SAMPLES)
"""How the samples of a block spread over two neighbouring levels of detail."""

_EDGE_ON_M = 1e-4
"""A rectangle whose plane is nearer than this to the camera's centre is seen as nothing."""

_CORNERS = np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
"""Those of a rectangle, in multiples of its sides."""

_LENS_MARGIN_PX = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Quad:
    """A textured rectangle, seen only from the side that `edge_u` x `edge_v` points to.

    `origin`, `edge_u`, `edge_v`: (3,) metres in the world: corner and two sides. `repeats`: how
    often the texture repeats along each side, `phase`: where it begins. `gain`: brightness.
    """

    origin: Array
    edge_u: Array
    edge_v: Array
    texture: Texture
    repeats: tuple[float, float]
    phase: tuple[float, float] = (0.0, 0.0)
    gain: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """What a perfect camera sees.

    `image`: (height, width) float32 grey levels, 0 to 255, without noise.
    `inverse_depth`: (height, width) float32 in 1/m along the optical axis, 0 for the sky.
    `surface`: (height, width) int16, the index of the rectangle seen, `NO_SURFACE` for sky and
    where outlines cross the pixel: elsewhere the inverse depth is exact.
    """

    image: Floats
    inverse_depth: Floats
    surface: npt.NDArray[np.int16]

    def __post_init__(self) -> None:
        for name in ("image", "inverse_depth", "surface"):
            object.__setattr__(self, name, read_only(getattr(self, name)))


class Scene:
    """Rectangles, and a sky of clouds that is infinitely far away.

    The world's z axis points up. `sky`: its texture lies on an endless ceiling, one repeat per
    `sky_repeat` heights of that ceiling; None for a closed room.
    """

    def __init__(
        self, quads: Sequence[Quad], sky: Texture | None = None, sky_repeat: float = 4.0
    ) -> None:
        self.quads = tuple(quads)
        self._sky, self._sky_repeat = sky, sky_repeat
        self._world_from_quad = np.stack(
            [np.column_stack([q.edge_u, q.edge_v, q.origin]) for q in self.quads]
        )
        normals = np.cross(self._world_from_quad[:, :, 0], self._world_from_quad[:, :, 1])
        self._normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)

    def render(self, camera: CameraModel, world_from_camera: SE3) -> Rendering:
        """Draw the scene as `camera` sees it from the pose of its optical frame."""
        pinhole = camera if camera.distortion_model == "none" else _wide_pinhole(camera)
        width, height = pinhole.width * SAMPLES, pinhole.height * SAMPLES
        ray_from_sample = _ray_from_sample(pinhole)
        seen, quad_from_sample = self._in_view(world_from_camera, ray_from_sample, width, height)
        first, last = _row_intervals(quad_from_sample, width, height)
        inverse_depth = np.zeros((height, width), dtype=np.float32)
        surface = np.full((height, width), NO_SURFACE, dtype=np.int16)
        image = np.full((height, width), _HAZE_GREY, dtype=np.uint8)
        boxes = []
        for k, index in enumerate(seen):
            rows = np.flatnonzero(first[k] <= last[k])
            if len(rows) == 0:
                continue
            y0, y1 = int(rows[0]), int(rows[-1]) + 1
            x0, x1 = int(first[k, rows].min()), int(last[k, rows].max()) + 1
            box = np.s_[y0:y1, x0:x1]
            x = np.arange(x0, x1, dtype=np.int16)
            plane = _affine(quad_from_sample[k, 2], box)
            drawn = plane > inverse_depth[box]
            drawn &= x >= first[k, y0:y1, None]
            drawn &= x <= last[k, y0:y1, None]
            np.copyto(inverse_depth[box], plane, where=drawn)
            np.copyto(surface[box], np.int16(index), where=drawn)
            boxes.append((int(index), quad_from_sample[k], box))
        if self._sky is not None:
            self._draw_sky(image, surface, world_from_camera.rotation @ ray_from_sample)
        for index, homography, box in boxes:
            mask = surface[box] == index
            if mask.any():
                np.copyto(image[box], _paint(self.quads[index], homography, box), where=mask)
        return _to_pixels(camera, pinhole, image, inverse_depth, surface)

    def _in_view(
        self, world_from_camera: SE3, ray_from_sample: Array, width: int, height: int
    ) -> tuple[npt.NDArray[np.intp], Array]:
        """Return the indices of the rectangles that may be seen, and their homographies.

        Rows 0 and 1 of a homography times a sample (x, y, 1) are the position along the sides
        (0 to 1) divided by depth; row 2 is the inverse depth itself.
        """
        centre = world_from_camera.translation
        distance = ((centre - self._world_from_quad[:, :, 2]) * self._normals).sum(axis=1)
        facing = np.flatnonzero(distance > _EDGE_ON_M)
        matrices = self._world_from_quad[facing]
        matrices[:, :, 2] -= centre
        camera_from_quad = world_from_camera.rotation.T @ matrices
        x, y, z = np.moveaxis(np.linalg.inv(ray_from_sample) @ camera_from_quad @ _CORNERS, 1, 0)
        sides = np.stack([z - NEAR_M, x + z, width * z - x, y + z, height * z - y])
        inside = (sides > 0.0).any(axis=2).all(axis=0)  # no side has all corners beyond it
        return facing[inside], np.linalg.inv(camera_from_quad[inside]) @ ray_from_sample

    def _draw_sky(
        self, image: Image, surface: npt.NDArray[np.int16], world_from_sample: Array
    ) -> None:
        rows = np.flatnonzero((surface == NO_SURFACE).any(axis=1))
        if self._sky is None or len(rows) == 0:
            return
        box = np.s_[int(rows[0]) : int(rows[-1]) + 1, 0 : image.shape[1]]
        ceiling = np.diag([1.0 / self._sky_repeat, 1.0 / self._sky_repeat, 1.0]) @ world_from_sample
        above = _affine(world_from_sample[2], box) > 1e-3
        above &= surface[box] == NO_SURFACE
        np.copyto(image[box], _shade(self._sky, ceiling, box), where=above)


def _ray_from_sample(camera: CameraModel) -> Array:
    """Return the (3, 3) matrix from a sample (x, y, 1) to its ray (x, y, 1)."""
    pixel = np.diag([1.0 / SAMPLES, 1.0 / SAMPLES, 1.0])
    pixel[:2, 2] = 0.5 / SAMPLES - 0.5
    ray = np.diag([1.0 / camera.fx, 1.0 / camera.fy, 1.0])
    ray[:2, 2] = -camera.cx / camera.fx, -camera.cy / camera.fy
    return np.asarray(ray @ pixel)


def _row_intervals(
    homographies: Array, width: int, height: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    """Return the first and last column of each rectangle (n) in each row: two (n, height)."""
    u, v, w = homographies[:, 0], homographies[:, 1], homographies[:, 2]
    near = np.array([0.0, 0.0, 1.0 / NEAR_M]) - w
    low = np.zeros((len(homographies), height))
    high = np.full((len(homographies), height), width - 1.0)
    y = np.arange(height, dtype=np.float64)
    for bound in (u, w - u, v, w - v, near, w):  # each at least 0 inside
        slope = np.where(np.abs(bound[:, 0]) < _FLAT, _FLAT, bound[:, 0])
        moved, crossing = -bound[:, 1] / slope, -bound[:, 2] / slope
        rising = slope > 0.0
        for some, limit, tighter, slack in (
            (rising, low, np.maximum, -_EDGE_SLACK_PX),
            (~rising, high, np.minimum, _EDGE_SLACK_PX),
        ):
            edge = np.multiply.outer(moved[some], y)
            edge += crossing[some, None] + slack
            limit[some] = tighter(limit[some], edge)
    first = np.minimum(np.ceil(low), width).astype(np.int16)
    last = np.maximum(np.floor(high), -1.0).astype(np.int16)
    return first, last


def _affine(row: Array, box: tuple[slice, slice], step: int = 1) -> Floats:
    """Return an affine function of the samples in a box, or of every `step`-th block's middle."""
    middle = 0.5 * (step - 1)
    y = np.arange(box[0].start, box[0].stop, step) + middle
    x = np.arange(box[1].start, box[1].stop, step) + middle
    by_row, by_column = row[1] * y + row[2], row[0] * x
    return np.asarray(np.add.outer(by_row.astype(np.float32), by_column.astype(np.float32)))


def _paint(quad: Quad, homography: Array, box: tuple[slice, slice]) -> Image:
    """Return the rectangle's grey values over a box."""
    repeats = np.diag([*quad.repeats, 1.0])
    repeats[:2, 2] = quad.phase
    grey = _shade(quad.texture, repeats @ homography, box)
    return np.asarray(cv2.convertScaleAbs(grey, alpha=quad.gain), dtype=np.uint8)


def _shade(texture: Texture, homography: Array, box: tuple[slice, slice]) -> Image:
    """Return the texture's grey values over a box, through a homography into its repeats."""
    depth = 1.0 / np.maximum(_affine(homography[2], box), _LEAST_INVERSE_DEPTH)
    u, v = _affine(homography[0], box), _affine(homography[1], box)
    u *= depth
    v *= depth
    return texture.sample(u, v, *_footprint(homography, box, (texture.width, texture.height)))


def _footprint(
    homography: Array, box: tuple[slice, slice], size: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Return the texels between neighbouring samples, along u and along v.

    Found once for each block of samples. Between two levels of detail the samples of a block
    divide, so that their mean blends both levels.
    """
    depth = 1.0 / np.maximum(_affine(homography[2], box, SAMPLES), _LEAST_INVERSE_DEPTH)
    height, width = box[0].stop - box[0].start, box[1].stop - box[1].start
    blends = np.tile(_BLENDS, depth.shape[1])
    texels = []
    for axis, repeat in enumerate(size):
        position = _affine(homography[axis], box, SAMPLES) * depth
        across = np.abs(np.float32(homography[2, 0]) * position - np.float32(homography[axis, 0]))
        down = np.abs(np.float32(homography[2, 1]) * position - np.float32(homography[axis, 1]))
        block = np.maximum(across, down, out=across)
        block *= depth
        block *= np.float32(repeat)
        spread = cv2.resize(block, None, fx=SAMPLES, fy=SAMPLES, interpolation=cv2.INTER_NEAREST)
        for row, blend in enumerate(blends):
            spread[row::SAMPLES] *= blend
        texels.append(np.ascontiguousarray(spread[:height, :width]))
    return texels[0], texels[1]


def _wide_pinhole(camera: CameraModel) -> CameraModel:
    """Return a pinhole camera that sees at least what a distorted camera sees, as sharply."""
    v, u = np.indices((camera.height, camera.width), dtype=np.float64)
    rays = camera.back_project(np.stack([u, v], axis=-1))[..., :2].reshape(-1, 2)
    low, high = np.nanmin(rays, axis=0), np.nanmax(rays, axis=0)
    focal = np.array([camera.fx, camera.fy])
    centre = _LENS_MARGIN_PX - low * focal
    width, height = (math.ceil(s) for s in (high - low) * focal + 2.0 * _LENS_MARGIN_PX)
    return CameraModel(width, height, camera.fx, camera.fy, float(centre[0]), float(centre[1]))


def _to_pixels(
    camera: CameraModel,
    pinhole: CameraModel,
    image: Image,
    inverse_depth: Floats,
    surface: npt.NDArray[np.int16],
) -> Rendering:
    """Join the samples of each pixel, through the lens where the camera has one."""
    grey = image.astype(np.float32)
    if camera != pinhole:
        ray_from_sample = _ray_from_sample(
            CameraModel(camera.width, camera.height, 1.0, 1.0, 0.0, 0.0)
        )
        shape = camera.height * SAMPLES, camera.width * SAMPLES
        v, u = np.indices(shape, dtype=np.float64)
        pixels = np.stack([u, v], axis=-1) * ray_from_sample[0, 0] + ray_from_sample[0, 2]
        source = pinhole.project(camera.back_project(pixels)) * SAMPLES + 0.5 * (SAMPLES - 1)
        x, y = np.nan_to_num(source, nan=-10.0).astype(np.float32).transpose(2, 0, 1)
        grey = cv2.remap(grey, x, y, cv2.INTER_LINEAR)
        inverse_depth = cv2.remap(inverse_depth, x, y, cv2.INTER_LINEAR)
        surface = cv2.remap(surface, x, y, cv2.INTER_NEAREST, borderValue=NO_SURFACE)
    corners = [surface[i::SAMPLES, j::SAMPLES] for i, j in np.ndindex(SAMPLES, SAMPLES)]
    pure = np.logical_and.reduce([corner == corners[0] for corner in corners[1:]])
    return Rendering(
        cv2.resize(grey, camera.size, interpolation=cv2.INTER_AREA),
        cv2.resize(inverse_depth, camera.size, interpolation=cv2.INTER_AREA),
        np.where(pure, corners[0], np.int16(NO_SURFACE)),
    )
