"""The charts of the report over time, and how often: errors, status and latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vo_stream.errors import SourceError
from vo_stream.replay import svg
from vo_stream.replay.metrics import ErrorCurves, error_curves
from vo_stream.replay.report_tables import ALIGNMENT_NAMES, drawn_stage
from vo_stream.replay.result import (
    CONDITIONS,
    RunResult,
    comparable,
    conditions,
    elapsed_s,
    trajectory_of,
)
from vo_stream.replay.svg import Line, Span, escape, number
from vo_stream.se3 import Array

MAX_SPANS = 1000
"""The status band has at most this many columns; a column shows the worst of its frames."""

COLOURS = {"live": "c-est", "refined": "c-refined"}


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Errors against ground truth: the curves of "live" and, where there is one, of "refined".

    Empty where nothing can be compared; `why_not` says why.
    """

    curves: Mapping[str, ErrorCurves]
    why_not: str = ""


def compared(run: RunResult) -> Compared:
    """Compare a run with its ground truth."""
    if run.groundtruth is None:
        return Compared({}, "no ground truth")
    judged = {"live": (trajectory_of(run.estimates)[0], run.metric)}
    if run.judged_refined is not None:
        judged["refined"] = (run.judged_refined.trajectory, run.judged_refined.metric)
    try:
        return Compared(
            {
                name: error_curves(trajectory, run.groundtruth, "se3" if metric else "sim3")
                for name, (trajectory, metric) in judged.items()
            }
        )
    except SourceError as error:
        return Compared({}, str(error))


def error_figures(run: RunResult, against: Compared) -> str:
    """Return the errors over time; nothing where there is no ground truth."""
    if not against.curves:
        return ""
    ways = {name: f"after {ALIGNMENT_NAMES[c.alignment]}" for name, c in against.curves.items()}
    if len(set(ways.values())) == 1:
        aligned = f"{ways['live']} alignment"
    else:
        aligned = ", ".join(f"{name} {way}" for name, way in ways.items()) + " alignment"
    moved = {name: c.translation_m for name, c in against.curves.items()}
    turned = {name: c.rotation_deg for name, c in against.curves.items()}
    mean = "after aligning the mean orientation"
    return _error_figure(run, against, "Translation", aligned, moved, "\u202fm") + _error_figure(
        run, against, "Rotation", mean, turned, "°"
    )


def _error_figure(
    run: RunResult,
    against: Compared,
    what: str,
    how: str,
    errors: Mapping[str, Array],
    unit: str,
) -> str:
    """Draw the (n,) errors of each of the curves; `unit` with the space before it."""
    elapsed = elapsed_s(run.estimates)
    judged = comparable(run.estimates)
    lines = [
        Line(
            np.column_stack([elapsed[judged[against.curves[name].pairs.indices]], error]),
            COLOURS[name],
        )
        for name, error in errors.items()
    ]
    largest = {
        name: f"largest {number(float(error.max()))}{unit}" for name, error in errors.items()
    }
    keys = "".join(key(COLOURS[name], f"{name}, {most}") for name, most in largest.items())
    chart = svg.line_chart(
        lines,
        title=f"{what} error over time",
        x_name="time (s)",
        y_name=f"error ({unit.strip()})",
        x_range=(0.0, float(elapsed[-1])),
    )
    if len(lines) == 1:
        return figure(f"{what} error", f"{how}, {largest['live']}", chart)
    return figure(f"{what} error", how, chart, keys)


def status_figure(run: RunResult) -> str:
    """Return the band that shows what every frame was."""
    frames = list(conditions(run.estimates))
    counts = Counter(frames)
    keys = "".join(
        key(f"c-{c}", f"{name} {number(counts[c])} ({100.0 * counts[c] / len(frames):.1f} %)")
        for c, name in CONDITIONS.items()
        if counts[c]
    )
    elapsed = elapsed_s(run.estimates)
    end = float(elapsed[-1]) if len(elapsed) else 0.0
    chart = svg.strip(
        list(_spans(frames, elapsed)),
        title="Status over time",
        x_name="time (s)",
        x_range=(0.0, end),
    )
    return figure("Status", "of every frame", chart, keys)


def _spans(frames: Sequence[str], elapsed: Array) -> Iterator[Span]:
    """Yield the stretches of equal condition, at most `MAX_SPANS`."""
    if not frames:
        return
    order = list(CONDITIONS)
    severity = np.array([order.index(c) for c in frames])
    starts = np.unique(np.linspace(0, len(severity), MAX_SPANS, endpoint=False).astype(np.intp))
    worst = np.maximum.reduceat(severity, starts)
    changes = np.concatenate([[True], worst[1:] != worst[:-1]])
    firsts, kinds = starts[changes], worst[changes]
    lasts = np.append(firsts[1:], len(severity) - 1)
    for first, last, kind in zip(firsts.tolist(), lasts.tolist(), kinds.tolist(), strict=True):
        start, end, name = float(elapsed[first]), float(elapsed[last]), CONDITIONS[order[kind]]
        label = f"{name}: {start:.2f} to {end:.2f} s, from frame {first}"
        yield Span(start, end, f"c-{order[kind]}", label)


def latency_figure(run: RunResult) -> str:
    """Return how long the frames took; nothing where nothing was measured."""
    stage, values = drawn_stage(run)
    if not len(values):
        return ""
    percentiles = dict(zip((50, 95, 99), np.percentile(values, (50, 95, 99)).tolist(), strict=True))
    slowest = float(values.max())
    top = 1.02 * slowest if slowest <= 2.0 * percentiles[99] else 1.4 * percentiles[99]
    beyond = int((values > top).sum())
    caption = f"slowest {number(slowest)}\u202fms"
    if beyond:
        caption += f"; {beyond} of {number(len(values))} frames lie beyond the right edge"
    chart = svg.histogram(
        values,
        title=f"Latency of {stage}",
        x_name="latency (ms)",
        levels=[(f"p{p} {number(v)} ms", v) for p, v in percentiles.items()],
        top=top,
    )
    return figure(f"Latency per frame: {stage}", caption, chart)


def figure(title: str, caption: str, chart: str, keys: str = "") -> str:
    """Return a chart with its title, a caption and the legend that `key` makes."""
    about = f"<b>{escape(title)}</b>{escape(caption)}"
    below = f"<div>{keys}</div>" if keys else ""
    return f"<figure><figcaption>{about}{below}</figcaption>{chart}</figure>"


def key(colour: str, name: str) -> str:
    """Return the legend's entry for a colour."""
    return f'<span class="key {colour}"><i></i><span>{escape(name)}</span></span> '
