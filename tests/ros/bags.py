"""Bags for the tests of this folder: of recordings on disk, of rendered worlds, of any messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from rosbags import rosbag1, rosbag2
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.typesys import Stores, get_typestore

from vo_stream.demo.world import render_demo
from vo_stream.replay.sources import open_source
from vo_stream.se3 import SE3
from vo_stream.values import NANOSECONDS, Frame

STORE = get_typestore(Stores.ROS2_JAZZY)

IMAGE_TOPIC = "/camera/image_raw"
CAMERA_INFO_TOPIC = "/camera/camera_info"
CAMERA_FRAME = "camera_optical_frame"

Storage = Literal["mcap", "db3", "bag"]


class Message(NamedTuple):
    """A message of a bag; `type` is package/msg/Name, `content` one of `STORE`'s."""

    topic: str
    type: str
    recorded_ns: int
    content: Any


def message(topic: str, recorded_ns: int, content: Any) -> Message:
    return Message(topic, content.__msgtype__, recorded_ns, content)


def make(kind: str, **fields: Any) -> Any:
    """Return a message of a type in ROS 2."""
    return STORE.types[kind](**fields)


def header(stamp_ns: int, frame_id: str = CAMERA_FRAME) -> Any:
    seconds, nanoseconds = divmod(stamp_ns, NANOSECONDS)
    stamp = make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def image(frame: Frame, frame_id: str = CAMERA_FRAME) -> Any:
    height, width = frame.image.shape
    return make(
        "sensor_msgs/msg/Image",
        header=header(frame.stamp_ns, frame_id),
        height=height,
        width=width,
        encoding="mono8",
        is_bigendian=0,
        step=width,
        data=np.ascontiguousarray(frame.image).reshape(-1),
    )


def compressed_image(frame: Frame, frame_id: str = CAMERA_FRAME) -> Any:
    data = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].ravel()
    stamped = header(frame.stamp_ns, frame_id)
    return make("sensor_msgs/msg/CompressedImage", header=stamped, format="jpeg", data=data)


def camera_info(frame: Frame, frame_id: str = CAMERA_FRAME) -> Any:
    c = frame.camera
    plain = c.distortion_model == "none"
    return make(
        "sensor_msgs/msg/CameraInfo",
        header=header(frame.stamp_ns, frame_id),
        height=c.height,
        width=c.width,
        distortion_model="plumb_bob" if plain else c.distortion_model,
        d=np.array((0.0,) * 5 if plain else c.distortion),
        k=np.array([c.fx, 0.0, c.cx, 0.0, c.fy, c.cy, 0.0, 0.0, 1.0]),
        r=np.eye(3).reshape(-1),
        p=np.array([c.fx, 0.0, c.cx, 0.0, 0.0, c.fy, c.cy, 0.0, 0.0, 0.0, 1.0, 0.0]),
        binning_x=0,
        binning_y=0,
        roi=make(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        ),
    )


def transform(parent: str, child: str, parent_from_child: SE3, stamp_ns: int = 0) -> Any:
    """Return a TFMessage with one transform."""
    x, y, z = map(float, parent_from_child.translation)
    qx, qy, qz, qw = map(float, parent_from_child.quaternion_xyzw)
    pose = make(
        "geometry_msgs/msg/Transform",
        translation=make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
        rotation=make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
    )
    stamped = make(
        "geometry_msgs/msg/TransformStamped",
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=pose,
    )
    return make("tf2_msgs/msg/TFMessage", transforms=[stamped])


def recorded_frames(folder: Path, limit: int | None = None) -> Iterator[Frame]:
    """Yield the first frames of a recording that `vo-stream replay` reads."""
    with open_source(folder) as source:
        yield from islice(source.frames(), limit)


def rendered_frames(
    world: str = "room", seconds: float = 1.0, fps: float = 10.0, size: tuple[int, int] = (320, 240)
) -> Iterator[Frame]:
    """Yield frames of a rendered world."""
    for frame, _ in render_demo(world, seconds=seconds, fps=fps, size=size):
        yield frame


def camera_messages(
    frames: Iterable[Frame],
    compressed: bool = False,
    image_topic: str = IMAGE_TOPIC,
    frame_id: str = CAMERA_FRAME,
) -> Iterator[Message]:
    """Yield CameraInfo and image of each frame, recorded at its stamp."""
    for frame in frames:
        info = camera_info(frame, frame_id)
        yield message(f"{image_topic.rpartition('/')[0]}/camera_info", frame.stamp_ns, info)
        if compressed:
            yield message(
                f"{image_topic}/compressed", frame.stamp_ns, compressed_image(frame, frame_id)
            )
        else:
            yield message(image_topic, frame.stamp_ns, image(frame, frame_id))


def qos(
    reliable: bool = True, transient_local: bool = False, depth: int = 10, deadline_s: int = 0
) -> Qos:
    """Return a profile as a recorder writes it."""
    unlimited = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if transient_local else QosDurability.VOLATILE,
        QosTime(deadline_s, 0) if deadline_s else unlimited,
        unlimited,
        QosLiveliness.AUTOMATIC,
        unlimited,
        avoid_ros_namespace_conventions=False,
    )


def write_bag(
    path: Path,
    messages: Iterable[Message],
    storage: Storage = "mcap",
    offered: Mapping[str, Sequence[Qos]] | None = None,
) -> Path:
    """Write messages, given in order of time, and return the path that a user would name.

    `storage`: mcap and db3 make a folder, bag a ROS 1 file `path`.bag. `offered`: the profiles of
    each topic's publishers; for ROS 1, a transient local one makes a latched topic.
    """
    offered = offered or {}
    connections: dict[str, Any] = {}
    if storage == "bag":
        path = path.with_name(f"{path.name}.bag")
        with rosbag1.Writer(path) as bag1:
            for topic, kind, recorded_ns, content in messages:
                if topic not in connections:
                    latched = any(
                        q.durability == QosDurability.TRANSIENT_LOCAL
                        for q in offered.get(topic, ())
                    )
                    connections[topic] = bag1.add_connection(
                        topic, kind, typestore=STORE, latching=int(latched)
                    )
                data = STORE.cdr_to_ros1(STORE.serialize_cdr(content, kind), kind)
                bag1.write(connections[topic], recorded_ns, bytes(data))
        return path
    plugin = rosbag2.StoragePlugin.MCAP if storage == "mcap" else rosbag2.StoragePlugin.SQLITE3
    with rosbag2.Writer(path, version=9, storage_plugin=plugin) as bag2:
        for topic, kind, recorded_ns, content in messages:
            if topic not in connections:
                profiles = offered.get(topic, ())
                connections[topic] = bag2.add_connection(
                    topic, kind, typestore=STORE, offered_qos_profiles=profiles
                )
            bag2.write(connections[topic], recorded_ns, STORE.serialize_cdr(content, kind))
    return path
