"""The algebra of compiled code against numpy and the ground's rotations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from vo_stream.adjust import linear
from vo_stream.adjust.solver import Indices
from vo_stream.se3 import SE3, Array, rotation_from_vector, skew


class Given(NamedTuple):
    """What the elimination reads of a problem."""

    held: int
    first: Indices
    keyframes: Indices
    anchors: Indices


def positive(rng: np.random.Generator, size: int) -> Array:
    """Return a symmetric positive matrix."""
    root = rng.normal(size=(size, size + 3))
    return np.asarray(root @ root.T)


def rows_of_lower(matrix: Array) -> Array:
    return np.asarray(matrix[np.tril_indices(3)])


@pytest.mark.parametrize("size", [1, 2, 7, 49])
def test_cholesky_solves_as_numpy_does(size: int) -> None:
    rng = np.random.default_rng(size)
    matrix, vector = positive(rng, size), rng.normal(size=size)
    factor, found = np.tril(matrix), vector.copy()
    assert linear.cholesky(factor)
    np.testing.assert_allclose(np.tril(factor), np.linalg.cholesky(matrix), atol=1e-10)
    linear.solve_lower(factor, found)
    np.testing.assert_allclose(np.tril(factor) @ found, vector, atol=1e-9)
    linear.solve_upper(factor, found)
    np.testing.assert_allclose(matrix @ found, vector, atol=1e-8)
    # What the newest log scale's variance is read from.
    last = np.linalg.inv(matrix)[-1, -1]
    assert 1.0 / factor[-1, -1] ** 2 == pytest.approx(last, rel=1e-8)


@pytest.mark.parametrize("bad", [-1.0, 0.0, np.nan, np.inf])
def test_what_is_not_positive_has_no_factor(bad: float) -> None:
    assert not linear.cholesky(np.diag([1.0, bad, 1.0]))


@pytest.mark.parametrize("damping", [0.0, 1e-3, 10.0])
def test_three_by_three_agrees_with_numpy(damping: float) -> None:
    rng = np.random.default_rng(3)
    for scale in (1e-3, 1.0, 1e6):
        matrix = scale * positive(rng, 3)
        raised = matrix + damping * np.diag(np.diag(matrix))
        factor = linear.cholesky3(rows_of_lower(matrix), damping)
        v = rng.normal(size=3)
        root = np.linalg.cholesky(raised)
        np.testing.assert_allclose(linear.lower3(factor, *v), np.linalg.solve(root, v), rtol=1e-6)
        np.testing.assert_allclose(linear.upper3(factor, *v), np.linalg.solve(root.T, v), rtol=1e-6)
        assert factor[5] ** 2 == pytest.approx(np.linalg.inv(raised)[2, 2], rel=1e-6)


def test_a_block_without_full_rank_has_a_finite_factor() -> None:
    ray = np.array([1e3, 2e3, 0.7])
    for matrix in (np.zeros((3, 3)), np.outer(ray, ray), np.diag([1e7, 1e7, 0.0])):
        assert np.isfinite(linear.cholesky3(rows_of_lower(matrix), 0.0)).all()


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1e-3, 0.5, 2.0, 3.1])
def test_rotations_are_those_of_the_ground(angle: float) -> None:
    axis = np.array([0.36, -0.48, 0.8])
    rotation = linear.rotation_from(angle * axis)
    np.testing.assert_allclose(rotation, rotation_from_vector(angle * axis), atol=1e-15)
    np.testing.assert_allclose(linear.rotation_vector(rotation), angle * axis, atol=1e-11)


def test_skew_and_product() -> None:
    rng = np.random.default_rng(0)
    a, b, v = rng.normal(size=(6, 6)), rng.normal(size=(6, 13)), rng.normal(size=3)
    np.testing.assert_allclose(linear.product(a, b), a @ b, atol=1e-12)
    np.testing.assert_array_equal(linear.skew(v), skew(v))


@pytest.mark.parametrize("angle", [0.0, 1e-4, 1.1e-3, 0.1, 1.0, 2.5, 3.0])
def test_the_jacobian_of_the_logarithm(angle: float) -> None:
    w = angle * np.array([0.6, 0.0, -0.8])
    here, numeric, step = SE3.exp(np.r_[0, 0, 0, w]), np.empty((3, 3)), 1e-6
    for j in range(3):
        more, less = np.zeros(6), np.zeros(6)
        more[3 + j], less[3 + j] = step, -step
        ends = [(here @ SE3.exp(d)).rotation_vector for d in (more, less)]
        numeric[:, j] = (ends[0] - ends[1]) / (2.0 * step)
    np.testing.assert_allclose(linear.inverse_jacobian(w), numeric, atol=1e-8)


def test_the_bend_comes_after_the_twists() -> None:
    for free in range(4):
        assert linear.bend_row(np.zeros(7 * free + 1)) == 6 * free


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_eliminating_landmarks_solves_the_whole_system(damping: float, order: int) -> None:
    """Three landmarks, three keyframes of which the first is held, against numpy."""
    rng = np.random.default_rng(7)
    keyframes = np.array([[0, 1, 2][::order], [1, 2, 0][::order], [0, 2, 1][::order]]).ravel()
    given, bend = Given(1, np.arange(0, 10, 3), keyframes, np.zeros(3, dtype=np.int64)), 12
    whole = positive(rng, 15 + 9)
    for a in range(3):
        for b in range(3):
            if a != b:
                whole[15 + 3 * a : 18 + 3 * a, 15 + 3 * b : 18 + 3 * b] = 0.0
    # Landmarks say nothing of the scales.
    whole[13:15, 15:] = whole[15:, 13:15] = 0.0
    whole += 30.0 * np.eye(24)
    gradient = rng.normal(size=24)
    system = linear.System(
        np.tril(whole[:15, :15]),
        gradient[:15].copy(),
        np.zeros((9, 3, 6)),
        whole[15:, bend].reshape(3, 3).copy(),
        np.array([rows_of_lower(whole[i : i + 3, i : i + 3]) for i in (15, 18, 21)]),
        gradient[15:].reshape(3, 3).copy(),
        np.zeros(3),
    )
    for o, k in enumerate(keyframes):
        if k > 0:
            row, at = 15 + 3 * (o // 3), 6 * (k - 1)
            system.cross[o] = whole[row : row + 3, at : at + 6]
    work = linear.Workspace(np.zeros((15, 15)), np.zeros(15), np.zeros((3, 3, 6)))
    promised = linear.solve_keyframes(given, system, damping, work)
    raised = whole + damping * np.diag(np.diag(whole))
    expected = np.linalg.solve(raised, gradient)
    np.testing.assert_allclose(work.step, expected[:15], rtol=1e-8, atol=1e-12)
    for n in range(3):
        moved = linear.landmark_step(given, system, damping, work.step, n)
        np.testing.assert_allclose(moved, expected[15 + 3 * n : 18 + 3 * n], atol=1e-10)
    schur = raised[:15, :15] - raised[:15, 15:] @ np.linalg.inv(raised[15:, 15:]) @ raised[15:, :15]
    assert promised == pytest.approx(0.5 * work.step @ schur @ work.step, rel=1e-8)
    inverse = np.linalg.inv(raised)
    assert 1.0 / work.reduced[14, 14] ** 2 == pytest.approx(inverse[14, 14], rel=1e-8)
    # What the bend's variance is read from.
    column = np.eye(15)[bend].copy()
    linear.solve_lower(work.reduced, column)
    assert column @ column == pytest.approx(inverse[bend, bend], rel=1e-8)


def test_with_all_keyframes_held_the_bend_is_left() -> None:
    """Two landmarks, each seen by both held keyframes, against numpy."""
    rng = np.random.default_rng(1)
    given = Given(2, np.array([0, 2, 4]), np.array([0, 1, 0, 1]), np.zeros(2, dtype=np.int64))
    whole = positive(rng, 7) + 10.0 * np.eye(7)
    whole[1:4, 4:] = whole[4:, 1:4] = 0.0
    gradient = rng.normal(size=7)
    system = linear.empty_system(given, 1)
    system.hessian[0, 0], system.gradient[0] = whole[0, 0], gradient[0]
    for n in range(2):
        at = slice(1 + 3 * n, 4 + 3 * n)
        system.bend_cross[n], system.point_gradient[n] = whole[at, 0], gradient[at]
        system.point_hessian[n] = rows_of_lower(whole[at, at])
    work = linear.Workspace(np.zeros((1, 1)), np.zeros(1), np.zeros((2, 3, 6)))
    assert np.isfinite(linear.solve_keyframes(given, system, 0.0, work))
    expected = np.linalg.solve(whole, gradient)
    np.testing.assert_allclose(work.step, expected[:1], rtol=1e-8)
    for n in range(2):
        moved = linear.landmark_step(given, system, 0.0, work.step, n)
        np.testing.assert_allclose(moved, expected[1 + 3 * n : 4 + 3 * n], rtol=1e-8)
