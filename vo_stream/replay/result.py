"""What one replay of a recording gave, and the trajectory in it that can be judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vo_stream.link.channel import LinkStatus
from vo_stream.replay.refined import Refined
from vo_stream.replay.trajectory import Trajectory
from vo_stream.se3 import Array
from vo_stream.values import NANOSECONDS, Estimate, Status

CONDITIONS = {
    "tracking": "tracking",
    "standing": "standing still",
    "initializing": "initializing",
    "degraded": "degraded",
    "refused": "refused",
    "lost": "lost",
}
"""Colour class and name of what a frame can be, from harmless to worst."""


@dataclass(frozen=True, slots=True, eq=False)
class AdjusterWork:
    """The adjuster's part in a run.

    `link`: what the way to it said at the end; `refinements`: how many came back; `unsolved`: how
    many of these could not be solved, by reason.
    """

    link: LinkStatus
    refinements: int
    unsolved: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """One recording, replayed.

    `name`, `kind`: which recording and of what format; `backend`: what estimated the motion, and
    `metric` whether its lengths are metres, as `mostly_metric` says it. `estimates`:
    one per frame, in order of arrival. `latencies_ms`: (n,) per stage. `groundtruth`: None where
    the recording has none; `metrics`: `Metrics.as_dict()`, None where there was nothing to compare:
    `unjudged` says why. `skipped`: frames that never reached the odometer, counted by reason.
    `seconds`, `cpu_seconds`: wall and processor time of the run, decoding and adjuster included.
    `config`: `Config.as_dict()`. `adjuster`: None where the run had no adjuster; `refined`: what
    it made of each session that has two keyframes; `refined_metrics`: as `metrics`.
    """

    name: str
    kind: str
    backend: str
    metric: bool
    estimates: tuple[Estimate, ...]
    latencies_ms: Mapping[str, npt.NDArray[np.float64]]
    groundtruth: Trajectory | None
    metrics: Mapping[str, object] | None
    unjudged: str
    skipped: Mapping[str, int]
    seconds: float
    cpu_seconds: float
    config: Mapping[str, object]
    adjuster: AdjusterWork | None = None
    refined: Mapping[int, Refined] = field(default_factory=dict)
    refined_metrics: Mapping[str, object] | None = None

    @property
    def judged_session(self) -> int | None:
        """The session of the `comparable` estimates; None where there are none."""
        chosen = comparable(self.estimates)
        return self.estimates[chosen[0]].session if len(chosen) else None

    @property
    def judged_refined(self) -> Refined | None:
        """The refined side of the session that is judged."""
        session = self.judged_session
        return None if session is None else self.refined.get(session)

    @property
    def metric_since(self) -> str:
        """Words for a scale that was found on the way; empty where all or no lengths are metres."""
        first = metric_from(self.estimates)
        return f"metres from frame {first} on" if first else ""


def conditions(estimates: Iterable[Estimate]) -> Iterator[str]:
    """Yield what each frame was, a key of `CONDITIONS`."""
    for estimate in estimates:
        if estimate.refused:
            yield "refused"
        elif estimate.status is Status.TRACKING and estimate.motion is not None:
            moved = estimate.motion.prev_from_curr
            yield "tracking" if moved.translation.any() or moved.angle > 0.0 else "standing"
        else:
            yield estimate.status.value


def comparable(estimates: Sequence[Estimate]) -> npt.NDArray[np.intp]:
    """Return the indices of the estimates that make the trajectory to judge.

    That is the longest of the `sessions` (the first of equals).
    """
    longest = max(sessions(estimates).values(), key=len, default=[])
    return np.array(longest, dtype=np.intp)


def sessions(estimates: Sequence[Estimate]) -> dict[int, list[int]]:
    """Return the indices of each session's accepted frames, their stamps increasing strictly.

    Poses of different sessions do not compare: each is a trajectory of its own.
    """
    sessions: dict[int, list[int]] = {}
    for i, estimate in enumerate(estimates):
        kept = sessions.setdefault(estimate.session, [])
        in_order = not kept or estimate.stamp_ns > estimates[kept[-1]].stamp_ns
        if in_order and not estimate.refused:
            kept.append(i)
    return sessions


def trajectory_of(estimates: Sequence[Estimate]) -> tuple[Trajectory, Array]:
    """Return the trajectory of the `comparable` estimates and its (n, 6) step deviations.

    The deviations are what `metrics.evaluate` takes as `stds`: NaN where there was no motion.
    """
    chosen = [estimates[i] for i in comparable(estimates)]
    stds = np.full((len(chosen), 6), np.nan)
    for i, estimate in enumerate(chosen):
        if estimate.motion is not None:
            stds[i] = estimate.motion.std
    return _trajectory(chosen), stds


def trajectories(estimates: Sequence[Estimate]) -> dict[int, Trajectory]:
    """Return the trajectory of each of the `sessions`."""
    return {
        number: _trajectory([estimates[i] for i in indices])
        for number, indices in sessions(estimates).items()
    }


def _trajectory(chosen: Sequence[Estimate]) -> Trajectory:
    stamps = np.array([e.stamp_ns for e in chosen], dtype=np.int64)
    return Trajectory(stamps, tuple(e.odom_from_camera for e in chosen))


def metric_from(estimates: Sequence[Estimate]) -> int | None:
    """Return the first of the `comparable` from which on all lengths are metres; None: nowhere.

    A scale that is found on the way makes metres of what follows, never of what was said before.
    """
    first = None
    for i in reversed(comparable(estimates).tolist()):
        if not estimates[i].metric:
            break
        first = i
    return first


def mostly_metric(estimates: Sequence[Estimate]) -> bool:
    """Whether the lengths of half of the `comparable` estimates or more are metres to the end."""
    first, judged = metric_from(estimates), comparable(estimates)
    return first is not None and 2 * int(np.searchsorted(judged, first)) <= len(judged)


def elapsed_s(estimates: Sequence[Estimate]) -> Array:
    """Return (n,) seconds since the first frame, never going back.

    A stamp that goes back counts as the latest one before it; sessions follow one another.
    """
    seconds = np.zeros(len(estimates))
    offset = now = 0.0
    for i, estimate in enumerate(estimates):
        if i == 0 or estimate.session != estimates[i - 1].session:
            start_ns, offset = estimate.stamp_ns, now
        now = max(now, offset + (estimate.stamp_ns - start_ns) / NANOSECONDS)
        seconds[i] = now
    return seconds
