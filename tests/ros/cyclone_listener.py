"""Hears a node by Cyclone DDS alone; run by the python of an environment that has `cyclonedds`.

The types are written down here once more, field for field as ROS 2 puts them on the wire.
Arguments: the domain and the full names of an Odometry and a TFMessage topic. Writes one JSON list
for each message: its topic, its stamps in nanoseconds, its frames, and its numbers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import make_idl_struct
from cyclonedds.idl.types import array, float64, int32, sequence, uint32
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration


def struct(package: str, name: str, **fields: Any) -> Any:
    return make_idl_struct(name, f"{package}::msg::dds_::{name}_", fields)


XYZ: dict[str, Any] = {"x": float64, "y": float64, "z": float64}
COVARIANCE: Any = array[float64, 36]

TIME = struct("builtin_interfaces", "Time", sec=int32, nanosec=uint32)
HEADER = struct("std_msgs", "Header", stamp=TIME, frame_id=str)
VECTOR3 = struct("geometry_msgs", "Vector3", **XYZ)
POINT = struct("geometry_msgs", "Point", **XYZ)
QUATERNION = struct("geometry_msgs", "Quaternion", **XYZ, w=float64)
POSE = struct("geometry_msgs", "Pose", position=POINT, orientation=QUATERNION)
TWIST = struct("geometry_msgs", "Twist", linear=VECTOR3, angular=VECTOR3)
TRANSFORM = struct("geometry_msgs", "Transform", translation=VECTOR3, rotation=QUATERNION)
ODOMETRY = struct(
    "nav_msgs",
    "Odometry",
    header=HEADER,
    child_frame_id=str,
    pose=struct("geometry_msgs", "PoseWithCovariance", pose=POSE, covariance=COVARIANCE),
    twist=struct("geometry_msgs", "TwistWithCovariance", twist=TWIST, covariance=COVARIANCE),
)
TRANSFORM_STAMPED = struct(
    "geometry_msgs", "TransformStamped", header=HEADER, child_frame_id=str, transform=TRANSFORM
)
TF_MESSAGE = struct("tf2_msgs", "TFMessage", transforms=sequence[TRANSFORM_STAMPED])

RELIABLE = Qos(Policy.Reliability.Reliable(duration(seconds=1)), Policy.History.KeepLast(1000))


def main() -> None:
    domain, *topics = sys.argv[1:]
    participant = DomainParticipant(int(domain))
    readers = {
        topic: DataReader(participant, Topic(participant, f"rt{topic}", kind), qos=RELIABLE)
        for topic, kind in zip(topics, (ODOMETRY, TF_MESSAGE), strict=True)
    }
    while True:
        for topic, reader in readers.items():
            for message in reader.take(100):
                sys.stdout.write(said(topic, getattr(message, "transforms", [message])) + "\n")
        sys.stdout.flush()
        time.sleep(0.01)


def said(topic: str, stamped: list[Any]) -> str:
    """Return a message, or the transforms of one, as JSON."""
    stamps_ns = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in stamped]
    frames = [[m.header.frame_id, m.child_frame_id] for m in stamped]
    return json.dumps([topic, stamps_ns, frames, list(numbers(stamped))])


def numbers(value: Any) -> Iterator[float]:
    """Yield the floating-point numbers of a message, in the order of its fields."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from numbers(item)
    elif not isinstance(value, (int, str)):
        yield from numbers(list(vars(value).values()))


if __name__ == "__main__":
    main()
