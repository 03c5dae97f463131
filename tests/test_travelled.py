"""From wheel speeds to the distance travelled."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vo_stream.se3 import SE3
from vo_stream.travelled import (
    MAX_BACKWARDS_S,
    MAX_EXTRAPOLATION_S,
    MAX_GAP_S,
    MAX_SPEED_M_S,
    SAMPLES,
    TravelledDistance,
    camera_speed,
    camera_speed_of,
)
from vo_stream.values import NANOSECONDS

START_NS = 1_700_000_000 * NANOSECONDS


def ns(seconds: float) -> int:
    return START_NS + round(seconds * NANOSECONDS)


def driven(*samples: tuple[float, float]) -> TravelledDistance:
    distance = TravelledDistance()
    for seconds, speed_m_s in samples:
        distance.add(ns(seconds), speed_m_s)
    return distance


def way(distance: TravelledDistance, from_s: float, to_s: float) -> float:
    return distance.at(ns(to_s)) - distance.at(ns(from_s))


def test_nothing_is_known_without_samples() -> None:
    assert math.isnan(TravelledDistance().at(START_NS))


def test_the_distance_is_the_integral_of_the_speed() -> None:
    times = np.arange(0.0, 10.0, 0.05)
    distance = driven(*((float(t), 2.0 + math.sin(t)) for t in times))
    assert distance.breaks == distance.dropped == 0
    for a, b in ((0.0, 9.9), (1.234, 5.678), (3.001, 3.049)):
        true = 2.0 * (b - a) - math.cos(b) + math.cos(a)
        assert way(distance, a, b) == pytest.approx(true, abs=5e-4)


def test_between_samples_the_speed_changes_evenly() -> None:
    distance = driven((0.0, 1.0), (0.1, 1.4))
    assert way(distance, 0.0, 0.05) == pytest.approx(0.055)
    assert way(distance, 0.0, 0.1) == pytest.approx(0.12)


def test_after_the_last_sample_its_speed_holds_for_a_moment() -> None:
    distance = driven((0.0, 2.0), (0.1, 2.0))
    assert way(distance, 0.0, 0.3) == pytest.approx(0.6)
    assert math.isnan(distance.at(ns(0.1 + MAX_EXTRAPOLATION_S) + 1))


def test_before_the_first_sample_nothing_is_known() -> None:
    assert math.isnan(driven((0.0, 2.0), (0.1, 2.0)).at(ns(0.0) - 1))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.1, 1.01 * MAX_SPEED_M_S])
def test_a_speed_that_is_none_is_dropped_and_counted(bad: float) -> None:
    distance = driven((0.0, 2.0))
    assert not distance.add(ns(0.05), bad)
    assert distance.add(ns(0.1), 2.0)
    assert (distance.dropped, distance.breaks) == (1, 0)
    assert way(distance, 0.0, 0.1) == pytest.approx(0.2)


@pytest.mark.parametrize("back_s", [0.0, 0.03, MAX_BACKWARDS_S])
def test_stamps_that_repeat_or_come_late_are_dropped_and_counted(back_s: float) -> None:
    distance = driven((0.0, 2.0), (0.1, 2.0))
    assert not distance.add(ns(0.1 - back_s), 2.0)
    assert distance.add(ns(0.2), 2.0)
    assert (distance.dropped, distance.breaks) == (1, 0)
    assert way(distance, 0.0, 0.2) == pytest.approx(0.4)


def test_time_that_begins_anew_begins_a_new_stretch() -> None:
    distance = driven((100.0, 2.0), (100.1, 2.0))
    before = distance.at(ns(100.1))
    assert distance.add(ns(0.0), 2.0)
    assert distance.add(ns(0.1), 2.0)
    assert way(distance, 0.0, 0.1) == pytest.approx(0.2)
    assert distance.at(ns(0.1)) < before
    assert math.isnan(distance.at(ns(100.1)))  # of another time
    assert (distance.dropped, distance.breaks) == (0, 1)


def test_a_stamp_far_ahead_is_got_over() -> None:
    distance = driven((0.0, 2.0), (0.1, 2.0), (1e6, 2.0), (0.2, 2.0), (0.3, 2.0))
    assert way(distance, 0.2, 0.3) == pytest.approx(0.2)
    assert distance.breaks == 2


def test_over_a_pause_no_difference_is_positive() -> None:
    """However much is driven after it, and whatever readings are lost meanwhile."""
    whole = [0.05 * i for i in range(100)]
    pause = MAX_GAP_S + 0.1
    distance = driven(*((t, 9.0) for t in whole), *((5.0 + pause + t, 9.0) for t in whole))
    assert distance.breaks == 1
    assert math.isnan(distance.at(ns(4.95 + 1.5 * MAX_EXTRAPOLATION_S)))
    assert way(distance, 4.95, 5.0 + pause) < 0.0
    assert way(distance, 0.0, 9.95 + pause) < 0.0
    assert way(distance, 5.0 + pause, 9.95 + pause) == pytest.approx(9.0 * 4.95)


def test_a_short_pause_is_bridged() -> None:
    distance = driven((0.0, 2.0), (0.9 * MAX_GAP_S, 2.4))
    assert way(distance, 0.0, 0.9 * MAX_GAP_S) == pytest.approx(2.2 * 0.9 * MAX_GAP_S)
    assert not math.isnan(distance.at(ns(0.45 * MAX_GAP_S)))


@pytest.mark.parametrize("speed_m_s", [0.4, 2.0, 30.0])
def test_wheels_that_report_nought_while_they_roll_break_the_stretch(speed_m_s: float) -> None:
    times = [0.02 * i for i in range(200)]
    assert driven(*((t, speed_m_s) for t in times)).breaks == 0
    distance = driven(*((t, 0.0 if i % 7 == 5 else speed_m_s) for i, t in enumerate(times)))
    assert distance.breaks > 50
    assert way(distance, 0.0, 3.9) < 0.0


@pytest.mark.parametrize(
    ("speed_m_s", "braking_m_s2", "rate_hz"),
    [(30.0, 10.0, 50.0), (1.0, 4.0, 100.0), (5.0, 9.0, 20.0)],
)
def test_hard_braking_costs_a_reading_at_most(
    speed_m_s: float, braking_m_s2: float, rate_hz: float
) -> None:
    speeds = np.maximum(speed_m_s - braking_m_s2 * np.arange(0.0, 4.0, 1.0 / rate_hz), 0.0)
    distance = driven(*((i / rate_hz, float(speed)) for i, speed in enumerate(speeds)))
    assert distance.breaks <= 1


def test_noise_is_no_slip() -> None:
    rng = np.random.default_rng(0)
    for speed, std in ((0.5, 0.03), (10.0, 0.3)):
        noisy = np.abs(rng.normal(speed, std, 1000))
        assert driven(*((0.02 * i, float(v)) for i, v in enumerate(noisy))).breaks <= 2


def test_only_so_many_samples_are_kept() -> None:
    distance = driven(*((0.01 * i, 1.0) for i in range(SAMPLES + 100)))
    assert len(distance._samples) == SAMPLES
    assert math.isnan(distance.at(ns(0.5)))
    assert way(distance, 2.0, 40.0) == pytest.approx(38.0)


@given(
    samples=st.lists(
        st.tuples(st.integers(-(2**70), 2**70) | st.integers(0, 10**10), st.floats()), max_size=30
    ),
    stamp_ns=st.integers(-(2**70), 2**70) | st.integers(0, 10**10),
)
def test_whatever_comes_the_distance_is_finite_or_unknown(
    samples: list[tuple[int, float]], stamp_ns: int
) -> None:
    distance = TravelledDistance()
    used = sum(distance.add(*sample) for sample in samples)
    assert used + distance.dropped == len(samples)
    assert not math.isinf(distance.at(stamp_ns))


@given(
    st.lists(st.tuples(st.floats(0.01, 0.8), st.floats(0.0, 3.0)), min_size=2, max_size=40),
    st.lists(st.floats(0.0, 20.0), min_size=2, max_size=10),
)
def test_a_difference_is_no_more_than_could_be_driven(
    steps: list[tuple[float, float]], asked: list[float]
) -> None:
    stamps = np.cumsum([step for step, _ in steps])
    distance = driven(*((float(t), v) for t, (_, v) in zip(stamps, steps, strict=True)))
    asked.sort()
    for a, b in pairwise(asked):
        moved = way(distance, a, b)
        assert math.isnan(moved) or moved <= 3.0 * (b - a) + 1e-6


# The speed of the camera.


def test_the_camera_of_a_turning_robot_has_a_speed_of_its_own() -> None:
    ahead = SE3.exp([0.5, 0.0, 0.3, 0.0, 0.0, 0.0])
    assert camera_speed([0.0, 0.0, 0.0], [0.0, 0.0, 2.0], ahead) == pytest.approx(1.0)
    assert camera_speed([1.0, 0.0, 0.0], [0.0, 0.0, 2.0], ahead) == pytest.approx(math.sqrt(2.0))
    aside = SE3.exp([0.0, 0.5, 0.0, 0.0, 0.0, 0.0])
    assert camera_speed([1.0, 0.0, 0.0], [0.0, 0.0, 2.0], aside) == pytest.approx(0.0)
    assert camera_speed([1.0, 0.0, 0.0], [0.0, 0.0, -2.0], aside) == pytest.approx(2.0)


def test_a_camera_that_is_nowhere_known_is_at_the_base() -> None:
    assert camera_speed([-3.0, 4.0, 0.0], [0.0, 0.0, 9.0], None) == pytest.approx(5.0)


@given(st.lists(st.floats(), min_size=6, max_size=6))
def test_a_twist_of_nonsense_has_no_usable_speed_and_no_warning(twist: list[float]) -> None:
    speed = camera_speed(twist[:3], twist[3:], SE3.exp([0.5, 0.1, 0.3, 0.0, 0.0, 0.0]))
    assert not speed < 0.0
    if not np.isfinite(twist).all():
        assert not math.isfinite(speed)


def test_both_messages_are_read() -> None:
    vector = {"linear": SimpleNamespace(x=0.0, y=0.0, z=0.0)}
    vector["angular"] = SimpleNamespace(x=0.0, y=0.0, z=2.0)
    twist = SimpleNamespace(**vector)
    ahead = SE3.exp([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    for message in (
        SimpleNamespace(twist=twist),
        SimpleNamespace(twist=SimpleNamespace(twist=twist)),
    ):
        assert camera_speed_of(message, ahead) == pytest.approx(1.0)
