"""`vo-stream play`: publishes the messages of a bag, on machines without rosbag2."""

from __future__ import annotations

import importlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from vo_stream.errors import SourceError, VoStreamError
from vo_stream.replay.bag_messages import BagMessages, BagTopic, RawMessage
from vo_stream.replay.read_ahead import ReadAhead
from vo_stream.ros.process import Ending, prepare_process
from vo_stream.ros.qos import profile, reason_of, recorded
from vo_stream.values import NANOSECONDS

NODE_NAME = "vo_stream_play"

CLOCK = "/clock"

DISCOVERY_S = 4.0
"""Longest wait for somebody who listens. Processes that miss each other's first greeting meet at
the next, three seconds later."""

SETTLE_S = 0.5
"""From the first who listens to the first message: others are about to find the publishers too."""

LOOK_NS = NANOSECONDS // 50
"""Between two looks for somebody who listens."""

TICK_NS = NANOSECONDS // 100
"""Between two messages on /clock."""

TURN_GAP_NS = NANOSECONDS // 10
"""From the last message of a loop's turn to the first of the next."""

ACKNOWLEDGED_S = 1.0
"""How long the end waits for those who still receive."""

LATENESS_KEPT = 100_000
"""Messages, the newest, whose lateness is told."""

Show = Callable[[float], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """What to play, and how. `topics`: empty for all.

    `rate`: bag seconds in a second. `loop`: from the start again, without end. `clock`: publish the
    time of the bag. `delay_s`: before the first message. `start_s`, `duration_s`: the part of the
    bag that is played.
    """

    rate: float = 1.0
    loop: bool = False
    clock: bool = False
    topics: tuple[str, ...] = ()
    delay_s: float = 0.0
    start_s: float = 0.0
    duration_s: float | None = None


@dataclass(slots=True)
class Played:
    """What has been played so far. `topics`: publishers. Times are wall time."""

    topics: int = 0
    messages: int = 0
    seconds: float = 0.0
    lateness_ns: deque[int] = field(default_factory=lambda: deque(maxlen=LATENESS_KEPT))

    def lateness_ms(self, part: float) -> float:
        """Return what that part of the messages kept to; nan where there were none."""
        if not self.lateness_ns:
            return math.nan
        last = len(self.lateness_ns) - 1
        return sorted(self.lateness_ns)[math.ceil(part * last)] / 1e6

    @property
    def text(self) -> str:
        """One line for people."""
        return (
            f"{self.messages} messages on {self.topics} topics in {self.seconds:.1f} s, "
            f"lateness p99 {self.lateness_ms(0.99):.2f} ms"
        )


def play(path: Path, options: PlayOptions, show: Show) -> Played:
    """Publish a bag until its end, or until SIGINT or SIGTERM come; it takes both signals.

    `show` is called with the seconds of the bag that have passed. Raises VoStreamError.
    """
    ending = prepare_process()
    played = Played()
    with suppress(_Ended), BagMessages(path) as bag, _node() as node:
        publishers = _publishers(node, _chosen(path, bag, options))
        if not publishers:
            raise SourceError(f"{path}: none of its topics can be played")
        played.topics = len(publishers)
        clock = node.create_publisher(Clock, CLOCK, profile("reliable")) if options.clock else None
        player = _Player(publishers, clock, options, show, played, ending)
        turns = _turns(bag, tuple(publishers), options)
        with closing(ReadAhead(turns, lambda item: len(item[1].data))) as messages:
            player.run(messages)
        if not played.messages:
            raise SourceError(f"{path}: has no message to play from there on")
        _let_receive(publishers)
    return played


class _Ended(Exception):  # noqa: N818 - no error
    """SIGINT or SIGTERM has come."""


class _Player:
    """Publishes messages when their time has come, and tells the time in between."""

    def __init__(
        self,
        publishers: Mapping[str, Any],
        clock: Any,
        options: PlayOptions,
        show: Show,
        played: Played,
        ending: Ending,
    ) -> None:
        self._publishers = publishers
        self._clock = clock
        self._options = options
        self._show = show
        self._played = played
        self._ending = ending
        self._next_tick_ns = 0
        self._turn = -1
        self._turn_began_ns = self._first_recorded_ns = 0

    def run(self, messages: Iterator[tuple[int, RawMessage]]) -> None:
        """Publish all messages, given with the number of their turn."""
        ready_ns = time.monotonic_ns() + round(self._options.delay_s * NANOSECONDS)
        self._await_listener()
        due_ns = began_ns = max(ready_ns, time.monotonic_ns() + round(SETTLE_S * NANOSECONDS))
        self._sleep_until(due_ns)
        for turn, message in messages:
            if turn != self._turn:
                self._begin_turn(turn, message, due_ns)
            passed_ns = (message.recorded_ns - self._first_recorded_ns) / self._options.rate
            due_ns = max(due_ns, self._turn_began_ns + round(passed_ns))
            self._sleep_until(due_ns)
            self._played.lateness_ns.append(time.monotonic_ns() - due_ns)
            self._publishers[message.topic].publish(message.data)
            self._played.messages += 1
            self._played.seconds = (time.monotonic_ns() - began_ns) / NANOSECONDS

    def _await_listener(self) -> None:
        end_s = time.monotonic() + DISCOVERY_S
        while time.monotonic() < end_s:
            if any(publisher.get_subscription_count() for publisher in self._publishers.values()):
                return
            self._sleep_until(time.monotonic_ns() + LOOK_NS)

    def _begin_turn(self, turn: int, first: RawMessage, previous_due_ns: int) -> None:
        began_ns = max(previous_due_ns + TURN_GAP_NS * (turn > 0), time.monotonic_ns())
        self._sleep_until(began_ns)  # in the time of the turn before
        self._turn, self._turn_began_ns = turn, began_ns
        self._first_recorded_ns = first.recorded_ns
        self._next_tick_ns = began_ns

    def _sleep_until(self, due_ns: int) -> None:
        while True:
            if self._ending.asked:
                raise _Ended
            now_ns = time.monotonic_ns()
            if now_ns >= self._next_tick_ns:
                self._tick(now_ns)
            if now_ns >= due_ns:
                return
            time.sleep(max(0, min(due_ns, self._next_tick_ns) - time.monotonic_ns()) / NANOSECONDS)

    def _tick(self, now_ns: int) -> None:
        self._next_tick_ns = max(self._next_tick_ns, now_ns - TICK_NS) + TICK_NS
        if self._turn < 0:
            return
        passed_ns = round((now_ns - self._turn_began_ns) * self._options.rate)
        if self._clock is not None:
            message = Clock()
            seconds, nanoseconds = divmod(self._first_recorded_ns + passed_ns, NANOSECONDS)
            message.clock.sec, message.clock.nanosec = seconds, nanoseconds
            self._clock.publish(message)
        self._show(passed_ns / NANOSECONDS)


def _turns(
    bag: BagMessages, topics: tuple[str, ...], options: PlayOptions
) -> Iterator[tuple[int, RawMessage]]:
    """Yield the messages with the number of their turn, which counts from 0."""
    turn, found = 0, True
    while found:
        found = False
        for message in bag.messages(topics, options.start_s, options.duration_s):
            yield turn, message
            found = options.loop
        turn += 1


def _chosen(path: Path, bag: BagMessages, options: PlayOptions) -> list[BagTopic]:
    """Return the topics to be played; raises SourceError."""
    topics = dict(bag.topics)
    if options.clock and CLOCK in topics:
        del topics[CLOCK]
        logger.warning("%s: its own %s is left out", path, CLOCK)
    if not options.topics:
        return list(topics.values())
    chosen = {}
    for wanted in options.topics:
        name = wanted if wanted in topics else f"/{wanted}"
        if name not in topics:
            has = ", ".join(topics) or "none"
            raise SourceError(f"{path}: has no messages on {wanted}; it has {has}")
        chosen[name] = topics[name]
    return list(chosen.values())


def _publishers(node: Any, topics: list[BagTopic]) -> dict[str, Any]:
    """Return a publisher for each topic that can have one; the others get a warning."""
    publishers = {}
    for topic in topics:
        try:
            kind = _message_class(topic.type)
            publishers[topic.name] = node.create_publisher(kind, topic.name, recorded(topic))
        except (ImportError, AttributeError, NameValidationException, RuntimeError) as error:
            reason = reason_of(error)
            logger.warning("%s (%s) is left out: %s", topic.name, topic.type or "mixed", reason)
    return publishers


def _message_class(name: str) -> Any:
    """Import a message's class; raises ImportError or AttributeError."""
    package, _, kind = name.partition("/msg/")
    if not package.isidentifier() or not kind.isidentifier():
        raise ImportError("no message of ROS 2")
    return getattr(importlib.import_module(f"{package}.msg"), kind)


@contextmanager
def _node() -> Iterator[Any]:
    """Yield a node that needs no spinning; raises VoStreamError."""
    context = Context()
    try:
        rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        raise VoStreamError(f"ROS 2 does not start: {reason_of(error)}") from None
    try:
        node = Node(NODE_NAME, context=context, enable_rosout=False, start_parameter_services=False)
        try:
            yield node
        finally:
            node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def _let_receive(publishers: Mapping[str, Any]) -> None:
    """Wait until reliable subscribers have all, but not for ever."""
    end_s = time.monotonic() + ACKNOWLEDGED_S
    for publisher in publishers.values():
        while not publisher.wait_for_all_acked(Duration(seconds=0.05)):
            if time.monotonic() > end_s:
                return
