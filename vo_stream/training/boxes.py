"""What worlds are made of: textured boxes, a road, light."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vo_stream.training.draw import Draw
from vo_stream.training.paths import Path
from vo_stream.training.textures import families

_GONE = 1e5
"""m below the ground: where boxes are put that would be in the way."""
_F = families()


@dataclass(frozen=True)
class Boxes:
    """K boxes in each of n worlds; box 0 is seen from inside and encloses all others."""

    centre: Tensor
    """(n, K, 3) m, at time 0."""
    half: Tensor
    """(n, K, 3) m, half the extents."""
    yaw: Tensor
    """(n, K) rad about the vertical."""
    velocity: Tensor
    """(n, K, 3) m/s."""
    side: Tensor
    """(n, K) texture of the upright faces."""
    top: Tensor
    """(n, K) texture of the level faces."""
    repeat: Tensor
    """(n, K, 2) m a repeat of the texture, along and up."""
    albedo: Tensor
    """(n, K) mean brightness."""
    contrast: Tensor
    """(n, K) of the texture."""
    second: Tensor
    """(n, K) texture laid over the first, larger, so that nothing repeats."""
    rough: Tensor
    """(n, K) contrast of the second texture."""
    round: Tensor
    """(n, K) bool: the ellipsoid within the box, in its stead."""


@dataclass(frozen=True)
class Road:
    """What is painted on the ground of n streets, by the distance to the right of the middle."""

    bend: Tensor
    """(n,) 1/m, positive to the right."""
    edges: Tensor
    """(n, 4) m: left pavement, road, right pavement, verge begin here."""
    shades: Tensor
    """(n, 5) brightness of verge, pavement, road, pavement, verge, added to the ground's."""
    lines: Tensor
    """(n, L, 6) painted lines: place m, width m, dash period m, share painted, shift m, gain."""
    verge: Tensor
    """(n,) texture beyond the pavements."""
    pavement: Tensor
    """(n,) texture of the pavements."""


@dataclass(frozen=True)
class World:
    """n worlds and their light."""

    boxes: Boxes
    sun: Tensor
    """(n, 3) unit vector towards the light."""
    ambient: Tensor
    """(n,) share of the light that comes from everywhere."""
    haze: Tensor
    """(n,) 1/m at which things fade into the sky."""
    sky: Tensor
    """(n, 3) brightness of the sky, contrast of its clouds, their size."""
    road: Road | None
    """Of streets alone; without one, box 0 is a room."""


def plain(draw: Draw, n: int, m: int, family: tuple[int, int], repeat: float) -> Boxes:
    """Return m boxes whose place is still to be set, textured from one family."""
    texture = draw.integers(*family, n, m)
    return Boxes(
        centre=torch.zeros(n, m, 3), half=torch.ones(n, m, 3), yaw=torch.zeros(n, m),
        velocity=torch.zeros(n, m, 3), side=texture, top=texture,
        repeat=(repeat * draw.log_uniform(0.6, 1.7, n, m))[..., None].expand(n, m, 2).clone(),
        albedo=draw.uniform(0.1, 0.8, n, m), contrast=draw.log_uniform(0.08, 0.8, n, m),
        second=draw.integers(_F.cloudy[0], _F.grainy[1], n, m),
        rough=draw.log_uniform(0.03, 0.3, n, m), round=torch.zeros(n, m, dtype=torch.bool),
    )  # fmt: skip


def textured(draw: Draw, boxes: Boxes, *members: tuple[int, int]) -> Boxes:
    """Return boxes with textures from any of these families."""
    n, m = boxes.side.shape
    choices = torch.cat([torch.arange(*family) for family in members])
    side = choices[draw.integers(0, len(choices), n, m)]
    return replace(boxes, side=side, top=choices[draw.integers(0, len(choices), n, m)])


def only(boxes: Boxes, present: Tensor) -> Boxes:
    """Return the boxes that are present (n, K), the others out of sight."""
    centre = boxes.centre.clone()
    centre[..., 1] = torch.where(present, centre[..., 1], _GONE)
    return replace(boxes, centre=centre, half=torch.where(present[..., None], boxes.half, 1e-3))


def in_the_way(boxes: Boxes, path: Path, margin: float, ahead: float = 0.0) -> Tensor:
    """Return (n, K) whether a box comes closer than a margin in m to the path.

    The path is taken to go on for `ahead` s beyond its end.
    """
    position, times = _finer(path.position, path.stamps.float(), ahead)
    times = times[:, :, None, None]
    away = position[:, :, None] - boxes.centre[:, None] - boxes.velocity[:, None] * times
    cos, sin = boxes.yaw.cos()[:, None], boxes.yaw.sin()[:, None]
    x, y, z = away.unbind(-1)
    local = torch.stack([cos * x - sin * z, y, sin * x + cos * z], -1)
    outside = (local.abs() - boxes.half[:, None]).clamp(min=0).norm(dim=-1)
    near: Tensor = outside < margin
    return near.any(1)


def clear(boxes: Boxes, path: Path, margin: float, ahead: float = 0.0) -> Boxes:
    """Return the boxes without those that are in the way; box 0 always stays."""
    near = in_the_way(boxes, path, margin, ahead)
    near[:, 0] = False
    return only(boxes, ~near)


def _finer(position: Tensor, times: Tensor, ahead: float) -> tuple[Tensor, Tensor]:
    """Return places (n, T') and times between the frames, too, and for a while after them."""
    if position.shape[1] == 1:
        return position, times
    between = (position[:, 1:] + position[:, :-1]) / 2, (times[:, 1:] + times[:, :-1]) / 2
    step = (times[:, -1:] - times[:, -2:-1])[..., None]
    velocity = (position[:, -1:] - position[:, -2:-1]) / step
    later = torch.linspace(0, ahead, 6)[1:]
    after = position[:, -1:] + velocity * later[:, None], times[:, -1:] + later
    parts = ((position, times), between, after)
    return torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1)
