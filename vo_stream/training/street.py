"""Streets: a road with its markings, houses, trees, poles, cars that stand and cars that drive."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vo_stream.training.boxes import (
    Boxes,
    Road,
    World,
    clear,
    in_the_way,
    only,
    plain,
    textured,
)
from vo_stream.training.draw import Draw
from vo_stream.training.paths import Path
from vo_stream.training.records import joined
from vo_stream.training.textures import families

_F = families()
_FAR = 2000.0
"""m to the end of the ground."""
_MARGIN = 1.3
"""m around a vehicle's camera that stay free."""
_AHEAD = 1.5
"""s for which nothing stands in the way after a clip's end."""


def street(draw: Draw, path: Path, bend: Tensor) -> World:
    """Return streets along roads of curvature `bend` (n,) 1/m through the origin."""
    n = len(bend)
    half_road = torch.where(draw.chance(0.8, n), draw.uniform(3, 6, n), draw.uniform(6, 10, n))
    middle = draw.uniform(-0.6, 0.8, n) * (half_road - 1.8)
    walk = draw.log_uniform(0.3, 5, n, 2)
    left, right = middle - half_road, middle + half_road
    edges = torch.stack([left - walk[:, 0], left, right, right + walk[:, 1]], 1)
    kind = draw.uniform(0, 1, n)
    town, country = kind < 0.6, kind > 0.75
    parts = [_ground(draw, n)]
    for sign, edge in ((-1.0, edges[:, 0]), (1.0, edges[:, 3])):
        verge = edge + sign * country * draw.uniform(0, 12, n)
        houses = _houses(draw, bend, sign, edge, town, path)
        parts += [only(boxes, ~country[:, None].expand_as(boxes.yaw)) for boxes in houses]
        parts += _greenery(draw, bend, sign, verge) + _poles(draw, bend, sign, edge)
        parts.append(_rails(draw, bend, sign, edge, country))
    kerb = torch.stack([left, right], 1)
    parts += _cars(draw, bend, kerb, path)
    parts.append(_skyline(draw, n))
    road = _road(draw, bend, edges, middle)
    sun, ambient = _sunlight(draw, n)
    haze = 1 / draw.log_uniform(120, 1500, n)
    sky = _sizes(draw.uniform(0.6, 1.2, n), draw.uniform(0, 0.8, n), draw.uniform(1, 5, n))
    return World(clear(joined(parts, 1), path, _MARGIN, _AHEAD), sun, ambient, haze, sky, road)


def placed(bend: Tensor, along: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, z in m and the road's heading (n, m) of places along and right of the road."""
    k = bend.double()[:, None]
    angle = k * along
    x = (1 - angle.cos()) / k + right * angle.cos()
    z = angle.sin() / k - right * angle.sin()
    return x.float(), z.float(), angle.float()


def _set(
    boxes: Boxes, bend: Tensor, along: Tensor, right: Tensor, half: Tensor, bottom: Tensor | float
) -> Boxes:
    """Return boxes (n, m) placed by the road, `bottom` m above the ground."""
    x, z, yaw = placed(bend, along, right)
    centre = torch.stack([x, -half[..., 1] - bottom, z], 2)
    return replace(boxes, centre=centre, half=half, yaw=boxes.yaw + yaw)


def _sizes(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return torch.stack([x, y, z], -1)


def _ground(draw: Draw, n: int) -> Boxes:
    ground = plain(draw, n, 1, _F.grainy, 3.0)
    half = torch.tensor([_FAR, 50.0, _FAR]).expand(n, 1, 3)
    return replace(
        ground, centre=torch.tensor([0.0, -50.0, 0.0]).expand(n, 1, 3), half=half,
        albedo=draw.uniform(0.25, 0.5, n, 1), contrast=draw.log_uniform(0.08, 0.4, n, 1),
        second=textured(draw, ground, _F.patches, _F.patches, _F.cloudy).side,
        rough=draw.log_uniform(0.05, 0.5, n, 1),
    )  # fmt: skip


def _houses(
    draw: Draw, bend: Tensor, sign: float, edge: Tensor, town: Tensor, path: Path
) -> list[Boxes]:
    """Return houses and their roofs on one side of the road, beyond `edge` (n,) m."""
    n, m = len(bend), 12
    long = draw.log_uniform(5, 18, n, m)
    along = long.cumsum(1) - 0.5 * long - draw.uniform(5, 25, n, 1)
    deep = draw.uniform(3, 8, n, m)
    back = draw.log_uniform(0.1, 3, n, 1) + draw.chance(0.5, n, m) * draw.uniform(0, 5, n, m)
    houses = plain(draw, n, m, _F.windows, 3.2)
    plainer = textured(draw, houses, _F.bricks, _F.cloudy, _F.windows)
    houses = replace(houses, side=torch.where(draw.chance(0.25, n, m), plainer.side, houses.side))
    houses = replace(houses, contrast=draw.log_uniform(0.25, 0.9, n, m))
    low, high = draw.uniform(1.5, 5, n, m), draw.uniform(4, 12, n, m)
    tall = torch.where(draw.chance(0.7, n, m), low, high)
    houses = _set(
        houses, bend, along, edge[:, None] + sign * (back + deep), _sizes(deep, tall, long / 2), 0
    )
    present = town[:, None] & draw.chance(0.88, n, m) | draw.chance(0.15, n, m)
    roofs = plain(draw, n, m, _F.bricks, 1.5)
    eave = draw.uniform(0.1, 0.6, n, m)
    lift = houses.half[..., 1] * 2
    roofs = _set(
        roofs, bend, along, edge[:, None] + sign * (back + deep),
        _sizes(deep + eave, draw.uniform(0.1, 0.5, n, m), long / 2 - 0.2), lift,
    )  # fmt: skip
    roofed = present & draw.chance(0.5, n, m) & ~in_the_way(houses, path, _MARGIN, _AHEAD)
    return [only(houses, present), only(roofs, roofed)]


def _greenery(draw: Draw, bend: Tensor, sign: float, edge: Tensor) -> list[Boxes]:
    """Return trees and hedges on one side of the road."""
    n, m = len(bend), 7
    along = draw.uniform(-5, 70, n, m)
    right = edge[:, None] + sign * draw.uniform(-0.8, 2.5, n, m)
    thick = draw.uniform(0.08, 0.25, n, m)
    trunk = draw.uniform(0.8, 2.0, n, m)
    stem = _sizes(thick, trunk, thick)
    trees = _set(plain(draw, n, m, _F.planks, 0.7), bend, along, right, stem, 0)
    there = draw.chance(0.5, n, m) & draw.chance(0.7, n, 1)
    trunks = only(trees, there)
    along, right, trunk, there = (t.repeat(1, 3) for t in (along, right, trunk, there))
    m = 3 * m
    crown = draw.uniform(0.6, 2.2, n, m)
    along, right = along + draw.uniform(-1, 1, n, m) * crown, right + draw.uniform(-1, 1, n, m)
    leaves = replace(plain(draw, n, m, _F.leaves, 2.2), yaw=draw.uniform(0, 7, n, m))
    leaves = replace(leaves, albedo=draw.uniform(0.06, 0.35, n, m), round=draw.chance(0.9, n, m))
    leaves = replace(leaves, contrast=draw.log_uniform(0.3, 0.9, n, m))
    leaves = _set(
        leaves, bend, along, right,
        _sizes(crown, crown * draw.uniform(0.6, 1.2, n, m), crown),
        2 * trunk - 0.6 + draw.uniform(0, 1.5, n, m),
    )  # fmt: skip
    k = 4
    length = draw.uniform(3, 14, n, k)
    hedges = textured(draw, plain(draw, n, k, _F.leaves, 1.8), _F.leaves, _F.bricks, _F.planks)
    hedges = _set(
        hedges, bend, draw.uniform(-5, 60, n, k), edge[:, None] + sign * draw.uniform(0.2, 3, n, k),
        _sizes(draw.uniform(0.1, 0.6, n, k), draw.uniform(0.3, 1.1, n, k), length), 0,
    )  # fmt: skip
    return [trunks, only(leaves, there), only(hedges, draw.chance(0.5, n, k))]


def _poles(draw: Draw, bend: Tensor, sign: float, edge: Tensor) -> list[Boxes]:
    """Return poles, some of them with a sign."""
    n, m = len(bend), 7
    poles = plain(draw, n, m, _F.cloudy, 1.0)
    slim = draw.uniform(0.05, 0.12, n, m)
    pole_right = edge[:, None] + sign * draw.uniform(-0.6, 0.3, n, m)
    pole_along = draw.uniform(-2, 60, n, m)
    rod = _sizes(slim, draw.uniform(1, 4, n, m), slim)
    poles = _set(poles, bend, pole_along, pole_right, rod, 0)
    signs = plain(draw, n, m, _F.posters, 0.8)
    board = _sizes(draw.uniform(0.2, 0.6, n, m), draw.uniform(0.2, 0.5, n, m), 0.02 + 0 * slim)
    signs = _set(signs, bend, pole_along - 0.15, pole_right, board, draw.uniform(1.6, 2.6, n, m))
    posted = draw.chance(0.4, n, m)
    return [only(poles, posted), only(signs, posted & draw.chance(0.6, n, m))]


def _rails(draw: Draw, bend: Tensor, sign: float, edge: Tensor, country: Tensor) -> Boxes:
    """Return crash barriers of steel or concrete on one side of the road."""
    n, m = len(bend), 6
    solid = draw.chance(0.3, n, 1)
    half = torch.where(solid, draw.uniform(0.35, 0.6, n, 1), draw.uniform(0.1, 0.18, n, 1))
    lift = torch.where(solid, 0.0, draw.uniform(0.4, 0.6, n, 1))
    long = draw.uniform(5, 9, n, 1).expand(n, m)
    along = 2.0 * long * torch.arange(m) - draw.uniform(0, 15, n, 1)
    right = edge[:, None] + sign * draw.uniform(-0.2, 1.5, n, 1)
    size = _sizes(0.04 + 0.1 * solid.expand(n, m), half.expand(n, m), long)
    rails = textured(draw, plain(draw, n, m, _F.cloudy, 2.0), _F.cloudy, _F.planks, _F.grainy)
    there = country[:, None] & draw.chance(0.5, n, 1)
    return only(_set(rails, bend, along, right.expand(n, m), size, lift), there.expand(n, m))


def _cars(draw: Draw, bend: Tensor, kerb: Tensor, path: Path) -> list[Boxes]:
    """Return parked cars by the kerbs and cars that drive in both directions."""
    n, m = len(bend), 16
    driving = torch.arange(m) >= 10
    on_right = draw.chance(0.5, n, m)
    side = torch.where(on_right, 1.0, -1.0)
    edge = torch.where(on_right, kerb[:, 1:], kerb[:, :1])
    lane = torch.where(driving, draw.uniform(1.6, 2.6, n, m), draw.uniform(0.8, 1.3, n, m))
    along = torch.where(driving, draw.uniform(-10, 90, n, m), draw.uniform(-5, 60, n, m))
    right = edge - side * lane
    big = draw.chance(0.12, n, m)
    wide = torch.where(big, 1.2, draw.uniform(0.8, 0.95, n, m))
    long = torch.where(big, draw.uniform(2.5, 5, n, m), draw.uniform(1.8, 2.4, n, m))
    tall = torch.where(big, draw.uniform(1.1, 1.6, n, m), draw.uniform(0.28, 0.4, n, m))
    body = plain(draw, n, m, _F.cars, 1.7)
    body = replace(body, repeat=torch.stack([2 * long, 2 * tall], 2), rough=0.3 * body.rough)
    body = replace(body, albedo=draw.uniform(0.08, 0.9, n, m))
    body = _set(body, bend, along, right, _sizes(wide, tall, long), draw.uniform(0.2, 0.3, n, m))
    speed = torch.where(on_right, 1.0, -1.0) * draw.log_uniform(1.5, 20, n, m) * driving
    heading = torch.stack([body.yaw.sin(), torch.zeros(n, m), body.yaw.cos()], 2)
    velocity = heading * speed[..., None]
    body = replace(body, velocity=velocity)
    roof = draw.uniform(0.2, 0.3, n, m)
    cabin = replace(plain(draw, n, m, _F.cars, 2.0), velocity=velocity, yaw=torch.zeros(n, m))
    cabin = replace(cabin, albedo=draw.uniform(0.1, 0.35, n, m), contrast=0.6 * cabin.contrast)
    cabin = _set(
        cabin, bend, along - 0.1 * long, right,
        _sizes(wide * 0.86, roof, long * draw.uniform(0.4, 0.6, n, m)), 0.25 + 2 * tall,
    )  # fmt: skip
    wheels = replace(plain(draw, n, m, _F.cloudy, 0.6), velocity=velocity)
    wheels = replace(wheels, albedo=0.06 + 0 * tall, contrast=0.15 * wheels.contrast)
    axle = _sizes(wide * 0.97, 0.16 + 0 * tall, long * 0.75)
    wheels = _set(wheels, bend, along, right, axle, 0.0)
    there = torch.where(driving, draw.chance(0.5, n, m), draw.chance(0.5, n, m))
    there = there & draw.chance(0.8, n, 1)
    hull = body.half + torch.tensor([0.0, 1.0, 0.0])  # a car goes as a whole or not at all
    there = there & ~in_the_way(replace(body, half=hull), path, _MARGIN, _AHEAD)
    return [only(body, there), only(cabin, there & ~big), only(wheels, there)]


def _skyline(draw: Draw, n: int) -> Boxes:
    """Return woods and houses far away."""
    m = 10
    around = draw.uniform(0, 7, n, m)
    far = draw.uniform(110, 350, n, m)
    half = _sizes(draw.uniform(15, 70, n, m), draw.log_uniform(2, 14, n, m), 6 + 0 * far)
    boxes = textured(draw, plain(draw, n, m, _F.leaves, 14), _F.leaves, _F.leaves, _F.windows)
    boxes = replace(boxes, albedo=draw.uniform(0.08, 0.4, n, m), round=boxes.side >= _F.leaves[0])
    bottom = torch.where(boxes.round, half[..., 1], 0.0)  # woods bulge out of the ground
    centre = torch.stack([far * around.sin(), bottom - half[..., 1], far * around.cos()], 2)
    return replace(boxes, centre=centre, half=half, yaw=around + 0.3 * draw.normal(n, m))


def _road(draw: Draw, bend: Tensor, edges: Tensor, middle: Tensor) -> Road:
    n = len(bend)
    verge, walk = (0.12 * draw.normal(n, 2) + torch.tensor([0.0, 0.12])).unbind(1)
    shades = torch.stack([verge, walk, torch.zeros(n), walk, verge], 1)
    gain = draw.uniform(0.15, 0.5, n) * draw.chance(0.85, n)
    zero, one = torch.zeros(n), torch.ones(n)
    period = draw.uniform(5, 13, n)
    dashed = draw.uniform(0.25, 0.6, n)
    wide = draw.uniform(0.1, 0.18, n)
    inset = draw.uniform(0.15, 0.5, n)
    lane = draw.uniform(3, 3.7, n)
    solid = draw.chance(0.6, n) * gain
    kerb = draw.uniform(-0.2, 0.4, n)
    lines = [
        (middle, wide, period, torch.where(draw.chance(0.25, n), one, dashed), period / 3, gain),
        (middle + lane, wide, period, dashed, zero, gain * draw.chance(0.4, n)),
        (middle - lane, wide, period, dashed, zero, gain * draw.chance(0.4, n)),
        (edges[:, 1] + inset, wide, period, one, zero, solid),
        (edges[:, 2] - inset, wide, period, one, zero, solid),
        (edges[:, 1] - 0.08, wide, period * 0.15, one * 0.97, zero, kerb),
        (edges[:, 2] + 0.08, wide, period * 0.15, one * 0.97, zero, kerb),
    ]
    stacked = torch.stack([torch.stack(line, 1) for line in lines], 1)
    ground = plain(draw, n, 1, _F.grainy, 1.0)
    grass = textured(draw, ground, _F.grainy, _F.leaves).side[:, 0]
    paved = textured(draw, ground, _F.bricks, _F.tiles, _F.cloudy).side[:, 0]
    return Road(bend, edges, shades, stacked, grass, paved)


def _sunlight(draw: Draw, n: int) -> tuple[Tensor, Tensor]:
    """Return (n, 3) directions of the sun and (n,) shares of ambient light."""
    around, high = draw.uniform(0, 7, n), draw.uniform(0.3, 1.3, n)
    sun = torch.stack([around.cos() * high.cos(), -high.sin(), around.sin() * high.cos()], 1)
    return sun, draw.uniform(0.3, 0.95, n)
