"""Small algebra for compiled code, which has no LAPACK, up to the normal equations of a window.

Landmarks are eliminated by the Schur complement: Triggs et al., "Bundle adjustment - a modern
synthesis" (2000), section 6.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vo_stream.adjust.compiled import helper
from vo_stream.se3 import Array

FLOOR = 1e-12
"""Smallest pivot: beside a part of the diagonal, where rounding leaves less, and alone."""


class System(NamedTuple):
    """The normal equations: D unknowns of F free keyframes, 3 of each landmark.

    The D = 7 F + 1 are all twists (v, w), the bend, then all log scales. `hessian` (D, D), its
    lower triangle; `gradient` (D,), downhill; `cross` (M, 3, 6): the landmark of a sighting against
    its pose; `bend_cross` (N, 3): each landmark against the bend; `point_hessian` (N, 6): the lower
    triangle by rows; `point_gradient` (N, 3); `point_cost` (N,).
    """

    hessian: Array
    gradient: Array
    cross: Array
    bend_cross: Array
    point_hessian: Array
    point_gradient: Array
    point_cost: Array


class Workspace(NamedTuple):
    """`reduced` (D, D): what is left without the landmarks, then its Cholesky factor; `step` (D,).

    `whitened` (the most sightings of a landmark, 3, 6): `cross` times the inverse factor of the
    landmark's own block.
    """

    reduced: Array
    step: Array
    whitened: Array


@helper
def product(a, b):  # type: ignore[no-untyped-def]
    """Return the matrix product a b."""
    result = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for m in range(a.shape[1]):
            for j in range(b.shape[1]):
                result[i, j] += a[i, m] * b[m, j]
    return result


@helper
def rotation_from(w):  # type: ignore[no-untyped-def]
    """Return the (3, 3) rotation of a rotation vector in radians (Rodrigues' formula)."""
    angle = np.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
    a = 1.0 - angle * angle / 6.0
    b = 0.5 - angle * angle / 24.0
    if angle > 1e-4:
        a, b = np.sin(angle) / angle, (1.0 - np.cos(angle)) / (angle * angle)
    result = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            result[i, j] = b * w[i] * w[j]
        result[i, i] += 1.0 - b * angle * angle
    result[0, 1] -= a * w[2]
    result[1, 0] += a * w[2]
    result[0, 2] += a * w[1]
    result[2, 0] -= a * w[1]
    result[1, 2] -= a * w[0]
    result[2, 1] += a * w[0]
    return result


@helper
def rotation_vector(r):  # type: ignore[no-untyped-def]
    """Return the (3,) rotation vector, in radians, of a rotation by less than half a turn."""
    w = np.empty(3)
    w[0], w[1], w[2] = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]
    sine = 0.5 * np.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
    cosine = 0.5 * (r[0, 0] + r[1, 1] + r[2, 2] - 1.0)
    half = 0.5
    if sine > 1e-6:
        half = 0.5 * np.arctan2(sine, cosine) / sine
    for i in range(3):
        w[i] *= half
    return w


@helper
def inverse_jacobian(w):  # type: ignore[no-untyped-def]
    """Return the (3, 3) change of a rotation's vector w by one on its right (Sola, 2018)."""
    square = w[0] * w[0] + w[1] * w[1] + w[2] * w[2]
    a = 1.0 / 12.0
    if square > 1e-6:
        half = 0.5 * np.sqrt(square)
        a = (1.0 - half / np.tan(half)) / square
    result = skew(w)
    for i in range(3):
        for j in range(3):
            result[i, j] = 0.5 * result[i, j] + a * w[i] * w[j]
        result[i, i] += 1.0 - a * square
    return result


@helper
def skew(v):  # type: ignore[no-untyped-def]
    """Return the (3, 3) matrix whose product with u is the cross product of v and u."""
    result = np.zeros((3, 3))
    result[0, 1], result[0, 2] = -v[2], v[1]
    result[1, 0], result[1, 2] = v[2], -v[0]
    result[2, 0], result[2, 1] = -v[1], v[0]
    return result


@helper
def cholesky(matrix):  # type: ignore[no-untyped-def]
    """Replace the lower triangle of a matrix by its Cholesky factor; False if not positive."""
    for i in range(len(matrix)):
        for j in range(i + 1):
            s = matrix[i, j]
            for m in range(j):
                s -= matrix[i, m] * matrix[j, m]
            if j < i:
                matrix[i, j] = s / matrix[j, j]
            elif s > 0.0 and np.isfinite(s):
                matrix[i, i] = np.sqrt(s)
            else:
                return False
    return True


@helper
def solve_lower(factor, vector):  # type: ignore[no-untyped-def]
    """Replace `vector` by L^-1 times it, for a factor L from `cholesky`."""
    for i in range(len(vector)):
        s = vector[i]
        for m in range(i):
            s -= factor[i, m] * vector[m]
        vector[i] = s / factor[i, i]


@helper
def solve_upper(factor, vector):  # type: ignore[no-untyped-def]
    """Replace `vector` by L^-T times it, for a factor L from `cholesky`."""
    for i in range(len(vector) - 1, -1, -1):
        vector[i] /= factor[i, i]
        for m in range(i):
            vector[m] -= factor[i, m] * vector[i]


@helper
def cholesky3(h, damping):  # type: ignore[no-untyped-def]
    """Return the factor of a (3, 3) matrix, its diagonal raised by a part of itself (Marquardt).

    Both are the lower triangle by rows; the factor's diagonal is inverted.
    """
    raised = 1.0 + damping
    i0 = 1.0 / np.sqrt(raised * h[0] + FLOOR)
    l10, l20 = h[1] * i0, h[3] * i0
    i1 = 1.0 / np.sqrt(max(raised * h[2] - l10 * l10, FLOOR * h[2]) + FLOOR)
    l21 = (h[4] - l20 * l10) * i1
    i2 = 1.0 / np.sqrt(max(raised * h[5] - l20 * l20 - l21 * l21, FLOOR * h[5]) + FLOOR)
    return i0, l10, i1, l20, l21, i2


@helper
def lower3(factor, a, b, c):  # type: ignore[no-untyped-def]
    """Return L^-1 (a, b, c) for a factor from `cholesky3`."""
    i0, l10, i1, l20, l21, i2 = factor
    a *= i0
    b = (b - l10 * a) * i1
    return a, b, (c - l20 * a - l21 * b) * i2


@helper
def upper3(factor, a, b, c):  # type: ignore[no-untyped-def]
    """Return L^-T (a, b, c) for a factor from `cholesky3`."""
    i0, l10, i1, l20, l21, i2 = factor
    c *= i2
    b = (b - l21 * c) * i1
    return (a - l10 * b - l20 * c) * i0, b, c


@helper
def bend_row(unknowns):  # type: ignore[no-untyped-def]
    """Return where among the D unknowns the bend is."""
    return 6 * (len(unknowns) // 7)


@helper
def empty_system(problem, size):  # type: ignore[no-untyped-def]
    """Return a system of `size` unknowns beside the landmarks, to be filled."""
    sightings, landmarks = len(problem.keyframes), len(problem.anchors)
    return System(
        np.zeros((size, size)),
        np.zeros(size),
        np.zeros((sightings, 3, 6)),
        np.zeros((landmarks, 3)),
        np.zeros((landmarks, 6)),
        np.zeros((landmarks, 3)),
        np.full(landmarks, np.inf),
    )


@helper
def solve_keyframes(problem, system, damping, work):  # type: ignore[no-untyped-def]
    """Solve the damped normal equations for keyframes and bend; fill `reduced` and `step`.

    Returns the gain that the step promises, not finite where the system is singular.
    """
    reduced, step, whitened = work.reduced, work.step, work.whitened
    for i in range(len(step)):
        for j in range(i + 1):
            reduced[i, j] = system.hessian[i, j]
        reduced[i, i] += damping * system.hessian[i, i] + FLOOR
        step[i] = system.gradient[i]
    rows = np.empty(len(whitened), dtype=np.int64)
    bend = bend_row(step)
    for n in range(len(problem.first) - 1):
        factor = cholesky3(system.point_hessian[n], damping)
        g = system.point_gradient[n]
        g0, g1, g2 = lower3(factor, g[0], g[1], g[2])
        c = system.bend_cross[n]
        c0, c1, c2 = lower3(factor, c[0], c[1], c[2])
        reduced[bend, bend] -= c0 * c0 + c1 * c1 + c2 * c2
        step[bend] -= c0 * g0 + c1 * g1 + c2 * g2
        seen = 0
        for o in range(problem.first[n], problem.first[n + 1]):
            row = 6 * (problem.keyframes[o] - problem.held)
            if row < 0:
                continue
            for i in range(6):
                w0, w1, w2 = lower3(
                    factor, system.cross[o, 0, i], system.cross[o, 1, i], system.cross[o, 2, i]
                )
                whitened[seen, 0, i], whitened[seen, 1, i], whitened[seen, 2, i] = w0, w1, w2
                step[row + i] -= w0 * g0 + w1 * g1 + w2 * g2
                reduced[bend, row + i] -= w0 * c0 + w1 * c1 + w2 * c2
            rows[seen] = row
            seen += 1
            for p in range(seen):
                # The pair's block goes below the diagonal, whatever the order of the sightings.
                u, v = (seen - 1, p) if row >= rows[p] else (p, seen - 1)
                top, left = rows[u], rows[v]
                for i in range(6):
                    a0, a1, a2 = whitened[u, 0, i], whitened[u, 1, i], whitened[u, 2, i]
                    for j in range(6):
                        reduced[top + i, left + j] -= (
                            a0 * whitened[v, 0, j] + a1 * whitened[v, 1, j] + a2 * whitened[v, 2, j]
                        )
    if not cholesky(reduced):
        return np.nan
    solve_lower(reduced, step)
    promised = 0.0
    for i in range(len(step)):
        promised += 0.5 * step[i] * step[i]
    solve_upper(reduced, step)
    return promised


@helper
def landmark_step(problem, system, damping, step, n):  # type: ignore[no-untyped-def]
    """Return how a landmark moves when keyframes and bend take their step."""
    g, c, bend = system.point_gradient[n], system.bend_cross[n], step[bend_row(step)]
    g0, g1, g2 = g[0] - bend * c[0], g[1] - bend * c[1], g[2] - bend * c[2]
    for o in range(problem.first[n], problem.first[n + 1]):
        at = 6 * (problem.keyframes[o] - problem.held)
        if at >= 0:
            for i in range(6):
                g0 -= system.cross[o, 0, i] * step[at + i]
                g1 -= system.cross[o, 1, i] * step[at + i]
                g2 -= system.cross[o, 2, i] * step[at + i]
    factor = cholesky3(system.point_hessian[n], damping)
    g0, g1, g2 = lower3(factor, g0, g1, g2)
    return upper3(factor, g0, g1, g2)
