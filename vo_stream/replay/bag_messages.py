"""The messages of a bag as ROS 2 sends them: CDR, with what their publishers had offered."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vo_stream.errors import SourceError
from vo_stream.replay.bag_reader import (
    BAG_SUFFIXES,
    MAGIC_BY_KIND,
    BagReader,
    BrokenBagError,
    why,
)
from vo_stream.values import NANOSECONDS

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, QosTime

TF_STATIC = "/tf_static"

UNLIMITED_S = 2**31 - 1
"""A duration this long has no limit: what recorders of all ages wrote for it is longer."""

_RENAMED_TYPES = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
"""ROS 1's type: the ROS 2 type that has taken its place, of the same layout."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offer:
    """The quality of service that one publisher of a topic had offered.

    History and depth are left out: the graph does not tell them, so recorders do not know them.
    `deadline_ns`, `lifespan_ns`, `lease_ns`: 0 where there is no limit. `manual`: the publisher
    says itself that it is alive.
    """

    reliable: bool = True
    transient_local: bool = False
    deadline_ns: int = 0
    lifespan_ns: int = 0
    manual: bool = False
    lease_ns: int = 0


@dataclass(frozen=True, slots=True)
class BagTopic:
    """A topic of a bag. `type`: of ROS 2, package/msg/Name; empty where it has several.

    `count`: of its messages. `offers`: one for each publisher that is known.
    """

    name: str
    type: str
    count: int
    offers: tuple[Offer, ...]

    @property
    def offer(self) -> Offer:
        """What all publishers had offered, or the default where they differ, as in rosbag2."""
        return self.offers[0] if len(set(self.offers)) == 1 else Offer()

    @property
    def latched(self) -> bool:
        """Whether who comes late still gets what was sent before."""
        return self.name == TF_STATIC or self.offer.transient_local


class RawMessage(NamedTuple):
    """A message in CDR, as `publish` of rclpy takes it."""

    topic: str
    recorded_ns: int
    data: bytes


class BagMessages:
    """A bag that is open to be played. Raises SourceError.

    `topics`: by name, without those that have no message.
    """

    def __init__(self, path: Path) -> None:
        from rosbags.typesys import Stores, get_typestore

        self._reader = BagReader(path, _bag_kind(path))
        self._typestore = get_typestore(Stores.ROS2_JAZZY)
        self._connections: dict[str, list[Connection]] = {}
        self._warnings: set[str] = set()
        self.topics: dict[str, BagTopic] = {}
        try:
            for name, info in self._reader.topics.items():
                if info.msgcount:
                    kind = _RENAMED_TYPES.get(info.msgtype or "", info.msgtype or "")
                    offers = tuple(self._offers(info.connections))
                    self.topics[name] = BagTopic(name, kind, info.msgcount, offers)
                    self._connections[name] = info.connections
            self._start_ns = self._reader.start_ns
        except self._reader.errors as error:
            self.close()
            raise SourceError(f"{path}: its list of topics is broken ({why(error)})") from None
        except SourceError:
            self.close()
            raise

    def messages(
        self, topics: Collection[str], start_s: float = 0.0, duration_s: float | None = None
    ) -> Iterator[RawMessage]:
        """Yield the messages of some topics in the order of recording.

        From `start_s` after the bag's own start, for `duration_s`. What latched topics said before
        comes first, as if recorded then: a graph would still know it. Ends with a warning where the
        bag is broken; a message that is broken is left out, with one warning per topic.
        """
        start_ns = self._start_ns + round(start_s * NANOSECONDS)
        stop_ns = None if duration_s is None else start_ns + round(duration_s * NANOSECONDS)
        latched = [name for name in topics if self.topics[name].latched]
        broken: Counter[str] = Counter()
        try:
            if start_s > 0.0:
                for message in self._read(latched, broken, None, start_ns):
                    yield message._replace(recorded_ns=start_ns)
            yield from self._read(topics, broken, start_ns if start_s > 0.0 else None, stop_ns)
        except BrokenBagError as error:
            self._warn(f"{self._reader.path}: {error}")
        for name, count in broken.items():
            self._warn(f"{self._reader.path}: {name}: {count} broken messages left out")

    def close(self) -> None:
        """Close the bag; `messages` must not run any more."""
        self._reader.close()

    def __enter__(self) -> BagMessages:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(
        self,
        topics: Collection[str],
        broken: Counter[str],
        start_ns: int | None,
        stop_ns: int | None,
    ) -> Iterator[RawMessage]:
        connections = [c for name in topics for c in self._connections[name]]
        for connection, recorded_ns, raw in self._reader.messages(connections, start_ns, stop_ns):
            name = connection.topic
            try:
                data = self._cdr(raw, self.topics[name].type)
            except self._reader.errors:
                broken[name] += 1
                continue
            yield RawMessage(name, recorded_ns, data)

    def _warn(self, text: str) -> None:
        """Say something once, however often the bag is read."""
        if text not in self._warnings:
            self._warnings.add(text)
            logger.warning("%s", text)

    def _cdr(self, raw: bytes, kind: str) -> bytes:
        if self._reader.kind == "rosbag1":
            return bytes(self._typestore.ros1_to_cdr(raw, kind))
        return bytes(raw)

    def _offers(self, connections: Collection[Connection]) -> Iterator[Offer]:
        from rosbags.interfaces import (
            ConnectionExtRosbag2,
            QosDurability,
            QosLiveliness,
            QosReliability,
        )

        for connection in connections:
            if not isinstance(connection.ext, ConnectionExtRosbag2):
                yield Offer(transient_local=bool(connection.ext.latching))
                continue
            for qos in connection.ext.offered_qos_profiles:
                yield Offer(
                    reliable=qos.reliability != QosReliability.BEST_EFFORT,
                    transient_local=qos.durability == QosDurability.TRANSIENT_LOCAL,
                    deadline_ns=_nanoseconds(qos.deadline),
                    lifespan_ns=_nanoseconds(qos.lifespan),
                    manual=qos.liveliness == QosLiveliness.MANUAL_BY_TOPIC,
                    lease_ns=_nanoseconds(qos.liveliness_lease_duration),
                )


def _nanoseconds(time: QosTime) -> int:
    """Return a duration; 0 where it has no limit."""
    seconds, nanoseconds = int(time.sec), int(time.nsec)
    return seconds * NANOSECONDS + nanoseconds if 0 <= seconds < UNLIMITED_S else 0


def _bag_kind(path: Path) -> str:
    """Recognise a bag by what it holds; raises SourceError."""
    try:
        if path.is_dir():
            if (path / "metadata.yaml").exists():
                return "rosbag2"
            raise SourceError(f"{path}: is no bag: it has no metadata.yaml")
        with path.open("rb") as file:
            head = file.read(max(map(len, MAGIC_BY_KIND)))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read ({why(error)})") from None
    for magic, kind in MAGIC_BY_KIND.items():
        if head.startswith(magic):
            return kind
    raise SourceError(f"{path}: is no bag ({', '.join(BAG_SUFFIXES)}), or a damaged one")
