"""Where images wait: the executor's thread puts them in, the worker takes them out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """A queue between two threads that never makes the one that puts in wait.

    `capacity`: how many may wait. `drop_stale`: where one more comes, the oldest makes room and is
    counted in `dropped`. Otherwise whoever puts in looks at `is_full` first, and `on_room` is
    called, in the other thread, when that has changed.
    """

    def __init__(
        self, capacity: int, drop_stale: bool, on_room: Callable[[], None] = lambda: None
    ) -> None:
        self.dropped = 0
        self._capacity = capacity
        self._drop_stale = drop_stale
        self._on_room = on_room
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()

    @property
    def is_full(self) -> bool:
        """Whether another item has to wait outside; never where stale ones are dropped."""
        return not self._drop_stale and len(self._items) >= self._capacity

    def put(self, item: Item) -> None:
        """Put in an item."""
        with self._changed:
            if self._drop_stale and len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify()

    def get(self, timeout_s: float) -> Item | None:
        """Return the oldest item; None where none came in time, or `wake` was called."""
        with self._changed:
            if not self._items:
                self._changed.wait(timeout_s)
            if not self._items:
                return None
            was_full = self.is_full
            item = self._items.popleft()
        if was_full:
            self._on_room()
        return item

    def clear(self) -> None:
        """Throw away what waits; it counts as dropped."""
        with self._changed:
            self.dropped += len(self._items)
            self._items.clear()
        self._on_room()

    def wake(self) -> None:
        """Let a `get` that waits return."""
        with self._changed:
            self._changed.notify_all()
