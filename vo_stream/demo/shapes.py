"""Boxes and panels: what the demo worlds are put together from. The z axis points up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vo_stream.demo.render import Quad
from vo_stream.demo.ripmap import Texture
from vo_stream.se3 import Array

UP = np.array([0.0, 0.0, 1.0])

_LIGHT_FROM = np.array([0.16, -0.14, 0.22])
"""How the brightness of a surface follows its normal."""
_MEAN_LIGHT = 0.95


@dataclass(frozen=True, slots=True)
class Cover:
    """A texture at its true size.

    `width_m`, `height_m`: metres of one repeat along a face's width and height; 0 stretches one
    repeat over the face. `phase`: where the texture begins, in repeats.
    """

    texture: Texture
    width_m: float = 0.0
    height_m: float = 0.0
    phase: tuple[float, float] = (0.0, 0.0)


def panel(origin: Sequence[float] | Array, u: Array, v: Array, cover: Cover) -> Quad:
    """Return a rectangle from its corner and sides in metres, seen from where u x v points."""
    lengths = float(np.linalg.norm(u)), float(np.linalg.norm(v))
    normal = np.cross(u, v) / (lengths[0] * lengths[1])
    return Quad(
        np.asarray(origin, dtype=np.float64),
        u,
        v,
        cover.texture,
        (lengths[0] / (cover.width_m or lengths[0]), lengths[1] / (cover.height_m or lengths[1])),
        cover.phase,
        float(_MEAN_LIGHT + normal @ _LIGHT_FROM),
    )


def floor(low: Sequence[float], high: Sequence[float], z: float, cover: Cover) -> Quad:
    """Return a level rectangle between two corners (x, y), seen from above."""
    x, y = high[0] - low[0], high[1] - low[1]
    return panel([low[0], low[1], z], np.array([x, 0.0, 0.0]), np.array([0.0, y, 0.0]), cover)


def box(
    low: Sequence[float],
    high: Sequence[float],
    covers: Mapping[str, Cover] | Cover,
    inward: bool = False,
) -> list[Quad]:
    """Return the faces of an upright box that have a cover.

    `covers`: one for all six faces, or by face: "+x", "-x", ..., and "" for all that are not
    named. `inward`: seen from inside, as a room is.
    """
    by_face = {"": covers} if isinstance(covers, Cover) else covers
    a, b = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    x, y, z = np.diag(b - a)
    faces = {
        "+x": ([b[0], a[1], a[2]], y, z),
        "-x": ([a[0], b[1], a[2]], -y, z),
        "+y": ([b[0], b[1], a[2]], -x, z),
        "-y": ([a[0], a[1], a[2]], x, z),
        "+z": ([a[0], a[1], b[2]], x, y),
        "-z": ([a[0], b[1], a[2]], x, -y),
    }
    quads = []
    for name, (origin, u, v) in faces.items():
        cover = by_face.get(name, by_face.get(""))
        if cover is None:
            continue
        quads.append(
            panel(np.add(origin, u), -u, v, cover) if inward else panel(origin, u, v, cover)
        )
    return quads


def standing(
    foot: Sequence[float] | Array,
    size: Sequence[float] | Array,
    covers: Mapping[str, Cover] | Cover,
) -> list[Quad]:
    """Return a box by the middle of its foot and its `size` along x, y and z, both in metres."""
    x, y, z = map(float, foot)
    w, d, h = map(float, size)
    return box([x - w / 2, y - d / 2, z], [x + w / 2, y + d / 2, z + h], covers)
