"""Matching of features between two frames: where each cell of the current one was before."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vo_stream.net.alignment import positions


def match_everywhere(current: Tensor, previous: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    """Compare every cell with every cell (GMFlow, Xu et al. 2022).

    `current`, `previous`: (batch, c, h, w) of unit length over c. Returns the expected
    displacement (batch, 2, h, w) in cells under the softmax of the scores times `sharpness`, and
    the probability (batch, 1, h, w) of the best match.
    """
    batch, _, height, width = current.shape
    own = positions(height, width, current).flatten(2)  # (1, 2, n)
    scores = current.flatten(2).transpose(1, 2) @ previous.flatten(2)
    probability = (scores * sharpness).softmax(dim=2)
    there = (probability @ own.transpose(1, 2)).transpose(1, 2)
    peak = probability.amax(dim=2)
    return (
        (there - own).reshape(batch, 2, height, width),
        peak.reshape(batch, 1, height, width),
    )


def local_scores(current: Tensor, previous: Tensor, radius: int) -> Tensor:
    """Return the scores (batch, h, w, (2 radius + 1)^2) of each cell with the cells around it.

    `current`, `previous`: (batch, c, h, w). Displacements go by rows, x fastest. Each row of
    cells is one matrix product; the band around its diagonal is cut out by padding and reshaping,
    which is several times faster than gathering windows.
    """
    batch, _, height, width = current.shape
    side = 2 * radius + 1
    queries = current.permute(0, 2, 3, 1)  # (batch, h, w, c)
    padded = functional.pad(previous, (radius, radius, radius, radius)).permute(0, 2, 1, 3)
    bands = []
    for dy in range(side):
        product = queries @ padded[:, dy : dy + height]  # (batch, h, w, w + 2 radius)
        flat = functional.pad(product.flatten(2), (0, width))
        bands.append(flat.reshape(batch, height, width, width + side)[..., :side])
    return torch.cat(bands, dim=-1)


def window(radius: int, like: Tensor) -> Tensor:
    """Return the displacements (2, (2 radius + 1)^2) that `local_scores` goes through, in cells."""
    steps = positions(2 * radius + 1, 2 * radius + 1, like) - radius
    return steps[0].flatten(1)
