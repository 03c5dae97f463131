"""Messages as a consumer gets them: serialised, read back, and looked at field by field."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from geometry_msgs.msg import PoseStamped, TransformStamped
from nav_msgs.msg import Odometry, Path
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2, PointField

from vo_stream.messages import stamp_ns_of
from vo_stream.ros.frames import FORWARD, BaseState, moved_to_base
from vo_stream.ros.outgoing import (
    KeyframePath,
    cloud_message,
    odometry_message,
    tf_message,
    time_of,
    transform_message,
)
from vo_stream.se3 import SE3
from vo_stream.values import Keyframe, Refinement

STAMP_NS = 1_700_000_000_123_456_789
POSE = SE3.exp([1.0, -2.0, 3.0, 0.3, -2.5, 0.2])
ENDS = [0, 999_999_999, 1_000_000_000, STAMP_NS, (2**31 - 1) * 10**9 + 999_999_999]


def round_trip(message: Any) -> Any:
    """Return a message as it arrives."""
    return deserialize_message(serialize_message(message), type(message))


def pose_of(position: Any, orientation: Any) -> SE3:
    quaternion = [orientation.x, orientation.y, orientation.z, orientation.w]
    return SE3.from_quaternion_xyzw(quaternion, [position.x, position.y, position.z])


def assert_same(a: SE3, b: SE3) -> None:
    np.testing.assert_allclose((a.inverse() @ b).log(), np.zeros(6), atol=1e-13)


@pytest.mark.parametrize("stamp_ns", ENDS)
def test_stamps_keep_their_nanoseconds(stamp_ns: int) -> None:
    arrived = round_trip(time_of(stamp_ns))
    assert arrived.sec * 10**9 + arrived.nanosec == stamp_ns


def test_odometry_arrives_field_for_field() -> None:
    rng = np.random.default_rng(1)
    state = BaseState(POSE, rng.random((6, 6)), rng.random(6), rng.random((6, 6)))
    arrived = round_trip(odometry_message(STAMP_NS, state, "the_odom", "the_base"))
    assert isinstance(arrived, Odometry)
    assert stamp_ns_of(arrived) == STAMP_NS
    assert (arrived.header.frame_id, arrived.child_frame_id) == ("the_odom", "the_base")
    assert_same(pose_of(arrived.pose.pose.position, arrived.pose.pose.orientation), POSE)
    linear, angular = arrived.twist.twist.linear, arrived.twist.twist.angular
    assert [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z] == state.twist.tolist()
    assert arrived.pose.covariance.tolist() == state.pose_covariance.ravel().tolist()
    assert arrived.twist.covariance.tolist() == state.twist_covariance.ravel().tolist()


def test_transforms_arrive_field_for_field() -> None:
    arrived = round_trip(transform_message(STAMP_NS, "parent", "child", POSE))
    assert isinstance(arrived, TransformStamped)
    assert stamp_ns_of(arrived) == STAMP_NS
    assert (arrived.header.frame_id, arrived.child_frame_id) == ("parent", "child")
    assert_same(pose_of(arrived.transform.translation, arrived.transform.rotation), POSE)


def test_transforms_travel_together() -> None:
    pytest.importorskip("tf2_msgs", reason="needs tf2_msgs")
    sent = [transform_message(STAMP_NS, "a", "b", POSE), transform_message(0, "b", "c", POSE)]
    assert round_trip(tf_message(sent)).transforms == sent


@pytest.mark.parametrize("angle", [0.0, 1e-9, 3.0, math.pi, 3.3, 6.2])
def test_quaternions_are_unit_with_a_scalar_that_is_not_negative(angle: float) -> None:
    half = SE3.exp([0.0, 0.0, 0.0, 0.0, 0.0, 0.5 * angle])
    rotation = transform_message(0, "a", "b", half @ half).transform.rotation
    quaternion = [rotation.x, rotation.y, rotation.z, rotation.w]
    assert math.hypot(*quaternion) == pytest.approx(1.0, abs=1e-15)
    assert rotation.w >= 0.0


def test_no_zero_is_negative() -> None:
    pose = SE3(np.array([1.0, -0.0, -0.0, -0.0, -0.0, -0.0, -0.0]))
    state = BaseState(pose, np.full((6, 6), -0.0), np.full(6, -0.0), np.full((6, 6), -0.0))
    messages = [odometry_message(0, state, "", ""), transform_message(0, "", "", pose)]
    assert "-0" not in str(messages)


def test_a_message_may_be_changed_without_changing_the_state() -> None:
    state = BaseState(POSE, np.eye(6), np.zeros(6), np.eye(6))
    message = odometry_message(STAMP_NS, state, "odom", "base_link")
    message.pose.covariance[:] = message.twist.covariance[:] = 7.0
    assert (state.pose_covariance == np.eye(6)).all()
    assert (state.twist_covariance == np.eye(6)).all()


def keyframe_pose(stamp_ns: int, version: float) -> SE3:
    return SE3.exp([stamp_ns, version, 0.0, 0.0, 0.01 * stamp_ns, 0.0])


def refinement_of(
    stamps_ns: range, version: float, session: int = 1, map_stamp_ns: int = 0
) -> Refinement:
    return Refinement(
        session=session,
        stamp_ns=stamps_ns[-1],
        map_from_odom=SE3.identity(),
        scale=1.0,
        scale_std=0.1,
        metric=True,
        scale_source="",
        keyframes=tuple(Keyframe(s, keyframe_pose(s, version)) for s in stamps_ns),
        landmarks=np.empty((0, 3), np.float32),
        landmark_stds=np.empty(0, np.float32),
        map_stamp_ns=map_stamp_ns,
    )


def versions_of(path: KeyframePath) -> dict[int, float]:
    """Return which refinement's word each keyframe has; poses and message must agree."""
    found = {}
    arrived = round_trip(path.message("map", FORWARD))
    poses = path.poses()
    for (stamp_ns, map_from_camera), stamped in zip(poses, arrived.poses, strict=True):
        assert stamp_ns_of(stamped) == stamp_ns
        assert stamped.header.frame_id == "map"
        map_from_base = pose_of(stamped.pose.position, stamped.pose.orientation)
        assert_same(map_from_base, moved_to_base(map_from_camera, FORWARD))
        found[stamp_ns] = round(float((map_from_camera.log())[1]), 6)
        assert_same(map_from_camera, keyframe_pose(stamp_ns, found[stamp_ns]))
    assert isinstance(arrived, Path)
    assert arrived.header.frame_id == "map"
    assert stamp_ns_of(arrived) == (poses[-1][0] if poses else 0)
    return found


def test_a_path_before_any_refinement_is_empty() -> None:
    assert versions_of(KeyframePath(10)) == {}


def test_the_newest_word_on_a_keyframe_counts() -> None:
    path = KeyframePath(10)
    path.add(refinement_of(range(1, 4), 0.1))
    assert versions_of(path) == {1: 0.1, 2: 0.1, 3: 0.1}
    path.add(refinement_of(range(2, 5), 0.2))
    assert versions_of(path) == {1: 0.1, 2: 0.2, 3: 0.2, 4: 0.2}
    path.add(refinement_of(range(4, 7), 0.3))
    path.add(refinement_of(range(5, 8), 0.4))  # two between messages
    assert versions_of(path) == {1: 0.1, 2: 0.2, 3: 0.2, 4: 0.3, 5: 0.4, 6: 0.4, 7: 0.4}


def test_the_oldest_keyframes_are_left_out_and_stay_out() -> None:
    path = KeyframePath(3)
    path.add(refinement_of(range(1, 6), 0.1))
    assert versions_of(path) == {3: 0.1, 4: 0.1, 5: 0.1}
    path.add(refinement_of(range(1, 6), 0.2))
    assert versions_of(path) == {3: 0.2, 4: 0.2, 5: 0.2}
    path.add(refinement_of(range(2, 7), 0.3))
    assert versions_of(path) == {4: 0.3, 5: 0.3, 6: 0.3}


@pytest.mark.parametrize(("session", "map_stamp_ns"), [(2, 0), (1, 8)])
def test_another_session_or_map_starts_anew(session: int, map_stamp_ns: int) -> None:
    path = KeyframePath(10)
    path.add(refinement_of(range(1, 9), 0.1))
    assert len(versions_of(path)) == 8
    path.add(refinement_of(range(2, 4), 0.2, session, map_stamp_ns))
    assert versions_of(path) == {2: 0.2, 3: 0.2}


def test_old_poses_are_made_once_and_messages_given_out_stay_as_they_were() -> None:
    path = KeyframePath(10)
    path.add(refinement_of(range(1, 4), 0.1))
    first = path.message("map", FORWARD)
    sent = serialize_message(first)
    path.add(refinement_of(range(3, 5), 0.2))
    second = path.message("map", FORWARD)
    assert [a is b for a, b in zip(first.poses, second.poses, strict=False)] == [True, True, False]
    assert serialize_message(first) == sent


def test_another_mount_or_name_of_the_map_holds_for_all_poses() -> None:
    path = KeyframePath(10)
    path.add(refinement_of(range(1, 4), 0.1))
    path.message("map", FORWARD)
    mount = SE3.exp([0.5, 0.0, 1.0, 0.0, 0.0, 0.3]) @ FORWARD
    for stamped, (_, pose) in zip(path.message("world", mount).poses, path.poses(), strict=True):
        assert isinstance(stamped, PoseStamped)
        assert stamped.header.frame_id == "world"
        found = pose_of(stamped.pose.position, stamped.pose.orientation)
        assert_same(found, moved_to_base(pose, mount))


def decoded(cloud: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Read a cloud by what it says of itself."""
    order = ">" if cloud.is_bigendian else "<"
    assert {field.datatype for field in cloud.fields} == {PointField.FLOAT32}
    assert {field.count for field in cloud.fields} == {1}
    kind = np.dtype(
        {
            "names": [field.name for field in cloud.fields],
            "formats": [f"{order}f4"] * len(cloud.fields),
            "offsets": [field.offset for field in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    points = np.frombuffer(cloud.data, kind)
    assert len(points) == cloud.height * cloud.width
    assert cloud.row_step * cloud.height == len(cloud.data)
    return {field.name: points[field.name] for field in cloud.fields}


@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_cloud_is_read_by_its_own_description(count: int) -> None:
    rng = np.random.default_rng(2)
    points = rng.normal(size=(count, 3)).astype(np.float32)
    stds = rng.random(count).astype(np.float32)
    arrived = round_trip(cloud_message(STAMP_NS, "map", points, stds))
    assert isinstance(arrived, PointCloud2)
    assert stamp_ns_of(arrived) == STAMP_NS
    assert arrived.header.frame_id == "map"
    assert arrived.is_dense
    found = decoded(arrived)
    assert list(found) == ["x", "y", "z", "std"]
    for i, name in enumerate("xyz"):
        np.testing.assert_array_equal(found[name], points[:, i])
    np.testing.assert_array_equal(found["std"], stds)


def test_points_that_are_not_finite_are_left_out_of_a_dense_cloud() -> None:
    points = np.arange(12, dtype=np.float32).reshape(4, 3)
    points[1, 2] = np.nan
    stds = np.array([0.1, 0.2, np.inf, 0.4], dtype=np.float32)
    found = decoded(round_trip(cloud_message(0, "map", points, stds)))
    np.testing.assert_array_equal(found["x"], np.array([0.0, 9.0], np.float32))
    np.testing.assert_array_equal(found["std"], np.array([0.1, 0.4], np.float32))
