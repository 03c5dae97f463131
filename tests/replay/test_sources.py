"""Recognising recordings, reading ahead, and the real sequences where they are at hand."""

import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from vo_stream.errors import SourceError
from vo_stream.replay.sources import open_source, prefetch

DATA = Path(__file__).parents[2].parent / "shared" / "data"

SEQUENCES = {
    "davis_slider_depth": (87, 86),
    "euroc_v101_a": (95, 95),
    "euroc_v101_b": (90, 90),
    "hololens_000": (373, 373),
    "kitti00_first200": (200, 200),
    "kitti01_first51": (51, 51),
    "tartanair_sample": (189, 189),
    "tum_fr1_xyz": (798, 794),
}
"""Name: number of images, number of those with ground truth."""


def refused(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    assert "no such file or folder" in refused(tmp_path / "nothing")


def test_an_unknown_folder_lists_what_is_understood_and_what_was_found(tmp_path: Path) -> None:
    message = refused(tmp_path)
    for layout in ("times.txt and calib.json", "KITTI", "TUM", "EuRoC", "metadata.yaml"):
        assert layout in message
    assert "found an empty folder" in message
    for i in range(9):
        (tmp_path / f"notes{i}").touch()
    assert "found notes0, notes1" in refused(tmp_path)
    assert refused(tmp_path).endswith("notes7, ...")


@pytest.mark.parametrize("name", ["notes.txt", "run.bag", "run.mcap", "run.db3", "empty", "a.png"])
def test_an_unknown_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("" if name == "empty" else "hello")
    assert "bag" in refused(tmp_path / name)


def test_a_video_needs_a_calibration(tmp_path: Path) -> None:
    (tmp_path / "a.MP4").write_text("hello")
    assert "--calib" in refused(tmp_path / "a.MP4")


def running() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_prefetch_keeps_the_order() -> None:
    assert list(prefetch(range(100))) == list(range(100))
    assert list(prefetch([])) == []
    assert not running()


def test_prefetch_raises_what_the_iterable_raises_in_its_place() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("lost")

    items = prefetch(broken())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(KeyError, match="lost"):
        next(items)
    assert list(items) == []
    assert not running()


@pytest.mark.parametrize("how", ["with", "close", "dropped"])
def test_stopping_early_ends_the_thread_and_closes_the_iterable(how: str) -> None:
    closed = []

    def endless() -> Iterator[int]:
        try:
            i = 0
            while True:
                yield i
                i += 1
        finally:
            closed.append(True)

    if how == "with":
        with prefetch(endless()) as items:
            assert next(items) == 0
    elif how == "close":
        items = prefetch(endless())
        assert [next(items), next(items)] == [0, 1]
        items.close()
        items.close()
        assert list(items) == []
    else:
        for item in prefetch(endless()):
            if item == 3:
                break
    assert closed == [True]
    assert not running()


def test_prefetch_that_nobody_asks_starts_no_thread() -> None:
    items = prefetch(range(3))
    assert not running()
    items.close()


def test_prefetch_works_ahead_of_its_consumer() -> None:
    made = []

    def slow() -> Iterator[int]:
        for i in range(10):
            made.append(i)
            yield i

    with prefetch(slow(), depth=2) as items:
        next(items)
        deadline = time.monotonic() + 5.0
        while len(made) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert made == [0, 1, 2]  # one in use, two waiting, no more


def test_prefetch_holds_few_items_however_many_there_are() -> None:
    class Big:
        def __init__(self) -> None:
            self.pixels = np.zeros(1_000_000, np.uint8)

    depth, most = 2, 0
    alive: weakref.WeakSet[Big] = weakref.WeakSet()

    def many() -> Iterator[Big]:
        nonlocal most
        for _ in range(1000):
            item = Big()
            alive.add(item)
            most = max(most, len(alive))
            yield item

    assert sum(1 for _ in prefetch(many(), depth)) == 1000
    assert most <= depth + 2


def test_frames_come_through_prefetch(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(6):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), np.full((8, 9), i, np.uint8))
    (tmp_path / "times.txt").write_text("".join(f"{i}\n" for i in range(6)))
    (tmp_path / "calib.json").write_text(
        '{"fx": 5, "fy": 5, "cx": 4, "cy": 4, "width": 9, "height": 8}'
    )
    with open_source(tmp_path) as source, prefetch(source.frames()) as frames:
        assert [int(f.image[0, 0]) for f in frames] == list(range(6))


@pytest.mark.parametrize("name", SEQUENCES)
def test_real_sequences(name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not in {DATA}")
    images, posed = SEQUENCES[name]
    with open_source(DATA / name) as source:
        assert source.length == images
        assert source.groundtruth is not None
        assert len(source.groundtruth) == posed
        found = [source.groundtruth.at(frame.stamp_ns) is not None for frame in source.frames()]
    assert len(found) == images
    assert sum(found) >= posed
    assert not source.skipped
