"""Trajectories in files: what is written, and the one line where it cannot be."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from rclpy.task import Future

from vo_stream.replay.trajectory import read_tum
from vo_stream.ros.publishers import Kept
from vo_stream.ros.saving import save
from vo_stream.se3 import SE3

POSES = [SE3.exp([0.1 * i, 0.0, 0.2, 0.01 * i, 0.0, 0.3]) for i in range(5)]
STAMPS_NS = 1_700_000_000_123_456_789 + 50_000_000 * np.arange(5)


def kept(keyframes: int = 0, poses: int = 5) -> Kept:
    return Kept(
        stamps_ns=STAMPS_NS[:poses],
        poses=np.array([pose.wxyz_xyz for pose in POSES])[:poses],
        keyframes=list(zip(STAMPS_NS.tolist(), POSES, strict=True))[:keyframes],
        metric=True,
    )


def saved(what: Kept, path: Path) -> tuple[bool, str]:
    """Save it and return the answer, which is a line."""
    done = Future()
    save(what, path, done)
    for thread in threading.enumerate():
        if thread.name == "vo_stream writer":
            thread.join(20.0)
    assert done.done()
    success, message = done.result()
    assert message
    assert "\n" not in message
    return success, message


def test_poses_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "drive.tum"
    assert saved(kept(), path) == (True, f"5 poses in {path}")
    read = read_tum(path)
    assert list(read.stamps_ns) == STAMPS_NS.tolist()
    for pose, expected in zip(map(read.at, STAMPS_NS.tolist()), POSES, strict=True):
        assert pose is not None
        assert np.allclose(pose.as_matrix(), expected.as_matrix(), atol=1e-6)
    assert "metric: True" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_keyframes_go_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "drive.tum"
    line = f"5 poses in {path}, 3 keyframes in drive.keyframes.tum"
    assert saved(kept(keyframes=3), path) == (True, line)
    assert len(read_tum(tmp_path / "drive.keyframes.tum")) == 3


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "drive.tum"
    path.write_text("what was there before")
    assert saved(kept(poses=2), path)[0]
    assert len(read_tum(path)) == 2


def test_without_a_pose_nothing_is_written(tmp_path: Path) -> None:
    assert saved(kept(poses=0), tmp_path / "drive.tum") == (False, "there is no pose yet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("absent/drive.tum", "No such file or directory"),
        ("file/drive.tum", "Not a directory"),
        ("folder", "Is a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_where_nothing_can_be_written_it_says_why(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    assert saved(kept(), path) == (False, f"{path}: cannot be written ({why})")
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "folder"}


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_a_path_that_names_no_file(name: str) -> None:
    assert saved(kept(keyframes=2), Path(name)) == (False, "node.trajectory_file names no file")


def test_a_fault_of_ours_is_answered_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backwards = Kept(STAMPS_NS[::-1], kept().poses, [], metric=True)
    success, message = saved(backwards, tmp_path / "drive.tum")
    assert not success
    assert message.startswith("ValueError: ")
    assert "the trajectory cannot be written" in caplog.text
