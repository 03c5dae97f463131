"""The brightness of what a ray hits: textures, road markings, sky and haze."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vo_stream.training.boxes import Road
from vo_stream.training.scene import MACRO, Scene
from vo_stream.training.textures import families, sample

_GRAZING = -0.1
"""Cosine at which an ellipsoid's texture is compressed no further."""
_HORIZON = 0.12
"""How far above the horizon, as a slope, the clouds stop to crowd together."""


class Hits(NamedTuple):
    """What n rays hit."""

    value: Tensor
    """(n,) brightness, 0..1 and slightly beyond."""
    inverse_depth: Tensor
    """(n,) 1/m, 0 in the sky."""
    surface: Tensor
    """(n,) box * 6 + face; equal for neighbours on one face."""


def look(scene: Scene, atlas: Tensor, frame: Tensor, box: Tensor, x: Tensor, y: Tensor) -> Hits:
    """Return what rays see that are known to hit a box.

    `frame`, `box`: (n,) int64; `x`, `y`: (n,) of the ray (x, y, 1).
    """
    seat = frame * (scene.boxes + 1) + box
    inside = torch.where(box == 0, -1.0, 1.0)
    axis = _axis_hit(scene, seat, inside, x, y)
    row = scene.slabs[:, seat * 3 + axis]
    across, along, up = (
        torch.addcmul(torch.addcmul(row[i + 2], row[i], x), row[i + 1], y) for i in (0, 3, 6)
    )
    sign = across.sign()
    depth = (-inside * sign * row[12] - row[9]) / across
    item = torch.div(frame, scene.frames, rounding_mode="floor")
    face = 2 * axis + (sign < 0)
    column = scene.faces[:, (item * (scene.boxes + 1) + box) * 6 + face]
    focal = 1 / scene.intrinsics[item, 0]
    reach = depth * focal
    dux, dvx = _foot(row[3], row[6], row[0], along, up, across, reach)
    duy, dvy = _foot(row[4], row[7], row[1], along, up, across, reach)
    u, v = row[10] + along * depth, row[11] + up * depth
    du, dv = torch.hypot(dux, duy), torch.hypot(dvx, dvy)
    texture = column[0].long()
    gain, bias, rough = column[4], column[5], column[7]
    (spot,) = scene.round[item * (scene.boxes + 1) + box].nonzero(as_tuple=True)
    if len(spot):
        curved = _round(scene, seat[spot], item[spot], box[spot], x[spot], y[spot])
        u, v, du, dv, depth, gain, bias, rough = (
            old.index_copy(0, spot, new)
            for old, new in zip((u, v, du, dv, depth, gain, bias, rough), curved, strict=True)
        )
    inverse = 1 / depth
    road = scene.world.road
    if road is not None:
        ground = (box == 0) & (face == 2)
        sky = (box == 0) & (face != 2)
        (spot,) = ground.nonzero(as_tuple=True)
        steps = torch.stack([dux, dvx, duy, dvy])[:, spot]
        painted = _ground(road, item[spot], u[spot], v[spot], steps)
        u, v, du, dv = (
            old.index_copy(0, spot, new)
            for old, new in zip((u, v, du, dv), painted[:4], strict=True)
        )
        bias = bias.index_add(0, spot, painted[4])
        texture = texture.index_copy(
            0, spot, torch.where(painted[5] < 0, texture[spot], painted[5])
        )
        inverse = torch.where(sky, 0.0, inverse)
    u, v = u * column[1] + column[3], v * column[2]
    du, dv = du * column[1], dv * column[2]
    first = sample(atlas, texture, u, v, du, dv)
    wide = 1 / MACRO
    second = sample(atlas, column[6].long(), u * wide, v * wide, du * wide, dv * wide)
    value = bias + gain * (first - 0.5) * 2 + rough * (second - 0.5) * 2
    if road is not None:
        (spot,) = sky.nonzero(as_tuple=True)
        above = _sky(scene, atlas, frame[spot], item[spot], x[spot], y[spot], focal[spot])
        clear = torch.exp(-depth * scene.world.haze[item])
        value = value * clear + scene.world.sky[item, 0] * (1 - clear)
        value = value.index_copy(0, spot, above)
    surface = box * 6 + face
    return Hits(value, inverse, surface)


def _axis_hit(scene: Scene, seat: Tensor, inside: Tensor, x: Tensor, y: Tensor) -> Tensor:
    g = scene.geometry[:, seat]
    ways = []
    for a in range(3):
        slope = torch.addcmul(torch.addcmul(g[3 * a + 2], g[3 * a], x), g[3 * a + 1], y)
        one = 1 / torch.where(slope == 0, 1e-9, slope)
        ways.append(-inside * g[9 + a] * one - one.abs())
    second = ways[1] > ways[0]
    third = ways[2] > torch.maximum(ways[0], ways[1])
    return torch.where(third, 2, second.long())


def ball(slopes: list[Tensor], at: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the depth where rays enter the unit ball, and whether they miss it.

    `slopes`, `at`: x, y, z of the ray's direction and of its origin.
    """
    d0, d1, d2 = slopes
    square = 1 / (d0 * d0 + d1 * d1 + d2 * d2)
    middle = (d0 * at[0] + d1 * at[1] + d2 * at[2]).mul_(square).neg_()
    left = torch.ones_like(middle)
    for slope, start in zip(slopes, at, strict=True):
        left = left - torch.addcmul(start, middle, slope).square_()
    return middle - (left.clamp(min=0) * square).sqrt_(), left < 0


def _round(
    scene: Scene, seat: Tensor, item: Tensor, box: Tensor, x: Tensor, y: Tensor
) -> tuple[Tensor, ...]:
    """Return u, v, du, dv in m, depth, gain, bias and roughness on ellipsoids.

    They are textured as by three crossed projectors and lit by the mix of the six faces' light
    that their normal asks for.
    """
    g = scene.geometry[:, seat]
    matrix, half = g[:9].view(3, 3, -1), g[12:]
    slope = matrix[:, 0] * x + matrix[:, 1] * y + matrix[:, 2]
    depth, _ = ball(list(slope), list(g[9:12]))
    at = g[9:12] + slope * depth
    facing = (at * slope).sum(0)
    facing = torch.minimum(facing, _GRAZING * slope.norm(dim=0))
    reach = depth / scene.intrinsics[item, 0]
    step = [(matrix[:, i] - slope * ((at * matrix[:, i]).sum(0) / facing)) * half for i in (0, 1)]
    extent = torch.hypot(step[0], step[1]) * reach
    place = at * half
    axis = at.abs().argmax(0)
    u_axis, v_axis = torch.where(axis == 0, 2, 0), torch.where(axis == 1, 2, 1)
    one = [m.gather(0, i[None])[0] for m in (place, extent) for i in (u_axis, v_axis)]
    share = (at / half).square()
    share = share / share.sum(0)
    light = torch.zeros(3, len(seat), device=seat.device)
    for a in range(3):
        face = (item * (scene.boxes + 1) + box) * 6 + 2 * a + (at[a] > 0)
        light = light + scene.faces[:, face][[4, 5, 7]] * share[a]
    return (*one, depth, *light)


def _foot(
    mu: Tensor, mv: Tensor, ma: Tensor, along: Tensor, up: Tensor, across: Tensor, reach: Tensor
) -> tuple[Tensor, Tensor]:
    """Return how far the hit moves along u and v, m, when the ray moves by a pixel."""
    slip = ma / across
    return reach * (mu - along * slip), reach * (mv - up * slip)


def _ground(
    road: Road, item: Tensor, x: Tensor, z: Tensor, steps: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return, of points on the ground: m right of and along the road, the footprint's extent
    along these, added brightness, and the texture (-1: the road's own).
    """
    bend = road.bend[item]
    root = (1 - 2 * bend * x + bend.square() * (x.square() + z.square())).clamp(min=1e-6).sqrt()
    right = (2 * x - bend * (x.square() + z.square())) / (1 + root)
    angle = torch.atan2(bend * z, 1 - bend * x)
    along = angle / bend
    cos, sin = angle.cos(), angle.sin()
    dux, dvx, duy, dvy = steps
    wide = torch.hypot(dux * cos - dvx * sin, duy * cos - dvy * sin).clamp(min=1e-4)
    long = torch.hypot(dux * sin + dvx * cos, duy * sin + dvy * cos).clamp(min=1e-4)
    long = long / root  # the same angle is a shorter way on the inside of a bend
    shades, edges = road.shades[item].T, road.edges[item].T
    value = shades[0].clone()
    for k in range(4):
        value += (shades[k + 1] - shades[k]) * _step(right - edges[k], wide)
    for k in range(road.lines.shape[1]):
        at, width, period, share, shift, gain = road.lines[item, k].T
        line = _step(right - at + 0.5 * width, wide) - _step(right - at - 0.5 * width, wide)
        value += gain * line * _dashes((along + shift) / period, long / period, share)
    paved = (right > edges[0]) & (right < edges[3])
    driven = (right > edges[1]) & (right < edges[2])
    texture = torch.where(paved, road.pavement[item], road.verge[item])
    texture = torch.where(driven, -1, texture)
    return right, along, wide, long, value, texture


def _step(past: Tensor, extent: Tensor) -> Tensor:
    """Return the share of the footprint that is past an edge."""
    return (past / extent + 0.5).clamp(0, 1)


def _dashes(phase: Tensor, extent: Tensor, share: Tensor) -> Tensor:
    """Return the share of the footprint on the painted part of a periodic line."""

    def painted(to: Tensor) -> Tensor:
        whole = to.floor()
        return whole * share + torch.minimum(to - whole, share)

    return (painted(phase + 0.5 * extent) - painted(phase - 0.5 * extent)) / extent


def _sky(
    scene: Scene, atlas: Tensor, frame: Tensor, item: Tensor, x: Tensor, y: Tensor, focal: Tensor
) -> Tensor:
    turn = scene.rotation[frame]
    ray = turn[..., 0] * x[:, None] + turn[..., 1] * y[:, None] + turn[..., 2]
    ray = ray / ray.norm(dim=1, keepdim=True)
    bright, contrast, size = scene.world.sky[item].T
    over = (-ray[:, 1]).clamp(min=0) + _HORIZON
    scale = 0.2 / (over * size)
    extent = focal * scale / over
    texture = item % families().cloudy[1]
    cloud = sample(atlas, texture, ray[:, 0] * scale, ray[:, 2] * scale, extent, extent)
    faint = ((over - _HORIZON) * 4).clamp(max=1)
    value: Tensor = bright + contrast * faint * (cloud - 0.6)
    return value
