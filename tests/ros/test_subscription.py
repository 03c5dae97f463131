"""Subscriptions meet publishers of any QoS, on a real graph, or say why they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import rclpy
from camera import footage, image_message, info_message
from graph import Graph
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vo_stream.errors import ConfigError
from vo_stream.ros.node import VoStreamNode
from vo_stream.ros.qos import LOSSLESS, profile
from vo_stream.ros.subscription import Subscription

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE, TRANSIENT_LOCAL = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL
KEEP_ALL = HistoryPolicy.KEEP_ALL

SENSOR = profile("sensor")

FRAME = footage(seconds=0.1).frames[0]
IMAGE = image_message(FRAME.image, FRAME.stamp_ns, "camera")
INFO = info_message(FRAME.camera, FRAME.stamp_ns, "camera")

offered_qos = pytest.mark.parametrize(
    "offered",
    [
        QoSProfile(reliability=reliability, durability=durability, depth=5)
        for reliability in (RELIABLE, BEST_EFFORT)
        for durability in (VOLATILE, TRANSIENT_LOCAL)
    ],
    ids=lambda qos: f"{qos.reliability.name}-{qos.durability.name}".lower(),
)


class Robot:
    """A node that subscribes, beside the graph's own, which publishes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.node = self._made()
        self.overridden: dict[str, Any] = {}
        self.heard: list[Any] = []

    def _made(self, *parameters: Parameter) -> Node:
        node = Node("robot", context=self.graph.context, parameter_overrides=list(parameters))
        self.graph.executor.add_node(node)
        return node

    def override(self, **policies: Any) -> None:
        """Start the node again, with overrides of the topic /image."""
        self.close()
        prefix = "qos_overrides./image.subscription."
        self.node = self._made(*(Parameter(prefix + k, value=v) for k, v in policies.items()))

    def close(self) -> None:
        self.graph.executor.remove_node(self.node)
        self.node.destroy_node()

    def subscribe(
        self,
        wanted: QoSProfile = SENSOR,
        message: type = Image,
        topic: str = "/image",
        latched: bool = False,
    ) -> Subscription:
        return Subscription(
            self.node, message, topic, self.heard.append, wanted, self.overridden, latched=latched
        )

    def publisher(self, qos: QoSProfile, message: type = Image, topic: str = "/image") -> Any:
        """Return a publisher that this node has found."""
        publisher = self.graph.node.create_publisher(message, topic, qos)
        self.graph.spin_until(lambda: self.node.count_publishers(topic))
        return publisher

    def wait(self, subscription: Subscription, publish: Callable[[], None] | None = None) -> None:
        """Wait for a message; look after the subscription meanwhile, as the node does."""
        before = len(self.heard)

        def has_come() -> bool:
            subscription.adapt()
            if publish is not None:
                publish()
            return len(self.heard) > before

        self.graph.spin_until(has_come, timeout_s=10.0)

    def entities(self) -> tuple[int, int]:
        return len(list(self.node.subscriptions)), len(list(self.node.waitables))

    def qos(self, topic: str = "/image") -> QoSProfile:
        """Return what is asked for, as others on the graph see it."""
        (info,) = self.graph.node.get_subscriptions_info_by_topic(topic)
        return info.qos_profile

    def has_qos(self, *expected: Any) -> None:
        """Wait until others see it ask for a reliability and a durability."""

        def seen() -> bool:
            infos = self.graph.node.get_subscriptions_info_by_topic("/image")
            kinds = [(i.qos_profile.reliability, i.qos_profile.durability) for i in infos]
            return kinds == [expected]

        self.graph.spin_until(seen)


@pytest.fixture
def robot(graph: Graph) -> Iterator[Robot]:
    robot = Robot(graph)
    yield robot
    robot.close()


@offered_qos
@pytest.mark.parametrize("wanted", [SENSOR, LOSSLESS], ids=["newest", "lossless"])
@pytest.mark.parametrize("early", [True, False], ids=["publisher first", "subscription first"])
def test_images_of_any_publisher_come(
    robot: Robot, offered: QoSProfile, wanted: QoSProfile, early: bool
) -> None:
    subscription = None if early else robot.subscribe(wanted)
    publisher = robot.publisher(offered)
    subscription = subscription or robot.subscribe(wanted)
    robot.wait(subscription, lambda: publisher.publish(IMAGE))
    assert robot.heard[0] == IMAGE
    lowered = BEST_EFFORT if BEST_EFFORT in (wanted.reliability, offered.reliability) else RELIABLE
    robot.has_qos(lowered, VOLATILE)


@offered_qos
@pytest.mark.parametrize("early", [True, False], ids=["publisher first", "subscription first"])
def test_calibration_of_any_publisher_comes(robot: Robot, offered: QoSProfile, early: bool) -> None:
    made = robot.subscribe(SENSOR, CameraInfo, "/info", latched=True) if not early else None
    publisher = robot.publisher(offered, CameraInfo, "/info")
    subscription = made or robot.subscribe(SENSOR, CameraInfo, "/info", latched=True)
    robot.wait(subscription, lambda: publisher.publish(INFO))
    assert robot.heard[0] == INFO


@pytest.mark.parametrize("early", [True, False], ids=["publisher first", "subscription first"])
def test_a_calibration_that_was_published_once_comes_late(robot: Robot, early: bool) -> None:
    made = robot.subscribe(SENSOR, CameraInfo, "/info", latched=True) if not early else None
    publisher = robot.publisher(profile("latched"), CameraInfo, "/info")
    publisher.publish(INFO)
    robot.graph.spin(0.2)
    subscription = made or robot.subscribe(SENSOR, CameraInfo, "/info", latched=True)
    robot.wait(subscription)
    assert robot.heard[0] == INFO


def test_of_publishers_that_differ_all_are_heard(robot: Robot) -> None:
    reliable = robot.publisher(QoSProfile(depth=5))
    subscription = robot.subscribe(LOSSLESS)
    robot.wait(subscription, lambda: reliable.publish(IMAGE))
    robot.has_qos(RELIABLE, VOLATILE)
    best_effort = robot.publisher(SENSOR)
    robot.graph.spin_until(lambda: robot.node.count_publishers("/image") == 2)
    robot.wait(subscription, lambda: best_effort.publish(IMAGE))
    robot.wait(subscription, lambda: reliable.publish(IMAGE))
    robot.has_qos(BEST_EFFORT, VOLATILE)
    robot.graph.node.destroy_publisher(best_effort)
    robot.graph.spin_until(lambda: robot.node.count_publishers("/image") == 1)
    robot.wait(subscription, lambda: reliable.publish(IMAGE))
    robot.has_qos(RELIABLE, VOLATILE)


def test_without_a_reason_it_does_not_subscribe_anew(robot: Robot) -> None:
    publisher = robot.publisher(SENSOR)
    subscription = robot.subscribe()
    robot.wait(subscription, lambda: publisher.publish(IMAGE))
    (handle,) = (s for s in robot.node.subscriptions if s.topic_name == "/image")
    for _ in range(20):
        subscription.adapt()
    assert handle in robot.node.subscriptions


def test_what_the_user_overrides_holds(robot: Robot) -> None:
    robot.override(reliability="reliable", depth=7)
    robot.publisher(SENSOR)
    for _ in range(3):  # as activated again and again
        subscription = robot.subscribe()
        for _ in range(3):
            subscription.adapt()
        (handle,) = (s for s in robot.node.subscriptions if s.topic_name == "/image")
        qos = handle.qos_profile
        assert (qos.reliability, qos.depth, qos.durability) == (RELIABLE, 7, VOLATILE)
        assert subscription.why_silent() == (
            "/image is published best effort and volatile, but asked for reliable and volatile: "
            "mend qos_overrides./image"
        )
        subscription.close()
    assert not robot.heard


def test_what_the_user_leaves_open_is_adapted(robot: Robot) -> None:
    robot.override(depth=7)
    robot.subscribe(LOSSLESS).close()
    publisher = robot.publisher(SENSOR)
    subscription = robot.subscribe(LOSSLESS)
    robot.wait(subscription, lambda: publisher.publish(IMAGE))
    (handle,) = (s for s in robot.node.subscriptions if s.topic_name == "/image")
    qos = handle.qos_profile
    assert (qos.reliability, qos.history, qos.depth) == (BEST_EFFORT, KEEP_ALL, 7)


@pytest.mark.parametrize(
    ("policy", "value", "word"),
    [
        ("reliability", "sure", "`sure`"),
        ("reliability", 3, "INTEGER"),
        ("history", "unknown", "Failed to create subscription"),
        ("depth", "many", "STRING"),
        ("depth", -1, "Failed to create subscription"),
        ("depth", 10**12, "incompatible constructor arguments"),
    ],
)
def test_overrides_that_make_no_sense_are_told_in_one_line(
    robot: Robot, policy: str, value: object, word: str
) -> None:
    robot.override(**{policy: value})
    before = robot.entities()
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            robot.subscribe()
        line = str(caught.value)
        assert word in line
        assert line.endswith(": mend qos_overrides./image")
        assert "\n" not in line
    assert robot.entities() == before


def test_a_node_keeps_overrides_and_settings_when_it_is_activated_again(graph: Graph) -> None:
    overrides: dict[str, Any] = {
        "qos_overrides./image.subscription.reliability": "reliable",
        "qos_overrides./image.subscription.depth": 7,
        "adjust.enabled": False,
        "frames.mount": "forward",
    }
    node = VoStreamNode(
        context=graph.context,
        parameter_overrides=[Parameter(k, value=v) for k, v in overrides.items()],
    )

    def asked_for() -> list[tuple[Any, ...]]:
        qos = [s.qos_profile for s in node.subscriptions if s.topic_name == "/image"]
        return [(q.reliability, q.history, q.depth) for q in qos]

    try:
        node.trigger_configure()
        node.trigger_activate()
        expected = asked_for()
        assert expected == [(RELIABLE, HistoryPolicy.KEEP_LAST, 7)]
        for _ in range(2):
            node.trigger_deactivate()
            assert asked_for() == []
            node.trigger_activate()
            assert asked_for() == expected
        node.trigger_deactivate()
        node.trigger_cleanup()
        node.set_parameters([Parameter("input.drop_stale", value=False)])
        node.trigger_configure()
        node.trigger_activate()
        assert asked_for() == [(RELIABLE, KEEP_ALL, 7)]
    finally:
        node.destroy_node()


NOBODY = "nobody publishes /image (sensor_msgs/msg/Image)"


def test_why_nothing_comes_where_nobody_publishes(robot: Robot) -> None:
    subscription = robot.subscribe()
    assert subscription.why_silent() == NOBODY
    robot.publisher(SENSOR, topic="/camera/image_raw")
    robot.publisher(SENSOR, CompressedImage, "/image/compressed")
    robot.publisher(SENSOR, CompressedImage, "/elsewhere/compressed")
    assert subscription.why_silent() == (
        f"{NOBODY}; there is /camera/image_raw (sensor_msgs/msg/Image), /image/compressed "
        "(sensor_msgs/msg/CompressedImage)"
    )


def test_topics_that_are_only_subscribed_to_are_no_help(robot: Robot) -> None:
    subscription = robot.subscribe()
    robot.subscribe(topic="/elsewhere")
    assert subscription.why_silent() == NOBODY


def test_why_nothing_comes_of_another_type(robot: Robot) -> None:
    context = Context()  # Fast DDS knows one type of a topic in a context
    rclpy.init(args=[], context=context, domain_id=robot.graph.domain)
    other = Node("other", context=context)
    try:
        other.create_publisher(CompressedImage, "/image", SENSOR)
        subscription = robot.subscribe()
        robot.graph.spin_until(lambda: robot.node.count_publishers("/image"))
        subscription.adapt()
        assert subscription.why_silent() == (
            "/image is of type sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image"
        )
    finally:
        other.destroy_node()
        rclpy.shutdown(context=context)


def test_why_nothing_comes_where_all_fits(robot: Robot) -> None:
    robot.publisher(SENSOR)
    subscription = robot.subscribe()
    assert subscription.fault() == ""
    assert subscription.why_silent() == (
        "/image is published, but nothing has come; if something is sent, large best-effort "
        "images need config/fastdds_shm.xml"
    )


def test_nothing_is_left_behind(robot: Robot) -> None:
    before = robot.entities()
    publishers = {qos.reliability: qos for qos in (SENSOR, QoSProfile(depth=5))}
    for cycle in range(50):
        subscription = robot.subscribe(LOSSLESS)
        inside = robot.entities()
        if cycle % 10 == 0:  # finding a publisher takes a while
            publisher = robot.publisher(publishers[BEST_EFFORT if cycle % 20 else RELIABLE])
            robot.wait(subscription, partial(publisher.publish, IMAGE))
            robot.graph.node.destroy_publisher(publisher)
            robot.graph.spin_until(lambda: not robot.node.count_publishers("/image"))
        subscription.adapt()
        assert robot.entities() == inside
        subscription.close()
        assert robot.entities() == before
    robot.graph.spin(0.1)
