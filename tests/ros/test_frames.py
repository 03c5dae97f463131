"""From the camera to base_link: axes, mounts, and covariances against sampled errors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vo_stream.ros.frames import (
    FORWARD,
    SHORTEST_STEP_S,
    UNKNOWN_UNIT_STD,
    BaseState,
    base_state,
    moved_to_base,
)
from vo_stream.se3 import SE3, Array
from vo_stream.track.bounds import MAX_STD
from vo_stream.values import Estimate, Motion, Status

DT_S = 0.05
UNSEEN_RATES = np.array([2.0, 2.0, 2.0, 0.5, 0.5, 0.5])
SAMPLES = 10_000
WITHIN = 0.1
"""Of sampled and stated covariances, relative to the standard deviations of a row and a column."""


def about(axis: str, degrees: float) -> SE3:
    twist = np.zeros(6)
    twist["xyz".index(axis) + 3] = math.radians(degrees)
    return SE3.exp(twist)


def at(x: float, y: float, z: float) -> SE3:
    return SE3.exp([x, y, z, 0.0, 0.0, 0.0])


MOUNTS = {
    "forward": FORWARD,
    "to the left": about("z", 90.0) @ FORWARD,
    "pitched down": about("y", 25.0) @ FORWARD,
    "in front, high up": at(0.8, -0.1, 1.4) @ FORWARD,
    "to the rear, rolled": at(-0.5, 0.3, 0.6) @ about("z", 170.0) @ about("x", 20.0) @ FORWARD,
}
MOUNT = MOUNTS["to the rear, rolled"]
mounts = pytest.mark.parametrize("mount", MOUNTS.values(), ids=list(MOUNTS))


def estimate_of(
    pose: SE3,
    covariance: Array | None = None,
    motion: Motion | None = None,
    metric: bool = True,
    status: Status = Status.TRACKING,
) -> Estimate:
    covariance = 1e-6 * np.eye(6) if covariance is None else covariance
    return Estimate(1, status, pose, covariance, metric, motion, session=1)


def state_of(estimate: Estimate, mount: SE3 = FORWARD, dt_s: float = DT_S) -> BaseState:
    return base_state(estimate, mount, dt_s, UNSEEN_RATES)


def moving(prev_from_curr: SE3, std: Array | None = None) -> Motion:
    return Motion(prev_from_curr, np.full(6, 1e-3) if std is None else std)


@pytest.mark.parametrize(
    ("camera", "base"),
    [
        ([0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]),
        ([1, 0, 0, 0, 0, 0], [0, -1, 0, 0, 0, 0]),
        ([0, 1, 0, 0, 0, 0], [0, 0, -1, 0, 0, 0]),
        ([0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, -1]),  # about the axis that points down: to the right
        ([0, 0, 0, 1, 0, 0], [0, 0, 0, 0, -1, 0]),
        ([0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0]),
    ],
)
def test_axes_are_those_of_rep_103(camera: list[float], base: list[float]) -> None:
    step = SE3.exp(0.1 * np.array(camera))
    state = state_of(estimate_of(step, motion=moving(step)))
    np.testing.assert_allclose(state.odom_from_base.log(), 0.1 * np.array(base), atol=1e-14)
    np.testing.assert_allclose(state.twist, 0.1 / DT_S * np.array(base), atol=1e-13)


def test_a_camera_that_looks_left_sees_the_robot_drive_to_its_right() -> None:
    step = at(0.1, 0.0, 0.0)
    state = state_of(estimate_of(step, motion=moving(step)), MOUNTS["to the left"])
    np.testing.assert_allclose(state.twist, [0.1 / DT_S, 0, 0, 0, 0, 0], atol=1e-13)


@mounts
def test_the_first_pose_is_the_identity(mount: SE3) -> None:
    state = state_of(estimate_of(SE3.identity()), mount, math.nan)
    np.testing.assert_allclose(state.odom_from_base.log(), np.zeros(6), atol=1e-15)


@mounts
def test_the_way_of_the_base_is_found_again(mount: SE3) -> None:
    twist = np.array([1.2, 0.1, -0.05, 0.1, -0.2, 0.7])
    world_from_base = SE3.exp([3.0, -2.0, 0.5, 0.2, 0.1, -1.0])
    begin = world_from_base
    for _ in range(100):
        before, world_from_base = world_from_base, world_from_base @ SE3.exp(DT_S * twist)
        odom_from_camera = (begin @ mount).inverse() @ world_from_base @ mount
        motion = moving((before @ mount).inverse() @ world_from_base @ mount)
        state = state_of(estimate_of(odom_from_camera, motion=motion), mount)
        error = state.odom_from_base.inverse() @ begin.inverse() @ world_from_base
        np.testing.assert_allclose(error.log(), np.zeros(6), atol=1e-12)
        np.testing.assert_allclose(state.twist, twist, atol=1e-11)


@mounts
def test_a_map_that_moves_moves_with_the_base(mount: SE3) -> None:
    map_from_odom, odom_from_camera = SE3.exp([1, 2, 3, 0.1, 0.2, 0.3]), SE3.exp([4, 5, 6, 1, 0, 1])
    of_camera = moved_to_base(map_from_odom @ odom_from_camera, mount)
    of_base = moved_to_base(map_from_odom, mount) @ moved_to_base(odom_from_camera, mount)
    np.testing.assert_allclose((of_camera.inverse() @ of_base).log(), np.zeros(6), atol=1e-13)


def random_covariance(rng: np.random.Generator, stds: list[float]) -> Array:
    root = np.diag(stds) @ rng.standard_normal((6, 6))
    return np.asarray(root @ root.T)


def assert_agree(stated: Array, sampled: Array) -> None:
    stds = np.sqrt(np.diag(sampled))
    np.testing.assert_allclose(
        stated / np.outer(stds, stds), sampled / np.outer(stds, stds), rtol=0, atol=WITHIN
    )


def second_moment(errors: Array) -> Array:
    return np.asarray(errors.T @ errors / len(errors))


def pose_errors(truth: list[SE3], pose: SE3) -> Array:
    """Return (n, 6) errors of position and rotation, each about the parent's axes."""
    inverse = SE3.from_rotation_translation(pose.rotation.T, np.zeros(3))
    return np.array(
        [
            np.concatenate([t.translation - pose.translation, (t @ inverse).rotation_vector])
            for t in truth
        ]
    )


def with_length(pose: SE3, factor: float) -> SE3:
    return SE3.from_rotation_translation(pose.rotation, factor * pose.translation)


@pytest.mark.parametrize("metric", [True, False])
@pytest.mark.parametrize("mount", ["forward", "to the rear, rolled"])
def test_pose_covariance_is_that_of_sampled_errors(mount: str, metric: bool) -> None:
    rng = np.random.default_rng(7)
    base_from_camera = MOUNTS[mount]
    covariance = random_covariance(rng, [0.02, 0.01, 0.05, 0.002, 0.006, 0.003])
    pose = SE3.exp([0.5, -0.3, 0.2, 0.4, -1.1, 0.3])
    state = state_of(estimate_of(pose, covariance, metric=metric), base_from_camera)
    factors = np.ones(SAMPLES) if metric else rng.normal(1.0, UNKNOWN_UNIT_STD, SAMPLES)
    truth = [
        moved_to_base(with_length(pose @ SE3.exp(error), factor), base_from_camera)
        for error, factor in zip(
            rng.multivariate_normal(np.zeros(6), covariance, SAMPLES), factors, strict=True
        )
    ]
    assert_agree(state.pose_covariance, second_moment(pose_errors(truth, state.odom_from_base)))


@pytest.mark.parametrize("metric", [True, False])
@pytest.mark.parametrize("mount", ["forward", "to the rear, rolled"])
def test_twist_covariance_is_that_of_sampled_errors(mount: str, metric: bool) -> None:
    rng = np.random.default_rng(8)
    base_from_camera = MOUNTS[mount]
    std = np.array([2e-3, 1e-3, 5e-3, 1e-3, 3e-3, 2e-3])
    step = SE3.exp([0.01, -0.02, 0.06, 0.01, 0.04, -0.01])
    state = state_of(estimate_of(step, motion=moving(step, std), metric=metric), base_from_camera)
    factors = np.ones(SAMPLES) if metric else rng.normal(1.0, UNKNOWN_UNIT_STD, SAMPLES)
    twists = [
        moved_to_base(with_length(step @ SE3.exp(error), factor), base_from_camera).log() / DT_S
        for error, factor in zip(std * rng.standard_normal((SAMPLES, 6)), factors, strict=True)
    ]
    assert_agree(state.twist_covariance, second_moment(np.array(twists) - state.twist))


def test_position_errors_do_not_grow_with_the_distance_from_the_origin() -> None:
    covariance = np.diag([1e-4, 1e-4, 1e-4, 1e-2, 1e-2, 1e-2])
    near, far = (state_of(estimate_of(at(0.0, 0.0, z), covariance)) for z in (0.0, 1000.0))
    np.testing.assert_allclose(near.pose_covariance, far.pose_covariance, rtol=1e-12)


def test_an_unknown_unit_leaves_the_direction_of_travel_known() -> None:
    step = SE3.exp([0.0, 0.0, 0.1, 0.0, 0.02, 0.0])
    estimate = estimate_of(at(0.0, 0.0, 900.0), motion=moving(step), metric=False)
    state = state_of(estimate)
    known = state_of(replace(estimate, metric=True))
    ahead, *across = np.sqrt(np.diag(state.pose_covariance)[:3])
    assert ahead == pytest.approx(9000.0, rel=1e-3)
    assert max(across) < 0.1
    ahead, *across = np.sqrt(np.diag(state.twist_covariance)[:3])
    assert ahead > UNKNOWN_UNIT_STD * 0.99 * state.twist[0] > 10.0 * max(across)
    for wide, narrow in (
        (state.pose_covariance, known.pose_covariance),
        (state.twist_covariance, known.twist_covariance),
    ):
        np.testing.assert_allclose(wide[3:, 3:], narrow[3:, 3:], rtol=1e-9)


@pytest.mark.parametrize("direction", [[0.0, 0.0, 1.0], [0.48, 0.6, 0.64]])
def test_far_away_the_unit_is_bounded_along_the_way(direction: list[float]) -> None:
    way = np.array(direction)
    pose = at(*(50_000.0 * way))
    state = state_of(estimate_of(pose, metric=False))
    values, vectors = np.linalg.eigh(state.pose_covariance[:3, :3])
    assert math.sqrt(values[-1]) == pytest.approx(MAX_STD[0], rel=1e-6)
    assert math.sqrt(values[-2]) < 0.1
    ahead = moved_to_base(at(*way), FORWARD).translation
    assert abs(vectors[:, -1] @ ahead) == pytest.approx(1.0, abs=1e-9)


def test_at_rest_the_speed_is_known_in_any_unit() -> None:
    motion = moving(SE3.identity(), np.full(6, 1e-4))
    state = state_of(estimate_of(at(0.0, 0.0, 90.0), motion=motion, metric=False))
    assert not state.twist.any()
    assert np.sqrt(np.diag(state.twist_covariance)).max() < 0.03


@pytest.mark.parametrize("dt_s", [math.nan, 0.0, -1.0, 1e-9, 0.99 * SHORTEST_STEP_S])
def test_without_time_nothing_is_known_of_the_speed(dt_s: float) -> None:
    step = at(0.0, 0.0, 0.1)
    state = state_of(estimate_of(step, motion=moving(step)), dt_s=dt_s)
    assert not state.twist.any()
    np.testing.assert_array_equal(state.twist_covariance, np.diag(UNSEEN_RATES**2))


@pytest.mark.parametrize("status", [Status.INITIALIZING, Status.LOST])
def test_without_a_motion_nothing_is_known_of_the_speed(status: Status) -> None:
    state = state_of(estimate_of(SE3.identity(), status=status))
    assert not state.twist.any()
    np.testing.assert_array_equal(state.twist_covariance, np.diag(UNSEEN_RATES**2))


def test_a_motion_that_was_guessed_keeps_its_own_uncertainty() -> None:
    step = at(0.0, 0.0, 0.1)
    motion = replace(moving(step, np.full(6, 0.5)), observed=False)
    state = state_of(estimate_of(step, motion=motion, status=Status.DEGRADED))
    assert state.twist[0] == pytest.approx(0.1 / DT_S)
    np.testing.assert_allclose(np.diag(state.twist_covariance), (0.5 / DT_S) ** 2, rtol=1e-6)


def test_a_state_cannot_be_written_to() -> None:
    state = state_of(estimate_of(SE3.identity()))
    for array in (state.pose_covariance, state.twist, state.twist_covariance):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


numbers = st.floats(-1.0, 1.0)
root_exponents = st.integers(-160, 153)
std_exponents = st.integers(-300, 300)


@st.composite
def poses(draw: st.DrawFn, largest_m: float) -> SE3:
    twist = np.array(draw(st.tuples(*[numbers] * 6)))
    return SE3.exp(twist * np.repeat([largest_m, 3.0], 3))


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scales = [10.0 ** draw(root_exponents) for _ in range(6)]
    rank = draw(st.integers(0, 6))
    root = np.array(scales)[:, None] * rng.uniform(-1.0, 1.0, (6, rank))
    step = draw(st.none() | poses(100.0))
    motion = None
    if step is not None:
        motion = moving(step, np.array([10.0 ** draw(std_exponents) for _ in range(6)]))
    pose = draw(poses(draw(st.sampled_from([0.0, 1.0, 1e3, 1e6]))))
    return estimate_of(
        pose, root @ root.T, motion, draw(st.booleans()), draw(st.sampled_from(Status))
    )


@settings(deadline=None, derandomize=True, max_examples=300)
@given(estimates(), poses(10.0), st.sampled_from([math.nan, 0.0, 1e-9, 1e-3, 0.03, 60.0, 1e9]))
def test_any_estimate_gives_what_a_filter_can_use(
    estimate: Estimate, mount: SE3, dt_s: float
) -> None:
    state = state_of(estimate, mount, dt_s)
    assert state.odom_from_base.is_finite
    assert np.isfinite(state.twist).all()
    for covariance in (state.pose_covariance, state.twist_covariance):
        assert np.isfinite(covariance).all()
        np.testing.assert_array_equal(covariance, covariance.T)
        np.linalg.cholesky(covariance)
    assert (np.sqrt(np.diag(state.pose_covariance)) <= MAX_STD * (1.0 + 1e-12)).all()
