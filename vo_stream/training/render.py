"""Rendered training clips: pictures as a camera takes them, and the exact truth about them."""

from __future__ import annotations

import torch
from torch import Tensor

from vo_stream.training import effects, paths
from vo_stream.training.boxes import World
from vo_stream.training.cast import TILE, film
from vo_stream.training.clip import Clip, concatenate
from vo_stream.training.draw import Draw
from vo_stream.training.paths import Path
from vo_stream.training.records import moved
from vo_stream.training.scene import scene
from vo_stream.training.street import street
from vo_stream.training.worlds import clutter, room

KINDS = ("street", "room", "clutter")
"""Streets from a vehicle; rooms and desks from a hand or a drone."""


@torch.no_grad()
def render_clips(
    batch: int,
    frames: int,
    size: tuple[int, int] = (320, 96),
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    kinds: tuple[str, ...] = KINDS,
    clean: bool = False,
) -> Clip:
    """Return a batch of clips, each of its own world, camera and path.

    `size`: (width, height) in px, multiples of 16. `kinds`: worlds to choose from, each as often
    as it is named. `clean`: without the camera's effects. Equal generators give equal clips on
    one device. Raises ValueError for a size or kind that does not exist.
    """
    if size[0] % TILE or size[1] % TILE:
        raise ValueError(f"size must be multiples of {TILE}, got {size}")
    if not set(kinds) <= set(KINDS):
        raise ValueError(f"kinds must be of {KINDS}, got {kinds}")
    draw = Draw(generator or torch.Generator().manual_seed(0))
    device = torch.device(device)
    chosen = draw.integers(0, len(kinds), batch)
    clips, order = [], []
    for number, kind in enumerate(kinds):
        (items,) = (chosen == number).nonzero(as_tuple=True)
        if len(items):
            clips.append(_clips_of(kind, draw, len(items), frames, size, device, clean))
            order.append(items)
    return concatenate(clips).select(torch.cat(order).argsort().to(device))


def _clips_of(
    kind: str,
    draw: Draw,
    n: int,
    frames: int,
    size: tuple[int, int],
    device: torch.device,
    clean: bool,
) -> Clip:
    world, path = staged(kind, draw, n, frames)
    world, path = moved(world, device), moved(path, device)
    intrinsics = _intrinsics(kind, draw, n, size).to(device)
    taken = film(scene(world, path, intrinsics), size)
    image, inverse_depth, cell_inverse_depth, cell_velocity = (
        part.reshape(n, frames, *part.shape[1:]) for part in taken
    )
    if not clean:
        flow = effects.pixel_flow(inverse_depth, path, intrinsics)
        image = effects.apply(draw, image, flow)
    return Clip(
        images=(image.clamp(0, 1) * 255).round().to(torch.uint8),
        inverse_depth=cell_inverse_depth,
        velocity=cell_velocity,
        rotation=path.rotation,
        position=path.position,
        intrinsics=intrinsics,
        stamps=path.stamps,
    )


def staged(kind: str, draw: Draw, n: int, frames: int) -> tuple[World, Path]:
    """Return n worlds of a kind, and the paths through them."""
    if kind == "street":
        straight = draw.log_uniform(1e-5, 1e-3, n)
        bend = torch.where(draw.chance(0.5, n), straight, draw.log_uniform(1e-3, 0.03, n))
        bend = bend * draw.sign(n)
        path = paths.vehicle(draw, n, frames, bend)
        return street(draw, path, bend), path
    flying = draw.chance(0.35 if kind == "room" else 0.1, n)
    pitch = (-0.4, 0.3) if kind == "room" else (-1.1, -0.1)
    path = _either(flying, paths.drone(draw, n, frames), paths.hand_held(draw, n, frames, pitch))
    return (room if kind == "room" else clutter)(draw, path), path


def _either(first: Tensor, one: Path, other: Path) -> Path:
    return Path(
        torch.where(first[:, None, None, None], one.rotation, other.rotation),
        torch.where(first[:, None, None], one.position, other.position),
        torch.where(first[:, None], one.stamps, other.stamps),
    )


def _intrinsics(kind: str, draw: Draw, n: int, size: tuple[int, int]) -> Tensor:
    """Return (n, 4) fx fy cx cy in px: cameras of vehicles see wide, others also narrow."""
    width, height = size
    share = draw.uniform(0.5, 0.75, n) if kind == "street" else draw.uniform(0.45, 1.1, n)
    aspect = 1 + 0.01 * draw.normal(n)
    cx = (width - 1) / 2 + 0.03 * width * draw.normal(n).clamp(-2, 2)
    cy = (height - 1) / 2 + 0.05 * height * draw.normal(n).clamp(-2, 2)
    return torch.stack([share * width, share * width * aspect, cx, cy], 1)
