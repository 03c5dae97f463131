"""The report's view from above: the paths, and the adjuster's keyframes and landmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vo_stream.replay.alignment import Similarity
from vo_stream.replay.metrics import ErrorCurves
from vo_stream.replay.report_figures import COLOURS, Compared, figure, key
from vo_stream.replay.report_tables import ALIGNMENT_NAMES, length_unit
from vo_stream.replay.result import RunResult
from vo_stream.replay.svg import Line, number
from vo_stream.replay.svg_path import path_plot
from vo_stream.se3 import SE3
from vo_stream.values import Estimate

AXES = "xyz"
FROM_ABOVE = (0, 2)
"""The plane seen from above in an optical frame: x to the right, z ahead."""


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """Paths of (n, 3) points, and how they are seen.

    `map_in_view`: lays what is in `map` among them. `plane`: the two axes drawn. `names`: those of
    the legend, by colour.
    """

    paths: Sequence[Line]
    map_in_view: Similarity
    plane: tuple[int, int]
    unit: str
    caption: str
    names: Mapping[str, str]


def path_figure(run: RunResult, against: Compared) -> str:
    """Return the view from above."""
    view = _over_truth(against.curves) if against.curves else _by_itself(run, against.why_not)
    names = dict(view.names)
    landmarks, keyframes = [], []
    if (refined := run.judged_refined) is not None:
        points = view.map_in_view.place(refined.landmarks)
        landmarks.append(Line(points[:, view.plane], "c-landmark"))
        positions = [pose.translation for pose in refined.keyframes.world_from_camera]
        points = view.map_in_view.place(positions)
        keyframes.append(Line(points[:, view.plane], "c-keyframe"))
        names |= {"c-keyframe": "keyframes", "c-landmark": "landmarks"}
    x_axis, y_axis = (AXES[i] for i in view.plane)
    chart = path_plot(
        [Line(path.points[:, view.plane], path.colour) for path in view.paths],
        title=f"Path in the {x_axis}-{y_axis} plane",
        x_name=f"{x_axis} ({view.unit})",
        y_name=f"{y_axis} ({view.unit})",
        below=landmarks,
        above=keyframes,
    )
    keys = "".join(key(colour, name) for colour, name in names.items())
    return figure(f"Path, {x_axis}\u2013{y_axis} plane", view.caption, chart, keys)


def _over_truth(curves: Mapping[str, ErrorCurves]) -> _View:
    """Lay the estimates over the ground truth."""
    true = curves["live"].pairs.groundtruth.translations
    widest = np.argsort(-np.ptp(true, axis=0), kind="stable")[:2]
    names = {"c-true": "ground truth"} | {
        COLOURS[name]: f"{name}, aligned with {ALIGNMENT_NAMES[curve.alignment]}"
        for name, curve in curves.items()
    }
    scaled = ", ".join(
        f"{name} {number(curve.similarity.scale)}"
        for name, curve in curves.items()
        if curve.alignment == "sim3"
    )
    caption = "in the ground truth's frame" + (f"; scaled by: {scaled}" if scaled else "")
    estimates = [Line(c.aligned.translations, COLOURS[name]) for name, c in curves.items()]
    return _View(
        paths=[Line(true, "c-true"), *estimates],
        map_in_view=curves.get("refined", curves["live"]).similarity,
        plane=(int(widest.min()), int(widest.max())),
        unit="m",
        caption=caption,
        names=names,
    )


def _by_itself(run: RunResult, why_not: str) -> _View:
    """Show the estimates in the frame they are in: `map` is where `odom` started."""
    caption = f"seen from above in the first camera's frame; {why_not}"
    sessions: dict[int, list[Estimate]] = {}
    for estimate in run.estimates:
        sessions.setdefault(estimate.session, []).append(estimate)
    live = [_path([e.odom_from_camera for e in s], "live") for s in sessions.values()]
    refined = [_path(r.trajectory.world_from_camera, "refined") for r in run.refined.values()]
    judged = run.judged_refined
    if judged is not None and judged.metric != run.metric:
        live, unit = [], "m" if judged.metric else "units"
        caption += "; the live path, in another unit, is left out"
    else:
        unit = length_unit(run)
    drawn = {"live": live, "refined": refined}
    return _View(
        paths=[*live, *refined],
        map_in_view=Similarity(1.0, SE3.identity()),
        plane=FROM_ABOVE,
        unit=unit,
        caption=caption,
        names={COLOURS[name]: name for name, paths in drawn.items() if paths and refined},
    )


def _path(poses: Sequence[SE3], name: str) -> Line:
    positions = np.array([pose.translation for pose in poses]).reshape(-1, 3)
    return Line(positions, COLOURS[name])
