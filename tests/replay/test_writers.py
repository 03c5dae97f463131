from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vo_stream.camera import CameraModel
from vo_stream.errors import SourceError
from vo_stream.replay import writers
from vo_stream.replay.sources import open_source
from vo_stream.replay.trajectory import parse_stamp_ns, read_tum
from vo_stream.replay.writers import write_folder, write_kitti, write_ros2_bag
from vo_stream.se3 import SE3
from vo_stream.values import Frame

CAMERA = CameraModel(32, 24, 30.0, 31.0, 15.5, 11.25)
LENS = CameraModel(32, 24, 30.0, 31.0, 15.5, 11.25, "plumb_bob", (-0.1, 0.02, 1e-3, 2e-3))
START_NS = 1_700_000_000_123_456_789
STEP_NS = 50_000_001

Posed = list[tuple[Frame, SE3]]
Writer = Callable[[Path, Iterator[tuple[Frame, SE3]]], int]

WRITERS: dict[str, Writer] = {
    "folder": lambda path, frames: write_folder(path, frames),
    "kitti": lambda path, frames: write_kitti(path.parent, path.name, frames),
    "bag": lambda path, frames: write_ros2_bag(path, frames),
}


def posed(count: int = 3, camera: CameraModel = CAMERA) -> Posed:
    rng = np.random.default_rng(count)
    return [
        (
            Frame(START_NS + i * STEP_NS, rng.integers(0, 256, (24, 32), dtype=np.uint8), camera),
            SE3.exp(rng.normal(size=6)),
        )
        for i in range(count)
    ]


def goal(name: str, root: Path) -> Path:
    return root / "sequences" / "goal" if name == "kitti" else root / "goal"


def write(name: str, root: Path, frames: Iterator[tuple[Frame, SE3]]) -> int:
    return WRITERS[name](root / "goal", frames)


def assert_close(actual: SE3, expected: SE3) -> None:
    assert np.abs((actual.inverse() @ expected).log()).max() < 1e-7


def read_png(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return np.asarray(image)


def test_folder_reads_back(tmp_path: Path) -> None:
    frames = posed(camera=LENS)
    assert write_folder(tmp_path / "run", iter(frames), source="a test") == 3
    assert json.loads((tmp_path / "run/calib.json").read_text()) == {
        "fx": 30.0, "fy": 31.0, "cx": 15.5, "cy": 11.25, "width": 32, "height": 24,
        "distortion_model": "radtan", "distortion": [-0.1, 0.02, 1e-3, 2e-3],
        "source": "a test", "metric": True,
    }  # fmt: skip
    stamps = [parse_stamp_ns(line) for line in (tmp_path / "run/times.txt").read_text().split()]
    assert stamps == [frame.stamp_ns for frame, _ in frames]
    truth = read_tum(tmp_path / "run/groundtruth.tum")
    for i, (frame, pose) in enumerate(frames):
        image = read_png(tmp_path / f"run/images/{i:06d}.png")
        assert np.array_equal(image, frame.image)
        assert truth.stamps_ns[i] == frame.stamp_ns
        assert_close(truth.world_from_camera[i], pose)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_kitti_reads_back(tmp_path: Path) -> None:
    frames = posed()
    assert write_kitti(tmp_path, "07", iter(frames)) == 3
    sequence = tmp_path / "sequences" / "07"
    assert sorted(p.name for p in sequence.iterdir()) == ["calib.txt", "image_0", "times.txt"]
    label, *numbers = (sequence / "calib.txt").read_text().splitlines()[0].split()
    assert label == "P0:"
    assert np.array(numbers, float)[[0, 2, 5, 6]].tolist() == [30.0, 15.5, 31.0, 11.25]
    times = np.loadtxt(sequence / "times.txt")
    assert np.allclose(times, np.arange(3) * STEP_NS * 1e-9, atol=1e-9)
    poses = np.loadtxt(tmp_path / "poses" / "07.txt").reshape(-1, 3, 4)
    for i, (frame, pose) in enumerate(frames):
        assert np.array_equal(read_png(sequence / f"image_0/{i:06d}.png"), frame.image)
        assert_close(SE3.from_matrix(poses[i]), frames[0][1].inverse() @ pose)


@pytest.mark.parametrize("compressed", [False, True])
def test_bag_reads_back(tmp_path: Path, compressed: bool) -> None:
    anyreader = pytest.importorskip("rosbags.highlevel").AnyReader
    frames = posed(camera=LENS)
    assert write_ros2_bag(tmp_path / "bag", iter(frames), compressed) == 3
    assert sorted(p.name for p in (tmp_path / "bag").iterdir()) == ["bag.mcap", "metadata.yaml"]
    images: list[Any] = []
    infos: list[Any] = []
    poses: list[Any] = []
    with anyreader([tmp_path / "bag"]) as bag:
        for connection, stamp_ns, data in bag.messages():
            message = bag.deserialize(data, connection.msgtype)
            header = message.header.stamp
            assert header.sec * 10**9 + header.nanosec == stamp_ns
            kinds = {writers.CAMERA_INFO_TOPIC: infos, writers.GROUND_TRUTH_TOPIC: poses}
            kinds.get(connection.topic, images).append((stamp_ns, message))
    for i, (frame, pose) in enumerate(frames):
        assert images[i][0] == infos[i][0] == poses[i][0] == frame.stamp_ns
        image = images[i][1]
        assert image.header.frame_id == writers.CAMERA_FRAME
        if compressed:
            pixels = np.asarray(cv2.imdecode(image.data, cv2.IMREAD_UNCHANGED))
        else:
            assert (image.encoding, image.step) == ("mono8", 32)
            pixels = image.data.reshape(image.height, image.width)
        assert np.array_equal(pixels, frame.image)
        info = infos[i][1]
        model = CameraModel.from_camera_info(
            info.width, info.height, info.distortion_model, info.d, info.k, info.p
        )
        assert model == LENS
        p, q = poses[i][1].pose.position, poses[i][1].pose.orientation
        assert_close(SE3.from_quaternion_xyzw([q.x, q.y, q.z, q.w], [p.x, p.y, p.z]), pose)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_recording_is_not_replaced(name: str, tmp_path: Path) -> None:
    assert write(name, tmp_path, iter(posed(3))) == 3
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(SourceError, match="is there already"):
        write(name, tmp_path, iter(posed(2)))
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_what_is_not_a_recording_is_left_alone(name: str, tmp_path: Path) -> None:
    precious = goal(name, tmp_path) / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years")
    with pytest.raises(SourceError, match="goal"):
        write(name, tmp_path, iter(posed()))
    assert precious.read_text() == "years"


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_nothing_is_left_of_a_recording_that_fails(name: str, tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[Frame, SE3]]:
        yield from posed(2)
        raise RuntimeError("the camera fell")

    with pytest.raises(RuntimeError, match="fell"):
        write(name, tmp_path, broken())
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not goal(name, tmp_path).exists()


@pytest.mark.parametrize("name", sorted(WRITERS))
@pytest.mark.parametrize("frames", [[], [*posed(1), *posed(2, LENS)[1:]]])
def test_no_frames_or_a_changing_camera_are_refused(
    name: str, frames: Posed, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="goal"):
        write(name, tmp_path, iter(frames))
    assert not goal(name, tmp_path).exists()


def test_kitti_has_no_distortion(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="distortion"):
        write_kitti(tmp_path, "00", iter(posed(camera=LENS)))


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_place_that_cannot_be_written_is_one_error(name: str, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(SourceError, match="cannot be written"):
        write(name, blocked / "below", iter(posed()))


def test_the_bag_of_a_world_is_read_with_its_true_poses(tmp_path: Path) -> None:
    frames = posed(3)
    write_ros2_bag(tmp_path / "bag", iter(frames))
    with open_source(tmp_path / "bag", groundtruth_topic="/groundtruth") as source:
        assert source.groundtruth is not None
        for frame, pose in frames:
            found = source.groundtruth.at(frame.stamp_ns)
            assert found is not None
            assert_close(found, pose)
    with pytest.raises(SourceError, match="no PoseStamped or Odometry on /nowhere; it has /ground"):
        open_source(tmp_path / "bag", groundtruth_topic="/nowhere")
