"""A few charts as inline SVG: lines, a histogram, a band over time. `svg_path` draws the path.

Colours and type come from the page's style sheet (`report_style`); the classes "c-..." name what
a colour means.
Lengths are in units of the drawing, which is `WIDTH` wide and scales to its column.
"""

from __future__ import annotations

import html
import itertools
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vo_stream.se3 import Array

WIDTH = 560.0
CHART_HEIGHT = 210.0
STRIP_HEIGHT = 76.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 16.0, 14.0, 46.0
"""Margins around the plotting area: room for ticks and the axes' names."""

MAX_POINTS = 2000
"""Polylines are thinned to this many points; a screen has no more."""

MAX_BINS = 40


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A polyline: `points` (n, 2) in data units, `colour` one of the "c-..." classes."""

    points: Array
    colour: str


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a band, from `start` to `end` in data units; `label` is its tooltip."""

    start: float
    end: float
    colour: str
    label: str


def escape(text: object) -> str:
    """Return `text` fit for HTML and XML, whatever a file name may hold."""
    controls = {c for c in str(text) if unicodedata.category(c).startswith("C")}
    return html.escape("".join("\ufffd" if c in controls else c for c in str(text)))


def number(value: object, digits: int = 3) -> str:
    """Return a number for a person to read: a true minus, a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "\u2013"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f").replace("-", "\u2212")
    if value == 0.0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if not -5 <= exponent < 7:
        return f"{value:.{digits - 1}e}".replace("-", "\u2212")
    rounded = f"{value:,.{max(0, digits - 1 - exponent)}f}"
    return rounded.replace(",", "\u202f").replace("-", "\u2212")


def nice_ticks(low: float, high: float, about: float = 5.0) -> list[float]:
    """Return the multiples of 1, 2 or 5 times a power of ten within [low, high]."""
    raw = (high - low) / about
    if not (math.isfinite(raw) and raw > 0.0):
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw * (1.0 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def thin(points: Array, limit: int = MAX_POINTS) -> Array:
    """Keep at most `limit` of (n, 2) points, evenly chosen, the first and the last among them."""
    if len(points) <= limit:
        return points
    kept = np.linspace(0, len(points) - 1, limit).round().astype(np.intp)
    return np.asarray(points[kept])


def thin_peaks(points: Array, limit: int = MAX_POINTS) -> Array:
    """Keep at most `limit` of (n, 2) points of a curve over x, every peak of y among them."""
    if len(points) <= limit:
        return points
    starts = np.linspace(0, len(points), limit // 2 + 1).astype(np.intp)
    kept = []
    for start, end in itertools.pairwise(starts):
        y = points[start:end, 1]
        kept += sorted({start + int(y.argmin()), start + int(y.argmax())})
    return np.asarray(points[kept])


def line_chart(
    lines: Sequence[Line], *, title: str, x_name: str, y_name: str, x_range: tuple[float, float]
) -> str:
    """Draw curves over a common x, with y from 0 to above the highest."""
    finite = [Line(finite_points(line.points), line.colour) for line in lines]
    top = max((float(line.points[:, 1].max()) for line in finite if len(line.points)), default=0.0)
    area = Area(*_range(*x_range), 0.0, 1.06 * top or 1.0, CHART_HEIGHT)
    curves = [polyline(area, thin_peaks(line.points), line.colour) for line in finite]
    return drawing(title, area.height, [*area.axes(x_name, y_name), *curves])


def histogram(
    values: npt.ArrayLike,
    *,
    title: str,
    x_name: str,
    levels: Sequence[tuple[str, float]],
    top: float,
) -> str:
    """Draw how often values from 0 to `top` occur, with named vertical lines at `levels`.

    Values above `top` are not drawn; the page has to say how many there are.
    """
    shown = np.asarray(values, dtype=np.float64)
    shown = shown[np.isfinite(shown) & (shown <= top)]
    counts, edges = np.histogram(shown, bins=MAX_BINS, range=(0.0, top if top > 0.0 else 1.0))
    headroom = 1.0 + 0.16 * len(levels)
    area = Area(0.0, float(edges[-1]), 0.0, headroom * max(1, int(counts.max())), CHART_HEIGHT)
    parts = [*area.axes(x_name, "frames")]
    for count, left, right in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        if count:
            x, width = area.x(left) + 0.5, area.x(right) - area.x(left) - 1.0
            height = area.y(0.0) - area.y(count)
            parts.append(
                f'<rect class="bar c-est" x="{x:.1f}" y="{area.y(count):.1f}" '
                f'width="{width:.1f}" height="{height:.1f}"/>'
            )
    for row, (name, value) in enumerate(levels):
        x, y = area.x(min(value, float(edges[-1]))), TOP + 10.0 + 20.0 * row
        at_right = x > 0.8 * WIDTH
        anchor, text_x = ("end", x - 5.0) if at_right else ("start", x + 5.0)
        parts.append(
            f'<path class="level" d="M{x:.1f} {y - 9.0:.1f}V{area.y(0.0):.1f}"/>'
            f'<text class="mark" x="{text_x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f"{escape(name)}</text>"
        )
    return drawing(title, area.height, parts)


def strip(spans: Sequence[Span], *, title: str, x_name: str, x_range: tuple[float, float]) -> str:
    """Draw a band over x in which each span has its colour."""
    area = Area(*_range(*x_range), 0.0, 1.0, STRIP_HEIGHT)
    bars = []
    for span in spans:
        x = area.x(span.start)
        width = max(0.75, area.x(span.end) - x)  # a single frame of an hour is still seen
        bars.append(
            f'<rect class="bar {escape(span.colour)}" x="{x:.2f}" y="{TOP:.0f}" '
            f'width="{width:.2f}" height="{area.y(0.0) - TOP:.0f}">'
            f"<title>{escape(span.label)}</title></rect>"
        )
    return drawing(title, area.height, [*bars, *area.axes(x_name, "", y_ticks=0)])


@dataclass(frozen=True, slots=True)
class Area:
    """The plotting area of a drawing `height` high: data ranges mapped to the drawing."""

    x0: float
    x1: float
    y0: float
    y1: float
    height: float

    def x(self, value: float) -> float:
        """Return where a value lies across the drawing."""
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return where a value lies down the drawing."""
        bottom = self.height - BOTTOM
        return bottom - (value - self.y0) / (self.y1 - self.y0) * (bottom - TOP)

    def axes(
        self, x_name: str, y_name: str, *, x_ticks: float = 6, y_ticks: float = 4
    ) -> Iterator[str]:
        """Yield grid, ticks and names of the axes; no y axis at all without ticks."""
        bottom, right, middle = self.height - BOTTOM, WIDTH - RIGHT, 0.5 * (LEFT + WIDTH - RIGHT)
        for value, label in _labels(nice_ticks(self.y0, self.y1, y_ticks)) if y_ticks else ():
            y = self.y(value)
            yield f'<path class="grid" d="M{LEFT:.0f} {y:.1f}H{right:.0f}"/>'
            yield f'<text x="{LEFT - 8:.0f}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        for value, label in _labels(nice_ticks(self.x0, self.x1, x_ticks)):
            x = self.x(value)
            start = TOP if y_ticks else bottom
            yield f'<path class="grid" d="M{x:.1f} {start:.0f}V{bottom + 4:.0f}"/>'
            yield f'<text x="{x:.1f}" y="{bottom + 18:.0f}" text-anchor="middle">{label}</text>'
        yield f'<path class="axis" d="M{LEFT:.0f} {bottom:.1f}H{right:.0f}"/>'
        yield (
            f'<text class="name" x="{middle:.0f}" y="{self.height - 6:.0f}" '
            f'text-anchor="middle">{escape(x_name)}</text>'
        )
        if y_ticks:
            y = 0.5 * (TOP + bottom)
            yield (
                f'<text class="name" transform="translate(15 {y:.0f}) rotate(-90)" '
                f'text-anchor="middle">{escape(y_name)}</text>'
            )


def _labels(ticks: list[float]) -> Iterator[tuple[float, str]]:
    """Yield ticks and their texts, all with the decimals that the step needs."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(ticks[0]) if ticks else 0.0
    if step <= 0.0:
        yield from ((t, number(t)) for t in ticks)
        return
    exponent = math.floor(math.log10(step) + 1e-9)
    largest = max(abs(t) for t in ticks)
    for tick in ticks:
        if exponent < -4 or largest >= 1e6:
            text = f"{tick:.6g}"
        else:
            text = f"{tick + 0.0:,.{max(0, -exponent)}f}".replace(",", "\u202f")
        yield tick, text.replace("-", "\u2212")


def polyline(area: Area, points: Array, colour: str) -> str:
    """Return (n, 2) points joined by a line; nothing where there are none."""
    if not len(points):
        return ""
    corners = " ".join(f"{area.x(x):.1f},{area.y(y):.1f}" for x, y in points.tolist())
    return f'<polyline class="line {escape(colour)}" points="{corners}"/>'


def drawing(title: str, height: float, parts: Sequence[str]) -> str:
    """Return the whole SVG; `title` is for those who cannot see it."""
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def finite_points(points: npt.ArrayLike) -> Array:
    """Return those of (n, 2) points whose coordinates are finite."""
    values = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return values[np.isfinite(values).all(axis=1)]


def _range(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high > low else (low, low + 1.0)
