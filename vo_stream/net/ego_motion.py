"""The ego-motion layer: the rigid motion that explains a flow field, solved inside the network.

A two-view bundle adjustment. The unknowns are the motion of the camera and the inverse depth of
every cell; what is known is the flow with its information, a prior of each cell's inverse depth,
and the inverse depth that the previous frame had where the flow leads. Gauss-Newton on both, the
depths eliminated by their Schur complement (one scalar a cell), as in DROID-SLAM (Teed and Deng,
2021); M-estimation by iteratively reweighted least squares. Everything is elementwise or a small
matrix product, so it exports to ONNX and TensorRT and can be differentiated through.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vo_stream.net.rigid import (
    ADDED,
    TABLE,
    adjoint_of_inverse,
    cayley,
    constant,
    solve_symmetric,
    turn_from_identity,
)

FROM_NOTHING = (1e12, 400.0, 36.0)
REFINING = (16.0, 9.0)
"""Of each iteration, from standing still or from a guess: the squared residual, in variances, at
which a cell counts half (Cauchy). The last of `REFINING` is for the covariance."""

AFRESH = (1e12, 400.0, 100.0, 36.0)
"""The same, of what more a guess without the carried depths takes: the kernel opens once more."""

DOUBT, LEAST_DOUBT = 2.0, 0.05
"""The carried depths are doubted where the guess by them costs so many times what the one without
them does, and so much more in the mean of the cells (a residual of 0.7 standard deviations)."""

ROTATION_PRIOR_STD_RAD = 1.0
TRANSLATION_PRIOR_STD = 1.0
"""Of a prior around standing still; the translation's is a part of the mean depth. They hold the
solution where the images say nothing, and weigh nothing beside a few cells."""

MAX_STEP = 0.5
"""Of one iteration's motion, in standard deviations of its prior."""

MAX_LOG_STEP = 1.0
"""Of one iteration, of the logarithm of an inverse depth."""

LOG_INVERSE_DEPTH_RANGE = (-6.2, 3.0)
"""Natural logarithm of 1/m: 500 m to 5 cm."""

MIN_Z = 0.05
"""Of a transformed point, as a part of its depth before."""


class TwoView(NamedTuple):
    """What two frames say of each cell of the current one, (batch, n, cells) each.

    `rays`: (.., 2, ..) x and y of the ray (x, y, 1). `target`: (.., 2, ..) where the previous
    frame sees the same point, as a ray too. `information`: (.., 3, ..) inverse covariance of
    the target (xx, xy, yy). `log_depth`: (.., 1, ..) prior of the logarithm of the inverse depth
    (1/m), and `log_depth_information` its inverse variance. `carried`: (.., 1, ..) logarithm of
    the inverse depth that the previous frame had at `target`, and `carried_information` its
    inverse variance, 0 where it had none.
    """

    rays: Tensor
    target: Tensor
    information: Tensor
    log_depth: Tensor
    log_depth_information: Tensor
    carried: Tensor
    carried_information: Tensor

    def remembering(self, share: Tensor) -> TwoView:
        """Return the same with a share, 0..1, of the information of what is carried."""
        return self._replace(carried_information=self.carried_information * share)


class EgoMotion(NamedTuple):
    """The solution.

    `rotation`: (batch, 3, 3) and `translation`: (batch, 3): prev_from_curr.
    `covariance`: (batch, 6, 6) of its error twist (v, w) in the current camera's frame.
    `log_depth`: (batch, 1, cells) logarithm of the inverse depth in the current frame, and
    `log_depth_information` its inverse variance for a known motion.
    `trust`: (batch, 1, cells) in 0..1, what the robust kernel left of each cell.
    """

    rotation: Tensor
    translation: Tensor
    covariance: Tensor
    log_depth: Tensor
    log_depth_information: Tensor
    trust: Tensor


class Guess(NamedTuple):
    """Motion, depths and trust as in `EgoMotion`. `remembers`: (batch, 1, 1), 0 where the carried
    depths were doubted, else 1."""

    rotation: Tensor
    translation: Tensor
    log_depth: Tensor
    trust: Tensor
    remembers: Tensor


def guess_ego_motion(views: TwoView) -> Guess:
    """Return about what `solve_ego_motion` does, from standing still; no gradient flows.

    There are two guesses, by all that is known and without the carried depths. Where a stream began
    with a wrong motion, the depths that fit it are carried on, and would hold the next motion to it
    for ever. So both are judged by what is not carried, and where the second explains the flow far
    better, it is taken and the carried depths are forgotten.
    """
    views = TwoView(*(part.detach() for part in views))
    afresh = views._replace(carried_information=torch.zeros_like(views.carried_information))
    known = _known(afresh)
    both = TwoView(*(torch.cat(pair) for pair in zip(views, afresh, strict=True)))
    batch = len(both.rays)
    motion = _Solution(
        torch.eye(3, dtype=views.rays.dtype, device=views.rays.device).expand(batch, 3, 3),
        torch.zeros_like(both.rays[:, :1, 0]).expand(batch, 3),
        both.log_depth,
    )
    halves = (part.chunk(2) for part in _iterate(both, _known(both), motion, FROM_NOTHING))
    first, second = (_Solution(*half) for half in zip(*halves, strict=True))
    second = _iterate(afresh, known, second, AFRESH)
    cost, least = (_cost(afresh, known, motion) for motion in (first, second))
    remembers = cost <= DOUBT * least + LEAST_DOUBT
    motion = _Solution(
        torch.where(remembers, first.rotation, second.rotation),
        torch.where(remembers[:, 0], first.translation, second.translation),
        torch.where(remembers, first.log_depth, second.log_depth),
    )
    kept = remembers.to(views.rays.dtype)
    views = views.remembering(kept)
    normal = _linearise(views, _known(views), motion, REFINING[-1])
    return Guess(*motion[:2], _believed(views, motion, normal)[0], normal.trust, kept)


def _cost(views: TwoView, known: _Known, motion: _Solution) -> Tensor:
    """Return the robust cost (batch, 1, 1) of a motion, the mean of the cells with the depths that
    suit it best."""
    trust = _linearise(views, known, motion, REFINING[-1]).trust
    return -trust.log().mean(2, keepdim=True)


def solve_ego_motion(views: TwoView, guess: Guess | None = None) -> EgoMotion:
    """Return the motion and the depths that explain two frames best.

    Gradients flow through the last iterations alone: close to the solution one step of
    Gauss-Newton forgets where it came from, so they are those of the solution (Bolte et al.,
    "One-step differentiation of iterative algorithms", 2023). Finite for whatever is finite: for
    pure rotation, no parallax and no information at all the priors answer, and the covariance
    says so. `guess`: that of `guess_ego_motion`; where it does not remember, `views` are without
    the carried depths.
    """
    batch = len(views.rays)
    if guess is None:
        guess = guess_ego_motion(views)
        views = views.remembering(guess.remembers)
    known = _known(views)
    motion = _Solution(*(part.detach() for part in guess[:3]))
    motion = _iterate(views, known, motion, REFINING[:-1])
    normal = _linearise(views, known, motion, REFINING[-1])
    identity = torch.eye(6, dtype=views.rays.dtype, device=views.rays.device)
    covariance = solve_symmetric(
        normal.matrix + torch.diag_embed(known.prior), identity.expand(batch, 6, 6)
    )
    towards = adjoint_of_inverse(*motion[:2])
    covariance = towards @ covariance @ towards.transpose(1, 2)
    return EgoMotion(*motion[:2], covariance, *_believed(views, motion, normal), normal.trust)


def rigid_target(rays: Tensor, guess: Guess) -> Tensor:
    """Return where the previous frame would see each cell, were all the scene at rest: rays
    (batch, 2, cells)."""
    upright = torch.cat([rays, torch.ones_like(rays[:, :1])], dim=1)
    point = guess.rotation @ upright + guess.log_depth.exp() * guess.translation[..., None]
    target: Tensor = point[:, :2] / point[:, 2:].clamp(min=MIN_Z)
    return target


class _Solution(NamedTuple):
    """Motion and depths as in `EgoMotion`."""

    rotation: Tensor
    translation: Tensor
    log_depth: Tensor


class _Known(NamedTuple):
    """What stays the same from iteration to iteration: the rays (batch, 3, cells), the information
    of the prior around standing still (batch, 6), what whitens the residuals (batch, 1, 3, cells)
    and what each then gets of the second (batch, 1, 3, cells)."""

    rays: Tensor
    prior: Tensor
    whitener: Tensor
    mixing: Tensor


def _known(views: TwoView) -> _Known:
    rays = torch.cat([views.rays, torch.ones_like(views.rays[:, :1])], dim=1)
    square = (2.0 * views.log_depth).exp().mean(dim=2) / TRANSLATION_PRIOR_STD**2
    turn = torch.full_like(square, 1.0 / ROTATION_PRIOR_STD_RAD**2)
    prior = torch.cat([square, square, square, turn, turn, turn], dim=1)
    # The transpose of the factor of [[xx, xy], [xy, yy]] = L L^T.
    xx, xy, yy = torch.split(views.information, 1, dim=1)
    first = (xx + 1e-9).sqrt()
    below = xy / first
    second = ((yy - below * below).clamp(min=0.0) + 1e-9).sqrt()
    carried = (views.carried_information + 1e-9).sqrt()
    whitener = torch.cat([first, second, carried], dim=1)
    none = torch.zeros_like(below)
    return _Known(rays, prior, whitener[:, None], torch.cat([below, none, none], dim=1)[:, None])


def _iterate(
    views: TwoView, known: _Known, motion: _Solution, squares: tuple[float, ...]
) -> _Solution:
    """Take Gauss-Newton steps, one for each robust square."""
    limit = known.prior.clamp(min=1e-8).rsqrt() * MAX_STEP
    for square in squares:
        rotation, translation, log_depth = motion
        normal = _linearise(views, known, motion, square)
        held = known.prior * torch.cat([translation, turn_from_identity(rotation)], dim=1)
        matrix = normal.matrix + torch.diag_embed(known.prior)
        step = solve_symmetric(matrix, (normal.vector - held)[..., None])[..., 0]
        step = step.clamp(-limit, limit)
        change = normal.depth_vector - step[:, None] @ normal.coupling
        change = (change / normal.depth_information).clamp(-MAX_LOG_STEP, MAX_LOG_STEP)
        turn = cayley(step[:, 3:])
        motion = _Solution(
            turn @ rotation,
            (turn @ translation[..., None])[..., 0] + step[:, :3],
            (log_depth + change).clamp(*LOG_INVERSE_DEPTH_RANGE),
        )
    return motion


class _Normal(NamedTuple):
    """The normal equations at one motion: the reduced ones (batch, 6, 6), (batch, 6), for a twist
    (v, w) in the previous camera's frame, and what gives the change of the depths, (batch, n,
    cells)."""

    matrix: Tensor
    vector: Tensor
    coupling: Tensor
    depth_vector: Tensor
    depth_information: Tensor
    trust: Tensor


def _linearise(views: TwoView, known: _Known, motion: _Solution, robust_square: float) -> _Normal:
    """Return the normal equations.

    All derivatives are products of where the point is seen (u, v, 1) and its inverse depth s there
    (the interaction matrix of image points; Chaumette and Hutchinson, 2006), so one small matrix
    product gives them: the fewer operations, the less of the time goes into starting them.
    """
    rotation, translation, log_depth = motion
    inverse_depth = log_depth.exp()
    point = rotation @ known.rays + inverse_depth * translation[..., None]  # over the depth
    over_z = 1.0 / point[:, 2:].clamp(min=MIN_Z)
    seen = point * over_z
    squares = (seen[:, :, None] * seen[:, None]).flatten(1, 2)
    products = torch.cat([inverse_depth * over_z * seen, squares], dim=1)
    table = constant(TABLE, point) + translation @ constant(ADDED, point)
    derivatives = torch.unflatten(table.reshape(-1, 21, 12) @ products, 1, (7, 3))
    there = log_depth + over_z.log()
    residual = torch.cat([views.target - seen[:, :2], views.carried - there], dim=1)
    rows = torch.cat([derivatives, residual[:, None]], dim=1)  # (batch, 8, 3, cells)
    rows = rows * known.whitener + rows[:, :, 1:2] * known.mixing
    jacobian, of_depth, residual = torch.split(rows, [6, 1, 1], dim=1)

    coupled = torch.split((rows * of_depth).sum(2), [6, 1, 1], dim=1)
    coupling, depth_square, depth_vector = coupled
    from_prior = views.log_depth - log_depth
    held = views.log_depth_information + 1e-6
    depth_information = depth_square + held
    pull = views.log_depth_information * from_prior
    depth_vector = depth_vector + pull
    square = (residual * residual).sum(2) + pull * from_prior
    square = (square - depth_vector * depth_vector / depth_information).clamp(min=0.0)
    trust = (1.0 / (1.0 + square / robust_square)).detach()

    # A cell's depth takes J d d^T J^T / D out of its J J^T. That is the square of what is left of
    # J here; the difference of the two sums would not stay positive in float32. The depths' own
    # equations do not feel the robust weight: it multiplies both of their sides.
    share = 1.0 / (depth_information + (depth_information * held).sqrt())
    left = jacobian - coupling[:, :, None] * (of_depth * share[:, None])
    left = (left * trust.sqrt()[:, None]).flatten(2)
    unexplained = residual - of_depth * (depth_vector / depth_information)[:, None]
    unexplained = (unexplained * trust[:, None]).flatten(2)
    return _Normal(
        left @ left.transpose(1, 2),
        (jacobian.flatten(2) @ unexplained.transpose(1, 2))[..., 0],
        coupling,
        depth_vector,
        depth_information,
        trust,
    )


def _believed(views: TwoView, motion: _Solution, normal: _Normal) -> tuple[Tensor, Tensor]:
    """Return the log inverse depths and their information, where what is not trusted counts less.

    Each cell's solved depth fits its flow, however wrong that is: of the information of the flow
    and the carried depth the square of the trust is left, and the prior keeps its own.
    """
    prior = views.log_depth_information + 1e-6
    share = normal.trust * normal.trust
    information = prior + share * (normal.depth_information - prior).clamp(min=0.0)
    change = share * normal.depth_information / information * (motion.log_depth - views.log_depth)
    return views.log_depth + change, information
