from __future__ import annotations

import pytest
from rclpy.duration import Duration
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)

from vo_stream.replay.bag_messages import BagTopic, Offer
from vo_stream.ros import interface
from vo_stream.ros.qos import RECORDED_DEPTH, profile, recorded

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE, TRANSIENT_LOCAL = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL


def offered(*offers: Offer, name: str = "/topic") -> QoSProfile:
    return recorded(BagTopic(name, "std_msgs/msg/String", 1, offers))


@pytest.mark.parametrize("topic", [*interface.SUBSCRIBED, *interface.PUBLISHED])
def test_every_topic_of_the_interface_has_a_profile(topic: interface.Topic) -> None:
    assert profile(topic.qos).depth > 0


@pytest.mark.parametrize(
    ("name", "reliability", "durability"),
    [
        ("sensor", BEST_EFFORT, VOLATILE),
        ("reliable", RELIABLE, VOLATILE),
        ("latched", RELIABLE, TRANSIENT_LOCAL),
        ("tf", RELIABLE, VOLATILE),
        ("tf_static", RELIABLE, TRANSIENT_LOCAL),
    ],
)
def test_profiles(name: str, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> None:
    assert (profile(name).reliability, profile(name).durability) == (reliability, durability)


@pytest.mark.parametrize("publisher", ["sensor", "reliable", "latched"])
def test_images_are_heard_from_any_publisher(publisher: str) -> None:
    fits, _ = qos_check_compatible(profile(publisher), profile(interface.IMAGE.qos))
    assert fits != QoSCompatibility.ERROR


def test_a_profile_that_is_changed_does_not_change_the_next() -> None:
    profile("sensor").depth = 99
    assert profile("sensor").depth == 5


def test_what_was_offered_is_offered_again() -> None:
    qos = offered(Offer(reliable=False, deadline_ns=5, lifespan_ns=6, manual=True, lease_ns=7))
    assert (qos.reliability, qos.durability) == (BEST_EFFORT, VOLATILE)
    assert qos.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC
    assert qos.deadline == Duration(nanoseconds=5)
    assert qos.lifespan == Duration(nanoseconds=6)
    assert qos.liveliness_lease_duration == Duration(nanoseconds=7)


@pytest.mark.parametrize(
    ("offers", "reliability", "durability"),
    [
        ((), RELIABLE, VOLATILE),
        ((Offer(),), RELIABLE, VOLATILE),
        ((Offer(transient_local=True),) * 2, RELIABLE, TRANSIENT_LOCAL),
        ((Offer(reliable=False),) * 3, BEST_EFFORT, VOLATILE),
        ((Offer(transient_local=True), Offer()), RELIABLE, VOLATILE),
        ((Offer(reliable=False), Offer()), RELIABLE, VOLATILE),
    ],
)
def test_publishers_that_differ_are_played_with_the_default(
    offers: tuple[Offer, ...], reliability: ReliabilityPolicy, durability: DurabilityPolicy
) -> None:
    qos = offered(*offers)
    assert (qos.reliability, qos.durability, qos.depth) == (reliability, durability, RECORDED_DEPTH)


@pytest.mark.parametrize("offers", [(), (Offer(reliable=False),), (Offer(transient_local=True),)])
def test_static_transforms_are_all_kept(offers: tuple[Offer, ...]) -> None:
    qos = offered(*offers, name="/tf_static")
    assert (qos.reliability, qos.durability) == (RELIABLE, TRANSIENT_LOCAL)
    assert qos.depth >= 100
