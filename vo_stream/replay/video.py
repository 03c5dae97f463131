"""Video files, read through OpenCV."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from vo_stream.camera import CameraModel
from vo_stream.errors import SourceError
from vo_stream.replay.trajectory import Trajectory
from vo_stream.values import NANOSECONDS, Frame

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".mjpeg"}
)

_PROBED_FRAMES = 5
"""Frames whose stamps tell whether the file keeps its own time."""

_LAST_MS = 1e12
"""A video that lasts thirty years is none."""

_MILLISECOND_NS = 1_000_000

logger = logging.getLogger(__name__)


class VideoSource:
    """A `sources.Source` of a video file.

    The stamps are the file's own where its first ones increase, else they follow from its frame
    rate; which one, is logged. Raises SourceError where it is no video or has neither.
    """

    def __init__(self, path: Path, camera: CameraModel) -> None:
        self.name = path.stem
        self.kind = "video"
        self.groundtruth: Trajectory | None = None
        self.skipped: Counter[str] = Counter()
        self._path = path
        self._camera = camera

        capture = self._opened()
        frame_count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        rate = capture.get(cv2.CAP_PROP_FPS)
        stamps = _first_stamps_ms(capture)
        capture.release()
        if not stamps:
            raise SourceError(f"{path}: holds no frame that can be decoded")
        self.length: int | None = int(frame_count) if 0 < frame_count < math.inf else None
        self._frame_ns: float | None = None
        if not _increases(stamps):
            if not 0.0 < rate < math.inf:
                raise SourceError(f"{path}: holds neither frame times nor a frame rate")
            self._frame_ns = NANOSECONDS / rate
        told_by = "its frames" if self._frame_ns is None else f"its frame rate, {rate:g} Hz"
        logger.info("%s: the stamps come from %s", path, told_by)

    def frames(self) -> Iterator[Frame]:
        """Yield the frames until the file ends or breaks."""
        self.skipped.clear()
        capture = self._opened()
        try:
            index = 0
            while (image := _next_image(capture)) is not None:
                if self._frame_ns is None:
                    position_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
                    if not abs(position_ms) < _LAST_MS:  # a damaged file
                        self.skipped["impossible time"] += 1
                        continue
                    stamp_ns = round(position_ms * _MILLISECOND_NS)
                else:
                    stamp_ns = round(index * self._frame_ns)
                grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
                yield Frame(stamp_ns, np.asarray(grey, dtype=np.uint8), self._camera)
                index += 1
        finally:
            capture.release()

    def close(self) -> None:
        """Do nothing: the file is open only while its frames are read."""

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise SourceError(
                f"{self._path}: cannot be opened as a video (damaged, or a codec that OpenCV lacks)"
            )
        return capture


def _next_image(capture: cv2.VideoCapture) -> np.ndarray | None:
    try:
        ok, image = capture.read()
    except cv2.error as error:
        logger.warning("the video breaks off: %s", " ".join(str(error).split()))
        return None
    return image if ok else None


def _first_stamps_ms(capture: cv2.VideoCapture) -> list[float]:
    stamps = []
    for _ in range(_PROBED_FRAMES):
        if _next_image(capture) is None:
            break
        stamps.append(capture.get(cv2.CAP_PROP_POS_MSEC))
    return stamps


def _increases(stamps: list[float]) -> bool:
    finite = all(map(math.isfinite, stamps))
    return finite and all(a < b for a, b in pairwise(stamps))
