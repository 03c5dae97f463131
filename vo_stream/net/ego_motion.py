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

FROM_NOTHING = (1e12, 900.0, 100.0, 25.0)
REFINING = (25.0, 9.0, 9.0)
"""Of each iteration, from standing still or from a guess: the squared residual, in variances, at
which a cell counts half (Cauchy). The last of `REFINING` is for the covariance."""

ROTATION_PRIOR_STD_RAD = 1.0
TRANSLATION_PRIOR_STD = 1.0
"""Of a prior around standing still; the translation's is a part of the mean depth. They hold the
solution where the images say nothing, and weigh nothing beside a few cells."""

DAMPING = 1e-5
"""Added to the diagonal of the normal matrix, scaled to ones: well above rounding in float32."""

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
    """Motion, depths and trust as in `EgoMotion`."""

    rotation: Tensor
    translation: Tensor
    log_depth: Tensor
    trust: Tensor


def guess_ego_motion(views: TwoView) -> Guess:
    """Return about what `solve_ego_motion` does, from standing still; no gradient flows."""
    batch = len(views.rays)
    views = TwoView(*(part.detach() for part in views))
    motion = _Solution(
        torch.eye(3, dtype=views.rays.dtype, device=views.rays.device).expand(batch, 3, 3),
        torch.zeros_like(views.rays[:, :1, 0]).expand(batch, 3),
        views.log_depth,
    )
    motion = _iterate(views, motion, FROM_NOTHING)
    rays, _, whitener = _prepared(views)
    normal = _linearise(views, rays, whitener, motion, REFINING[-1])
    return Guess(*motion[:2], _believed(views, motion, normal)[0], normal.trust)


def solve_ego_motion(views: TwoView, guess: Guess | None = None) -> EgoMotion:
    """Return the motion and the depths that explain two frames best.

    Gradients flow through the last iterations alone: close to the solution one step of
    Gauss-Newton forgets where it came from, so they are those of the solution (Bolte et al.,
    "One-step differentiation of iterative algorithms", 2023). Finite for whatever is finite: for
    pure rotation, no parallax and no information at all the priors answer, and the covariance
    says so.
    """
    guess = guess_ego_motion(views) if guess is None else guess
    motion = _iterate(views, _Solution(*(part.detach() for part in guess[:3])), REFINING[:-1])
    rays, prior, whitener = _prepared(views)
    normal = _linearise(views, rays, whitener, motion, REFINING[-1])
    identity = torch.eye(6, dtype=rays.dtype, device=rays.device).expand(len(rays), 6, 6)
    covariance = solve_symmetric(normal.matrix + torch.diag_embed(prior), identity)
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


def _prepared(views: TwoView) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rays (batch, 3, cells), the information of the prior around standing still
    (batch, 6), and what whitens the flow."""
    rays = torch.cat([views.rays, torch.ones_like(views.rays[:, :1])], dim=1)
    square = (2.0 * views.log_depth).exp().mean(dim=2) / TRANSLATION_PRIOR_STD**2
    turn = torch.full_like(square, 1.0 / ROTATION_PRIOR_STD_RAD**2)
    prior = torch.cat([square, square, square, turn, turn, turn], dim=1)
    return rays, prior, _whitener(views.information)


def _iterate(views: TwoView, motion: _Solution, squares: tuple[float, ...]) -> _Solution:
    """Take Gauss-Newton steps, one for each robust square."""
    rays, prior, whitener = _prepared(views)
    limit = prior.clamp(min=1e-8).rsqrt() * MAX_STEP
    for square in squares:
        rotation, translation, log_depth = motion
        normal = _linearise(views, rays, whitener, motion, square)
        held = prior * twist_from_identity(rotation, translation)
        matrix = normal.matrix + torch.diag_embed(prior)
        step = solve_symmetric(matrix, (normal.vector - held)[..., None])[..., 0]
        step = step.clamp(-limit, limit)
        change = normal.depth_vector - (normal.coupling * step[..., None]).sum(1, keepdim=True)
        change = (change / normal.depth_information).clamp(-MAX_LOG_STEP, MAX_LOG_STEP)
        log_depth = (log_depth + change).clamp(*LOG_INVERSE_DEPTH_RANGE)
        motion = _Solution(*moved(rotation, translation, step), log_depth)
    return motion


class _Normal(NamedTuple):
    """The normal equations at one motion: the reduced ones (batch, 6, 6), (batch, 6), and what
    gives the change of the depths, (batch, n, cells)."""

    matrix: Tensor
    vector: Tensor
    coupling: Tensor
    depth_vector: Tensor
    depth_information: Tensor
    trust: Tensor


def _linearise(
    views: TwoView,
    rays: Tensor,
    whitener: Tensor,
    motion: _Solution,
    robust_square: float,
) -> _Normal:
    rotation, translation, log_depth = motion
    inverse_depth = log_depth.exp()
    point = rotation @ rays + inverse_depth * translation[..., None]  # over the depth
    over_z = 1.0 / point[:, 2:].clamp(min=MIN_Z)
    seen = point[:, :2] * over_z
    # Rows of the residual (x, y, log inverse depth in the previous frame), each the derivative
    # with respect to `point`, (batch, 3 rows, 3, cells), then whitened.
    last = rotation[:, 2:, :, None] * over_z[:, :, None]
    image = rotation[:, :2, :, None] * over_z[:, :, None] - seen[:, :, None] * last
    carried = (views.carried_information + 1e-9).sqrt()
    rows = torch.cat([_whiten(whitener, image), -carried[:, :, None] * last], dim=1)
    toward = translation[..., None] * inverse_depth
    image = (toward[:, :2] - seen * toward[:, 2:]) * over_z
    depth_rows = torch.cat(
        [_whiten(whitener, image), carried * (1.0 - toward[:, 2:] * over_z)], dim=1
    )
    there = log_depth + over_z.log()
    residual = torch.cat(
        [_whiten(whitener, views.target - seen), carried * (views.carried - there)], dim=1
    )
    from_prior = views.log_depth - log_depth
    held = views.log_depth_information + 1e-6
    depth_information = (depth_rows * depth_rows).sum(1, keepdim=True) + held
    depth_vector = (depth_rows * residual).sum(1, keepdim=True)
    depth_vector = depth_vector + views.log_depth_information * from_prior

    square = (residual * residual).sum(1, keepdim=True)
    square = square + views.log_depth_information * from_prior * from_prior
    square = (square - depth_vector * depth_vector / depth_information).clamp(min=0.0)
    trust = (1.0 / (1.0 + square / robust_square)).detach()

    # With the right perturbation T exp(v, w) a row g has the derivative (g / depth, ray x g).
    row = rows.transpose(1, 2)  # (batch, 3, 3 rows, cells)
    turn = torch.cross(rays[:, :, None].expand_as(row), row, dim=1)
    jacobian = torch.cat([row * inverse_depth[:, :, None], turn], dim=1)
    coupling = (jacobian * depth_rows[:, None]).sum(2)  # (batch, 6, cells)
    # A cell's depth takes J d d^T J^T / D out of its J J^T. That is the square of what is left of
    # J here; the difference of the two sums would not stay positive in float32. The depths' own
    # equations do not feel the robust weight: it multiplies both of their sides.
    share = depth_rows / (depth_information + (depth_information * held).sqrt())
    left = (jacobian - coupling[:, :, None] * share[:, None]) * trust.sqrt()[:, :, None]
    unexplained = (residual - depth_rows * depth_vector / depth_information) * trust
    flat = left.flatten(2)
    return _Normal(
        flat @ flat.transpose(1, 2),
        (jacobian.flatten(2) @ unexplained.flatten(1)[..., None])[..., 0],
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
    share = normal.trust.square()
    information = prior + share * (normal.depth_information - prior).clamp(min=0.0)
    change = share * normal.depth_information / information * (motion.log_depth - views.log_depth)
    return views.log_depth + change, information


def _whitener(information: Tensor) -> Tensor:
    """Return the factor (batch, 3, n) of [[xx, xy], [xy, yy]] = L L^T: l_xx, l_yx, l_yy."""
    xx, xy, yy = information.unbind(1)
    first = (xx + 1e-9).sqrt()
    below = xy / first
    second = ((yy - below * below).clamp(min=0.0) + 1e-9).sqrt()
    return torch.stack([first, below, second], dim=1)


def _whiten(whitener: Tensor, vectors: Tensor) -> Tensor:
    """Return L^T times vectors (batch, 2, ..., n)."""
    first, below, second = whitener.unbind(1)
    if vectors.dim() == 4:
        first, below, second = first[:, None], below[:, None], second[:, None]
    x, y = vectors.unbind(1)
    return torch.stack([first * x + below * y, second * y], dim=1)


def solve_symmetric(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve matrix @ x = right for (batch, 6, 6) symmetric positive matrices, right (batch, 6, n).

    Gauss-Jordan elimination by rows, unrolled: some forty small operations, where a Cholesky
    factor written out by elements has hundreds. A diagonal scaled to ones and a little damping
    make pivoting needless.
    """
    size = matrix.shape[-1]
    scale = torch.diagonal(matrix, dim1=1, dim2=2).clamp(min=1e-12).rsqrt()[..., None]
    identity = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    matrix = matrix * scale * scale.transpose(1, 2) + DAMPING * identity
    both = torch.cat([matrix, right * scale], dim=2)
    for k in range(size):
        row = both[:, k : k + 1] / both[:, k : k + 1, k : k + 1]
        column = both[:, :, k : k + 1] - identity[None, :, k : k + 1]
        both = both - column * row
    return both[:, :, size:] * scale


def hat(vector: Tensor) -> Tensor:
    """Return the cross-product matrices (batch, 3, 3) of vectors (batch, 3)."""
    x, y, z = vector.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)


def rotation_from(vector: Tensor) -> Tensor:
    """Return rotation matrices (batch, 3, 3) from rotation vectors (batch, 3) in rad."""
    square = (vector * vector).sum(1)[:, None, None] + 1e-12
    angle = square.sqrt()
    cross = hat(vector)
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + angle.sin() / angle * cross + (1.0 - angle.cos()) / square * (cross @ cross)


def moved(rotation: Tensor, translation: Tensor, twist: Tensor) -> tuple[Tensor, Tensor]:
    """Return motion @ exp(twist), twist (batch, 6) as (v, w), to first order in v x w."""
    step = (rotation @ twist[:, :3, None])[..., 0]
    return rotation @ rotation_from(twist[:, 3:]), translation + step


def twist_from_identity(rotation: Tensor, translation: Tensor) -> Tensor:
    """Return about the twist (batch, 6) that leads to a motion: exact for small rotations."""
    anti = rotation - rotation.transpose(1, 2)
    turn = 0.5 * torch.stack([anti[:, 2, 1], anti[:, 0, 2], anti[:, 1, 0]], dim=1)
    return torch.cat([(rotation.transpose(1, 2) @ translation[..., None])[..., 0], turn], dim=1)
