"""What the solver is given, seeks and finds, as plain arrays, of which its machine code is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vo_stream.adjust.compiled import helper
from vo_stream.se3 import Array

Indices = npt.NDArray[np.int64]

KNOWN = 1e12
"""Information that leaves nothing to be found."""

NO_BEND = np.zeros(1)
NO_BEND.flags.writeable = False


class Problem(NamedTuple):
    """What is given: K keyframes, N landmarks, M sightings sorted by landmark.

    The first `held` keyframes stay as they are (at least one: the gauge). `motions` (K, 3, 4):
    prev_from_curr as the front end has it, and `motion_information` (K, 6, 6) of its error twist
    (v, w), in the current camera, lengths as they are there; [k] leads to keyframe k, zeros where
    nothing is known. `walk_information` (K,): inverse variance of the change of log scale from
    k - 1 to k; at k = held that of its difference from `log_scale_prior`. `anchors` (N,): keyframe
    whose camera a landmark is written in. `depth_prior` (N,), `depth_information`: of rho there.
    `first` (N + 1,): where each landmark's sightings begin. `keyframes` (M,): who saw it, each
    at most once; `plane` (M, 2): where, on the plane z = 1; `weights` (M,): inverse variance there.
    `bend_prior`, `bend_information`: the bend and its inverse variance; as a rule there is none.
    """

    held: int
    motions: Array
    motion_information: Array
    walk_information: Array
    log_scale_prior: float
    anchors: Indices
    depth_prior: Array
    depth_information: float
    first: Indices
    keyframes: Indices
    plane: Array
    weights: Array
    bend_prior: float = 0.0
    bend_information: float = KNOWN


class State(NamedTuple):
    """What is sought: `rotations` (K, 3, 3) and `positions` (K, 3) of map_from_camera,
    `log_scales` (K,), `points` (N, 3) as (x, y, rho) in their anchor's camera, and `bend` (1,).
    """

    rotations: Array
    positions: Array
    log_scales: Array
    points: Array
    bend: Array = NO_BEND


class Solution(NamedTuple):
    """The state that costs least, found from a start.

    `errors` (M,): reprojection errors in standard deviations, infinite behind the camera.
    `depth_stds` (N,): standard deviation of rho, as a part of it, if poses and bend were known.
    `log_scale_std`: of the newest keyframe's log scale, infinite if that is held; `bend_std`: of
    the bend. `first_cost`, `cost`: before and after. `iterations`: steps tried. `solved`: False
    where the system was singular or the cost no number; the state is then the start, and nothing is
    known to any standard deviation.
    """

    state: State
    errors: Array
    depth_stds: Array
    log_scale_std: float
    bend_std: float
    first_cost: float
    cost: float
    iterations: int
    solved: bool


def plain_problem(problem: Problem) -> Problem:
    """Return it in the one kind of numbers and arrays that the compiled code is for."""
    return Problem(
        int(problem.held),
        _plain(problem.motions),
        _plain(problem.motion_information),
        _plain(problem.walk_information),
        float(problem.log_scale_prior),
        _whole(problem.anchors),
        _plain(problem.depth_prior),
        float(problem.depth_information),
        _whole(problem.first),
        _whole(problem.keyframes),
        _plain(problem.plane),
        _plain(problem.weights),
        float(problem.bend_prior),
        float(problem.bend_information),
    )


def plain_state(state: State) -> State:
    """Return it in the one kind of arrays that the compiled code is for."""
    return State(*map(_plain, state))


def _plain(array: Array) -> Array:
    return np.require(array, np.float64, ("C", "A", "W"))


def _whole(array: Indices) -> Indices:
    return np.require(array, np.int64, ("C", "A", "W"))


@helper
def copied(state):  # type: ignore[no-untyped-def]
    """Return a state of arrays of its own."""
    return State(
        state.rotations.copy(),
        state.positions.copy(),
        state.log_scales.copy(),
        state.points.copy(),
        state.bend.copy(),
    )
