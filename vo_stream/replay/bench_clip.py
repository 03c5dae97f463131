"""The frames of a benchmark: a short clip in memory, shown there and back for as long as asked."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vo_stream.camera import CameraModel
from vo_stream.errors import ConfigError, SourceError
from vo_stream.values import Frame

FOCAL_WIDTHS = 0.564
"""Focal length of the made-up camera in widths of its image: 83 degrees across."""

MIN_SIDE_PX, MAX_SIDE_PX = 64, 4096
"""Of the made-up camera's images."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Frames of one camera.

    `images`: (n, height, width) uint8. `stamps_ns`: (n,) int64, rising.
    """

    name: str
    camera: CameraModel
    images: npt.NDArray[np.uint8]
    stamps_ns: npt.NDArray[np.int64]

    @property
    def period(self) -> int:
        """Number of frames until the first one is shown again: there and back."""
        return 2 * (len(self.images) - 1)

    def index(self, step: int) -> int:
        """Return which image is shown in a step, counted from 0."""
        turn = step % self.period
        return min(turn, self.period - turn)

    def frame(self, step: int) -> Frame:
        """Return the frame of a step; stamps rise, by what lies between the two images."""
        laps, turn = divmod(step, self.period)
        here = self.index(step)
        since = int(self.stamps_ns[here] - self.stamps_ns[0])
        lap_ns = 2 * int(self.stamps_ns[-1] - self.stamps_ns[0])
        offset = since if turn == here else lap_ns - since
        stamp_ns = int(self.stamps_ns[0]) + laps * lap_ns + offset
        return Frame(stamp_ns, self.images[here], self.camera)

    def save(self, path: Path) -> None:
        """Write the clip for another process."""
        about = json.dumps({"name": self.name, "camera": dataclasses.asdict(self.camera)})
        with path.open("wb") as file:
            np.savez(file, about=np.array(about), images=self.images, stamps_ns=self.stamps_ns)

    @staticmethod
    def load(path: Path) -> Clip:
        """Read what `save` wrote, all of it into memory."""
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            return Clip(
                about["name"], CameraModel(**about["camera"]), file["images"], file["stamps_ns"]
            )


@contextmanager
def saved(clip: Clip) -> Iterator[Path]:
    """Give a temporary file of a clip; raises SourceError where it cannot be written."""
    with tempfile.TemporaryDirectory(prefix="vo_stream_bench_") as folder:
        file = Path(folder, "clip.npz")
        try:
            clip.save(file)
        except OSError as error:
            reason = (error.strerror or "cannot be written").lower()
            raise SourceError(f"{file}: {reason}") from None
        yield file


def clip_of(frames: Iterable[Frame], name: str) -> Clip:
    """Return the clip of some frames; those of another camera or an older stamp are left out.

    Raises SourceError where fewer than two are left.
    """
    kept: list[Frame] = []
    for frame in frames:
        usable = frame.image.shape == frame.camera.size[::-1] and frame.image.dtype == np.uint8
        follows = not kept or (
            frame.camera == kept[0].camera and frame.stamp_ns > kept[-1].stamp_ns
        )
        if usable and follows:
            kept.append(frame)
    if len(kept) < 2:
        raise SourceError(f"{name}: has fewer than two frames that can be used")
    return Clip(
        name=name,
        camera=kept[0].camera,
        images=np.stack([frame.image for frame in kept]),
        stamps_ns=np.array([frame.stamp_ns for frame in kept], dtype=np.int64),
    )


def camera_of(size: str) -> CameraModel:
    """Return a pinhole camera for images of "WIDTHxHEIGHT" pixels; raises ConfigError."""
    width, height = size_of(size)
    focal = FOCAL_WIDTHS * width
    return CameraModel(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def size_of(text: str) -> tuple[int, int]:
    """Return (width, height) from "WIDTHxHEIGHT"; raises ConfigError."""
    sides = [int(side) if side.isdecimal() else 0 for side in text.split("x")]
    if len(sides) != 2 or not all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in sides):
        raise ConfigError(
            f"size {text}: not WIDTHxHEIGHT of {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels, such as "
            "1241x376"
        )
    return sides[0], sides[1]
