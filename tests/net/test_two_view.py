from __future__ import annotations

import numpy as np
import pytest

from vo_stream.net.two_view import (
    FARTHEST_STEPS,
    epipolar_distance,
    essential_motion,
    median_depth,
    rotation_between,
)
from vo_stream.se3 import SE3, Array

PIXEL = 1.0 / 500.0
CURR_FROM_PREV = SE3.exp([0.1, 0.02, -0.5, 0.01, 0.04, -0.02])


def pair(
    curr_from_prev: SE3, noise_px: float = 0.0, outliers: float = 0.0, far: bool = False
) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(3)
    n = 300
    prev = rng.uniform([-0.6, -0.4], [0.6, 0.4], (n, 2))
    depth = rng.uniform(3.0, 20.0, n) * (1e6 if far else 1.0)
    rays = np.concatenate([prev, np.ones((n, 1))], axis=1)
    points = curr_from_prev.apply(rays * depth[:, None])
    curr = points[:, :2] / points[:, 2:] + rng.normal(0.0, noise_px * PIXEL, (n, 2))
    wrong = rng.random(n) < outliers
    curr[wrong] += rng.normal(0.0, 30 * PIXEL, (wrong.sum(), 2))
    return prev, curr, depth


@pytest.mark.parametrize("solver", ["five_point", "eight_point"])
def test_recovers_rotation_and_direction(solver: str) -> None:
    prev, curr, _ = pair(CURR_FROM_PREV, noise_px=0.1, outliers=0.2)
    found = essential_motion(prev, curr, PIXEL, solver, 0)
    assert found is not None
    turn = SE3.from_rotation_translation(found.rotation, np.zeros(3))
    assert (turn.inverse() @ CURR_FROM_PREV).angle < 2e-3
    direction = CURR_FROM_PREV.translation / np.linalg.norm(CURR_FROM_PREV.translation)
    assert found.direction @ direction > np.cos(np.radians(2.0))
    assert 0.7 < found.inliers.mean() < 0.9


def test_equal_seeds_give_equal_results() -> None:
    prev, curr, _ = pair(CURR_FROM_PREV, noise_px=0.5, outliers=0.3)
    first, second = (essential_motion(prev, curr, PIXEL, "five_point", 7) for _ in range(2))
    assert first is not None
    assert second is not None
    assert np.array_equal(first.rotation, second.rotation)
    assert np.array_equal(first.direction, second.direction)


@pytest.mark.parametrize("solver", ["five_point", "eight_point"])
def test_too_little_or_senseless_evidence_is_none_or_finite(solver: str) -> None:
    rng = np.random.default_rng(0)
    assert essential_motion(np.zeros((5, 2)), np.zeros((5, 2)), PIXEL, solver, 0) is None
    for prev, curr in (
        (np.zeros((50, 2)), np.zeros((50, 2))),
        (np.linspace(0, 1, 100).reshape(50, 2), np.linspace(0, 1, 100).reshape(50, 2)),
        (rng.normal(size=(50, 2)), rng.normal(size=(50, 2))),
    ):
        found = essential_motion(prev, curr, PIXEL, solver, 0)
        assert found is None or np.isfinite(found.rotation).all()


def test_rotation_between_leaves_no_parallax_of_a_pure_turn() -> None:
    turn = SE3.exp([0.0, 0.0, 0.0, 0.05, -0.1, 0.02])
    prev, curr, _ = pair(turn)
    rotation, parallax = rotation_between(prev, curr, PIXEL)
    assert np.abs(rotation - turn.rotation).max() < 1e-9
    assert parallax.max() < 1e-9
    _, parallax = rotation_between(*pair(CURR_FROM_PREV)[:2], PIXEL)
    assert np.median(parallax) > PIXEL


def test_epipolar_distance_is_zero_for_the_true_motion_only() -> None:
    prev, curr, _ = pair(CURR_FROM_PREV)
    assert epipolar_distance(prev, curr, CURR_FROM_PREV).max() < 1e-12
    other = CURR_FROM_PREV @ SE3.exp([0.0, 0.0, 0.0, 0.0, 0.0, 0.02])
    assert np.median(epipolar_distance(prev, curr, other)) > PIXEL
    moved = curr + [0.0, 3 * PIXEL]
    turn = SE3.from_rotation_translation(CURR_FROM_PREV.rotation, np.zeros(3))
    far_prev, far_curr, _ = pair(CURR_FROM_PREV, far=True)
    assert epipolar_distance(far_prev, far_curr, turn).max() < 1e-5
    assert epipolar_distance(prev, moved, CURR_FROM_PREV).max() < 3.1 * PIXEL


def test_median_depth_is_in_steps() -> None:
    prev, curr, depth = pair(CURR_FROM_PREV, noise_px=0.05)
    found = essential_motion(prev, curr, PIXEL, "five_point", 0)
    assert found is not None
    steps = np.median(depth) / np.linalg.norm(CURR_FROM_PREV.translation)
    assert median_depth(prev, curr, found) == pytest.approx(steps, rel=0.1)
    assert median_depth(prev, prev, found) == pytest.approx(FARTHEST_STEPS)
