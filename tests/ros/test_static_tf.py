"""The tree of /tf_static, against composed matrices and on a real graph."""

from __future__ import annotations

import logging
import math
from random import Random

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import TransformStamped
from graph import Graph
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from vo_stream.ros.static_tf import MAX_LENGTH_M, StaticTree
from vo_stream.se3 import SE3, Array

A = SE3.exp([0.3, -0.1, 0.5, 0.2, 1.1, -0.4])
B = SE3.exp([-1.0, 0.2, 0.1, 2.0, -0.3, 0.1])
C = SE3.exp([0.0, 0.4, -0.7, -0.5, 0.6, 1.5])


def transform(parent: str, child: str, motion: SE3 = A) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    x, y, z = map(float, motion.translation)
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = x, y, z
    q.x, q.y, q.z, q.w = map(float, motion.quaternion_xyzw)
    return message


def tree_of(*messages: TransformStamped) -> StaticTree:
    tree = StaticTree()
    for message in messages:
        assert tree.add([message])
    return tree


def same(one: SE3 | None, other: SE3) -> bool:
    return one is not None and np.allclose(one.as_matrix(), other.as_matrix(), atol=1e-9)


BRANCHED = (
    transform("base_link", "mast", A),
    transform("mast", "camera", B),
    transform("base_link", "imu", C),
)


@pytest.mark.parametrize(
    ("target", "source", "expected"),
    [
        ("base_link", "mast", A),
        ("base_link", "camera", A @ B),
        ("camera", "base_link", (A @ B).inverse()),
        ("imu", "camera", C.inverse() @ A @ B),
        ("camera", "imu", (A @ B).inverse() @ C),
        ("camera", "camera", SE3.identity()),
        ("never_heard_of", "never_heard_of", SE3.identity()),
        ("/base_link", "//camera", A @ B),
    ],
)
def test_lookup_goes_up_down_and_across(target: str, source: str, expected: SE3) -> None:
    tree = tree_of(*BRANCHED)
    assert same(tree.lookup(target, source), expected)
    assert tree.why_not(target, source) == ""


def test_order_of_arrival_does_not_matter() -> None:
    assert same(tree_of(*reversed(BRANCHED)).lookup("imu", "camera"), C.inverse() @ A @ B)


def test_slashes_in_front_of_names_mean_nothing() -> None:
    tree = tree_of(transform("/base_link", "/mast", A), transform("mast", "camera", B))
    assert same(tree.lookup("base_link", "camera"), A @ B)


def test_the_latest_word_on_a_frame_holds() -> None:
    tree = tree_of(transform("base_link", "camera", A), transform("base_link", "camera", B))
    assert same(tree.lookup("base_link", "camera"), B)
    assert tree.add([transform("mast", "camera", C)])
    assert same(tree.lookup("mast", "camera"), C)
    assert tree.lookup("base_link", "camera") is None


def test_add_tells_whether_anything_changed() -> None:
    tree = tree_of(transform("base_link", "camera", A))
    assert not tree.add([transform("base_link", "camera", A)])
    assert not tree.add([transform("/base_link", "/camera", A)])
    assert not tree.add([])
    assert tree.add([transform("base_link", "camera", A), transform("base_link", "imu", A)])


def test_a_quaternion_is_normalised() -> None:
    message = transform("base_link", "camera", A)
    q = message.transform.rotation
    q.x, q.y, q.z, q.w = 3.0 * q.x, 3.0 * q.y, 3.0 * q.z, 3.0 * q.w
    assert same(tree_of(message).lookup("base_link", "camera"), A)


FAULTS = {
    "translation nan": (math.nan, None, "is not finite"),
    "translation infinite": (math.inf, None, "is not finite"),
    "translation absurd": (2.0 * MAX_LENGTH_M, None, "is longer than"),
    "quaternion nan": (0.0, (0.0, math.nan, 0.0, 1.0), "is not finite"),
    "quaternion infinite": (0.0, (0.0, math.inf, 0.0, 1.0), "is not finite"),
    "quaternion beyond floats": (0.0, (1e308, 1e308, 1e308, 1e308), "is not finite"),
    "quaternion zero": (0.0, (0.0, 0.0, 0.0, 0.0), "has a quaternion of zeros"),
}


def faulty(case: str) -> TransformStamped:
    x, quaternion, _ = FAULTS[case]
    message = transform("base_link", "camera", B)
    message.transform.translation.x = x
    if quaternion is not None:
        q = message.transform.rotation
        q.x, q.y, q.z, q.w = quaternion
    return message


BAD = {
    **{case: (faulty(case), reason) for case, (_, _, reason) in FAULTS.items()},
    "itself": (transform("camera", "camera"), "camera -> camera is of a frame to itself"),
    "itself but for a slash": (transform("/camera", "camera"), "is of a frame to itself"),
    "no parent": (transform("", "camera"), "'' -> camera lacks a frame's name"),
    "no child": (transform("base_link", ""), "base_link -> '' lacks a frame's name"),
    "a slash for a name": (transform("/", "camera"), "lacks a frame's name"),
    "name with a line break": (transform("a\nb", "a\nb"), r"'a\nb' -> 'a\nb' is of a frame"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_faulty_transform_is_ignored_counted_and_told_once(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    message, reason = BAD[case]
    tree = tree_of(transform("base_link", "camera", A))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not tree.add([message])
    assert tree.ignored == 3
    (line,) = caplog.messages
    assert reason in line
    assert "\n" not in line
    assert same(tree.lookup("base_link", "camera"), A)


def test_a_faulty_transform_does_not_spoil_the_others_of_its_message() -> None:
    tree = StaticTree()
    assert tree.add([faulty("quaternion zero"), transform("base_link", "imu", C)])
    assert same(tree.lookup("base_link", "imu"), C)


LOOPS = [
    [("a", "b"), ("b", "a")],
    [("a", "b"), ("b", "c"), ("c", "a")],
    [("a", "b"), ("b", "c"), ("c", "b")],
]


@pytest.mark.parametrize("edges", LOOPS)
def test_a_loop_of_parents_ends(edges: list[tuple[str, str]]) -> None:
    tree = tree_of(*(transform(parent, child) for parent, child in edges), transform("a", "camera"))
    for target in ("a", "b", "c", "camera", "elsewhere"):
        for source in ("a", "b", "c", "camera", "elsewhere"):
            found = tree.lookup(target, source)
            assert (found is None) == bool(tree.why_not(target, source))
    assert same(tree.lookup("a", "camera"), A)


WHY_NOT = {
    "nothing heard": (
        (),
        "no transform base_link -> camera: nothing was heard on /tf_static",
    ),
    "source unknown": (
        (transform("base_link", "imu"),),
        "no transform base_link -> camera: /tf_static has nothing of camera; it knows "
        "base_link -> imu",
    ),
    "target unknown": (
        (transform("camera_link", "camera"),),
        "no transform base_link -> camera: /tf_static has nothing of base_link; it knows "
        "camera_link -> camera",
    ),
    "both unknown": (
        (transform("a", "b"),),
        "no transform base_link -> camera: /tf_static has nothing of base_link and camera; it "
        "knows a -> b",
    ),
    "two trees": (
        (
            transform("base_footprint", "base_link"),
            transform("camera_link", "camera_color"),
            transform("camera_color", "camera"),
        ),
        "no transform base_link -> camera: /tf_static has them in two trees, under base_footprint "
        "and camera_link",
    ),
}


@pytest.mark.parametrize("case", WHY_NOT)
def test_why_not_says_what_is_missing(case: str) -> None:
    messages, line = WHY_NOT[case]
    tree = tree_of(*messages)
    assert tree.lookup("base_link", "camera") is None
    assert tree.why_not("/base_link", "camera") == line


def test_why_not_lists_a_handful_only() -> None:
    tree = tree_of(*(transform("base_link", f"wheel_{i}") for i in range(50)))
    line = tree.why_not("base_link", "camera")
    assert line.endswith("base_link -> wheel_4, base_link -> wheel_5, ...")


@pytest.mark.parametrize("messages", [(), (transform("base_link", "imu"),)])
def test_why_not_tells_of_faulty_transforms(messages: tuple[TransformStamped, ...]) -> None:
    tree = tree_of(*messages)
    tree.add([faulty("quaternion zero")])
    assert "(1 faulty transform was ignored)" in tree.why_not("base_link", "camera")
    tree.add([faulty("quaternion zero")])
    assert "(2 faulty transforms were ignored)" in tree.why_not("base_link", "camera")


def test_names_that_break_lines_are_quoted() -> None:
    line = tree_of(transform("a\nb", "c")).why_not("base\nlink", "")
    assert line.isprintable()
    assert r"'base\nlink' -> ''" in line


NUMBERS = st.floats(-3.0, 3.0, allow_subnormal=False)
MOTIONS = st.lists(NUMBERS, min_size=6, max_size=6).map(SE3.exp)


@st.composite
def forests(draw: st.DrawFn) -> list[tuple[int, SE3]]:
    """Draw the parent of each frame, which has a lower number, or -1; and parent_from_frame."""
    size = draw(st.integers(1, 12))
    return [(draw(st.integers(-1, i - 1)), draw(MOTIONS)) for i in range(size)]


@settings(max_examples=60, deadline=None)
@given(forests(), st.randoms(use_true_random=False))
def test_random_trees_agree_with_composed_matrices(
    forest: list[tuple[int, SE3]], random: Random
) -> None:
    roots: list[int] = []
    root_from_frame: list[Array] = []
    for i, (parent, motion) in enumerate(forest):
        roots.append(i if parent < 0 else roots[parent])
        above = np.eye(4) if parent < 0 else root_from_frame[parent] @ motion.as_matrix()
        root_from_frame.append(above)
    messages = [transform(f"f{p}", f"f{i}", m) for i, (p, m) in enumerate(forest) if p >= 0]
    random.shuffle(messages)
    tree = StaticTree()
    tree.add(messages)
    for target in range(len(forest)):
        for source in range(len(forest)):
            found = tree.lookup(f"f{target}", f"f{source}")
            if roots[target] != roots[source]:
                assert found is None
                continue
            assert found is not None
            expected = np.linalg.inv(root_from_frame[target]) @ root_from_frame[source]
            assert np.allclose(found.as_matrix(), expected, atol=1e-7)


def test_a_late_subscriber_hears_of_all_publishers(graph: Graph) -> None:
    messages = pytest.importorskip("tf2_msgs.msg", reason="needs tf2_msgs")
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for parent, child, motion in (("base_link", "mast", A), ("mast", "camera", B)):
        publisher = graph.node.create_publisher(messages.TFMessage, "/tf_static", latched)
        publisher.publish(messages.TFMessage(transforms=[transform(parent, child, motion)]))
    context = Context()
    rclpy.init(args=[], context=context, domain_id=graph.domain)
    late = Node("late", context=context, start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(late)
    tree = StaticTree()
    try:
        late.create_subscription(
            messages.TFMessage, "/tf_static", lambda m: tree.add(m.transforms), latched
        )
        for _ in range(400):
            executor.spin_once(timeout_sec=0.05)
            if tree.lookup("base_link", "camera") is not None:
                break
    finally:
        executor.shutdown()
        late.destroy_node()
        rclpy.shutdown(context=context)
    assert same(tree.lookup("base_link", "camera"), A @ B)
    assert tree.ignored == 0
