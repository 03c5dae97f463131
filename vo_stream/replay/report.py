"""The report of a replay: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vo_stream.errors import SourceError
from vo_stream.replay import report_tables as tables
from vo_stream.replay import svg
from vo_stream.replay.atomic import write_atomically
from vo_stream.replay.metrics import ErrorCurves, error_curves
from vo_stream.replay.report_style import STYLE
from vo_stream.replay.report_tables import ALIGNMENT_NAMES, drawn_stage, length_unit
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

AXES = "xyz"
FROM_ABOVE = (0, 2)
"""The plane seen from above in an optical frame: x to the right, z ahead."""

MAX_SPANS = 1000
"""The status band has at most this many columns; a column shows the worst of its frames."""


def write_report(path: Path, run: RunResult) -> None:
    """Write the report of `run` to `path`, whole or not at all.

    Raises OSError where the folder cannot be written to.
    """
    write_atomically(path, render_report(run))


def render_report(run: RunResult) -> str:
    """Return the report as HTML that is well-formed XML too."""
    curves, why_not = _compared(run)
    title = escape(run.name)
    body = "\n".join(
        [
            f"<header><h1>{title}</h1>{_about(run)}</header>",
            tables.headline(run),
            '<main><div class="columns"><div>',
            _path_figure(run, curves, why_not),
            _latency_figure(run) if curves is not None else "",
            "</div><div>",
            _error_figures(run, curves),
            _status_figure(run),
            _latency_figure(run) if curves is None else "",
            "</div></div>",
            '<div class="columns">',
            tables.accuracy(run.metrics or {}),
            tables.latencies(run),
            tables.counters(run),
            "</div>",
            tables.settings(run.config),
            "</main>",
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{title} \u00b7 vo_stream</title>\n<style>{STYLE}</style>\n"
        f"</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _compared(run: RunResult) -> tuple[ErrorCurves | None, str]:
    """Return the errors against ground truth, or why there are none."""
    if run.groundtruth is None:
        return None, "no ground truth"
    estimate, _ = trajectory_of(run.estimates)
    try:
        return error_curves(estimate, run.groundtruth, "se3" if run.metric else "sim3"), ""
    except SourceError as error:
        return None, str(error)


def _about(run: RunResult) -> str:
    elapsed = elapsed_s(run.estimates)
    lengths = "lengths in metres" if run.metric else "lengths in a unit of its own"
    parts = [run.kind, f"{run.backend} backend, {lengths}"]
    parts.append(f"{number(len(run.estimates))} frames")
    parts.append(f"{number(float(elapsed[-1]) if len(elapsed) else 0.0)} s of footage")
    return f'<p class="about">{" · ".join(escape(p) for p in parts)}</p>'


def _path_figure(run: RunResult, curves: ErrorCurves | None, why_not: str) -> str:
    if curves is None:
        sessions: dict[int, list[Array]] = {}
        for estimate in run.estimates:
            here = estimate.odom_from_camera.translation
            sessions.setdefault(estimate.session, []).append(here)
        paths = [(np.array(path), "c-est") for path in sessions.values()]
        plane, unit, keys = FROM_ABOVE, length_unit(run), ""
        caption = f"seen from above in the first camera's frame; {why_not}"
    else:
        true = curves.pairs.groundtruth.translations
        paths = [(true, "c-true"), (curves.aligned.translations, "c-est")]
        widest = np.argsort(-np.ptp(true, axis=0), kind="stable")[:2]
        plane, unit = (int(widest.min()), int(widest.max())), "m"
        keys = _key("c-true", "ground truth") + _key(
            "c-est", f"estimate, aligned with {ALIGNMENT_NAMES[curves.alignment]}"
        )
        caption = "in the ground truth's frame"
        if curves.alignment == "sim3":
            caption += f", estimate scaled by {number(curves.similarity.scale)}"
    x_axis, y_axis = (AXES[i] for i in plane)
    chart = svg.path_plot(
        [Line(path[:, plane], colour) for path, colour in paths],
        title=f"Path in the {x_axis}-{y_axis} plane",
        x_name=f"{x_axis} ({unit})",
        y_name=f"{y_axis} ({unit})",
    )
    return _figure(f"Path, {x_axis}\u2013{y_axis} plane", caption, chart, keys)


def _error_figures(run: RunResult, curves: ErrorCurves | None) -> str:
    if curves is None:
        return ""
    elapsed = elapsed_s(run.estimates)
    seconds = elapsed[comparable(run.estimates)[curves.pairs.indices]]
    aligned = f"after {ALIGNMENT_NAMES[curves.alignment]} alignment"
    turned = "after aligning the mean orientation"
    return "".join(
        _figure(
            f"{what} error",
            f"{how}, largest {number(float(error.max()))}{space}{unit}",
            svg.line_chart(
                [Line(np.column_stack([seconds, error]), "c-est")],
                title=f"{what} error over time",
                x_name="time (s)",
                y_name=f"error ({unit})",
                x_range=(0.0, float(elapsed[-1])),
            ),
        )
        for what, how, error, space, unit in [
            ("Translation", aligned, curves.translation_m, "\u202f", "m"),
            ("Rotation", turned, curves.rotation_deg, "", "°"),
        ]
    )


def _status_figure(run: RunResult) -> str:
    frames = list(conditions(run.estimates))
    counts = Counter(frames)
    keys = "".join(
        _key(f"c-{c}", f"{name} {number(counts[c])} ({100.0 * counts[c] / len(frames):.1f} %)")
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
    return _figure("Status", "of every frame", chart, keys)


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


def _latency_figure(run: RunResult) -> str:
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
    return _figure(f"Latency per frame: {stage}", caption, chart)


def _figure(title: str, caption: str, chart: str, keys: str = "") -> str:
    about = f"<b>{escape(title)}</b>{escape(caption)}"
    below = f"<div>{keys}</div>" if keys else ""
    return f"<figure><figcaption>{about}{below}</figcaption>{chart}</figure>"


def _key(colour: str, name: str) -> str:
    return f'<span class="key {colour}"><i></i><span>{escape(name)}</span></span> '
