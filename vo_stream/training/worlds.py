"""Rooms and desks of textured boxes, built around the path the camera takes through them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vo_stream.training.boxes import Boxes, World, clear, only, plain, textured
from vo_stream.training.draw import Draw
from vo_stream.training.paths import Path
from vo_stream.training.records import joined
from vo_stream.training.textures import families

_PAPER = 0.003
"""m, half the thickness of what lies flat on a desk."""
_F = families()


def room(draw: Draw, path: Path) -> World:
    """Return rooms with furniture, doors and pictures around paths; y is down."""
    n = len(path.position)
    low, high = path.position.amin(1), path.position.amax(1)
    hall = draw.chance(0.4, n, 1)
    gap = torch.where(hall, draw.log_uniform(2.5, 14, n, 6), draw.log_uniform(1.2, 6, n, 6))
    floor = torch.where(hall, draw.uniform(0.6, 4, n, 1), draw.uniform(0.7, 1.8, n, 1))
    lid = torch.where(hall, draw.uniform(1, 6, n, 1), draw.uniform(0.6, 1.8, n, 1))
    reach = torch.where(hall, draw.log_uniform(4, 14, n, 1), draw.log_uniform(1.8, 7, n, 1))
    low = low - torch.cat([gap[:, :1], lid, gap[:, 1:2]], 1)
    high = high + torch.cat([gap[:, 2:3], floor, gap[:, 3:4]], 1)
    shell = _shell(draw, low, high)
    parts = [shell, _hung(draw, low, high, 12), _lying(draw, low, high, 8)]
    standing = _before(draw, path, reach, low, high, _standing(draw, low, high, 26))
    parts += [standing, _atop(draw, standing, 18), _hanging(draw, low, high, 4)]
    furnished = _thinned(draw, joined(parts, 1))
    return World(clear(furnished, path, 0.3), *_indoor_light(draw, n), None)


def clutter(draw: Draw, path: Path) -> World:
    """Return desks full of things, or things afloat at many distances, before the cameras."""
    n, m, middle = len(path.position), 44, path.position.shape[1] // 2
    eye, ahead = path.position[:, middle], path.rotation[:, middle, :, 2]
    far = draw.log_uniform(0.5, 4.0, n, 1)
    target = eye + far * ahead
    level = torch.maximum(target[:, 1], path.position[..., 1].amax(1) + 0.18)
    low, high = path.position.amin(1), path.position.amax(1)
    low = low - draw.log_uniform(1.0, 6, n, 3)
    high = high + draw.log_uniform(1.0, 6, n, 3)
    high[:, 1] = torch.maximum(high[:, 1], level + 0.75)
    low, high = torch.minimum(low, target - 0.5), torch.maximum(high, target + 0.5)
    desk = plain(draw, n, 1, _F.planks, 0.9)
    half = far[:, None] * draw.uniform(0.6, 1.6, n, 1, 3)
    half[..., 1] = 0.03
    at = torch.stack([target[:, 0], level + 0.03, target[:, 2]], 1)[:, None]
    desk = replace(desk, centre=at, half=half, yaw=draw.uniform(0, 7, n, 1))
    things = _things(draw, n, m)
    reach = far[:, None] * torch.tensor([0.9, 0.0, 0.9])
    place = at + draw.normal(n, m, 3) * reach * 0.7
    size = far[:, None] * draw.log_uniform(0.02, 0.16, n, m, 3)
    paper = draw.chance(0.3, n, m)
    size[..., 1] = torch.where(paper, _PAPER, size[..., 1])
    place[..., 1] = level[:, None] - size[..., 1]
    afloat = draw.chance(0.4, n)
    away = draw.normal(n, m, 3)
    away = away / away.norm(dim=2, keepdim=True)
    away = away + 1.2 * ahead[:, None]
    distance = draw.log_uniform(0.6, 10, n, m, 1)
    floating = eye[:, None] + distance * away
    bulk = distance * draw.log_uniform(0.03, 0.25, n, m, 3)
    place = torch.where(afloat[:, None, None], floating, place)
    size = torch.where(afloat[:, None, None], bulk, size)
    round_ = draw.chance(0.15, n, m) & ~paper
    things = replace(things, centre=place, half=size, yaw=draw.uniform(0, 7, n, m), round=round_)
    parts = [_shell(draw, low, high), _hung(draw, low, high, 8), desk, things]
    parts.append(_standing(draw, low, high, 6))
    return World(clear(joined(parts, 1), path, 0.12), *_indoor_light(draw, n), None)


def _indoor_light(draw: Draw, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sun = draw.normal(n, 3) * torch.tensor([1.0, 0.5, 1.0]) - torch.tensor([0.0, 1.0, 0.0])
    sun = sun / sun.norm(dim=1, keepdim=True)
    return sun, draw.uniform(0.5, 0.9, n), torch.zeros(n), torch.zeros(n, 3)


def _shell(draw: Draw, low: Tensor, high: Tensor) -> Boxes:
    n = len(low)
    shell = plain(draw, n, 1, _F.cloudy, 1.6)
    shell = textured(draw, shell, _F.cloudy, _F.tiles, _F.planks, _F.grainy, _F.bricks)
    return replace(
        shell, centre=((low + high) / 2)[:, None], half=((high - low) / 2)[:, None],
        albedo=draw.uniform(0.3, 0.85, n, 1), contrast=draw.log_uniform(0.03, 0.4, n, 1),
        rough=draw.log_uniform(0.02, 0.12, n, 1),
    )  # fmt: skip


def _hung(draw: Draw, low: Tensor, high: Tensor, m: int) -> Boxes:
    """Return pictures, doors and boards on the walls."""
    n = len(low)
    boxes = textured(
        draw, plain(draw, n, m, _F.posters, 0.9), _F.posters, _F.writing, _F.windows, _F.planks
    )
    place = low[:, None] + (high - low)[:, None] * draw.uniform(0.05, 0.95, n, m, 3)
    half = draw.log_uniform(0.12, 1.1, n, m, 3)
    on_x = draw.chance(0.5, n, m)
    at_high = draw.chance(0.5, n, m)
    wall = torch.where(at_high[..., None], high[:, None], low[:, None])
    place[..., 0] = torch.where(on_x, wall[..., 0], place[..., 0])
    place[..., 2] = torch.where(on_x, place[..., 2], wall[..., 2])
    thin = draw.uniform(0.01, 0.05, n, m)
    half[..., 0] = torch.where(on_x, thin, half[..., 0])
    half[..., 2] = torch.where(on_x, half[..., 2], thin)
    repeat = half.amax(2, keepdim=True) * 2 * draw.uniform(0.5, 1.3, n, m, 1)
    return replace(boxes, centre=place, half=half, repeat=repeat.expand(n, m, 2).clone())


def _lying(draw: Draw, low: Tensor, high: Tensor, m: int) -> Boxes:
    """Return rugs, mats and papers on the floor."""
    n = len(low)
    boxes = textured(
        draw, plain(draw, n, m, _F.posters, 1.0), _F.posters, _F.writing, _F.tiles, _F.patches
    )
    place = low[:, None] + (high - low)[:, None] * draw.uniform(0, 1, n, m, 3)
    half = draw.log_uniform(0.08, 1.2, n, m, 3)
    half[..., 1] = draw.uniform(0.003, 0.02, n, m)
    place[..., 1] = high[:, None, 1] - half[..., 1]
    return replace(boxes, centre=place, half=half, yaw=draw.uniform(0, 7, n, m))


def _things(draw: Draw, n: int, m: int) -> Boxes:
    boxes = plain(draw, n, m, _F.cloudy, 0.35)
    boxes = textured(
        draw, boxes, _F.cloudy, _F.grainy, _F.planks, _F.writing, _F.posters, _F.bricks
    )
    return replace(boxes, contrast=draw.log_uniform(0.08, 1.2, n, m))


def _standing(draw: Draw, low: Tensor, high: Tensor, m: int) -> Boxes:
    n = len(low)
    place = low[:, None] + (high - low)[:, None] * draw.uniform(0, 1, n, m, 3)
    half = draw.log_uniform(0.08, 0.7, n, m, 3)
    half[..., 1] = draw.log_uniform(0.1, 1.0, n, m)
    place[..., 1] = high[:, None, 1] - half[..., 1]
    yaw = torch.where(draw.chance(0.6, n, m), 0.03 * draw.normal(n, m), draw.uniform(0, 7, n, m))
    boxes = _things(draw, n, m)
    return replace(boxes, centre=place, half=half, yaw=yaw, repeat=boxes.repeat * 2.5)


def _thinned(draw: Draw, boxes: Boxes) -> Boxes:
    """Return rooms of which some are all but empty; box 0 always stays. What stood on a box that is
    gone hangs in the air, as it does with `clear`."""
    n, m = boxes.yaw.shape
    kept = draw.uniform(0, 1, n, m) < draw.uniform(0.1, 1.4, n, 1)
    kept[:, 0] = True
    return only(boxes, kept)


def _before(
    draw: Draw, path: Path, reach: Tensor, low: Tensor, high: Tensor, boxes: Boxes
) -> Boxes:
    """Return boxes, half of them moved to where the cameras look, up to `reach` (n, 1) m away."""
    n, m = boxes.yaw.shape
    middle = path.position.shape[1] // 2
    ahead = path.rotation[:, middle, :, 2]
    heading = torch.atan2(ahead[:, 0], ahead[:, 2])[:, None] + draw.uniform(-0.7, 0.7, n, m)
    far = reach * draw.log_uniform(0.2, 1.0, n, m)
    way = torch.stack([heading.sin() * far, torch.zeros(n, m), heading.cos() * far], 2)
    there = torch.minimum(path.position[:, middle, None] + way, high[:, None])
    there = torch.maximum(there, low[:, None])
    there[..., 1] = boxes.centre[..., 1]
    return replace(
        boxes, centre=torch.where(draw.chance(0.5, n, m)[..., None], there, boxes.centre)
    )


def _atop(draw: Draw, under: Boxes, m: int) -> Boxes:
    """Return things that stand on the first m boxes."""
    n = len(under.yaw)
    half = under.half[:, :m] * draw.log_uniform(0.12, 0.7, n, m, 3)
    shift = 0.5 * draw.uniform(-1, 1, n, m, 3) * under.half[:, :m]
    shift[..., 1] = -under.half[:, :m, 1] - half[..., 1]
    yaw = under.yaw[:, :m] + draw.uniform(-1, 1, n, m)
    return replace(_things(draw, n, m), centre=under.centre[:, :m] + shift, half=half, yaw=yaw)


def _hanging(draw: Draw, low: Tensor, high: Tensor, m: int) -> Boxes:
    n = len(low)
    boxes = _standing(draw, low, high, m)
    drop = draw.log_uniform(0.02, 0.6, n, m)
    half = torch.stack([boxes.half[..., 0], drop, boxes.half[..., 2]], 2)
    centre = torch.stack([boxes.centre[..., 0], low[:, None, 1] + drop, boxes.centre[..., 2]], 2)
    return replace(boxes, centre=centre, half=half)
