"""What either side makes of messages it should not get: a test sits at the other end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
import zmq
from link_cases import (
    COUNTING,
    LIMIT_S,
    PERIOD_NS,
    RAISE,
    await_refinement,
    config_of,
    drain,
    make_frame,
    make_refinement,
    until,
)

from vo_stream.config import Config
from vo_stream.link.packet import Part
from vo_stream.link.process import WorkerProcess
from vo_stream.link.sockets import adjuster_socket, link_socket, received, send
from vo_stream.link.wire import (
    READY,
    AdjusterState,
    FrameMessage,
    Hello,
    Message,
    decode,
    encode_frame,
    encode_hello,
    encode_refinement,
    encode_settings,
    encode_state,
)
from vo_stream.link.zmq_link import ZmqLink
from vo_stream.values import Refinement

pytestmark = pytest.mark.timeout(120)

SETTINGS = encode_settings(Config())
GARBAGE: list[list[Part]] = [[b""], [b"x" * 100], [b"VOSL\x00\x01{}"], [b"VOSL\xff\xff{}", b"1"]]


class FakeAdjuster:
    """The adjuster's end of a link, moved by hand."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.socket = adjuster_socket(context)
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self.peer = b""
        self.stream = 0

    def hear(self, link: ZmqLink) -> Message:
        """Return the link's next message; the link is looked after meanwhile."""
        heard: list[list[Part]] = []

        def has_come() -> bool:
            drain(link)
            parts = received(self.socket)
            if parts:
                heard.append(parts)
            return bool(heard)

        until(has_come)
        self.peer = bytes(heard[0][0])
        self.stream, message = decode(heard[0][1:])
        return message

    def say(self, parts: list[Part]) -> None:
        send(self.socket, parts, self.peer)

    def ready(self, done: int = 0) -> None:
        self.say(encode_state(self.stream, AdjusterState(READY, done)))


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as made:
        yield made
        made.destroy(linger=0)


@pytest.fixture
def fake(context: zmq.Context[zmq.Socket[bytes]]) -> FakeAdjuster:
    return FakeAdjuster(context)


@pytest.fixture
def link(fake: FakeAdjuster) -> Iterator[ZmqLink]:
    """A link to `fake`, which has said that it is ready."""
    with closing(ZmqLink(config_of(endpoint=fake.endpoint, hang_s=0.5, queue=3))) as made:
        assert fake.hear(made) == Hello()
        fake.ready()
        until(lambda: (made.poll(), made.status().state == "ready")[1])
        yield made


def test_what_is_no_message_is_counted_and_changes_nothing(
    link: ZmqLink, fake: FakeAdjuster
) -> None:
    for parts in GARBAGE:
        fake.say(parts)
    fake.say(encode_hello(fake.stream))  # only a link says that
    until(lambda: (link.poll(), link.status().faults == len(GARBAGE) + 1)[1])
    fake.say(encode_refinement(fake.stream, make_refinement(5)))
    until(lambda: any(r.stamp_ns == 5 for r in drain(link)))
    assert link.status().state == "ready"


def test_messages_of_another_stream_change_nothing(link: ZmqLink, fake: FakeAdjuster) -> None:
    link.send(*make_frame(0))
    fake.hear(link)
    fake.say(encode_refinement(fake.stream ^ 1, make_refinement(1)))
    fake.say(encode_state(fake.stream ^ 1, AdjusterState(READY, done=1)))
    fake.say(encode_refinement(fake.stream, make_refinement(2)))
    assert await_refinement(link).stamp_ns == 2
    status = link.status()
    assert (status.received, status.waiting, status.faults) == (1, 1, 0)


def test_an_adjuster_cannot_claim_frames_it_never_had(link: ZmqLink, fake: FakeAdjuster) -> None:
    link.send(*make_frame(0))
    fake.hear(link)
    fake.ready(done=100)
    assert link.finish(LIMIT_S)
    for i in range(1, 3):
        link.send(*make_frame(i))
    assert link.status().waiting == 2
    messages = [fake.hear(link), fake.hear(link)]
    assert [m.serial for m in messages if isinstance(m, FrameMessage)] == [2, 3]


def test_silence_begins_a_new_stream_and_the_old_ones_answers_come_too_late(
    link: ZmqLink, fake: FakeAdjuster
) -> None:
    link.send(*make_frame(0))
    fake.hear(link)
    old_peer, old_stream = fake.peer, fake.stream
    assert fake.hear(link) == Hello()
    assert fake.stream != old_stream
    send(fake.socket, encode_refinement(old_stream, make_refinement(1)), old_peer)
    fake.say(encode_refinement(old_stream, make_refinement(2)))
    fake.ready()
    link.send(*make_frame(1))
    assert isinstance(message := fake.hear(link), FrameMessage)
    assert (message.serial, message.frame.stamp_ns) == (1, PERIOD_NS)
    fake.ready(done=1)
    assert link.finish(LIMIT_S)
    status = link.status()
    assert (status.received, status.restarts) == (0, 1)
    assert (status.sent, status.dropped) == (2, 1)


def test_an_adjuster_that_is_away_costs_frames_only() -> None:
    with closing(ZmqLink(config_of(endpoint="tcp://127.0.0.1:9", queue=3))) as link:
        for i in range(10):
            link.send(*make_frame(i))
        assert not link.finish(0.1)
        status = link.status()
        assert (status.alive, status.state) == (False, "starting")
        assert (status.sent, status.dropped, status.waiting) == (10, 7, 3)


class FakeLink:
    """The link's end, moved by hand, with a real process at the other."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.socket = link_socket(context)
        self.socket.connect(endpoint)

    def say(self, parts: list[Part]) -> None:
        send(self.socket, parts)

    def frame(self, stream: int, serial: int, task: int = 0) -> None:
        self.say(encode_frame(stream, serial, SETTINGS, *make_frame(serial, task)))

    def await_done(self, stream: int, done: int) -> list[Refinement]:
        """Wait until frame `done` is worked off; return what came. Fails at another stream."""
        refinements: list[Refinement] = []
        while True:
            assert self.socket.poll(int(1e3 * LIMIT_S)), "no answer"
            parts = received(self.socket)
            assert parts is not None
            heard, message = decode(parts)
            if heard != stream:
                continue
            if isinstance(message, Refinement):
                refinements.append(message)
            elif isinstance(message, AdjusterState) and message.done >= done:
                assert message.done == done
                self.faults = message.faults
                return refinements


@pytest.fixture
def links(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[list[FakeLink]]:
    """Two links to one process."""
    with closing(WorkerProcess(COUNTING)) as process:
        endpoint = process.start()
        yield [FakeLink(context, endpoint), FakeLink(context, endpoint)]


def test_a_new_stream_gets_a_new_adjuster_and_the_old_one_is_over(links: list[FakeLink]) -> None:
    old, new = links
    old.say(encode_hello(1))
    old.frame(1, 1)
    old.frame(1, 2)
    assert old.await_done(1, 2)[-1].scale_source.startswith("2 frames")
    new.frame(2, 1)  # a greeting is not needed
    assert new.await_done(2, 1)[-1].scale_source.startswith("1 frames")
    old.frame(1, 3)
    old.say(encode_hello(1))
    # Same connection, so that the order is sure.
    new.frame(1, 4, RAISE)
    new.frame(2, 2)
    (refinement,) = new.await_done(2, 2)
    assert refinement.scale_source.startswith("2 frames")
    assert not old.socket.poll(0) or decode(received(old.socket) or [])[0] == 1


def test_the_process_counts_what_it_cannot_use_and_goes_on(links: list[FakeLink]) -> None:
    link, _ = links
    for parts in GARBAGE:
        link.say(parts)
    link.say(encode_refinement(1, make_refinement()))  # only an adjuster says that
    link.frame(1, 1)
    assert len(link.await_done(1, 1)) == 1
    assert link.faults == len(GARBAGE) + 1


def test_changed_settings_make_a_new_adjuster(links: list[FakeLink]) -> None:
    link, _ = links
    link.frame(1, 1)
    link.await_done(1, 1)
    changed = encode_settings(Config().replaced({"adjust.tracks": 90}))
    link.say(encode_frame(1, 2, changed, *make_frame(2)))
    assert link.await_done(1, 2)[-1].scale_source == "1 frames, 90 tracks"


def test_frames_of_a_new_session_go_on_in_the_same_stream(links: list[FakeLink]) -> None:
    link, _ = links
    for serial, session in ((1, 1), (2, 2)):
        frame, estimate = make_frame(serial)
        link.say(encode_frame(1, serial, SETTINGS, frame, replace(estimate, session=session)))
        assert link.await_done(1, serial)[-1].session == session
