"""Dataset folders, written here in their official layouts."""

import logging
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vo_stream.errors import SourceError
from vo_stream.replay.images import image_files
from vo_stream.replay.sources import Source, open_source
from vo_stream.replay.trajectory import format_tum
from vo_stream.se3 import SE3

SIZE = (16, 12)
CALIB = '{"fx": 5, "fy": 6, "cx": 7, "cy": 8, "width": 16, "height": 12}'
P0 = "P0: 700 0 600 0 0 710 180 0 0 0 1 0"
P2 = "P2: 700 0 600 45.5 0 710 180 0.3 0 0 1 0.002"

POSES = [
    SE3.exp([0.1 * i, 0.2 * i, 0.3 * i + 1.0, 0.05 * i, -0.03 * i, 0.02 * i + 0.4])
    for i in range(3)
]


def write_image(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(SIZE[::-1], grey, np.uint8))


def write_images(folder: Path, count: int = 3, suffix: str = ".png") -> None:
    for i in range(count):
        write_image(folder / f"{i:06d}{suffix}", 10 * i)


def kitti_rows(poses: list[SE3]) -> str:
    return "".join(" ".join(f"{x:.17g}" for x in p.as_matrix()[:3].ravel()) + "\n" for p in poses)


def refused(path: Path, calib: Path | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(path, calib=calib)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def greys(source: Source) -> list[int]:
    return [int(frame.image[0, 0]) for frame in source.frames()]


def assert_same(a: SE3 | None, b: npt.NDArray[np.float64]) -> None:
    assert a is not None
    np.testing.assert_allclose(a.as_matrix(), b, atol=1e-8)


@pytest.fixture
def calib(tmp_path: Path) -> Path:
    path = tmp_path / "other_camera.json"
    path.write_text(CALIB.replace('"fx": 5', '"fx": 55'))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "walk"
    write_images(path / "images")
    (path / "times.txt").write_text("0.5\n0.6\n\n0.7\n")
    (path / "calib.json").write_text(CALIB)
    return path


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """Return dataset/sequences/07 of the official layout, with both cameras and poses."""
    path = tmp_path / "dataset" / "sequences" / "07"
    write_images(path / "image_0")
    write_images(path / "image_2")
    (path / "times.txt").write_text("0.000000e+00\n1.037359e-01\n2.073381e-01\n")
    (path / "calib.txt").write_text(f"{P0}\n{P0.replace('P0', 'P1')}\n{P2}\n")
    poses = tmp_path / "dataset" / "poses" / "07.txt"
    poses.parent.mkdir()
    poses.write_text(kitti_rows(POSES))
    return path


@pytest.fixture
def tum(tmp_path: Path) -> Path:
    path = tmp_path / "rgbd_dataset_freiburg1_xyz"
    write_images(path / "rgb")
    rows = "".join(f"130503110{i}.175304 rgb/{i:06d}.png\n" for i in range(3))
    (path / "rgb.txt").write_text("# color images\n# timestamp filename\n" + rows)
    truth = [format_tum((1305031100 + i) * 10**9, pose) for i, pose in enumerate(POSES)]
    (path / "groundtruth.txt").write_text("# ground truth trajectory\n" + "".join(truth))
    return path


BODY_FROM_CAMERA = SE3.exp([0.01, 0.02, 0.03, 0.5, 1.0, -1.5])


@pytest.fixture
def euroc(tmp_path: Path) -> Path:
    path = tmp_path / "V1_01_easy"
    cam0 = path / "mav0" / "cam0"
    write_images(cam0 / "data")
    rows = "".join(f"{1403715273262142976 + i},{i:06d}.png\r\n" for i in range(3))
    (cam0 / "data.csv").write_text("#timestamp [ns],filename\r\n" + rows)
    t_bs = ", ".join(f"{x:.17g}" for x in BODY_FROM_CAMERA.as_matrix().ravel())
    (cam0 / "sensor.yaml").write_text(
        f"T_BS:\n  cols: 4\n  rows: 4\n  data: [{t_bs}]\nresolution: [16, 12]\n"
        "camera_model: pinhole\nintrinsics: [5.5, 6.5, 7.5, 8.5]\n"
        "distortion_model: radial-tangential\ndistortion_coefficients: [0.1, 0.2, 0.3, 0.4]\n"
    )
    truth = path / "mav0" / "state_groundtruth_estimate0" / "data.csv"
    truth.parent.mkdir()
    rows = "".join(
        ",".join([str(1403715273262142976 + i)]
                 + [f"{x:.17g}" for x in (*pose.translation, *pose.wxyz_xyz[:4])]
                 + ["9"] * 9) + "\n"
        for i, pose in enumerate(POSES)
    )  # fmt: skip
    truth.write_text("#timestamp, p_RS_R_x [m], q_RS_w [], v_RS_R_x [m s^-1]\n" + rows)
    return path


def test_folder(folder: Path) -> None:
    truth = "".join(format_tum(500_000_000 + i * 10**8, pose) for i, pose in enumerate(POSES))
    (folder / "groundtruth.tum").write_text("# a comment\n" + truth)
    with open_source(folder) as source:
        assert (source.name, source.kind, source.length) == ("walk", "folder", 3)
        frames = list(source.frames())
        assert greys(source) == [0, 10, 20]
        assert source.groundtruth is not None
        assert_same(source.groundtruth.at(600_000_000), POSES[1].as_matrix())
    assert [f.stamp_ns for f in frames] == [500_000_000, 600_000_000, 700_000_000]
    camera = frames[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy, camera.size) == (5, 6, 7, 8, SIZE)


def test_folder_with_its_images_beside_the_other_files(folder: Path) -> None:
    for file in (folder / "images").iterdir():
        file.rename(folder / file.name)
    (folder / "images").rmdir()
    with open_source(folder) as source:
        assert greys(source) == [0, 10, 20]


def test_folder_behind_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with open_source(tmp_path / "link") as source:
        assert greys(source) == [0, 10, 20]


def test_images_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["a1.pgm", "a02.bmp", "a2.png", "a12.bmp", "1.png", "2.JPG", "10.jpeg"]
    for name in [*names, ".hidden.png", "notes.txt"]:
        (tmp_path / name).touch()
    assert [f.name for f in image_files(tmp_path)] == names


def test_stamps_are_passed_through_as_they_are(folder: Path) -> None:
    (folder / "times.txt").write_text("2\n2\n1\n")
    with open_source(folder) as source:
        assert [f.stamp_ns for f in source.frames()] == [2 * 10**9, 2 * 10**9, 10**9]


def test_bad_images_are_skipped_counted_and_logged_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jpeg = cv2.imencode(".jpg", np.zeros((12, 16), np.uint8))[1].tobytes()
    (folder / "images" / "000001.png").write_bytes(jpeg[:-10])
    (folder / "images" / "000002.png").unlink()
    (folder / "images" / "000002.png").symlink_to(folder / "gone.png")
    with open_source(folder) as source, caplog.at_level(logging.WARNING):
        assert source.length == 3
        assert greys(source) == [0]
        assert source.skipped == {"truncated image": 1, "unreadable file": 1}
        assert len(caplog.records) == 2
        assert "000001.png: skipped, truncated image: JPEG without its end" in caplog.text
        greys(source)
        assert source.skipped.total() == 2


def test_all_images_bad_yields_nothing(folder: Path) -> None:
    for file in (folder / "images").iterdir():
        file.write_bytes(b"")
    with open_source(folder) as source:
        assert greys(source) == []
        assert source.skipped == {"empty image": 3}


def test_an_image_of_another_size_is_passed_through(folder: Path) -> None:
    cv2.imwrite(str(folder / "images" / "000001.png"), np.zeros((5, 4), np.uint8))
    with open_source(folder) as source:
        assert [f.image.shape for f in source.frames()] == [(12, 16), (5, 4), (12, 16)]


def test_folder_errors(folder: Path, calib: Path) -> None:
    times = folder / "times.txt"
    times.write_text("1\n2\n")
    message = refused(folder)
    assert message.startswith(f"{times}: 2 times for 3 images")
    for text in ("abc", "nan", "1e300", "9" * 40):
        times.write_text(f"1\n{text}\n3\n")
        assert refused(folder).startswith(f"{times}:2: {text!r} is no time")
    times.write_bytes(b"\xff\xfe")
    assert "no text file" in refused(folder)
    times.unlink()
    assert refused(folder, calib).startswith(f"{times}: missing; write into it one time")
    for file in (folder / "images").iterdir():
        file.unlink()
    assert refused(folder).startswith(f"{folder / 'images'}: holds no image")


def test_folder_calibration(folder: Path, calib: Path) -> None:
    with open_source(folder, calib=calib) as source:
        assert next(source.frames()).camera.fx == 55.0
    (folder / "calib.json").write_text("{}")
    assert refused(folder).startswith(str(folder / "calib.json"))
    (folder / "calib.json").unlink()
    assert "--calib" in refused(folder)
    with open_source(folder, calib=calib) as source:
        assert next(source.frames()).camera.fx == 55.0


def test_broken_groundtruth_is_refused(folder: Path) -> None:
    (folder / "groundtruth.tum").write_text("1 2 3\n")
    assert refused(folder).startswith(f"{folder / 'groundtruth.tum'}:1:")


def test_kitti(kitti: Path) -> None:
    write_image(kitti / "image_0" / "000000.png", 77)
    with open_source(kitti) as source:
        assert (source.name, source.kind, source.length) == ("07", "kitti", 3)
        assert greys(source) == [77, 10, 20]  # image_0 is preferred
        frames = list(source.frames())
        assert source.groundtruth is not None
        assert_same(source.groundtruth.at(103_735_900), POSES[1].as_matrix())
    assert [f.stamp_ns for f in frames] == [0, 103_735_900, 207_338_100]
    camera = frames[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (700, 710, 600, 180)
    assert camera.size == SIZE


def test_kitti_colour_camera_stands_beside_the_grey_one(kitti: Path) -> None:
    for file in (kitti / "image_0").iterdir():
        file.unlink()
    (kitti / "image_0").rmdir()
    with open_source(kitti) as source:
        assert source.groundtruth is not None
        pose = source.groundtruth.at(103_735_900)
    # A point that both cameras see must land on the same pixel through either description.
    point0 = np.array([1.0, 2.0, 9.0, 1.0])
    world = POSES[1].as_matrix() @ point0
    projection = np.array([float(w) for w in P2.split()[1:]]).reshape(3, 4)
    assert pose is not None
    in_camera2 = np.linalg.inv(pose.as_matrix()) @ world
    np.testing.assert_allclose(projection[:, :3] @ in_camera2[:3], projection @ point0, atol=1e-8)
    shift = (POSES[1].inverse() @ pose).translation
    assert shift[0] == pytest.approx(-45.5 / 700, abs=0.002)


def test_kitti_poses_in_the_folder_come_first(kitti: Path) -> None:
    (kitti / "poses.txt").write_text(kitti_rows(POSES[::-1]))
    with open_source(kitti) as source:
        assert source.groundtruth is not None
        assert_same(source.groundtruth.at(0), POSES[2].as_matrix())


def test_kitti_without_poses(kitti: Path) -> None:
    (kitti.parents[1] / "poses" / "07.txt").unlink()
    with open_source(kitti) as source:
        assert source.groundtruth is None


def test_kitti_size_comes_from_the_first_good_image(kitti: Path) -> None:
    (kitti / "image_0" / "000000.png").write_bytes(b"broken")
    with open_source(kitti) as source:
        assert next(source.frames()).camera.size == SIZE
    for file in (kitti / "image_0").iterdir():
        file.write_bytes(b"broken")
    assert "cannot be read as an image" in refused(kitti)


def test_kitti_errors(kitti: Path, calib: Path) -> None:
    poses = kitti.parents[1] / "poses" / "07.txt"
    poses.write_text(kitti_rows(POSES[:2]))
    assert refused(kitti).startswith(f"{poses}: 2 poses for 3 images")
    poses.write_text(kitti_rows(POSES).replace("\n", " x\n").replace("0", "o", 1))
    assert refused(kitti).startswith(f"{poses}:1: expected 12 numbers")
    poses.unlink()
    calibration = kitti / "calib.txt"
    for text, expected in (
        (P2, "has no line P0:"),
        ("P0: 1 2 3", ":1: expected 12 numbers"),
        ("P0:" + " 0" * 12, "no projection matrix"),
        (P0.replace("700", "-700"), "must be positive"),
    ):
        calibration.write_text(text + "\n")
        message = refused(kitti)
        assert message.startswith(str(calibration))
        assert expected in message
    calibration.unlink()
    assert "--calib" in refused(kitti)
    with open_source(kitti, calib=calib) as source:
        assert next(source.frames()).camera.fx == 55.0


def test_tum(tum: Path) -> None:
    with open_source(tum) as source:
        assert (source.name, source.kind, source.length) == (tum.name, "tum", 3)
        frames = list(source.frames())
        assert source.groundtruth is not None
        assert_same(source.groundtruth.at(1305031101 * 10**9), POSES[1].as_matrix())
    assert [f.stamp_ns for f in frames] == [
        130503110 * 10**10 + i * 10**9 + 175304000 for i in range(3)
    ]
    assert [int(f.image[0, 0]) for f in frames] == [0, 10, 20]
    camera = frames[0].camera
    assert (camera.fx, camera.cy, camera.size) == (517.306408, 255.313989, (640, 480))
    assert camera.distortion[-1] == 1.163314


@pytest.mark.parametrize(("number", "fx", "k1"), [("2", 520.908620, 0.231222), ("3", 535.4, None)])
def test_tum_cameras_are_told_by_the_name(tum: Path, number: str, fx: float, k1: float) -> None:
    other = tum.rename(tum.parent / f"freiburg{number}_desk")
    with open_source(other) as source:
        camera = next(source.frames()).camera
    assert camera.fx == fx
    assert camera.distortion[:1] == ((k1,) if k1 else ())


def test_tum_calibration(tum: Path, calib: Path) -> None:
    other = tum.rename(tum.parent / "desk")
    assert "--calib" in refused(other)
    with open_source(other, calib=calib) as source:
        assert next(source.frames()).camera.fx == 55.0
    (other / "calib.json").write_text(CALIB)
    with open_source(other) as source:
        assert next(source.frames()).camera.fx == 5.0
    (tum.parent / "freiburg1_link").symlink_to(other)
    (other / "calib.json").unlink()
    with open_source(tum.parent / "freiburg1_link") as source:
        assert next(source.frames()).camera.fx == 517.306408


def test_tum_errors(tum: Path) -> None:
    index = tum / "rgb.txt"
    index.write_text("1.0 rgb/000000.png\nx rgb/000001.png\n")
    assert refused(tum).startswith(f"{index}:2: 'x' is no time")
    index.write_text("1.0\n")
    assert refused(tum).startswith(f"{index}:1: expected 'timestamp filename'")
    index.write_text("1.0 rgb/none.png\n")
    assert "none of its 1 images exists" in refused(tum)
    index.write_text("# nothing\n")
    assert "lists no image" in refused(tum)


def test_tum_missing_images_are_skipped(tum: Path) -> None:
    (tum / "rgb" / "000001.png").unlink()
    with open_source(tum) as source:
        assert greys(source) == [0, 20]
        assert source.skipped == {"unreadable file": 1}


@pytest.mark.parametrize("inner", ["", "mav0"])
def test_euroc(euroc: Path, inner: str) -> None:
    with open_source(euroc / inner) as source:
        assert (source.name, source.kind, source.length) == ("V1_01_easy", "euroc", 3)
        frames = list(source.frames())
        assert source.groundtruth is not None
        for i, pose in enumerate(POSES):
            expected = pose.as_matrix() @ BODY_FROM_CAMERA.as_matrix()
            assert_same(source.groundtruth.world_from_camera[i], expected)
    assert [f.stamp_ns for f in frames] == [1403715273262142976 + i for i in range(3)]
    assert [int(f.image[0, 0]) for f in frames] == [0, 10, 20]
    camera = frames[0].camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (5.5, 6.5, 7.5, 8.5)
    assert camera.distortion == (0.1, 0.2, 0.3, 0.4)


def test_euroc_without_groundtruth(euroc: Path, calib: Path) -> None:
    (euroc / "mav0" / "state_groundtruth_estimate0" / "data.csv").unlink()
    with open_source(euroc, calib=calib) as source:
        assert source.groundtruth is None
        assert next(source.frames()).camera.fx == 55.0


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("cam0/data.csv", "1403715273262142977", "1403.5", ":3: expected 'timestamp [ns]"),
        ("cam0/data.csv", "000000", "none", None),
        ("cam0/sensor.yaml", "T_BS", "other", "T_BS"),
        ("cam0/sensor.yaml", "pinhole", "omni", "omni"),
        ("cam0/sensor.yaml", "data: [", "data: [.nan, ", "T_BS"),
        ("state_groundtruth_estimate0/data.csv", "1403715273262142977", "abc", ":3: 'abc'"),
        ("state_groundtruth_estimate0/data.csv", ",9", ",x", None),
        ("state_groundtruth_estimate0/data.csv", "142977,", "142977,x,", ":3: expected 7"),
    ],
)
def test_euroc_errors(euroc: Path, file: str, old: str, new: str, expected: str | None) -> None:
    path = euroc / "mav0" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    if expected is None:
        open_source(euroc).close()
        return
    message = refused(euroc)
    assert message.startswith(str(path))
    assert expected in message


def test_euroc_zero_quaternion_is_refused(euroc: Path) -> None:
    path = euroc / "mav0" / "state_groundtruth_estimate0" / "data.csv"
    path.write_text("5,1,2,3,0,0,0,0\n")
    assert refused(euroc).startswith(f"{path}:1: a quaternion of zeros")
