"""Replaying a recording: every frame through the odometer, the results into files."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

import vo_stream
from vo_stream.config import Config
from vo_stream.errors import SourceError
from vo_stream.net.stepnet import NetSpec
from vo_stream.replay.atomic import write_atomically
from vo_stream.replay.metrics import evaluate
from vo_stream.replay.report import write_report
from vo_stream.replay.result import (
    RunResult,
    comparable,
    conditions,
    sessions,
    trajectory_of,
)
from vo_stream.replay.sources import Source, prefetch
from vo_stream.replay.trajectory import Trajectory, format_tum
from vo_stream.track.odometer import Odometer
from vo_stream.values import Estimate, Status

PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


def replay(
    source: Source,
    odometer: Odometer,
    spec: NetSpec,
    config: Config,
    limit: int | None = None,
    progress: Callable[[Estimate], None] = lambda _: None,
) -> RunResult:
    """Feed a recording to an odometer, frame by frame and none dropped.

    `limit`: frames at most. `progress` is called with each estimate. Raises SourceError where
    the recording holds no usable image. What is kept is about 2 kB a frame.
    """
    estimates: list[Estimate] = []
    stages: dict[str, list[float]] = {"wait": [], "rectify": [], "net": [], "step": []}
    began, cpu_began = time.perf_counter(), time.process_time()
    with prefetch(islice(source.frames(), limit)) as frames:
        waiting = time.perf_counter()
        for frame in frames:
            stages["wait"].append(1e3 * (time.perf_counter() - waiting))
            estimate = odometer.step(frame)
            estimates.append(estimate)
            for stage in ("rectify", "net", "step"):
                stages[stage].append(getattr(odometer.times, stage))
            progress(estimate)
            waiting = time.perf_counter()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    if not estimates:
        reasons = ", ".join(f"{n} x {reason}" for reason, n in source.skipped.items())
        raise SourceError(f"{source.name}: no frame could be used ({reasons or 'it is empty'})")
    if all(e.refused for e in estimates):
        raise SourceError(f"{source.name}: every frame was refused: {estimates[0].reason}")
    metrics, unjudged = _judged(estimates, source.groundtruth, spec.metric)
    return RunResult(
        name=source.name,
        kind=source.kind,
        backend=spec.name,
        metric=spec.metric,
        estimates=tuple(estimates),
        latencies_ms={stage: np.array(ms) for stage, ms in stages.items()},
        groundtruth=source.groundtruth,
        metrics=metrics,
        unjudged=unjudged,
        skipped=dict(source.skipped),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        config=config.as_dict(),
    )


def _judged(
    estimates: Sequence[Estimate], groundtruth: Trajectory | None, metric: bool
) -> tuple[Mapping[str, object] | None, str]:
    """Return the metrics, or None and why there are none."""
    if groundtruth is None:
        return None, "no ground truth to compare with"
    trajectory, stds = trajectory_of(estimates)
    try:
        return evaluate(trajectory, groundtruth, stds=stds, metric=metric).as_dict(), ""
    except SourceError as error:  # too few poses, or ground truth of another time
        return None, str(error)


def prepare_folder(folder: Path) -> None:
    """Make the folder for the results; raises SourceError where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SourceError(f"{folder}: cannot be written to ({error.strerror})") from None


def write_results(folder: Path, run: RunResult) -> dict[str, Path]:
    """Write live.tum, summary.json and report.html, each whole or not at all.

    live.tum is the longest session; others, if there were any, go to live.sessionN.tum. Returns
    the paths of the three. Raises SourceError where the folder cannot be written to.
    """
    files = {name: folder / name for name in ("live.tum", "summary.json", "report.html")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("live.session*.tum"):
            old.unlink()
        header = f"# timestamp tx ty tz qx qy qz qw, odom_from_camera; metric: {run.metric}\n"
        judged = list(comparable(run.estimates))
        for number, indices in sessions(run.estimates).items():
            name = "live.tum" if indices == judged else f"live.session{number}.tum"
            lines = (
                format_tum(e.stamp_ns, e.odom_from_camera)
                for e in (run.estimates[i] for i in indices)
            )
            write_atomically(folder / name, header + "".join(lines))
        write_atomically(files["summary.json"], json.dumps(summary(run), indent=2) + "\n")
        write_report(files["report.html"], run)
    except OSError as error:
        raise SourceError(f"{folder}: cannot be written to ({error.strerror})") from None
    return files


def summary(run: RunResult) -> dict[str, object]:
    """Return the figures of a run as plain JSON values, units in the names."""
    refused = Counter(e.reason for e in run.estimates if e.refused)
    statuses = Counter(e.status.value for e in run.estimates)
    return {
        "vo_stream": vo_stream.__version__,
        "source": run.name,
        "kind": run.kind,
        "backend": run.backend,
        "metric": run.metric,
        "frames": len(run.estimates),
        "sessions": len({e.session for e in run.estimates}),
        "seconds": round(run.seconds, 3),
        "fps": round(len(run.estimates) / run.seconds, 2),
        "statuses": {status.value: statuses[status.value] for status in Status},
        "conditions": dict(Counter(conditions(run.estimates))),
        "refused": dict(refused),
        "skipped": dict(run.skipped),
        "latency_ms": {
            stage: {k: round(float(np.percentile(ms, p)), 3) for k, p in PERCENTILES.items()}
            for stage, ms in run.latencies_ms.items()
        },
        "peak_memory_mb": round(_peak_memory_mb(), 1),
        "cpu_ms_per_frame": round(1e3 * run.cpu_seconds / len(run.estimates), 2),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "metrics": run.metrics,
        "unjudged": run.unjudged,
        "config": run.config,
    }


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
