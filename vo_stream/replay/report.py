"""The report of a replay: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

from pathlib import Path

from vo_stream.replay import report_tables as tables
from vo_stream.replay.atomic import write_atomically
from vo_stream.replay.report_accuracy import accuracy, consistency, headline
from vo_stream.replay.report_figures import (
    compared,
    error_figures,
    latency_figure,
    status_figure,
)
from vo_stream.replay.report_path import path_figure
from vo_stream.replay.report_style import STYLE
from vo_stream.replay.result import RunResult, elapsed_s
from vo_stream.replay.svg import escape, number


def write_report(path: Path, run: RunResult) -> None:
    """Write the report of `run` to `path`, whole or not at all.

    Raises OSError where the folder cannot be written to.
    """
    write_atomically(path, render_report(run))


def render_report(run: RunResult) -> str:
    """Return the report as HTML that is well-formed XML too."""
    against = compared(run)
    judged, latencies = accuracy(run), tables.latencies(run)
    title = escape(run.name)
    body = "\n".join(
        [
            f"<header><h1>{title}</h1>{_about(run)}</header>",
            headline(run),
            '<main><div class="columns"><div>',
            path_figure(run, against),
            latency_figure(run) if against.curves else "",
            "</div><div>",
            error_figures(run, against),
            status_figure(run),
            "" if against.curves else latency_figure(run),
            "</div></div>",
            '<div class="columns"><div>',
            judged or latencies,
            "</div><div>",
            consistency(run),
            latencies if judged else "",
            tables.counters(run),
            tables.adjuster(run),
            "</div></div>",
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


def _about(run: RunResult) -> str:
    elapsed = elapsed_s(run.estimates)
    lengths = "lengths in metres" if run.metric else "lengths in a unit of its own"
    parts = [run.kind, f"{run.backend} backend, {lengths}"]
    if run.metric_since:
        parts.append(run.metric_since)
    if run.judged_refined is not None and run.judged_refined.metric and not run.metric:
        parts.append("refined in metres")
    parts.append(f"{number(len(run.estimates))} frames")
    parts.append(f"{number(float(elapsed[-1]) if len(elapsed) else 0.0)} s of footage")
    return f'<p class="about">{" · ".join(escape(p) for p in parts)}</p>'
