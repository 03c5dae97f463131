"""Two sets of buffers: which state may be stepped from, and whose buffers are used again."""

from __future__ import annotations

import pytest

from vo_stream.errors import NetError
from vo_stream.net.ping_pong import Slot, Spares, Stream

SIZE = (64, 64)


def test_sets_are_read_and_written_in_turn() -> None:
    read: list[int] = []
    slot = Stream("buffers").start()
    for _ in range(4):
        slot = slot.stream.step(slot, read.append)
    assert read == [0, 1, 0, 1]


def test_a_state_may_be_stepped_from_until_its_successor_is() -> None:
    stream = Stream("buffers")
    first = stream.start()
    second = stream.step(first, lambda index: None)
    again = stream.step(first, lambda index: None)
    with pytest.raises(NetError, match="stepped from already"):
        stream.step(second, lambda index: None)  # the second step from `first` took its place
    third = stream.step(again, lambda index: None)
    with pytest.raises(NetError, match="stepped from already"):
        stream.step(first, lambda index: None)
    stream.step(third, lambda index: None)


def test_a_step_that_fails_spends_the_other_set_alone() -> None:
    stream = Stream("buffers")

    def fail(index: int) -> None:
        raise NetError("out of memory")

    older = stream.start()
    newer = stream.step(older, lambda index: None)
    with pytest.raises(NetError, match="out of memory"):
        stream.step(newer, fail)
    with pytest.raises(NetError, match="stepped from already"):
        stream.step(older, fail)
    stream.step(newer, lambda index: None)


def test_a_refused_step_changes_nothing() -> None:
    stream = Stream("buffers")
    first = stream.start()
    second = stream.step(first, lambda index: None)
    third = stream.step(second, lambda index: None)
    with pytest.raises(NetError):
        stream.step(first, lambda index: pytest.fail("it ran"))
    stream.step(third, lambda index: None)


def test_buffers_go_to_the_next_stream_of_their_size_once_they_are_forgotten() -> None:
    spares: Spares[object] = Spares()
    slot: Slot[object] | None = spares.stream(SIZE, object).start()
    assert slot is not None
    first = slot.stream.buffers
    assert spares.stream(SIZE, object).buffers is not first
    slot = slot.stream.step(slot, lambda index: None)
    assert spares.stream(SIZE, object).buffers is not first
    del slot
    assert spares.stream((32, 32), object).buffers is not first
    held = spares.stream(SIZE, object), spares.stream(SIZE, object)
    assert first in [stream.buffers for stream in held]
    assert len(spares.made) == 3


def test_a_stream_that_could_not_be_made_leaves_no_trace() -> None:
    spares: Spares[object] = Spares()

    def fail() -> object:
        raise NetError("out of memory")

    with pytest.raises(NetError, match="out of memory"):
        spares.stream(SIZE, fail)
    assert spares.made == []
    spares.stream(SIZE, object)
