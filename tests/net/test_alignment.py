"""Sub-pixel alignment: how precisely it finds a shift, and what it says of its own precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vo_stream.net.alignment import (
    CELL,
    Aligned,
    Alignment,
    inside,
    looked_up,
    positions,
    sample,
    summed,
    to_grid,
)
from vo_stream.net.alignment import _gathered as gathered

HEIGHT, WIDTH = 96, 160
INNER = slice(2, -2)
"""Cells whose windows lie in the image wherever the flow leads."""


def texture(stride: int, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """Return features (1, 8, HEIGHT / stride, WIDTH / stride) of what moved by `shift`, pixels of
    the image."""
    y, x = torch.meshgrid(
        torch.arange(HEIGHT // stride) - shift[1] / stride,
        torch.arange(WIDTH // stride) - shift[0] / stride,
        indexing="ij",
    )
    return waves(x, y)


def warped(stride: int, growth: float) -> Tensor:
    """Return what `texture` would be had every pixel come from (1 + growth) as far from the
    middle cell."""
    middle = (WIDTH - 1.0) / 2
    x, y = (
        ((torch.arange(n // stride) + 0.5) * stride - 0.5 - middle) * (1.0 + growth) + middle
        for n in (WIDTH, HEIGHT)
    )
    y, x = torch.meshgrid(y, x, indexing="ij")
    return waves((x + 0.5) / stride - 0.5, (y + 0.5) / stride - 0.5)


def waves(x: Tensor, y: Tensor) -> Tensor:
    """Return 8 random sums of sinusoids of at least 8 pixels, at some positions."""
    generator = torch.Generator().manual_seed(7)
    n = 24
    angle, phase = 2.0 * math.pi * torch.rand(2, 8, n, 1, 1, generator=generator)
    length = 8.0 + 24.0 * torch.rand(8, n, 1, 1, generator=generator)
    along = (angle.cos() * x + angle.sin() * y) / length
    return torch.sin(2.0 * math.pi * along + phase).sum(1)[None].mul((2.0 / n) ** 0.5)


def no_flow() -> Tensor:
    return torch.zeros(1, 2, HEIGHT // CELL, WIDTH // CELL)


def layer(stride: int) -> Alignment:
    return Alignment(stride, window={2: 8, 4: 6}[stride], iterations=2)


def inner(values: Tensor) -> Tensor:
    return values[..., INNER, INNER].detach()


def median_error(found: Aligned, truth: Tensor) -> float:
    return float(inner(found.flow - truth).norm(dim=1).median())


def constant(shift: tuple[float, float]) -> Tensor:
    return no_flow() + torch.tensor(shift)[:, None, None]


SHIFTS = [(0.3, 0.0), (0.0, -0.5), (-0.7, 0.7), (1.5, -0.4), (0.5, 2.0)]


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_is_found_to_a_fraction_of_a_pixel(shift: tuple[float, float]) -> None:
    found = layer(2)(texture(2), texture(2, shift), no_flow())
    assert median_error(found, constant(shift)) < 0.03
    assert inner(found.visible).min() == 1.0


@pytest.mark.parametrize("shift", [*SHIFTS, (3.0, -5.0)])
def test_first_at_a_quarter_then_at_half(shift: tuple[float, float]) -> None:
    first = layer(4)(texture(4), texture(4, shift), no_flow())
    assert median_error(first, constant(shift)) < 0.15
    second = layer(2)(texture(2), texture(2, shift), first.flow)
    assert median_error(second, constant(shift)) < 0.03


@pytest.mark.parametrize("stride", [2, 4])
def test_a_first_guess_that_errs_from_cell_to_cell_is_forgotten(stride: int) -> None:
    shift = (17.3, -11.6)
    generator = torch.Generator().manual_seed(1)
    guess = constant(shift) + 0.5 * torch.randn(no_flow().shape, generator=generator)
    align = layer(stride)
    for align.iterations in (2, 8):
        found = align(texture(stride), texture(stride, shift), guess)
        error = (found.flow - constant(shift))[..., 3:-3, 4:-4].norm(dim=1)
        assert error.median() < 0.015 * stride
    assert found.visible[..., 0, -1].max() == 0.0, "the top right of it was not seen before"
    assert found.information[..., 0, -1].abs().max() == 0.0


@pytest.mark.parametrize("stride", [2, 4])
def test_a_flow_that_grows_outwards_is_no_less_precise(stride: int) -> None:
    rows, columns = HEIGHT // CELL, WIDTH // CELL
    flow = 0.05 * CELL * (positions(rows, columns, no_flow()) - (columns - 1) / 2)
    current = warped(stride, 0.05)
    found = layer(stride)(current, texture(stride), flow + 0.4)
    assert median_error(found, flow) < 0.015 * stride


def test_a_window_that_is_seen_in_part_is_aligned_by_that_part() -> None:
    shift = (10.0, -7.0)
    found = layer(2)(texture(2), texture(2, shift), constant(shift) + 0.4)
    part = (found.visible > 0.3) & (found.visible < 1.0)
    assert part.sum() > 10
    error = (found.flow - constant(shift)).norm(dim=1, keepdim=True)
    assert error[part].median() < 0.05


def information(current: Tensor, previous: Tensor, stride: int = 2) -> tuple[Tensor, ...]:
    found: Aligned = layer(stride)(current, previous, no_flow())
    return inner(found.information).unbind(1)


def test_an_edge_tells_of_one_direction() -> None:
    wave = torch.sin(torch.arange(WIDTH // 2) * 0.7)
    upright = wave.expand(1, 1, HEIGHT // 2, -1)
    xx, xy, yy = information(upright, upright)
    assert xx.min() > 100.0 * yy.max()
    assert xy.abs().max() < 1e-3 * xx.min()
    y, x = torch.meshgrid(torch.arange(HEIGHT // 2), torch.arange(WIDTH // 2), indexing="ij")
    slanted = torch.sin((x + y) * 0.5)[None, None]
    xx, xy, yy = information(slanted, slanted)
    torch.testing.assert_close(xx, xy, rtol=1e-3, atol=0.0)
    torch.testing.assert_close(xx, yy, rtol=1e-3, atol=0.0)


def test_a_blank_image_tells_nothing_and_moves_nothing() -> None:
    blank = torch.full((1, 8, HEIGHT // 2, WIDTH // 2), 0.3)
    found = layer(2)(blank, blank, no_flow() + 1.5)
    assert found.information.abs().max() == 0.0
    torch.testing.assert_close(found.flow, no_flow() + 1.5)


def test_noise_makes_the_information_less() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = texture(2)
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=generator)
    assert information(clean, noisy)[0].mean() < 0.1 * information(clean, clean)[0].mean()


def test_more_information_means_less_error() -> None:
    generator = torch.Generator().manual_seed(0)
    contrast = torch.linspace(0.05, 1.0, WIDTH // 2)
    errors, standard = [], []
    for _ in range(30):
        current, previous = texture(2) * contrast, texture(2, (0.6, -0.3)) * contrast
        previous = previous + 0.1 * torch.randn(previous.shape, generator=generator)
        found = layer(2)(current, previous, no_flow())
        errors.append(inner(found.flow) - torch.tensor([0.6, -0.3])[:, None, None])
        xx, _, yy = inner(found.information).unbind(1)
        standard.append(torch.stack([xx, yy], dim=1).rsqrt())
    error = torch.cat(errors).square().mean((0, 1, 2)).sqrt()  # of each column of cells
    predicted = torch.cat(standard).square().mean((0, 1, 2)).sqrt()
    ratio = error / predicted
    assert error[0] > 5.0 * error[-1]
    assert ratio.max() < 3.0 * ratio.min(), "right up to a factor"


@pytest.mark.parametrize(
    ("current", "previous", "flow"),
    [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 1e6), (1e4, -1e4, 3.0), (0.0, 1e4, -50.0)],
)
def test_it_is_finite_whatever_comes(current: float, previous: float, flow: float) -> None:
    inputs = [texture(2) * current, texture(2, (0.5, 0.5)) * previous, no_flow() + flow]
    inputs = [x.requires_grad_() for x in inputs]
    align = layer(2)
    found = align(*inputs)
    assert all(torch.isfinite(x).all() for x in found)
    total = found.flow.sum() + found.information.log1p().sum() + found.energy.log1p().sum()
    gradients = torch.autograd.grad(total, [*inputs, align.log_damping])
    assert all(torch.isfinite(x).all() for x in gradients)


def test_sampling_agrees_with_the_pixels_and_their_means() -> None:
    image = torch.arange(20.0).reshape(1, 1, 4, 5)
    torch.testing.assert_close(sample(image, to_grid(positions(4, 5, image), 4, 5)), image)
    between = sample(image, to_grid(torch.tensor([1.5, 2.25]).reshape(1, 2, 1, 1), 4, 5))
    assert float(between) == pytest.approx(1.5 + 5 * 2.25)
    beyond = sample(image, to_grid(torch.tensor([-9.0, 99.0]).reshape(1, 2, 1, 1), 4, 5))
    assert float(beyond) == 15.0


def test_what_is_exported_looks_up_the_same() -> None:
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(1, 3, 12, 20, generator=generator)
    where = 40.0 * torch.rand(1, 2, 9, 7, generator=generator) - 10.0  # beyond the borders, too
    where[..., 0, :] = torch.tensor([-0.25, 19.0, 0.0, 11.0, 18.75, 0.25, 1e30])
    torch.testing.assert_close(gathered(image, where), looked_up(image, where))
    where[..., 0, 0] = torch.nan
    values, visible = gathered(image, where)
    assert torch.isfinite(values[..., 1:, :]).all()
    assert visible[..., 0, 0] == 0.0


def test_inside_is_up_to_the_border_of_the_last_pixel() -> None:
    where = torch.tensor([[-0.49, 4.49, 4.51, 2.0, -0.51], [0.0, 3.49, 0.0, 3.51, 1.0]])
    grid = to_grid(where[None, :, None], 4, 5)
    assert inside(grid).flatten().tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_channels_are_summed() -> None:
    features = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(summed(features), features.sum(1, keepdim=True))
