"""Matching of features between two frames: where each cell of the current one was before."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vo_stream.net.alignment import positions

BLOCK = 4
"""Side of the squares of cells that are matched with their neighbours together."""


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

    `current`, `previous`: (batch, c, h, w), h and w multiples of `BLOCK`. Displacements go by rows,
    x fastest. Each square of cells is multiplied with all that its cells reach, which is several
    times faster than gathering a window for each; a cell's window is then cut out of its reach by
    padding and reshaping: from one cell to the next it lies one element further on.
    """
    batch, _, height, width = current.shape
    rows, columns = height // BLOCK, width // BLOCK
    side, reach = 2 * radius + 1, 2 * radius + BLOCK
    padded = functional.pad(previous.permute(0, 2, 3, 1), (0, 0) + (radius,) * 4)
    queries = _squares(current.permute(0, 2, 3, 1), BLOCK, rows, columns)
    keys = _squares(padded, reach, rows, columns)
    scores = (queries @ keys.transpose(2, 3)).flatten(2)
    scores = torch.unflatten(functional.pad(scores, (0, BLOCK * reach)), 2, (BLOCK, -1))
    scores = torch.unflatten(scores[..., : BLOCK * (reach * reach + 1)], 3, (BLOCK, -1))
    scores = torch.unflatten(scores[..., : side * reach], 4, (side, reach))[..., :side]
    scores = scores.reshape(batch, rows, columns, BLOCK, BLOCK, side * side)
    return scores.transpose(2, 3).reshape(batch, height, width, side * side)


def _squares(cells: Tensor, side: int, rows: int, columns: int) -> Tensor:
    """Return (batch, rows * columns, side^2, c): of cells (batch, h, w, c) the squares that begin
    at each `BLOCK`th."""
    width = cells.shape[2]
    first = torch.arange(rows, device=cells.device)[:, None, None, None] * (BLOCK * width)
    first = first + torch.arange(columns, device=cells.device)[:, None, None] * BLOCK
    step = torch.arange(side, device=cells.device)
    index = first + (step[:, None] * width + step)
    found = cells.flatten(1, 2).index_select(1, index.flatten())
    return found.reshape(len(cells), rows * columns, side * side, cells.shape[3])


def window(radius: int, like: Tensor) -> Tensor:
    """Return the displacements (2, (2 radius + 1)^2) that `local_scores` goes through, in cells."""
    steps = positions(2 * radius + 1, 2 * radius + 1, like) - radius
    return steps[0].flatten(1)
