"""The little chart writer: ticks, numbers, thinning."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vo_stream.replay import svg
from vo_stream.replay.svg import Line, Span
from vo_stream.replay.svg_path import path_plot


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 10.0, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
        (0.0, 0.37, [0.0, 0.1, 0.2, 0.3]),
        (-3.0, 3.0, [-2.0, 0.0, 2.0]),
        (7.0, 7.0, [7.0]),
    ],
)
def test_nice_ticks(low: float, high: float, ticks: list[float]) -> None:
    np.testing.assert_allclose(svg.nice_ticks(low, high), ticks, atol=1e-12)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    ticks = svg.nice_ticks(low, low + span)
    assert 2 <= len(ticks) <= 6
    slack = 1e-6 * (abs(low) + span)
    assert all(low - slack <= t <= low + span + slack for t in ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.23456, "1.23"),
        (-0.012345, "\u22120.0123"),
        (12345.6, "12\u202f346"),
        (200, "200"),
        (-1500, "\u22121\u202f500"),
        (3.2e-9, "3.20e\u221209"),
        (float("nan"), "\u2013"),
        (float("inf"), "\u2013"),
        (None, "\u2013"),
    ],
)
def test_numbers(value: object, text: str) -> None:
    assert svg.number(value) == text


def test_thinning_keeps_ends_and_peaks() -> None:
    points = np.column_stack([np.arange(100_000.0), np.zeros(100_000)])
    points[54_321, 1] = 9.0
    assert len(svg.thin(points)) == svg.MAX_POINTS
    assert svg.thin(points)[[0, -1], 0].tolist() == [0.0, 99_999.0]
    peaks = svg.thin_peaks(points)
    assert len(peaks) <= svg.MAX_POINTS
    assert peaks[:, 1].max() == 9.0
    assert (np.diff(peaks[:, 0]) > 0.0).all()
    assert svg.thin(points[:5]) is not None
    assert len(svg.thin(points[:5])) == 5


def test_path_has_equal_scales() -> None:
    square = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]])
    chart = path_plot([Line(square, "c-est")], title="t", x_name="x", y_name="y")
    drawn = ET.fromstring(chart).find("polyline")
    assert drawn is not None
    corners = np.array([p.split(",") for p in drawn.attrib["points"].split()], dtype=float)
    sides = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    np.testing.assert_allclose(sides, sides[0], atol=0.2)


@pytest.mark.parametrize(
    "points",
    [
        np.empty((0, 2)),
        np.zeros((1, 2)),
        np.ones((5, 2)),
        np.full((3, 2), np.nan),
        np.array([[0.0, 0.0], [1e9, 1e-9]]),
        np.array([[1e12, 1e12], [1e12 + 1.0, 1e12]]),
    ],
)
def test_charts_stand_odd_data(points: np.ndarray) -> None:
    lines = [Line(points, "c-est")]
    charts = [
        path_plot(lines, title="<", x_name="&", y_name='"'),
        svg.line_chart(lines, title="<", x_name="&", y_name='"', x_range=(0.0, 0.0)),
        svg.histogram(points[:, 0], title="<", x_name="&", levels=[("p50", 0.0)], top=0.0),
        svg.strip([Span(0.0, 0.0, "c-lost", "<&>")], title="<", x_name="&", x_range=(0.0, 0.0)),
    ]
    for chart in charts:
        ET.fromstring(chart)
        assert "nan" not in chart
        assert "inf" not in chart
