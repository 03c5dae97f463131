"""Slopes of sightings and all else against central differences, values against the ground's SE3."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vo_stream.adjust import factors, sightings
from vo_stream.adjust.linear import System, empty_system
from vo_stream.adjust.solver import Problem, State
from vo_stream.se3 import SE3, Array

STEP = 1e-6


def slopes(function: Callable[[Array], Array], size: int) -> Array:
    """Return the central differences of a function at zero, one column for each argument."""
    columns = []
    for i in range(size):
        d = np.zeros(size)
        d[i] = STEP
        columns.append((np.asarray(function(d)) - np.asarray(function(-d))) / (2.0 * STEP))
    return np.stack(columns, axis=-1)


def pose(rng: np.random.Generator, length: float, angle: float) -> SE3:
    v, w = rng.normal(size=3), rng.normal(size=3)
    return SE3.exp(np.r_[length * v, angle * w / np.linalg.norm(w)])


def state_of(poses: list[SE3], log_scales: Array, points: Array, bend: float = 0.0) -> State:
    rotations = np.array([p.rotation for p in poses])
    positions = np.array([p.translation for p in poses])
    return State(rotations, positions, log_scales, points, np.array([bend]))


@pytest.mark.parametrize("angle", [0.0, 1e-5, 0.01, 1.0, 2.5])
@pytest.mark.parametrize("error", [0.0, 0.02, 1.0, 2.8])
def test_slopes_of_a_live_motion(angle: float, error: float) -> None:
    rng = np.random.default_rng(int(10 * angle + 100 * error))
    before, motion, off = pose(rng, 3.0, 2.0), pose(rng, 1.0, angle), pose(rng, error, error)
    here, scales = before @ motion @ off, np.array([0.0, 0.3])

    def at(x: Array) -> Array:
        moved = [before @ _retraction(x[:6]), here @ _retraction(x[6:12])]
        state = state_of(moved, scales + [0.0, x[12]], np.zeros((0, 3)))
        return np.asarray(factors.motion_error(state, motion.as_matrix()[:3], 1)[0])

    state = state_of([before, here], scales, np.zeros((0, 3)))
    found = factors.motion_error(state, motion.as_matrix()[:3], 1)[1]
    np.testing.assert_allclose(found, slopes(at, 13), atol=3e-7 if error > 2.0 else 3e-8)


def _retraction(twist: Array) -> SE3:
    """Return the motion by which the solver moves a pose: v and w do not mix."""
    return SE3(np.r_[SE3.exp(np.r_[0, 0, 0, twist[3:]]).wxyz_xyz[:4], twist[:3]])


def test_a_live_motion_that_holds_has_no_error_and_a_small_one_is_its_twist() -> None:
    rng = np.random.default_rng(1)
    before, motion, off = pose(rng, 3.0, 2.0), pose(rng, 1.0, 0.5), 1e-4 * rng.normal(size=6)
    for twist in (np.zeros(6), off):
        true = motion @ SE3.exp(twist)
        scaled = SE3(np.r_[true.wxyz_xyz[:4], np.exp(0.2) * true.translation])
        state = state_of([before, before @ scaled], np.full(2, 0.2), np.zeros((0, 3)))
        error = factors.motion_error(state, motion.as_matrix()[:3], 1)[0]
        np.testing.assert_allclose(error, twist, atol=2e-8)


@pytest.mark.parametrize("rho", [-0.05, 0.0, 0.2, 2.0])
@pytest.mark.parametrize("angle", [0.0, 0.3, 2.0])
def test_slopes_of_a_sighting(rho: float, angle: float) -> None:
    rng = np.random.default_rng(int(10 * angle))
    anchor, camera = pose(rng, 2.0, angle), pose(rng, 2.0, angle)
    # The camera faces the landmark.
    point = np.array([0.1, -0.2, rho])
    camera = anchor @ SE3.exp(np.r_[0.3 * rng.normal(size=3), 0.2 * rng.normal(size=3)])

    def view(x: Array) -> Array:
        return (camera @ _retraction(x)).inverse().as_matrix() @ anchor.as_matrix()

    def seen(x: Array) -> Array:
        return np.array(sightings.seen_at(view(x[:6])[:3], tuple(point + x[6:]))[:2])

    here = view(np.zeros(6))[:3]
    x, y, inverse = sightings.seen_at(here, tuple(point))
    q = here @ np.r_[point[:2], 1.0, rho]
    np.testing.assert_allclose([x, y], q[:2] / q[2], atol=1e-14)
    found = np.hstack(
        [sightings.by_pose(x, y, rho * inverse), sightings.by_point(here, x, y, inverse)]
    )
    np.testing.assert_allclose(found, slopes(seen, 9), atol=1e-8)


@pytest.mark.parametrize("bend", [-0.05, 0.0, 0.05])
def test_slopes_of_a_bent_lens(bend: float) -> None:
    place = np.array([0.6, -0.4])
    seen = np.array(sightings.bent(*place, bend)[:2])
    np.testing.assert_allclose(seen, (1.0 + 0.52 * bend) * place, atol=1e-15)

    def at(x: Array) -> Array:
        return np.array(sightings.bent(*(place + x), bend)[:2])

    by = sightings.bent(*place, bend)[2]
    found = np.transpose([sightings.chained(by, *np.eye(2), i) for i in range(2)])
    np.testing.assert_allclose(found, slopes(at, 2), atol=1e-9)


def test_behind_a_camera_nothing_is_seen() -> None:
    view = np.eye(4)[:3]
    view[2, 3] = -1.0
    assert sightings.seen_at(view, (0.1, 0.2, 0.5))[2] == 2.0
    for rho in (1.0, 1.5):
        assert sightings.seen_at(view, (0.1, 0.2, rho)) == (0.0, 0.0, 0.0)
    assert np.isnan(sightings.seen_at(view, (np.nan, 0.2, np.nan))[2])


@pytest.mark.parametrize("error", [0.1, 1.4, 1.6, 30.0, 99.0])
def test_the_robust_cost_and_its_curvature(error: float) -> None:
    information, r = 4.0, error / 2.0 * np.array([0.6, -0.8])

    def cost(d: Array) -> Array:
        return np.array(sightings.robust(*(r + d), information, 0.0)[0])

    value, weight, _ = sightings.robust(*r, information, 0.0)
    expected = 0.5 * error**2 if error < sightings.HUBER else 1.5 * (error - 0.75)
    assert value == pytest.approx(expected)
    np.testing.assert_allclose(slopes(cost, 2), weight * r, rtol=1e-5)

    def gradient(d: Array) -> Array:
        return np.asarray(sightings.robust(*(r + d), information, 0.0)[1] * (r + d))

    for radial in (0.0, 0.3, 1.0):
        xx, xy, yy = sightings.robust(*r, information, radial)[2]
        curvature = np.array([[xx, xy], [xy, yy]])
        kept = np.outer(r, r) / (r @ r) * weight * radial if error > sightings.HUBER else 0.0
        np.testing.assert_allclose(curvature, slopes(gradient, 2) + kept, atol=1e-5)


def test_the_robust_cost_has_no_step_and_keeps_what_is_no_number() -> None:
    for edge in (sightings.HUBER, sightings.WORST):
        inner, outer = (sightings.robust(edge + d, 0.0, 1.0, 0.3)[0] for d in (-1e-9, 1e-9))
        assert outer == pytest.approx(inner, abs=1e-6)
    assert sightings.robust(1e9, 0.0, 1.0, 0.3)[1:] == (0.0, (0.0, 0.0, 0.0))
    assert np.isnan(sightings.robust(np.nan, 0.0, 1.0, 0.3)[0])


def test_a_point_in_the_map_moves_against_its_camera() -> None:
    point = np.array([0.2, -0.1, 0.3])

    def moved(x: Array) -> Array:
        q = _retraction(x).inverse().as_matrix()[:3] @ np.r_[point[:2], 1.0, point[2]]
        return np.asarray(np.r_[q[:2], point[2]] / q[2])

    found = np.array([sightings.carried(tuple(point), e[:3], e[3:]) for e in np.eye(6)]).T
    np.testing.assert_allclose(found, slopes(moved, 6), atol=1e-9)


BENDS = (-0.05, 0.0, 0.05)
BEND = 18
"""Where it is among the 22 unknowns beside the landmarks: after three twists, before the scales."""


def small_problem(rng: np.random.Generator, bend: float) -> tuple[Problem, list[SE3], State]:
    """Four keyframes, the first held, five landmarks that all see, away from the optimum."""
    poses = [SE3.exp(np.r_[0.5 * k, 0.1 * rng.normal(size=2), 0.05 * rng.normal(size=3)])
             for k in range(4)]  # fmt: skip
    points = np.column_stack([rng.uniform(-0.3, 0.3, (5, 2)), rng.uniform(0.1, 0.5, 5)])
    problem = Problem(
        held=1,
        motions=np.array([pose(rng, 0.5, 0.1).as_matrix()[:3] for _ in range(4)]),
        motion_information=np.array([np.diag(rng.uniform(1.0, 9.0, 6)) + 0.3 for _ in range(4)]),
        walk_information=rng.uniform(1.0, 9.0, 4),
        log_scale_prior=0.1,
        anchors=np.array([0, 1, 2, 3, 1]),
        depth_prior=rng.uniform(0.1, 0.5, 5),
        depth_information=50.0,
        first=np.arange(0, 21, 4),
        keyframes=np.tile(np.arange(4), 5),
        plane=rng.uniform(-0.5, 0.5, (20, 2)),
        weights=rng.uniform(1.0, 40.0, 20),
        bend_prior=0.02,
        bend_information=30.0,
    )
    return problem, poses, state_of(poses, 0.1 * rng.normal(size=4), points, bend)


def cost_at(problem: Problem, start: State, poses: list[SE3], state: State, x: Array) -> float:
    """Return the cost after a step of all unknowns: 22, then 5 x 3 in the cameras of `state`."""
    moved = [poses[0], *(p @ _retraction(x[6 * k : 6 * k + 6]) for k, p in enumerate(poses[1:]))]
    scales, bend = state.log_scales + np.r_[0.0, x[19:22]], float(state.bend[0] + x[BEND])
    there = state_of(moved, scales, state.points + x[22:].reshape(5, 3))
    views = np.zeros((4, 5, 3, 4))
    for a in range(4):
        for k in range(4):
            views[a, k] = (moved[k].inverse() @ poses[a]).as_matrix()[:3]
        home = SE3.from_rotation_translation(start.rotations[a], start.positions[a]).inverse()
        views[a, 4] = (home @ poses[a]).as_matrix()[:3]
    system = empty_system(problem, 22)
    total = factors.add_motions(problem, there, system)
    total += factors.add_bend_prior(problem, bend, system)
    for n in range(5):
        point = tuple(there.points[n])
        total += sightings.landmark_terms(problem, views, bend, n, point, 1.0)[0]
    return float(total)


def system_of(problem: Problem, start: State, state: State) -> tuple[System, float]:
    """Return the normal equations where the state stands, and the cost."""
    views = np.zeros((4, 5, 3, 4))
    sightings.fill_views(start, state, views)
    system: System = empty_system(problem, 22)
    system.bend_cross.fill(7.0)  # what an earlier step left
    bend = float(state.bend[0])
    total = factors.add_motions(problem, state, system)
    total += factors.add_bend_prior(problem, bend, system)
    for n in range(5):
        point = tuple(state.points[n])
        terms = sightings.landmark_terms(problem, views, bend, n, point, 1.0)
        system.point_hessian[n], system.point_gradient[n] = terms[1:]
        total += terms[0]
        sightings.add_pose_terms(problem, views, bend, n, point, 1.0, system)
    return system, total


@pytest.mark.parametrize("bend", BENDS)
def test_the_gradient_of_everything(bend: float) -> None:
    """Poses, bend, scales and landmarks at once, the anchors moved since the start."""
    rng = np.random.default_rng(11)
    problem, poses, state = small_problem(rng, bend)
    start = state_of([p @ pose(rng, 0.1, 0.1) for p in poses], state.log_scales, state.points)
    system, total = system_of(problem, start, state)
    assert total == pytest.approx(cost_at(problem, start, poses, state, np.zeros(37)))
    downhill = np.r_[system.gradient, system.point_gradient.ravel()]
    numeric = slopes(lambda x: np.array(cost_at(problem, start, poses, state, x)), 37)
    np.testing.assert_allclose(downhill, -numeric, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("bend", BENDS)
def test_the_hessian_of_sightings_is_that_of_their_slopes(bend: float) -> None:
    """With all within Huber's bound, so that it is J^T J; poses, bend and landmarks."""
    problem, poses, state = small_problem(np.random.default_rng(2), bend)
    problem = problem._replace(
        weights=np.full(20, 0.5),
        motion_information=np.zeros((4, 6, 6)),
        walk_information=np.zeros(4),
    )

    def seen(x: Array) -> Array:
        moved = [
            poses[0],
            *(p @ _retraction(x[6 * k : 6 * k + 6]) for k, p in enumerate(poses[1:])),
        ]
        points, places = state.points + x[22:].reshape(5, 3), np.empty((20, 2))
        for o in range(20):
            n = o // 4
            view = moved[problem.keyframes[o]].inverse() @ poses[problem.anchors[n]]
            x_y = sightings.seen_at(view.as_matrix()[:3], tuple(points[n]))[:2]
            places[o] = sightings.bent(*x_y, bend + x[BEND])[:2]
        return places.ravel()

    # The anchors' cameras stay where they are: a landmark does not move with its keyframe.
    jacobian = slopes(seen, 37)
    expected = 0.5 * jacobian.T @ jacobian
    expected[BEND, BEND] += problem.bend_information
    for n in range(5):
        expected[24 + 3 * n, 24 + 3 * n] += problem.depth_information
    system, _ = system_of(problem, state, state)
    found = np.zeros((37, 37))
    found[:22, :22] = system.hessian
    for n in range(5):
        at = slice(22 + 3 * n, 25 + 3 * n)
        found[at, at][np.tril_indices(3)] = system.point_hessian[n]
        found[at, BEND] = system.bend_cross[n]
        for o in range(4 * n, 4 * n + 4):
            if (free := problem.keyframes[o] - 1) >= 0:
                found[at, 6 * free : 6 * free + 6] = system.cross[o]
    np.testing.assert_allclose(np.tril(found), np.tril(expected), rtol=1e-6, atol=1e-6)


def test_the_hessian_of_live_motions_is_that_of_their_slopes() -> None:
    problem, _, state = small_problem(np.random.default_rng(5), 0.0)
    system = empty_system(problem, 22)
    factors.add_motions(problem, state, system)
    expected = np.zeros((28, 28))  # poses of all four, then their scales
    for k in range(1, 4):
        jacobian = np.zeros((6, 28))
        error, found = factors.motion_error(state, problem.motions[k], k)
        jacobian[:, 6 * k - 6 : 6 * k + 6], jacobian[:, 24 + k] = found[:, :12], found[:, 12]
        size = np.sqrt(error @ problem.motion_information[k] @ error)
        weight = min(1.0, factors.MOTION_HUBER / size)
        expected += weight * jacobian.T @ problem.motion_information[k] @ jacobian
        change = np.zeros(28)
        change[24 + k] = 1.0
        if k > 1:
            change[23 + k] = -1.0
        expected += problem.walk_information[k] * np.outer(change, change)
    free, found = [*range(6, 24), *range(25, 28)], np.delete(np.arange(22), BEND)
    np.testing.assert_allclose(
        np.tril(system.hessian[np.ix_(found, found)]),
        np.tril(expected[np.ix_(free, free)]),
        atol=1e-12,
    )
    assert not system.hessian[BEND].any()
    assert not system.hessian[:, BEND].any()
