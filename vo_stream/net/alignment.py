"""Sub-pixel alignment: Lucas-Kanade steps on learned features, inside the network.

One step is a linear least-squares problem in a window around each cell, so its precision does not
have to be learned, and its normal matrix is the information of the flow: corners say both
directions, edges one, blank walls none (Baker and Matthews, "Lucas-Kanade 20 years on", 2004;
on learned features: Lv et al., "Taking a deeper look at the inverse compositional algorithm",
2019). The template is the current frame, whose gradients are computed once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

CELL = 8
"""Side of a cell of the flow's grid, in pixels of the image."""

MAX_STEP = 1.5
"""Of one iteration, in pixels of the features' grid."""

MAX_SLOPE = 0.15
"""Of the flow, px per px: beyond it is an edge between two flows, which says nothing of either."""

NOISE_FLOOR = 1e-3
"""Least mean squared residual of a feature: it keeps the information finite."""


class Aligned(NamedTuple):
    """`flow`: (batch, 2, h, w) px of the image. `information`: (batch, 3, h, w) its inverse
    covariance (xx, xy, yy) up to a factor, 1/px^2. `energy`: (batch, 1, h, w) mean squared
    residual of a feature. `visible`: (batch, 1, h, w) how much of the window the previous frame
    sees."""

    flow: Tensor
    information: Tensor
    energy: Tensor
    visible: Tensor


def positions(height: int, width: int, like: Tensor) -> Tensor:
    """Return the (1, 2, height, width) coordinates x, y of a grid's pixels."""
    x = torch.arange(width, dtype=like.dtype, device=like.device)
    y = torch.arange(height, dtype=like.dtype, device=like.device)
    x = x[None, None, None, :].expand(1, 1, height, width)
    y = y[None, None, :, None].expand(1, 1, height, width)
    return torch.cat([x, y], dim=1)


def sample(features: Tensor, where: Tensor) -> Tensor:
    """Return features (batch, c, H, W) at positions (batch, 2, h, w) in their pixels, bilinear;
    beyond the border its nearest pixel."""
    height, width = features.shape[-2:]
    x = (2.0 * where[:, 0] + 1.0) / width - 1.0
    y = (2.0 * where[:, 1] + 1.0) / height - 1.0
    grid = torch.stack([x, y], dim=-1)
    return functional.grid_sample(features, grid, padding_mode="border", align_corners=False)


def inside(where: Tensor, height: int, width: int) -> Tensor:
    """Return 1.0 where positions (batch, 2, h, w) lie in a grid of that size, else 0.0."""
    x, y = where[:, :1], where[:, 1:]
    there = (x >= 0.0) & (x <= width - 1.0) & (y >= 0.0) & (y <= height - 1.0)
    return there.to(where.dtype)


class Alignment(nn.Module):
    """Lucas-Kanade at one resolution.

    `stride`: pixels of the image to one of the features. `window`: side of a cell's window in
    pixels of the features; `window` - CELL / stride is even.
    """

    offsets: Tensor
    slope: Tensor

    def __init__(self, stride: int, window: int, iterations: int) -> None:
        super().__init__()
        self.stride, self.iterations = stride, iterations
        step = CELL // stride
        self.margin = (window - step) // 2
        self.pool = nn.AvgPool2d(window, step, self.margin)
        self.log_damping = nn.Parameter(torch.tensor(-5.0))
        offset = torch.arange(window) - (window - 1) / 2.0
        offsets = torch.stack(
            [offset.expand(window, window), offset[:, None].expand(window, window)]
        )
        self.register_buffer("offsets", _for_each(3, offsets / window**2), persistent=False)
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / (8 * step)
        self.register_buffer("slope", _for_each(2, torch.stack([sobel, sobel.T])), persistent=False)

    def forward(self, current: Tensor, previous: Tensor, flow: Tensor) -> Aligned:
        """Refine a flow (batch, 2, h, w) px by features (batch, c, H/stride, W/stride).

        Each cell's flow is solved for by itself. That of its neighbours serves to linearise: were
        the step to depend on it, errors that differ from cell to cell would average out and stay.
        Within a window the flow is taken to vary as it does among the neighbours.
        """
        height, width = current.shape[-2:]
        own = positions(height, width, current)
        padded = functional.pad(current, (1, 1, 1, 1), mode="replicate")
        across = 0.5 * (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2])
        down = 0.5 * (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1])
        products = torch.stack(
            [(across * across).sum(1), (across * down).sum(1), (down * down).sum(1)], dim=1
        )
        damping = self.log_damping.exp()
        flow = flow / self.stride
        for _ in range(self.iterations):
            fine = functional.interpolate(flow, size=(height, width), mode="bilinear")
            visible = inside(own + fine, height, width)
            error = (sample(previous, own + fine) - current) * visible
            seen = products * visible
            sums = torch.stack([(across * error).sum(1), (down * error).sum(1)], dim=1)
            energy = error.square().mean(1, keepdim=True)
            pooled = self.pool(torch.cat([seen, sums - _times(seen, fine), energy, visible], dim=1))
            normal, right = pooled[:, :3], pooled[:, 3:5] + _times(pooled[:, :3], flow)
            moments = functional.conv2d(
                seen, self.offsets, stride=CELL // self.stride, padding=self.margin, groups=3
            )
            around = functional.pad(flow, (1, 1, 1, 1), mode="replicate")
            slope = functional.conv2d(around, self.slope, groups=2).clamp(-MAX_SLOPE, MAX_SLOPE)
            right = right + _times(moments[:, 0::2], slope[:, 0::2])
            right = right + _times(moments[:, 1::2], slope[:, 1::2])
            a, b, d = normal[:, 0:1] + damping, normal[:, 1:2], normal[:, 2:3] + damping
            step = _times(torch.cat([d, -b, a], dim=1), right) / (b * b - a * d)
            length = step.square().sum(1, keepdim=True)
            flow = flow + step * (1.0 + length / MAX_STEP**2).rsqrt()
        energy, visible = pooled[:, 5:6], pooled[:, 6:7]
        information = normal / ((energy + NOISE_FLOOR) * self.stride**2)
        return Aligned(flow * self.stride, information, energy, visible)


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return [[xx, xy], [xy, yy]] (batch, 3, ..) times vectors (batch, 2, ..)."""
    xx, xy, yy = matrices[:, 0:1], matrices[:, 1:2], matrices[:, 2:3]
    x, y = vectors[:, 0:1], vectors[:, 1:2]
    return torch.cat([xx * x + xy * y, xy * x + yy * y], dim=1)


def _for_each(channels: int, kernels: Tensor) -> Tensor:
    """Return the weights that give each of some channels two kernels (2, side, side)."""
    return kernels[:, None].repeat(channels, 1, 1, 1)
