"""A thread that owns what only one thread may touch."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

_Job = tuple[Callable[[], Any], "SimpleQueue[tuple[Any, BaseException | None]]"]


class Owner:
    """Does what it is asked in a thread of its own, one thing after the other.

    The thread ends with `close`, or when nobody knows the owner any more.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, self._jobs.put, None)

    def do(self, job: Callable[[], Result]) -> Result:
        """Return what a job returns, or raise what it raises."""
        answer: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        if not self._end.alive:
            raise RuntimeError("a job for an owner that is closed")
        self._jobs.put((job, answer))
        result, error = answer.get()
        if error is not None:
            try:
                raise error
            finally:
                del error  # else this frame and the error would keep each other
        value: Result = result
        return value

    def close(self) -> None:
        """End the thread once it has done all that it was asked."""
        self._end()
        self._thread.join()


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (asked := jobs.get()) is not None:
        job, answer = asked
        try:
            answer.put((job(), None))
        except BaseException as error:  # noqa: BLE001 - whoever asked is told
            answer.put((None, error))
        del asked, job, answer
