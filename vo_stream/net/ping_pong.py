"""The two sets of buffers of a stream's state: a step reads one and writes the other.

So the state is never copied from frame to frame, and the one before a step is whole until its
successor is stepped from. Buffers are dear to make (memory of a GPU, captured graphs), so those of
a stream that nobody remembers any more are used again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from vo_stream.errors import NetError

Buffers = TypeVar("Buffers")

NEVER_WRITTEN = -1


@dataclass(frozen=True, slots=True, eq=False)
class Slot(Generic[Buffers]):
    """The memory after a frame: which of a stream's two sets of buffers holds it.

    `stamp`: of that set when it was written. Another one there now has taken its place.
    """

    stream: Stream[Buffers]
    index: int
    stamp: int


class Stream(Generic[Buffers]):
    """Whose buffers they are, and which of the two sets holds the state after which step."""

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers
        self._stamps = [0, NEVER_WRITTEN]
        self._steps = 0

    def start(self) -> Slot[Buffers]:
        """Return the memory before the first frame: set 0, which holds a clean state."""
        return Slot(self, 0, 0)

    def step(self, slot: Slot[Buffers], run: Callable[[int], None]) -> Slot[Buffers]:
        """Take a step from one set into the other; what that held before is lost.

        `run` reads the set of the index that it is given and writes the other one. Raises NetError
        where the state has been written over, and what `run` raises; both leave `slot` unspent.
        """
        if self._stamps[slot.index] != slot.stamp:
            raise NetError("a step from a state whose successor was stepped from already")
        self._steps += 1
        self._stamps[1 - slot.index] = NEVER_WRITTEN  # a run that fails may have begun to write
        run(slot.index)
        self._stamps[1 - slot.index] = self._steps
        return Slot(self, 1 - slot.index, self._steps)


class Spares(Generic[Buffers]):
    """Buffers by size of image; those of forgotten streams are given out again.

    `made` lists all there are. A stream may be forgotten in any thread.
    """

    def __init__(self) -> None:
        self.made: list[Buffers] = []
        self._free: dict[tuple[int, int], list[Buffers]] = {}

    def stream(self, size: tuple[int, int], make: Callable[[], Buffers]) -> Stream[Buffers]:
        """Return a new stream of images of (width, height); its buffers may hold an old state."""
        free = self._free.setdefault(size, [])
        if free:
            buffers = free.pop()
        else:
            buffers = make()
            self.made.append(buffers)
        stream = Stream(buffers)
        weakref.finalize(stream, free.append, buffers).atexit = False
        return stream
