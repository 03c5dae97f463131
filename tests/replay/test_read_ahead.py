from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from vo_stream.replay import read_ahead
from vo_stream.replay.read_ahead import ReadAhead


def endless(taken: list[int]) -> Iterator[int]:
    while True:
        taken.append(len(taken))
        yield taken[-1]


def settled(taken: list[int]) -> int:
    """Return how many were taken once no more are."""
    before = -1
    while before != len(taken):
        before = len(taken)
        time.sleep(0.2)
    return before


def test_items_come_in_order_and_end() -> None:
    items = ReadAhead(range(5000), lambda _: 1)
    assert list(items) == list(range(5000))
    assert list(items) == []
    items.close()


@pytest.mark.parametrize(
    ("size", "ahead"), [(1, read_ahead.ITEMS_AHEAD), (read_ahead.BYTES_AHEAD // 10, 10)]
)
def test_what_waits_is_bounded(size: int, ahead: int) -> None:
    taken: list[int] = []
    items = ReadAhead(endless(taken), lambda _: size)
    assert settled(taken) == ahead + 1
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    assert settled(taken) == ahead + 4
    items.close()


def test_an_item_beyond_the_bound_passes() -> None:
    items = ReadAhead(range(3), lambda _: 2 * read_ahead.BYTES_AHEAD)
    assert list(items) == [0, 1, 2]


def test_what_is_raised_comes_in_its_place() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    items = ReadAhead(failing(), lambda _: 1)
    assert next(items) == 1
    with pytest.raises(KeyError, match="broken"):
        next(items)
    assert list(items) == []


def test_closing_ends_the_thread() -> None:
    before = threading.active_count()
    items = ReadAhead(endless([]), lambda _: 1)
    assert next(items) == 0
    items.close()
    items.close()
    assert threading.active_count() == before
