"""Footage for `bench_ros.py`: a few seconds of a demo world or of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path

import numpy as np

from vo_stream.camera import CameraModel
from vo_stream.demo.world import render_demo
from vo_stream.errors import SourceError
from vo_stream.replay.sources import open_source
from vo_stream.values import Frame

FRAMES = 60
"""Few enough to hold in memory as colour images; they are shown to and fro."""

FPS = 30.0
WORLD = "room"


def film(recording: Path | None) -> list[Frame]:
    """Return the first frames of a recording, or of a demo world where there is none given.

    Raises SourceError where the recording cannot be opened or has no frames of one size.
    """
    if recording is None:
        return [frame for frame, _ in render_demo(WORLD, FRAMES / FPS, FPS)]
    with open_source(recording) as source:
        frames = list(islice(source.frames(), FRAMES))
    if len({frame.image.shape for frame in frames}) != 1:
        raise SourceError(f"{recording}: the images are of different sizes, or there are none")
    return frames


def write_footage(path: Path, frames: Sequence[Frame]) -> None:
    """Write the frames of one camera to an npz file."""
    camera = {f"camera_{key}": value for key, value in asdict(frames[0].camera).items()}
    stamps = np.array([frame.stamp_ns for frame in frames])
    np.savez(path, stamps=stamps, images=np.stack([frame.image for frame in frames]), **camera)


def read_footage(path: Path) -> list[Frame]:
    """Return what `write_footage` wrote."""
    with np.load(path) as arrays:
        names = [field.name for field in fields(CameraModel)]
        camera = CameraModel(**{name: arrays[f"camera_{name}"].tolist() for name in names})
        pairs = zip(arrays["stamps"].tolist(), arrays["images"], strict=True)
        return [Frame(stamp, image, camera) for stamp, image in pairs]
