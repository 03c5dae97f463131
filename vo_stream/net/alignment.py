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


def to_grid(where: Tensor, height: int, width: int) -> Tensor:
    """Return positions (batch, 2, h, w) in pixels of a (height, width) image as parts of it: -1
    and 1 are its borders."""
    return (2.0 * where + 1.0) / _size(height, width, where) - 1.0


def _size(height: int, width: int, like: Tensor) -> Tensor:
    """Return (2, 1, 1) width and height, made where `like` is: nothing may come from the host."""
    which = torch.arange(2, dtype=like.dtype, device=like.device)[:, None, None]
    return width + (height - width) * which


def sample(features: Tensor, grid: Tensor) -> Tensor:
    """Return features (batch, c, H, W) at positions as of `to_grid`, bilinear; beyond the border
    its nearest pixel."""
    if torch.compiler.is_exporting() and features.shape[1] > 2:
        return _gathered(features, grid)
    where = grid.permute(0, 2, 3, 1)
    return functional.grid_sample(features, where, padding_mode="border", align_corners=False)


def _gathered(features: Tensor, grid: Tensor) -> Tensor:
    """Do what `sample` does, in operators that ONNX Runtime runs faster than its GridSample.

    `features`: of a batch of one. A row of the table is the value at a pixel and its slopes across,
    down and both ways, so that one index brings all four pixels around a position.
    """
    channels, height, width = features.shape[1:]
    size = _size(height, width, grid)
    last = size - 1.0
    place = torch.minimum((0.5 * (grid + 1.0) * size - 0.5).clamp(min=0.0), last).flatten(2)
    low = torch.minimum(place.floor(), last.flatten(1)[None] - 1.0)  # the pixels after it exist
    across, down = torch.split(place - low, 1, dim=1)
    index = (low[:, 1] * (width - 1) + low[:, 0]).int()
    index = index.clamp(0, (height - 1) * (width - 1) - 1).flatten()  # NaN becomes some index too
    rows = torch.cat([features[:, :, :-1], features[:, :, 1:] - features[:, :, :-1]], dim=1)
    table = torch.cat([rows[..., :-1], rows[..., 1:] - rows[..., :-1]], dim=1)
    found = table.flatten(2).flatten(0, 1).t().index_select(0, index).t()[None]  # (1, 4 c, n)
    base, slope = torch.split(found, 2 * channels, dim=1)
    value, rise = torch.split(base + across * slope, channels, dim=1)
    blend: Tensor = value + down * rise
    return blend.reshape(1, channels, *grid.shape[-2:])


def inside(grid: Tensor) -> Tensor:
    """Return 1.0 where positions as of `to_grid` lie in the image, else 0.0: (batch, 1, h, w)."""
    return (grid.abs().amax(dim=1, keepdim=True) <= 1.0).to(grid.dtype)


class Alignment(nn.Module):
    """Lucas-Kanade at one resolution.

    `stride`: pixels of the image to one of the features. `window`: side of a cell's window in
    pixels of the features; `window` - CELL / stride is even.
    """

    offsets: Tensor
    slope: Tensor
    rows: Tensor

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
        rows = torch.tensor([0, 1, 3, 4, 6, 7, 1, 2, 4, 5, 7, 8])  # xx xy, xy yy of each three
        self.register_buffer("rows", rows, persistent=False)
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
        gradient = torch.stack([across, down], dim=1)  # (batch, 2, c, H, W)
        products = torch.cat([gradient * across[:, None], (down * down)[:, None]], dim=1).sum(2)
        damping = self.log_damping.exp()
        flow = flow / self.stride
        for _ in range(self.iterations):
            fine = functional.interpolate(flow, size=(height, width), mode="bilinear")
            grid = to_grid(own + fine, height, width)
            visible = inside(grid)
            error = (sample(previous, grid) - current) * visible
            seen = products * visible
            sums = (gradient * error[:, None]).sum(2) - (_square(seen) * fine[:, None]).sum(2)
            energy = error.square().mean(1, keepdim=True)
            pooled = self.pool(torch.cat([seen, sums, energy, visible], dim=1))
            normal, right, energy, visible = torch.split(pooled, [3, 2, 1, 1], dim=1)
            moments = functional.conv2d(
                seen, self.offsets, stride=CELL // self.stride, padding=self.margin, groups=3
            )
            around = functional.pad(flow, (1, 1, 1, 1), mode="replicate")
            slope = functional.conv2d(around, self.slope, groups=2).clamp(-MAX_SLOPE, MAX_SLOPE)
            # Of x and y, what the flow of the centre and its slopes across and down add up to.
            linear = torch.cat([normal, moments[:, 0::2], moments[:, 1::2]], dim=1)
            terms = torch.cat([flow, slope[:, 0::2], slope[:, 1::2]], dim=1)
            rows = linear.index_select(1, self.rows).reshape(-1, 2, *terms.shape[1:])
            right = right + (rows * terms[:, None]).sum(2)
            a, b, d = torch.split(normal, 1, dim=1)
            a, d = a + damping, d + damping
            x, y = torch.split(right, 1, dim=1)
            step = torch.cat([b * y - d * x, b * x - a * y], dim=1) / (a * d - b * b)
            length = step.square().sum(1, keepdim=True)
            flow = flow + step * (1.0 + length / MAX_STEP**2).rsqrt()
        information = normal / ((energy + NOISE_FLOOR) * self.stride**2)
        return Aligned(flow * self.stride, information, energy, visible)


def _square(matrices: Tensor) -> Tensor:
    """Return symmetric matrices (batch, 3, ..) of xx, xy, yy as (batch, 2, 2, ..)."""
    return torch.stack([matrices[:, :2], matrices[:, 1:]], dim=1)


def _for_each(channels: int, kernels: Tensor) -> Tensor:
    """Return the weights that give each of some channels two kernels (2, side, side)."""
    return kernels[:, None].repeat(channels, 1, 1, 1)
