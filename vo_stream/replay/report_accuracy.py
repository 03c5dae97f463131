"""How good the trajectories are, in the report: the headline and the tables of accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vo_stream.replay.report_tables import ALIGNMENT_NAMES, drawn_stage, length_unit, table
from vo_stream.replay.result import RunResult, comparable, conditions
from vo_stream.replay.svg import escape, number

ALIGNED = {"start pose given": "none", "after SE(3)": "se3", "after Sim(3)": "sim3"}
RELATIVE: dict[str, tuple[str, ...]] = {
    "t_rel, raw (%)": ("t_rel_percent", "raw"),
    "t_rel, after one scale (%)": ("t_rel_percent", "scaled"),
    "r_rel (° per 100 m)": ("r_rel_deg_per_100m",),
    "RPE translation RMSE, raw (m)": ("rpe_translation_rmse_m", "raw"),
    "RPE translation RMSE, after one scale (m)": ("rpe_translation_rmse_m", "scaled"),
    "RPE rotation RMSE (°)": ("rpe_rotation_rmse_deg",),
    "RPE rotation median (°)": ("rpe_rotation_median_deg",),
}
LENGTHS: dict[str, tuple[str, ...]] = {
    "Sim(3) scale": ("scale_sim3",),
    "path, raw (m)": ("path_length_m", "raw"),
    "path, after one scale (m)": ("path_length_m", "scaled"),
    "path, ground truth (m)": ("path_length_m", "groundtruth"),
    "path while standing, raw (m)": ("standing_path_m", "raw"),
    "path while standing, after one scale (m)": ("standing_path_m", "scaled"),
    "path while standing, ground truth (m)": ("standing_path_m", "groundtruth"),
    "standing still (s)": ("standing_s",),
    "frames with ground truth": ("matched",),
}
"""Name of a figure: where it is in `Metrics.as_dict()`."""


@dataclass(frozen=True, slots=True)
class _Side:
    """Figures of one trajectory, as `Metrics.as_dict()`, and whether its lengths are metres."""

    metrics: Mapping[str, object]
    metric: bool

    def at(self, key: str, name: str = "") -> object:
        """Return a figure, or one of those under `key`; None where it is missing."""
        value = self.metrics.get(key)
        if not name:
            return value
        return value.get(name) if isinstance(value, Mapping) else None

    @property
    def alignment(self) -> str:
        """The alignment that says most: with a scale where the lengths are not metres."""
        return "se3" if self.metric else "sim3"

    @property
    def lengths(self) -> str:
        """The kind of relative errors that says most."""
        return "raw" if self.metric else "scaled"


def _sides(run: RunResult) -> dict[str, _Side]:
    """Return the sides that were compared with ground truth: live and refined, or fewer."""
    sides = {}
    if run.metrics is not None:
        sides["live"] = _Side(run.metrics, run.metric)
        if run.refined_metrics is not None and run.judged_refined is not None:
            sides["refined"] = _Side(run.refined_metrics, run.judged_refined.metric)
    return sides


def headline(run: RunResult) -> str:
    """Return the handful of figures that say how the run went."""
    sides = _sides(run)
    figures = [*_errors(sides)] if sides else [_walked(run)]
    counts = Counter(conditions(run.estimates))
    follows = counts["tracking"] + counts["standing"]
    n = len(run.estimates)
    stage, latencies = drawn_stage(run)
    p95 = float(np.percentile(latencies, 95)) if len(latencies) else None
    figures += [
        _figure("of all frames tracked", "%", 100.0 * follows / n if n else None),
        _figure(f"{stage} latency, p95", "ms", p95),
        _figure("frames per second", "", n / run.seconds if run.seconds > 0.0 else None),
    ]
    return f'<dl class="figures">{"".join(figures)}</dl>'


def _errors(sides: Mapping[str, _Side]) -> Iterator[str]:
    def each(name: str, unit: str, figure: Callable[[_Side], object]) -> str:
        return _figure(name, unit, *map(figure, sides.values()))

    after = _told({name: ALIGNMENT_NAMES[side.alignment] for name, side in sides.items()})
    yield each(f"ATE RMSE after {after}", "m", lambda s: s.at("ate_rmse_m", s.alignment))
    live = sides["live"]
    if live.at("t_rel_percent", live.lengths) is None:
        name = "translation error over 1 s"
        yield each(name, "m", lambda s: s.at("rpe_translation_rmse_m", s.lengths))
        yield each("rotation error over 1 s", "°", lambda s: s.at("rpe_rotation_rmse_deg"))
    else:
        after = _told(
            {n: "raw" if s.metric else "after one global scale" for n, s in sides.items()}
        )
        name = "t_rel" if after == "raw" else f"t_rel {after}"
        yield each(name, "%", lambda s: s.at("t_rel_percent", s.lengths))
        yield each("r_rel, per 100 m", "°", lambda s: s.at("r_rel_deg_per_100m"))
    yield each("scale that fits the estimate", "", lambda s: s.at("scale_sim3"))


def _told(ways: Mapping[str, str]) -> str:
    """Return what holds of live and refined, once where it is the same of both."""
    told = list(dict.fromkeys(ways.values()))
    return told[0] if len(told) == 1 else ", ".join(f"{way} ({name})" for name, way in ways.items())


def _walked(run: RunResult) -> str:
    chosen = [run.estimates[i].odom_from_camera.translation for i in comparable(run.estimates)]
    steps = np.diff(np.array(chosen).reshape(-1, 3), axis=0)
    length = float(np.linalg.norm(steps, axis=1).sum())
    return _figure("path length", length_unit(run), length)


def _figure(name: str, unit: str, live: object, *refined: object) -> str:
    """Return one figure of the headline, what it is after refinement beside it."""
    also = "".join(f'<dd class="also c-refined">{number(value)} refined</dd>' for value in refined)
    value = f"<dd>{number(live)}\u202f<small>{unit}</small></dd>"
    return f"<div><dt>{escape(name)}</dt>{value}{also}</div>"


def accuracy(run: RunResult) -> str:
    """Return all figures of `Metrics.as_dict()`, live and refined; nothing where there are none."""
    sides = _sides(run)
    if not sides:
        return ""
    columns = [*sides] if len(sides) > 1 else [""]

    def rows(figures: Mapping[str, tuple[str, ...]]) -> list[list[object]]:
        return [[name, *(s.at(*where) for s in sides.values())] for name, where in figures.items()]

    ate = {name: ("ate_rmse_m", how) for name, how in ALIGNED.items()}
    drift = {name: ("end_drift_percent", how) for name, how in ALIGNED.items()}
    tables = "".join(
        [
            table(["ATE RMSE (m)", *columns], rows(ate)),
            table(["End point drift (% of path)", *columns], rows(drift)),
            table(["Relative errors", *columns], rows(RELATIVE)),
            table(["Lengths", *columns], rows(LENGTHS)),
        ]
    )
    live = sides["live"]
    lengths = live.at("kitti_lengths_m")
    note = ""
    if isinstance(lengths, Sequence) and len(lengths) and live.at("kitti_segments"):
        note = (
            f"t_rel and r_rel over {number(live.at('kitti_segments'))} pieces of "
            f"{lengths[0]:g} to {lengths[-1]:g} m of path."
        )
        if lengths[-1] < 100.0:
            note += " Such short pieces do not compare with KITTI's published figures."
    return f'<section><h2>Accuracy</h2>{tables}<p class="note">{escape(note)}</p></section>'


def consistency(run: RunResult) -> str:
    """Return how the live errors compare with what was predicted; nothing where that is unknown."""
    live = _sides(run).get("live")
    if live is None or not live.at("nees_steps"):
        return ""
    rows = [
        [name, live.at("nees", name), _percent(live.at("nees_inside_95_fraction", name))]
        for name in ("all", "translation", "rotation")
    ]
    figures = table(["axes", "NEES per axis", "inside 95 % bound (%)"], rows)
    return (
        f"<section><h2>Consistency of the predicted uncertainty</h2>{figures}"
        '<p class="note">Over single steps of the live estimate: NEES 1 and 95 % inside is exact, '
        "larger NEES is overconfident.</p></section>"
    )


def _percent(fraction: object) -> float | None:
    return 100.0 * fraction if isinstance(fraction, float) else None
