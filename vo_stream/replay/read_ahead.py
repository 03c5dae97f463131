"""Reading ahead in a thread, by bytes: what comes next is there when its time has come."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

ITEMS_AHEAD = 2000
BYTES_AHEAD = 64_000_000
"""At most that much waits; one item more is in the making."""

CLOSE_S = 0.2
"""How long `close` waits for the thread."""


class ReadAhead(Generic[T]):
    """An iterator that a thread keeps filled, from now on.

    `size` gives an item's bytes. What `items` raises is raised here, in its place.
    """

    def __init__(self, items: Iterable[T], size: Callable[[T], int]) -> None:
        self._size = size
        self._waiting: deque[T] = deque()
        self._bytes = 0
        self._over = self._closed = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(items,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            if self._waiting:
                item = self._waiting.popleft()
                self._bytes -= self._size(item)
                self._changed.notify()
                return item
            error, self._error = self._error, None
        raise error or StopIteration

    def close(self) -> None:
        """Stop the thread, but do not wait long: it may hang in a slow read."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(CLOSE_S)

    def _read(self, items: Iterable[T]) -> None:
        error: Exception | None = None
        try:
            for item in items:
                if not self._put(item):
                    return
        except Exception as raised:  # noqa: BLE001 - raised again by __next__
            error = raised
        with self._changed:
            self._over, self._error = True, error
            self._changed.notify()

    def _put(self, item: T) -> bool:
        """Add an item once there is room; False where nobody wants it any more."""
        size = self._size(item)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(size))
            if self._closed:
                return False
            self._waiting.append(item)
            self._bytes += size
            self._changed.notify()
        return True

    def _has_room(self, size: int) -> bool:
        if not self._waiting:
            return True
        return len(self._waiting) < ITEMS_AHEAD and self._bytes + size <= BYTES_AHEAD
