"""What the node publishes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from nav_msgs.msg import Odometry, Path
from rclpy.exceptions import ParameterException
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import PointCloud2

from vo_stream.config import Config
from vo_stream.errors import ConfigError
from vo_stream.io_config import PublishConfig
from vo_stream.ros import interface
from vo_stream.ros.frames import FORWARD, base_state, moved_to_base
from vo_stream.ros.outgoing import (
    KeyframePath,
    cloud_message,
    odometry_message,
    tf_message,
    transform_message,
)
from vo_stream.ros.qos import profile, reason_of
from vo_stream.ros.tf_watch import ParentWatch
from vo_stream.ros.trajectory_log import TrajectoryLog
from vo_stream.se3 import SE3, Array
from vo_stream.values import Estimate, Refinement

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What ~/save_trajectory writes: a session's poses of the camera.

    `stamps_ns`: (n,). `poses`: odom_from_camera, (n, 7) wxyz and xyz. `keyframes`: stamps and
    map_from_camera. `metric`: whether the newest lengths are metres.
    """

    stamps_ns: npt.NDArray[np.int64]
    poses: Array
    keyframes: list[tuple[int, SE3]]
    metric: bool


class Publishers:
    """Turns estimates and refinements into messages; an `Outputs` of the worker.

    `shown`: what to publish, which may change at any time. `watch` is told of every transform.
    """

    def __init__(self, node: Any, config: Config, watch: ParentWatch) -> None:
        self.shown: PublishConfig = config.publish
        self._trajectory = TrajectoryLog(config.node.trajectory_length)
        self._path_length = config.publish.path_length
        self._keyframes = KeyframePath(self._path_length)
        self._node = node
        self._watch = watch
        self._frames = config.frames
        self._adjusted = config.adjust.enabled
        track = config.track
        self._unseen = np.repeat([track.lost_speed_m_s, track.lost_turn_rate_rad_s], 3)
        self._session = 0
        self._metric = False
        self._mounted = ""
        self._readers = 0
        self._base_from_camera: SE3 | None = None
        self._map_from_odom = SE3.identity()
        self._made: list[Any] = []
        self._odometry = self._publisher(Odometry, interface.ODOMETRY)
        self._path = self._publisher(Path, interface.PATH)
        self._landmarks = self._publisher(PointCloud2, interface.LANDMARKS)
        self._tf = self._static_tf = None
        if find_spec("tf2_msgs") is None:
            logger.warning("no transforms are published: tf2_msgs is missing (make ros)")
            return
        from tf2_msgs.msg import TFMessage

        self._tf = self._publisher(TFMessage, interface.TF)
        self._static_tf = self._publisher(TFMessage, interface.TF_STATIC)

    def close(self) -> None:
        """Stop offering the topics."""
        while self._made:
            self._node.destroy_publisher(self._made.pop())

    def kept(self) -> Kept:
        """Return a copy of what was published of this session; for the worker's thread."""
        stamps_ns, poses = self._trajectory.copy()
        return Kept(stamps_ns, poses, self._keyframes.poses(), self._metric)

    def publish_mount(self, camera_frame: str) -> None:
        """Publish, once, that the camera looks forward; for those who draw it."""
        if camera_frame == self._mounted:
            return
        self._mounted = camera_frame
        now_ns = self._node.get_clock().now().nanoseconds
        mount = transform_message(now_ns, self._frames.base, camera_frame, FORWARD)
        self._publish_transforms(self._static_tf, [mount])

    def publish_estimate(self, estimate: Estimate, base_from_camera: SE3, dt_s: float) -> None:
        """Publish odometry and transforms; see `Outputs`."""
        if estimate.session != self._session:
            self._session, self._map_from_odom = estimate.session, SE3.identity()
            self._keyframes = KeyframePath(self._path_length)
        state = base_state(estimate, base_from_camera, dt_s, self._unseen)
        stamp_ns, frames = estimate.stamp_ns, self._frames
        self._odometry.publish(odometry_message(stamp_ns, state, frames.odom, frames.base))
        transforms = []
        if self.shown.odom_tf:
            at_base = state.odom_from_base
            transforms.append(transform_message(stamp_ns, frames.odom, frames.base, at_base))
        if self.shown.map_tf and self._adjusted:
            at_odom = self._map_from_odom
            transforms.append(transform_message(stamp_ns, frames.map, frames.odom, at_odom))
        self._publish_transforms(self._tf, transforms)
        self._trajectory.add(estimate)
        self._metric = estimate.metric

    def publish_refinement(self, refinement: Refinement, base_from_camera: SE3) -> None:
        """Publish path and landmarks, and keep map -> odom for the next image."""
        self._map_from_odom = moved_to_base(refinement.map_from_odom, base_from_camera)
        self._keyframes.add(refinement)
        self._base_from_camera = base_from_camera
        if self._path.get_subscription_count():
            self.publish_path()
        if self.shown.landmarks:
            points = base_from_camera.apply(refinement.landmarks).astype(np.float32)
            self._landmarks.publish(
                cloud_message(
                    refinement.stamp_ns, self._frames.map, points, refinement.landmark_stds
                )
            )

    def publish_path(self) -> None:
        """Publish the path as it is now; costs some milliseconds where it is long."""
        if self.shown.path and self._base_from_camera is not None:
            self._path.publish(self._keyframes.message(self._frames.map, self._base_from_camera))

    def has_new_reader(self) -> bool:
        """Return whether someone came to read the path since this was last asked."""
        before, self._readers = self._readers, self._path.get_subscription_count()
        return bool(self._readers > before)

    def _publish_transforms(self, publisher: Any, transforms: list[Any]) -> None:
        if publisher is not None and transforms:
            self._watch.published(transforms)
            publisher.publish(tf_message(transforms))

    def _publisher(self, message: type, topic: interface.Topic) -> Any:
        name = self._node.resolve_topic_name(topic.name)
        try:
            made = self._node.create_publisher(
                message,
                name,
                profile(topic.qos),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        except (ParameterException, RuntimeError, TypeError) as error:
            self.close()
            raise ConfigError(f"{reason_of(error)}: mend qos_overrides.{name}") from None
        self._made.append(made)
        return made
