"""What is measured between two lines of a training's log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor


class Meter:
    """Means of what was measured since they were last asked for."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._frames = 0
        self._since = time.perf_counter()

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take in numbers by name."""
        for name, value in values.items():
            if name in self._sums:
                self._sums[name] = self._sums[name] + value
            else:
                self._sums[name] = value
            self._counts[name] = self._counts.get(name, 0) + 1

    def count(self, frames: int) -> None:
        """Take in how many frames were trained on."""
        self._frames += frames

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Measure how long something takes."""
        begun = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begun

    def means(self) -> dict[str, float]:
        """Return the means, frames per second and shares of the time; begin anew."""
        passed = max(time.perf_counter() - self._since, 1e-9)
        values = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        values["frames_per_s"] = self._frames / passed
        values |= {f"share_{name}": spent / passed for name, spent in self._seconds.items()}
        self._begin()
        return values
