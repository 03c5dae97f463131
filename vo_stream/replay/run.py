"""Replaying a recording: every frame through the odometer, and on to the adjuster."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np

from vo_stream.config import Config
from vo_stream.errors import SourceError
from vo_stream.link.channel import Link
from vo_stream.net.stepnet import NetSpec
from vo_stream.replay.metrics import evaluate
from vo_stream.replay.refined import RefinementLog
from vo_stream.replay.result import (
    AdjusterWork,
    RunResult,
    mostly_metric,
    trajectories,
    trajectory_of,
)
from vo_stream.replay.sources import Source, prefetch
from vo_stream.replay.trajectory import Trajectory
from vo_stream.se3 import Array
from vo_stream.track.odometer import Odometer
from vo_stream.values import Estimate, Frame

logger = logging.getLogger(__name__)

FINISH_S = 60.0
"""How long the adjuster may take for what is left when the last frame has been read."""


def replay(
    source: Source,
    odometer: Odometer,
    spec: NetSpec,
    config: Config,
    link: Link,
    limit: int | None = None,
    progress: Callable[[Estimate], None] = lambda _: None,
) -> RunResult:
    """Feed a recording to an odometer and, over `link`, to the adjuster; no frame is dropped.

    `link` is closed at the end, so that the work behind it is counted. `limit`: frames at most.
    `progress` is called with each estimate. Raises SourceError where the recording holds no usable
    image. What is kept is about 2 kB a frame.
    """
    began, cpu_began = time.perf_counter(), _cpu_seconds()
    with closing(link):
        walk = _Walk(odometer, link, progress)
        with prefetch(islice(source.frames(), limit)) as frames:
            walk.through(frames)
        if not link.finish(FINISH_S):
            logger.warning("the adjuster was given up before it was done")
        walk.take_in()
    status = link.status()
    seconds, cpu_seconds = time.perf_counter() - began, _cpu_seconds() - cpu_began
    estimates, log = walk.estimates, walk.log
    if not estimates:
        reasons = ", ".join(f"{n} x {reason}" for reason, n in source.skipped.items())
        raise SourceError(f"{source.name}: no frame could be used ({reasons or 'it is empty'})")
    if all(e.refused for e in estimates):
        raise SourceError(f"{source.name}: every frame was refused: {estimates[0].reason}")
    live, stds = trajectory_of(estimates)
    metric = mostly_metric(estimates)
    metrics, unjudged = _judged(live, source.groundtruth, stds, metric)
    run = RunResult(
        name=source.name,
        kind=source.kind,
        backend=spec.name,
        metric=metric,
        estimates=tuple(estimates),
        latencies_ms={stage: np.array(ms) for stage, ms in walk.stages.items()},
        groundtruth=source.groundtruth,
        metrics=metrics,
        unjudged=unjudged,
        skipped=dict(source.skipped),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        config=config.as_dict(),
        adjuster=AdjusterWork(status, log.count, dict(log.unsolved)) if status.sent else None,
        refined=log.refined(trajectories(estimates)),
    )
    refined = run.judged_refined
    if refined is None:
        return run
    refined_metrics, _ = _judged(refined.trajectory, source.groundtruth, None, refined.metric)
    return replace(run, refined_metrics=refined_metrics)


class _Walk:
    """What comes together while the frames go by. `stages`: milliseconds for each frame."""

    def __init__(self, odometer: Odometer, link: Link, progress: Callable[[Estimate], None]):
        self.estimates: list[Estimate] = []
        self.log = RefinementLog()
        self.stages: dict[str, list[float]] = {
            stage: [] for stage in ("wait", "rectify", "net", "step", "adjust")
        }
        self._odometer = odometer
        self._link = link
        self._progress = progress

    def through(self, frames: Iterable[Frame]) -> None:
        """Take every frame to the odometer and the adjuster."""
        waiting = time.perf_counter()
        for frame in frames:
            self.stages["wait"].append(_milliseconds_since(waiting))
            estimate = self._odometer.step(frame)
            self.estimates.append(estimate)
            for stage in ("rectify", "net", "step"):
                self.stages[stage].append(getattr(self._odometer.times, stage))
            sending = time.perf_counter()
            self._link.send(frame, estimate)
            self.take_in()
            self.stages["adjust"].append(_milliseconds_since(sending))
            self._progress(estimate)
            waiting = time.perf_counter()

    def take_in(self) -> None:
        """Give all refinements that are waiting to the odometer and to the log."""
        while (refinement := self._link.poll()) is not None:
            self._odometer.refine(refinement)
            self.log.add(refinement)


def _judged(
    trajectory: Trajectory, groundtruth: Trajectory | None, stds: Array | None, metric: bool
) -> tuple[Mapping[str, object] | None, str]:
    """Return the metrics, or None and why there are none."""
    if groundtruth is None:
        return None, "no ground truth to compare with"
    try:
        return evaluate(trajectory, groundtruth, stds=stds, metric=metric).as_dict(), ""
    except SourceError as error:  # too few poses, or ground truth of another time
        return None, str(error)


def _cpu_seconds() -> float:
    """Return the processor time of this process and of those it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _milliseconds_since(began: float) -> float:
    return 1e3 * (time.perf_counter() - began)
