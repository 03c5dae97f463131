"""What the cost is made of beside sightings: live motions, the walk of their scale, the bend."""

from __future__ import annotations

import numpy as np

from vo_stream.adjust.compiled import helper
from vo_stream.adjust.linear import bend_row, inverse_jacobian, product, rotation_vector, skew

MOTION_HUBER = 3.0
"""Error of a live motion, in standard deviations of its six numbers together, beyond which it
counts less: a front end in trouble is wrong by more than it says."""


@helper
def motion_error(state, motion, k):  # type: ignore[no-untyped-def]
    """Return the (6,) error twist (v, w) of the live motion that led to keyframe k, and its slopes.

    `motion` (3, 4): prev_from_curr. The twist takes it to that of the state, whose lengths are
    divided by exp(log_scales[k]) and so are the live motion's own: were they the map's, a smaller
    map would cost less. The slopes are (6, 13): by the twist of the pose before, by that of this
    one, by the log scale.
    """
    before, here, shrink = state.rotations[k - 1], state.rotations[k], np.exp(-state.log_scales[k])
    relative, left, moved = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3)
    for i in range(3):
        for m in range(3):
            moved[i] += shrink * before[m, i] * (state.positions[k, m] - state.positions[k - 1, m])
            for j in range(3):
                relative[i, j] += before[m, i] * here[m, j]
    error, slopes = np.zeros(6), np.zeros((6, 13))
    across = skew(moved)
    for i in range(3):
        for m in range(3):
            turn = motion[m, i]
            error[i] += turn * (moved[m] - motion[m, 3])
            slopes[i, 12] -= turn * moved[m]
            slopes[i, m] = -shrink * turn
            for j in range(3):
                left[i, j] += turn * relative[m, j]
                slopes[i, 3 + j] += turn * across[m, j]
    w = rotation_vector(left)
    by_right = inverse_jacobian(w)
    for i in range(3):
        error[3 + i] = w[i]
        for j in range(3):
            slopes[i, 6 + j] = shrink * left[i, j]
            slopes[3 + i, 9 + j] = by_right[i, j]
            for m in range(3):
                slopes[3 + i, 3 + j] -= by_right[i, m] * relative[j, m]
    return error, slopes


@helper
def add_bend_prior(problem, bend, system):  # type: ignore[no-untyped-def]
    """Add what is known of the bend already; return what it costs."""
    row, change = bend_row(system.gradient), bend - problem.bend_prior
    system.hessian[row, row] += problem.bend_information
    system.gradient[row] -= problem.bend_information * change
    return 0.5 * problem.bend_information * change * change


@helper
def add_motions(problem, state, system):  # type: ignore[no-untyped-def]
    """Add the live motions and the walk of their scale; return what they cost."""
    total, before = 0.0, problem.log_scale_prior
    for k in range(problem.held, len(state.positions)):
        error, slopes = motion_error(state, problem.motions[k], k)
        weighted = product(problem.motion_information[k], slopes)
        # The slopes are by the pose before, at row - 6, by this one, and by its scale.
        free = k - problem.held
        row, scale = 6 * free, bend_row(system.gradient) + 1 + free
        square = 0.0
        for i in range(6):
            for j in range(6):
                square += error[i] * problem.motion_information[k, i, j] * error[j]
        cost, weight = 0.5 * square, 1.0
        if square > MOTION_HUBER * MOTION_HUBER:
            size = np.sqrt(square)
            cost, weight = MOTION_HUBER * (size - 0.5 * MOTION_HUBER), MOTION_HUBER / size
        total += cost
        for i in range(6 if row == 0 else 0, 13):
            at = row - 6 + i if i < 12 else scale
            for m in range(6):
                system.gradient[at] -= weight * weighted[m, i] * error[m]
            for j in range(6 if row == 0 else 0, i + 1):
                left = row - 6 + j if j < 12 else scale
                for m in range(6):
                    system.hessian[at, left] += weight * weighted[m, i] * slopes[m, j]
        walk, change = problem.walk_information[k], state.log_scales[k] - before
        before = state.log_scales[k]
        total += 0.5 * walk * change * change
        system.hessian[scale, scale] += walk
        system.gradient[scale] -= walk * change
        if k > problem.held:
            system.hessian[scale - 1, scale - 1] += walk
            system.hessian[scale, scale - 1] -= walk
            system.gradient[scale - 1] += walk * change
    return total
