"""Choosing among the topics of a bag."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vo_stream.errors import SourceError
from vo_stream.messages import camera_info_beside

if TYPE_CHECKING:
    from rosbags.interfaces import TopicInfo

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POSE_STAMPED = "geometry_msgs/msg/PoseStamped"
ODOMETRY = "nav_msgs/msg/Odometry"
TWIST_STAMPED = "geometry_msgs/msg/TwistStamped"

_LISTED_TOPICS = 20


def chosen_topic(path: Path, topics: dict[str, TopicInfo], wanted: str) -> str:
    """Return the wanted image topic, or the only one there is; raises SourceError."""
    images = {
        name: info
        for name, info in topics.items()
        if info.msgtype in (IMAGE, COMPRESSED_IMAGE) and not name.endswith("/compressedDepth")
    }
    if not images:
        raise SourceError(f"{path}: has no image topic; it has {_listed(topics)}")
    if wanted:
        for name in (wanted, f"/{wanted}"):
            if name in images:
                return name
        raise SourceError(f"{path}: has no image topic {wanted}; it has {_listed(images)}")
    # Recorders also note topics that were announced and stayed silent.
    candidates = [name for name, info in images.items() if info.msgcount] or list(images)
    if len(candidates) > 1:
        raise SourceError(f"{path}: choose an image topic with --topic: {_listed(images)}")
    return candidates[0]


def chosen_camera_info(
    path: Path, topics: dict[str, TopicInfo], image_topic: str, wanted: str
) -> str:
    """Return the wanted CameraInfo topic, or the one beside the images; raises SourceError."""
    infos = {name: info for name, info in topics.items() if info.msgtype == CAMERA_INFO}
    beside = wanted or camera_info_beside(image_topic)
    for name in (beside, f"/{beside}"):
        if name in infos:
            return name
    beside = _printable(beside)
    has = f"it has {_listed(infos)}; choose one" if infos else "it has none"
    raise SourceError(f"{path}: has no CameraInfo on {beside}; {has} or give --calib FILE")


def chosen_groundtruth(path: Path, topics: dict[str, TopicInfo], wanted: str) -> str:
    """Return the wanted topic of poses; raises SourceError."""
    return _chosen(path, topics, wanted, (POSE_STAMPED, ODOMETRY))


def chosen_wheel(path: Path, topics: dict[str, TopicInfo], wanted: str) -> str:
    """Return the wanted topic of the robot's speed; raises SourceError."""
    return _chosen(path, topics, wanted, (ODOMETRY, TWIST_STAMPED))


def _chosen(path: Path, topics: dict[str, TopicInfo], wanted: str, types: tuple[str, str]) -> str:
    fitting = {name: info for name, info in topics.items() if info.msgtype in types}
    for name in (wanted, f"/{wanted}"):
        if name in fitting:
            return name
    kinds = " or ".join(kind.rpartition("/")[2] for kind in types)
    raise SourceError(f"{path}: has no {kinds} on {_printable(wanted)}; it has {_listed(fitting)}")


def _listed(topics: dict[str, TopicInfo]) -> str:
    texts = []
    for name, info in topics.items():
        kind = (info.msgtype or "several types").rpartition("/")[2]
        texts.append(_printable(f"{name} ({kind}, {info.msgcount})"))
    return ", ".join(texts[:_LISTED_TOPICS] + ["..."] * (len(texts) > _LISTED_TOPICS)) or "none"


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)
