"""The files that a replay leaves behind: trajectories, summary, report."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

import vo_stream
from vo_stream.errors import SourceError
from vo_stream.replay.atomic import write_atomically
from vo_stream.replay.report import write_report
from vo_stream.replay.result import (
    AdjusterWork,
    RunResult,
    conditions,
    metric_from,
    mostly_metric,
    sessions,
    trajectories,
)
from vo_stream.replay.trajectory import tum_text
from vo_stream.values import Status

PERCENTILES = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}


def prepare_folder(folder: Path) -> None:
    """Make the folder for the results; raises SourceError where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SourceError(f"{folder}: cannot be written to ({error.strerror})") from None


def write_results(folder: Path, run: RunResult) -> dict[str, Path]:
    """Write live.tum, refined.tum, summary.json and report.html, each whole or not at all.

    live.tum is the longest session; others, if there were any, go to live.sessionN.tum. What the
    adjuster refined of them goes to refined.tum and refined.sessionN.tum. Returns the paths of the
    three that are always there. Raises SourceError where the folder cannot be written to.
    """
    files = {name: folder / name for name in ("live.tum", "summary.json", "report.html")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in ("live.session*.tum", "refined.tum", "refined.session*.tum"):
            for old in folder.glob(stale):
                old.unlink()
        _write_trajectories(folder, run)
        write_atomically(files["summary.json"], json.dumps(summary(run), indent=2) + "\n")
        write_report(files["report.html"], run)
    except OSError as error:
        raise SourceError(f"{folder}: cannot be written to ({error.strerror})") from None
    return files


def _write_trajectories(folder: Path, run: RunResult) -> None:
    judged, live = run.judged_session, trajectories(run.estimates)
    since = f" ({run.metric_since})" if run.metric_since else ""
    for session, indices in sessions(run.estimates).items():
        ending = ".tum" if session == judged else f".session{session}.tum"
        metric = mostly_metric([run.estimates[i] for i in indices])
        about = f"odom_from_camera; metric: {metric}{since if session == judged else ''}"
        write_atomically(folder / f"live{ending}", tum_text(live[session], about))
        if session in run.refined:
            refined = run.refined[session]
            about = f"map_from_camera; metric: {refined.metric}"
            write_atomically(folder / f"refined{ending}", tum_text(refined.trajectory, about))


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
        "metric_from_frame": metric_from(run.estimates),
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
        "refined": run.refined_metrics,
        "refined_metric": run.judged_refined.metric if run.judged_refined else None,
        "keyframes": sum(len(refined.keyframes) for refined in run.refined.values()),
        "adjuster": _adjuster(run.adjuster),
        "config": run.config,
    }


def _adjuster(work: AdjusterWork | None) -> dict[str, object] | None:
    if work is None:
        return None
    link = work.link
    return {
        "sent": link.sent,
        "dropped": link.dropped,
        "faults": link.faults,
        "restarts": link.restarts,
        "refinements": work.refinements,
        "unsolved": dict(work.unsolved),
    }


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
