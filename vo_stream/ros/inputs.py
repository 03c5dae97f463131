"""What the node takes in: images with all that is needed to use them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vo_stream.camera import CameraModel
from vo_stream.config import Config
from vo_stream.errors import ConfigError
from vo_stream.messages import camera_of, is_rectified
from vo_stream.replay.calibration import read_calibration
from vo_stream.ros import interface
from vo_stream.ros.inbox import Inbox
from vo_stream.ros.mount import Mount
from vo_stream.ros.qos import LOSSLESS, profile
from vo_stream.ros.stream import Arrival
from vo_stream.ros.subscription import Subscription
from vo_stream.ros.wheel import WheelDistance

logger = logging.getLogger(__name__)

SILENT_S = 1.0
"""After so long without images another publisher may have come, with another QoS."""

CALIBRATION, TRANSFORM = "no calibration", "no transform"
"""What an image may have to wait for; those that come until then are left out."""


class _Gate(MutuallyExclusiveCallbackGroup):  # type: ignore[misc]
    """Has the executor leave images with DDS while there is no room for them."""

    def __init__(self, has_room: Callable[[], bool]) -> None:
        super().__init__()
        self._has_room = has_room

    def can_execute(self, entity: object) -> bool:
        return self._has_room() and bool(super().can_execute(entity))


class Inputs:
    """Subscribes when it is made, until `close`. All of it runs in the executor's thread.

    `images`: how many came; `unused`: how many of them could not go to the inbox, by reason;
    `busiest_ms`: longest time that one of them took here; `wheel`: None where it is not asked for.
    Raises SourceError where the camera's calibration file cannot be used, ConfigError where
    qos_overrides cannot.
    """

    def __init__(
        self,
        node: Any,
        config: Config,
        inbox: Inbox[Arrival],
        mount: Mount,
        wheel: WheelDistance,
        overridden: dict[str, dict[str, Any]],
    ) -> None:
        self.images = 0
        self.unused: Counter[str] = Counter()
        self.paused = False
        self.busiest_ms = 0.0
        self._inbox = inbox
        self._mount = mount
        self.wheel = wheel if config.scale.source == "wheel" else None
        self._wait_s = 0.0 if config.input.drop_stale else config.node.wait_s
        self._held: Any = None
        self._waiting_for = ""
        self._waiting_since_s = 0.0
        self._camera: CameraModel | None = None
        self._calibration: Any = None
        self._bad_calibration = ""
        self._last_image_s = time.monotonic()
        image_topic = node.resolve_topic_name(interface.IMAGE.name)
        message: type = Image
        if config.input.transport == "compressed":
            image_topic, message = f"{image_topic}/compressed", CompressedImage
        self._rectified = config.camera.rectified or is_rectified(image_topic)
        if config.camera.calibration_file:
            path = Path(config.camera.calibration_file)
            self._camera = read_calibration(path, rectified=self._rectified)
        self._why_waiting = {TRANSFORM: mount.why_not, CALIBRATION: self._why_no_calibration}
        self._subscriptions: list[Subscription] = []
        self._wheel_subscriptions: list[Subscription] = []
        self._node = node
        self._overridden = overridden
        try:
            self._subscribe(message, image_topic, config)
        except Exception:
            self.close()
            raise

    def _subscribe(self, message: type, image_topic: str, config: Config) -> None:
        images = profile(interface.IMAGE.qos) if config.input.drop_stale else LOSSLESS
        gate = _Gate(self._has_room)
        self._image = self._subscription(message, image_topic, self._on_image, images, gate)
        if self._camera is None:
            topic = interface.CAMERA_INFO
            self._info = self._subscription(
                CameraInfo, topic.name, self._on_info, profile(topic.qos), latched=True
            )
        if self.wheel is not None:
            for topic, kind in (
                (interface.WHEEL_ODOMETRY, Odometry),
                (interface.WHEEL_TWIST, TwistStamped),
            ):
                made = self._subscription(kind, topic.name, self.wheel.add, profile(topic.qos))
                self._wheel_subscriptions.append(made)

    def _subscription(
        self,
        message: type,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile,
        group: CallbackGroup | None = None,
        latched: bool = False,
    ) -> Subscription:
        name = self._node.resolve_topic_name(topic)
        made = Subscription(
            self._node, message, name, callback, qos, self._overridden, group, latched
        )
        self._subscriptions.append(made)
        return made

    @property
    def topic(self) -> str:
        """The image topic."""
        return self._image.topic

    @property
    def lost(self) -> int:
        """How many messages DDS says were lost on the way."""
        return sum(subscription.lost for subscription in self._subscriptions)

    @property
    def silent_s(self) -> float:
        """Seconds since the last image, or since there was none."""
        return time.monotonic() - self._last_image_s

    def close(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self._subscriptions:
            subscription.close()

    def look_after(self) -> None:
        """Subscribe anew where publishers that came since ask for it; try what is held again."""
        if self._held is not None:
            self._take(self._held)
        if not self.images or self.silent_s > SILENT_S:
            self._image.adapt()
        if self._camera is None and not self._bad_calibration:
            self._info.adapt()

    def missing(self, wait_s: float) -> str:
        """Return, in one line, what is missing for longer than `wait_s`; empty where nothing is."""
        if self.silent_s > wait_s and self._has_room():
            if self.images:
                gone = f"{self.topic}: no image for more than {wait_s:g} s"
                return "; ".join(filter(None, (gone, self._image.fault())))
            return self._image.why_silent()
        if self._waiting_for and time.monotonic() - self._waiting_since_s > wait_s:
            return self._why_waiting[self._waiting_for]()
        return self._bad_calibration

    def wheels_silent(self) -> str:
        """Return, in one line, that the wheels say nothing; empty where they do or need not."""
        if self.wheel is None or self.wheel.messages:
            return ""
        topics = " or ".join(subscription.topic for subscription in self._wheel_subscriptions)
        return f"scale.source is wheel, but nothing comes on {topics}"

    def _on_image(self, message: Any) -> None:
        began_s = time.perf_counter()
        self.images += 1
        self._last_image_s = time.monotonic()
        self._take(message)
        self.busiest_ms = max(self.busiest_ms, 1e3 * (time.perf_counter() - began_s))

    def _take(self, message: Any) -> None:
        """Pass an image on, or leave it out; where none may be lost, hold it for a while first."""
        waiting_for = self._pass_on(message)
        now_s = time.monotonic()
        if waiting_for != self._waiting_for:
            self._waiting_for, self._waiting_since_s = waiting_for, now_s
        if waiting_for and now_s - self._waiting_since_s < self._wait_s:
            self._held = message
            return
        self._held = None
        if waiting_for:
            self.unused[waiting_for] += 1

    def _has_room(self) -> bool:
        return self._held is None and not self._inbox.is_full

    def _pass_on(self, message: Any) -> str:
        """Put an image into the inbox; return what is missing for that."""
        if self.paused:
            self.unused["paused"] += 1
            return ""
        if self._camera is None:
            return CALIBRATION
        base_from_camera = self._mount.base_from_camera(message.header.frame_id)
        if base_from_camera is None:
            return TRANSFORM
        if self.wheel is not None:
            self.wheel.base_from_camera = base_from_camera
        self._inbox.put(Arrival(message, self._camera, base_from_camera, time.perf_counter()))
        return ""

    def _why_no_calibration(self) -> str:
        return self._bad_calibration or f"no calibration: {self._info.why_silent()}"

    def _on_info(self, message: Any) -> None:
        message.header.stamp.sec = message.header.stamp.nanosec = 0
        if message == self._calibration:
            return
        self._calibration = message
        try:
            camera = camera_of(message, self._rectified)
        except ConfigError as error:
            self._bad_calibration = f"{self._info.topic}: {error}"
            return
        self._bad_calibration = ""
        if camera != self._camera:
            logger.info("%s: %s", self._info.topic, camera)
            self._camera = camera
