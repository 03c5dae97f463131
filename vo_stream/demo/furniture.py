"""The room of the demo: walls, furniture along them, and things lying about."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vo_stream.demo import textures as paint
from vo_stream.demo.render import Quad, Scene
from vo_stream.demo.shapes import Cover, box, floor, standing

HALF_X_M, HALF_Y_M, HEIGHT_M = 3.2, 2.7, 2.7
_PICTURE_M = 0.03
_TABLE_M = 0.74


def room_scene(rng: np.random.Generator) -> Scene:
    """Build the room around the origin of `paths.room_pose`; its floor is at z = 0."""
    covers = {
        "+x": Cover(paint.wallpaper(rng, 165.0), 2.0, 2.0),
        "-x": Cover(paint.plaster(rng, 150.0), 2.6, 2.6),
        "+y": Cover(paint.plaster(rng, 175.0), 2.4, 2.4),
        "-y": Cover(paint.wallpaper(rng, 140.0), 1.7, 1.7),
        "-z": Cover(paint.planks(rng, 115.0), 2.2, 2.2),
        "+z": Cover(paint.plaster(rng, 195.0), 2.2, 2.2),
    }
    quads = box([-HALF_X_M, -HALF_Y_M, 0.0], [HALF_X_M, HALF_Y_M, HEIGHT_M], covers, inward=True)
    wood = Cover(paint.planks(rng, 95.0), 1.3, 1.3)
    cloth = Cover(paint.wallpaper(rng, 120.0), 1.1, 1.1)
    dark = Cover(paint.concrete(rng, 65.0), 0.6, 0.6)
    cartons = [Cover(paint.carton(rng)) for _ in range(6)]
    quads += _pictures(rng)
    quads += _shelves(rng, wood)
    quads += _table(rng, (1.5, -1.55), (1.7, 0.8), wood, cartons)
    quads += _table(rng, (-1.0, 1.9), (1.3, 0.7), wood, cartons)
    quads += standing((-2.7, -0.6, 0.0), (0.9, 2.0, 0.42), cloth)  # a sofa
    quads += standing((-3.05, -0.6, 0.42), (0.25, 2.0, 0.45), cloth)
    quads += [
        quad for y in (-1.45, 0.25) for quad in standing((-2.7, y, 0.42), (0.85, 0.24, 0.2), cloth)
    ]
    quads.append(
        floor((-1.3, -1.0), (1.2, 0.9), 0.006, Cover(paint.wallpaper(rng, 95.0), 0.9, 0.9))
    )
    quads += standing((0.3, -0.2, 2.3), (0.45, 0.45, 0.3), Cover(paint.poster(rng)))  # a lamp
    quads += standing((0.3, -0.2, 2.6), (0.04, 0.04, 0.1), dark)
    for x, y in ((2.75, 0.9), (2.6, 1.6), (-0.2, -2.3), (0.45, 2.3), (2.7, 2.2), (-2.8, 2.3)):
        quads += _pile(rng, x, y, cartons)
    for x, y in ((0.3, -1.5), (-1.0, 1.2)):  # stools
        quads += _legs((x, y), (0.36, 0.36), 0.45, dark)
        quads += standing((x, y, 0.45), (0.4, 0.4, 0.05), cloth)
    return Scene(quads)


def _pictures(rng: np.random.Generator) -> list[Quad]:
    """Return pictures that hang on all four walls."""
    posters = [Cover(paint.poster(rng)) for _ in range(9)]
    walls: list[Callable[[float, float], list[float]]] = [
        lambda s, d: [HALF_X_M - d, s],
        lambda s, d: [-HALF_X_M + d, s],
        lambda s, d: [s, HALF_Y_M - d],
        lambda s, d: [s, -HALF_Y_M + d],
    ]
    quads: list[Quad] = []
    for i, wall in enumerate(walls):
        reach = (HALF_Y_M if i < 2 else HALF_X_M) - 0.5
        along = -reach
        while along < reach - 0.3:
            width, height = rng.uniform(0.35, 0.9, 2)
            width = min(width, reach - along)
            z = float(rng.uniform(1.15, 2.5 - height))
            a, b = wall(along, 0.0), wall(along + width, _PICTURE_M)
            low, high = np.minimum(a, b), np.maximum(a, b)
            poster = posters[rng.integers(len(posters))]
            quads += box([*low, z], [*high, z + height], poster)
            along += width + float(rng.uniform(0.12, 0.5))
    return quads


def _shelves(rng: np.random.Generator, wood: Cover) -> list[Quad]:
    quads: list[Quad] = []
    for x in (-2.2, 1.7):
        front = Cover(paint.books(rng), 1.2, 0.65)
        quads += box([x - 0.6, HALF_Y_M - 0.35, 0.0], [x + 0.6, HALF_Y_M - 0.04, 1.95],
                     {"": wood, "-y": front})  # fmt: skip
        for shift in (-0.35, 0.15):
            quads += standing((x + shift, HALF_Y_M - 0.2, 1.95), rng.uniform(0.12, 0.3, 3), wood)
    front = Cover(paint.books(rng), 1.2, 0.65)
    quads += box([-HALF_X_M + 0.04, 1.0, 0.0], [-HALF_X_M + 0.4, 1.9, 1.3],
                 {"": wood, "+x": front})  # fmt: skip
    return quads


def _table(
    rng: np.random.Generator,
    centre: tuple[float, float],
    size: tuple[float, float],
    wood: Cover,
    cartons: list[Cover],
) -> list[Quad]:
    """Return a table with things on it."""
    x, y = centre
    quads = _legs(centre, (size[0] - 0.1, size[1] - 0.1), _TABLE_M, wood)
    quads += standing((x, y, _TABLE_M), (*size, 0.04), wood)
    for i in range(6):
        shape = rng.uniform([0.06, 0.06, 0.03], [0.22, 0.2, 0.3])
        place = x + (i - 2.5) / 6 * size[0], y + rng.uniform(-0.3, 0.3) * size[1], _TABLE_M + 0.04
        quads += standing(place, shape, cartons[rng.integers(len(cartons))])
    return quads


def _legs(
    centre: tuple[float, float], size: tuple[float, float], height: float, cover: Cover
) -> list[Quad]:
    quads: list[Quad] = []
    for kx, ky in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)):
        foot = centre[0] + kx * size[0], centre[1] + ky * size[1], 0.0
        quads += standing(foot, (0.05, 0.05, height), cover)
    return quads


def _pile(rng: np.random.Generator, x: float, y: float, cartons: list[Cover]) -> list[Quad]:
    """Return boxes on top of each other, each a little smaller."""
    quads: list[Quad] = []
    side, z = rng.uniform(0.4, 0.6), 0.0
    for _ in range(int(rng.integers(2, 5))):
        height = float(rng.uniform(0.18, 0.45))
        shift = rng.uniform(-0.05, 0.05, 2)
        carton = cartons[rng.integers(len(cartons))]
        quads += standing((x + shift[0], y + shift[1], z), (side, side, height), carton)
        z, side = z + height, side * float(rng.uniform(0.7, 0.9))
    return quads
