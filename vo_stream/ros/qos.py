"""Quality of service: the profiles of the node's topics, and those that a bag's topics had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rclpy.duration import Duration
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)

from vo_stream.ros.interface import TF_STATIC

if TYPE_CHECKING:
    from vo_stream.replay.bag_messages import BagTopic

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE, TRANSIENT_LOCAL = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL

_POLICIES = {
    "sensor": (BEST_EFFORT, VOLATILE, 5),
    "reliable": (RELIABLE, VOLATILE, 10),
    "latched": (RELIABLE, TRANSIENT_LOCAL, 1),
    "tf": (RELIABLE, VOLATILE, 100),
    "tf_static": (RELIABLE, TRANSIENT_LOCAL, 1000),
}
"""Reliability, durability, and depth in messages, by name; REP-2003 where it says something.

Static transforms come in a message each, and who comes late needs them all.
"""

LOSSLESS = QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=RELIABLE)
"""For images of which none may be dropped: DDS keeps them until they are taken, up to its own
limits."""

RECORDED_DEPTH = 1000
"""Messages that wait for a reader who is slow. The graph does not tell a publisher's depth, so a
bag does not know it."""


def profile(name: str) -> QoSProfile:
    """Return the profile of that name."""
    reliability, durability, depth = _POLICIES[name]
    return QoSProfile(reliability=reliability, durability=durability, depth=depth)


def reason_of(error: Exception) -> str:
    """Return what rclpy says of a fault in one line, without where it was built."""
    return str(error).partition("\n")[0].partition(", at ")[0]


def recorded(topic: BagTopic) -> QoSProfile:
    """Return the profile to publish a bag's topic with: that of its publishers, as in rosbag2.

    Static transforms are always latched, whoever published them.
    """
    if topic.name == TF_STATIC.name:
        return profile("tf_static")
    offer = topic.offer
    return QoSProfile(
        reliability=RELIABLE if offer.reliable else BEST_EFFORT,
        durability=TRANSIENT_LOCAL if offer.transient_local else VOLATILE,
        depth=RECORDED_DEPTH,
        deadline=Duration(nanoseconds=offer.deadline_ns),
        lifespan=Duration(nanoseconds=offer.lifespan_ns),
        liveliness=(
            LivelinessPolicy.MANUAL_BY_TOPIC if offer.manual else LivelinessPolicy.AUTOMATIC
        ),
        liveliness_lease_duration=Duration(nanoseconds=offer.lease_ns),
    )
