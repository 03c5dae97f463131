"""What the node says on a test's graph, heard by the test's own node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from graph import Graph, quiet_domain
from nav_msgs.msg import Odometry
from rclpy.qos import QoSProfile
from tf2_msgs.msg import TFMessage

from vo_stream.messages import stamp_ns_of
from vo_stream.se3 import SE3, Array

EVERYTHING = QoSProfile(depth=1000)


class Heard:
    """Odometry, transforms and diagnostics: lists that fill while the graph is spun.

    `transforms`: those of /tf, one by one.
    """

    def __init__(self, graph: Graph, node: str = "/vo_stream") -> None:
        self.odometry: list[Odometry] = []
        self.transforms: list[Any] = []
        self.reports: list[DiagnosticArray] = []
        self._graph = graph
        listen = graph.node.create_subscription
        listen(Odometry, f"{node}/odometry", self.odometry.append, EVERYTHING)
        listen(TFMessage, "/tf", lambda m: self.transforms.extend(m.transforms), EVERYTHING)
        listen(DiagnosticArray, "/diagnostics", self.reports.append, EVERYTHING)

    @property
    def diagnostics(self) -> list[DiagnosticStatus]:
        """The statuses of `reports`."""
        return [status for report in self.reports for status in report.status]

    def wait_for_odometry(self, count: int = 1, timeout_s: float = 20.0) -> None:
        """Wait until so many messages more have come."""
        there = len(self.odometry) + count
        self._graph.spin_until(lambda: len(self.odometry) >= there, timeout_s)

    def wait_for_stamp(self, stamp_ns: int, timeout_s: float = 20.0) -> None:
        """Wait for the odometry of an image."""
        self._graph.spin_until(
            lambda: self.odometry and stamp_ns_of(self.odometry[-1]) >= stamp_ns, timeout_s
        )

    def next_diagnostics(self, timeout_s: float = 20.0) -> DiagnosticStatus:
        """Wait for a status that was made after this was called, and return it."""
        there = len(self.reports)
        self._graph.spin_until(lambda: len(self.reports) > there, timeout_s)
        return self.diagnostics[-1]

    def from_to(self, parent: str, child: str) -> list[Any]:
        """Return the transforms heard from a parent to a child."""
        return [
            t for t in self.transforms if (t.header.frame_id, t.child_frame_id) == (parent, child)
        ]


@contextmanager
def graph_apart(folder: Path) -> Iterator[Graph]:
    """Give a graph on a domain of its own that lasts for as long as a fixture wants it."""
    with pytest.MonkeyPatch.context() as patch, quiet_domain() as domain:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        patch.setenv("ROS_LOG_DIR", str(folder))
        graph = Graph(int(domain), folder)
        try:
            yield graph
        finally:
            graph.close()
        assert "Traceback" not in graph.said()


def values_of(status: DiagnosticStatus) -> dict[str, str]:
    """Return the values of a status by name."""
    return {v.key: v.value for v in status.values}


def pose_of(odometry: Odometry) -> SE3:
    """Return odom_from_base."""
    p, q = odometry.pose.pose.position, odometry.pose.pose.orientation
    return SE3.from_quaternion_xyzw([q.x, q.y, q.z, q.w], [p.x, p.y, p.z])


def motion_of(transform: Any) -> SE3:
    """Return parent_from_child of a TransformStamped."""
    t, q = transform.transform.translation, transform.transform.rotation
    return SE3.from_quaternion_xyzw([q.x, q.y, q.z, q.w], [t.x, t.y, t.z])


def covariance_of(part: Any) -> Array:
    """Return the (6, 6) covariance of a PoseWithCovariance or a TwistWithCovariance."""
    return np.array(part.covariance).reshape(6, 6)
