"""The encoder: shapes at every size, and what of the image must not matter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vo_stream.net.encoder import (
    CELLS,
    COARSE,
    CONTEXT,
    HALF,
    POOLED,
    QUARTER,
    Encoder,
    Features,
    local_contrast,
)


def noise(height: int, width: int) -> Tensor:
    return torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(1))


def encoded(image: Tensor) -> Features:
    torch.manual_seed(0)
    encoder = Encoder().eval()
    with torch.no_grad():
        found: Features = encoder(image)
    return found


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 160), (64, 32)])
def test_features_of_every_size(height: int, width: int) -> None:
    found = encoded(noise(height, width).expand(2, 1, -1, -1))
    assert found.half.shape == (2, HALF, height // 2, width // 2)
    assert found.quarter.shape == (2, QUARTER, height // 4, width // 4)
    assert found.cells.shape == (2, CELLS, height // 8, width // 8)
    assert found.coarse.shape == (2, COARSE, height // 16, width // 16)
    assert found.context.shape == (2, CONTEXT, height // 8, width // 8)
    assert found.pooled.shape == (2, POOLED)
    torch.testing.assert_close(found.coarse.norm(dim=1), torch.ones(2, height // 16, width // 16))


def test_exposure_hardly_changes_the_contrast() -> None:
    image = 0.3 + 0.4 * noise(64, 96)
    contrast = local_contrast(image)
    assert 0.5 < contrast.std() < 1.0
    assert (local_contrast(image + 0.2) - contrast).abs().max() < 1e-4
    assert (local_contrast(1.4 * image) - contrast).abs().max() < 0.3


def test_the_contrast_is_what_alignment_sees_first() -> None:
    image = noise(64, 96)
    assert torch.equal(encoded(image).half[:, :1], local_contrast(image))


def test_a_blank_image_has_no_contrast_but_a_brightness() -> None:
    black, white = torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)
    assert local_contrast(white).abs().max() < 1e-5
    assert (encoded(black).context - encoded(white).context).abs().max() > 1e-3


def test_sensor_noise_is_not_blown_up() -> None:
    dark = 0.1 + 0.005 * (noise(64, 64) - 0.5)
    assert local_contrast(dark).std() < 0.1


def test_features_move_with_the_image() -> None:
    wide = noise(192, 256)
    here, there = encoded(wide[..., :-32]), encoded(wide[..., 32:])
    for fine, stride in ((here.half, 2), (here.quarter, 4), (here.cells, 8)):
        shift = 32 // stride
        name = {2: "half", 4: "quarter", 8: "cells"}[stride]
        other = getattr(there, name)
        edge = 64 // stride  # what the border's padding reaches
        torch.testing.assert_close(
            fine[..., shift + edge : -edge], other[..., edge : -shift - edge], rtol=1e-3, atol=1e-4
        )
