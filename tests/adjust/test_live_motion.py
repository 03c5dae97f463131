"""The live motion, from the estimates of an odometer whose steps are known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vo_stream.adjust.live_motion import (
    LIVE_STD_FACTOR,
    SMALLEST_STD,
    UNKNOWN_LENGTH,
    UNSEEN_STD,
    LiveMotion,
    Step,
    at_scale,
    step_between,
)
from vo_stream.se3 import SE3, Array
from vo_stream.track.bounds import MAX_STD, bounded_covariance
from vo_stream.values import Estimate, Motion, Status

SURE = Motion(SE3.identity(), np.full(6, 1e-9))
"""The last step of an estimate whose covariance says all."""


def estimate(
    pose: SE3,
    covariance: Array,
    scale: float = 1.0,
    i: int = 0,
    motion: Motion | None = SURE,
) -> Estimate:
    return Estimate(i, Status.TRACKING, pose, covariance, False, motion, 1, scale)


def walk(count: int, scale: float, seed: int = 0) -> tuple[list[Estimate], list[Step]]:
    """Return estimates of an odometer, and its backend's own steps."""
    rng = np.random.default_rng(seed)
    pose, covariance = SE3.identity(), 1e-6 * np.eye(6)
    estimates, steps = [estimate(pose, covariance, scale)], []
    for i in range(count):
        step = SE3.exp(rng.normal(0.0, [0.1, 0.1, 0.4, 0.05, 0.2, 0.05]))
        std = rng.uniform(0.5, 1.5, 6) * np.repeat([1e-2, 1e-3], 3)
        steps.append(Step(step, np.diag(std**2)))
        scaled = at_scale(step, scale)
        pose = pose @ scaled
        covariance = scaled.inverse().transport(covariance)
        motion = Motion(scaled, std * np.repeat([scale, 1.0], 3))
        covariance = covariance + np.diag(motion.std**2)
        estimates.append(estimate(pose, covariance, scale, i + 1, motion))
    return estimates, steps


def same(a: SE3, b: SE3) -> None:
    assert np.abs((a.inverse() @ b).log()).max() < 1e-9


@pytest.mark.parametrize("scale", [1.0, 0.2, 7.5])
def test_a_step_is_the_backends_own(scale: float) -> None:
    estimates, steps = walk(6, scale)
    for (before, after), step in zip(pairwise(estimates), steps, strict=True):
        found = step_between(before, after)
        same(found.prev_from_curr, step.prev_from_curr)
        np.testing.assert_allclose(found.covariance, step.covariance, atol=1e-3 * 1e-6)
        np.testing.assert_allclose(found.std, step.std, rtol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 0.2, 7.5])
def test_frames_left_out_make_no_difference(scale: float) -> None:
    estimates, _ = walk(6, scale)
    every, some = LiveMotion.none(), LiveMotion.none()
    for before, after in pairwise(estimates):
        every = every.after(step_between(before, after))
    for before, after in pairwise(estimates[i] for i in (0, 2, 3, 6)):
        some = some.after(step_between(before, after))
    once = LiveMotion.none().after(step_between(estimates[0], estimates[-1]))
    assert np.linalg.norm(every.keyframe_from_here.translation) > 0.5
    for other in (some, once):
        same(other.keyframe_from_here, every.keyframe_from_here)
        np.testing.assert_allclose(other.covariance, every.covariance, rtol=1e-6, atol=1e-9)


def test_the_covariance_is_that_of_the_error_twist_here() -> None:
    """Against errors drawn at random, step by step."""
    _, steps = walk(4, 1.0)
    motion = LiveMotion.none()
    for step in steps:
        motion = motion.after(step)
    rng, errors = np.random.default_rng(3), []
    for _ in range(3000):
        pose = SE3.identity()
        for step in steps:
            pose = pose @ step.prev_from_curr @ SE3.exp(rng.normal(0.0, step.std))
        errors.append((motion.keyframe_from_here.inverse() @ pose).log())
    drawn = np.cov(np.array(errors).T)
    std = np.sqrt(np.diag(motion.covariance))
    np.testing.assert_allclose(np.sqrt(np.diag(drawn)), std, rtol=0.06)
    np.testing.assert_allclose(drawn / np.outer(std, std), motion.covariance / np.outer(std, std),
                               atol=0.08)  # fmt: skip


def test_the_information_is_that_of_a_front_end_trusted_less_than_it_claims() -> None:
    _, (step, *_) = walk(1, 1.0)
    information = LiveMotion.none().after(step).information
    expected = np.diag(1.0 / (LIVE_STD_FACTOR * step.std) ** 2)
    np.testing.assert_allclose(information, expected, rtol=1e-3, atol=1e-6 * expected.max())


def forward(length: float, std: float) -> Step:
    pose = SE3.exp([0.0, 0.0, length, 0.0, 0.0, 0.0])
    return Step(pose, np.diag(np.repeat([std, 1e-3], 3) ** 2))


def test_a_step_that_does_not_know_its_length_has_begun_a_scale_of_its_own() -> None:
    sure, unsure = forward(0.5, 0.15), forward(0.5, 0.3)
    assert np.linalg.norm(unsure.std[:3]) > UNKNOWN_LENGTH * 0.5
    motion = LiveMotion.none().after(sure).after(sure)
    assert motion.scale_variance == 0.0
    motion = motion.after(unsure)
    assert motion.scale_variance == pytest.approx(3 * 0.6**2)
    assert motion.after(sure).scale_variance == motion.scale_variance
    assert motion.after(unsure).scale_variance == pytest.approx(6 * 0.6**2)


def test_a_camera_at_rest_begins_no_scale() -> None:
    assert LiveMotion.none().after(forward(0.0, 1e-4)).scale_variance == 0.0
    # The same pose twice: rounding leaves a motion of 1e-16 or so between them.
    motion, pose = LiveMotion.none(), SE3.exp([3.1, -2.7, 11.3, 0.4, 1.2, -0.3])
    for i in range(20):
        before, after = (estimate(pose, (1.0 + 1e-6 * k) * np.eye(6)) for k in (i, i + 1))
        step = step_between(before, after)
        assert 0.0 < np.linalg.norm(step.prev_from_curr.translation) < 1e-12
        motion = motion.after(step)
    assert motion.scale_variance == 0.0


def test_a_turn_with_a_trace_of_a_way_begins_no_scale() -> None:
    assert LiveMotion.none().after(forward(0.001, 0.01)).scale_variance == 0.0


def test_a_scale_restarted_by_the_backend_is_recognised_whatever_the_scale() -> None:
    for scale in (0.01, 1.0, 100.0):
        step = at_scale(SE3.exp([0.0, 0.0, 0.5, 0.0, 0.0, 0.0]), scale)
        before = estimate(SE3.identity(), 1e-6 * np.eye(6), scale)
        grown = step.inverse().transport(before.covariance)
        std = np.repeat([0.3 * scale, 1e-3], 3)
        after = estimate(step, grown + np.diag(std**2), scale)
        motion = LiveMotion.none().after(step_between(before, after))
        assert motion.scale_variance == pytest.approx(3 * 0.6**2, rel=0.02)


def is_positive(covariance: Array) -> bool:
    return bool(
        np.isfinite(covariance).all()
        and np.allclose(covariance, covariance.T, rtol=1e-9, atol=0.0)
        and np.linalg.eigvalsh(covariance).min() > 0.0
    )


def test_a_step_of_no_uncertainty_has_the_least_there_is() -> None:
    covariance = np.diag(np.full(6, 1e-4))
    for grown in (covariance, 0.5 * covariance):  # a covariance may even shrink
        step = step_between(estimate(SE3.identity(), covariance), estimate(SE3.identity(), grown))
        np.testing.assert_allclose(step.std, SMALLEST_STD)
        assert is_positive(step.covariance)
    assert is_positive(LiveMotion.none().information)


@pytest.mark.parametrize("scale", [1.0, 0.2, 7.5])
def test_a_step_claims_no_less_than_the_last_motion_did(scale: float) -> None:
    """A covariance at its bound has not grown; what was said of the step still holds."""
    covariance = np.diag(np.repeat([1e4, 10.0], 3))
    std = np.array([0.1, 0.2, 0.3, 0.01, 0.02, 0.03])
    before = estimate(SE3.identity(), covariance, scale)
    after = estimate(SE3.identity(), covariance, scale, 1, Motion(SE3.identity(), std))
    step = step_between(before, after)
    np.testing.assert_allclose(step.std, std / np.repeat([scale, 1.0], 3))
    assert is_positive(step.covariance)


@pytest.mark.parametrize("scale", [1.0, 0.2, 7.5])
def test_a_step_that_was_not_seen_says_next_to_nothing(scale: float) -> None:
    covariance = np.diag(np.repeat([1e4, 10.0], 3))
    before = estimate(SE3.identity(), covariance, scale)
    step = step_between(before, estimate(SE3.identity(), covariance, scale, 1, None))
    np.testing.assert_allclose(step.std, UNSEEN_STD)
    grown = estimate(SE3.identity(), covariance + 1e6 * np.eye(6), scale, 1, None)
    assert (step_between(before, grown).std >= UNSEEN_STD).all()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_covariances_at_their_bound_stay_finite_and_positive(scale: float) -> None:
    """A camera lost for long: the covariance can grow no more, only be turned."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(6, 6))
    pose, motion = SE3.exp([3.0, -2.0, 1e3, 0.4, 2.0, -0.3]), LiveMotion.none()
    before = estimate(pose, bounded_covariance(1e9 * mixed @ mixed.T), scale)
    assert np.sqrt(np.diag(before.covariance)) == pytest.approx(MAX_STD)
    for _ in range(20):
        turn = SE3.exp(rng.normal(0.0, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]))
        grown = turn.inverse().transport(before.covariance)
        after = estimate(
            before.odom_from_camera @ turn, bounded_covariance(grown + np.eye(6)), scale
        )
        step = step_between(before, after)
        assert np.isfinite(step.covariance).all()
        assert np.isfinite(step.std).all()
        assert (step.std > 0.0).all()
        motion = motion.after(step)
        assert motion.keyframe_from_here.is_finite
        assert np.isfinite(motion.scale_variance)
        information = motion.information
        assert np.isfinite(information).all()
        np.testing.assert_allclose(information, information.T, rtol=1e-9, atol=1e-6)
        eigenvalues = np.linalg.eigvalsh(information)
        assert eigenvalues.min() > -1e-12 * eigenvalues.max()
        before = after


def test_at_scale_stretches_the_way_and_not_the_turn() -> None:
    motion = SE3.exp([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    same(at_scale(motion, 1.0), motion)
    np.testing.assert_allclose(at_scale(motion, 3.0).translation, 3.0 * motion.translation)
    np.testing.assert_allclose(at_scale(motion, 3.0).rotation, motion.rotation, atol=1e-15)
