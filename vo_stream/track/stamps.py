"""Judging the time stamps of a stream: repeated, late, or from a clock that jumped."""

from __future__ import annotations

from vo_stream.values import NANOSECONDS

JUMP_S = 10.0
"""A stamp farther than this from the one before, either way, must be confirmed by the next: one
wrong stamp would cost the session."""


class StampCheck:
    """Compares stamps with the last accepted one; remembers a jump that awaits confirmation.

    `max_backwards_s`: a stamp that goes back by less is late; by more, the stream began again.
    """

    def __init__(self, max_backwards_s: float) -> None:
        self._max_backwards_ns = max_backwards_s * NANOSECONDS
        self._jumped_ns: int | None = None
        self._clock_back = self._stamps_back = False

    def clock_went_back(self) -> None:
        """Take the next stamp that goes back, however far, for the stream's new beginning.

        Unless the stamps did so before the clock.
        """
        self._clock_back, self._stamps_back = not self._stamps_back, False

    def restarted(self) -> None:
        """Take note that the stream began again."""
        self._clock_back, self._stamps_back = False, not self._clock_back

    def turned_back(self, stamp_ns: int, last_ns: int) -> bool:
        """Return whether the stream began again: a bag that loops, a clock that was set."""
        return stamp_ns < last_ns - (0 if self._clock_back else self._max_backwards_ns)

    def refusal(self, stamp_ns: int, last_ns: int) -> str:
        """Return why a frame of that stamp cannot be used; empty where it can."""
        if self._jumps(stamp_ns, last_ns):
            return "the stamp jumps; the next one must confirm it"
        if stamp_ns == last_ns:
            return "the stamp is the previous one's"
        if stamp_ns < last_ns and not self.turned_back(stamp_ns, last_ns):
            return "the stamp is older than the previous one's"
        return ""

    def _jumps(self, stamp_ns: int, last_ns: int) -> bool:
        jump_ns = abs(stamp_ns - last_ns)
        suspect_ns, self._jumped_ns = self._jumped_ns, None
        restarts = self._clock_back and stamp_ns < last_ns
        if jump_ns <= JUMP_S * NANOSECONDS or restarts:
            return False
        if suspect_ns is not None and 0 < stamp_ns - suspect_ns < jump_ns:
            return False  # it goes on from there
        self._jumped_ns = stamp_ns
        return True
