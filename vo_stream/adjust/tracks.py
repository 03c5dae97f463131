"""Corners followed from frame to frame, each with an identity for life."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vo_stream.camera import CameraModel
from vo_stream.corners import CornerTracker, Image, Pixels, detect
from vo_stream.se3 import SE3, Array, skew

Mask: TypeAlias = npt.NDArray[np.bool_]
Ids: TypeAlias = npt.NDArray[np.int64]

WINDOW_PX = 15
"""Side of the window that the tracker compares."""

EPIPOLAR_PX = 3.0
"""Largest distance from the epipolar line of the live motion, beside that motion's own error."""

POLISH_LEVELS = 2
POLISH_PX = 2.0
"""A track may be this far from where its last keyframe's patch is found again."""

ROWS_APART = 3.0
"""Corners of one row lie at like depths more often than those of one column, by this much."""


class Tracks:
    """The corners in the newest image.

    `ids` (n,): ascending, none is ever given twice. `pixels` (n, 2) float32. `noise_px` (n,):
    standard deviation that image noise gives each on the texture it has.
    """

    def __init__(self, count: int) -> None:
        self.ids: Ids = np.empty(0, dtype=np.int64)
        self.pixels: Pixels = np.empty((0, 2), dtype=np.float32)
        self.noise_px: Array = np.empty(0)
        self._count = count
        self._next_id = 0
        self._image: Image | None = None
        self._keyframe: tuple[Image, Ids, Pixels] | None = None
        self._tracker = CornerTracker(window_px=WINDOW_PX)
        self._polisher = CornerTracker(window_px=WINDOW_PX, levels=POLISH_LEVELS)

    @property
    def image(self) -> Image | None:
        """The newest image."""
        return self._image

    def follow(
        self,
        image: Image,
        camera: CameraModel,
        prev_from_curr: SE3,
        std: Array,
        inverse_depths: Array,
    ) -> None:
        """Find the corners in the next image; what cannot be followed, or moved wrongly, is lost.

        `camera`: pinhole camera of the image. `prev_from_curr`, `std` (6,): live motion since the
        previous image and the standard deviations of its error twist (v, w). `inverse_depths`
        (n,): of the corners in the previous image, NaN where unknown; in the motion's unit.
        """
        if self._image is not None and len(self.ids):
            near = _filled(self.pixels, inverse_depths)
            guess = _moved(self.pixels, camera, prev_from_curr, near)
            pixels, good, noise_px = self._tracker.track(self._image, image, self.pixels, guess)
            missed = np.flatnonzero(~good & (near > 0.0))
            if len(missed):  # they may be far away behind something near
                old = self.pixels[missed]
                guess = _moved(old, camera, prev_from_curr, np.zeros(len(missed)))
                again = self._tracker.track(self._image, image, old, guess)
                pixels[missed], good[missed], noise_px[missed] = again
            good &= _on_epipolar_line(self.pixels, pixels, camera, prev_from_curr, std)
            self.pixels, self.noise_px = pixels, noise_px
            self._keep(good)
        self._image = image

    def polish(self) -> None:
        """Find each corner again from its patch in the last keyframe.

        Following a patch from image to image lets it slip a little each time.
        """
        if self._keyframe is None or self._image is None:
            return
        image, ids, pixels = self._keyframe
        _, then, now = np.intersect1d(ids, self.ids, assume_unique=True, return_indices=True)
        found, good, noise_px = self._polisher.track(
            image, self._image, pixels[then], self.pixels[now]
        )
        good &= np.abs(found - self.pixels[now]).max(axis=1, initial=0.0) < POLISH_PX
        self.pixels = self.pixels.copy()  # a keyframe may hold the old ones
        self.pixels[now], self.noise_px[now] = found, noise_px
        kept = np.ones(len(self.ids), dtype=np.bool_)
        kept[now] = good
        self._keep(kept)

    def start_keyframe(self) -> None:
        """Seek new corners where the image has none, and keep the image to polish by."""
        assert self._image is not None
        found = detect(self._image, self._count, self.pixels, WINDOW_PX // 2 + 1)
        fresh = np.arange(self._next_id, self._next_id + len(found))
        self._next_id += len(found)
        self.ids = np.concatenate([self.ids, fresh])
        self.pixels = np.concatenate([self.pixels, found])
        self.noise_px = np.concatenate([self.noise_px, np.zeros(len(found))])
        self._keyframe = self._image, self.ids, self.pixels

    def drop(self, ids: Ids) -> None:
        """Follow these no longer."""
        self._keep(~np.isin(self.ids, ids, assume_unique=True))

    def _keep(self, kept: Mask) -> None:
        self.ids, self.pixels = self.ids[kept], self.pixels[kept]
        self.noise_px = self.noise_px[kept]


def plane_of(pixels: Pixels, camera: CameraModel) -> Array:
    """Return the (n, 2) points on the plane z = 1 of a pinhole camera's pixels."""
    centre, focal = np.array([camera.cx, camera.cy]), np.array([camera.fx, camera.fy])
    return np.asarray((pixels - centre) / focal)


def _filled(pixels: Pixels, inverse_depths: Array) -> Array:
    """Give corners of unknown depth that of the nearest known one; 0 where there is none."""
    unknown = np.isnan(inverse_depths)
    if unknown.all():
        return np.zeros(len(pixels))
    apart = (pixels[unknown, None] - pixels[None, ~unknown]) * [1.0, ROWS_APART]
    filled = inverse_depths.copy()
    filled[unknown] = inverse_depths[~unknown][(apart**2).sum(axis=2).argmin(axis=1)]
    return np.asarray(filled)


def _moved(
    pixels: Pixels, camera: CameraModel, prev_from_curr: SE3, inverse_depths: Array
) -> Pixels:
    """Return where corners should be in the next image; where they were if that is outside."""
    moved = _rays(pixels, camera) - inverse_depths[:, None] * prev_from_curr.translation
    moved = moved @ prev_from_curr.rotation
    in_front = moved[:, 2] > 0.0
    plane = moved[:, :2] / np.where(in_front, moved[:, 2], 1.0)[:, None]
    expected = plane * [camera.fx, camera.fy] + [camera.cx, camera.cy]
    inside = in_front & (expected >= 0.0).all(axis=1)
    inside &= (expected <= [camera.width - 1, camera.height - 1]).all(axis=1)
    return np.where(inside[:, None], expected, pixels).astype(np.float32)


def _on_epipolar_line(
    prev: Pixels, curr: Pixels, camera: CameraModel, prev_from_curr: SE3, std: Array
) -> Mask:
    """Say which matches lie near the epipolar lines of a motion, as far as that is known."""
    step = float(np.linalg.norm(prev_from_curr.translation))
    unsure = float(np.linalg.norm(std[:3]))
    if not step > unsure:  # its direction says nothing
        return np.ones(len(prev), dtype=np.bool_)
    a, b = _rays(prev, camera), _rays(curr, camera)
    essential = skew(prev_from_curr.translation / step) @ prev_from_curr.rotation
    line_a, line_b = b @ essential.T, a @ essential
    norm = np.sqrt((line_a[:, :2] ** 2).sum(axis=1) + (line_b[:, :2] ** 2).sum(axis=1))
    distance = np.abs((a * line_a).sum(axis=1)) / np.maximum(norm, 1e-12)
    turned = a @ prev_from_curr.rotation
    parallax = np.linalg.norm(b - turned / turned[:, 2:], axis=1)
    allowed = EPIPOLAR_PX / camera.fx + 3.0 * np.linalg.norm(std[3:]) + parallax * unsure / step
    return np.asarray(distance <= allowed)


def _rays(pixels: Pixels, camera: CameraModel) -> Array:
    return np.concatenate([plane_of(pixels, camera), np.ones((len(pixels), 1))], axis=1)
