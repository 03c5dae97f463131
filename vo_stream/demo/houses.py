"""The street of the demo: a block of houses with a road around it, and houses around the road."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vo_stream.demo import textures as paint
from vo_stream.demo.paths import lap_bounds
from vo_stream.demo.render import Quad, Scene
from vo_stream.demo.ripmap import Texture
from vo_stream.demo.shapes import UP, Cover, box, floor, panel, standing
from vo_stream.se3 import Array

LANE_TO_KERB_M = 4.0
"""From the car's path to the outer kerb."""
ROAD_M = 12.5
PAVEMENT_M = 3.0
KERB_M = 0.13
STOREY_M = 3.0
SHOP_M = 3.6
HOUSE_DEPTH_M = 8.0
BAY_M = 3.0
"""Width of one window's strip of a facade."""
CORNER_M = 17.0
"""No car is parked this near to a corner of the block."""

_PATCH_Z, _PAINT_Z, _LID_Z = 0.003, 0.006, 0.009
"""Metres above the road, so that the depth test tells what lies on it apart."""

Bounds = tuple[float, float, float, float]
"""Least x, least y, greatest x, greatest y in metres."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of a rectangle: runs from `start` along unit `along` for `length`, faces `out`."""

    start: Array
    along: Array
    length: float

    @property
    def out(self) -> Array:
        return np.cross(self.along, UP)

    def at(self, along: float, out: float, up: float = 0.0) -> Array:
        """Return a point in the world by metres along, out of and above the side's start."""
        return np.asarray(self.start + along * self.along + out * self.out + up * UP)

    def box(self, along: float, out: float, length: float, width: float) -> Bounds:
        """Return the bounds of a rectangle with that corner, in metres along and out."""
        a, b = self.at(along, out), self.at(along + length, out + width)
        low, high = np.minimum(a, b), np.maximum(a, b)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def street_scene(rng: np.random.Generator) -> Scene:
    """Build the street around the lap of `paths.street_pose`."""
    outer = _grown(lap_bounds(), LANE_TO_KERB_M)
    inner = _grown(outer, -ROAD_M)
    asphalt, stone = paint.asphalt(rng), Cover(paint.slabs(rng), 4.8, 4.8)
    kerb = Cover(paint.concrete(rng, 150.0), 2.0, 2.0)
    quads = [floor(*_corners(_grown(outer, 60.0)), 0.0, Cover(asphalt, 14.0, 14.0))]
    quads += box([*inner[:2], 0.0], [*inner[2:], KERB_M], {"": kerb, "+z": stone})
    quads += [floor(*_corners(strip), KERB_M, stone) for strip in _ring(outer, 2 * PAVEMENT_M)]
    kerbs = _sides(outer, inward=True)
    quads += [panel(k.start, k.along * k.length, KERB_M * UP, kerb) for k in kerbs]

    walls = _Walls.painted(rng)
    for side in _sides(_grown(outer, PAVEMENT_M), inward=True):
        quads += _houses(rng, side, -2.0, walls)  # past the corners, where rows of houses cross
    for i, side in enumerate(_sides(_grown(inner, -PAVEMENT_M), inward=False)):
        quads += _houses(rng, side, (HOUSE_DEPTH_M + 1.0) * (i % 2), walls)
    things = _Things.painted(rng, asphalt)
    for side in kerbs + _sides(inner, inward=False):
        quads += _pavement_things(rng, side, things)
        quads += _parked_cars(rng, side, things)
    for side in _sides(inner, inward=False):
        quads += _road_marks(rng, side, things)
    return Scene(quads, sky=paint.clouds(rng))


@dataclass(frozen=True, slots=True)
class _Walls:
    facades: list[Texture]
    shops: list[Texture]

    @staticmethod
    def painted(rng: np.random.Generator) -> _Walls:
        return _Walls(
            [paint.facade(rng) for _ in range(8)], [paint.shopfront(rng) for _ in range(5)]
        )


@dataclass(frozen=True, slots=True)
class _Things:
    """The covers of everything in the street that is smaller than a house."""

    asphalt: Texture
    paint_mark: Cover
    manhole: Cover
    metal: Cover
    leaves: Cover
    bark: Cover
    signs: list[Cover]
    cartons: list[Cover]
    car_sides: list[Cover]
    car_ends: list[Cover]
    car_glass: list[Cover]
    roof: Cover

    @staticmethod
    def painted(rng: np.random.Generator, asphalt: Texture) -> _Things:
        return _Things(
            asphalt=asphalt,
            paint_mark=Cover(paint.paint_mark(rng), 1.5, 1.5),
            manhole=Cover(paint.manhole(rng)),
            metal=Cover(paint.concrete(rng, 95.0), 0.7, 0.7),
            leaves=Cover(paint.leaves(rng), 1.8, 1.8),
            bark=Cover(paint.concrete(rng, 70.0), 0.5, 0.5),
            signs=[Cover(paint.poster(rng)) for _ in range(4)],
            cartons=[Cover(paint.carton(rng)) for _ in range(4)],
            car_sides=[Cover(paint.car_side(rng)) for _ in range(5)],
            car_ends=[Cover(paint.car_end(rng)) for _ in range(5)],
            car_glass=[Cover(paint.car_glass(rng)) for _ in range(3)],
            roof=Cover(paint.concrete(rng, 130.0), 3.0, 3.0),
        )


def _grown(bounds: Bounds, margin: float) -> Bounds:
    x0, y0, x1, y1 = bounds
    return x0 - margin, y0 - margin, x1 + margin, y1 + margin


def _corners(bounds: Bounds) -> tuple[tuple[float, float], tuple[float, float]]:
    return bounds[:2], bounds[2:]


def _ring(bounds: Bounds, width: float) -> list[Bounds]:
    """Return four strips around a rectangle that do not overlap."""
    x0, y0, x1, y1 = bounds
    return [
        (x0 - width, y0 - width, x1 + width, y0),
        (x0 - width, y1, x1 + width, y1 + width),
        (x0 - width, y0, x0, y1),
        (x1, y0, x1 + width, y1),
    ]


def _sides(bounds: Bounds, inward: bool) -> list[_Side]:
    """Return the four sides of a rectangle, facing into it or out of it."""
    x0, y0, x1, y1 = bounds
    ring = [np.array([x, y, 0.0]) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    if inward:
        ring.reverse()
    sides = []
    for start, end in zip(ring, ring[1:] + ring[:1], strict=True):
        length = float(np.linalg.norm(end - start))
        sides.append(_Side(start, (end - start) / length, length))
    return sides


def _houses(rng: np.random.Generator, side: _Side, inset: float, walls: _Walls) -> list[Quad]:
    """Return a row of houses whose fronts lie on a side, some of them a little behind it."""
    quads: list[Quad] = []
    along = inset
    while along < side.length - inset - 0.5:
        width = min(BAY_M * int(rng.integers(2, 6)), side.length - inset - along)
        back = -float(rng.choice([0.0, 0.0, 0.35, 0.8]))
        foot = SHOP_M if rng.random() < 0.5 else 0.0
        height = STOREY_M * int(rng.integers(2, 6))
        texture = walls.facades[rng.integers(len(walls.facades))]
        bay = int(rng.integers(4)) / 4
        wall = Cover(texture, 4 * BAY_M, 4 * STOREY_M, (bay, 0.0))
        if foot:
            shop = walls.shops[rng.integers(len(walls.shops))]
            cover = Cover(shop, 4 * BAY_M, 0.0, (float(rng.random()), 0.0))
            quads.append(panel(side.at(along, back), width * side.along, foot * UP, cover))
        front = side.at(along, back, foot)
        quads.append(panel(front, width * side.along, height * UP, wall))
        rise, depth = (foot + height) * UP, HOUSE_DEPTH_M * side.out
        rear = back - HOUSE_DEPTH_M
        quads.append(panel(side.at(along, rear), depth, rise, wall))
        quads.append(panel(side.at(along + width, back), -depth, rise, wall))
        along += width
    return quads


def _pavement_things(rng: np.random.Generator, side: _Side, things: _Things) -> list[Quad]:
    """Return lamp posts, trees, hedges, bins and signs along a kerb."""
    quads: list[Quad] = []
    along = float(rng.uniform(2.0, 5.0))
    while along < side.length - 2.0:
        foot = side.at(along, -0.55, KERB_M)
        kind = rng.choice(["post", "tree", "sign", "bin", "hedge"], p=[0.3, 0.25, 0.2, 0.1, 0.15])
        if kind == "post":
            quads += standing(foot, (0.14, 0.14, 5.6), things.metal)
            quads += standing(foot + [0.0, 0.0, 5.6], (0.7, 0.7, 0.16), things.metal)
        elif kind == "tree":
            quads += standing(foot, (0.26, 0.26, 2.4), things.bark)
            for _ in range(5):
                shift = [*rng.uniform(-0.75, 0.75, 2), rng.uniform(2.1, 3.6)]
                quads += standing(foot + shift, rng.uniform(0.7, 1.5, 3), things.leaves)
        elif kind == "sign":
            sign = things.signs[rng.integers(len(things.signs))]
            plate = np.abs(side.out) * 0.75 + np.abs(side.along) * 0.08 + 0.75 * UP
            quads += standing(foot, (0.07, 0.07, 2.2), things.metal)
            quads += standing(foot + [0.0, 0.0, 2.2], plate, {"": sign})
        elif kind == "bin":
            carton = things.cartons[rng.integers(len(things.cartons))]
            quads += standing(foot, (0.55, 0.55, 1.05), carton)
        else:
            shape = np.abs(side.along) * rng.uniform(1.6, 3.2) + np.abs(side.out) * 0.6 + 0.9 * UP
            quads += standing(foot, shape, things.leaves)
        along += float(rng.uniform(2.5, 5.5))
    return quads


def _parked_cars(rng: np.random.Generator, side: _Side, things: _Things) -> list[Quad]:
    """Return cars and vans along a kerb, none near the corners."""
    quads: list[Quad] = []
    along = CORNER_M
    while along + 5.0 < side.length - CORNER_M:
        if rng.random() < 0.62:
            van = rng.random() < 0.25
            length, width = float(rng.uniform(3.9, 4.6)), 1.75
            doors = things.car_sides[rng.integers(len(things.car_sides))]
            end = things.car_ends[rng.integers(len(things.car_ends))]
            glass = things.car_glass[rng.integers(len(things.car_glass))]
            lengthwise = abs(side.along[0]) > 0.5
            flanks, ends = (("-y", "+y"), ("-x", "+x"))[:: 1 if lengthwise else -1]
            body = {**dict.fromkeys(flanks, doors), **dict.fromkeys(ends, end), "+z": things.roof}
            low, high = _corners(side.box(along, 0.2, length, width))
            quads += box([*low, 0.0], [*high, 0.9], body)
            front = 0.1 if van else 1.0
            low, high = _corners(side.box(along + front, 0.3, length - front - 0.4, width - 0.2))
            cabin = {"": glass, "+z": things.roof}
            quads += box([*low, 0.9], [*high, 1.95 if van else 1.45], cabin)
        along += float(rng.uniform(5.6, 7.5))
    return quads


def _road_marks(rng: np.random.Generator, side: _Side, things: _Things) -> list[Quad]:
    """Return what lies on the road before one side of the inner block."""
    quads = []
    for k in range(14):  # mended places
        along, out = rng.uniform(0, side.length - 4), rng.uniform(0.3, ROAD_M - 3)
        low, high = _corners(side.box(along, out, *rng.uniform(0.5, 3.0, 2)))
        phase = float(rng.random()), float(rng.random())
        coarse = float(rng.uniform(5.0, 9.0))
        patch = Cover(things.asphalt, coarse, coarse, phase)
        quads.append(floor(low, high, _PATCH_Z + 1e-4 * k, patch))
    for along in np.arange(4.0, side.length - 4.0, 6.0):  # the middle line
        bounds = side.box(float(along), 0.5 * ROAD_M, 3.0, 0.15)
        quads.append(floor(*_corners(bounds), _PAINT_Z, things.paint_mark))
    for along in (5.0, side.length - 8.0):  # zebra crossings
        for out in np.arange(0.6, ROAD_M - 0.8, 1.1):
            bounds = side.box(along, float(out), 3.0, 0.5)
            quads.append(floor(*_corners(bounds), _PAINT_Z + 1e-3, things.paint_mark))
    for _ in range(5):
        along, out = rng.uniform(2, side.length - 2), rng.uniform(2.0, ROAD_M - 2)
        quads.append(floor(*_corners(side.box(along, out, 0.7, 0.7)), _LID_Z, things.manhole))
    return quads
