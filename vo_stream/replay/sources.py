"""Recorded footage, whatever holds it: `open_source` recognises it, `prefetch` reads ahead."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from vo_stream.encodings import silence_decoders
from vo_stream.errors import SourceError
from vo_stream.replay import datasets
from vo_stream.replay.bag_reader import BAG_SUFFIXES, MAGIC_BY_KIND
from vo_stream.replay.bags import BagSource
from vo_stream.replay.calibration import read_calibration
from vo_stream.replay.images import image_files
from vo_stream.replay.trajectory import Trajectory
from vo_stream.replay.video import VIDEO_SUFFIXES, VideoSource
from vo_stream.values import Frame

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LAYOUTS = (
    "images/ with times.txt and calib.json; KITTI odometry (image_0/ or image_2/); TUM RGB-D "
    "(rgb.txt); EuRoC (mav0/); a ROS 2 bag (metadata.yaml)"
)

_LISTED_ENTRIES = 8


class Source(Protocol):
    """A recording that is open.

    `name`: short, for titles. `kind`: folder, kitti, tum, euroc, video, rosbag1 or rosbag2.
    `length`: the number of frames where it is known, those that will be skipped included.
    `groundtruth`: world_from_camera of the optical frame, where the recording has it.
    `skipped`: how many messages or images were left out, by reason; filled while `frames` runs.
    """

    name: str
    kind: str
    length: int | None
    groundtruth: Trajectory | None
    skipped: Counter[str]

    def frames(self) -> Iterator[Frame]:
        """Yield the frames as recorded, from the start at each call; stamps are not checked.

        A bad image is skipped, counted in `skipped` and logged once. Never raises for what the
        recording holds.
        """
        ...

    def close(self) -> None:
        """Free what is open; `frames` must not run any more."""
        ...

    def __enter__(self) -> Source:
        """Return the source itself."""
        ...

    def __exit__(self, *_: object) -> None:
        """Close it."""
        ...


def open_source(
    path: Path,
    *,
    topic: str = "",
    camera_info_topic: str = "",
    rectified: bool = False,
    calib: Path | None = None,
    groundtruth_topic: str = "",
    wheel_topic: str = "",
) -> Source:
    """Open a recording, recognised by what it holds.

    `topic`, `camera_info_topic`: of a bag; empty for the only image topic and the CameraInfo
    beside it. `rectified`: the images of the bag, or those that `calib` describes, went through
    rectification already. `calib`: a calibration file that takes the place of the recording's
    own. `groundtruth_topic`: of a bag, true poses of the optical frame. `wheel_topic`: of a bag,
    the robot's speed. Raises SourceError: one line that says which file, and what to do.
    """
    silence_decoders()
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: is no usable path ({error})") from None
    if not exists:
        raise SourceError(f"{path}: there is no such file or folder")
    kind = _folder_kind(path) if path.is_dir() else _file_kind(path)
    if kind in ("rosbag1", "rosbag2"):
        topics = topic, camera_info_topic, rectified, calib, groundtruth_topic, wheel_topic
        return BagSource(path, kind, *topics)
    if topic or camera_info_topic or groundtruth_topic or wheel_topic:
        logger.warning("%s: is no bag, so the topics that were named have no effect", path)
    if rectified and not calib:
        logger.warning("%s: rectified has no effect without --calib here", path)
    camera = read_calibration(calib, rectified=rectified) if calib else None
    if kind == "video":
        if camera is None:
            raise SourceError(f"{path}: a video says nothing of its camera; give --calib FILE")
        return VideoSource(path, camera)
    openers = {
        "folder": datasets.open_folder,
        "kitti": datasets.open_kitti,
        "tum": datasets.open_tum,
        "euroc": datasets.open_euroc,
    }
    return openers[kind](path, camera)


def _folder_kind(path: Path) -> str:
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    if "metadata.yaml" in names:
        return "rosbag2"
    if (path / "mav0").is_dir() or (path / "cam0" / "data.csv").exists():
        return "euroc"
    if (path / "image_0").is_dir() or (path / "image_2").is_dir():
        return "kitti"
    if "rgb.txt" in names:
        return "tum"
    if (path / "images").is_dir() or image_files(path):
        return "folder"
    for name in names:
        if Path(name).suffix in BAG_SUFFIXES:
            raise SourceError(f"{path}: has no metadata.yaml; give the bag itself, {path / name}")
    found = ", ".join(names[:_LISTED_ENTRIES]) + (", ..." if len(names) > _LISTED_ENTRIES else "")
    raise SourceError(f"{path}: expected {_LAYOUTS}; found {found or 'an empty folder'}")


def _file_kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    for magic, kind in MAGIC_BY_KIND.items():
        if head.startswith(magic):
            return kind
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix in BAG_SUFFIXES:
        raise SourceError(f"{path}: is no bag, whatever its name says (damaged or empty)")
    raise SourceError(
        f"{path}: is neither a bag ({', '.join(BAG_SUFFIXES)}) nor a video "
        f"({', '.join(sorted(VIDEO_SUFFIXES))}) nor a folder"
    )


def prefetch(items: Iterable[T], depth: int = 2) -> Prefetched[T]:
    """Run an iterable in one background thread, at most `depth` items ahead.

    At most `depth` + 2 items are alive: those waiting, one being made and one in use. What the
    iterable raises is raised here, in its place. Use it in a `with`, or call `close`: both stop
    the thread, as does dropping the last reference.
    """
    return Prefetched(items, depth)


class Prefetched(Generic[T]):
    """The iterator that `prefetch` returns; the thread starts with the first item asked for."""

    def __init__(self, items: Iterable[T], depth: int) -> None:
        self._items = _read_ahead(items, depth)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        """Stop the thread and wait for the item it may be making; no more items come."""
        self._items.close()

    def __enter__(self) -> Prefetched[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read_ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    iterator, end = iter(items), _End()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as thread:
        waiting = deque(thread.submit(next, iterator, end) for _ in range(depth))
        try:
            while not isinstance(item := waiting.popleft().result(), _End):
                waiting.append(thread.submit(next, iterator, end))
                yield item
        finally:
            for unmade in waiting:
                unmade.cancel()
            thread.shutdown()
            if isinstance(iterator, Generator):
                iterator.close()  # here and now, not when the garbage collector comes by


class _End:
    """What `next` returns after the last item."""
