"""A run's figures as a few lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vo_stream.replay.files import summary
from vo_stream.replay.result import RunResult


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
    return _side_by_side({"": metrics})


def _side_by_side(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one line per figure with a column for each of the metrics, named where there are more.

    Figures without any value are left out.
    """
    rows = [["", *columns]] if len(columns) > 1 else []
    for key in dict.fromkeys(key for metrics in columns.values() for key in metrics):
        cells = [_cell(metrics.get(key)) for metrics in columns.values()]
        if any(cells):
            rows.append([key, *cells])
    full = [row for row in rows if all(row[1:])]  # the last cell of a row may be as long as it is
    widths = [max([28, *map(len, column)]) for column in zip(*full, strict=True)]
    return "\n".join(
        " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_number(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_number, value))
    return "" if value is None else _number(value)


def run_text(run: RunResult) -> str:
    """Return what a person wants to know of a replay at once."""
    figures: dict[str, Any] = summary(run)
    step, unit = figures["latency_ms"]["step"], "metric" if run.metric else "not metric"
    if run.metric_since:
        unit += f"; {run.metric_since}"
    lines = [
        f"{run.name} ({run.kind}): {figures['frames']} frames, backend {run.backend} ({unit})",
        f"{figures['fps']:.0f} frames/s; a step takes {step['p50']:.1f} ms (p50), "
        f"{step['p99']:.1f} ms (p99)",
        "status: " + _counts(figures["conditions"]),
    ]
    for key in ("refused", "skipped"):
        if figures[key]:
            lines.append(f"{key}: {_counts(figures[key])}")
    if figures["adjuster"]:
        lines += _adjuster_lines(figures["keyframes"], figures["adjuster"])
    if run.metrics is None:
        lines.append(run.unjudged)
    else:
        columns = dict([_column("live", run.metrics, run.metric)])
        if run.refined_metrics is not None and run.judged_refined is not None:
            columns |= [_column("refined", run.refined_metrics, run.judged_refined.metric)]
        lines.append(_side_by_side(columns))
    return "\n".join(lines)


def _adjuster_lines(keyframes: int, adjuster: Mapping[str, Any]) -> Iterator[str]:
    link = _counts({k: adjuster[k] for k in ("dropped", "faults", "restarts") if adjuster[k]})
    told = f"adjuster: {keyframes} keyframes, {adjuster['refinements']} refinements"
    yield f"{told}; {link}" if link else told
    if adjuster["unsolved"]:
        yield f"not solved: {_counts(adjuster['unsolved'])}"


def _column(name: str, metrics: Mapping[str, Any], metric: bool) -> tuple[str, Mapping[str, Any]]:
    """Return the name and those of the figures that say something.

    Lengths that are not metres mean nothing beside the true ones before they are scaled.
    """
    return (name, metrics) if metric else (f"{name}, scaled", only_alignment(metrics, "sim3"))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
