"""Videos, written here with OpenCV."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from vo_stream.errors import SourceError
from vo_stream.replay import video
from vo_stream.replay.sources import open_source

RATE_HZ = 25.0


@pytest.fixture
def calib(tmp_path: Path) -> Path:
    path = tmp_path / "calib.json"
    path.write_text('{"fx": 70, "fy": 71, "cx": 32, "cy": 24, "width": 64, "height": 48}')
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE_HZ, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for i in range(12):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()
    return path


def refused(path: Path, calib: Path) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(path, calib=calib)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def test_reads_what_was_written(clip: Path, calib: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with open_source(clip, calib=calib) as source:
        assert (source.name, source.kind, source.length) == ("clip", "video", 12)
        assert source.groundtruth is None
        for _ in range(2):
            frames = list(source.frames())
            assert [f.stamp_ns for f in frames] == [i * 40_000_000 for i in range(12)]
            assert all(abs(int(f.image[5, 5]) - 20 * i) < 6 for i, f in enumerate(frames))
    assert frames[0].image.shape == (48, 64)
    assert frames[0].camera.fy == 71.0
    assert not source.skipped
    assert "stamps come from its frames" in caplog.text


def test_without_times_of_its_own_the_frame_rate_tells(
    clip: Path, calib: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(video, "_first_stamps_ms", lambda _: [0.0, 0.0, 0.0])
    with open_source(clip, calib=calib) as source:
        assert [f.stamp_ns for f in source.frames()] == [i * 40_000_000 for i in range(12)]
    assert "frame rate, 25 Hz" in caplog.text


def test_stopping_early_is_harmless(clip: Path, calib: Path) -> None:
    with open_source(clip, calib=calib) as source:
        assert next(source.frames()).stamp_ns == 0


def test_a_clip_cut_short_ends_early(clip: Path, calib: Path) -> None:
    content = clip.read_bytes()
    clip.write_bytes(content[: content.rindex(b"00dc", 0, content.rindex(b"idx1")) - 400])
    with open_source(clip, calib=calib) as source:
        assert 0 < len(list(source.frames())) < 12


def test_what_is_no_video_is_refused(tmp_path: Path, calib: Path) -> None:
    for name, content in (("a.mp4", b""), ("b.avi", bytes(999)), ("c.mkv", b"hello")):
        path = tmp_path / name
        path.write_bytes(content)
        assert "cannot be opened as a video" in refused(path, calib)
