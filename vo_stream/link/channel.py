"""What the live side sees of the adjuster: a link that takes frames and hands out refinements."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from vo_stream.values import Estimate, Frame, Refinement


class Adjusting(Protocol):
    """What a link and a worker ask of an adjuster; `adjust.adjuster.Adjuster` is one."""

    def add(self, frame: Frame, estimate: Estimate) -> None:
        """Take in a frame."""
        ...

    def solve(self) -> Refinement | None:
        """Refine once if there is something new to refine."""
        ...


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """How a link fares. The counts are those of its whole life.

    `alive`: whether refinements can be expected; `state` says more, in a word for people.
    `sent`: frames that were taken. Of them `dropped` were given up before they were worked off,
    and `waiting` are still to come to that. `received`: refinements. `faults`: messages that could
    not be used, here and there. `restarts`: how often the adjuster was replaced.
    `hopeless`: the adjuster was replaced again and again and did nothing; do not wait for it.
    `age_s`: since anything was last heard of the adjuster, or since it was started.
    """

    alive: bool
    state: str
    sent: int = 0
    dropped: int = 0
    waiting: int = 0
    received: int = 0
    faults: int = 0
    restarts: int = 0
    age_s: float = 0.0
    hopeless: bool = False


class Link(Protocol):
    """The way to an adjuster and back. It belongs to one thread.

    Whatever befalls the adjuster, no method raises for it. Refinements of earlier sessions come
    out like others: a recording wants them, and an odometer knows its own session.
    """

    def send(self, frame: Frame, estimate: Estimate) -> bool:
        """Hand over a frame; return False where that or an earlier one had to be dropped.

        Does not wait. A refused frame has nothing for the adjuster and is left out.
        """
        ...

    def poll(self) -> Refinement | None:
        """Return the oldest refinement that has come; None where there is none. Does not wait."""
        ...

    def status(self) -> LinkStatus:
        """Say how the link fares."""
        ...

    def finish(self, timeout_s: float) -> bool:
        """Wait until all frames are worked off; False where that takes longer or will not happen.

        What came of them is there to be polled then.
        """
        ...

    def close(self) -> None:
        """End the adjuster and free what it held. More calls do nothing."""
        ...


class NoLink:
    """Leads nowhere: nothing is refined."""

    def send(self, frame: Frame, estimate: Estimate) -> bool:
        """Leave the frame alone."""
        return True

    def poll(self) -> Refinement | None:
        """Return None."""
        return None

    def status(self) -> LinkStatus:
        """Say that there is no adjuster."""
        return LinkStatus(alive=False, state="off")

    def finish(self, timeout_s: float) -> bool:
        """Return True: nothing is under way."""
        return True

    def close(self) -> None:
        """Do nothing."""


class InlineLink:
    """Leads to an adjuster in this very thread: `send` works the frame off before it returns.

    The same frames give the same refinements at the same places. What the adjuster raises
    passes: it is a bug.
    """

    def __init__(self, adjuster: Adjusting) -> None:
        self._adjuster = adjuster
        self._refinements: deque[Refinement] = deque()
        self._sent = self._received = 0

    def send(self, frame: Frame, estimate: Estimate) -> bool:
        """Have the frame worked off; nothing is ever dropped."""
        if estimate.refused:
            return True
        self._sent += 1
        self._adjuster.add(frame, estimate)
        refinement = self._adjuster.solve()
        if refinement is not None:
            self._received += 1
            self._refinements.append(refinement)
        return True

    def poll(self) -> Refinement | None:
        """Return the oldest refinement that was not fetched yet."""
        return self._refinements.popleft() if self._refinements else None

    def status(self) -> LinkStatus:
        """Say what was counted."""
        return LinkStatus(True, "inline", sent=self._sent, received=self._received)

    def finish(self, timeout_s: float) -> bool:
        """Return True: nothing is ever under way."""
        return True

    def close(self) -> None:
        """Do nothing."""
