"""A world seen from a path of cameras, as tables that rays look up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vo_stream.training.boxes import Boxes, World
from vo_stream.training.paths import Path, about_y
from vo_stream.training.records import values
from vo_stream.training.textures import families

GEOMETRY = 15
"""Columns of `Scene.geometry`: box_from_camera row by row, the camera in the box, both over the
half sizes, and these."""
_GOLDEN = 0.618034
_VARIED = 0.12
"""How much the faces of a box differ in brightness whatever the light."""
MACRO = 4.3
"""How much larger than the first the second texture of a surface is."""


@dataclass(frozen=True)
class Scene:
    """n worlds with K boxes (and one that nothing hits, for padding) in F = n T frames."""

    n: int
    frames: int
    boxes: int
    geometry: Tensor
    """(15, F * (K + 1))."""
    slabs: Tensor
    """(13, F * (K + 1) * 3): per axis a, its row of box_from_camera and those of the texture's
    u and v; the camera in the box along a, u, v; the half size along a."""
    faces: Tensor
    """(8, n * (K + 1) * 6): texture, u and v repeats per m, u shift, brightness gain and bias,
    second texture and its gain; the face is 2 axis + (its normal is positive)."""
    corners: Tensor
    """(F, K + 1, 8, 3) m, in the camera's frame."""
    rotation: Tensor
    """(F, 3, 3) world_from_camera."""
    position: Tensor
    """(F, 3) m."""
    round: Tensor
    """(n * (K + 1),) bool: an ellipsoid."""
    velocity: Tensor
    """(n * (K + 1), 3) m/s."""
    intrinsics: Tensor
    """(n, 4) fx fy cx cy in px."""
    world: World


def scene(world: World, path: Path, intrinsics: Tensor) -> Scene:
    """Return the tables of worlds, on the device where all three are."""
    boxes = _padded(world.boxes)
    n, k = boxes.yaw.shape
    frames = path.position.shape[1]
    world_from_box = about_y(boxes.yaw)[:, None]
    box_from_camera = world_from_box.mT @ path.rotation[:, :, None]
    at = boxes.centre[:, None] + boxes.velocity[:, None] * path.stamps.float()[:, :, None, None]
    origin = (world_from_box.mT @ (path.position[:, :, None] - at)[..., None])[..., 0]
    half = boxes.half[:, None].expand(n, frames, k, 3)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], device=half.device)] * 3)
    corners = (half[..., None, :] * signs - origin[..., None, :]) @ box_from_camera
    unit = (box_from_camera / half[..., None]).flatten(3)
    geometry = torch.cat([unit, origin / half, half], 3)
    return Scene(
        n=n, frames=frames, boxes=k - 1,
        geometry=geometry.flatten(0, 2).T.contiguous(),
        slabs=_slabs(box_from_camera, origin, half),
        faces=_faces(boxes, world),
        corners=corners.flatten(0, 1),
        rotation=path.rotation.flatten(0, 1), position=path.position.flatten(0, 1),
        round=boxes.round.flatten(), velocity=boxes.velocity.flatten(0, 1),
        intrinsics=intrinsics, world=world,
    )  # fmt: skip


def _padded(boxes: Boxes) -> Boxes:
    """Return the boxes and one more far below."""
    columns = {name: torch.cat([v, v[:, -1:]], 1) for name, v in values(boxes).items()}
    columns["centre"][:, -1] = 1e5
    columns["half"][:, -1] = 1e-3
    return Boxes(**columns)


_UV = ((2, 1), (0, 2), (0, 1))
"""Axes of a texture's u and v on the faces across x, y and z: v is upright on upright faces."""


def _slabs(box_from_camera: Tensor, origin: Tensor, half: Tensor) -> Tensor:
    rows = []
    for a, (u, v) in enumerate(_UV):
        axes = [a, u, v]
        matrix = box_from_camera[..., axes, :].flatten(3)
        rows.append(torch.cat([matrix, origin[..., axes], half[..., a : a + 1]], 3))
    return torch.stack(rows, 3).flatten(0, 3).T.contiguous()


def _faces(boxes: Boxes, world: World) -> Tensor:
    n, k = boxes.yaw.shape
    index = torch.arange(k, device=boxes.yaw.device)
    shift = (index * _GOLDEN) % 1
    cars = families().cars[0]
    sun = world.sun[:, None, :]
    cos, sin = boxes.yaw.cos(), boxes.yaw.sin()
    facing = torch.stack(
        [cos * sun[..., 0] - sin * sun[..., 2], sun[..., 1].expand(n, k),
         sin * sun[..., 0] + cos * sun[..., 2]], 2,
    )  # fmt: skip
    columns: list[Tensor] = []
    for axis in range(3):
        texture = boxes.top if axis == 1 else boxes.side
        along = boxes.repeat[..., 0]
        up = boxes.repeat[..., 0] if axis == 1 else boxes.repeat[..., 1]
        start = torch.where(texture >= cars, 0.5, shift + 0.37 * axis)
        for sign in (-1.0, 1.0):
            lit = (sign * facing[..., axis]).clamp(min=0)
            light = world.ambient[:, None] * (1 + 0.12 * facing[..., axis] * sign)
            light = light + (1 - world.ambient[:, None]) * 1.6 * lit
            light = light * (1 + _VARIED * torch.sin(999 * boxes.albedo + 2.4 * len(columns)))
            column = [
                texture.float(), 1 / along, 1 / up, start, light * boxes.contrast,
                light * boxes.albedo, boxes.second.float(), light * boxes.rough,
            ]  # fmt: skip
            columns.append(torch.stack(column, 2))
    return torch.stack(columns, 2).flatten(0, 2).T.contiguous()
