"""How the node fares, as a status on /diagnostics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from vo_stream.ros.inbox import Inbox
from vo_stream.ros.inputs import Inputs
from vo_stream.ros.stream import Arrival, Stream
from vo_stream.values import NANOSECONDS, Estimate, Refinement, Status

LEVELS = {
    Status.INITIALIZING: DiagnosticStatus.WARN,
    Status.TRACKING: DiagnosticStatus.OK,
    Status.DEGRADED: DiagnosticStatus.WARN,
    Status.LOST: DiagnosticStatus.ERROR,
}
"""The one state machine of `track/status.py` sets the level."""

PLAUSIBLE_AGE_S = 60.0
"""An image older than this, or from the future, was not stamped by this clock."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What there is while the node is active. `free`: ends it all."""

    inbox: Inbox[Arrival]
    inputs: Inputs
    stream: Stream
    free: ExitStack = field(default_factory=ExitStack)
    since_s: float = field(default_factory=time.monotonic)

    @property
    def age_s(self) -> float:
        """Seconds since the node became active."""
        return time.monotonic() - self.since_s


class Diagnostics:
    """Makes the status; the rates it tells are those since it was last made."""

    def __init__(self, node_name: str) -> None:
        self._name = f"{node_name}: visual odometry"
        self._parts: Parts | None = None
        self._counts = (0, 0)
        self._made_s = 0.0

    def status(
        self,
        lifecycle: str,
        backend: str,
        parts: Parts | None,
        missing: str,
        conflict: str,
        now_ns: int,
    ) -> DiagnosticStatus:
        """Return the status.

        `missing`: what the node waits for. `conflict`: what others do that does harm. Each is a
        line, empty for nothing.
        """
        status = DiagnosticStatus(name=self._name, message=lifecycle)
        values: dict[str, object] = {"lifecycle": lifecycle, "backend": backend}
        if parts is not None:
            estimate = parts.stream.last
            status.level, status.message = _level_and_message(parts, estimate)
            values |= self._rates(parts) | dict(_counts(parts))
            if estimate is not None:
                values |= _about(estimate, parts.stream.refinement, now_ns)
        for level, fault in ((DiagnosticStatus.WARN, conflict), (DiagnosticStatus.ERROR, missing)):
            if fault and level >= status.level:
                status.level, status.message = level, fault
        status.values = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
        return status

    def _rates(self, parts: Parts) -> dict[str, object]:
        if parts is not self._parts:
            self._parts, self._counts, self._made_s = parts, (0, 0), parts.since_s
        counts = parts.inputs.images, parts.stream.published
        now_s = time.monotonic()
        rates = np.subtract(counts, self._counts) / max(now_s - self._made_s, 1e-3)
        self._counts, self._made_s = counts, now_s
        latencies = list(parts.stream.latencies_ms) or [float("nan")]
        p50, p99 = np.percentile(latencies, (50, 99))
        return {
            "image rate (Hz)": rates[0],
            "odometry rate (Hz)": rates[1],
            "latency p50 (ms)": p50,
            "latency p99 (ms)": p99,
        }


def _level_and_message(parts: Parts, estimate: Estimate | None) -> tuple[bytes, str]:
    if parts.stream.failing:
        return DiagnosticStatus.ERROR, f"images cannot be processed: {parts.stream.failing}"
    if parts.stream.refusing:
        return DiagnosticStatus.ERROR, f"the image is refused: {parts.stream.refusing}"
    if parts.inputs.paused:
        return DiagnosticStatus.WARN, "paused"
    if estimate is None:
        return DiagnosticStatus.WARN, "no image yet"
    reason = f": {estimate.reason}" if estimate.reason else ""
    return LEVELS[estimate.status], f"{estimate.status.value}{reason}"


def _counts(parts: Parts) -> Iterator[tuple[str, object]]:
    inputs, stream, link = parts.inputs, parts.stream, parts.stream.link_status
    yield "images", inputs.images
    yield "odometry messages", stream.published
    yield "dropped as stale", parts.inbox.dropped
    yield "lost on the way", inputs.lost
    yield "refused", sum(stream.refused.values())
    for reason, count in [*inputs.unused.items(), *stream.refused.items()]:
        yield f"left out: {reason}", count
    yield "failed", stream.failed
    if inputs.wheel is not None:
        yield "wheel messages", inputs.wheel.messages
        yield "wheel messages not used", inputs.wheel.dropped
        yield "wheel interruptions", inputs.wheel.breaks
    yield "executor busy max (ms)", inputs.busiest_ms
    yield "adjuster", link.state
    yield "adjuster age (s)", link.age_s
    yield "adjuster restarts", link.restarts
    yield "adjuster frames dropped", link.dropped


def _about(estimate: Estimate, refinement: Refinement | None, now_ns: int) -> dict[str, object]:
    values: dict[str, object] = {
        "status": estimate.status.value,
        "session": estimate.session,
        "metric": estimate.metric,
        "scale": estimate.scale,
    }
    if refinement is not None:
        values["scale std"] = refinement.scale_std
        values["scale source"] = refinement.scale_source or "none"
        values["landmarks"] = len(refinement.landmarks)
        values["refined age (s)"] = (estimate.stamp_ns - refinement.stamp_ns) / NANOSECONDS
        values["window"] = refinement.reason or "solved"
    age_s = (now_ns - estimate.stamp_ns) / NANOSECONDS
    if 0.0 <= age_s < PLAUSIBLE_AGE_S:
        values["image age (s)"] = age_s
    return values


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
