"""What a camera does to a picture without moving anything in it."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vo_stream.training.draw import Draw
from vo_stream.training.paths import Path

_TAPS = 7
"""Samples along the way a pixel is blurred over."""
_LONGEST_BLUR = 0.06
"""Of the image's width."""


def pixel_flow(inverse_depth: Tensor, path: Path, intrinsics: Tensor) -> Tensor:
    """Return (n, T, 2, H, W) px how the static scene moves through each pixel in a frame's time.

    `inverse_depth`: (n, T, H, W) 1/m. The first frame moves as towards the second.
    """
    n, frames, height, width = inverse_depth.shape
    if frames == 1:
        return torch.zeros(n, 1, 2, height, width, device=inverse_depth.device)
    later = torch.arange(frames, device=inverse_depth.device).clamp(min=1)
    curr_from_world = path.rotation.mT
    turn = curr_from_world[:, later - 1] @ path.rotation[:, later]
    gone = path.position[:, later] - path.position[:, later - 1]
    shift = (curr_from_world[:, later - 1] @ gone[..., None])[..., 0]
    fx, fy, cx, cy = (intrinsics[:, i, None, None, None] for i in range(4))
    v, u = _grid(inverse_depth)
    x, y = (u - cx) / fx, (v - cy) / fy
    px, py, pz = (
        turn[:, :, i, 0, None, None] * x + turn[:, :, i, 1, None, None] * y
        + turn[:, :, i, 2, None, None] + shift[:, :, i, None, None] * inverse_depth
        for i in range(3)
    )  # fmt: skip
    pz = pz.clamp(min=0.2)
    return torch.stack([(px / pz - x) * fx, (py / pz - y) * fy], 2)


def _grid(film: Tensor) -> tuple[Tensor, Tensor]:
    """Return v and u (H, W) of the pixels of (..., H, W)."""
    height, width = film.shape[-2:]
    v = torch.arange(height, device=film.device, dtype=film.dtype)
    u = torch.arange(width, device=film.device, dtype=film.dtype)
    return tuple(torch.meshgrid(v, u, indexing="ij"))  # type: ignore[return-value]


def apply(draw: Draw, film: Tensor, flow: Tensor) -> Tensor:
    """Return film (n, T, H, W) 0..1 as a camera would have taken it.

    `flow`: (n, T, 2, H, W) px a frame.
    """
    n, frames, _, width = film.shape
    device = film.device
    film = film.clamp(min=0)
    shutter = torch.where(draw.chance(0.3, n), draw.uniform(0.05, 0.5, n), 0).to(device)
    for i in range(n):
        if shutter[i] > 0:
            way = (flow[i] * shutter[i]).clamp(-_LONGEST_BLUR * width, _LONGEST_BLUR * width)
            film[i] = _blurred_along(film[i], way)
        if draw.chance(0.3, 1):
            film[i] = _defocused(film[i], float(draw.uniform(0.3, 1.1, 1)))

    def each(value: Tensor) -> Tensor:
        return value.to(device).view(n, -1, 1, 1)

    film = film * (_metered(draw, film) * each(_exposure(draw, n, frames)))
    grey = film.mean((1, 2, 3), keepdim=True)
    film = (film - grey) * each(draw.log_uniform(0.6, 1.6, n)) + grey
    film = film * _vignette(each(draw.uniform(0, 0.5, n) * draw.chance(0.5, n)), film)
    film = film.clamp(0, 1) ** each(draw.log_uniform(0.7, 1.3, n))
    noisy = draw.chance(0.85, n)
    read = draw.log_uniform(0.001, 0.02, n) * noisy
    shot = draw.log_uniform(0.001, 0.025, n) * noisy
    noise = torch.randn(film.shape, generator=draw.generator_on(device), device=device)
    film = film + noise * (each(read).square() + each(shot).square() * film.clamp(min=0)).sqrt()
    return film.clamp(0, 1)


def _metered(draw: Draw, film: Tensor) -> Tensor:
    """Return gains (n, T, 1, 1) that bring the mean brightness to a level.

    Some cameras hold their first setting, others follow the picture.
    """
    n = len(film)
    level, follow = draw.uniform(0.25, 0.6, n), draw.uniform(0, 1, n) * draw.chance(0.5, n)
    level, follow = (value.to(film.device).view(n, 1, 1, 1) for value in (level, follow))
    mean = film.mean((2, 3), keepdim=True).clamp(min=0.02)
    return level / (mean[:, :1] ** (1 - follow) * mean**follow)


def _exposure(draw: Draw, n: int, frames: int) -> Tensor:
    """Return (n, T) gains: a drift, a flicker, sometimes a jump."""
    time = torch.linspace(0, 1, frames)
    drift = 0.15 * draw.normal(n, 1) * draw.chance(0.5, n, 1) * time
    flicker = draw.log_uniform(0.001, 0.03, n, 1) * draw.normal(n, frames)
    jump = 0.3 * draw.normal(n, 1) * draw.chance(0.15, n, 1) * (time > draw.uniform(0, 1, n, 1))
    return torch.exp(drift + flicker + jump)


def _vignette(strength: Tensor, film: Tensor) -> Tensor:
    height, width = film.shape[-2:]
    y = torch.linspace(-1, 1, height, device=film.device)[:, None] * height / width
    x = torch.linspace(-1, 1, width, device=film.device)
    return 1 - strength * (x.square() + y.square())


def _blurred_along(film: Tensor, way: Tensor) -> Tensor:
    """Return film (T, H, W) averaged over the way (T, 2, H, W) px, centred on each pixel."""
    height, width = film.shape[-2:]
    v, u = _grid(film)
    total = torch.zeros_like(film)
    for tap in torch.linspace(-0.5, 0.5, _TAPS).tolist():
        at_u = (u + tap * way[:, 0]) * 2 / (width - 1) - 1
        at_v = (v + tap * way[:, 1]) * 2 / (height - 1) - 1
        grid = torch.stack([at_u, at_v], -1)
        total += F.grid_sample(film[:, None], grid, align_corners=True, padding_mode="border")[:, 0]
    return total / _TAPS


def _defocused(film: Tensor, sigma: float) -> Tensor:
    at = torch.arange(-3, 4, device=film.device).float()
    kernel = torch.exp(-0.5 * (at / sigma).square())
    kernel = kernel / kernel.sum()
    padded = F.pad(film[:, None], (3, 3, 3, 3), mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, 7)), kernel.view(1, 1, 7, 1))
    return blurred[:, 0]
