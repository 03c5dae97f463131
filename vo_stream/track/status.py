"""The one state machine behind status topic, diagnostics level and covariance regime."""

from __future__ import annotations

from dataclasses import dataclass

from vo_stream.values import Status


@dataclass(frozen=True, slots=True)
class Tracking:
    """Status of a stream, and `blind_s`: for how long the images have shown no motion (s)."""

    status: Status = Status.INITIALIZING
    blind_s: float = 0.0

    def after(self, dt_s: float, observed: bool, max_coast_s: float) -> Tracking:
        """Return the status one frame of `dt_s` seconds later.

        A seen motion tracks at once, whatever was before; an unseen one degrades, and once the
        blindness has lasted longer than `max_coast_s` the stream is lost.
        """
        if observed:
            return Tracking(Status.TRACKING)
        blind_s = self.blind_s + dt_s
        return Tracking(Status.DEGRADED if blind_s <= max_coast_s else Status.LOST, blind_s)
