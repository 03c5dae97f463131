"""Rays cast at boxes: which one each pixel and each cell's centre sees.

Every ray is tested only against the boxes that reach into its 16 x 16 pixel tile. Pixels on an
outline are sampled four times, so that edges do not flicker as they move.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vo_stream.training.clip import CELL
from vo_stream.training.scene import Scene
from vo_stream.training.surfaces import ball, look
from vo_stream.training.textures import atlas

TILE = 16
"""Pixels along the side of a tile."""
_NEAR = 0.02
"""m; nothing nearer is seen."""
_TINY = 1e-9
"""Added to a ray's slopes, so that none is quite parallel to a face."""
_SUBPIXELS = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))
_CHUNK = {"cpu": 2**18, "cuda": 2**25}
"""Ray-box tests in one go: as fits the processor's cache, or fills a GPU."""
_PIXELS = {"cpu": 2**19, "cuda": 2**25}
"""Pixels of the frames that are rendered in one go."""


class Film(NamedTuple):
    """F frames of a scene."""

    image: Tensor
    """(F, H, W) brightness, about 0..1."""
    inverse_depth: Tensor
    """(F, H, W) 1/m."""
    cell_inverse_depth: Tensor
    """(F, h, w) 1/m at the cells' centres."""
    cell_velocity: Tensor
    """(F, h, w, 3) m/s in the world."""


def film(scene: Scene, size: tuple[int, int]) -> Film:
    """Return all frames of a scene. `size`: (width, height) in px, multiples of TILE."""
    device = scene.geometry.device
    total = scene.n * scene.frames
    step = max(1, _PIXELS[device.type] // (size[0] * size[1]))
    parts = [
        _some_frames(scene, size, torch.arange(k, min(k + step, total), device=device))
        for k in range(0, total, step)
    ]
    return Film(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _some_frames(scene: Scene, size: tuple[int, int], frames: Tensor) -> Film:
    device = frames.device
    columns, rows = size[0] // TILE, size[1] // TILE
    table, chunk = atlas(device), _CHUNK[device.type]
    reached = _reached(scene, frames, columns, rows)
    counts = reached.sum(-1)
    order = counts.argsort()
    v, u = _places_in_tile(device)
    shape = (len(order), len(u))
    image, depth = (torch.empty(shape, device=device) for _ in range(2))
    surface = torch.empty(shape, dtype=torch.int64, device=device)
    for tiles, most in _groups(order, counts[order].tolist(), len(u), chunk):
        frame = frames[torch.div(tiles, columns * rows, rounding_mode="floor")]
        fx, fy, cx, cy = _intrinsics(scene, frame)
        x = ((tiles % columns)[:, None] * TILE + u - cx) / fx
        row = torch.div(tiles, columns, rounding_mode="floor") % rows
        y = (row[:, None] * TILE + v - cy) / fy
        listed = reached[tiles].to(torch.uint8).topk(max(most, 1), 1)
        boxes = torch.where(listed.values > 0, listed.indices, scene.boxes)
        box = _nearest(scene, frame, boxes, x, y).flatten()
        flat = frame[:, None].expand_as(x).flatten()
        hits = look(scene, table, flat, box, x.flatten(), y.flatten())
        image[tiles] = hits.value.view_as(x)
        depth[tiles] = hits.inverse_depth.view_as(x)
        surface[tiles] = hits.surface.view_as(x)

    def assembled(values: Tensor, side: int) -> Tensor:
        tiled = values.reshape(len(frames), rows, columns, side, side)
        return tiled.permute(0, 1, 3, 2, 4).reshape(len(frames), rows * side, columns * side)

    pixels, cells = slice(0, TILE * TILE), slice(TILE * TILE, None)
    picture = assembled(image[:, pixels], TILE)
    _smooth_outlines(scene, frames, picture, assembled(surface[:, pixels], TILE))
    item = torch.div(frames, scene.frames, rounding_mode="floor")[:, None, None]
    seen = torch.div(assembled(surface[:, cells], TILE // CELL), 6, rounding_mode="floor")
    return Film(
        picture,
        assembled(depth[:, pixels], TILE),
        assembled(depth[:, cells], TILE // CELL),
        scene.velocity[item * (scene.boxes + 1) + seen],
    )


def _places_in_tile(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return v and u of a tile's pixels, then of its cells' centres."""
    pixels = torch.arange(TILE, device=device, dtype=torch.float32)
    centres = pixels[: TILE // CELL] * CELL + (CELL - 1) / 2
    grids = [torch.cartesian_prod(at, at) for at in (pixels, centres)]
    v, u = torch.cat(grids).T
    return v, u


def _groups(order: Tensor, counts: list[int], rays: int, chunk: int) -> list[tuple[Tensor, int]]:
    """Return groups of tiles, and how many boxes the fullest tile of each has.

    `order`: tiles by the number of boxes in them, `counts`.
    """
    groups, start = [], 0
    while start < len(counts):
        end = start + 1
        # grow by quarters: the end of a group need not be exact
        while end < len(counts) and (end - start + 1) * rays * max(counts[end], 2) <= chunk:
            end = min(len(counts), end + max(1, (end - start) // 4))
        groups.append((order[start:end], counts[end - 1]))
        start = end
    return groups


def _intrinsics(scene: Scene, frame: Tensor) -> tuple[Tensor, ...]:
    """Return fx, fy, cx, cy of frames (n,), (n, 1) each."""
    item = torch.div(frame, scene.frames, rounding_mode="floor")
    return scene.intrinsics[item].T[:, :, None].unbind(0)


def _reached(scene: Scene, frames: Tensor, columns: int, rows: int) -> Tensor:
    """Return (tiles, K) whether a box may be seen in a tile; box 0, seen everywhere, is not."""
    x, y, z = scene.corners[frames, : scene.boxes].unbind(-1)
    fx, fy, cx, cy = _intrinsics(scene, frames)

    def within(place: Tensor, count: int, focal: Tensor, centre: Tensor) -> Tensor:
        """Return (F, K, count) whether a box is between two edges of columns or rows."""
        edges = torch.arange(count + 1, device=frames.device) * TILE - 0.5
        slope = ((edges - centre) / focal)[:, None, None, :]
        past = place[..., None] - slope * z[..., None]
        return (past.amax(2)[..., :-1] >= 0) & (past.amin(2)[..., 1:] <= 0)

    ahead = z.amax(2) > _NEAR
    ahead[:, 0] = False
    across = (within(x, columns, fx, cx) & ahead[..., None]).mT
    down = within(y, rows, fy, cy).mT
    return (down[:, :, None, :] & across[:, None, :, :]).flatten(0, 2)


def _nearest(scene: Scene, frame: Tensor, boxes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return (n, P) the nearest of the listed boxes (n, M) that rays (n, P) hit, else 0."""
    _, _, end = _crossed(scene, frame[:, None] * (scene.boxes + 1), x, y)
    slopes, near, far = _crossed(scene, frame[:, None] * (scene.boxes + 1) + boxes, x, y)
    hit = near < far
    item = torch.div(frame, scene.frames, rounding_mode="floor")
    is_round = scene.round[item[:, None] * (scene.boxes + 1) + boxes][..., None]
    if bool(is_round.any()):
        at = scene.geometry[9:12, frame[:, None] * (scene.boxes + 1) + boxes][..., None]
        depth, missed = ball(slopes, list(at))
        near = torch.where(is_round, depth, near)
        hit = hit & ~(is_round & missed)
    near = torch.where(hit & (near > _NEAR), near, torch.inf)
    depth, which = near.min(1)
    return torch.where(depth < end[:, 0], boxes.gather(1, which), 0)


def _crossed(
    scene: Scene, seat: Tensor, x: Tensor, y: Tensor
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the slopes of rays (n, P) in the frames of boxes (n, M), and where they enter and
    leave these: (n, M, P) each. A ray that enters after it leaves misses.
    """
    g = scene.geometry[:12, seat][..., None]
    x, y = x[:, None], y[:, None]
    slopes = [
        torch.addcmul(torch.addcmul(g[3 * a + 2], g[3 * a], x), g[3 * a + 1], y).add_(_TINY)
        for a in range(3)
    ]
    near, far = x.new_tensor(-torch.inf), x.new_tensor(torch.inf)
    for slope, at in zip(slopes, g[9:], strict=True):
        half = slope.reciprocal()
        middle = half * -at
        half.abs_()
        near = torch.maximum(near, middle - half)
        far = torch.minimum(far, middle.add_(half))
    return slopes, near, far


def _smooth_outlines(scene: Scene, frames: Tensor, image: Tensor, surface: Tensor) -> None:
    """Sample pixels again, four times, where a neighbour shows another surface; in place."""
    edge = torch.zeros_like(surface, dtype=torch.bool)
    across, down = surface.diff(dim=2) != 0, surface.diff(dim=1) != 0
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    height, width = surface.shape[1:]
    box = torch.div(surface, 6, rounding_mode="floor")
    offset = torch.tensor(_SUBPIXELS, device=frames.device)
    chunk = _CHUNK[frames.device.type] // (5 * len(_SUBPIXELS))
    for place in torch.split(edge.nonzero(), chunk):
        f, v, u = place.unbind(1)
        frame = frames[f]
        # what the pixel or one of its neighbours shows is all that can be in it
        around = torch.stack(
            [
                box[f, (v + dv).clamp(0, height - 1), (u + du).clamp(0, width - 1)]
                for dv, du in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
            ],
            1,
        )
        around = torch.where(around == 0, scene.boxes, around)
        fx, fy, cx, cy = _intrinsics(scene, frame)
        x = (u[:, None] + offset[:, 0] - cx) / fx
        y = (v[:, None] + offset[:, 1] - cy) / fy
        hit = _nearest(scene, frame, around, x, y).flatten()
        frame = frame[:, None].expand_as(x).flatten()
        fine = look(scene, atlas(frames.device), frame, hit, x.flatten(), y.flatten())
        image[f, v, u] = fine.value.view_as(x).mean(1)
