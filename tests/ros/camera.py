"""A camera on the test's graph: publishes a rendered drive, image by image."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vo_stream.demo.world import render_demo
from vo_stream.ros.outgoing import time_of
from vo_stream.se3 import SE3
from vo_stream.values import NANOSECONDS, Frame

if TYPE_CHECKING:
    from graph import Graph

    from vo_stream.camera import CameraModel

FPS = 20.0

ON_THE_WAY_S = 0.2
"""A message that was sent so long ago has arrived."""


@dataclass(frozen=True, slots=True, eq=False)
class Footage:
    """Frames, and world_from_camera of each.

    Counted on beyond its end, it runs backwards and forwards again: as long as a test needs.
    """

    frames: tuple[Frame, ...]
    poses: tuple[SE3, ...]

    def at(self, i: int) -> int:
        """Return which frame is the i-th to be shown."""
        last = len(self.frames) - 1
        return last - abs(last - i % (2 * last))

    def stamp_ns(self, i: int) -> int:
        """Return the stamp of the i-th frame shown."""
        return self.frames[0].stamp_ns + round(i * NANOSECONDS / FPS)


@cache
def footage(
    world: str = "street", seconds: float = 3.0, size: tuple[int, int] = (320, 96)
) -> Footage:
    """Render a world at `FPS`, once in a process: 3 s of the street go straight, 10 m/s to 1."""
    frames, poses = zip(*render_demo(world, seconds, FPS, size=size), strict=True)
    return Footage(frames, poses)


class Camera:
    """Publishes images, and with each its CameraInfo, through a graph's node.

    `film`: what is shown, by default `footage()`. `infos`: where to publish CameraInfo, empty for
    not at all. `later_ns` may be set: what is added to the stamps.
    """

    def __init__(
        self,
        graph: Graph,
        film: Footage | None = None,
        frame_id: str = "camera",
        images: str = "image",
        infos: str = "camera_info",
        compressed: bool = False,
        qos: QoSProfile = qos_profile_sensor_data,
    ) -> None:
        self.film = film or footage()
        self.shown = 0
        self.later_ns = 0
        self._graph = graph
        self._frame_id = frame_id
        self._compressed = compressed
        kind = CompressedImage if compressed else Image
        topic = f"{images}/compressed" if compressed else images
        self._images = graph.node.create_publisher(kind, topic, qos)
        self._infos = graph.node.create_publisher(CameraInfo, infos, qos) if infos else None

    def wait_for_reader(self, timeout_s: float = 20.0) -> None:
        """Wait until somebody subscribes to all that is published, and knows the calibration."""
        made = [p for p in (self._images, self._infos) if p is not None]
        self._graph.spin_until(lambda: all(p.get_subscription_count() for p in made), timeout_s)
        if self._infos is not None:
            self._infos.publish(self._info(self.film.frames[0].stamp_ns))
            self._graph.spin(ON_THE_WAY_S)

    def publish(
        self,
        i: int | None = None,
        stamp_ns: int | None = None,
        image: npt.NDArray[np.uint8] | None = None,
    ) -> int:
        """Publish the i-th frame, by default the next; return its stamp.

        `stamp_ns` and `image` replace the frame's own.
        """
        i = self.shown if i is None else i
        self.shown = i + 1
        frame = self.film.frames[self.film.at(i)]
        stamp_ns = self.film.stamp_ns(i) + self.later_ns if stamp_ns is None else stamp_ns
        if self._infos is not None:
            self._infos.publish(self._info(stamp_ns))
        pixels = frame.image if image is None else image
        made = compressed_message if self._compressed else image_message
        self._images.publish(made(pixels, stamp_ns, self._frame_id))
        return stamp_ns

    def stream(
        self, count: int, rate_hz: float = FPS, image: npt.NDArray[np.uint8] | None = None
    ) -> list[int]:
        """Publish the next frames at a rate, taking part in the graph; return their stamps."""
        began_s, stamps_ns = time.monotonic(), []
        for n in range(1, count + 1):
            stamps_ns.append(self.publish(image=image))
            self._graph.spin(began_s + n / rate_hz - time.monotonic())
        return stamps_ns

    def _info(self, stamp_ns: int) -> Any:
        return info_message(self.film.frames[0].camera, stamp_ns, self._frame_id)


def image_message(image: npt.NDArray[np.uint8], stamp_ns: int, frame_id: str) -> Any:
    """Return the mono8 Image of a grey image."""
    height, width = image.shape
    message = Image(height=height, width=width, encoding="mono8", step=width)
    message.header.stamp, message.header.frame_id = time_of(stamp_ns), frame_id
    message.data = array("B", image.tobytes())
    return message


def compressed_message(image: npt.NDArray[np.uint8], stamp_ns: int, frame_id: str) -> Any:
    """Return the CompressedImage of a grey image, as JPEG."""
    message = CompressedImage(format="mono8; jpeg compressed mono8")
    message.header.stamp, message.header.frame_id = time_of(stamp_ns), frame_id
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    message.data = array("B", encoded.tobytes())
    return message


def info_message(camera: CameraModel, stamp_ns: int, frame_id: str) -> Any:
    """Return the CameraInfo of a camera."""
    plain = camera.distortion_model == "none"
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    message = CameraInfo(
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob" if plain else camera.distortion_model,
        d=[0.0] * 5 if plain else list(camera.distortion),
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=np.eye(3).ravel(),
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
    message.header.stamp, message.header.frame_id = time_of(stamp_ns), frame_id
    return message
