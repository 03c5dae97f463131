"""The filter that holds the map to metres."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vo_stream.adjust.metric_scale import (
    CORRELATION,
    DRIFT_STD,
    ENOUGH,
    LEAST_ANSWERED,
    MEMORY,
    METRIC_LIVE_STD,
    PATIENCE,
    MetricScale,
)


def settled(value: float = 0.0, std: float = 0.05, count: int = 30) -> MetricScale:
    scale = MetricScale()
    for _ in range(count):
        scale = scale.measured(value, std)
    return scale


def test_at_first_nothing_is_known() -> None:
    scale = MetricScale()
    assert not scale.known
    assert scale.std == math.inf
    assert not scale.unmeasured().known
    assert scale.unmeasured().std == math.inf


def test_it_takes_measurements_that_agree_to_be_known() -> None:
    scale = MetricScale()
    for taken in range(ENOUGH):
        assert not scale.known
        scale = scale.measured(0.7, 0.1)
        assert scale.agreed == taken + 1
    assert scale.known
    assert scale.log_error == pytest.approx(0.7)


def test_the_first_measurement_counts_alone() -> None:
    scale = MetricScale().measured(-3.0, 0.1)
    assert scale.log_error == -3.0
    assert scale.std == pytest.approx(CORRELATION * 0.1)


def test_it_converges_and_the_deviation_settles_where_drift_and_noise_are_even() -> None:
    rng, scale, errors = np.random.default_rng(0), MetricScale(), []
    for _ in range(300):
        scale = scale.measured(0.4 + rng.normal(0.0, 0.05), 0.05)
        errors.append(scale.log_error - 0.4)
    assert abs(np.mean(errors[50:])) < 0.01
    q, r = DRIFT_STD**2, (CORRELATION * 0.05) ** 2
    predicted = 0.5 * (q + math.sqrt(q * q + 4.0 * q * r))
    assert scale.std == pytest.approx(math.sqrt(predicted * r / (predicted + r)), rel=1e-6)


def test_an_outlier_is_refused_and_the_next_good_one_taken() -> None:
    before = settled()
    after = before.measured(1.0, 0.05)
    assert after.log_error == before.log_error
    assert after.std > before.std
    assert (after.agreed, after.refused) == (before.agreed, 1)
    again = after.measured(0.01, 0.05)
    assert 0.0 < again.log_error < 0.01
    assert (again.agreed, again.refused) == (before.agreed + 1, 0)


def test_an_unsure_measurement_may_be_further_off() -> None:
    assert settled().measured(0.5, 0.05).refused == 1
    taken = settled().measured(0.5, 0.5)
    assert taken.refused == 0
    assert 0.0 < taken.log_error < 0.05


def test_what_is_always_refused_is_believed_in_the_end() -> None:
    scale = settled()
    for i in range(PATIENCE - 1):
        scale = scale.measured(1.0, 0.05)
        assert scale.refused == i + 1
        assert abs(scale.log_error) < 1e-12
    scale = scale.measured(1.0, 0.05)
    assert scale.refused == 0
    assert scale.log_error == 1.0
    assert scale.std == pytest.approx(CORRELATION * 0.05)
    assert not scale.known  # what it was is not so, what it is is one measurement's word
    for _ in range(ENOUGH - 1):
        scale = scale.measured(1.0, 0.05)
    assert scale.known


def test_a_map_that_begins_in_metres_is_known_at_once_and_may_be_mended() -> None:
    scale = MetricScale.assumed()
    assert scale.known
    assert scale.log_error == 0.0
    assert scale.std == METRIC_LIVE_STD
    after = scale.measured(0.1, 0.02)
    assert after.known
    assert 0.05 < after.log_error < 0.1


def test_a_scale_that_is_seldom_shown_is_not_known() -> None:
    scale = settled(count=ENOUGH)
    while LEAST_ANSWERED * (scale.asked + 1) <= ENOUGH:
        scale = scale.unmeasured()
        assert scale.known
    scale = scale.unmeasured()
    assert not scale.known
    assert scale.measured(0.0, 0.05).known  # one more of few


@pytest.mark.parametrize("count", [ENOUGH, 30, 10_000])
def test_a_scale_that_is_shown_no_more_is_not_known_for_long(count: int) -> None:
    scale, after = settled(count=count), 0
    while scale.known:
        scale, after = scale.unmeasured(), after + 1
    assert after <= 1.3 * MEMORY
    for _ in range(MEMORY):
        scale = scale.measured(0.0, 0.05)
    assert scale.known


def test_refused_measurements_count_as_no_answer() -> None:
    before = settled()
    after = before.measured(1.0, 0.05)
    assert (after.asked, after.agreed) == (before.asked + 1, before.agreed)


def test_refusals_must_be_on_end_to_count() -> None:
    scale = settled()
    for _ in range(10):
        for _ in range(PATIENCE - 1):
            scale = scale.measured(1.0, 0.05)
        scale = scale.measured(0.0, 0.05)
    assert abs(scale.log_error) < 1e-9


def test_what_is_not_measured_grows_unsure() -> None:
    before = settled()
    scale = before
    for _ in range(50):  # of 80 keyframes 30 have answered
        scale = scale.unmeasured()
    assert scale.log_error == before.log_error
    assert scale.std == pytest.approx(math.hypot(before.std, math.sqrt(50) * DRIFT_STD))
    assert scale.known


def test_correcting_the_map_takes_the_error_away_and_not_the_doubt() -> None:
    before = settled(0.3)
    after = before.corrected()
    assert after.log_error == 0.0
    assert (after.std, after.agreed, after.refused) == (before.std, before.agreed, before.refused)


def run(seed: int, correlation: float) -> tuple[float, float]:
    """Drift and measure for 60 keyframes; return the error of the filter and its deviation."""
    rng, scale = np.random.default_rng(seed), MetricScale()
    truth, std, shared = 0.0, 0.06, 0.0
    for _ in range(60):
        truth += rng.normal(0.0, DRIFT_STD)
        if correlation:
            shared = correlation * shared + math.sqrt(1.0 - correlation**2) * rng.normal()
            error = std * shared
        else:
            error = CORRELATION * std * rng.normal()
        scale = scale.measured(truth + error, std)
        if scale.known:  # as the map is mended
            truth -= scale.log_error
            scale = scale.corrected()
    return truth - scale.log_error, scale.std


@pytest.mark.parametrize("correlation", [0.0, 0.44])
def test_the_deviation_is_honest(correlation: float) -> None:
    """With errors as large as they are taken to be, and with smaller ones that neighbours share."""
    runs = [run(seed, correlation) for seed in range(400)]
    squares = [(error / std) ** 2 for error, std in runs]
    assert 0.75 < np.mean(squares) < 1.3
