"""Wheel odometry from ROS messages, over a real graph and from two threads."""

from __future__ import annotations

import math
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from rclpy.qos import qos_profile_sensor_data

from vo_stream.ros.wheel import WheelDistance
from vo_stream.se3 import SE3
from vo_stream.values import NANOSECONDS

if TYPE_CHECKING:
    from graph import Graph

PERIOD_NS = 20_000_000
START_NS = 1_700_000_000 * NANOSECONDS


def message_of(kind: Any, stamp_ns: int, speed_m_s: float, yaw_rate_rad_s: float = 0.0) -> Any:
    message = kind()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, NANOSECONDS)
    twist = message.twist.twist if kind is Odometry else message.twist
    twist.linear.x, twist.angular.z = speed_m_s, yaw_rate_rad_s
    return message


@pytest.mark.parametrize("kind", [Odometry, TwistStamped])
def test_messages_make_a_distance(kind: Any) -> None:
    wheels = WheelDistance()
    assert math.isnan(wheels.at(START_NS))
    for i in range(51):
        wheels.add(message_of(kind, START_NS + i * PERIOD_NS, 2.0))
    assert wheels.at(START_NS + NANOSECONDS) - wheels.at(START_NS) == pytest.approx(2.0)
    assert math.isnan(wheels.at(START_NS + 3 * NANOSECONDS))
    assert wheels.dropped == wheels.breaks == 0


def test_a_turn_moves_a_camera_that_is_not_at_the_base() -> None:
    wheels = WheelDistance(SE3.exp([0.5, 0.0, 0.2, 0.0, 0.0, 0.0]))
    for i in range(51):
        wheels.add(message_of(Odometry, START_NS + i * PERIOD_NS, 0.0, 1.0))
    assert wheels.at(START_NS + NANOSECONDS) - wheels.at(START_NS) == pytest.approx(0.5)


def test_what_cannot_be_used_is_counted() -> None:
    wheels = WheelDistance()
    for speed_m_s in (math.nan, math.inf, 1e300):
        wheels.add(message_of(TwistStamped, START_NS, speed_m_s))
    assert wheels.dropped == 3
    assert math.isnan(wheels.at(START_NS))
    wheels.add(message_of(TwistStamped, START_NS, 1.0))
    wheels.add(message_of(TwistStamped, START_NS + 5 * NANOSECONDS, 1.0))
    assert (wheels.dropped, wheels.breaks) == (3, 1)


def test_messages_without_stamps_make_none() -> None:
    wheels = WheelDistance()
    for _ in range(10):
        wheels.add(message_of(Odometry, 0, 1.0))
    assert wheels.dropped == 9
    assert math.isnan(wheels.at(START_NS))


def test_one_thread_adds_while_another_asks() -> None:
    wheels, count, done = WheelDistance(), 20_000, threading.Event()
    metres: list[float] = []
    newest = [0]

    def ask() -> None:
        while not done.is_set():
            metres.append(wheels.at(START_NS + newest[0] * PERIOD_NS))

    worker = threading.Thread(target=ask)
    worker.start()
    message = message_of(TwistStamped, START_NS, 1.0)
    for i in range(count):
        stamp_ns = START_NS + i * PERIOD_NS
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, NANOSECONDS)
        wheels.add(message)
        newest[0] = i
    done.set()
    worker.join()
    known = [m for m in metres if math.isfinite(m)]
    assert len(known) > 100
    assert known == sorted(known)
    assert wheels.dropped == wheels.breaks == 0
    last = wheels.at(START_NS + (count - 1) * PERIOD_NS)
    assert last == pytest.approx((count - 1) * PERIOD_NS / NANOSECONDS)


def is_longer(received: list[Any], count: int) -> bool:
    return len(received) > count


@pytest.mark.parametrize("kind", [Odometry, TwistStamped])
def test_over_the_graph(kind: Any, graph: Graph) -> None:
    wheels, count = WheelDistance(), 40
    received: list[Any] = []

    def take(message: Any) -> None:
        wheels.add(message)
        received.append(message)

    graph.node.create_subscription(kind, "wheel", take, qos_profile_sensor_data)
    publisher = graph.node.create_publisher(kind, "wheel", 10)
    graph.spin_until(lambda: publisher.get_subscription_count() == 1)
    for i in range(count):
        publisher.publish(message_of(kind, START_NS + i * PERIOD_NS, 0.5))
        graph.spin_until(partial(is_longer, received, i))
    end_ns = START_NS + (count - 1) * PERIOD_NS
    expected = 0.5 * (count - 1) * PERIOD_NS / NANOSECONDS
    assert wheels.at(end_ns) - wheels.at(START_NS) == pytest.approx(expected)
