"""The laws of the group of rigid motions, and independent references for its conversions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transforms3d import axangles, quaternions

from vo_stream.se3 import SE3, Array, rotation_from_vector, skew

LAWS = settings(deadline=None, derandomize=True, max_examples=60)

SPECIAL_ANGLES = (0.0, 1e-15, 1e-9, 0.9e-4, 1e-4, 1.1e-4, 1e-3, 0.5 * math.pi, math.pi - 1e-7)


def vectors(limit: float) -> st.SearchStrategy[Array]:
    number = st.floats(-limit, limit, allow_subnormal=False)
    return st.tuples(number, number, number).map(np.array)


@st.composite
def twists(draw: st.DrawFn, largest_angle: float = math.pi - 1e-7) -> Array:
    axis = draw(vectors(1.0))
    length = float(np.linalg.norm(axis))
    assume(length > 1e-3)
    angle = draw(st.sampled_from(SPECIAL_ANGLES) | st.floats(0.0, largest_angle))
    return np.concatenate([draw(vectors(50.0)), axis / length * angle])


def motions() -> st.SearchStrategy[SE3]:
    return twists().map(SE3.exp)


def assert_same(a: SE3, b: SE3, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(a.rotation, b.rotation, rtol=0, atol=tolerance)
    scale = 1.0 + float(np.abs(b.translation).max())
    np.testing.assert_allclose(a.translation, b.translation, rtol=0, atol=tolerance * scale)


@LAWS
@given(motions(), motions(), motions())
def test_composition_is_associative(a: SE3, b: SE3, c: SE3) -> None:
    assert_same((a @ b) @ c, a @ (b @ c), 1e-11)


@LAWS
@given(motions())
def test_identity_and_inverse(a: SE3) -> None:
    assert_same(a @ SE3.identity(), a)
    assert_same(SE3.identity() @ a, a)
    np.testing.assert_allclose((a @ a.inverse()).as_matrix(), np.eye(4), atol=1e-11)
    np.testing.assert_allclose((a.inverse() @ a).as_matrix(), np.eye(4), atol=1e-11)
    assert_same(a.inverse().inverse(), a, 1e-11)


@LAWS
@given(motions(), motions(), vectors(20.0))
def test_composition_is_that_of_the_matrices(a: SE3, b: SE3, point: Array) -> None:
    assert_same(a @ b, SE3.from_matrix(a.as_matrix() @ b.as_matrix()), 1e-11)
    np.testing.assert_allclose(
        (a @ b).apply(point[None]), a.apply(b.apply(point[None])), atol=1e-10
    )
    moved = a.as_matrix() @ [*point, 1.0]
    np.testing.assert_allclose(a.apply(point[None])[0], moved[:3], atol=1e-11)


@LAWS
@given(motions())
def test_quaternions_stay_unit_and_rotations_orthogonal(a: SE3) -> None:
    for motion in (a, a @ a, a.inverse(), a.interpolate(a @ a, 0.3)):
        assert np.linalg.norm(motion.wxyz_xyz[:4]) == pytest.approx(1.0, abs=1e-14)
        np.testing.assert_allclose(motion.rotation @ motion.rotation.T, np.eye(3), atol=1e-14)
        assert np.linalg.det(motion.rotation) == pytest.approx(1.0, abs=1e-13)


@LAWS
@given(twists())
def test_log_undoes_exp(twist: Array) -> None:
    np.testing.assert_allclose(
        SE3.exp(twist).log(), twist, rtol=0, atol=2e-12 * (1 + abs(twist).max())
    )


@pytest.mark.parametrize("angle", [a for a in SPECIAL_ANGLES if a > 0.0])
def test_small_rotations_keep_their_digits(angle: float) -> None:
    motion = SE3.exp([0.0, 0.0, 0.0, 0.36 * angle, 0.48 * angle, -0.8 * angle])
    assert motion.angle == pytest.approx(angle, rel=1e-13, abs=0.0)
    assert motion.wxyz_xyz[3] == pytest.approx(-0.8 * math.sin(0.5 * angle), rel=1e-13, abs=0.0)


@LAWS
@given(motions())
def test_exp_undoes_log(a: SE3) -> None:
    assert_same(SE3.exp(a.log()), a, 1e-11)


@pytest.mark.parametrize("angle", [math.pi, math.pi + 1e-9, 1.5 * math.pi, 2 * math.pi, 7.0])
def test_logs_beyond_pi_take_the_short_way(angle: float) -> None:
    motion = SE3.exp([1.0, -2.0, 0.5, 0.0, angle * 0.6, angle * 0.8])
    assert motion.angle == pytest.approx(abs(math.remainder(angle, 2 * math.pi)), abs=1e-12)
    assert motion.angle <= math.pi
    assert_same(SE3.exp(motion.log()), motion, 1e-11)


@LAWS
@given(twists())
def test_exp_is_the_matrix_exponential(twist: Array) -> None:
    generator = np.zeros((4, 4))
    generator[:3, :3], generator[:3, 3] = skew(twist[3:]), twist[:3]
    # exp(A) = (exp(A / 2^10))^(2^10), the inner one by its Taylor series.
    small, term, total = generator / 1024, np.eye(4), np.eye(4)
    for n in range(1, 12):
        term = term @ small / n
        total = total + term
    for _ in range(10):
        total = total @ total
    np.testing.assert_allclose(SE3.exp(twist).as_matrix(), total, atol=1e-10)


@LAWS
@given(motions(), twists())
def test_adjoint_moves_a_twist_to_the_other_side(a: SE3, twist: Array) -> None:
    assert_same(SE3.exp(a.adjoint() @ twist) @ a, a @ SE3.exp(twist), 1e-10)


@LAWS
@given(motions(), motions())
def test_adjoint_of_a_product(a: SE3, b: SE3) -> None:
    np.testing.assert_allclose((a @ b).adjoint(), a.adjoint() @ b.adjoint(), atol=1e-9)
    np.testing.assert_allclose(a.inverse().adjoint() @ a.adjoint(), np.eye(6), atol=1e-9)


def test_transport_agrees_with_scattered_samples() -> None:
    rng = np.random.default_rng(5)
    a = SE3.exp([2.0, -1.0, 0.5, 0.4, -0.9, 1.3])
    root = rng.normal(size=(6, 6)) * [0.02, 0.03, 0.01, 0.01, 0.02, 0.005]
    errors = rng.normal(size=(3000, 6)) @ root.T
    there = np.array([(a @ SE3.exp(e) @ a.inverse()).log() for e in errors])
    moved = a.transport(np.cov(errors.T))
    # On these very samples the two differ by rounding alone: the adjoint is exact.
    np.testing.assert_allclose(np.cov(there.T), moved, rtol=0, atol=1e-9 * np.abs(moved).max())
    np.testing.assert_array_equal(moved, moved.T)
    assert (np.linalg.eigvalsh(moved) > 0).all()


@LAWS
@given(motions())
def test_quaternions_agree_with_transforms3d(a: SE3) -> None:
    x, y, z, w = a.quaternion_xyzw
    assert w >= 0.0
    np.testing.assert_allclose(quaternions.quat2mat([w, x, y, z]), a.rotation, atol=1e-13)
    reference = quaternions.mat2quat(a.rotation)
    assert abs(float(reference @ [w, x, y, z])) == pytest.approx(1.0, abs=1e-12)
    assert_same(SE3.from_quaternion_xyzw([x, y, z, w], a.translation), a)
    assert_same(SE3.from_quaternion_xyzw([-3 * x, -3 * y, -3 * z, -3 * w], a.translation), a)
    assert_same(SE3.from_rotation_translation(a.rotation, a.translation), a)
    assert_same(SE3.from_matrix(a.as_matrix()[:3]), a)


@LAWS
@given(twists())
def test_rotation_vectors_agree_with_transforms3d_and_exp(twist: Array) -> None:
    w = twist[3:]
    angle = float(np.linalg.norm(w))
    matrix = rotation_from_vector(w)
    np.testing.assert_allclose(matrix, SE3.exp(twist).rotation, atol=1e-14)
    if angle > 1e-12:
        np.testing.assert_allclose(matrix, axangles.axangle2mat(w / angle, angle), atol=1e-13)


@LAWS
@given(motions(), twists(3.0))
def test_interpolation_has_its_ends_its_middle_and_a_steady_speed(a: SE3, twist: Array) -> None:
    b = a @ SE3.exp(twist)
    assert_same(a.interpolate(b, 0.0), a)
    assert_same(a.interpolate(b, 1.0), b, 1e-10)
    middle = a.interpolate(b, 0.5)
    assert_same(middle, a @ SE3.exp(0.5 * twist), 1e-10)
    assert_same(a.inverse() @ middle, middle.inverse() @ b, 1e-10)


@LAWS
@given(vectors(10.0), vectors(10.0))
def test_skew_is_the_cross_product(v: Array, u: Array) -> None:
    np.testing.assert_allclose(skew(v) @ u, np.cross(v, u), atol=1e-12)
    np.testing.assert_array_equal(skew(v).T, -skew(v))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(7))
def test_values_that_are_not_finite_are_kept_and_found(value: float, place: int) -> None:
    numbers = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0])
    numbers[place] = value
    motion = SE3(numbers)
    assert not motion.is_finite
    assert not np.isfinite(motion.wxyz_xyz[place])
    assert not SE3.from_quaternion_xyzw(numbers[[1, 2, 3, 0]], numbers[4:]).is_finite


def test_nan_goes_through_every_operation() -> None:
    lost = SE3(np.array([math.nan, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0]))
    for motion in (lost @ lost, lost.inverse(), SE3.exp(lost.log()), lost.interpolate(lost, 0.5)):
        assert not motion.is_finite
    matrix = np.eye(4)
    matrix[0, 1] = math.nan
    assert not SE3.from_matrix(matrix).is_finite


@pytest.mark.parametrize("size", [1e-150, 1e-20, 1e20, 1e150])
def test_quaternions_of_any_length_are_made_unit(size: float) -> None:
    motion = SE3(np.array([0.6 * size, 0.0, 0.8 * size, 0.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(motion.wxyz_xyz[:4], [0.6, 0.0, 0.8, 0.0], atol=1e-14)


def test_a_quaternion_too_long_to_measure_is_not_taken_for_a_rotation() -> None:
    motion = SE3(np.array([0.6e200, 0.0, 0.8e200, 0.0, 0.0, 0.0, 0.0]))
    unit = np.allclose(motion.wxyz_xyz[:4], [0.6, 0.0, 0.8, 0.0])
    assert unit or not motion.is_finite


def test_a_zero_quaternion_is_refused() -> None:
    with pytest.raises(ValueError, match="quaternion of zeros"):
        SE3(np.array([0.0] * 4 + [1.0, 2.0, 3.0]))


@pytest.mark.parametrize("shape", [(6,), (8,), (7, 1), (1, 7), (4, 4), ()])
def test_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="7 numbers"):
        SE3(np.ones(shape))


def test_values_cannot_be_written_to() -> None:
    numbers = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0])
    motion: Any = SE3(numbers)
    numbers[4] = 99.0
    assert motion.translation[0] == 1.0
    for array in (motion.wxyz_xyz, motion.translation):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5.0
    with pytest.raises(AttributeError):
        motion.wxyz_xyz = numbers


def test_names_say_which_way_a_motion_goes() -> None:
    a_from_b = SE3(np.array([1.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0]))
    np.testing.assert_array_equal(a_from_b.apply([[0.0, 0.0, 0.0]]), [[3.0, 0.0, 0.0]])
    quarter = rotation_from_vector([0.0, 0.0, 0.5 * math.pi])
    turned = SE3.from_rotation_translation(quarter, [0.0, 0.0, 0.0])
    np.testing.assert_allclose(turned.apply([[1.0, 0.0, 0.0]]), [[0.0, 1.0, 0.0]], atol=1e-15)
    assert turned.angle == pytest.approx(0.5 * math.pi)
