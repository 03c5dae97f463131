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

    def __init__(self, stride: int, window: int, iterations: int) -> None:
        super().__init__()
        self.stride, self.iterations = stride, iterations
        step = CELL // stride
        self.pool = nn.AvgPool2d(window, step, (window - step) // 2)
        self.log_damping = nn.Parameter(torch.tensor(-5.0))

    def forward(self, current: Tensor, previous: Tensor, flow: Tensor) -> Aligned:
        """Refine a flow (batch, 2, h, w) px by features (batch, c, H/stride, W/stride)."""
        height, width = current.shape[-2:]
        own = positions(height, width, current)
        padded = functional.pad(current, (1, 1, 1, 1), mode="replicate")
        across = 0.5 * (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2])
        down = 0.5 * (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1])
        products = torch.stack(
            [(across * across).sum(1), (across * down).sum(1), (down * down).sum(1)], dim=1
        )
        damping = self.log_damping.exp()
        for _ in range(self.iterations):
            fine = functional.interpolate(flow, size=(height, width), mode="bilinear")
            where = own + fine / self.stride
            visible = inside(where, height, width)
            error = (sample(previous, where) - current) * visible
            sums = torch.stack([(across * error).sum(1), (down * error).sum(1)], dim=1)
            energy = error.square().mean(1, keepdim=True)
            pooled = self.pool(torch.cat([products * visible, sums, energy, visible], dim=1))
            xx, xy, yy = pooled[:, 0:1], pooled[:, 1:2], pooled[:, 2:3]
            right_x, right_y = pooled[:, 3:4], pooled[:, 4:5]
            a, d = xx + damping, yy + damping
            over = -1.0 / (a * d - xy * xy)
            step = torch.cat(
                [(d * right_x - xy * right_y) * over, (a * right_y - xy * right_x) * over], dim=1
            )
            length = step.square().sum(1, keepdim=True)
            step = step * (1.0 + length / MAX_STEP**2).rsqrt()
            flow = flow + self.stride * step
        energy, visible = pooled[:, 5:6], pooled[:, 6:7]
        information = pooled[:, :3] / ((energy + NOISE_FLOOR) * self.stride**2)
        return Aligned(flow, information, energy, visible)
