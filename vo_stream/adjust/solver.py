"""Bundle adjustment of a window: Levenberg-Marquardt, landmarks eliminated by Schur complement.

Unknown are the poses of the keyframes that are not held, for each of them the logarithm of the
scale of the live motion that led to it, the landmarks, and the bend: what the calibration left of
the lens's radial distortion, which makes a map shrink or grow. The cost is the sum of

- Huber's function of the reprojection error of each sighting, bounded for the wildest;
- Huber's function of the error twist of the live motion between consecutive keyframes, in its own
  lengths, weighted by the information the front end claims;
- the squared change of that scale from pair to pair, a random walk that begins at a prior;
- a weak prior on inverse depths, so that a landmark without parallax stays finite;
- the prior of the bend.

Triggs et al., "Bundle adjustment - a modern synthesis" (2000), section 6; Hartley and Zisserman,
"Multiple view geometry" (2004), appendix 6. A landmark is (x, y, rho) in the camera of its anchor
keyframe as that stood before the solve: the point (x, y, 1) / rho. That is only a way of writing a
point near infinity: in the equations it does not move with the keyframe. While solving it is that
of the pose in hand, and a step carries it along, so that the equations hold for longer steps. A
pose is perturbed on the right, by v and w each.

The few landmarks with a wrong sighting settle slowly and far away while the poses are long done. So
each landmark goes on by itself before the poses move again (embedded point iterations: Jeong et
al., "Pushing the envelope of modern methods for bundle adjustment", 2012), and the poses say when
to stop.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vo_stream.adjust.compiled import compiled, helper, kept_in
from vo_stream.adjust.factors import add_bend_prior, add_motions
from vo_stream.adjust.linear import (
    Workspace,
    bend_row,
    cholesky3,
    empty_system,
    landmark_step,
    rotation_from,
    solve_keyframes,
    solve_lower,
)
from vo_stream.adjust.problem import (
    Indices,
    Problem,
    Solution,
    State,
    copied,
    plain_problem,
    plain_state,
)
from vo_stream.adjust.sightings import (
    HUBER,
    add_pose_terms,
    at_start,
    carried,
    fill_errors,
    fill_views,
    landmark_terms,
    settled,
)
from vo_stream.se3 import Array

__all__ = ["HUBER", "Indices", "Problem", "Solution", "State", "compile_solver", "solve"]

MAX_ITERATIONS = 10
RELATIVE_TOLERANCE = 1e-4
"""The solve ends after a step of the keyframes that promised to lower the cost by less than this
part of it."""

ENOUGH = 1e-12
"""And that much: a cost, in squared standard deviations, that nobody would notice."""

PLAIN, RADIAL = 1.0, 0.3
"""How much of its weight curves the cost along a large error: for a first step and after one that
failed, and else."""

POINT_ROUNDS = 5
"""So many steps a landmark may go on by itself after each step of the keyframes."""

FIRST_DAMPING = 1e-5
DAMPING_RANGE = (1e-9, 1e6)


def solve(problem: Problem, start: State, iterations: int = MAX_ITERATIONS) -> Solution:
    """Return the state that costs least, from `start`, which is not written to."""
    plain, chart = plain_problem(problem), plain_state(start)
    errors, depth_stds = np.full(len(plain.plane), np.nan), np.full(len(chart.points), np.inf)
    found = _levenberg_marquardt(plain, chart, int(iterations), errors, depth_stds)
    return Solution(found[0], errors, depth_stds, *found[1:])


def compile_solver(progress: Callable[[str], None] = lambda _: None) -> None:
    """Compile the solver, or load what an earlier process compiled."""
    progress("compiling the solver")
    indices = np.arange(2)
    problem = Problem(
        held=1,
        motions=np.zeros((2, 3, 4)) + np.eye(3, 4),
        motion_information=np.zeros((2, 6, 6)) + np.eye(6),
        walk_information=np.ones(2),
        log_scale_prior=0.0,
        anchors=indices[:1],
        depth_prior=np.ones(1),
        depth_information=1.0,
        first=2 * indices,
        keyframes=indices,
        plane=np.zeros((2, 2)),
        weights=np.ones(2),
    )
    start = State(
        np.zeros((2, 3, 3)) + np.eye(3), np.zeros((2, 3)), np.zeros(2), np.array([[0.0, 0.0, 1.0]])
    )
    solve(problem, start)
    progress("the solver is ready")


def solver_kept_in() -> str | None:
    """Return the folder of the compiled solver; empty: compiled at each start, None: never."""
    return kept_in(_levenberg_marquardt)


@compiled
def _levenberg_marquardt(
    problem: Problem, chart: State, iterations: int, errors: Array, depth_stds: Array
) -> tuple[State, float, float, float, float, int, bool]:
    """Return the state of least cost and its figures; fill `errors` and `depth_stds`."""
    size, most = 7 * (len(chart.positions) - problem.held) + 1, 0
    for n in range(len(chart.points)):
        most = max(most, problem.first[n + 1] - problem.first[n])
    work = Workspace(np.zeros((size, size)), np.zeros(size), np.zeros((most, 3, 6)))
    views = np.zeros((len(chart.positions), len(chart.positions) + 1, 3, 4))
    state, system = copied(chart), empty_system(problem, size)
    trial, trial_system = copied(chart), empty_system(problem, size)
    cost = first_cost = _linearise(
        problem, chart, state, views, PLAIN, 0, system, trial, trial_system
    )
    damping, done, plain = FIRST_DAMPING, 0, True
    while np.isfinite(cost) and done < iterations and damping < DAMPING_RANGE[1]:
        done += 1
        trial_cost, promised = np.inf, solve_keyframes(problem, system, damping, work)
        if np.isfinite(promised):
            _move(problem, system, damping, work.step, state, trial)
            trial_cost = _linearise(
                problem, chart, trial, views, RADIAL, POINT_ROUNDS, trial_system, state, system
            )
        if not trial_cost <= cost:
            if plain:
                damping *= 10.0
            else:
                plain = True
                cost = _linearise(
                    problem, chart, state, views, PLAIN, 0, system, state, trial_system
                )
            continue
        gain, cost, plain = cost - trial_cost, trial_cost, False
        state, trial = trial, state
        system, trial_system = trial_system, system
        enough = RELATIVE_TOLERANCE * cost + ENOUGH
        # A heavily damped step promises little wherever it is.
        if damping <= FIRST_DAMPING and promised <= enough and (size > 1 or gain <= enough):
            break
        damping = max(0.1 * damping, DAMPING_RANGE[0])
    # Plain weights say best how certain the result is.
    cost = _linearise(problem, chart, state, views, PLAIN, 0, system, state, trial_system)
    solved = np.isfinite(cost) and np.isfinite(solve_keyframes(problem, system, 0.0, work))
    if not solved:
        fill_views(chart, chart, views)
        fill_errors(problem, views, chart.bend[0], chart.points, errors)
        return copied(chart), np.inf, np.inf, first_cost, first_cost, done, False
    fill_errors(problem, views, state.bend[0], state.points, errors)
    for n in range(len(state.points)):
        x, y, rho = state.points[n, 0], state.points[n, 1], state.points[n, 2]
        depth_stds[n] = cholesky3(system.point_hessian[n], 0.0)[5] / max(abs(rho), 1e-12)
        point = at_start(views[problem.anchors[n], len(views)], (x, y, rho))[0]
        for i in range(3):
            state.points[n, i] = point[i]
    # The last unknown's pivot is its information, given that all others are free.
    std = 1.0 / work.reduced[size - 1, size - 1] if size > 1 else np.inf
    work.step.fill(0.0)
    work.step[bend_row(work.step)] = 1.0
    solve_lower(work.reduced, work.step)
    bend_variance = 0.0
    for i in range(size):
        bend_variance += work.step[i] * work.step[i]
    return state, std, np.sqrt(bend_variance), first_cost, cost, done, True


@helper
def _linearise(problem, chart, state, views, radial, rounds, system, last, before):  # type: ignore[no-untyped-def]
    """Let landmarks settle where they are, then fill the normal equations; return the cost."""
    fill_views(chart, state, views)
    system.hessian.fill(0.0)
    system.gradient.fill(0.0)
    total, bend = 0.0, state.bend[0]
    for n in range(len(state.points)):
        point = (state.points[n, 0], state.points[n, 1], state.points[n, 2])
        cost, hessian, gradient = landmark_terms(problem, views, bend, n, point, radial)
        if cost > before.point_cost[n]:
            stayed = (last.points[n, 0], last.points[n, 1], last.points[n, 2])
            terms = landmark_terms(problem, views, bend, n, stayed, radial)
            if terms[0] < cost:
                point, (cost, hessian, gradient) = stayed, terms
        point, cost, hessian, gradient = settled(
            problem, views, bend, n, point, cost, hessian, gradient, radial, rounds
        )
        total += cost
        system.point_cost[n] = cost
        for i in range(3):
            state.points[n, i], system.point_gradient[n, i] = point[i], gradient[i]
        for i in range(6):
            system.point_hessian[n, i] = hessian[i]
        add_pose_terms(problem, views, bend, n, point, radial, system)
    return total + add_bend_prior(problem, bend, system) + add_motions(problem, state, system)


@helper
def _move(problem, system, damping, step, state, trial):  # type: ignore[no-untyped-def]
    """Write `state` after the step to `trial`."""
    bend = bend_row(step)
    trial.bend[0] = state.bend[0] + step[bend]
    for k in range(problem.held, len(state.positions)):
        at = 6 * (k - problem.held)
        turn = rotation_from(step[at + 3 : at + 6])
        for i in range(3):
            trial.positions[k, i] = state.positions[k, i]
            for j in range(3):
                trial.positions[k, i] += state.rotations[k, i, j] * step[at + j]
                trial.rotations[k, i, j] = 0.0
                for m in range(3):
                    trial.rotations[k, i, j] += state.rotations[k, i, m] * turn[m, j]
        trial.log_scales[k] = state.log_scales[k] + step[bend + 1 + k - problem.held]
    for n in range(len(state.points)):
        moved = landmark_step(problem, system, damping, step, n)
        at = 6 * (problem.anchors[n] - problem.held)
        if at >= 0:
            point = (state.points[n, 0], state.points[n, 1], state.points[n, 2])
            c0, c1, c2 = carried(point, step[at : at + 3], step[at + 3 : at + 6])
            moved = (moved[0] + c0, moved[1] + c1, moved[2] + c2)
        for i in range(3):
            trial.points[n, i] = state.points[n, i] + moved[i]
