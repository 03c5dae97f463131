"""The truth of one step: flow, relative motion and what of it could be seen.

Conventions as in the network: cell (i, j) of the (h, w) grid has its centre at pixel
(u, v) = (8 j + 3.5, 8 i + 3.5); a ray is (x, y, 1) in the optical frame; X_prev = R X_curr + t.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vo_stream.training.clip import CELL, rays

MARGIN_PX = 8.0
"""A point this far outside of the previous image still counts as seen: its surroundings were."""

MIN_DEPTH_SHARE = 0.05
"""Least depth in the previous frame, as a part of the depth in the current one."""


@dataclass(frozen=True)
class StepTruth:
    """What truly happened between two frames of B samples.

    `rotation` (B, 3, 3), `translation` (B, 3) m: prev_from_curr. `flow` (B, 2, h, w) px: from
    each cell of the current frame to where the same point was in the previous one; `static_flow`:
    what it were if nothing but the camera moved. `inverse_depth` (B, 1, h, w) 1/m in the current
    frame, 0 for the sky. `valid` (B, 1, h, w) bool: both flows end in view; they are 0 elsewhere.
    """

    rotation: Tensor
    translation: Tensor
    flow: Tensor
    static_flow: Tensor
    inverse_depth: Tensor
    valid: Tensor


def relative_motion(
    prev: tuple[Tensor, Tensor], curr: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return prev_from_curr of two world_from_camera, each (B, 3, 3) and (B, 3) m."""
    world_to_prev = prev[0].transpose(-1, -2)
    return world_to_prev @ curr[0], (world_to_prev @ (curr[1] - prev[1])[..., None])[..., 0]


def step_truth(
    inverse_depth: Tensor,
    velocity: Tensor,
    intrinsics: Tensor,
    prev: tuple[Tensor, Tensor],
    curr: tuple[Tensor, Tensor],
    dt: Tensor,
) -> StepTruth:
    """Return the truth of a step from the previous frame to the current one.

    `inverse_depth` (B, h, w) 1/m and `velocity` (B, h, w, 3) m/s in the world are of the current
    frame's cells; `prev`, `curr`: world_from_camera as in `relative_motion`; `dt` (B, 1) s.
    """
    rotation, translation = relative_motion(prev, curr)
    moved = torch.einsum("bji,bhwj->bihw", prev[0], velocity * dt[:, :, None, None])
    static = translation[:, :, None, None].expand_as(moved)
    flow, valid = _flow(rotation, static - moved, inverse_depth, intrinsics)
    static_flow, static_valid = _flow(rotation, static, inverse_depth, intrinsics)
    valid = valid & static_valid
    return StepTruth(
        rotation,
        translation,
        torch.where(valid, flow, 0.0),
        torch.where(valid, static_flow, 0.0),
        inverse_depth[:, None],
        valid,
    )


def _flow(
    rotation: Tensor, shift: Tensor, inverse_depth: Tensor, intrinsics: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the flow (B, 2, h, w) px of points that moved by `shift` (B, 3, h, w) m, and whether
    it ends in view (B, 1, h, w)."""
    height, width = inverse_depth.shape[1:]
    xy = rays(intrinsics, height, width)
    xyz = torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1)
    # the point over its depth in the current frame: fit for points infinitely far, too
    point = torch.einsum("bij,bjhw->bihw", rotation, xyz) + shift * inverse_depth[:, None]
    in_front = point[:, 2] > MIN_DEPTH_SHARE
    z = torch.where(in_front, point[:, 2], 1.0)
    fx, fy, cx, cy = intrinsics[:, :, None, None].unbind(1)
    u, v = xy[:, 0] * fx + cx, xy[:, 1] * fy + cy
    prev_u, prev_v = point[:, 0] / z * fx + cx, point[:, 1] / z * fy + cy
    valid = (
        in_front
        & (prev_u >= -MARGIN_PX)
        & (prev_u <= width * CELL - 1 + MARGIN_PX)
        & (prev_v >= -MARGIN_PX)
        & (prev_v <= height * CELL - 1 + MARGIN_PX)
    )  # false for what is not finite, too
    return torch.stack([prev_u - u, prev_v - v], dim=1), valid[:, None]
