"""Sequences of image files, what all the dataset folders come down to."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from vo_stream.camera import CameraModel
from vo_stream.encodings import GreyImage, ImageError, grey_from_compressed
from vo_stream.errors import SourceError
from vo_stream.replay.trajectory import Trajectory
from vo_stream.values import Frame

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})

_SIZE_TRIES = 10
"""How many images may be broken before the size of a sequence is given up."""

logger = logging.getLogger(__name__)


class ImageSequence:
    """A `sources.Source` of image files with a stamp each."""

    def __init__(
        self,
        name: str,
        kind: str,
        stamps_ns: Sequence[int],
        files: Sequence[Path],
        camera: CameraModel,
        groundtruth: Trajectory | None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.length: int | None = len(files)
        self.groundtruth = groundtruth
        self.skipped: Counter[str] = Counter()
        self._stamps_ns = stamps_ns
        self._files = files
        self._camera = camera

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in the dataset's order; a bad image is skipped, logged and counted."""
        self.skipped.clear()
        for stamp_ns, file in zip(self._stamps_ns, self._files, strict=True):
            try:
                image = _read_image(file)
            except ImageError as error:
                self.skipped[error.reason] += 1
                logger.warning("%s: skipped, %s", file, error)
                continue
            yield Frame(stamp_ns, image, self._camera)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def __enter__(self) -> ImageSequence:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def image_files(directory: Path) -> list[Path]:
    """Return the image files of a directory, 2.png before 10.png; raises SourceError."""
    try:
        files = [f for f in directory.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as error:
        raise SourceError(f"{directory}: cannot be read ({error.strerror})") from None
    return sorted((f for f in files if not f.name.startswith(".")), key=_natural_order)


def first_size(files: Sequence[Path]) -> tuple[int, int]:
    """Return (width, height) of the first image that can be read; raises SourceError."""
    for file in islice(files, _SIZE_TRIES):
        try:
            height, width = _read_image(file).shape
        except ImageError:
            continue
        return width, height
    raise SourceError(f"{files[0]}: cannot be read as an image, nor can those after it")


def _read_image(file: Path) -> GreyImage:
    try:
        if not file.is_file():  # a device or a pipe might never end
            raise ImageError("unreadable file", "it is missing, or no plain file")
        data = file.read_bytes()
    except OSError as error:
        raise ImageError("unreadable file", error.strerror or str(error)) from None
    except ValueError as error:  # a null byte in the name
        raise ImageError("unreadable file", str(error)) from None
    return grey_from_compressed(data)


def _natural_order(file: Path) -> list[tuple[int, str]]:
    words = re.findall(r"([0-9]+)|([^0-9]+)", file.name)
    return [*((int(number) if number else -1, text) for number, text in words), (-1, file.name)]
