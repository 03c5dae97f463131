"""Messages for the graph, made from values."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseStamped,
    PoseWithCovariance,
    Quaternion,
    Transform,
    TransformStamped,
    Twist,
    TwistWithCovariance,
    Vector3,
)
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from vo_stream.ros.frames import BaseState, moved_to_base
from vo_stream.se3 import SE3
from vo_stream.values import NANOSECONDS, Refinement

CLOUD_FIELDS = ("x", "y", "z", "std")
"""Of a landmark, each a float32."""

_FLOAT_BYTES = 4


def time_of(stamp_ns: int) -> Time:
    """Return a stamp as a builtin_interfaces/Time."""
    seconds, nanoseconds = divmod(stamp_ns, NANOSECONDS)
    return Time(sec=seconds, nanosec=nanoseconds)


def odometry_message(stamp_ns: int, state: BaseState, odom_frame: str, base_frame: str) -> Odometry:
    """Return the nav_msgs/Odometry of base_link."""
    vx, vy, vz, wx, wy, wz = _numbers(state.twist)
    return Odometry(
        header=_header(stamp_ns, odom_frame),
        child_frame_id=base_frame,
        pose=PoseWithCovariance(
            pose=_pose(state.odom_from_base), covariance=_row_major(state.pose_covariance)
        ),
        twist=TwistWithCovariance(
            twist=Twist(linear=Vector3(x=vx, y=vy, z=vz), angular=Vector3(x=wx, y=wy, z=wz)),
            covariance=_row_major(state.twist_covariance),
        ),
    )


def transform_message(
    stamp_ns: int, parent: str, child: str, parent_from_child: SE3
) -> TransformStamped:
    """Return a geometry_msgs/TransformStamped: where `child` lies in `parent`."""
    x, y, z = _numbers(parent_from_child.translation)
    return TransformStamped(
        header=_header(stamp_ns, parent),
        child_frame_id=child,
        transform=Transform(
            translation=Vector3(x=x, y=y, z=z), rotation=_quaternion(parent_from_child)
        ),
    )


def tf_message(transforms: Iterable[TransformStamped]) -> Any:
    """Return a tf2_msgs/TFMessage; raises ImportError where tf2_msgs is not installed."""
    from tf2_msgs.msg import TFMessage

    return TFMessage(transforms=list(transforms))


class KeyframePath:
    """The keyframes of a map, each as the newest refinement that knew it said: at most `length`.

    Another session or another map starts it anew. Only what a refinement changed is made into
    messages again.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._map: tuple[int, int] | None = None
        self._poses: dict[int, SE3] = {}
        self._messages: dict[int, PoseStamped] = {}
        self._made_for: tuple[str, SE3] | None = None

    def add(self, refinement: Refinement) -> None:
        """Take in a refinement's keyframes."""
        of_map = (refinement.session, refinement.map_stamp_ns)
        if of_map != self._map:
            self._map = of_map
            self._poses.clear()
            self._messages.clear()
        newest = next(reversed(self._poses), None)
        for keyframe in refinement.keyframes:
            stamp_ns = keyframe.stamp_ns
            # A window longer than the path still knows keyframes that were left out.
            if stamp_ns in self._poses or newest is None or stamp_ns > newest:
                self._poses[stamp_ns] = keyframe.map_from_camera
                self._messages.pop(stamp_ns, None)
        while len(self._poses) > self._length:
            del self._poses[next(iter(self._poses))]

    def poses(self) -> list[tuple[int, SE3]]:
        """Return stamps (ns) and map_from_camera, oldest first."""
        return list(self._poses.items())

    def message(self, map_frame: str, base_from_camera: SE3) -> Path:
        """Return the nav_msgs/Path of base_link, stamped as its newest pose.

        Messages share the poses that did not change: they must not be written to.
        """
        made_for = self._made_for
        if made_for is None or made_for[0] != map_frame or made_for[1] is not base_from_camera:
            self._made_for = (map_frame, base_from_camera)
            self._messages.clear()
        self._messages = {
            stamp_ns: self._messages.get(stamp_ns)
            or PoseStamped(
                header=_header(stamp_ns, map_frame),
                pose=_pose(moved_to_base(map_from_camera, base_from_camera)),
            )
            for stamp_ns, map_from_camera in self._poses.items()
        }
        newest = next(reversed(self._poses), 0)
        return Path(header=_header(newest, map_frame), poses=list(self._messages.values()))


def cloud_message(
    stamp_ns: int, frame: str, points: npt.NDArray[np.float32], stds: npt.NDArray[np.float32]
) -> PointCloud2:
    """Return a sensor_msgs/PointCloud2 of (n, 3) points in `frame` and their (n,) `stds`.

    Points with a number that is not finite are left out.
    """
    rows = np.column_stack([points, stds]).astype("<f4")
    rows = rows[np.isfinite(rows).all(axis=1)]
    step = _FLOAT_BYTES * len(CLOUD_FIELDS)
    return PointCloud2(
        header=_header(stamp_ns, frame),
        height=1,
        width=len(rows),
        fields=[
            PointField(name=name, offset=_FLOAT_BYTES * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(CLOUD_FIELDS)
        ],
        is_bigendian=False,
        point_step=step,
        row_step=step * len(rows),
        data=array("B", rows.tobytes()),  # any other type is checked byte by byte on Humble
        is_dense=True,
    )


def _header(stamp_ns: int, frame: str) -> Header:
    return Header(stamp=time_of(stamp_ns), frame_id=frame)


def _pose(a_from_b: SE3) -> Pose:
    x, y, z = _numbers(a_from_b.translation)
    return Pose(position=Point(x=x, y=y, z=z), orientation=_quaternion(a_from_b))


def _quaternion(a_from_b: SE3) -> Quaternion:
    x, y, z, w = _numbers(a_from_b.quaternion_xyzw)
    return Quaternion(x=x, y=y, z=z, w=w)


def _numbers(values: npt.NDArray[np.float64]) -> list[float]:
    """Return plain floats, as messages insist on, with no negative zero."""
    numbers: list[float] = (values + 0.0).tolist()
    return numbers


def _row_major(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a (36,) array of its own, with no negative zero."""
    return (covariance + 0.0).ravel()
