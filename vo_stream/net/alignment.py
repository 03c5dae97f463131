"""Sub-pixel alignment: Lucas-Kanade steps on learned features, inside the network.

One step is a linear least-squares problem in a window around each cell, so its precision does not
have to be learned, and its normal matrix is the information of the flow: corners say both
directions, edges one, blank walls none (Baker and Matthews, "Lucas-Kanade 20 years on", 2004;
on learned features: Lv et al., "Taking a deeper look at the inverse compositional algorithm",
2019). The template is the current frame, whose gradients are computed once.
"""

from __future__ import annotations

from itertools import product
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
    where = grid.permute(0, 2, 3, 1)
    return functional.grid_sample(features, where, padding_mode="border", align_corners=False)


def inside(grid: Tensor) -> Tensor:
    """Return 1.0 where positions as of `to_grid` lie in the image, else 0.0: (batch, 1, h, w)."""
    return (grid.abs().amax(dim=1, keepdim=True) <= 1.0).to(grid.dtype)


def looked_up(features: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (batch, c, H, W) at positions (batch, 2, h, w) in pixels, as `sample` does,
    and 1.0 where these lie in the image, as `inside` does."""
    if torch.compiler.is_exporting():
        return _gathered(features, where)
    grid = to_grid(where, *features.shape[-2:])
    return sample(features, grid), inside(grid)


def _gathered(features: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Do what `looked_up` does, in operators that ONNX Runtime runs faster than its GridSample.

    `features`: of a batch of one. A row of the table is a pixel and those after it, across, down
    and both ways, so that one index brings all four pixels around a position.
    """
    channels, height, width = features.shape[1:]
    last = _size(height, width, where) - 1.0
    place = torch.minimum(where.clamp(min=0.0), last)
    low = torch.minimum(place.floor(), last - 1.0)  # the pixels after it exist
    x, y = torch.split(low, 1, dim=1)
    index = (y * width + x).int().flatten()
    index = index.clamp(0, (height - 1) * width - 2)  # NaN becomes some index, too
    flat = features.reshape(channels, height * width)
    pixels = [flat[:, : -width - 1], flat[:, 1:-width], flat[:, width:-1], flat[:, width + 1 :]]
    table = torch.stack(pixels, dim=1).flatten(0, 1).t()
    found = table.index_select(0, index).t().reshape(channels, 4, *where.shape[-2:])
    across, down = torch.split(place - low, 1, dim=1)
    left, above = 1.0 - across, 1.0 - down
    weights = torch.cat([left * above, across * above, left * down, across * down], dim=1)
    x, y = torch.split((where - place).abs() <= 0.5, 1, dim=1)
    return (found * weights).sum(1)[None], (x & y).to(where.dtype)


def summed(features: Tensor) -> Tensor:
    """Return the sum over the channels, (batch, 1, h, w): as a matrix product, which takes ONNX
    Runtime a tenth of the time of its own sum over planes."""
    batch, channels, *size = features.shape
    return (features.new_ones(1, channels) @ features.flatten(2)).reshape(batch, 1, *size)


class Alignment(nn.Module):
    """Lucas-Kanade at one resolution.

    `stride`: pixels of the image to one of the features. `window`: side of a cell's window in
    pixels of the features; `window` - CELL / stride is even.
    """

    window: Tensor
    slope: Tensor

    def __init__(self, stride: int, window: int, iterations: int) -> None:
        super().__init__()
        self.stride, self.iterations = stride, iterations
        step = CELL // stride
        self.margin = (window - step) // 2
        self.log_damping = nn.Parameter(torch.tensor(-5.0))
        self.register_buffer("window", _window(window), persistent=False)
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / (8 * step)
        slope = torch.zeros(4, 2, 3, 3)  # of x and y across, of x and y down
        slope[0, 0] = slope[1, 1] = sobel
        slope[2, 0] = slope[3, 1] = sobel.T
        self.register_buffer("slope", slope, persistent=False)

    def forward(self, current: Tensor, previous: Tensor, flow: Tensor) -> Aligned:
        """Refine a flow (batch, 2, h, w) px by features (batch, c, H/stride, W/stride).

        Each cell's flow is solved for by itself. That of its neighbours serves to linearise: were
        the step to depend on it, errors that differ from cell to cell would average out and stay.
        Within a window the flow is taken to vary as it does among the neighbours.
        """
        height, width = current.shape[-2:]
        own = positions(height, width, current)
        across, down = _gradient(current)
        xx, xy, yy = summed(across * across), summed(across * down), summed(down * down)
        one = torch.ones_like(xx)
        damping = self.log_damping.exp()
        flow = flow / self.stride
        for _ in range(self.iterations):
            fine = functional.interpolate(flow, size=(height, width), mode="bilinear")
            there, visible = looked_up(previous, own + fine)
            error = there - current
            u, v = torch.split(fine, 1, dim=1)
            x = summed(across * error) - (xx * u + xy * v)
            y = summed(down * error) - (xy * u + yy * v)
            energy = summed(error * error) / error.shape[1]
            said = torch.cat([xx, xy, yy, x, y, energy, one], dim=1)
            pooled = functional.conv2d(
                said * visible, self.window, stride=CELL // self.stride, padding=self.margin
            )
            linear, right, energy, visible = torch.split(pooled, [12, 2, 1, 1], dim=1)
            around = functional.pad(flow, (1, 1, 1, 1), mode="replicate")
            slope = functional.conv2d(around, self.slope).clamp(-MAX_SLOPE, MAX_SLOPE)
            # Of x and y, what the flow of the centre and its slopes across and down add up to.
            terms = torch.cat([flow, slope], dim=1)
            rows = torch.unflatten(linear, 1, (2, 6))
            right = right + (rows * terms[:, None]).sum(2)
            a, b, d = rows[:, 0, :1], rows[:, 0, 1:2], rows[:, 1, 1:2]
            normal = torch.cat([a, b, d], dim=1)
            a, d = a + damping, d + damping
            x, y = torch.split(right, 1, dim=1)
            step = torch.cat([b * y - d * x, b * x - a * y], dim=1) / (a * d - b * b)
            length = (step * step).sum(1, keepdim=True)
            flow = flow + step * (1.0 + length / MAX_STEP**2).rsqrt()
        information = normal / ((energy + NOISE_FLOOR) * self.stride**2)
        return Aligned(flow * self.stride, information, energy, visible)


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the central differences of an image (batch, c, h, w) across and down."""
    half = 0.5 * image
    wide = functional.pad(half, (1, 1, 0, 0), mode="replicate")
    high = functional.pad(half, (0, 0, 1, 1), mode="replicate")
    return wide[..., 2:] - wide[..., :-2], high[:, :, 2:] - high[:, :, :-2]


def _window(side: int) -> Tensor:
    """Return the convolution (16, 7, side, side) that sums up a cell's window.

    In: the products xx, xy, yy of the gradient, the right-hand side x, y, the energy and what is
    visible. Out: for x (xx, xy) and for y (xy, yy) their mean, then weighted by the way across from
    the window's centre, then by that down; after these the means of the other four.
    """
    offset = torch.arange(side) - (side - 1) / 2.0
    weights = [
        torch.ones(side, side),
        offset.expand(side, side),
        offset[:, None].expand(side, side),
    ]
    table = torch.zeros(16, 7, side, side)
    for k, (row, weight, column) in enumerate(product((0, 1), weights, (0, 1))):
        table[k, row + column] = weight
    for k in range(4):
        table[12 + k, 3 + k] = weights[0]
    return table / side**2
