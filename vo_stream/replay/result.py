"""What one replay of a recording gave, and the trajectory in it that can be judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
class RunResult:
    """One recording, replayed.

    `name`, `kind`: which recording and of what format; `backend`: what estimated the motion, and
    `metric` whether its lengths are metres. `estimates`: one per frame, in order of arrival.
    `latencies_ms`: (n,) per stage. `groundtruth`: None where the recording has none; `metrics`:
    `Metrics.as_dict()`, None where there was nothing to compare: `unjudged` says why. `skipped`:
    frames that never reached the odometer, counted by reason. `seconds`, `cpu_seconds`: wall and
    processor time of the run, decoding included. `config`: `Config.as_dict()`.
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
    stamps = np.array([e.stamp_ns for e in chosen], dtype=np.int64)
    stds = np.full((len(chosen), 6), np.nan)
    for i, estimate in enumerate(chosen):
        if estimate.motion is not None:
            stds[i] = estimate.motion.std
    return Trajectory(stamps, tuple(e.odom_from_camera for e in chosen)), stds


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
