"""What the node says, as a consumer in another process gets it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from camera import Camera, footage
from graph import Graph
from heard import EVERYTHING, Heard, covariance_of, graph_apart, motion_of, pose_of, values_of
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2
from tf2_msgs.msg import TFMessage

from vo_stream.messages import stamp_ns_of
from vo_stream.ros.diagnostics import LEVELS
from vo_stream.ros.frames import FORWARD, moved_to_base
from vo_stream.ros.outgoing import CLOUD_FIELDS, tf_message, transform_message
from vo_stream.se3 import SE3, Array
from vo_stream.values import NANOSECONDS, Status

MAST = SE3.from_rotation_translation(
    SE3.exp([0.0, 0.0, 0.0, 0.0, 0.0, math.radians(70.0)]).rotation, [2.0, -0.5, 0.6]
)
"""base_link from the mast: a lever arm, and turned to the left."""

HEAD = SE3.exp([0.1, 0.0, 0.4, 0.0, math.radians(15.0), 0.0]) @ FORWARD
"""The mast from the camera, which looks down a little."""

MOUNT = MAST @ HEAD

IMAGES = 60
RATE_HZ = 40.0

LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)

WITHIN_PART = 0.1
"""Of the way: how far the drive's positions may be off, once scaled."""

WITHIN_RAD = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """A drive with the camera on a mast, as a consumer heard it.

    `sent_ns`: stamps of the images. `true_poses`: world_from_camera of each. `statics`: transforms
    of /tf_static. `path`, `landmarks`: what one gets who asks when the drive is over.
    """

    sent_ns: list[int]
    true_poses: dict[int, SE3]
    odometry: list[Odometry]
    transforms: list[Any]
    statics: list[Any]
    diagnostics: list[Any]
    path: PathMessage
    landmarks: PointCloud2

    @property
    def stamps_ns(self) -> list[int]:
        return [stamp_ns_of(odometry) for odometry in self.odometry]

    def from_to(self, parent: str, child: str) -> dict[int, SE3]:
        """Return the transforms from a parent to a child by stamp."""
        found = [t for t in self.transforms if named(t) == (parent, child)]
        by_stamp = {stamp_ns_of(t): motion_of(t) for t in found}
        assert len(by_stamp) == len(found)
        return by_stamp


def named(transform: Any) -> tuple[str, str]:
    return transform.header.frame_id, transform.child_frame_id


def publish_static(graph: Graph, parent: str, child: str, parent_from_child: SE3) -> None:
    """Publish a static transform by a publisher of its own, as every driver does."""
    publisher = graph.node.create_publisher(TFMessage, "/tf_static", LATCHED)
    publisher.publish(tf_message([transform_message(1, parent, child, parent_from_child)]))


def listen(graph: Graph, kind: Any, topic: str) -> list[Any]:
    """Return a list that fills with what was and is published on a latched topic."""
    heard: list[Any] = []
    graph.node.create_subscription(kind, topic, heard.append, LATCHED)
    return heard


def started(graph: Graph, **parameters: object) -> tuple[Camera, Heard]:
    """Start a node that loses no image, a camera that it is ready for, and one who listens."""
    camera, heard = Camera(graph, footage("room", 3.0, (240, 180)), qos=EVERYTHING), Heard(graph)
    given = {"frames__mount": "forward", **parameters}
    graph.start_node(node__autostart=True, input__drop_stale=False, **given)
    camera.wait_for_reader()
    return camera, heard


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    with graph_apart(tmp_path_factory.mktemp("drive")) as graph:
        publish_static(graph, "mast", "camera", HEAD)
        publish_static(graph, "base_link", "mast", MAST)
        statics = listen(graph, TFMessage, "/tf_static")
        camera, heard = started(graph, frames__mount="tf_static")
        sent_ns = camera.stream(IMAGES, RATE_HZ)
        # The last refinement's map -> odom comes with one image more.
        graph.spin_until(lambda: values_of(heard.next_diagnostics())["adjuster"] == "ready")
        heard.next_diagnostics()
        sent_ns += camera.stream(1)
        heard.wait_for_stamp(sent_ns[-1])
        heard.next_diagnostics()
        path = listen(graph, PathMessage, "/vo_stream/refined_path")
        landmarks = listen(graph, PointCloud2, "/vo_stream/landmarks")
        graph.spin_until(lambda: path and landmarks)
        true_poses = [camera.film.poses[camera.film.at(i)] for i in range(len(sent_ns))]
        yield Drive(
            sent_ns=sent_ns,
            true_poses=dict(zip(sent_ns, true_poses, strict=True)),
            odometry=heard.odometry,
            transforms=heard.transforms,
            statics=[t for message in statics for t in message.transforms],
            diagnostics=heard.reports,
            path=path[-1],
            landmarks=landmarks[-1],
        )


def test_every_image_has_its_odometry(drive: Drive) -> None:
    assert np.diff(drive.stamps_ns).min() > 0
    assert drive.stamps_ns == drive.sent_ns
    for odometry in drive.odometry:
        assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")


def test_poses_begin_at_the_origin_and_are_rigid(drive: Drive) -> None:
    for odometry in drive.odometry:
        q = odometry.pose.pose.orientation
        assert math.hypot(q.x, q.y, q.z, q.w) == pytest.approx(1.0, abs=1e-12)
        assert pose_of(odometry).is_finite
    np.testing.assert_allclose(pose_of(drive.odometry[0]).log(), np.zeros(6), atol=1e-12)


@pytest.mark.parametrize("of", ["pose", "twist"])
def test_covariances_can_be_inverted(drive: Drive, of: str) -> None:
    for odometry in drive.odometry:
        covariance = covariance_of(getattr(odometry, of))
        assert np.isfinite(covariance).all()
        np.testing.assert_array_equal(covariance, covariance.T)
        assert np.linalg.eigvalsh(covariance).min() > 0.0
        np.linalg.cholesky(covariance)


def test_the_twist_is_what_the_poses_say(drive: Drive) -> None:
    moving = 0
    for before, after in zip(drive.odometry, drive.odometry[1:], strict=False):
        dt_s = (stamp_ns_of(after) - stamp_ns_of(before)) / NANOSECONDS
        moved = (pose_of(before).inverse() @ pose_of(after)).log() / dt_s
        v, w = after.twist.twist.linear, after.twist.twist.angular
        np.testing.assert_allclose([v.x, v.y, v.z, w.x, w.y, w.z], moved, atol=1e-6)
        moving += bool(np.linalg.norm(moved) > 1e-3)
    assert moving > IMAGES // 2


def test_the_tree_of_transforms_holds_at_every_stamp(drive: Drive) -> None:
    at_odom, at_map = drive.from_to("odom", "base_link"), drive.from_to("map", "odom")
    assert list(at_odom) == list(at_map) == drive.stamps_ns
    for odometry in drive.odometry:
        stamp_ns = stamp_ns_of(odometry)
        np.testing.assert_array_equal(at_odom[stamp_ns].wxyz_xyz, pose_of(odometry).wxyz_xyz)
        assert (at_map[stamp_ns] @ at_odom[stamp_ns]).is_finite
    assert max(np.abs(motion.log()).max() for motion in at_map.values()) > 1e-6


def test_every_frame_has_one_parent(drive: Drive) -> None:
    links = {named(t) for t in drive.transforms + drive.statics}
    assert links == {
        ("map", "odom"),
        ("odom", "base_link"),
        ("base_link", "mast"),
        ("mast", "camera"),
    }


def test_the_base_moves_as_it_did_in_truth(drive: Drive) -> None:
    first = drive.true_poses[drive.sent_ns[0]].inverse()
    true_poses = [first @ drive.true_poses[stamp_ns] for stamp_ns in drive.stamps_ns]
    poses = [pose_of(odometry) for odometry in drive.odometry]
    at_camera = [moved_to_base(pose, MOUNT.inverse()) for pose in poses]
    scale = ratio(places(true_poses), places(at_camera))
    # The camera's way in the backend's unit, the lever arm in metres.
    expected = [
        moved_to_base(SE3.from_rotation_translation(t.rotation, t.translation / scale), MOUNT)
        for t in true_poses
    ]
    way = np.linalg.norm(np.diff(places(expected), axis=0), axis=1).sum()
    off = np.linalg.norm(places(expected) - places(poses), axis=1)
    assert off.max() < WITHIN_PART * way
    turned = [(a.inverse() @ b).angle for a, b in zip(expected, poses, strict=True)]
    assert max(turned) < WITHIN_RAD
    # With one of the mount's parts left out it would not be so.
    no_arm = SE3.from_rotation_translation(MOUNT.rotation, np.zeros(3))
    for wrong in (FORWARD, HEAD, no_arm):
        others = places([moved_to_base(pose, wrong) for pose in at_camera])
        assert np.linalg.norm(places(expected) - others, axis=1).max() > 2.0 * WITHIN_PART * way


def places(poses: list[SE3]) -> Array:
    return np.array([pose.translation for pose in poses])


def ratio(true: Array, estimated: Array) -> float:
    """Return what estimated positions must be multiplied by to be the true ones."""
    return float((true * estimated).sum() / (estimated * estimated).sum())


def test_the_path_for_who_comes_late(drive: Drive) -> None:
    stamps_ns = [stamp_ns_of(pose) for pose in drive.path.poses]
    assert len(stamps_ns) > 1
    assert np.diff(stamps_ns).min() > 0
    assert set(stamps_ns) <= set(drive.sent_ns)
    assert {pose.header.frame_id for pose in drive.path.poses} == {"map"}
    assert drive.path.header.frame_id == "map"
    newest = drive.path.poses[-1].pose
    p, q = newest.position, newest.orientation
    map_from_base = SE3.from_quaternion_xyzw([q.x, q.y, q.z, q.w], [p.x, p.y, p.z])
    map_from_odom = drive.from_to("map", "odom")[drive.sent_ns[-1]]
    odom_from_base = drive.from_to("odom", "base_link")[stamps_ns[-1]]
    off = map_from_base.inverse() @ map_from_odom @ odom_from_base
    np.testing.assert_allclose(off.log(), np.zeros(6), atol=1e-6)


def test_the_landmarks_for_who_comes_late(drive: Drive) -> None:
    cloud = drive.landmarks
    assert cloud.header.frame_id == "map"
    assert stamp_ns_of(cloud) in drive.sent_ns
    assert tuple(field.name for field in cloud.fields) == CLOUD_FIELDS
    points = np.frombuffer(cloud.data, np.float32).reshape(-1, len(CLOUD_FIELDS))
    assert len(points) == cloud.width > 20
    assert np.isfinite(points).all()
    # In front of the camera: it sees them.
    newest = drive.from_to("map", "odom")[drive.sent_ns[-1]]
    map_from_camera = newest @ drive.from_to("odom", "base_link")[stamp_ns_of(cloud)] @ MOUNT
    assert (map_from_camera.inverse().apply(points[:, :3])[:, 2] > 0.0).mean() > 0.95


def test_diagnostics_come_once_a_second_and_fit_the_status(drive: Drive) -> None:
    at_s = [stamp_ns_of(report) / NANOSECONDS for report in drive.diagnostics]
    assert len(at_s) > 2
    assert np.median(np.diff(at_s)) == pytest.approx(1.0, abs=0.2)
    for report in drive.diagnostics:
        (status,) = report.status
        values = values_of(status)
        if "status" in values:
            assert status.level == LEVELS[Status(values["status"])]
            assert status.message.startswith(values["status"])
    assert values_of(drive.diagnostics[-1].status[0])["odometry messages"] == str(IMAGES + 1)


def test_a_mount_that_looks_forward_is_published(graph: Graph) -> None:
    camera, heard = started(graph)
    heard.wait_for_stamp(camera.stream(3)[-1])
    statics = listen(graph, TFMessage, "/tf_static")
    graph.spin_until(lambda: statics)
    (transform,) = statics[0].transforms
    assert named(transform) == ("base_link", "camera")
    np.testing.assert_allclose(motion_of(transform).log(), FORWARD.log(), atol=1e-12)
    graph.spin(0.5)
    assert len(statics) == 1


@pytest.mark.parametrize(
    ("given", "published"),
    [
        ({"publish__odom_tf": False}, {("map", "odom")}),
        ({"publish__map_tf": False}, {("odom", "base_link")}),
        ({"publish__odom_tf": False, "publish__map_tf": False}, set()),
        ({"adjust__enabled": False}, {("odom", "base_link")}),
        (
            {"frames__map": "world", "frames__odom": "local", "frames__base": "robot"},
            {("world", "local"), ("local", "robot")},
        ),
    ],
)
def test_only_the_transforms_that_are_asked_for(
    graph: Graph, given: dict[str, object], published: set[tuple[str, str]]
) -> None:
    camera, heard = started(graph, **given)
    heard.wait_for_stamp(camera.stream(10, RATE_HZ)[-1])
    graph.spin(0.1)
    assert Counter(map(named, heard.transforms)) == dict.fromkeys(published, 10)
    assert heard.odometry[-1].header.frame_id == given.get("frames__odom", "odom")
    assert heard.odometry[-1].child_frame_id == given.get("frames__base", "base_link")


def test_the_dark_is_told_and_comes_to_an_end(graph: Graph) -> None:
    camera, heard = started(graph)
    heard.wait_for_stamp(camera.stream(20, RATE_HZ)[-1])
    black = np.zeros_like(camera.film.frames[0].image)
    there = len(heard.odometry)
    heard.wait_for_stamp(camera.stream(30, RATE_HZ, image=black)[-1])
    status = heard.next_diagnostics()
    assert (values_of(status)["status"], status.level) == ("lost", b"\x02")
    assert status.message.startswith("lost")
    dark = heard.odometry[there:]
    assert len(dark) == 30
    variances = np.array([np.diag(covariance_of(odometry.pose)) for odometry in dark])
    assert (np.diff(variances, axis=0) > 0.0).all()
    held = [pose_of(odometry).wxyz_xyz for odometry in dark[-10:]]
    assert np.ptp(held, axis=0).max() == 0.0

    camera.shown -= 30  # the light comes back where it went out
    camera.later_ns += round(1.5 * NANOSECONDS)
    there = len(heard.odometry)
    heard.wait_for_stamp(camera.stream(20, RATE_HZ)[-1])
    status = heard.next_diagnostics()
    assert (values_of(status)["status"], status.level) == ("tracking", b"\x00")
    assert values_of(status)["session"] == "1"
    first = pose_of(heard.odometry[there])
    assert np.linalg.norm(first.translation - held[-1][4:]) < 1.0
    assert np.linalg.norm(pose_of(heard.odometry[-1]).translation - first.translation) > 1e-3


@pytest.mark.parametrize(
    ("link", "given", "remedy"),
    [
        (("elsewhere", "base_link"), {}, "publish.odom_tf: false or name another frames.base"),
        (("odom", "base_link"), {}, "publish.odom_tf: false or name another frames.base"),
        (("map", "odom"), {}, "publish.map_tf: false or name another frames.odom"),
        (("odom", "base_link"), {"publish__odom_tf": False}, ""),
    ],
)
def test_another_publisher_of_its_transforms_is_noticed(
    graph: Graph, link: tuple[str, str], given: dict[str, object], remedy: str
) -> None:
    camera, heard = started(graph, **given)
    publisher = graph.node.create_publisher(TFMessage, "/tf", 100)
    graph.spin_until(lambda: publisher.get_subscription_count() > 1)
    stamp_ns = camera.stream(5, RATE_HZ)[-1]
    publisher.publish(tf_message([transform_message(stamp_ns, *link, FORWARD)]))
    camera.stream(5, RATE_HZ)
    status = heard.next_diagnostics()
    if not remedy:
        assert (status.level, status.message) == (b"\x00", "tracking")
        return
    assert status.level == b"\x01"
    assert status.message.startswith(f"{link[1]} has the parent {link[0]} already")
    assert status.message.endswith(f"set {remedy}")
    heard.next_diagnostics()
    (line,) = [line for line in graph.said().splitlines() if line.startswith("[WARN]")]
    assert status.message in line
