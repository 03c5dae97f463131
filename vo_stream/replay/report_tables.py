"""The tables of the report: latencies, counts, settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vo_stream.replay.result import CONDITIONS, RunResult, conditions
from vo_stream.replay.svg import escape, number
from vo_stream.se3 import Array

LATENCY_STAGE = "step"
"""The stage whose latencies are drawn; the first one where a run has no such stage."""

MAX_REASONS = 12
"""Reasons listed, the most frequent first."""

ALIGNMENT_NAMES = {"none": "none (start pose given)", "se3": "SE(3)", "sim3": "Sim(3)"}


def length_unit(run: RunResult) -> str:
    """Return the unit that the estimate's lengths are in."""
    return "m" if run.metric else "units"


def drawn_stage(run: RunResult) -> tuple[str, Array]:
    """Return the name and the finite latencies of the stage that is drawn."""
    name = LATENCY_STAGE
    if name not in run.latencies_ms:
        name = next(iter(run.latencies_ms), LATENCY_STAGE)
    values = np.asarray(run.latencies_ms.get(name, ()), dtype=np.float64)
    return name, values[np.isfinite(values)]


def latencies(run: RunResult) -> str:
    """Return the percentiles of every stage's latency."""
    rows: list[list[object]] = []
    for stage, latencies in run.latencies_ms.items():
        values = np.asarray(latencies, dtype=np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            figures = np.percentile(values, (50, 95, 99, 100))
            rows.append([stage, *(round(float(ms), 1) for ms in figures)])
    if not rows:
        return ""
    percentiles = table(["milliseconds", "p50", "p95", "p99", "slowest"], rows)
    return f"<section><h2>Latency by stage</h2>{percentiles}</section>"


def adjuster(run: RunResult) -> str:
    """Return what the adjuster did; nothing where there was none."""
    if run.adjuster is None:
        return ""
    link = run.adjuster.link
    keyframes = sum(len(refined.keyframes) for refined in run.refined.values())
    rows: list[list[object]] = [
        ["keyframes", keyframes],
        ["refinements", run.adjuster.refinements],
        *([f"not solved: {why}", count] for why, count in run.adjuster.unsolved.items()),
        ["frames sent", link.sent],
        ["frames dropped", link.dropped],
        ["unusable messages", link.faults],
        ["restarts", link.restarts],
    ]
    return f"<section><h2>Adjuster</h2>{table(['', 'count'], rows)}</section>"


def counters(run: RunResult) -> str:
    """Return what became of the frames, and what the estimator said of them."""
    counts = Counter(conditions(run.estimates))
    rows: list[list[object]] = [[name, counts[c]] for c, name in CONDITIONS.items() if counts[c]]
    rows += [[f"skipped: {reason}", count] for reason, count in run.skipped.items()]
    reasons = Counter(e.reason for e in run.estimates if e.reason)
    rows += [[f"said: {why}", count] for why, count in reasons.most_common(MAX_REASONS)]
    rows.append(["sessions", len({e.session for e in run.estimates})])
    return f"<section><h2>Frames</h2>{table(['', 'count'], rows)}</section>"


def settings(config: Mapping[str, object]) -> str:
    """Return the settings, folded away."""
    rows = "".join(
        f'<tr><th scope="row">{escape(key)}</th><td class="text">{escape(value)}</td></tr>'
        for key, value in _leaves(config)
    )
    return f"<details><summary>Settings</summary><table><tbody>{rows}</tbody></table></details>"


def _leaves(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table whose first column names the rows and whose others hold numbers."""
    heads = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{number(cell)}</td>" for cell in row[1:])
        + "<td></td>" * (len(head) - len(row))
        + "</tr>"
        for row in rows
    )
    few = {2: ' class="pairs"', 3: ' class="triples"'}.get(len(head), "")
    top = f"<thead><tr>{heads}</tr></thead>" if any(head) else ""
    return f'<div class="scroll"><table{few}>{top}<tbody>{lines}</tbody></table></div>'
