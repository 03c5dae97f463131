"""A run's figures as a few lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vo_stream.replay.result import RunResult
from vo_stream.replay.run import summary


def only_alignment(metrics: Mapping[str, Any], alignment: str) -> dict[str, Any]:
    """Return the metrics with the figures of one alignment only (none, se3 or sim3)."""
    relative = "scaled" if alignment == "sim3" else "raw"
    chosen: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping) and alignment in value:
            chosen[key] = value[alignment]
        elif isinstance(value, Mapping) and relative in value:
            chosen[key] = value[relative]
        else:
            chosen[key] = value
    return chosen


def metrics_text(metrics: Mapping[str, Any]) -> str:
    """Return one line per figure, those without a value left out."""
    lines = []
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            shown = ", ".join(f"{k} {_number(v)}" for k, v in value.items() if v is not None)
        elif isinstance(value, (list, tuple)):
            shown = ", ".join(map(_number, value))
        else:
            shown = "" if value is None else _number(value)
        if shown:
            lines.append(f"{key:<28} {shown}")
    return "\n".join(lines)


def run_text(run: RunResult) -> str:
    """Return what a person wants to know of a replay at once."""
    figures: dict[str, Any] = summary(run)
    step, unit = figures["latency_ms"]["step"], "metric" if run.metric else "not metric"
    lines = [
        f"{run.name} ({run.kind}): {figures['frames']} frames, backend {run.backend} ({unit})",
        f"{figures['fps']:.0f} frames/s; a step takes {step['p50']:.1f} ms (p50), "
        f"{step['p99']:.1f} ms (p99)",
        "status: " + _counts(figures["conditions"]),
    ]
    for key in ("refused", "skipped"):
        if figures[key]:
            lines.append(f"{key}: {_counts(figures[key])}")
    if run.metrics is None:
        lines.append(run.unjudged)
    else:
        # Lengths that are not metres mean nothing beside the true ones before they are scaled.
        shown = run.metrics if run.metric else only_alignment(run.metrics, "sim3")
        lines.append(metrics_text(shown))
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
