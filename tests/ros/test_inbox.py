"""The queue between the executor's thread and the worker's."""

from __future__ import annotations

import threading
import time

import pytest

from vo_stream.ros.inbox import Inbox

AT_ONCE_S = 0.0
LONG_S = 30.0
"""A test that waited for so long would be broken off."""


def contents(inbox: Inbox[int]) -> list[int]:
    taken = []
    while (item := inbox.get(AT_ONCE_S)) is not None:
        taken.append(item)
    return taken


@pytest.mark.parametrize("capacity", [1, 3])
def test_of_too_many_the_newest_are_kept(capacity: int) -> None:
    inbox = Inbox[int](capacity, drop_stale=True)
    for item in range(1, 11):
        assert not inbox.is_full
        inbox.put(item)
    assert inbox.dropped == 10 - capacity
    assert contents(inbox) == list(range(11 - capacity, 11))


def test_without_dropping_all_are_kept_in_order_and_it_says_when_it_is_full() -> None:
    inbox = Inbox[int](3, drop_stale=False)
    for item in range(1, 4):
        assert not inbox.is_full
        inbox.put(item)
    assert inbox.is_full
    inbox.put(4)  # never waits, and loses nothing
    assert (contents(inbox), inbox.dropped) == ([1, 2, 3, 4], 0)


def test_room_is_told_of_once_it_is_there() -> None:
    told: list[bool] = []
    inbox = Inbox[int](2, drop_stale=False, on_room=lambda: told.append(inbox.is_full))
    for item in (1, 2):
        inbox.put(item)
    assert told == []
    inbox.get(AT_ONCE_S)
    assert told == [False]
    inbox.get(AT_ONCE_S)  # it was not full
    assert told == [False]
    inbox.put(3)
    inbox.put(4)
    inbox.clear()
    assert (told, inbox.dropped, contents(inbox)) == ([False, False], 2, [])


def test_an_empty_one_waits_for_as_long_as_it_is_told() -> None:
    began = time.monotonic()
    assert Inbox[int](1, drop_stale=True).get(0.05) is None
    assert time.monotonic() - began >= 0.045


@pytest.mark.parametrize("how", ["put", "wake"])
def test_one_that_waits_is_woken(how: str) -> None:
    inbox = Inbox[int](1, drop_stale=True)
    taken: list[int | None] = []
    waiting = threading.Thread(target=lambda: taken.append(inbox.get(LONG_S)), daemon=True)
    waiting.start()
    while waiting.is_alive():  # a call that comes too early is repeated
        if how == "wake":
            inbox.wake()
        elif not taken:
            inbox.put(7)
        waiting.join(0.01)
    assert taken == [None if how == "wake" else 7]


@pytest.mark.parametrize("drop_stale", [True, False])
def test_two_threads(drop_stale: bool) -> None:
    """Nothing is lost uncounted, nothing comes twice or out of order, and nobody hangs."""
    count = 5000
    taken: list[int] = []
    room = threading.Event()
    inbox = Inbox[int](5, drop_stale=drop_stale, on_room=room.set)

    def put() -> None:
        for item in range(count):
            while inbox.is_full:
                assert room.wait(LONG_S)
                room.clear()
            inbox.put(item)

    putting = threading.Thread(target=put, daemon=True)
    putting.start()
    while putting.is_alive() or len(taken) + inbox.dropped < count:
        if (item := inbox.get(0.01)) is not None:
            taken.append(item)
    assert taken == sorted(set(taken))
    assert taken[-1] == count - 1
    assert len(taken) + inbox.dropped == count
    if not drop_stale:
        assert inbox.dropped == 0
