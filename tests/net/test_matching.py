"""Matching: the fast forms equal the plain ones, and shifts are found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vo_stream.net.matching import local_scores, match_everywhere, window


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width", "radius"), [(4, 8, 1), (12, 8, 2), (8, 4, 3)])
def test_local_scores_equal_a_plain_loop(height: int, width: int, radius: int) -> None:
    current, previous = features(1, 2, 5, height, width), features(2, 2, 5, height, width)
    side = 2 * radius + 1
    expected = torch.zeros(2, height, width, side * side)
    for k, (dy, dx) in enumerate((y, x) for y in range(side) for x in range(side)):
        for i in range(height):
            for j in range(width):
                y, x = i + dy - radius, j + dx - radius
                if 0 <= y < height and 0 <= x < width:
                    score = (current[:, :, i, j] * previous[:, :, y, x]).sum(1)
                    expected[:, i, j, k] = score
    torch.testing.assert_close(local_scores(current, previous, radius), expected)


def test_the_window_names_the_displacements_of_the_scores() -> None:
    current = features(3, 1, 16, 8, 12)
    previous = torch.roll(current, (1, -2), (2, 3))  # down by 1, left by 2
    scores = local_scores(functional.normalize(current, dim=1), previous, 3)
    best = scores[0, 3:-3, 3:-3].argmax(2)
    steps = window(3, scores)[:, best]
    assert (steps[0] == -2).all()
    assert (steps[1] == 1).all()


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -3), (-4, 6)])
def test_whole_shifts_are_found_everywhere(down: int, right: int) -> None:
    current = functional.normalize(features(4, 2, 32, 10, 14), dim=1)
    previous = torch.roll(current, (down, right), (2, 3))
    flow, peak = match_everywhere(current, previous, torch.tensor(40.0))
    rows, columns = torch.meshgrid(torch.arange(10), torch.arange(14), indexing="ij")
    stays = (rows + down).clamp(0, 9) == rows + down
    stays &= (columns + right).clamp(0, 13) == columns + right
    assert (flow[:, 0, stays] - right).abs().max() < 1e-2
    assert (flow[:, 1, stays] - down).abs().max() < 1e-2
    assert peak.min() > 0.99


def test_what_looks_like_everything_is_no_match() -> None:
    alike = torch.ones(1, 4, 6, 8) / 2.0
    flow, peak = match_everywhere(alike, alike, torch.tensor(12.0))
    torch.testing.assert_close(peak, torch.full_like(peak, 1.0 / 48.0))
    torch.testing.assert_close(flow[0, :, 0, 0], torch.tensor([3.5, 2.5]))  # the image's middle
