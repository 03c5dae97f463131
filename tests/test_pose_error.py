"""The error of a pose: what it grows to, against errors that are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from vo_stream.pose_error import INDEPENDENT, Correlation, PoseError
from vo_stream.se3 import SE3, Array

STD = np.array([0.02, 0.01, 0.03, 0.002, 0.001, 0.004])
STEP = SE3.exp([0.1, -0.05, 0.5, 0.01, -0.05, 0.02])
DT_S = 0.1
ALIKE = Correlation((0.9, 0.8, 1.0, 0.5, 0.6, 0.0), (2.0, 0.5, 30.0, 1.0, 0.3, 1.0))


def grown(steps: int, correlation: Correlation, motion: SE3 = STEP) -> PoseError:
    error = PoseError.of(np.zeros((6, 6)))
    for _ in range(steps):
        error = error.after(motion, STD, DT_S, correlation)
    return error


def drawn(steps: int, correlation: Correlation, count: int) -> Array:
    """Return (count, 6) errors of the pose after steps whose errors are drawn."""
    random = np.random.default_rng(0)
    share = np.array(correlation.share)
    fading = np.exp(-DT_S / np.array(correlation.time_s))
    true = SE3.identity()
    for _ in range(steps):
        true = true @ STEP
    errors = []
    for _ in range(count):
        lasting = random.standard_normal(6)
        pose = SE3.identity()
        for _ in range(steps):
            lasting = fading * lasting + np.sqrt(1.0 - fading**2) * random.standard_normal(6)
            white = np.sqrt(1.0 - share) * random.standard_normal(6)
            pose = pose @ STEP @ SE3.exp(STD * (np.sqrt(share) * lasting + white))
        errors.append((true.inverse() @ pose).log())
    return np.array(errors)


@pytest.mark.parametrize("correlation", [INDEPENDENT, ALIKE], ids=["independent", "alike"])
def test_it_is_what_drawn_errors_grow_to(correlation: Correlation) -> None:
    predicted = grown(12, correlation).covariance
    errors = drawn(12, correlation, 3000)
    unit = np.sqrt(np.diag(predicted))
    found = np.cov(errors.T) / np.outer(unit, unit)
    np.testing.assert_allclose(found, predicted / np.outer(unit, unit), atol=0.1)


def test_independent_errors_add_up_as_variances() -> None:
    error = grown(1, INDEPENDENT)
    np.testing.assert_allclose(error.covariance, np.diag(STD**2))
    moved = STEP.inverse().transport(error.covariance) + np.diag(STD**2)
    np.testing.assert_allclose(grown(2, INDEPENDENT).covariance, moved)
    assert not grown(2, INDEPENDENT).lasting.any()
    np.testing.assert_array_equal(grown(9, ALIKE).of_steps, grown(9, INDEPENDENT).covariance)


def test_errors_that_last_add_up_as_lengths() -> None:
    for_ever = Correlation((1.0,) * 6, (1e9,) * 6)
    ahead = SE3.exp([0.0, 0.0, 0.5, 0.0, 0.0, 0.0])
    covariance = grown(100, for_ever, ahead).covariance
    assert np.sqrt(covariance[2, 2]) == pytest.approx(100 * STD[2])
    assert np.sqrt(covariance[4, 4]) == pytest.approx(100 * STD[4])
    assert np.sqrt(grown(100, INDEPENDENT, ahead).covariance[2, 2]) == pytest.approx(10 * STD[2])


def test_what_lasted_fades_while_nothing_is_added() -> None:
    error = grown(10, ALIKE)
    rest = error.after(SE3.identity(), np.full(6, 1e-9), 10.0, INDEPENDENT)
    np.testing.assert_allclose(rest.covariance, error.covariance, atol=1e-12)
    assert np.abs(rest.lasting).max() < 1e-4 * np.abs(error.lasting).max()


def test_it_stays_symmetric_and_positive() -> None:
    covariance = grown(2000, ALIKE).covariance
    np.testing.assert_allclose(covariance, covariance.T)
    unit = 1.0 / np.sqrt(np.diag(covariance))
    assert np.linalg.eigvalsh(covariance * np.outer(unit, unit)).min() > 0.0


@pytest.mark.parametrize(
    ("share", "time_s"),
    [
        ((0.5,) * 5, (1.0,) * 6),
        ((0.5,) * 6, (1.0,) * 7),
        ((1.1,) + (0.5,) * 5, (1.0,) * 6),
        ((-0.1,) + (0.5,) * 5, (1.0,) * 6),
        ((float("nan"),) + (0.5,) * 5, (1.0,) * 6),
        ((0.5,) * 6, (0.0,) + (1.0,) * 5),
        ((0.5,) * 6, (float("nan"),) + (1.0,) * 5),
    ],
)
def test_what_is_no_correlation_is_refused(
    share: tuple[float, ...], time_s: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match=r"shares|six axes|above 0"):
        Correlation(share, time_s)
