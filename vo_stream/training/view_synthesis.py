"""Self-supervision by view synthesis: the previous frame, warped by depth and motion, is the
current one (Zhou et al., 2017).

Compared by absolute difference and structural similarity, with an edge-aware smoothness of the
inverse depth (Godard et al., 2017). An explainability mask leaves out what moves by itself or is
hidden; its regulariser keeps it from leaving out all. No truth is needed, and none of it knows
the scale: it can go on from a network that does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from vo_stream.net.alignment import CELL, inside, positions, sample, to_grid
from vo_stream.training.losses import mean_where

if TYPE_CHECKING:
    from vo_stream.net.model import StepOutput

STRIDES = (2, 4, 8)
"""Pixels of the image to one of those that are compared: the coarse ones see from farther away
where the truth lies."""

MIN_Z = 0.05
"""Of a point in the previous frame, as a part of its depth in the current one."""

SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
"""Keep structural similarity (Wang et al., 2004) finite, for a brightness of 0..1."""

EXPLAINED_PX = 0.5
"""Standard deviation of a flow that is half explained."""

LEAST_EXPLAINED = 1e-3


@dataclass(frozen=True)
class ViewSynthesisWeights:
    """Share of each loss in the sum; 0 leaves one out.

    `structure`: share of structural similarity in the photometric error. `explained`: of the
    regulariser of the explainability mask; without it there is no mask.
    """

    photometric: float = 1.0
    structure: float = 0.85
    smoothness: float = 0.01
    explained: float = 0.05


def view_synthesis_losses(
    output: StepOutput,
    image: Tensor,
    previous: Tensor,
    rays: Tensor,
    fresh: Tensor,
    weights: ViewSynthesisWeights,
) -> dict[str, Tensor]:
    """Return the losses of one step by name; their sum is what to minimise.

    `image`, `previous` (B, 1, H, W) 0..1: the frame of `output` and the one before. `rays`
    (B, 2, h, w) of the cells. `fresh` (B,) bool: samples without a previous frame, which do not
    count. The depth is the prior's where there is one (`stages`), as it sees one image alone.
    """
    log_depth = output.stages.get("log_inverse_depth")
    inverse_depth = output.inverse_depth if log_depth is None else log_depth.exp()
    if not bool(inverse_depth.detach().any()):
        raise ValueError("view synthesis needs a model with depth")
    seen = ~fresh[:, None, None, None]
    mask = explainability(output) if weights.explained else torch.ones_like(inverse_depth)
    total = mask.new_zeros(())
    for stride in STRIDES:
        here, before = (functional.avg_pool2d(x.float(), stride) for x in (image, previous))
        warped, valid = synthesised(
            before, inverse_depth, rays, output.rotation, output.translation
        )
        error = photometric_error(warped, here, weights.structure)
        error = error * functional.interpolate(mask, size=here.shape[-2:], mode="bilinear")
        total = total + mean_where(error, valid & seen) / len(STRIDES)
    smooth = smoothness(inverse_depth, functional.avg_pool2d(image.float(), CELL))
    losses = {
        "photometric": weights.photometric * total,
        "smoothness": weights.smoothness * smooth,
    }
    if weights.explained:
        unexplained = -(mask + LEAST_EXPLAINED).log()
        losses["explained"] = weights.explained * mean_where(unexplained, seen)
    return losses


def synthesised(
    previous: Tensor, inverse_depth: Tensor, rays: Tensor, rotation: Tensor, translation: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the current frame as seen by the previous one, and which of its pixels were in view.

    `previous` (B, c, H', W'), of any size that covers the cells. `inverse_depth` (B, 1, h, w) 1/m
    and `rays` (B, 2, h, w) of the current frame's cells; `rotation` (B, 3, 3) and `translation`
    (B, 3) m: prev_from_curr.
    """
    height, width = previous.shape[-2:]
    per_cell = height / rays.shape[-2]
    middle = (per_cell - 1.0) / 2.0  # of the first cell
    first = rays[:, :, 0, 0]
    last = rays[:, :, -1, -1]
    cells = rays.new_tensor([rays.shape[-1] - 1, rays.shape[-2] - 1])
    pitch = ((last - first) / (cells * per_cell))[:, :, None, None]  # of the pixels' rays
    corner = first[:, :, None, None] - middle * pitch
    xy = corner + pitch * positions(height, width, rays)
    depth = functional.interpolate(inverse_depth, size=(height, width), mode="bilinear")
    upright = torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1).flatten(2)
    point = rotation.float() @ upright + depth.flatten(2) * translation.float()[..., None]
    point = point.reshape(-1, 3, height, width)
    where = (point[:, :2] / point[:, 2:].clamp(min=MIN_Z) - corner) / pitch
    grid = to_grid(where, height, width)
    valid = (inside(grid.detach()) > 0.0) & (point[:, 2:] > MIN_Z)
    return sample(previous, grid), valid


def photometric_error(one: Tensor, other: Tensor, structure: float) -> Tensor:
    """Return the difference (B, 1, H, W) of two images, of which `structure` is dissimilarity."""
    return (
        structure * 0.5 * (1.0 - similarity(one, other)) + (1.0 - structure) * (one - other).abs()
    )


def similarity(one: Tensor, other: Tensor) -> Tensor:
    """Return the structural similarity (B, 1, H, W), -1..1, of two images, in 3 x 3 windows."""
    both = functional.pad(torch.cat([one, other], dim=1), (1, 1, 1, 1), mode="replicate")
    x, y = both[:, :1], both[:, 1:]
    means = functional.avg_pool2d(torch.cat([x, y, x * x, y * y, x * y], dim=1), 3, 1)
    x, y, xx, yy, xy = means.chunk(5, dim=1)
    luminance = (2.0 * x * y + SSIM_C1) / (x * x + y * y + SSIM_C1)
    structure = (2.0 * (xy - x * y) + SSIM_C2) / (xx - x * x + yy - y * y + SSIM_C2)
    return luminance * structure


def smoothness(inverse_depth: Tensor, image: Tensor) -> Tensor:
    """Return how much an inverse depth (B, 1, h, w) varies as a part of its mean, where the image
    (B, 1, h, w) does not."""
    relative = inverse_depth / inverse_depth.mean((2, 3), keepdim=True)
    total = image.new_zeros(())
    for dim in (2, 3):
        edge = torch.diff(image, dim=dim).abs() * 10.0
        total = total + (torch.diff(relative, dim=dim).abs() * torch.exp(-edge)).mean()
    return total


def explainability(output: StepOutput) -> Tensor:
    """Return how much of each cell (B, 1, h, w), 0..1, the motion of the camera should explain.

    It is what the network says of its flow's information, so that this teaches it, too.
    """
    _, information = output.stages["informed"][-1]
    trace = information[:, :1] + information[:, 2:]
    explained: Tensor = trace / (trace + 2.0 / EXPLAINED_PX**2)
    return explained
