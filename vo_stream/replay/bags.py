"""ROS 1 and ROS 2 bags, read without ROS."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vo_stream.camera import CameraModel
from vo_stream.encodings import ImageError
from vo_stream.errors import ConfigError, SourceError
from vo_stream.messages import camera_of, grey_of, is_rectified, stamp_ns_of
from vo_stream.replay.bag_reader import BagReader, BrokenBagError, why
from vo_stream.replay.bag_topics import (
    CAMERA_INFO,
    ODOMETRY,
    TWIST_STAMPED,
    chosen_camera_info,
    chosen_groundtruth,
    chosen_topic,
    chosen_wheel,
)
from vo_stream.replay.calibration import read_calibration
from vo_stream.replay.trajectory import Trajectory
from vo_stream.se3 import SE3
from vo_stream.travelled import TravelledDistance, camera_speed_of
from vo_stream.values import Frame

if TYPE_CHECKING:
    from rosbags.interfaces import TopicInfo

logger = logging.getLogger(__name__)


class BagSource:
    """A `sources.Source` of one image topic of a bag.

    The stamp is that of the message's header; where the first image has none, it is the time of
    recording for all. The camera is that of the latest CameraInfo, or the first for the images
    before it. With a wheel topic each frame says how far the robot had come, as its messages so far
    tell; the camera is taken to be at the robot's base. Raises SourceError.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        topic: str = "",
        camera_info_topic: str = "",
        rectified: bool = False,
        calib: Path | None = None,
        groundtruth_topic: str = "",
        wheel_topic: str = "",
    ) -> None:
        self.name = path.resolve().name if path.is_dir() else path.resolve().stem
        self.kind = kind
        self.groundtruth: Trajectory | None = None
        self.skipped: Counter[str] = Counter()
        self._path = path
        self._reader = BagReader(path, kind)
        self._typestore = self._definitions()
        try:
            topics = self._reader.topics
            self._topic = chosen_topic(path, topics, topic)
            self._rectified = rectified or is_rectified(self._topic)
            self._connections = list(topics[self._topic].connections)
            self.length: int | None = topics[self._topic].msgcount
            if calib is not None:
                self._camera = read_calibration(calib, rectified=self._rectified)
            else:
                info_topic = chosen_camera_info(path, topics, self._topic, camera_info_topic)
                self._camera = self._first_camera(info_topic, topics[info_topic])
                self._connections += topics[info_topic].connections
            if groundtruth_topic:
                name = chosen_groundtruth(path, topics, groundtruth_topic)
                self.groundtruth = self._poses(name, topics[name])
            if wheel_topic:
                name = chosen_wheel(path, topics, wheel_topic)
                self._connections += topics[name].connections
        except SourceError:
            self.close()
            raise

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in the order of recording; bad images are skipped and counted."""
        self.skipped.clear()
        camera, distance = self._camera, TravelledDistance()
        use_header: bool | None = None
        for message_type, recorded_ns, message in self._messages(self._connections):
            if message_type == CAMERA_INFO:
                camera = self._updated(camera, message)
                continue
            stamp_ns = stamp_ns_of(message)
            if message_type in (ODOMETRY, TWIST_STAMPED):
                if not distance.add(stamp_ns or recorded_ns, camera_speed_of(message, None)):
                    self._skip("bad wheel speed", f"wheel speed at {stamp_ns} ns not used")
                continue
            if use_header is None:
                use_header = stamp_ns != 0
                if not use_header:
                    why = "has no stamps: the times of recording are used"
                    logger.warning("%s: %s %s", self._path, self._topic, why)
            try:
                image = grey_of(message)
            except ImageError as error:
                self._skip(error.reason, f"{self._topic} at {stamp_ns} ns: {error}")
                continue
            stamp_ns = stamp_ns if use_header else recorded_ns
            yield Frame(stamp_ns, image, camera, distance.at(stamp_ns))

    def close(self) -> None:
        """Close the bag."""
        self._reader.close()

    def __enter__(self) -> BagSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _definitions(self) -> Any:
        """Return ROS's own definitions of the messages that are read."""
        from rosbags.typesys import Stores, get_typestore

        return get_typestore(Stores.ROS1_NOETIC if self.kind == "rosbag1" else Stores.ROS2_JAZZY)

    def _messages(self, connections: list[Any]) -> Iterator[tuple[str, int, Any]]:
        """Yield type, time of recording and message, until the end or where the bag is broken."""
        try:
            for connection, recorded_ns, raw in self._reader.messages(connections):
                try:
                    if self.kind == "rosbag1":
                        message = self._typestore.deserialize_ros1(raw, connection.msgtype)
                    else:
                        message = self._typestore.deserialize_cdr(raw, connection.msgtype)
                except self._reader.errors as error:
                    detail = f"{connection.topic}: broken message ({why(error)})"
                    self._skip("broken message", detail)
                    continue
                yield connection.msgtype, recorded_ns, message
        except BrokenBagError as error:
            self._skip("broken bag", str(error))

    def _first_camera(self, topic: str, info: TopicInfo) -> CameraModel:
        for _, _, message in self._messages(list(info.connections)):
            try:
                return camera_of(message, self._rectified)
            except ConfigError as error:
                raise SourceError(f"{self._path}: {topic}: {error}; give --calib FILE") from None
        raise SourceError(f"{self._path}: {topic} holds no CameraInfo; give --calib FILE")

    def _poses(self, topic: str, info: TopicInfo) -> Trajectory:
        stamps, poses = [], []
        for _, _, message in self._messages(list(info.connections)):
            pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
            p, q = pose.position, pose.orientation
            with suppress(ValueError):  # a quaternion of zeros: not known then
                place = SE3.from_quaternion_xyzw([q.x, q.y, q.z, q.w], [p.x, p.y, p.z])
                if place.is_finite:
                    stamps.append(stamp_ns_of(message))
                    poses.append(place)
        if not poses:
            raise SourceError(f"{self._path}: {topic} holds no pose")
        return Trajectory.from_unsorted(stamps, poses)

    def _updated(self, camera: CameraModel, message: Any) -> CameraModel:
        try:
            new = camera_of(message, self._rectified)
        except ConfigError as error:
            self._skip("bad CameraInfo", f"CameraInfo not used, {error}")
            return camera
        return camera if new == camera else new  # whoever caches by identity keeps its cache

    def _skip(self, reason: str, detail: str) -> None:
        self.skipped[reason] += 1
        logger.warning("%s: %s", self._path, detail)
