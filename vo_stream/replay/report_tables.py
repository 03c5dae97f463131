"""The figures of the report that are told in words and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vo_stream.replay.result import CONDITIONS, RunResult, comparable, conditions
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


def headline(run: RunResult) -> str:
    """Return the handful of figures that say how the run went."""
    metrics, scaled = run.metrics or {}, "raw" if run.metric else "scaled"
    figures: list[tuple[str, object, str]] = []
    if run.metrics is not None:
        how = "se3" if run.metric else "sim3"
        ate = f"ATE RMSE after {ALIGNMENT_NAMES[how]}"
        figures.append((ate, _at(metrics, "ate_rmse_m", how), "m"))
        t_rel = _at(metrics, "t_rel_percent", scaled)
        if t_rel is None:
            figures.append(
                ("translation error over 1 s", _at(metrics, "rpe_translation_rmse_m", scaled), "m")
            )
            figures.append(("rotation error over 1 s", metrics.get("rpe_rotation_rmse_deg"), "°"))
        else:
            after = "" if run.metric else " after one global scale"
            figures.append((f"t_rel{after}", t_rel, "%"))
            figures.append(("r_rel", metrics.get("r_rel_deg_per_100m"), "°/100 m"))
        figures.append(("scale that fits the estimate", metrics.get("scale_sim3"), ""))
    else:
        figures.append(("path length", _path_length(run), length_unit(run)))
    counts = Counter(conditions(run.estimates))
    follows = counts["tracking"] + counts["standing"]
    n = len(run.estimates)
    figures.append(("of all frames tracked", 100.0 * follows / n if n else None, "%"))
    stage, latencies = drawn_stage(run)
    p95 = float(np.percentile(latencies, 95)) if len(latencies) else None
    figures.append((f"{stage} latency, p95", p95, "ms"))
    figures.append(("frames per second", n / run.seconds if run.seconds > 0.0 else None, ""))
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{number(value)}\u202f<small>{unit}</small></dd></div>"
        for name, value, unit in figures
    )
    return f'<dl class="figures">{cells}</dl>'


def _path_length(run: RunResult) -> float:
    chosen = [run.estimates[i].odom_from_camera.translation for i in comparable(run.estimates)]
    steps = np.diff(np.array(chosen).reshape(-1, 3), axis=0)
    return float(np.linalg.norm(steps, axis=1).sum())


def drawn_stage(run: RunResult) -> tuple[str, Array]:
    """Return the name and the finite latencies of the stage that is drawn."""
    name = LATENCY_STAGE
    if name not in run.latencies_ms:
        name = next(iter(run.latencies_ms), LATENCY_STAGE)
    values = np.asarray(run.latencies_ms.get(name, ()), dtype=np.float64)
    return name, values[np.isfinite(values)]


def accuracy(metrics: Mapping[str, object]) -> str:
    """Return all figures of `Metrics.as_dict()`; nothing where there are none."""
    if not metrics:
        return ""
    absolute = [
        ("ATE RMSE (m)", "ate_rmse_m"),
        ("end point drift (% of path)", "end_drift_percent"),
    ]
    table = _table(
        ["after alignment", *ALIGNMENT_NAMES.values()],
        [[name, *(_at(metrics, key, how) for how in ALIGNMENT_NAMES)] for name, key in absolute],
    )
    relative = [
        ("t_rel (%)", "t_rel_percent"),
        ("RPE over 1 s, translation RMSE (m)", "rpe_translation_rmse_m"),
        ("path length (m)", "path_length_m"),
        ("path while standing (m)", "standing_path_m"),
    ]
    rows: list[list[object]] = [
        [name, _at(metrics, key, "raw"), _at(metrics, key, "scaled")] for name, key in relative
    ]
    for row, key in ((2, "path_length_m"), (3, "standing_path_m")):
        rows[row].append(_at(metrics, key, "groundtruth"))
    table += _table(["", "raw", "after one scale", "ground truth"], rows)
    single = [
        ("r_rel (° per 100 m)", "r_rel_deg_per_100m"),
        ("RPE over 1 s, rotation RMSE (°)", "rpe_rotation_rmse_deg"),
        ("RPE over 1 s, rotation median (°)", "rpe_rotation_median_deg"),
        ("Sim(3) scale", "scale_sim3"),
        ("standing still (s)", "standing_s"),
        ("frames with ground truth", "matched"),
    ]
    table += _table(["", ""], [[name, metrics.get(key)] for name, key in single])
    lengths = metrics.get("kitti_lengths_m")
    note = ""
    if isinstance(lengths, Sequence) and len(lengths) and metrics.get("kitti_segments"):
        note = (
            f"t_rel and r_rel over {number(metrics.get('kitti_segments'))} pieces of "
            f"{lengths[0]:g} to {lengths[-1]:g} m of path."
        )
        if lengths[-1] < 100.0:
            note += " Such short pieces do not compare with KITTI's published figures."
    whole = f'<section><h2>Accuracy</h2>{table}<p class="note">{escape(note)}</p></section>'
    return whole + _consistency_table(metrics)


def _consistency_table(metrics: Mapping[str, object]) -> str:
    if not metrics.get("nees_steps"):
        return ""
    rows = [
        [
            name,
            _at(metrics, "nees", name),
            _percent(_at(metrics, "nees_inside_95_fraction", name)),
        ]
        for name in ("all", "translation", "rotation")
    ]
    table = _table(["axes", "NEES per axis", "inside 95 % bound (%)"], rows)
    return (
        f"<section><h2>Consistency of the predicted uncertainty</h2>{table}"
        '<p class="note">Over single steps: NEES 1 and 95 % inside is exact, larger NEES is '
        "overconfident.</p></section>"
    )


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
    table = _table(["milliseconds", "p50", "p95", "p99", "slowest"], rows)
    return f"<section><h2>Latency by stage</h2>{table}</section>"


def counters(run: RunResult) -> str:
    """Return what became of the frames, and what the estimator said of them."""
    counts = Counter(conditions(run.estimates))
    rows: list[list[object]] = [[name, counts[c]] for c, name in CONDITIONS.items() if counts[c]]
    rows += [[f"skipped: {reason}", count] for reason, count in run.skipped.items()]
    reasons = Counter(e.reason for e in run.estimates if e.reason)
    rows += [[f"said: {why}", count] for why, count in reasons.most_common(MAX_REASONS)]
    rows.append(["sessions", len({e.session for e in run.estimates})])
    return f"<section><h2>Frames</h2>{_table(['', 'count'], rows)}</section>"


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


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table whose first column names the rows and whose others hold numbers."""
    heads = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{number(cell)}</td>" for cell in row[1:])
        + "<td></td>" * (len(head) - len(row))
        + "</tr>"
        for row in rows
    )
    pairs = ' class="pairs"' if len(head) == 2 else ""
    top = f"<thead><tr>{heads}</tr></thead>" if any(head) else ""
    return f'<div class="scroll"><table{pairs}>{top}<tbody>{lines}</tbody></table></div>'


def _at(metrics: Mapping[str, object], key: str, name: str) -> object:
    """Return metrics[key][name], None where it is missing."""
    inner = metrics.get(key)
    return inner.get(name) if isinstance(inner, Mapping) else None


def _percent(fraction: object) -> float | None:
    return 100.0 * fraction if isinstance(fraction, float) else None
