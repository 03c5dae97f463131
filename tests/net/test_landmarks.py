from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vo_stream.net.landmarks import Landmarks, solve, step_length
from vo_stream.se3 import SE3, Array

PIXEL = 1.0 / 500.0
CURR_FROM_PREV = SE3.exp([0.05, -0.02, -0.4, 0.01, 0.03, -0.02])
NO_GAUGE = np.zeros((6, 6))


def world(rng: np.random.Generator, n: int = 200) -> tuple[Array, Array]:
    """Return n points on the plane z = 1 and their depths."""
    plane = rng.uniform([-0.6, -0.4], [0.6, 0.4], (n, 2))
    return plane, rng.uniform(3.0, 20.0, n)


def seen_after(plane: Array, depth: Array, curr_from_prev: SE3) -> Array:
    rays = np.concatenate([plane, np.ones((len(plane), 1))], axis=1)
    points = curr_from_prev.apply(rays * depth[:, None])
    return np.asarray(points[:, :2] / points[:, 2:])


def known(plane: Array, depth: Array, relative_std: float) -> Landmarks:
    first = Landmarks.first_seen(plane, 1.0)
    return replace(first, inverse_depth=1.0 / depth, information=(depth / relative_std) ** 2)


def error(estimate: SE3, truth: SE3) -> Array:
    return (estimate.inverse() @ truth).log()


def test_known_landmarks_give_the_motion_exactly() -> None:
    plane, depth = world(np.random.default_rng(1))
    sightings = seen_after(plane, depth, CURR_FROM_PREV)
    noise = np.full(len(plane), 0.3 * PIXEL)
    solution = solve(known(plane, depth, 0.05), sightings, noise, SE3.identity(), NO_GAUGE)
    assert np.abs(error(solution.curr_from_prev, CURR_FROM_PREV)).max() < 1e-7
    assert solution.valid.all()
    assert solution.errors.max() < 1e-3


def test_unknown_landmarks_leave_only_the_scale_open() -> None:
    plane, depth = world(np.random.default_rng(2))
    sightings = seen_after(plane, depth, CURR_FROM_PREV)
    noise = np.full(len(plane), 0.3 * PIXEL)
    start = SE3.from_rotation_translation(CURR_FROM_PREV.rotation, 2.0 * CURR_FROM_PREV.translation)
    along = start.translation / (0.01 * start.translation @ start.translation)
    gauge = np.zeros((6, 6))
    gauge[:3, :3] = np.outer(along, along)
    first = Landmarks.first_seen(plane, 1.0 / 16.0)
    solution = solve(first, sightings, noise, start, gauge)
    truth = SE3.from_rotation_translation(CURR_FROM_PREV.rotation, 2.0 * CURR_FROM_PREV.translation)
    assert np.abs(error(solution.curr_from_prev, truth)).max() < 1e-4
    found = 1.0 / solution.landmarks.inverse_depth
    assert np.median(np.abs(found / (2.0 * depth) - 1.0)) < 0.03


def test_a_few_known_landmarks_carry_the_scale_to_the_others() -> None:
    plane, depth = world(np.random.default_rng(3))
    sightings = seen_after(plane, depth, CURR_FROM_PREV)
    landmarks = known(plane, depth, 0.05)
    few = np.arange(len(plane)) < 20
    landmarks = replace(landmarks, information=np.where(few, landmarks.information, 0.0))
    landmarks = replace(landmarks, inverse_depth=np.where(few, landmarks.inverse_depth, 0.1))
    noise = np.full(len(plane), 0.3 * PIXEL)
    solution = solve(landmarks, sightings, noise, SE3.identity(), NO_GAUGE)
    assert np.abs(error(solution.curr_from_prev, CURR_FROM_PREV)).max() < 1e-4


def test_outliers_hardly_matter() -> None:
    rng = np.random.default_rng(4)
    plane, depth = world(rng)
    sightings = seen_after(plane, depth, CURR_FROM_PREV)
    wrong = np.arange(len(plane)) % 10 == 0
    sightings[wrong] += rng.normal(0.0, 20 * PIXEL, (wrong.sum(), 2))
    noise = np.full(len(plane), 0.3 * PIXEL)
    solution = solve(known(plane, depth, 0.1), sightings, noise, SE3.identity(), NO_GAUGE)
    assert np.abs(error(solution.curr_from_prev, CURR_FROM_PREV)[3:]).max() < PIXEL
    assert (solution.errors[wrong] > 5.0).mean() > 0.8
    assert (solution.errors[~wrong] > 5.0).mean() < 0.05


def test_covariance_agrees_with_the_scatter_of_many_solves() -> None:
    rng = np.random.default_rng(5)
    plane, depth = world(rng, 120)
    clean = seen_after(plane, depth, CURR_FROM_PREV)
    noise = np.full(len(plane), 0.3 * PIXEL)
    squares = []
    for _ in range(300):
        guess = known(plane, depth, 0.05)
        inverse = guess.inverse_depth * (1.0 + 0.05 * rng.normal(size=len(plane)))
        guess = replace(guess, inverse_depth=inverse)
        sightings = clean + rng.normal(0.0, 0.3 * PIXEL, clean.shape)
        solution = solve(guess, sightings, noise, CURR_FROM_PREV, NO_GAUGE)
        # The solve's twist acts in the new camera: truth = exp(e) @ estimate.
        e = (CURR_FROM_PREV @ solution.curr_from_prev.inverse()).log()
        squares.append(e @ solution.information @ e)
    assert np.mean(squares) == pytest.approx(6.0, rel=0.25)


def test_depths_become_known_by_parallax_and_not_without() -> None:
    plane, depth = world(np.random.default_rng(6))
    noise = np.full(len(plane), 0.3 * PIXEL)
    landmarks = known(plane, depth, 0.2)
    turn = SE3.exp([0.0, 0.0, 0.0, 0.0, 0.05, 0.0])
    turned = solve(landmarks, seen_after(plane, depth, turn), noise, SE3.identity(), NO_GAUGE)
    assert np.linalg.norm(turned.curr_from_prev.translation) < 1e-6
    assert np.median(turned.landmarks.relative_std) > 0.19
    step = SE3.exp([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    moved = solve(landmarks, seen_after(plane, depth, step), noise, SE3.identity(), NO_GAUGE)
    assert np.median(moved.landmarks.relative_std) < 0.1


def test_repeating_a_sighting_does_not_make_it_certain() -> None:
    plane, depth = world(np.random.default_rng(7))
    noise = np.full(len(plane), 0.3 * PIXEL)
    landmarks = known(plane, depth, 0.5)
    step = SE3.exp([0.2, 0.0, 0.0, 0.0, 0.0, 0.0])
    sightings = seen_after(plane, depth, step)
    once = solve(landmarks, sightings, noise, step, NO_GAUGE).landmarks.relative_std
    for _ in range(50):
        landmarks = solve(landmarks, sightings, noise, step, NO_GAUGE).landmarks
    assert np.median(landmarks.relative_std / once) > 0.25  # 50 independent ones would give 0.14


def test_nothing_seen_stays_finite() -> None:
    plane, _ = world(np.random.default_rng(8), 5)
    first = Landmarks.first_seen(plane, 0.1)
    solution = solve(first, plane, np.full(5, PIXEL), SE3.identity(), NO_GAUGE)
    assert solution.curr_from_prev.is_finite
    assert np.isfinite(solution.landmarks.inverse_depth).all()
    assert np.isfinite(solution.landmarks.information).all()


def test_landmarks_move_with_the_camera() -> None:
    plane, depth = world(np.random.default_rng(9))
    landmarks = known(plane, depth, 0.1).moved(CURR_FROM_PREV)
    points = landmarks.points() / landmarks.inverse_depth[:, None]
    assert np.allclose(points[:, :2] / points[:, 2:], seen_after(plane, depth, CURR_FROM_PREV))


def test_step_length_is_what_most_landmarks_say() -> None:
    rng = np.random.default_rng(10)
    plane, depth = world(rng)
    sightings = seen_after(plane, depth, CURR_FROM_PREV)
    length = float(np.linalg.norm(CURR_FROM_PREV.translation))
    unit = SE3.from_rotation_translation(
        CURR_FROM_PREV.rotation, CURR_FROM_PREV.translation / length
    )
    noisy = depth / (1.0 + 0.1 * rng.normal(size=len(depth)))
    assert step_length(known(plane, noisy, 0.1), sightings, unit) == pytest.approx(length, rel=0.03)
    assert step_length(Landmarks.first_seen(plane, 0.1), sightings, unit) == 0.0
