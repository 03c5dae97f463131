"""Datasets kept as folders of image files: our own layout, KITTI, TUM RGB-D and EuRoC.

Each `open_*` checks what the layout promises and returns an `ImageSequence`; its `camera`
argument, where given, takes the place of the dataset's own calibration. All raise SourceError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vo_stream.camera import CameraModel
from vo_stream.errors import ConfigError, SourceError
from vo_stream.replay.calibration import read_calibration, read_tree
from vo_stream.replay.images import IMAGE_SUFFIXES, ImageSequence, first_size, image_files
from vo_stream.replay.trajectory import Trajectory, parse_stamp_ns, read_tum
from vo_stream.se3 import SE3, Array

_TUM_CAMERAS = {
    "1": ((517.306408, 516.469215, 318.643040, 255.313989),
          (0.262383, -0.953104, -0.005358, 0.002628, 1.163314)),
    "2": ((520.908620, 521.007327, 325.141442, 249.701764),
          (0.231222, -0.784899, -0.003257, -0.000105, 0.917205)),
    "3": ((535.4, 539.2, 320.1, 247.6), ()),
}  # fmt: skip
"""Published focal lengths, principal point and distortion of freiburg1, 2 and 3 (undistorted)."""

_TUM_SIZE = (640, 480)


def open_folder(path: Path, camera: CameraModel | None) -> ImageSequence:
    """Open images/ (or images beside it), times.txt, calib.json and perhaps groundtruth.tum."""
    images = path / "images" if (path / "images").is_dir() else path
    stamps, files = _stamped_images(path / "times.txt", images)
    calibration = path / "calib.json"
    if camera is None and not calibration.exists():
        raise SourceError(f"{calibration}: missing; put it there or give --calib FILE")
    camera = camera or read_calibration(calibration)
    truth = path / "groundtruth.tum"
    groundtruth = read_tum(truth) if truth.exists() else None
    return ImageSequence(path.resolve().name, "folder", stamps, files, camera, groundtruth)


def open_kitti(path: Path, camera: CameraModel | None) -> ImageSequence:
    """Open a KITTI odometry sequence: image_0/ or image_2/, times.txt, calib.txt, poses."""
    images = next(path / name for name in ("image_0", "image_2") if (path / name).is_dir())
    stamps, files = _stamped_images(path / "times.txt", images)

    calibration, projection = path / "calib.txt", None
    if calibration.exists():
        projection = _kitti_projection(calibration, "P" + images.name[-1])
    elif camera is None:
        raise SourceError(f"{calibration}: missing; put it there or give --calib FILE")
    if camera is None:
        assert projection is not None
        camera = _pinhole(calibration, projection, first_size(files))

    home = path.resolve()
    poses = [path / "poses.txt", home.parent.parent / "poses" / f"{home.name}.txt"]
    truth = next((p for p in poses if p.exists()), None)
    groundtruth = _kitti_groundtruth(truth, stamps, projection) if truth else None
    return ImageSequence(home.name, "kitti", stamps, files, camera, groundtruth)


def open_tum(path: Path, camera: CameraModel | None) -> ImageSequence:
    """Open a TUM RGB-D sequence: rgb.txt, perhaps groundtruth.txt and calib.json."""
    stamps, files = [], []
    for where, words in _rows(path / "rgb.txt"):
        if len(words) < 2:
            raise SourceError(f"{where}: expected 'timestamp filename', got {words[0][:60]!r}")
        stamps.append(_stamp(where, words[0]))
        files.append(path / words[1])
    _check_some_exist(path / "rgb.txt", files)
    truth = path / "groundtruth.txt"
    groundtruth = read_tum(truth) if truth.exists() else None
    name = path.resolve().name
    return ImageSequence(name, "tum", stamps, files, camera or _tum_camera(path), groundtruth)


def open_euroc(path: Path, camera: CameraModel | None) -> ImageSequence:
    """Open cam0 of a EuRoC ASL sequence, given the folder that holds mav0, or mav0 itself."""
    mav0 = path / "mav0" if (path / "mav0").is_dir() else path
    index, sensor = mav0 / "cam0" / "data.csv", mav0 / "cam0" / "sensor.yaml"
    stamps, files = [], []
    for where, words in _rows(index):
        if len(words) < 2 or not _is_int64(words[0]):
            raise SourceError(f"{where}: expected 'timestamp [ns],filename', got {words[0][:60]!r}")
        stamps.append(int(words[0]))
        files.append(index.parent / "data" / words[1])
    _check_some_exist(index, files)
    camera = camera or read_calibration(sensor)
    truth = mav0 / "state_groundtruth_estimate0" / "data.csv"
    groundtruth = _euroc_groundtruth(truth, sensor) if truth.exists() else None
    home = mav0.resolve()
    name = home.parent.name if home.name == "mav0" else home.name
    return ImageSequence(name, "euroc", stamps, files, camera, groundtruth)


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield 'file:line' and the words of each line that is neither empty nor a comment."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path}: is no text file") from None
    for number, line in enumerate(lines, start=1):
        words = line.replace(",", " ").split()
        if words and not words[0].startswith("#"):
            yield f"{path}:{number}", words


def _numbers(where: str, words: Sequence[str], count: int) -> Array:
    try:
        values = np.array([float(w) for w in words[:count]])
    except ValueError:
        values = np.empty(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise SourceError(f"{where}: expected {count} numbers, got {' '.join(words)[:60]!r}")
    return values


def _stamp(where: str, text: str) -> int:
    try:
        stamp = parse_stamp_ns(text)
    except ValueError:
        stamp = 2**63
    if not _is_int64(stamp):
        raise SourceError(f"{where}: {text[:60]!r} is no time in seconds")
    return stamp


def _is_int64(value: int | str) -> bool:
    try:
        return abs(int(value)) < 2**63
    except ValueError:
        return False


def _stamped_images(times: Path, directory: Path) -> tuple[list[int], list[Path]]:
    """Return the stamps that a file holds, one per line, and as many images of a directory."""
    files = image_files(directory)
    if not files:
        raise SourceError(f"{directory}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    if not times.exists():
        raise SourceError(f"{times}: missing; write into it one time in seconds per image")
    stamps = [_stamp(where, words[0]) for where, words in _rows(times)]
    if len(stamps) != len(files):
        raise SourceError(
            f"{times}: {len(stamps)} times for {len(files)} images in {directory}; "
            "there must be one line per image"
        )
    return stamps, files


def _check_some_exist(path: Path, files: Sequence[Path]) -> None:
    if not files:
        raise SourceError(f"{path}: lists no image")
    if not any(_exists(f) for f in files):
        raise SourceError(f"{path}: none of its {len(files)} images exists (first: {files[0]})")


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):  # too long for a name, or a null byte in it
        return False


def _pinhole(path: Path, projection: Array, size: tuple[int, int]) -> CameraModel:
    k = projection[:, :3]
    try:
        return CameraModel(*size, float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))
    except ConfigError as error:
        raise SourceError(f"{path}: {error}") from None


def _kitti_projection(path: Path, name: str) -> Array:
    """Return the (3, 4) matrix from rectified camera 0 coordinates to this camera's pixels."""
    for where, words in _rows(path):
        if words[0].rstrip(":") == name:
            projection = _numbers(where, words[1:], 12).reshape(3, 4)
            if np.linalg.matrix_rank(projection[:, :3]) == 3:
                return projection
            raise SourceError(f"{where}: {name} is no projection matrix")
    raise SourceError(f"{path}: has no line {name}: for the images in image_{name[1:]}")


def _kitti_groundtruth(path: Path, stamps: Sequence[int], projection: Array | None) -> Trajectory:
    """Read poses of camera 0 and move them to the camera of `projection`."""
    camera0_from_camera = SE3.identity()
    if projection is not None:
        # The rectified cameras look the same way: P = K [I | t] with t the shift between them.
        t = np.linalg.solve(projection[:, :3], projection[:, 3])
        camera0_from_camera = SE3.from_rotation_translation(np.eye(3), -t)
    poses = [
        SE3.from_matrix(_numbers(where, words, 12).reshape(3, 4)) @ camera0_from_camera
        for where, words in _rows(path)
    ]
    if len(poses) != len(stamps):
        raise SourceError(f"{path}: {len(poses)} poses for {len(stamps)} images; must be as many")
    return Trajectory.from_unsorted(stamps, poses)


def _tum_camera(path: Path) -> CameraModel:
    if (path / "calib.json").exists():
        return read_calibration(path / "calib.json")
    # A link to a sequence may have either name.
    which = re.search("freiburg([123])", f"{path.absolute().name} {path.resolve().name}")
    if not which:
        raise SourceError(
            f"{path}: its name says not which camera it was (freiburg1, 2 or 3); give --calib FILE"
        )
    intrinsics, distortion = _TUM_CAMERAS[which[1]]
    return CameraModel(*_TUM_SIZE, *intrinsics, "plumb_bob", distortion)


def _euroc_groundtruth(path: Path, sensor: Path) -> Trajectory:
    """Read the poses of the body and move them to the camera: `T_BS` is body_from_camera."""
    try:
        data = read_tree(sensor)["T_BS"]["data"]
        body_from_camera = SE3.from_matrix(np.array(data, dtype=np.float64).reshape(4, 4))
    except (LookupError, TypeError, ValueError):
        body_from_camera = None
    if body_from_camera is None or not body_from_camera.is_finite:
        raise SourceError(f"{sensor}: T_BS.data must hold the 16 numbers of a matrix")
    stamps, poses = [], []
    for where, words in _rows(path):
        if not _is_int64(words[0]):
            raise SourceError(f"{where}: {words[0][:60]!r} is no time in nanoseconds")
        values = _numbers(where, words[1:], 7)
        if not values[3:].any():
            raise SourceError(f"{where}: a quaternion of zeros is no rotation")
        world_from_body = SE3(np.concatenate([values[3:], values[:3]]))
        stamps.append(int(words[0]))
        poses.append(world_from_body @ body_from_camera)
    return Trajectory.from_unsorted(stamps, poses)
