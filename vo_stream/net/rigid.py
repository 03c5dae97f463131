"""Rigid motions and small linear systems in batched torch, in few operations.

A graph runs every operation by itself, and starting one costs more than six numbers of arithmetic:
so products with constant tables stand where elements could be written out.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

DAMPING = 1e-5
"""Added to the diagonal of the normal matrix, scaled to ones: well above rounding in float32."""

GENERATORS = torch.tensor(
    [
        [0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0],
        [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)
"""The cross-product matrices of the axes, by rows."""


AXES = 0.5 * GENERATORS.T


def _derivatives() -> tuple[Tensor, Tensor]:
    """Return the derivatives of a point's image (252,), and what a translation adds to them
    (3, 252): the interaction matrix (Chaumette and Hutchinson, 2006) as a table.

    As (7, 3, 12): with respect to v, w and the log inverse depth, of x, y and the log inverse depth
    in the other frame, in terms of twelve products: of the point's (x, y, 1) there with its inverse
    depth, and with each other.
    """
    su, sv, s, uu, uv, vv, u, v, one = 0, 1, 2, 3, 4, 7, 5, 8, 11
    table = torch.zeros(7, 3, 12)
    added = torch.zeros(3, 7, 3, 12)
    for row, column, product, sign in (
        (0, 0, s, 1), (0, 2, su, -1), (0, 3, uv, -1), (0, 4, one, 1), (0, 4, uu, 1), (0, 5, v, -1),
        (1, 1, s, 1), (1, 2, sv, -1), (1, 3, one, -1), (1, 3, vv, -1), (1, 4, uv, 1), (1, 5, u, 1),
        (2, 2, s, -1), (2, 3, v, -1), (2, 4, u, 1), (2, 6, one, 1),
    ):  # fmt: skip
        table[column, row, product] = sign
    for axis, row, product, sign in (
        (0, 0, s, 1), (2, 0, su, -1), (1, 1, s, 1), (2, 1, sv, -1), (2, 2, s, -1),
    ):  # fmt: skip
        added[axis, 6, row, product] = sign
    return table.flatten(), added.flatten(1)


TABLE, ADDED = _derivatives()


def constant(table: Tensor, like: Tensor) -> Tensor:
    """Return a table as another tensor is: on a GPU always the same copy, as CUDA graphs need."""
    if (table.device, table.dtype) == (like.device, like.dtype):
        return table
    return _copied(table, like.device, like.dtype)


@cache
def _copied(table: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return table.to(device, dtype)


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
    return (vector @ constant(GENERATORS, vector)).reshape(-1, 3, 3)


def rotation_from(vector: Tensor) -> Tensor:
    """Return rotation matrices (batch, 3, 3) from rotation vectors (batch, 3) in rad."""
    square = (vector * vector).sum(1)[:, None, None] + 1e-12
    angle = square.sqrt()
    cross = hat(vector)
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + angle.sin() / angle * cross + (1.0 - angle.cos()) / square * (cross @ cross)


def cayley(vector: Tensor) -> Tensor:
    """Return what `rotation_from` does for small vectors, at half the cost: a rotation by twice
    the arc tangent of half the angle (Cayley's transform)."""
    cross = hat(vector)
    square = (vector * vector).sum(1)[:, None, None]
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + (cross + 0.5 * (cross @ cross)) / (1.0 + 0.25 * square)


def moved(rotation: Tensor, translation: Tensor, twist: Tensor) -> tuple[Tensor, Tensor]:
    """Return motion @ exp(twist), twist (batch, 6) as (v, w), to first order in v x w."""
    step = (rotation @ twist[:, :3, None])[..., 0]
    return rotation @ rotation_from(twist[:, 3:]), translation + step


def turn_from_identity(rotation: Tensor) -> Tensor:
    """Return about the rotation vector (batch, 3) of a rotation: exact for small ones."""
    return rotation.flatten(1) @ constant(AXES, rotation)


def twist_from_identity(rotation: Tensor, translation: Tensor) -> Tensor:
    """Return about the twist (batch, 6) that leads to a motion: exact for small rotations."""
    shift = (rotation.transpose(1, 2) @ translation[..., None])[..., 0]
    return torch.cat([shift, turn_from_identity(rotation)], dim=1)


def adjoint_of_inverse(rotation: Tensor, translation: Tensor) -> Tensor:
    """Return what takes a twist on the left of a motion to its right, (batch, 6, 6)."""
    back = rotation.transpose(1, 2)
    moment = -back @ hat(translation)
    return torch.cat(
        [torch.cat([back, moment], dim=2), torch.cat([torch.zeros_like(back), back], dim=2)], dim=1
    )
