"""Procedural textures, filtered for any distance and slant: an atlas of rip-maps.

A rip-map (Larson 1990) holds an image reduced by every pair of powers of two along its two axes,
so that a road seen at a grazing angle is averaged far along and little across: no flicker, which
a network would take for motion, and no needless blur.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vo_stream.training.draw import Draw

SIDE = 256
"""Texels along a texture's side; textures repeat without a seam."""
_LEVELS = SIDE.bit_length() - 1
"""Reductions by two: from SIDE texels to one."""
_CONTRAST = 0.2
"""Standard deviation of every texture; its mean is 0.5."""


class Families(NamedTuple):
    """First and one-past-last number of each family of textures in the atlas."""

    cloudy: tuple[int, int]
    grainy: tuple[int, int]
    bricks: tuple[int, int]
    tiles: tuple[int, int]
    patches: tuple[int, int]
    windows: tuple[int, int]
    planks: tuple[int, int]
    writing: tuple[int, int]
    posters: tuple[int, int]
    leaves: tuple[int, int]
    cars: tuple[int, int]


def _grid() -> tuple[Tensor, Tensor]:
    along = torch.arange(SIDE, dtype=torch.float32)
    y, x = torch.meshgrid(along, along, indexing="ij")
    return y, x


def noise(draw: Draw, slope: float, stretch: float = 1.0) -> Tensor:
    """Return (SIDE, SIDE) noise of amplitude ~ frequency^-slope, mean 0 and deviation 1.

    `stretch`: how much longer than wide its forms are, down the rows.
    """
    frequency = torch.fft.fftfreq(SIDE) * SIDE
    radius = torch.hypot(stretch * frequency[:, None], frequency[None, :])
    shape = radius.clamp(min=1) ** -slope
    shape[0, 0] = 0
    spectrum = torch.fft.fft2(draw.normal(SIDE, SIDE)) * shape
    image: Tensor = torch.fft.ifft2(spectrum).real
    return image / image.std()


def _cloudy(draw: Draw) -> Tensor:
    return noise(draw, float(draw.uniform(1.1, 2.0, 1)))


def _grainy(draw: Draw) -> Tensor:
    image = noise(draw, float(draw.uniform(0.3, 0.9, 1)))
    return image + float(draw.uniform(0, 1.0, 1)) * noise(draw, 1.8)


def _bricks(draw: Draw) -> Tensor:
    y, x = _grid()
    rows = 2 ** int(draw.integers(2, 5, 1))
    columns = max(2, rows // int(draw.integers(1, 4, 1)))
    tall, wide = SIDE / rows, SIDE / columns
    row = (y / tall).floor()
    shifted = x / wide + 0.5 * (row % 2) * float(draw.chance(0.7, 1))
    column = shifted.floor() % columns
    tone = draw.normal(rows, columns)[row.long() % rows, column.long()]
    joint = (y % tall < 2) | ((shifted % 1) * wide < 2)
    depth = float(draw.uniform(0.5, 3, 1)) * float(draw.sign(1))
    return torch.add(tone * draw.uniform(0.2, 1, 1), joint * depth) + 0.5 * noise(draw, 1.0)


def _tiles(draw: Draw) -> Tensor:
    y, x = _grid()
    count = 2 ** int(draw.integers(1, 4, 1))
    side = SIDE / count
    row, column = (y / side).long(), (x / side).long()
    tone = draw.normal(count, count)[row, column] * float(draw.uniform(0.02, 0.4, 1))
    chequered = ((row + column) % 2) * float(draw.chance(0.3, 1)) * 2
    joint = ((y % side < 1.5) | (x % side < 1.5)) * float(draw.uniform(0.7, 2, 1))
    return torch.add(tone, chequered - joint) + 0.15 * noise(draw, 1.5)


def _patches(draw: Draw) -> Tensor:
    """Return hard-edged blots, as of shade or repaired ground."""
    field = noise(draw, float(draw.uniform(1.2, 1.9, 1))) - draw.uniform(-0.6, 0.8, 1)
    return torch.sigmoid(draw.uniform(8, 25, 1) * field)


def _windows(draw: Draw) -> Tensor:
    y, x = _grid()
    rows, columns = int(draw.integers(1, 4, 1)), int(draw.integers(1, 5, 1))
    v, u = (y / SIDE * rows) % 1, (x / SIDE * columns) % 1
    cell = ((y / SIDE * rows).long() % rows, (x / SIDE * columns).long() % columns)
    half_wide = float(draw.uniform(0.15, 0.4, 1))
    half_tall = float(draw.uniform(0.2, 0.4, 1))
    across, down = (u - 0.5).abs() / half_wide, (v - 0.5).abs() / half_tall
    glass = (across < 1) & (down < 1)
    frame = (across < 1.16) & (down < 1.1) & ~glass
    bars = glass & ((across < 0.07) | ((down < 0.06) & bool(draw.chance(0.5, 1))))
    pane = draw.normal(rows, columns)[cell] * 0.8 - 2.2 + 0.5 * noise(draw, 2.0)
    wall = 0.25 * noise(draw, 1.2) + float(draw.normal(1)) * 0.2
    ledge = ((v - 0.5 - half_tall) / 0.05).clamp(0, 1) * ((v - 0.5 - half_tall) < 0.08)
    image = wall + (across < 1.3) * ledge * float(draw.uniform(-1.5, 1.5, 1))
    image = torch.where(glass, pane, image)
    return torch.where(frame | bars, float(draw.uniform(-1, 2.0, 1)), image)


def _planks(draw: Draw) -> Tensor:
    _, x = _grid()
    count = int(draw.integers(3, 24, 1))
    board = (x / SIDE * count).long() % count
    tone = draw.normal(count)[board]
    gap = ((x / SIDE * count) % 1) < 0.06
    image = tone + 0.5 * noise(draw, 0.6, 16.0) - gap * draw.uniform(0, 3, 1)
    return image if bool(draw.chance(0.5, 1)) else image.T


def _writing(draw: Draw) -> Tensor:
    lines = int(draw.integers(8, 24, 1))
    letters = draw.chance(0.6, lines * 3, SIDE // 3 + 1).float()
    letters[::3] = 0
    word = F.interpolate(draw.uniform(0, 1, 1, 1, lines, 24), (lines, SIDE // 3 + 1))[0, 0] > 0.2
    letters *= word.repeat_interleave(3, 0)
    fill = draw.chance(0.85, lines).float().repeat_interleave(3)[:, None]
    image = F.interpolate((letters * fill)[None, None], (SIDE, SIDE))[0, 0]
    return image * float(draw.uniform(1, 3, 1)) * float(draw.sign(1)) + 0.2 * noise(draw, 1.6)


def _posters(draw: Draw) -> Tensor:
    y, x = _grid()
    image = noise(draw, 1.8) * float(draw.uniform(0, 1, 1))
    for _ in range(int(draw.integers(6, 30, 1))):
        cx, cy = draw.uniform(0, SIDE, 2).tolist()
        wide, tall = draw.log_uniform(5, 90, 2).tolist()
        dx = (x - cx + SIDE / 2) % SIDE - SIDE / 2
        dy = (y - cy + SIDE / 2) % SIDE - SIDE / 2
        turn = float(draw.uniform(0, math.pi, 1)) * float(draw.chance(0.5, 1))
        a = (dx * math.cos(turn) + dy * math.sin(turn)) / wide
        b = (dy * math.cos(turn) - dx * math.sin(turn)) / tall
        round_ = bool(draw.chance(0.4, 1))
        inside = (a.square() + b.square() < 1) if round_ else torch.maximum(a.abs(), b.abs()) < 1
        image = torch.where(inside, 1.5 * draw.normal(1) + 0.3 * image, image)
    return image + 0.15 * noise(draw, 0.8)


def _leaves(draw: Draw) -> Tensor:
    clumps, fine = noise(draw, 1.3), noise(draw, float(draw.uniform(0.4, 0.8, 1)))
    return torch.sigmoid(2 * clumps) * (1.5 + fine) + 0.4 * fine


def _cars(draw: Draw) -> Tensor:
    y, x = _grid()
    v, u = y / SIDE, x / SIDE
    shine = 0.6 * torch.sin(2 * math.pi * (v + float(draw.uniform(0, 1, 1)))) + 0.3 * noise(draw, 2)
    seam = ((u * int(draw.integers(2, 6, 1))) % 1 < 0.03) * -1.5
    lamp = (((u - 0.5).abs() > 0.35) & ((v - 0.45).abs() < 0.08)) * 2.0
    plate = (((u - 0.5).abs() < 0.12) & ((v - 0.6).abs() < 0.06)) * 1.5
    return shine + seam + lamp + plate


_MAKERS = (
    (_cloudy, 8), (_grainy, 8), (_bricks, 7), (_tiles, 6), (_patches, 6), (_windows, 12),
    (_planks, 5), (_writing, 6), (_posters, 10), (_leaves, 6), (_cars, 4),
)  # fmt: skip


def families() -> Families:
    """Return where each family lies in the atlas."""
    ends = [sum(n for _, n in _MAKERS[: i + 1]) for i in range(len(_MAKERS))]
    starts = [0, *ends[:-1]]
    return Families(*zip(starts, ends, strict=True))


@lru_cache(maxsize=2)
def atlas(device: torch.device) -> Tensor:
    """Return the packed rip-maps (n * (2 SIDE)^2,) int32.

    Texture n, row y and column x of its rip-map are at (n * 2 SIDE + y) * 2 SIDE + x; the level
    reduced 2^l times along an axis starts at 2 SIDE (1 - 2^-l) there. An element holds four uint8:
    the texel, its right, its lower and its lower right neighbour.
    """
    draw = Draw(torch.Generator().manual_seed(1))
    packed = [_packed(_levelled(make(draw))) for make, count in _MAKERS for _ in range(count)]
    return torch.stack(packed).flatten().to(device)


def _levelled(image: Tensor) -> Tensor:
    image = (image - image.mean()) / image.std().clamp(min=1e-6)
    return (image * _CONTRAST).clamp(-0.5, 0.5) + 0.5


def _packed(image: Tensor) -> Tensor:
    out = torch.zeros(2 * SIDE, 2 * SIDE, 4, dtype=torch.uint8)
    for level_y in range(_LEVELS + 1):
        for level_x in range(_LEVELS + 1):
            tall, wide = SIDE >> level_y, SIDE >> level_x
            small = image.reshape(tall, SIDE // tall, wide, SIDE // wide).mean((1, 3))
            small = (small * 255).round().to(torch.uint8)
            right = small.roll(-1, 1)
            quad = torch.stack([small, right, small.roll(-1, 0), right.roll(-1, 0)], -1)
            top, left = 2 * SIDE - 2 * tall, 2 * SIDE - 2 * wide
            out[top : top + tall, left : left + wide] = quad
    return out.view(torch.int32)[..., 0]


def sample(atlas: Tensor, texture: Tensor, u: Tensor, v: Tensor, du: Tensor, dv: Tensor) -> Tensor:
    """Return the filtered values (n,) in 0..1, mean 0.5.

    `texture`: (n,) int64 number. `u`, `v`: (n,) place in repeats of the texture; `du`, `dv`: (n,)
    extent of the pixel's footprint along them.
    """
    columns, across = _taps(u, du)
    rows, down = _taps(v, dv)
    base = texture * (4 * SIDE * SIDE)
    value = torch.zeros_like(u)
    for row, (down_0, down_1) in zip(rows, down, strict=True):
        line = torch.add(base, row, alpha=2 * SIDE)
        for column, (across_0, across_1) in zip(columns, across, strict=True):
            quad = atlas[line + column].view(torch.uint8).view(-1, 4)
            a, b, c, d = quad.T.float()
            value += down_0 * (across_0 * a + across_1 * b) + down_1 * (across_0 * c + across_1 * d)
    return value / 255


def _taps(at: Tensor, extent: Tensor) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
    """Return, of the two levels to blend, the index along the axis and both texels' weights."""
    level = torch.log2((extent * SIDE).clamp(min=1)).clamp(max=_LEVELS - 0.001)
    lower = level.floor()
    share = level - lower
    size = torch.exp2(-lower) * SIDE
    places, weights = [], []
    at = at - at.floor()
    for weight in (1 - share, share):
        place = at * size - 0.5
        whole = place.floor()
        part = (place - whole) * weight
        index = torch.where(whole < 0, whole + size, whole)
        places.append((index + (2 * SIDE - 2 * size)).long())
        weights.append((weight - part, part))
        size = size * 0.5
    return places, weights
