"""PoseNet's loss, for comparison: metres and quaternions, weighted against each other.

By a constant (Kendall, Grimes and Cipolla, 2015), or by homoscedastic uncertainty (Kendall and
Cipolla, 2017): sum of L exp(-s) + s over the two errors. There s is learned; here it is at its
optimum for each batch, s = log L, which leaves the sum of log L and needs no parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vo_stream.training.losses import mean_where, safe_norm
from vo_stream.training.truth import StepTruth

if TYPE_CHECKING:
    from vo_stream.net.model import StepOutput

BETA_M = 100.0
"""Weight of a quaternion's error against metres: the errors of steps are some 5 cm and 0.5 mrad."""

LEAST_POSITION_M, LEAST_ORIENTATION = 1e-3, 1e-5
"""Errors below these are nothing: they keep the logarithm finite."""


def posenet_losses(
    output: StepOutput, truth: StepTruth, fresh: Tensor, beta: float | None = BETA_M
) -> dict[str, Tensor]:
    """Return the losses of one step by name; their sum is what to minimise.

    `fresh` (B,) bool: samples without a previous frame, which do not count. `beta`: weight of the
    orientation; None weighs both by their uncertainty.
    """
    position = mean_where(safe_norm(output.translation.float() - truth.translation), ~fresh)
    orientation = mean_where(quaternion_distance(output.rotation.float(), truth.rotation), ~fresh)
    if beta is None:
        return {
            "position": (position + LEAST_POSITION_M).log(),
            "orientation": (orientation + LEAST_ORIENTATION).log(),
        }
    return {"position": position, "orientation": beta * orientation}


def quaternion_distance(one: Tensor, other: Tensor) -> Tensor:
    """Return the distance (B,) of the unit quaternions of rotations (B, 3, 3) less than 180 deg
    apart: 2 sin(angle / 4)."""
    between = one.transpose(1, 2) @ other
    trace = torch.diagonal(between, dim1=1, dim2=2).sum(1)
    w = 0.5 * (1.0 + trace).clamp(min=1e-6).sqrt()  # cos(angle / 2)
    skew = between - between.transpose(1, 2)
    vector = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], dim=1)
    # |q - 1|^2 = 2 - 2 w = 2 |v|^2 / (1 + w) of the quaternion (w, v) between them
    return safe_norm(vector / (4.0 * w[:, None])) * (2.0 / (1.0 + w)).sqrt()
