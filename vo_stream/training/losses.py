"""What the network is trained to make small.

All are means over the samples and cells that count. Flow as in RAFT (Teed & Deng, 2020): every
stage, later ones weigh more. The pose's rotation and translation are judged apart, as the
translation's direction and log-scale where there is parallax to see them by. Uncertainty:
negative log-likelihood (Kendall & Gal, 2017), with the tails of Student's t-distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vo_stream.training.truth import StepTruth

if TYPE_CHECKING:
    from vo_stream.net.model import StepOutput

FLOW_EPSILON_PX = 0.05
"""Below this a flow error counts by its square."""

NEAREST_M, FARTHEST_M = 0.2, 200.0
"""Depths beyond are as good as these."""

MIN_PARALLAX = 0.003
"""Translation over median depth below which a translation shows nothing of its direction."""

SMALL_RAD = 0.01
"""Rotations and parallaxes wrong by more than this count by the logarithm: what is lost anyway
must not drown what is nearly right."""

FREEDOM = 6.0
"""Degrees of freedom of Student's t-distribution that errors are taken to have: nearly Gaussian
near zero, and an error of a thousand standard deviations teaches no more than one of ten."""

MIN_INFORMATION = 1e-4
"""Of a flow, 1/px^2: less is none."""

MIN_STD = 1e-6
"""Standard deviations (m, rad) below this are rounding."""


@dataclass(frozen=True)
class LossWeights:
    """Share of each loss in the sum; 0 leaves one out.

    `stage_decay`: each earlier stage of the flow weighs this much of the next.
    `flow_power`: exponent of the robust flow loss (e^2 + epsilon^2)^power; 0.5 is Charbonnier's.
    `flow_nll`: likelihood of the static world's flow under the information of each cell, which it
    alone teaches: what moves by itself is to be trusted little.
    `solved`: weight of the pose solved before the recurrent correction, to the final one's.
    `pose_full`: where in the training (0..1) the pose's losses have come to their full weight,
    from none at the start. `nll_from`, `nll_full`: where the likelihood of the pose begins to
    count and counts wholly. `nll_moves_motion`: whether it teaches the motion, too, or only the
    standard deviations.
    """

    flow: float = 1.0
    stage_decay: float = 0.7
    flow_power: float = 0.5
    flow_nll: float = 0.05
    prior_depth: float = 2.0
    depth_nll: float = 0.5
    depth: float = 1.0
    rotation: float = 1.0
    direction: float = 2.0
    log_scale: float = 2.0
    translation: float = 1.0
    solved: float = 0.5
    pose_nll: float = 0.1
    pose_full: float = 0.05
    nll_from: float = 0.1
    nll_full: float = 0.3
    nll_moves_motion: bool = False


def losses(
    output: StepOutput,
    truth: StepTruth,
    fresh: Tensor,
    weights: LossWeights,
    progress: float,
) -> dict[str, Tensor]:
    """Return the weighted losses of one step by name; their sum is what to minimise.

    `fresh` (B,) bool: samples without a previous frame; only their depth prior counts.
    `progress` 0..1: how much of the training is done. A model without flow or depth among its
    stages is not judged by them.
    """
    found: dict[str, Tensor] = {}
    seen = ~fresh
    cells = truth.valid & seen[:, None, None, None]
    stages: dict[str, Any] = output.stages
    if "flows" in stages:
        flows = stages["flows"]
        found["flow"] = weights.flow * flow_loss(flows, truth.flow, cells, weights)
    if weights.flow_nll and "informed" in stages:
        nlls = [flow_nll(flow, known, truth.static_flow) for flow, known in stages["informed"]]
        found["flow_nll"] = weights.flow_nll * mean_where(torch.stack(nlls), cells[None])
    if "log_inverse_depth" in stages:
        error = log_depth_error(stages["log_inverse_depth"].float(), truth.inverse_depth)
        found["prior_depth"] = weights.prior_depth * error.abs().mean()
        found["depth_nll"] = weights.depth_nll * laplace_nll(error, stages["log_depth_std"].float())
        log_final = output.inverse_depth.float().clamp_min(0.1 / FARTHEST_M).log()
        error = log_depth_error(log_final, truth.inverse_depth)
        found["depth"] = weights.depth * mean_where(error.abs(), seen[:, None, None, None])
    ramp = min(progress / weights.pose_full, 1.0) if weights.pose_full > 0.0 else 1.0
    final = pose_losses(output.rotation, output.translation, truth, seen, weights)
    found |= {name: ramp * value for name, value in final.items()}
    if weights.solved and "solved_rotation" in stages:
        solved = stages["solved_rotation"], stages["solved_translation"]
        for name, value in pose_losses(*solved, truth, seen, weights).items():
            found[f"solved_{name}"] = ramp * weights.solved * value
    if weights.pose_nll:
        share = (progress - weights.nll_from) / max(weights.nll_full - weights.nll_from, 1e-9)
        share = min(max(share, 0.0), 1.0)
        error = twist_error(output.rotation, output.translation, truth)
        nll = pose_nll(error if weights.nll_moves_motion else error.detach(), output.std)
        found["pose_nll"] = weights.pose_nll * share * mean_where(nll, seen[:, None])
    return found


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values where the (broadcast) mask is true, 0 where it never is."""
    mask = mask.expand_as(values)
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)


def flow_loss(flows: list[Tensor], truth: Tensor, valid: Tensor, weights: LossWeights) -> Tensor:
    """Return the robust error of flows (B, 2, h, w) px, coarse to fine, normed over the stages."""
    shares = [weights.stage_decay ** (len(flows) - 1 - i) for i in range(len(flows))]
    total = truth.new_zeros(())
    for flow, share in zip(flows, shares, strict=True):
        square = (flow.float() - truth).square().sum(dim=1, keepdim=True)
        robust = (square + FLOW_EPSILON_PX**2) ** weights.flow_power
        total = total + share * mean_where(robust, valid)
    return total / sum(shares)


def log_depth_error(log_inverse_depth: Tensor, true_inverse_depth: Tensor) -> Tensor:
    """Return the error of a log inverse depth; none for being beyond a bound where truth is."""
    low, high = 1.0 / FARTHEST_M, 1.0 / NEAREST_M
    error = log_inverse_depth - true_inverse_depth.clamp(low, high).log()
    error = torch.where(true_inverse_depth <= low, error.clamp_min(0.0), error)
    return torch.where(true_inverse_depth >= high, error.clamp_max(0.0), error)


def laplace_nll(error: Tensor, log_std: Tensor) -> Tensor:
    """Return the mean negative log-likelihood under Laplace's distribution; the error is given."""
    return (math.sqrt(2.0) * error.detach().abs() * torch.exp(-log_std) + log_std).mean()


def flow_nll(flow: Tensor, information: Tensor, truth: Tensor) -> Tensor:
    """Return the negative log-likelihood (B, 1, h, w) of a true flow (B, 2, h, w) px.

    `information` (B, 3, h, w) 1/px^2: xx, xy, yy of the inverse covariance of `flow`.
    """
    error = (flow - truth).detach().float()
    x, y = error[:, :1], error[:, 1:]
    xx, xy, yy = information.float().chunk(3, dim=1)
    squares = (xx * x * x + 2.0 * xy * x * y + yy * y * y).clamp_min(0.0)
    determinant = (xx * yy - xy * xy).clamp_min(MIN_INFORMATION**2)
    return student_nll(squares, 2) - 0.5 * determinant.log()


def student_nll(squares: Tensor, dimensions: int) -> Tensor:
    """Return a negative log-likelihood without its normalisation, see FREEDOM.

    `squares`: squared errors in standard deviations, summed over the `dimensions`.
    """
    return 0.5 * (FREEDOM + dimensions) * torch.log1p(squares / (FREEDOM - 2.0))


def pose_nll(error: Tensor, std: Tensor) -> Tensor:
    """Return the negative log-likelihood (B, 6) of errors (B, 6)."""
    std = std.float().clamp_min(MIN_STD)
    return student_nll((error / std).square(), 1) + std.log()


def pose_losses(
    rotation: Tensor, translation: Tensor, truth: StepTruth, seen: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    """Return the weighted losses of a motion prev_from_curr, over the samples (B,) seen.

    The floor of a translation is what shows `MIN_PARALLAX` at the scene's median depth; direction
    and log-scale count the more, the farther the true one is above it, the plain error (as
    parallax, in units of median depth) the less.
    """
    rotation, translation = rotation.float(), translation.float()
    angle = safe_norm(rotation_error(rotation, truth.rotation))
    floor = MIN_PARALLAX / median_inverse_depth(truth)
    length, found = safe_norm(truth.translation), safe_norm(translation)
    share = length / (length + 3.0 * floor)
    direction = safe_norm(
        translation / (found + floor)[:, None] - truth.translation / (length + floor)[:, None]
    )
    scale = ((found + floor) / (length + floor)).log().abs()
    parallax = safe_norm(translation - truth.translation) / floor * MIN_PARALLAX
    return {
        "rotation": weights.rotation * mean_where(torch.log1p(angle / SMALL_RAD), seen),
        "direction": weights.direction * mean_where(share * direction, seen),
        "log_scale": weights.log_scale * mean_where(share * scale, seen),
        "translation": weights.translation
        * mean_where((1.0 - share) * torch.log1p(parallax / SMALL_RAD), seen),
    }


def rotation_error(rotation: Tensor, true_rotation: Tensor) -> Tensor:
    """Return the sine of the error's angle times its axis (B, 3), in the current frame."""
    error = rotation.transpose(1, 2) @ true_rotation
    skew = 0.5 * (error - error.transpose(1, 2))
    return torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], dim=1)


def twist_error(rotation: Tensor, translation: Tensor, truth: StepTruth) -> Tensor:
    """Return the error twist (B, 6), (v, w) in the current frame: true = estimate @ exp(error).

    To first order in the error's rotation.
    """
    rotation, translation = rotation.float(), translation.float()
    v = (rotation.transpose(1, 2) @ (truth.translation - translation)[..., None])[..., 0]
    return torch.cat([v, rotation_error(rotation, truth.rotation)], dim=1)


def median_inverse_depth(truth: StepTruth) -> Tensor:
    """Return the median inverse depth (B,) 1/m of each scene, the sky left out."""
    values = truth.inverse_depth.flatten(1)
    values = torch.where(values > 1.0 / FARTHEST_M, values, torch.nan)
    return values.nanmedian(dim=1).values.nan_to_num(nan=1.0 / FARTHEST_M)


def safe_norm(vector: Tensor) -> Tensor:
    """Return the length (B,) of vectors (B, n), with a finite gradient at zero."""
    return (vector.square().sum(dim=1) + 1e-12).sqrt()
