"""The view from above as inline SVG: paths, clouds of points, both axes to the same scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from vo_stream.replay.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Area,
    Line,
    drawing,
    escape,
    finite_points,
    polyline,
    thin,
)
from vo_stream.se3 import Array

MIN_HEIGHT, MAX_HEIGHT = 240.0, 520.0
TICK_SPACING = 60.0

MAX_DOTS, MAX_MARKS = 3000, 500
"""Points drawn of one cloud, below and above the lines."""
DOT_SPACING = 1.0
"""Of the points below, one is drawn in each square of this side."""
MARK_SPACING = 10.0
"""Of the points above, one is drawn after this distance from the one before."""

CLOUD_SHARE = (10.0, 90.0)
"""Percentiles of the coordinates of the points below the paths that the view should hold."""
CLOUD_ROOM = 0.35
"""The view grows for them by at most this part of its size on either side."""


def path_plot(
    lines: Sequence[Line],
    *,
    title: str,
    x_name: str,
    y_name: str,
    below: Sequence[Line] = (),
    above: Sequence[Line] = (),
) -> str:
    """Draw paths in a plane; the last line's ends are marked.

    `below` and `above` are points, drawn under and over the lines. The lines decide on the view,
    and those below widen it a little; what lies outside of it is left out.
    """
    paths, below, above = ([_finite(line) for line in group] for group in (lines, below, above))
    low, high = _view(paths, below)
    size = 1.12 * (high - low)
    size = np.maximum(size, 0.02 * size.max() or 1.0)
    room = np.array([WIDTH - LEFT - RIGHT, MAX_HEIGHT - TOP - BOTTOM])
    least = MIN_HEIGHT - TOP - BOTTOM
    per_unit = float((room / size).min())
    room[1] = max(least, per_unit * size[1])
    centre, half = 0.5 * (low + high), 0.5 * room / per_unit
    (x0, y0), (x1, y1) = centre - half, centre + half
    area = Area(x0, x1, y0, y1, TOP + room[1] + BOTTOM)
    x_ticks, y_ticks = (room / TICK_SPACING).tolist()  # equal steps on both axes
    parts = [*area.axes(x_name, y_name, x_ticks=x_ticks, y_ticks=y_ticks)]
    parts += [_dots(area, cloud, _one_in_each_square) for cloud in below]
    parts += [polyline(area, thin(path.points), path.colour) for path in paths]
    parts += [_dots(area, cloud, _one_after_the_other) for cloud in above]
    for path in [path for path in paths if len(path.points)][-1:]:
        parts += _ends(area, path)
    return drawing(title, area.height, parts)


def _finite(line: Line) -> Line:
    return Line(finite_points(line.points), line.colour)


def _view(paths: Sequence[Line], clouds: Sequence[Line]) -> tuple[Array, Array]:
    """Return the lower left and upper right corner of what is to be seen, in data units."""
    points = np.concatenate([np.empty((0, 2)), *(path.points for path in paths)])
    if not len(points):
        return np.zeros(2), np.zeros(2)
    low, high = points.min(axis=0), points.max(axis=0)
    room = CLOUD_ROOM * (high - low).max()
    seen = np.concatenate([np.empty((0, 2)), *(cloud.points for cloud in clouds)])
    if len(seen):
        lowest, highest = np.percentile(seen, CLOUD_SHARE, axis=0)
        return np.clip(lowest, low - room, low), np.clip(highest, high, high + room)
    return low, high


def _dots(area: Area, cloud: Line, chosen: Callable[[Array], Array]) -> str:
    """Return a cloud's points as one path of dots; the style sheet says how large they are."""
    inside = [
        (area.x(x), area.y(y))
        for x, y in cloud.points.tolist()
        if area.x0 <= x <= area.x1 and area.y0 <= y <= area.y1
    ]
    places = chosen(np.array(inside).reshape(-1, 2))
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places.tolist())
    return f'<path class="dots {escape(cloud.colour)}" d="{dots}"/>' if dots else ""


def _one_in_each_square(places: Array) -> Array:
    _, first = np.unique(np.floor(places / DOT_SPACING), axis=0, return_index=True)
    return thin(places[first], MAX_DOTS)


def _one_after_the_other(places: Array) -> Array:
    chosen: list[tuple[float, float]] = []
    for x, y in places.tolist():
        if not chosen or math.dist((x, y), chosen[-1]) >= MARK_SPACING:
            chosen.append((x, y))
    return thin(np.array(chosen).reshape(-1, 2), MAX_MARKS)


def _ends(area: Area, line: Line) -> Iterator[str]:
    """Yield a ring where a path starts and a dot where it ends."""
    (x0, y0), (x1, y1) = ((area.x(x), area.y(y)) for x, y in line.points[[0, -1]])
    yield f'<circle class="ring {escape(line.colour)}" cx="{x0:.1f}" cy="{y0:.1f}" r="5"/>'
    yield f'<circle class="dot {escape(line.colour)}" cx="{x1:.1f}" cy="{y1:.1f}" r="5.5"/>'
    together = math.hypot(x1 - x0, y1 - y0) < 12.0
    level = abs(y1 - y0) < 16.0  # their names would run into each other
    apart = [("start", x0, y0, x1), ("end", x1, y1, x0)]
    for name, x, y, other in [("start, end", x0, y0, x0)] if together else apart:
        to_left = x > 0.8 * WIDTH or (level and x < other < x + 120.0)
        anchor, dx = ("end", -11.0) if to_left else ("start", 11.0)
        yield (
            f'<text class="mark" x="{x + dx:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">'
            f"{name}</text>"
        )
