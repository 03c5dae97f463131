"""A subscription that takes what the publishers offer, and says why nothing comes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.exceptions import ParameterException
from rclpy.qos import (
    DurabilityPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from vo_stream.errors import ConfigError
from vo_stream.ros.qos import reason_of

logger = logging.getLogger(__name__)

OVERRIDABLE = ("history", "depth", "reliability")
"""The policies that rclpy lets a user override."""

_LISTED_TOPICS = 3


class Subscription:
    """Subscribes to a topic until it is closed; `lost` counts what DDS reports as lost.

    `latched`: a value that may have been published once, before this was there. `overridden`: by
    topic, the policies that the user's qos_overrides set, which a node keeps: they are read once
    and then hold. The others are lowered to what the publishers offer. Raises ConfigError where
    the overrides cannot be used.
    """

    def __init__(
        self,
        node: Any,
        message: type,
        topic: str,
        callback: Callable[[Any], None],
        wanted: QoSProfile,
        overridden: dict[str, Any],
        group: CallbackGroup | None = None,
        latched: bool = False,
    ) -> None:
        self.topic = topic
        self.lost = 0
        self._node = node
        self._message = message
        self._callback = callback
        self._wanted = wanted
        self._overridden = overridden
        self._group = group
        self._latched = latched
        self._handle = self._created(self._adapted())

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._handle)

    def adapt(self) -> None:
        """Subscribe anew where the publishers that are there now ask for it."""
        qos = self._adapted()
        current = self._handle.qos_profile
        if (qos.reliability, qos.durability) != (current.reliability, current.durability):
            logger.info("%s: subscribed anew, %s", self.topic, _described(qos))
            self.close()
            self._handle = self._created(qos)

    def why_silent(self) -> str:
        """Return, in one line, why no message may have come."""
        return self.fault() or (
            f"{self.topic} is published, but nothing has come; if something is sent, large "
            "best-effort images need config/fastdds_shm.xml"
        )

    def fault(self) -> str:
        """Return, in one line, why no message can come; empty where nothing is wrong."""
        type_name = _type_name(self._message)
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if not publishers:
            return f"nobody publishes {self.topic} ({type_name}){self._elsewhere(type_name)}"
        others = {p.topic_type for p in publishers} - {type_name}
        if others:
            return f"{self.topic} is of type {', '.join(sorted(others))}, not {type_name}"
        ours = self._handle.qos_profile
        for offered in (p.qos_profile for p in publishers):
            if qos_check_compatible(offered, ours)[0] == QoSCompatibility.ERROR:
                return (
                    f"{self.topic} is published {_described(offered)}, but asked for "
                    f"{_described(ours)}: mend qos_overrides.{self.topic}"
                )
        return ""

    def _elsewhere(self, type_name: str) -> str:
        """Return what is published instead: messages of this type, or beside this topic."""
        near = [
            f"{topic} ({', '.join(types)})"
            for topic, types in self._node.get_topic_names_and_types()
            if (type_name in types or _beside(topic, self.topic))
            and self._node.count_publishers(topic)
        ]
        return f"; there is {', '.join(near[:_LISTED_TOPICS])}" if near else ""

    def _created(self, qos: QoSProfile) -> Any:
        first = self.topic not in self._overridden
        try:
            handle = self._node.create_subscription(
                self._message,
                self.topic,
                self._callback,
                qos,
                callback_group=self._group,
                event_callbacks=SubscriptionEventCallbacks(
                    message_lost=self._on_lost,
                    incompatible_qos=lambda _: None,  # `fault` says it
                ),
                qos_overriding_options=(
                    QoSOverridingOptions.with_default_policies() if first else None
                ),
            )
        except (ParameterException, RuntimeError, TypeError) as error:
            if not first or not self._given():
                raise
            raise ConfigError(f"{reason_of(error)}: mend qos_overrides.{self.topic}") from None
        if first:  # rclpy has written what was given into it
            self._overridden[self.topic] = {name: getattr(qos, name) for name in self._given()}
        return handle

    def _given(self) -> list[str]:
        """Return the policies that the user's qos_overrides set; rclpy has no public way to it."""
        prefix = f"qos_overrides.{self.topic}.subscription."
        return [name for name in OVERRIDABLE if prefix + name in self._node._parameter_overrides]

    def _adapted(self) -> QoSProfile:
        qos = copy.copy(self._wanted)
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        offered = [p.qos_profile for p in publishers]
        if self._latched and offered:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
            qos.reliability = ReliabilityPolicy.RELIABLE
        qos.reliability, qos.durability = _lowered(qos, offered)
        for name, value in self._overridden.get(self.topic, {}).items():
            setattr(qos, name, value)
        return qos

    def _on_lost(self, event: Any) -> None:
        self.lost += event.total_count_change


def _lowered(
    wanted: QoSProfile, offered: list[QoSProfile]
) -> tuple[ReliabilityPolicy, DurabilityPolicy]:
    """Return the strongest reliability and durability up to `wanted` that all publishers meet."""
    reliability, durability = wanted.reliability, wanted.durability
    if any(o.reliability == ReliabilityPolicy.BEST_EFFORT for o in offered):
        reliability = ReliabilityPolicy.BEST_EFFORT
    if any(o.durability == DurabilityPolicy.VOLATILE for o in offered):
        durability = DurabilityPolicy.VOLATILE
    return reliability, durability


def _beside(topic: str, other: str) -> bool:
    """Return whether one topic lies below the other, as image/compressed does below image."""
    return topic.startswith(f"{other}/") or other.startswith(f"{topic}/")


def _described(qos: QoSProfile) -> str:
    words = qos.reliability.name, qos.durability.name
    return " and ".join(word.lower().replace("_", " ") for word in words)


def _type_name(message: Any) -> str:
    package, _, _ = message.__module__.partition(".")
    return f"{package}/msg/{message.__name__}"
