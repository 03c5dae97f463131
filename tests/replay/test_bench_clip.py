"""The frames of a benchmark: shown there and back, sent to another process, left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vo_stream.camera import CameraModel
from vo_stream.demo.world import render_demo
from vo_stream.errors import ConfigError, SourceError
from vo_stream.replay.bench import rendered_clip
from vo_stream.replay.bench_clip import Clip, camera_of, clip_of
from vo_stream.values import NANOSECONDS, Frame

FRAMES = 8
RATE_HZ = 20.0
SIZE = (160, 120)


@pytest.fixture(scope="module")
def clip() -> Clip:
    film = render_demo("room", seconds=FRAMES / RATE_HZ, fps=RATE_HZ, size=SIZE)
    return clip_of((frame for frame, _ in film), "room")


def test_a_clip_goes_there_and_back(clip: Clip) -> None:
    shown = [clip.index(step) for step in range(2 * clip.period + 1)]
    once = [*range(FRAMES), *range(FRAMES - 2, 0, -1)]
    assert shown == [*once, *once, 0]
    frames = [clip.frame(step) for step in range(2 * clip.period + 1)]
    gaps = np.diff([frame.stamp_ns for frame in frames])
    assert set(gaps.tolist()) == {round(NANOSECONDS / RATE_HZ)}
    assert all(f.camera == clip.camera for f in frames)


def test_stamps_on_the_way_back_are_as_far_apart_as_on_the_way_there() -> None:
    camera = CameraModel(*SIZE, 100.0, 100.0, 80.0, 60.0)
    image = np.zeros(SIZE[::-1], dtype=np.uint8)
    uneven = clip_of((Frame(1000 + stamp, image, camera) for stamp in (0, 10, 40)), "uneven")
    assert [uneven.frame(i).stamp_ns - 1000 for i in range(6)] == [0, 10, 40, 70, 80, 90]


def test_a_clip_arrives_as_it_was_sent(clip: Clip, tmp_path: Path) -> None:
    clip.save(tmp_path / "clip.npz")
    arrived = Clip.load(tmp_path / "clip.npz")
    assert (arrived.name, arrived.camera) == (clip.name, clip.camera)
    np.testing.assert_array_equal(arrived.images, clip.images)
    np.testing.assert_array_equal(arrived.stamps_ns, clip.stamps_ns)


def test_frames_that_do_not_fit_are_left_out(clip: Clip) -> None:
    first, second, third = (clip.frame(i) for i in range(3))
    other = Frame(third.stamp_ns, third.image[:64, :64], camera_of("64x64"))
    small = Frame(third.stamp_ns, third.image[:64, :64], third.camera)
    old = Frame(first.stamp_ns, third.image, third.camera)
    kept = clip_of([first, other, small, old, second], "some")
    assert kept.stamps_ns.tolist() == [first.stamp_ns, second.stamp_ns]
    with pytest.raises(SourceError, match="one: has fewer than two frames"):
        clip_of([first, other], "one")


def test_a_rendered_clip_has_the_size_and_rate_that_were_asked_for() -> None:
    clip = rendered_clip(render_demo, "96x64", 31.0)
    assert clip.camera.size == (96, 64)
    assert clip.camera.fx == clip.camera.fy
    assert clip.images.shape == (31, 64, 96)
    assert clip.images.std() > 10.0
    assert clip.stamps_ns[-1] - clip.stamps_ns[0] == round(30 * NANOSECONDS / 31.0)
    with pytest.raises(ConfigError):
        rendered_clip(render_demo, "wide", 30.0)
