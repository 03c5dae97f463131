"""Writes stamped images with their true poses as a folder, as KITTI odometry or as a ROS 2 bag.

Every writer takes frames one by one, holds none of them, and works in a temporary directory beside
its goal, so that a recording is either whole or not there. What is there already is never touched.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from vo_stream.camera import CameraModel
from vo_stream.errors import SourceError
from vo_stream.replay.trajectory import format_tum
from vo_stream.se3 import SE3
from vo_stream.values import NANOSECONDS, Frame

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

CAMERA_FRAME = "camera_optical_frame"
WORLD_FRAME = "world"
IMAGE_TOPIC = "/camera/image_raw"
COMPRESSED_TOPIC = "/camera/image_raw/compressed"
CAMERA_INFO_TOPIC = "/camera/camera_info"
GROUND_TRUTH_TOPIC = "/groundtruth"

BAG_VERSION: Literal[9] = 9
"""Of rosbag2's metadata.yaml, as ROS 2 Jazzy writes it."""

PNG_COMPRESSION = 1
"""Noise does not compress: higher levels only cost time."""

PosedFrames = Iterable[tuple[Frame, SE3]]
"""Frames of one camera in order of time, each with world_from_camera (optical frame, metres)."""

_FOLDER_MODELS = {"none": "none", "plumb_bob": "radtan"}
"""What calib.json calls a distortion model, where it has a name of its own."""


def write_folder(path: Path, frames: PosedFrames, source: str = "vo_stream demo world") -> int:
    """Write `images/NNNNNN.png`, `calib.json`, `times.txt` and `groundtruth.tum`.

    `source`: said in calib.json. Returns the number of frames. Raises SourceError where there are
    none, the camera changes, `path` is there already, or cannot be written.
    """
    with _new_directory(path) as new:
        (new / "images").mkdir()
        camera, count = None, 0
        with (new / "times.txt").open("w") as times, (new / "groundtruth.tum").open("w") as poses:
            poses.write("# timestamp tx ty tz qx qy qz qw, world_from_camera, metres\n")
            for frame, world_from_camera in frames:
                camera = _same_camera(camera, frame, path)
                _write_png(new / "images" / f"{count:06d}.png", frame)
                line = format_tum(frame.stamp_ns, world_from_camera)
                times.write(line.split()[0] + "\n")
                poses.write(line)
                count += 1
        calibration = _calibration(_some(camera, path)) | {"source": source, "metric": True}
        (new / "calib.json").write_text(json.dumps(calibration, indent=2) + "\n")
    return count


def write_kitti(root: Path, sequence: str, frames: PosedFrames) -> int:
    """Write one sequence in the layout of KITTI odometry.

    Images and calibration go to `root/sequences/SEQUENCE`, poses to `root/poses/SEQUENCE.txt`:
    as KITTI's, they are first_from_camera, and times count from the first frame. Returns the
    number of frames. Raises SourceError as `write_folder` does, and for a distorted camera.
    """
    goal = root / "sequences" / sequence
    poses_file = root / "poses" / f"{sequence}.txt"
    with _new_directory(goal) as new:
        (new / "image_0").mkdir()
        camera, count, start_ns, first_from_world = None, 0, 0, SE3.identity()
        with (new / "times.txt").open("w") as times, (new / "poses.txt").open("w") as poses:
            for frame, world_from_camera in frames:
                camera = _same_camera(camera, frame, goal)
                if camera.distortion_model != "none":
                    raise SourceError(f"{goal}: KITTI's images have no distortion, this camera has")
                if count == 0:
                    start_ns, first_from_world = frame.stamp_ns, world_from_camera.inverse()
                _write_png(new / "image_0" / f"{count:06d}.png", frame)
                times.write(f"{(frame.stamp_ns - start_ns) / NANOSECONDS:.9e}\n")
                matrix = (first_from_world @ world_from_camera).as_matrix()[:3]
                poses.write(" ".join(f"{x:.9e}" for x in matrix.ravel()) + "\n")
                count += 1
        c = _some(camera, goal)
        projection = [c.fx, 0.0, c.cx, 0.0, 0.0, c.fy, c.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        line = " ".join(f"{x:.12e}" for x in projection)
        (new / "calib.txt").write_text("".join(f"P{k}: {line}\n" for k in range(4)))
        poses_file.parent.mkdir(parents=True, exist_ok=True)
        (new / "poses.txt").replace(poses_file)
    return count


def write_ros2_bag(path: Path, frames: PosedFrames, compressed: bool = False) -> int:
    """Write a ROS 2 bag (mcap) of images, CameraInfo and the true PoseStamped.

    Images are sensor_msgs/Image (mono8) on `IMAGE_TOPIC`, or, if `compressed`, CompressedImage
    (png) on `COMPRESSED_TOPIC`. Returns the number of frames. Raises SourceError as `write_folder`
    does.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    topics = {
        COMPRESSED_TOPIC if compressed else IMAGE_TOPIC: _compressed if compressed else _image,
        CAMERA_INFO_TOPIC: _camera_info,
        GROUND_TRUTH_TOPIC: _pose_stamped,
    }
    with _new_directory(path) as new:
        new.rmdir()  # the writer makes its directory itself
        camera, count = None, 0
        bag = Writer(new, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
        with bag:
            connections: dict[str, Any] = {}
            for frame, world_from_camera in frames:
                camera = _same_camera(camera, frame, path)
                for topic, make in topics.items():
                    message = make(store, frame, world_from_camera)
                    name = message.__msgtype__
                    if topic not in connections:
                        connections[topic] = bag.add_connection(topic, name, typestore=store)
                    data = store.serialize_cdr(message, name)
                    bag.write(connections[topic], frame.stamp_ns, data)
                count += 1
        _some(camera, path)
        _rename_inside(new, path.name)
    return count


def _header(store: Typestore, frame: Frame, frame_id: str) -> Any:
    seconds, nanoseconds = divmod(frame.stamp_ns, NANOSECONDS)
    stamp = store.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
    return store.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def _image(store: Typestore, frame: Frame, _: SE3) -> Any:
    height, width = frame.image.shape
    return store.types["sensor_msgs/msg/Image"](
        header=_header(store, frame, CAMERA_FRAME),
        height=height,
        width=width,
        encoding="mono8",
        is_bigendian=0,
        step=width,
        data=np.ascontiguousarray(frame.image).reshape(-1),
    )


def _compressed(store: Typestore, frame: Frame, _: SE3) -> Any:
    return store.types["sensor_msgs/msg/CompressedImage"](
        header=_header(store, frame, CAMERA_FRAME),
        format="mono8; png compressed ",
        data=_png(frame),
    )


def _camera_info(store: Typestore, frame: Frame, _: SE3) -> Any:
    c = frame.camera
    model, distortion = c.distortion_model, c.distortion
    if model == "none":
        model, distortion = "plumb_bob", (0.0,) * 5
    return store.types["sensor_msgs/msg/CameraInfo"](
        header=_header(store, frame, CAMERA_FRAME),
        height=c.height,
        width=c.width,
        distortion_model=model,
        d=np.array(distortion),
        k=np.array([c.fx, 0.0, c.cx, 0.0, c.fy, c.cy, 0.0, 0.0, 1.0]),
        r=np.eye(3).reshape(-1),
        p=np.array([c.fx, 0.0, c.cx, 0.0, 0.0, c.fy, c.cy, 0.0, 0.0, 0.0, 1.0, 0.0]),
        binning_x=0,
        binning_y=0,
        roi=store.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def _pose_stamped(store: Typestore, frame: Frame, world_from_camera: SE3) -> Any:
    point = store.types["geometry_msgs/msg/Point"]
    quaternion = store.types["geometry_msgs/msg/Quaternion"]
    x, y, z = map(float, world_from_camera.translation)
    qx, qy, qz, qw = map(float, world_from_camera.quaternion_xyzw)
    return store.types["geometry_msgs/msg/PoseStamped"](
        header=_header(store, frame, WORLD_FRAME),
        pose=store.types["geometry_msgs/msg/Pose"](
            position=point(x=x, y=y, z=z), orientation=quaternion(x=qx, y=qy, z=qz, w=qw)
        ),
    )


def _png(frame: Frame) -> np.ndarray[Any, np.dtype[np.uint8]]:
    _, data = cv2.imencode(".png", frame.image, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
    return np.asarray(data, dtype=np.uint8)


def _write_png(path: Path, frame: Frame) -> None:
    path.write_bytes(_png(frame).tobytes())


def _calibration(camera: CameraModel) -> dict[str, Any]:
    return {
        **{name: getattr(camera, name) for name in ("fx", "fy", "cx", "cy", "width", "height")},
        "distortion_model": _FOLDER_MODELS.get(camera.distortion_model, camera.distortion_model),
        "distortion": list(camera.distortion),
    }


def _same_camera(camera: CameraModel | None, frame: Frame, path: Path) -> CameraModel:
    if camera not in (None, frame.camera):
        raise SourceError(
            f"{path}: the camera changes at {frame.stamp_ns} ns; write two recordings"
        )
    return frame.camera


def _some(camera: CameraModel | None, path: Path) -> CameraModel:
    if camera is None:
        raise SourceError(f"{path}: there are no frames to write")
    return camera


@contextmanager
def _new_directory(path: Path) -> Iterator[Path]:
    """Give a temporary directory that becomes `path` once all went well."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SourceError(f"{path}: is there already; choose another place or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as workshop:
            new = Path(workshop) / "new"
            new.mkdir()
            yield new
            new.replace(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be written ({error})") from error


def _rename_inside(bag: Path, name: str) -> None:
    """Give the files of a bag the name that it will have, in its metadata too."""
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(f"{bag.name}.mcap", f"{name}.mcap"))
    (bag / f"{bag.name}.mcap").replace(bag / f"{name}.mcap")
