"""The solver on synthetic windows: truth found, laws kept, broken input survived."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from vo_stream.adjust import solver
from vo_stream.adjust.factors import MOTION_HUBER
from vo_stream.adjust.solver import Indices, Problem, Solution, State, compile_solver, solve
from vo_stream.se3 import SE3, Array, rotation_from_vector

NOISE = 0.001
"""Of a sighting, on the plane z = 1: half a pixel at a focal length of 500."""
TURN_STD, LENGTH_STD = 0.002, 0.03
"""Of live motions: radians, and the part of the length."""


class Window(NamedTuple):
    """A drive with its truth: poses, landmarks (n, 3) in the map, who saw which one."""

    rotations: Array
    positions: Array
    landmarks: Array
    landmark: Indices
    keyframes: Indices
    plane: Array


def drive(
    seed: int,
    keyframes: int = 5,
    landmarks: int = 60,
    forward: float = 0.8,
    side: float = 0.5,
    most: int = 99,
) -> Window:
    """Return a drive without noise; each landmark is seen by two to `most` keyframes on end.

    `side`: how far from the axis they may be at last, on the plane z = 1.
    """
    rng = np.random.default_rng(seed)
    rotations, positions = [np.eye(3)], [np.zeros(3)]
    for _ in range(keyframes - 1):
        positions.append(positions[-1] + rotations[-1] @ [0.1 * rng.normal(), 0.0, forward])
        rotations.append(rotations[-1] @ rotation_from_vector(0.03 * rng.normal(size=3)))
    points: list[Array] = []
    landmark: list[int] = []
    who: list[int] = []
    for n in range(landmarks):
        first = int(rng.integers(0, keyframes - 1))
        last = int(rng.integers(first + 1, min(keyframes, first + most)))
        ray = np.r_[rng.uniform(-side, side, 2), 1.0] * np.exp(rng.uniform(1.2, 3.5))
        points.append(rotations[last] @ ray + positions[last])
        who += range(first, last + 1)
        landmark += [n] * (last + 1 - first)
    r, p, x = np.array(rotations), np.array(positions), np.array(points)
    q = np.einsum("mji,mj->mi", r[who], x[landmark] - p[who])
    return Window(r, p, x, np.array(landmark), np.array(who), q[:, :2] / q[:, 2:])


def through_lens(plane: Array, bend: float) -> Array:
    """Return where a lens with this bend puts places on the plane z = 1."""
    return np.asarray(plane * (1.0 + bend * (plane**2).sum(axis=1, keepdims=True)))


def posed(
    window: Window, plane: Array, motions: Array | None = None, held: int = 1
) -> tuple[Problem, State]:
    """Return the problem of these sightings, and the truth as its start."""
    n, k = len(window.landmarks), len(window.positions)
    first = np.searchsorted(window.landmark, np.arange(n + 1))
    anchors = window.keyframes[first[:-1]]
    q = np.einsum(
        "nji,nj->ni", window.rotations[anchors], window.landmarks - window.positions[anchors]
    )
    points = np.column_stack([q[:, :2], np.ones(n)]) / q[:, 2:]
    lengths = np.ones(k)
    lengths[1:] = np.linalg.norm(np.diff(window.positions, axis=0), axis=1) + 1e-3
    information = np.zeros((k, 6, 6))
    for i in range(3):
        information[:, i, i] = (LENGTH_STD * lengths) ** -2.0
        information[:, 3 + i, 3 + i] = TURN_STD**-2.0
    problem = Problem(
        held=held,
        motions=true_motions(window) if motions is None else motions,
        motion_information=information,
        walk_information=np.full(k, 0.05**-2.0),
        log_scale_prior=0.0,
        anchors=anchors,
        depth_prior=points[:, 2].copy(),
        depth_information=0.1,
        first=first,
        keyframes=window.keyframes,
        plane=plane,
        weights=np.full(len(plane), NOISE**-2.0),
    )
    start = State(window.rotations.copy(), window.positions.copy(), np.zeros(k), points)
    return problem, start


def true_motions(window: Window) -> Array:
    motions = np.zeros((len(window.positions), 3, 4))
    for k in range(1, len(motions)):
        before = window.rotations[k - 1].T
        motions[k, :, :3] = before @ window.rotations[k]
        motions[k, :, 3] = before @ (window.positions[k] - window.positions[k - 1])
    return motions


def shaken(rng: np.random.Generator, start: State, held: int = 1, size: float = 1.0) -> State:
    """Return a start that is off: 3 cm and 0.2 degrees a pose, 20 % a depth."""
    rotations, positions = start.rotations.copy(), start.positions.copy()
    for k in range(held, len(positions)):
        rotations[k] = rotations[k] @ rotation_from_vector(size * 0.0035 * rng.normal(size=3))
        positions[k] += size * 0.03 * rng.normal(size=3)
    points = start.points.copy()
    points[:, 2] *= np.exp(0.2 * size * rng.normal(size=len(points)))
    return State(rotations, positions, start.log_scales.copy(), points, start.bend.copy())


def noisy(rng: np.random.Generator, window: Window, bend: float = 0.0) -> tuple[Array, Array]:
    """Return sightings and live motions with the noise that the problem claims."""
    plane = through_lens(window.plane, bend) + NOISE * rng.normal(size=window.plane.shape)
    motions = true_motions(window)
    for k in range(1, len(motions)):
        length = np.linalg.norm(motions[k, :, 3])
        motions[k, :, :3] = motions[k, :, :3] @ rotation_from_vector(TURN_STD * rng.normal(size=3))
        motions[k, :, 3] += LENGTH_STD * length * rng.normal(size=3)
    return plane, motions


def same(a: Solution, b: Solution) -> bool:
    """Say whether two solutions are the same to the last bit."""
    arrays = zip((*a.state, *a[1:3]), (*b.state, *b[1:3]), strict=True)
    return a[3:] == b[3:] and all(np.array_equal(x, y, equal_nan=True) for x, y in arrays)


@pytest.mark.parametrize("seed", range(5))
def test_exact_data_give_the_truth(seed: int) -> None:
    window = drive(seed)
    problem, truth = posed(window, window.plane)
    # The prior is of depths in the cameras of the start, which are off.
    problem = problem._replace(depth_information=1e-8)
    found = solve(problem, shaken(np.random.default_rng(seed), truth), 15)
    assert found.solved
    assert found.cost < 1e-6
    # Landmarks are in the cameras of the start, so the poses are what can be compared.
    np.testing.assert_allclose(found.state.positions, truth.positions, atol=1e-6)
    np.testing.assert_allclose(found.state.rotations, truth.rotations, atol=1e-6)
    np.testing.assert_allclose(found.state.log_scales, 0.0, atol=1e-6)
    assert found.errors.max() < 1e-3


def test_landmarks_come_back_in_the_cameras_of_the_start() -> None:
    window = drive(3)
    problem, truth = posed(window, window.plane)
    start = shaken(np.random.default_rng(1), truth)
    found = solve(problem, start)
    rays = np.column_stack([found.state.points[:, :2], np.ones(len(window.landmarks))])
    a = problem.anchors
    places = np.einsum("nij,nj->ni", start.rotations[a], rays / found.state.points[:, 2:])
    np.testing.assert_allclose(places + start.positions[a], window.landmarks, rtol=1e-5, atol=1e-5)


def test_a_scale_that_is_wrong_is_found() -> None:
    """The live motions are 1.3 times too short; two held keyframes know how long they are."""
    window = drive(2)
    motions = true_motions(window)
    motions[:, :, 3] /= 1.3
    problem, truth = posed(window, window.plane, motions, held=2)
    problem = problem._replace(log_scale_prior=float(np.log(1.3)))
    loose = problem._replace(log_scale_prior=0.0, walk_information=np.full(5, 1e-4))
    for given, size in ((problem, 1.0), (loose, 0.5)):
        found = solve(given, shaken(np.random.default_rng(0), truth, 2, size), 30)
        assert found.solved
        np.testing.assert_allclose(np.exp(found.state.log_scales[2:]), 1.3, rtol=1e-4)
        np.testing.assert_allclose(found.state.positions, truth.positions, atol=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_noise_and_outliers_do_little_harm(seed: int) -> None:
    window, rng = drive(seed, 8, 250), np.random.default_rng(seed)
    plane, motions = noisy(rng, window)
    clean = posed(window, plane, motions)
    wrong = rng.random(len(plane)) < 0.05
    plane = plane + wrong[:, None] * rng.uniform(-0.04, 0.04, plane.shape)
    problem, truth = posed(window, plane, motions)
    start = shaken(rng, truth)
    found, best = solve(problem, start), solve(clean[0], start)
    assert found.solved
    # Across a road of 5.6 m with one scale: about 5 % of it, and a pixel of direction.
    error = abs(found.state.log_scales[-1])
    assert error < 4.0 * found.log_scale_std
    straight = [
        s.state.positions[-1] / np.exp(s.state.log_scales[1:].mean()) for s in (found, best)
    ]
    np.testing.assert_allclose(straight[0], straight[1], atol=0.1)
    turned = found.state.rotations[-1].T @ window.rotations[-1]
    assert (
        np.linalg.norm(SE3.from_rotation_translation(turned, np.zeros(3)).rotation_vector) < 0.003
    )
    assert (found.errors[wrong] > 3.0).mean() > 0.7
    assert (found.errors[~wrong] > 4.0).mean() < 0.03


@pytest.mark.parametrize("bend", [None, -0.05, 0.05])
@pytest.mark.parametrize("seed", range(4))
def test_no_worse_than_a_dense_reference(seed: int, bend: float | None) -> None:
    """Of a lens whose bend is sought, or that is known to have none and left out of the search."""
    window, rng = drive(seed, 4, 25), np.random.default_rng(seed)
    plane, motions = noisy(rng, window, bend or 0.0)
    wild = rng.random(len(plane)) < 0.05
    problem, truth = posed(window, plane + 0.03 * wild[:, None], motions)
    if bend is not None:
        problem = problem._replace(bend_prior=0.8 * bend, bend_information=0.01**-2.0)
    start = shaken(rng, truth, size=0.5)
    found = solve(problem, start)
    assert reference_cost(problem, start, np.zeros(22 + 75)) == pytest.approx(found.first_cost)
    sought = np.arange(22 + 75)
    if bend is None:
        sought = np.delete(sought, 18)
    assert found.cost <= reference(problem, start, sought) * (1.0 + 2e-3)


def residuals(problem: Problem, start: State, x: Array) -> tuple[Array, Array]:
    """Return errors of sightings (M, 2) and all others (r,), in standard deviations, after x."""
    k = len(start.positions)
    twists, scales = x[: 6 * (k - 1)].reshape(-1, 6), start.log_scales.copy()
    bend = start.bend[0] + x[6 * (k - 1)]
    scales[1:] += x[6 * (k - 1) + 1 : 7 * (k - 1) + 1]
    points = start.points + x[7 * (k - 1) + 1 :].reshape(-1, 3)
    rotations, positions = start.rotations.copy(), start.positions.copy()
    for i, t in enumerate(twists, 1):
        positions[i] += rotations[i] @ t[:3]
        rotations[i] = rotations[i] @ rotation_from_vector(t[3:])
    n = np.repeat(np.arange(len(points)), np.diff(problem.first))
    a, o = problem.anchors[n], problem.keyframes
    rays = np.column_stack([points[n, :2], np.ones(len(n))])
    world = np.einsum("mij,mj->mi", start.rotations[a], rays)
    world += points[n, 2:] * (start.positions[a] - positions[o])
    q = np.einsum("mji,mj->mi", rotations[o], world)
    place = through_lens(q[:, :2] / q[:, 2:], bend)
    seen = (problem.plane - place) * np.sqrt(problem.weights)[:, None]
    others = [np.sqrt(problem.depth_information) * (points[:, 2] - problem.depth_prior)]
    others.append(np.sqrt([problem.bend_information]) * (bend - problem.bend_prior))
    scales[0] = problem.log_scale_prior
    others.append(np.sqrt(problem.walk_information[1:]) * np.diff(scales))
    for i in range(1, k):
        turn, before = problem.motions[i, :, :3].T, rotations[i - 1].T
        moved = before @ (positions[i] - positions[i - 1])
        v = turn @ (np.exp(-scales[i]) * moved - problem.motions[i, :, 3])
        w = SE3.from_rotation_translation(turn @ before @ rotations[i], v).rotation_vector
        error = np.linalg.cholesky(problem.motion_information[i]).T @ np.r_[v, w]
        size = float(np.linalg.norm(error))
        if size > MOTION_HUBER:  # half its square is Huber's function then
            error *= np.sqrt(2.0 * MOTION_HUBER * (size - 0.5 * MOTION_HUBER)) / size
        others.append(error)
    return seen, np.concatenate(others)


def reference_cost(problem: Problem, start: State, x: Array) -> float:
    seen, others = residuals(problem, start, x)
    e = np.linalg.norm(seen, axis=1)
    huber = np.where(e < 1.5, 0.5 * e**2, 1.5 * (e - 0.75))
    return float(np.sum(huber) + 0.5 * others @ others)


def reference(problem: Problem, start: State, sought: Indices) -> float:
    """Return the least cost that dense Gauss-Newton with weights and numeric slopes finds.

    `sought`: which unknowns may change.
    """
    x = np.zeros(7 * (len(start.positions) - 1) + 1 + start.points.size)
    cost, damping = reference_cost(problem, start, x), 1e-4

    def weighted(at: Array, root: Array) -> Array:
        seen, others = residuals(problem, start, at)
        return np.asarray(np.r_[(seen * root[:, None]).ravel(), others])

    for _ in range(25):
        e = np.linalg.norm(residuals(problem, start, x)[0], axis=1)
        root = np.sqrt(np.minimum(1.0, 1.5 / np.maximum(e, 1e-9)))
        steps = 1e-6 * np.eye(len(x))[sought]
        slopes = [(weighted(x + d, root) - weighted(x - d, root)) / 2e-6 for d in steps]
        jacobian = np.stack(slopes, axis=1)
        hessian = jacobian.T @ jacobian
        hessian += damping * np.diag(np.diag(hessian))
        moved = x.copy()
        moved[sought] -= np.linalg.solve(hessian, jacobian.T @ weighted(x, root))
        if (found := reference_cost(problem, start, moved)) < cost:
            done = cost - found < 1e-5 * cost
            x, cost, damping = moved, found, 0.1 * damping
            if done:
                break
        else:
            damping *= 10.0
    return cost


def test_the_claimed_uncertainty_is_that_of_many_solves() -> None:
    window, rng = drive(4, 5, 60), np.random.default_rng(0)
    found, claimed = [], []
    for _ in range(200):
        plane, motions = noisy(rng, window)
        # The live scale walks, too.
        scales = np.r_[0.0, np.cumsum(0.05 * rng.normal(size=4))]
        motions[:, :, 3] /= np.exp(scales)[:, None]
        problem, truth = posed(window, plane, motions)
        lengths = np.exp(2.0 * scales)
        problem.motion_information[:, :3, :3] *= lengths[:, None, None]
        solution = solve(problem, truth._replace(log_scales=scales), 20)
        assert solution.solved
        found.append(solution.state.log_scales[-1] - scales[-1])
        claimed.append(solution.log_scale_std)
    assert np.std(found) == pytest.approx(np.mean(claimed), rel=0.2)
    assert abs(np.mean(found)) < 4.0 * np.std(found) / np.sqrt(200)


def test_live_motions_do_not_shrink_the_map() -> None:
    """Their errors cost the same in a map of any size: nothing else says how large it is."""
    window, rng = drive(4), np.random.default_rng(4)
    problem, truth = posed(window, *noisy(rng, window))
    problem = problem._replace(walk_information=np.zeros(5), depth_information=0.0)
    costs = []
    for size in (0.5, 1.0, 2.0):
        points = truth.points / [1.0, 1.0, size]
        start = State(truth.rotations, size * truth.positions, np.full(5, np.log(size)), points)
        costs.append(solve(problem, start, 0).first_cost)
    np.testing.assert_allclose(costs, costs[0], rtol=1e-9)


def test_depths_are_as_certain_as_claimed() -> None:
    """All poses held: each landmark alone."""
    window, rng = drive(1, 4, 40), np.random.default_rng(2)
    off, claimed = [], []
    for _ in range(100):
        problem, truth = posed(window, noisy(rng, window)[0], held=4)
        found = solve(problem._replace(depth_information=1e-9), truth, 20)
        assert found.solved
        off.append(found.state.points[:, 2] / truth.points[:, 2] - 1.0)
        claimed.append(found.depth_stds)
    ratio = np.std(off, axis=0) / np.median(claimed, axis=0)
    assert np.median(ratio) == pytest.approx(1.0, abs=0.15)


BEND_STD = 0.05
WIDE = 0.9
"""`side` of a view of 84 degrees: a lens that sees less far from the axis shows little bend."""


def bent_problem(window: Window, plane: Array, motions: Array | None = None) -> Problem:
    """Return the problem of a lens of which next to nothing is known."""
    problem, _ = posed(window, plane, motions)
    return problem._replace(bend_information=BEND_STD**-2.0)


@pytest.mark.parametrize("bend", [-0.05, -0.01, 0.02, 0.05])
def test_exact_data_give_the_bend(bend: float) -> None:
    window = drive(1)
    _, truth = posed(window, window.plane)
    problem = bent_problem(window, through_lens(window.plane, bend))
    problem = problem._replace(depth_information=1e-8, bend_information=1e-6)
    found = solve(problem, shaken(np.random.default_rng(0), truth), 20)
    assert found.solved
    assert found.state.bend[0] == pytest.approx(bend, abs=1e-6)
    np.testing.assert_allclose(found.state.positions, truth.positions, atol=1e-6)
    assert found.errors.max() < 1e-3


@pytest.mark.parametrize("seed", range(8))
def test_the_bend_is_found_in_noise_and_outliers(seed: int) -> None:
    window, rng = drive(seed, 8, 250, side=WIDE), np.random.default_rng(seed)
    plane, motions = noisy(rng, window, 0.03)
    wrong = rng.random(len(plane)) < 0.05
    plane += wrong[:, None] * rng.uniform(-0.04, 0.04, plane.shape)
    _, truth = posed(window, plane)
    found = solve(bent_problem(window, plane, motions), shaken(rng, truth), 20)
    assert found.solved
    assert found.bend_std < 0.1 * BEND_STD
    assert abs(found.state.bend[0] - 0.03) < 3.0 * found.bend_std


def test_the_bend_is_as_certain_as_claimed() -> None:
    window, rng = drive(4, 5, 60, side=WIDE), np.random.default_rng(1)
    _, truth = posed(window, window.plane)
    found, claimed = [], []
    for _ in range(150):
        problem = bent_problem(window, *noisy(rng, window, 0.02))
        # What is known is as far off as it says.
        problem = problem._replace(bend_prior=0.02 + BEND_STD * rng.normal())
        solution = solve(problem, truth, 20)
        assert solution.solved
        found.append(solution.state.bend[0] - 0.02)
        claimed.append(solution.bend_std)
    assert np.std(found) == pytest.approx(np.mean(claimed), rel=0.25)
    assert abs(np.mean(found)) < 4.0 * np.std(found) / np.sqrt(150)


@pytest.mark.parametrize("bend", [-0.02, 0.02])
def test_a_wrong_lens_makes_the_scale_drift(bend: float) -> None:
    """Only the landmarks carry the scale on; two held keyframes begin it."""
    window = drive(3, 30, 1200, side=WIDE, most=6)
    problem, truth = posed(window, through_lens(window.plane, bend), held=2)
    problem = problem._replace(walk_information=np.full(30, 1e-4), depth_information=1e-8)
    free = problem._replace(bend_information=BEND_STD**-2.0)
    drift = []
    for given in (problem, free):
        found = solve(given, truth, 30)
        assert found.solved
        steps = [
            np.linalg.norm(np.diff(p, axis=0), axis=1)
            for p in (found.state.positions, window.positions)
        ]
        drift.append(np.polyfit(np.arange(29), np.log(steps[0] / steps[1]), 1)[0])
    # By 3 % or more of a length over the 29 steps, and by nothing to speak of.
    assert drift[0] * np.sign(bend) > 0.001
    assert abs(drift[1]) < 2e-6


def test_a_lens_is_known_unless_said_otherwise() -> None:
    window, rng = drive(2, 6, 100), np.random.default_rng(2)
    problem, truth = posed(window, *noisy(rng, window, 0.01))
    start = shaken(rng, truth)
    found = solve(problem, start)
    assert found.state.bend[0] == pytest.approx(0.0, abs=1e-7)
    assert found.bend_std == pytest.approx(1e-6, rel=1e-3)
    # As without that unknown at all.
    without = solve(problem._replace(bend_information=1e20), start)
    assert found.iterations == without.iterations
    assert found.cost == pytest.approx(without.cost, rel=1e-7)
    assert found.log_scale_std == pytest.approx(without.log_scale_std, rel=1e-7)
    np.testing.assert_allclose(found.state.positions, without.state.positions, atol=1e-6)
    # One that starts elsewhere comes back.
    again = solve(problem, start._replace(bend=np.array([0.03])))
    assert again.state.bend[0] == pytest.approx(0.0, abs=1e-7)
    assert again.cost == pytest.approx(found.cost, rel=1e-3)


def test_a_known_bend_is_kept() -> None:
    window = drive(2)
    problem, truth = posed(window, through_lens(window.plane, 0.04))
    problem = problem._replace(bend_prior=0.04, depth_information=1e-8)
    start = shaken(np.random.default_rng(1), truth)._replace(bend=np.array([0.04]))
    found = solve(problem, start, 15)
    assert found.state.bend[0] == pytest.approx(0.04, abs=1e-9)
    np.testing.assert_allclose(found.state.positions, truth.positions, atol=1e-6)


def test_held_keyframes_tell_of_the_bend() -> None:
    """With all held nothing else is sought but landmarks; each that is not takes a little away."""
    window, rng = drive(2, 6, 100, side=WIDE), np.random.default_rng(4)
    plane, _ = noisy(rng, window, 0.03)
    stds = []
    for held in (6, 5, 1):
        problem, truth = posed(window, plane, held=held)
        found = solve(problem._replace(bend_information=BEND_STD**-2.0), truth, 20)
        assert found.solved
        assert found.bend_std < 0.2 * BEND_STD
        assert abs(found.state.bend[0] - 0.03) < 4.0 * found.bend_std
        stds.append(found.bend_std)
    assert stds[0] < stds[1] < stds[2]


def test_the_bend_of_the_default_start_is_nobodys_to_write_to() -> None:
    window = drive(0)
    problem, truth = posed(window, through_lens(window.plane, 0.03))
    assert not truth.bend.flags.writeable
    found = solve(problem._replace(bend_information=1.0), truth)
    assert truth.bend[0] == 0.0
    assert found.state.bend[0] > 0.02
    for end in (found, solve(problem._replace(log_scale_prior=np.nan), truth)):
        assert end.state.bend.flags.writeable
        assert not np.shares_memory(end.state.bend, truth.bend)


def test_moving_the_map_moves_the_result() -> None:
    window, rng = drive(6), np.random.default_rng(6)
    plane, motions = noisy(rng, window)
    problem, truth = posed(window, plane, motions)
    start, moved = shaken(rng, truth), SE3.exp(np.array([3.0, -2.0, 1.0, 0.4, -1.1, 2.0]))
    other = start._replace(
        rotations=moved.rotation @ start.rotations, positions=moved.apply(start.positions)
    )
    a, b = solve(problem, start), solve(problem, other)
    assert b.cost == pytest.approx(a.cost, rel=1e-6)
    assert b.log_scale_std == pytest.approx(a.log_scale_std, rel=1e-4)
    np.testing.assert_allclose(b.state.positions, moved.apply(a.state.positions), atol=1e-4)
    np.testing.assert_allclose(b.state.rotations, moved.rotation @ a.state.rotations, atol=1e-4)
    np.testing.assert_allclose(b.state.points, a.state.points, rtol=0.02, atol=1e-3)


def test_the_same_problem_gives_the_same_bits() -> None:
    window, rng = drive(0), np.random.default_rng(0)
    problem, truth = posed(window, *noisy(rng, window))
    start = shaken(rng, truth)
    assert same(solve(problem, start), solve(problem, start))


def test_arrays_of_any_kind_will_do_and_none_is_written_to() -> None:
    """Read-only, not contiguous, of other types: no new machine code, no change to them."""
    window, rng = drive(0), np.random.default_rng(0)
    problem, truth = posed(window, *noisy(rng, window))
    # A power of two is the same in single precision.
    problem, start = problem._replace(bend_information=2.0**20), shaken(rng, truth)
    kind = solver._levenberg_marquardt.__wrapped__  # type: ignore[attr-defined]
    expected, before = solve(problem, start), len(kind.signatures)
    held = [a.copy() for a in (*problem, *start) if isinstance(a, np.ndarray)]
    for array in (*problem, *start):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    odd = problem._replace(
        plane=np.asfortranarray(problem.plane),
        keyframes=problem.keyframes.astype(np.int32),
        motions=np.repeat(problem.motions, 2, axis=0)[::2],
        log_scale_prior=0,
        held=np.int32(1),
        bend_prior=0,
        bend_information=np.float32(problem.bend_information),
    )
    assert same(solve(problem, start), expected)
    assert same(solve(odd, start._replace(bend=np.zeros(2)[::2])), expected)
    assert len(kind.signatures) == before == 1
    after = [a for a in (*problem, *start) if isinstance(a, np.ndarray)]
    assert all(np.array_equal(a, b) for a, b in zip(held, after, strict=True))
    assert not np.shares_memory(expected.state.points, start.points)


BROKEN = [
    "motions", "motion_information", "walk_information", "log_scale_prior", "depth_prior",
    "depth_information", "plane", "weights", "rotations", "positions", "log_scales", "points",
    "bend", "bend_prior", "bend_information",
]  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", BROKEN)
def test_what_is_no_number_gives_back_the_start(field: str, value: float) -> None:
    window = drive(0)
    problem, start = posed(window, window.plane)
    source: Problem | State = problem if field in Problem._fields else start
    old = getattr(source, field)
    if isinstance(old, np.ndarray):
        bad = old.copy()
        bad[-1] = value
    else:
        bad = value
    if field in Problem._fields:
        problem = problem._replace(**{field: bad})
    else:
        start = start._replace(**{field: bad})
    found = solve(problem, start)
    if found.solved:  # an infinite sighting is a wild one
        assert value == np.inf
        assert field in ("plane", "weights")
        assert all(np.isfinite(a).all() for a in found.state)
        return
    assert all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(found.state, start, strict=True)
    )
    assert found.log_scale_std == found.bend_std == np.inf
    assert (found.depth_stds == np.inf).all()


def test_a_sighting_behind_its_camera_is_left_alone() -> None:
    window, rng = drive(1), np.random.default_rng(1)
    problem, truth = posed(window, window.plane)
    points = truth.points.copy()
    # So near its anchor that the later cameras have passed it.
    points[0, 2] = 4.0
    assert problem.first[1] >= 2
    for start in (truth._replace(points=points), shaken(rng, truth._replace(points=points))):
        found = solve(problem, start, 20)
        assert found.solved
        assert np.isfinite(found.cost)
        assert found.cost <= found.first_cost
        np.testing.assert_allclose(found.state.positions, truth.positions, atol=0.02)
    behind = solve(problem, truth._replace(points=points), 0)
    passed = problem.keyframes[: problem.first[1]] > problem.anchors[0]
    assert np.isinf(behind.errors[: problem.first[1]][passed]).any()


def test_without_landmarks_the_live_motions_are_all() -> None:
    window = drive(0)
    problem, start = posed(window, window.plane)
    empty = np.zeros(0, dtype=np.int64)
    problem = problem._replace(
        anchors=empty, depth_prior=np.zeros(0), first=np.zeros(1, dtype=np.int64),
        keyframes=empty, plane=np.zeros((0, 2)), weights=np.zeros(0),
    )  # fmt: skip
    off = shaken(np.random.default_rng(0), start)._replace(points=np.zeros((0, 3)))
    found = solve(problem, off, 30)
    assert found.solved
    np.testing.assert_allclose(found.state.positions, start.positions, atol=1e-6)
    # Four steps of the walk, and nothing that measures them.
    assert found.log_scale_std == pytest.approx(0.1, rel=1e-3)
    assert solve(problem._replace(bend_information=25.0), off).bend_std == pytest.approx(0.2)


@pytest.mark.parametrize("keyframes", [1, 4])
def test_with_all_keyframes_held_only_landmarks_move(keyframes: int) -> None:
    window = drive(0, 4)
    problem, truth = posed(window, window.plane, held=4)
    start = shaken(np.random.default_rng(0), truth, held=4)
    if keyframes == 1:
        problem = problem._replace(
            held=1, motions=problem.motions[:1], anchors=np.zeros(1, dtype=np.int64),
            depth_prior=np.array([0.2]), first=np.array([0, 1]),
            keyframes=np.zeros(1, dtype=np.int64),
            plane=np.array([[0.1, 0.2]]), weights=np.full(1, 1e6),
        )  # fmt: skip
        start = State(
            start.rotations[:1], start.positions[:1], np.zeros(1), np.array([[0.12, 0.17, 0.5]])
        )
    found = solve(problem, start)
    assert found.solved
    assert found.log_scale_std == np.inf
    np.testing.assert_array_equal(found.state.positions, start.positions)
    assert found.errors.max() < 1e-3
    expected = truth.points if keyframes == 4 else np.array([[0.1, 0.2, 0.2]])
    np.testing.assert_allclose(found.state.points, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("information", [0.1, 1.0])
def test_a_turn_on_the_spot_leaves_landmarks_finite(information: float) -> None:
    window, rng = drive(5, forward=0.0), np.random.default_rng(5)
    window = window._replace(positions=np.zeros((5, 3)))
    q = np.einsum(
        "mji,mj->mi", window.rotations[window.keyframes], window.landmarks[window.landmark]
    )
    plane = q[:, :2] / q[:, 2:] + NOISE * rng.normal(size=window.plane.shape)
    problem, truth = posed(window, plane)
    problem = problem._replace(depth_information=information)
    found = solve(problem, truth, 30)
    assert found.solved
    assert np.abs(found.state.points).max() < 10.0
    assert np.isfinite(found.depth_stds).all()
    np.testing.assert_allclose(found.state.rotations, truth.rotations, atol=5e-3)
    np.testing.assert_allclose(found.state.positions, truth.positions, atol=5e-3)


def test_singular_problems_end() -> None:
    """No live motions, no priors, sightings without parallax, or nothing at all."""
    window = drive(5)
    problem, start = posed(window, window.plane)
    none = problem._replace(
        motion_information=np.zeros((5, 6, 6)), walk_information=np.zeros(5), depth_information=0.0
    )
    for given in (none, none._replace(weights=np.zeros(len(problem.weights)))):
        found = solve(given, shaken(np.random.default_rng(0), start))
        assert found.cost <= found.first_cost
        assert all(np.isfinite(array).all() for array in found.state)


def test_a_keyframe_far_off_is_brought_back() -> None:
    """The newest is turned by 3 degrees, some 50 standard deviations."""
    window, rng = drive(2, 6, 150), np.random.default_rng(2)
    problem, truth = posed(window, *noisy(rng, window))
    near = solve(problem, truth, 30)
    start = near.state._replace(rotations=truth.rotations.copy(), positions=truth.positions.copy())
    start = truth._replace(rotations=start.rotations)
    start.rotations[-1] = start.rotations[-1] @ rotation_from_vector([0.03, -0.04, 0.02])
    found = solve(problem, start)
    assert found.solved
    np.testing.assert_allclose(found.state.positions[-1], near.state.positions[-1], atol=0.02)
    np.testing.assert_allclose(found.state.rotations[-1], near.state.rotations[-1], atol=3e-4)


def test_no_step_and_progress() -> None:
    window = drive(0)
    problem, truth = posed(window, window.plane)
    found = solve(problem, shaken(np.random.default_rng(0), truth), 0)
    assert (found.iterations, found.solved) == (0, True)
    assert found.cost == pytest.approx(found.first_cost)
    said: list[str] = []
    compile_solver(said.append)
    assert len(said) == 2
