"""Sightings of landmarks and what they cost, with derivatives by landmark, pose and lens.

A sighting is where the lens puts a landmark: a point p of the plane z = 1 is seen at
(1 + bend |p|^2) p. The bend is what the calibration left of the lens's radial distortion.

Where Huber's function is linear, the cost does not curve in the direction of a sighting's error.
Weights alone (IRLS) take it to curve fully, and creep; the truth makes steps too long. Between the
two lies `radial`, the part of the curvature that is kept; Triggs et al., "Bundle adjustment - a
modern synthesis" (2000), section 4.3.
"""

from __future__ import annotations

import numpy as np

from vo_stream.adjust.compiled import helper
from vo_stream.adjust.linear import bend_row, cholesky3, lower3, upper3

HUBER = 1.5
"""Reprojection error, in standard deviations, beyond which a sighting counts less."""

WORST = 100.0
"""Error, in standard deviations, from which on a sighting costs no more and pulls no longer; one
behind its camera is charged this much, so that the cost has no step there."""

NEAREST = 1e-3
"""A sighting lies at least this far in front of its camera, in parts of the landmark's depth."""

POINT_DAMPING, POINT_TOLERANCE = 1e-3, 1e-3
"""Of a landmark that goes on by itself: the first damping, and a promise too small to go on."""

_WORST_COST = HUBER * (WORST - 0.5 * HUBER)


@helper
def fill_views(start, state, views):  # type: ignore[no-untyped-def]
    """Write camera_from_anchor, (K, K + 1, 3, 4) by anchor and camera.

    The last camera is the anchor's own as it stood at the start.
    """
    last = len(views)
    for a in range(last):
        for k in range(last + 1):
            to, camera = (state, k) if k < last else (start, a)
            for i in range(3):
                for j in range(3):
                    views[a, k, i, j] = 0.0
                views[a, k, i, 3] = 0.0
                for m in range(3):
                    turn = to.rotations[camera, m, i]
                    for j in range(3):
                        views[a, k, i, j] += turn * state.rotations[a, m, j]
                    views[a, k, i, 3] += turn * (state.positions[a, m] - to.positions[camera, m])


@helper
def at_start(home, point):  # type: ignore[no-untyped-def]
    """Return a landmark as its anchor's camera had it at the start, and 1 / z there times rho."""
    x, y, rho = point
    inverse = 1.0 / (home[2, 0] * x + home[2, 1] * y + home[2, 2] + home[2, 3] * rho)
    return (
        (home[0, 0] * x + home[0, 1] * y + home[0, 2] + home[0, 3] * rho) * inverse,
        (home[1, 0] * x + home[1, 1] * y + home[1, 2] + home[1, 3] * rho) * inverse,
        rho * inverse,
    ), inverse


@helper
def carried(point, v, w):  # type: ignore[no-untyped-def]
    """Return how (x, y, rho) of a point in the map change, to first order, if its camera moves.

    `v`, `w`: the camera's twist. The point moves against it: dq = -rho v + q x w.
    """
    x, y, rho = point
    q0 = y * w[2] - w[1] - rho * v[0]
    q1 = w[0] - x * w[2] - rho * v[1]
    q2 = x * w[1] - y * w[0] - rho * v[2]
    return q0 - x * q2, q1 - y * q2, -rho * q2


@helper
def seen_at(view, point):  # type: ignore[no-untyped-def]
    """Return where on the plane z = 1 a landmark is, and 1 / z, 0 if it is behind the camera.

    `view` (3, 4): camera_from_anchor; `point` (x, y, rho). z is that of the point times rho.
    """
    x, y, rho = point
    z = view[2, 0] * x + view[2, 1] * y + view[2, 2] + view[2, 3] * rho
    if z <= NEAREST:
        return 0.0, 0.0, 0.0
    inverse = 1.0 / z
    return (
        (view[0, 0] * x + view[0, 1] * y + view[0, 2] + view[0, 3] * rho) * inverse,
        (view[1, 0] * x + view[1, 1] * y + view[1, 2] + view[1, 3] * rho) * inverse,
        inverse,
    )


@helper
def by_point(view, x, y, inverse):  # type: ignore[no-untyped-def]
    """Return how (x, y) of `seen_at` move with the landmark: two rows of three."""
    return (
        (
            (view[0, 0] - x * view[2, 0]) * inverse,
            (view[0, 1] - x * view[2, 1]) * inverse,
            (view[0, 3] - x * view[2, 3]) * inverse,
        ),
        (
            (view[1, 0] - y * view[2, 0]) * inverse,
            (view[1, 1] - y * view[2, 1]) * inverse,
            (view[1, 3] - y * view[2, 3]) * inverse,
        ),
    )


@helper
def by_pose(x, y, rho):  # type: ignore[no-untyped-def]
    """Return how (x, y) of `seen_at` move with the camera's twist (v, w): two rows of six.

    `rho`: of the landmark, over z. The point moves against the camera: dq = -rho v + q x w.
    """
    return (
        (-rho, 0.0, x * rho, x * y, -1.0 - x * x, y),
        (0.0, -rho, y * rho, 1.0 + y * y, -x * y, -x),
    )


@helper
def bent(x, y, bend):  # type: ignore[no-untyped-def]
    """Return where the lens puts (x, y), and the (xx, xy, yy) by which that moves with them."""
    stretch = 1.0 + bend * (x * x + y * y)
    by = (stretch + 2.0 * bend * x * x, 2.0 * bend * x * y, stretch + 2.0 * bend * y * y)
    return stretch * x, stretch * y, by


@helper
def chained(by, row_x, row_y, i):  # type: ignore[no-untyped-def]
    """Return slope i of a bent place, from the rows of slopes of the place itself."""
    return by[0] * row_x[i] + by[1] * row_y[i], by[1] * row_x[i] + by[2] * row_y[i]


@helper
def robust(r_x, r_y, information, radial):  # type: ignore[no-untyped-def]
    """Return the cost of an error, its weight, and the (xx, xy, yy) of its curvature."""
    square = information * (r_x * r_x + r_y * r_y)
    if square <= HUBER * HUBER:
        return 0.5 * square, information, (information, 0.0, information)
    if square >= WORST * WORST:
        return _WORST_COST, 0.0, (0.0, 0.0, 0.0)
    error = np.sqrt(square)
    weight = information * HUBER / error
    less = (1.0 - radial) * weight * information / square
    curvature = (weight - less * r_x * r_x, -less * r_x * r_y, weight - less * r_y * r_y)
    return HUBER * (error - 0.5 * HUBER), weight, curvature


@helper
def landmark_terms(problem, views, bend, n, point, radial):  # type: ignore[no-untyped-def]
    """Return a landmark's cost, its block of the Hessian as in `System`, and its gradient."""
    # The prior is of rho in the anchor's camera at the start.
    home = views[problem.anchors[n], len(views)]
    (_, _, rho), scale = at_start(home, point)
    s0, s1 = -rho * home[2, 0] * scale, -rho * home[2, 1] * scale
    s2 = (1.0 - rho * home[2, 3]) * scale
    prior, change = problem.depth_information, rho - problem.depth_prior[n]
    cost = 0.5 * prior * change * change
    h00, h10, h11 = prior * s0 * s0, prior * s1 * s0, prior * s1 * s1
    h20, h21, h22 = prior * s2 * s0, prior * s2 * s1, prior * s2 * s2
    g0, g1, g2 = -prior * s0 * change, -prior * s1 * change, -prior * s2 * change
    for o in range(problem.first[n], problem.first[n + 1]):
        view = views[problem.anchors[n], problem.keyframes[o]]
        x, y, inverse = seen_at(view, point)
        if inverse == 0.0:
            cost += _WORST_COST
            continue
        s_x, s_y, by = bent(x, y, bend)
        r_x, r_y = problem.plane[o, 0] - s_x, problem.plane[o, 1] - s_y
        more, weight, (xx, xy, yy) = robust(r_x, r_y, problem.weights[o], radial)
        cost += more
        row_x, row_y = by_point(view, x, y, inverse)
        x0, y0 = chained(by, row_x, row_y, 0)
        x1, y1 = chained(by, row_x, row_y, 1)
        x2, y2 = chained(by, row_x, row_y, 2)
        g0 += weight * (x0 * r_x + y0 * r_y)
        g1 += weight * (x1 * r_x + y1 * r_y)
        g2 += weight * (x2 * r_x + y2 * r_y)
        u0, u1, u2 = xx * x0 + xy * y0, xx * x1 + xy * y1, xx * x2 + xy * y2
        v0, v1, v2 = xy * x0 + yy * y0, xy * x1 + yy * y1, xy * x2 + yy * y2
        h00 += u0 * x0 + v0 * y0
        h10 += u1 * x0 + v1 * y0
        h11 += u1 * x1 + v1 * y1
        h20 += u2 * x0 + v2 * y0
        h21 += u2 * x1 + v2 * y1
        h22 += u2 * x2 + v2 * y2
    return cost, (h00, h10, h11, h20, h21, h22), (g0, g1, g2)


@helper
def settled(problem, views, bend, n, point, cost, hessian, gradient, radial, rounds):  # type: ignore[no-untyped-def]
    """Return a landmark and its terms after steps of its own, the poses as they are."""
    damping = POINT_DAMPING
    for _ in range(rounds):
        factor = cholesky3(hessian, damping)
        g0, g1, g2 = lower3(factor, gradient[0], gradient[1], gradient[2])
        if not 0.5 * (g0 * g0 + g1 * g1 + g2 * g2) > POINT_TOLERANCE:
            break
        d0, d1, d2 = upper3(factor, g0, g1, g2)
        moved = (point[0] + d0, point[1] + d1, point[2] + d2)
        terms = landmark_terms(problem, views, bend, n, moved, radial)
        if terms[0] < cost:
            point, (cost, hessian, gradient) = moved, terms
            damping *= 0.1
        else:
            damping *= 10.0
    return point, cost, hessian, gradient


@helper
def add_pose_terms(problem, views, bend, n, point, radial, system):  # type: ignore[no-untyped-def]
    """Add what a landmark's sightings say of keyframes and bend; fill `cross`, `bend_cross`."""
    row = bend_row(system.gradient)
    system.bend_cross[n] = 0.0
    for o in range(problem.first[n], problem.first[n + 1]):
        k = problem.keyframes[o]
        view = views[problem.anchors[n], k]
        x, y, inverse = seen_at(view, point)
        if inverse == 0.0:
            system.cross[o] = 0.0
            continue
        s_x, s_y, by = bent(x, y, bend)
        r_x, r_y = problem.plane[o, 0] - s_x, problem.plane[o, 1] - s_y
        _, weight, (xx, xy, yy) = robust(r_x, r_y, problem.weights[o], radial)
        row_x, row_y = by_point(view, x, y, inverse)
        x0, y0 = chained(by, row_x, row_y, 0)
        x1, y1 = chained(by, row_x, row_y, 1)
        x2, y2 = chained(by, row_x, row_y, 2)
        b_x, b_y = x * (x * x + y * y), y * (x * x + y * y)
        u, v = xx * b_x + xy * b_y, xy * b_x + yy * b_y
        system.gradient[row] += weight * (b_x * r_x + b_y * r_y)
        system.hessian[row, row] += u * b_x + v * b_y
        system.bend_cross[n, 0] += u * x0 + v * y0
        system.bend_cross[n, 1] += u * x1 + v * y1
        system.bend_cross[n, 2] += u * x2 + v * y2
        at = 6 * (k - problem.held)
        if at < 0:
            continue
        row_x, row_y = by_pose(x, y, point[2] * inverse)
        for i in range(6):
            p_x, p_y = chained(by, row_x, row_y, i)
            u, v = xx * p_x + xy * p_y, xy * p_x + yy * p_y
            system.gradient[at + i] += weight * (p_x * r_x + p_y * r_y)
            system.hessian[row, at + i] += u * b_x + v * b_y
            system.cross[o, 0, i] = u * x0 + v * y0
            system.cross[o, 1, i] = u * x1 + v * y1
            system.cross[o, 2, i] = u * x2 + v * y2
            for j in range(i + 1):
                q_x, q_y = chained(by, row_x, row_y, j)
                system.hessian[at + i, at + j] += u * q_x + v * q_y


@helper
def fill_errors(problem, views, bend, points, errors):  # type: ignore[no-untyped-def]
    """Write all reprojection errors in standard deviations, infinite behind the camera."""
    for n in range(len(points)):
        point = (points[n, 0], points[n, 1], points[n, 2])
        for o in range(problem.first[n], problem.first[n + 1]):
            x, y, inverse = seen_at(views[problem.anchors[n], problem.keyframes[o]], point)
            s_x, s_y, _ = bent(x, y, bend)
            r_x, r_y = problem.plane[o, 0] - s_x, problem.plane[o, 1] - s_y
            errors[o] = np.sqrt(problem.weights[o] * (r_x * r_x + r_y * r_y))
            if inverse == 0.0:
                errors[o] = np.inf
