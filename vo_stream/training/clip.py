"""A batch of rendered film clips with the truth about them, and its file."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vo_stream.training.records import joined, moved, values

CELL = 8
"""Pixels along the side of a cell."""

_HALF_IN_FILE = ("inverse_depth", "velocity")


@dataclass(frozen=True)
class Clip:
    """B clips of T frames of H x W pixels; truth is per cell, h = H / 8, w = W / 8.

    Cell (i, j) has its centre at pixel (u, v) = (8 j + 3.5, 8 i + 3.5); the first pixel's centre
    is (0, 0). World and camera frames are metric; the camera's is optical (x right, y down).
    """

    images: Tensor
    """(B, T, H, W) uint8, grey."""
    inverse_depth: Tensor
    """(B, T, h, w) float32, 1/z at the cell's centre in 1/m; 0 in the sky."""
    velocity: Tensor
    """(B, T, h, w, 3) float32, m/s in the world of what is seen at the cell's centre."""
    rotation: Tensor
    """(B, T, 3, 3) float32, world_from_camera."""
    position: Tensor
    """(B, T, 3) float32, m, of the camera in the world."""
    intrinsics: Tensor
    """(B, 4) float32, fx fy cx cy in px."""
    stamps: Tensor
    """(B, T) float64, s."""

    def to(self, device: torch.device | str) -> Clip:
        """Return the clip on a device."""
        return moved(self, device)

    def rays(self) -> Tensor:
        """Return (B, 2, h, w) x and y of each cell centre's ray (x, y, 1)."""
        rows, columns = self.inverse_depth.shape[-2:]
        return rays(self.intrinsics, rows, columns)

    def select(self, items: Tensor | slice) -> Clip:
        """Return some of the batch's items."""
        return Clip(**{name: value[items] for name, value in values(self).items()})

    def frames(self, which: Tensor | slice) -> Clip:
        """Return some of the frames, of all items alike."""
        timed = {n: v[:, which] for n, v in values(self).items() if n != "intrinsics"}
        return replace(self, **timed)

    def save(self, path: Path) -> None:
        """Write an .npz; a reader sees the whole file or none. Truth is kept as float16."""
        arrays = {name: value.cpu().numpy() for name, value in values(self).items()}
        arrays |= {name: arrays[name].astype(np.float16) for name in _HALF_IN_FILE}
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with unfinished.open("wb") as file:
                np.savez(file, **arrays)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Clip:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        arrays |= {name: arrays[name].astype(np.float32) for name in _HALF_IN_FILE}
        return cls(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def concatenate(clips: list[Clip]) -> Clip:
    """Return clips of one size and length as one batch."""
    return joined(clips, 0)


def rays(intrinsics: Tensor, rows: int, columns: int) -> Tensor:
    """Return (B, 2, rows, columns) x and y of the cell centres' rays (x, y, 1).

    `intrinsics`: (B, 4) fx fy cx cy in px.
    """
    fx, fy, cx, cy = intrinsics[:, :, None].unbind(1)
    middle = (CELL - 1) / 2
    u = torch.arange(columns, device=intrinsics.device) * CELL + middle
    v = torch.arange(rows, device=intrinsics.device) * CELL + middle
    x, y = (u - cx) / fx, (v - cy) / fy
    shape = (len(intrinsics), rows, columns)
    return torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], 1)
