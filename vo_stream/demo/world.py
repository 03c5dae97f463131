"""Two demo worlds, a street and a room, filmed by a camera whose pose is known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from vo_stream.camera import CameraModel
from vo_stream.demo import paths
from vo_stream.demo.furniture import room_scene
from vo_stream.demo.houses import street_scene
from vo_stream.demo.render import Rendering, Scene
from vo_stream.demo.ripmap import Floats, Image
from vo_stream.errors import SourceError
from vo_stream.se3 import SE3
from vo_stream.values import NANOSECONDS, Frame

STREET_CAMERA = CameraModel(1241, 376, 700.0, 700.0, 620.0, 187.5)
ROOM_CAMERA = CameraModel(640, 480, 460.0, 460.0, 319.5, 239.5)

START_NS = 1_700_000_000 * NANOSECONDS
"""Stamp of the first frame: like a clock's, so that stamps do not fit into a float32."""

NOISE_GREY = 1.5
"""Standard deviation of the sensor noise."""
EXPOSURE_DRIFT = 0.04
"""Largest relative change of the exposure, over `EXPOSURE_PERIOD_S`."""
EXPOSURE_PERIOD_S = 9.0
BLUR_SAMPLES = 5
"""Instants that a motion-blurred frame is the mean of."""


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A scene, the camera it is filmed with, and the path of that camera.

    `pose`: world_from_camera of the optical frame, metres, by the time in seconds.
    """

    name: str
    scene: Scene
    camera: CameraModel
    pose: Callable[[float], SE3]

    def render(self, seconds: float, camera: CameraModel | None = None) -> Rendering:
        """Return what a perfect camera (by default the world's own) sees at an instant."""
        return self.scene.render(camera or self.camera, self.pose(seconds))


def street(seed: int = 0) -> World:
    """Build a block of houses with a road around it; a car drives round, and stops once a lap."""
    rng = np.random.default_rng([seed, 1])
    return World("street", street_scene(rng), STREET_CAMERA, paths.street_pose)


def room(seed: int = 0) -> World:
    """Build a furnished room of 6.4 x 5.4 x 2.7 m, filmed by hand."""
    rng = np.random.default_rng([seed, 2])
    return World("room", room_scene(rng), ROOM_CAMERA, paths.room_pose)


WORLDS: dict[str, Callable[[int], World]] = {"street": street, "room": room}


def render_demo(
    name: str,
    seconds: float = 10.0,
    fps: float = 20.0,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    camera: CameraModel | None = None,
    exposure_s: float = 0.0,
) -> Iterator[tuple[Frame, SE3]]:
    """Film a world of `WORLDS`, frame by frame, each with its world_from_camera.

    `size`: (width, height) in pixels to scale the world's camera to; `camera`: another camera
    altogether, distorted if it likes; then `size` must be None. `exposure_s`: how long the shutter
    is open (motion blur); the pose is that of its middle. The same arguments give the same bytes.
    Raises SourceError for an unknown world or a length or rate that is not positive.
    """
    if name not in WORLDS:
        raise SourceError(f"there is no demo world {name!r}; use one of: {', '.join(WORLDS)}")
    if not (seconds > 0.0 and fps > 0.0):
        raise SourceError(f"a demo of {seconds} s at {fps} frames/s is not possible")
    if size is not None and camera is not None:
        raise SourceError("give the demo a size or a camera, not both")
    return _film(WORLDS[name](seed), round(seconds * fps), fps, seed, size, camera, exposure_s)


def _film(
    world: World,
    count: int,
    fps: float,
    seed: int,
    size: tuple[int, int] | None,
    camera: CameraModel | None,
    exposure_s: float,
) -> Iterator[tuple[Frame, SE3]]:
    camera = camera or (world.camera if size is None else scaled(world.camera, size))
    for i in range(count):
        offset_ns = round(i * NANOSECONDS / fps)
        t = offset_ns / NANOSECONDS
        instants = [t]
        if exposure_s > 0.0:
            shifts = (np.arange(BLUR_SAMPLES) + 0.5) / BLUR_SAMPLES - 0.5
            instants = [max(0.0, t + float(shift) * exposure_s) for shift in shifts]
        light = np.mean([world.render(instant, camera).image for instant in instants], axis=0)
        image = _sensor(light, t, np.random.default_rng([seed, 3, i]))
        yield Frame(START_NS + offset_ns, image, camera), world.pose(t)


def scaled(camera: CameraModel, size: tuple[int, int]) -> CameraModel:
    """Return the camera with its image resized to (width, height) pixels."""
    kx, ky = size[0] / camera.width, size[1] / camera.height
    return CameraModel(
        *size,
        camera.fx * kx,
        camera.fy * ky,
        (camera.cx + 0.5) * kx - 0.5,
        (camera.cy + 0.5) * ky - 0.5,
        camera.distortion_model,
        camera.distortion,
    )


def _sensor(light: Floats, seconds: float, rng: np.random.Generator) -> Image:
    exposure = 1.0 + EXPOSURE_DRIFT * math.sin(2.0 * math.pi * seconds / EXPOSURE_PERIOD_S)
    grey = rng.standard_normal(light.shape, dtype=np.float32)
    grey *= NOISE_GREY
    grey += light * np.float32(exposure)
    return np.asarray(cv2.convertScaleAbs(np.maximum(grey, 0.0)), dtype=np.uint8)
