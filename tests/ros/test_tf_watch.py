"""Another publisher of the node's own transforms is noticed, the node's own messages are not."""

from __future__ import annotations

import pytest
from geometry_msgs.msg import TransformStamped
from graph import Graph
from rclpy.qos import QoSProfile

from vo_stream.io_config import FramesConfig, PublishConfig
from vo_stream.ros.tf_watch import OWN_KEPT, ParentWatch

FRAMES = FramesConfig()
ALL = PublishConfig()
NO_ODOM_TF = PublishConfig(odom_tf=False)
NO_MAP_TF = PublishConfig(map_tf=False)


def transform(parent: str, child: str, stamp: int, x: float = 0.5) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp.sec = stamp
    message.transform.translation.x = x
    return message


def ours(stamp: int) -> list[TransformStamped]:
    return [transform("odom", "base_link", stamp), transform("map", "odom", stamp)]


def watch() -> ParentWatch:
    """Return a watch in the middle of a stream whose own messages come back late."""
    watch = ParentWatch(FRAMES)
    for stamp in range(100):
        watch.published(ours(stamp))
        if stamp >= 5:
            watch.heard(ours(stamp - 5))
    return watch


def test_own_transforms_are_no_conflict() -> None:
    assert watch().conflict(ALL) == ""


def test_transforms_of_other_frames_are_no_conflict() -> None:
    other = watch()
    other.heard([transform("base_link", "wheel", 3), transform("odom", "goal", 3)])
    assert other.conflict(ALL) == ""


BASE = "set publish.odom_tf: false or name another frames.base"
MAP = "set publish.map_tf: false or name another frames.odom"

OTHERS = {
    "another parent": (transform("wheel_odom", "base_link", 99), NO_MAP_TF, NO_ODOM_TF, BASE),
    "slashes": (transform("/wheel_odom", "/base_link", 99), NO_MAP_TF, NO_ODOM_TF, BASE),
    "same frames, other stamp": (
        transform("odom", "base_link", 101), NO_MAP_TF, NO_ODOM_TF, BASE,
    ),
    "same frames and stamp, other values": (
        transform("odom", "base_link", 99, x=0.6), NO_MAP_TF, NO_ODOM_TF, BASE,
    ),
    "map -> odom": (transform("map", "odom", 101), NO_ODOM_TF, NO_MAP_TF, MAP),
    "odom under another map": (transform("world", "odom", 99), NO_ODOM_TF, NO_MAP_TF, MAP),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("early", [True, False])
def test_another_publisher_is_a_conflict(case: str, early: bool) -> None:
    message, still_conflict, settled, remedy = OTHERS[case]
    other = ParentWatch(FRAMES) if early else watch()
    other.heard([message])
    if early:
        other.published(ours(0))
    other.heard(ours(0))
    parent = message.header.frame_id.lstrip("/")
    child = message.child_frame_id.lstrip("/")
    line = f"{child} has the parent {parent} already, by another node: two publishers of one "
    line += f"frame make it jump; {remedy}"
    assert other.conflict(ALL) == other.conflict(still_conflict) == line
    assert other.conflict(settled) == ""


def test_the_robots_own_names_count() -> None:
    other = ParentWatch(FramesConfig(base="/base_footprint", odom="odom2"))
    other.heard(ours(1))
    assert other.conflict(ALL) == ""
    other.heard([transform("odom", "base_footprint", 1)])
    assert "base_footprint has the parent odom already" in other.conflict(ALL)


def test_a_camera_that_is_mounted_already_cannot_be_mounted_forward() -> None:
    other = watch()
    other.heard([transform("camera_link", "camera", 0)])
    assert other.conflict(ALL) == ""
    other.published([transform("base_link", "camera", 0)])
    other.heard([transform("base_link", "camera", 0)])
    assert other.conflict(ALL).startswith("camera has the parent camera_link already")
    assert other.conflict(ALL).endswith("set frames.mount: tf_static")


def test_a_long_stream_forgets_what_it_published_long_ago() -> None:
    other = ParentWatch(FRAMES)
    for stamp in range(OWN_KEPT + 1):
        other.published([transform("odom", "base_link", stamp)])
    other.heard([transform("odom", "base_link", 1)])
    assert other.conflict(ALL) == ""
    other.heard([transform("odom", "base_link", 0)])
    assert other.conflict(ALL) != ""


def test_on_a_graph_own_messages_come_back_unharmed_and_others_are_told_apart(
    graph: Graph,
) -> None:
    messages = pytest.importorskip("tf2_msgs.msg", reason="needs tf2_msgs")
    node, qos, other = graph.node, QoSProfile(depth=100), ParentWatch(FRAMES)
    heard: list[str] = []

    def hear(message: object) -> None:
        transforms = message.transforms  # type: ignore[attr-defined]
        other.heard(transforms)
        heard.extend(transform.child_frame_id for transform in transforms)

    node.create_subscription(messages.TFMessage, "/tf", hear, qos)
    own = node.create_publisher(messages.TFMessage, "/tf", qos)
    foreign = node.create_publisher(messages.TFMessage, "/tf", qos)
    graph.spin_until(lambda: own.get_subscription_count() and foreign.get_subscription_count())
    for stamp in range(20):
        transforms = [transform("odom", "base_link", stamp, x=0.1 * stamp)]
        other.published(transforms)
        own.publish(messages.TFMessage(transforms=transforms))
    graph.spin_until(lambda: len(heard) == 20)
    assert other.conflict(ALL) == ""
    foreign.publish(messages.TFMessage(transforms=[transform("odom", "base_link", 7)]))
    graph.spin_until(lambda: len(heard) == 21)
    assert other.conflict(ALL).startswith("base_link has the parent odom already")
