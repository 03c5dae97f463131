"""Bags of both ROS versions, written here with rosbags and read back."""

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags import rosbag1, rosbag2
from rosbags.typesys import Stores, get_typestore

from vo_stream.errors import SourceError
from vo_stream.messages import camera_info_beside
from vo_stream.replay.sources import Source, open_source

K = (50.0, 0.0, 7.5, 0.0, 51.0, 5.5, 0.0, 0.0, 1.0)
P = (40.0, 0.0, 7.0, 0.0, 0.0, 41.0, 5.0, 0.0, 0.0, 0.0, 1.0, 0.0)
D = (0.1, -0.2, 0.003, 0.004, 0.05)
WIDTH, HEIGHT = 16, 12
START_S = 1_700_000_000
RECORDED_LATER_NS = 5_000_000
"""How long after its stamp a message is recorded."""

Message = tuple[str, str, int, Any]
"""Topic, type, time of recording, message."""

KINDS = ("bag", "db3", "mcap")


class Ros:
    """Messages of one ROS version, and a bag to put them into."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.ros1 = kind == "bag"
        self.store = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.ROS2_JAZZY)
        self.t = self.store.types

    def header(self, stamp_ns: int) -> Any:
        stamp = self.t["builtin_interfaces/msg/Time"](
            sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
        )
        extra = {"seq": 3} if self.ros1 else {}
        return self.t["std_msgs/msg/Header"](stamp=stamp, frame_id="camera", **extra)

    def image(self, stamp_ns: int, grey: int, **changes: Any) -> Any:
        fields: dict[str, Any] = {
            "header": self.header(stamp_ns),
            "height": HEIGHT,
            "width": WIDTH,
            "encoding": "mono8",
            "is_bigendian": 0,
            "step": WIDTH,
            "data": np.full(WIDTH * HEIGHT, grey, np.uint8),
        }
        return self.t["sensor_msgs/msg/Image"](**fields | changes)

    def jpeg(self, stamp_ns: int, grey: int, cut: int = 0, image_format: str = "jpeg") -> Any:
        data = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH), grey, np.uint8))[1].ravel()
        return self.t["sensor_msgs/msg/CompressedImage"](
            header=self.header(stamp_ns), format=image_format, data=data[: data.size - cut]
        )

    def info(self, stamp_ns: int, k: Sequence[float] = K, d: Sequence[float] = D) -> Any:
        letters = {"d": d, "k": k, "r": np.eye(3).ravel(), "p": P}
        return self.t["sensor_msgs/msg/CameraInfo"](
            header=self.header(stamp_ns),
            height=HEIGHT,
            width=WIDTH,
            distortion_model="plumb_bob",
            binning_x=0,
            binning_y=0,
            roi=self.t["sensor_msgs/msg/RegionOfInterest"](
                x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
            ),
            **{
                name.upper() if self.ros1 else name: np.array(values, np.float64)
                for name, values in letters.items()
            },
        )

    def twist(self, speed_m_s: float, yaw_rate_rad_s: float = 0.0) -> Any:
        vector = self.t["geometry_msgs/msg/Vector3"]
        return self.t["geometry_msgs/msg/Twist"](
            linear=vector(x=speed_m_s, y=0.0, z=0.0),
            angular=vector(x=0.0, y=0.0, z=yaw_rate_rad_s),
        )

    def odometry(self, stamp_ns: int, speed_m_s: float) -> Any:
        pose = self.t["geometry_msgs/msg/Pose"](
            position=self.t["geometry_msgs/msg/Point"](x=0.0, y=0.0, z=0.0),
            orientation=self.t["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
        )
        unknown = np.zeros(36)
        with_covariance = self.t["geometry_msgs/msg/PoseWithCovariance"](pose, unknown)
        twist = self.t["geometry_msgs/msg/TwistWithCovariance"](self.twist(speed_m_s), unknown)
        return self.t["nav_msgs/msg/Odometry"](
            header=self.header(stamp_ns),
            child_frame_id="base_link",
            pose=with_covariance,
            twist=twist,
        )

    def twist_stamped(self, stamp_ns: int, speed_m_s: float) -> Any:
        return self.t["geometry_msgs/msg/TwistStamped"](
            header=self.header(stamp_ns), twist=self.twist(speed_m_s)
        )

    def write(self, folder: Path, messages: Sequence[Message]) -> Path:
        """Write a bag and return what a user would name: a .bag file or a ROS 2 bag folder."""
        writer: Any
        if self.ros1:
            path = folder / "run.bag"
            writer, serialize = rosbag1.Writer(path), self.store.serialize_ros1
        else:
            path = folder / f"run_{self.kind}"
            plugin = rosbag2.StoragePlugin
            storage = plugin.MCAP if self.kind == "mcap" else plugin.SQLITE3
            writer = rosbag2.Writer(path, version=9, storage_plugin=storage)
            serialize = self.store.serialize_cdr
        with writer:
            connections: dict[str, Any] = {}
            for topic, kind, recorded_ns, message in messages:
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=self.store)
                writer.write(connections[topic], recorded_ns, bytes(serialize(message, kind)))
        return path


def stamp(i: int) -> int:
    return START_S * 10**9 + i * 100_000_000


def image_at(ros: Ros, i: int, topic: str = "/camera/image_raw", **changes: Any) -> Message:
    message = ros.image(stamp(i), 10 * i, **changes)
    return topic, "sensor_msgs/msg/Image", stamp(i) + RECORDED_LATER_NS, message


def jpeg_at(ros: Ros, i: int, topic: str, **changes: Any) -> Message:
    message = ros.jpeg(stamp(i), 10 * i, **changes)
    return topic, "sensor_msgs/msg/CompressedImage", stamp(i) + RECORDED_LATER_NS, message


def info_at(ros: Ros, i: int, topic: str = "/camera/camera_info", **changes: Any) -> Message:
    message = ros.info(stamp(i), **changes)
    return topic, "sensor_msgs/msg/CameraInfo", stamp(i) + RECORDED_LATER_NS, message


def good_bag(ros: Ros, folder: Path, count: int = 5) -> Path:
    each: list[Callable[[Ros, int], Message]] = [info_at, image_at]
    return ros.write(folder, [make(ros, i) for i in range(count) for make in each])


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def greys(source: Source) -> list[int]:
    return [int(frame.image[0, 0]) for frame in source.frames()]


@pytest.fixture(params=KINDS)
def ros(request: pytest.FixtureRequest) -> Ros:
    return Ros(request.param)


def test_reads_what_was_written(ros: Ros, tmp_path: Path) -> None:
    path = good_bag(ros, tmp_path)
    with open_source(path) as source:
        assert source.kind == ("rosbag1" if ros.ros1 else "rosbag2")
        assert source.name == ("run" if ros.ros1 else path.name)
        assert source.length == 5
        assert source.groundtruth is None
        for _ in range(2):  # from the start each time
            frames = list(source.frames())
            assert [f.stamp_ns for f in frames] == [stamp(i) for i in range(5)]
            assert [int(f.image[3, 4]) for f in frames] == [0, 10, 20, 30, 40]
        assert not source.skipped
    camera = frames[0].camera
    assert camera.size == (WIDTH, HEIGHT)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (50.0, 51.0, 7.5, 5.5)
    assert (camera.distortion_model, camera.distortion) == ("plumb_bob", D)
    assert all(f.camera is camera for f in frames)


@pytest.mark.parametrize("kind", ["db3", "mcap"])
def test_a_bare_storage_file_is_a_bag(kind: str, tmp_path: Path) -> None:
    folder = good_bag(Ros(kind), tmp_path)
    (file,) = folder.glob(f"*.{kind}")
    with open_source(file) as source:
        assert greys(source) == [0, 10, 20, 30, 40]
    (folder / "metadata.yaml").unlink()
    assert f"give the bag itself, {file}" in refused(folder)


def test_closing_twice_is_harmless(ros: Ros, tmp_path: Path) -> None:
    source = open_source(good_bag(ros, tmp_path))
    source.close()
    source.close()


def test_compressed_images(ros: Ros, tmp_path: Path) -> None:
    topic = "/camera/image_raw/compressed"
    messages = [info_at(ros, 0), jpeg_at(ros, 3, topic, image_format="bgr8; jpeg compressed bgr8")]
    messages += [jpeg_at(ros, 4, topic, cut=40), jpeg_at(ros, 5, topic)]
    with open_source(ros.write(tmp_path, messages)) as source:
        assert greys(source) == [30, 50]
        assert source.skipped == {"truncated image": 1}


def test_compressed_depth_is_no_image_topic(tmp_path: Path) -> None:
    ros = Ros("mcap")
    messages = [info_at(ros, 0), image_at(ros, 1)]
    messages.append(jpeg_at(ros, 1, "/depth/image/compressedDepth"))
    with open_source(ros.write(tmp_path, messages)) as source:
        assert greys(source) == [10]


@pytest.mark.parametrize(
    ("image_topic", "info_topic"),
    [
        ("/camera/image_raw", "/camera/camera_info"),
        ("/camera/image_raw/compressed", "/camera/camera_info"),
        ("/a/b/image_rect", "/a/b/camera_info"),
        ("/image", "/camera_info"),
    ],
)
def test_camera_info_is_looked_for_beside_the_image(image_topic: str, info_topic: str) -> None:
    assert camera_info_beside(image_topic) == info_topic


def test_topics_can_be_chosen(tmp_path: Path) -> None:
    ros = Ros("mcap")
    messages = [
        info_at(ros, 0, "/left/camera_info"),
        info_at(ros, 0, "/odd/info", k=(60.0, *K[1:])),
    ]
    messages += [image_at(ros, 1, "/left/image"), image_at(ros, 2, "/right/image")]
    messages += [jpeg_at(ros, 3, "/left/image/compressed")]
    path = ros.write(tmp_path, messages)

    message = refused(path)
    assert "--topic" in message
    assert "/left/image (Image, 1), /left/image/compressed (CompressedImage, 1)" in message
    assert "/right/image (Image, 1)" in message
    assert "no image topic /front; it has /left/image (Image, 1)" in refused(path, topic="/front")

    with open_source(path, topic="left/image") as source:
        assert greys(source) == [10]
    message = refused(path, topic="/right/image")
    assert "no CameraInfo on /right/camera_info" in message
    assert "/odd/info (CameraInfo, 1)" in message
    assert "--calib" in message
    with open_source(path, topic="/right/image", camera_info_topic="/odd/info") as source:
        (frame,) = source.frames()
        assert frame.camera.fx == 60.0
    assert "no CameraInfo on /no" in refused(path, topic="/left/image", camera_info_topic="/no")


def test_a_silent_image_topic_is_no_choice(tmp_path: Path) -> None:
    ros = Ros("mcap")
    path = tmp_path / "run"
    with rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        writer.add_connection("/silent/image", "sensor_msgs/msg/Image", typestore=ros.store)
        for topic, kind, recorded_ns, message in (info_at(ros, 1), image_at(ros, 1)):
            connection = writer.add_connection(topic, kind, typestore=ros.store)
            writer.write(connection, recorded_ns, ros.store.serialize_cdr(message, kind))
    with open_source(path) as source:
        assert greys(source) == [10]


def test_a_bag_without_images_lists_its_topics(ros: Ros, tmp_path: Path) -> None:
    message = refused(ros.write(tmp_path, [info_at(ros, 0)]))
    assert "has no image topic; it has /camera/camera_info (CameraInfo, 1)" in message


def test_a_bag_without_messages_is_refused(ros: Ros, tmp_path: Path) -> None:
    assert "has no image topic; it has none" in refused(ros.write(tmp_path, []))


def test_a_calibration_takes_the_place_of_camera_info(tmp_path: Path) -> None:
    ros = Ros("db3")
    path = ros.write(tmp_path, [image_at(ros, 1)])
    assert "it has none or give --calib" in refused(path)
    calib = tmp_path / "calib.json"
    calib.write_text('{"fx": 1, "fy": 2, "cx": 3, "cy": 4, "width": 16, "height": 12}')
    with open_source(path, calib=calib) as source:
        (frame,) = source.frames()
        assert (frame.camera.fx, frame.camera.cy) == (1.0, 4.0)


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/c/image_raw", True),
        ("/c/image_rect", False),
        ("/c/image_rect_color/compressed", False),
    ],
)
def test_rectified_images_use_the_projection_matrix(
    topic: str, rectified: bool, tmp_path: Path
) -> None:
    ros = Ros("bag")
    make = jpeg_at if topic.endswith("compressed") else image_at
    path = ros.write(tmp_path, [info_at(ros, 0, "/c/camera_info"), make(ros, 1, topic)])
    with open_source(path, rectified=rectified) as source:
        (frame,) = source.frames()
    camera = frame.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (40.0, 41.0, 7.0, 5.0)
    assert camera.distortion_model == "none"


def test_an_uncalibrated_camera_is_refused(ros: Ros, tmp_path: Path) -> None:
    path = ros.write(tmp_path, [info_at(ros, 0, k=[0.0] * 9), image_at(ros, 0)])
    message = refused(path)
    assert "/camera/camera_info: focal length 0.0 x 0.0 px: not calibrated" in message
    assert "--calib" in message


def test_camera_info_may_come_late_change_and_break(ros: Ros, tmp_path: Path) -> None:
    messages = [image_at(ros, 0), info_at(ros, 1), image_at(ros, 2), info_at(ros, 3, k=[0.0] * 9)]
    messages += [image_at(ros, 4), info_at(ros, 5, k=(99.0, *K[1:])), image_at(ros, 6)]
    with open_source(ros.write(tmp_path, messages)) as source:
        assert [f.camera.fx for f in source.frames()] == [50.0, 50.0, 50.0, 99.0]
        assert source.skipped == {"bad CameraInfo": 1}


def test_bad_images_are_skipped_counted_and_logged_once(
    ros: Ros, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages = [info_at(ros, 0), image_at(ros, 0), image_at(ros, 1, step=3)]
    messages += [image_at(ros, 2, encoding="32FC1"), image_at(ros, 3, data=np.zeros(9, np.uint8))]
    messages += [image_at(ros, 4, height=0), image_at(ros, 5)]
    with open_source(ros.write(tmp_path, messages)) as source, caplog.at_level(logging.WARNING):
        assert greys(source) == [0, 50]
        assert source.skipped == {
            "wrong step": 1,
            "unsupported encoding": 1,
            "truncated image": 1,
            "impossible size": 1,
        }
    assert len(caplog.records) == 4


def test_without_stamps_the_time_of_recording_holds(
    ros: Ros, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages = [info_at(ros, 0)]
    messages += [image_at(ros, i, header=ros.header(0)) for i in range(3)]
    with open_source(ros.write(tmp_path, messages)) as source:
        expected = [stamp(i) + RECORDED_LATER_NS for i in range(3)]
        assert [f.stamp_ns for f in source.frames()] == expected
    assert ["time" in r.getMessage() for r in caplog.records] == [True]


def test_stamps_are_passed_through_as_they_are(ros: Ros, tmp_path: Path) -> None:
    messages = [info_at(ros, 0)]
    messages += [image_at(ros, i, header=ros.header(stamp(s))) for i, s in enumerate((1, 1, 0))]
    with open_source(ros.write(tmp_path, messages)) as source:
        assert [f.stamp_ns for f in source.frames()] == [stamp(1), stamp(1), stamp(0)]


def speed_at(
    ros: Ros, seconds: float, speed_m_s: float = 2.0, kind: str = "Odometry", stamped: bool = True
) -> Message:
    """The robot's speed so long after the first stamp."""
    at_ns = stamp(0) + round(seconds * 1e9)
    make = ros.odometry if kind == "Odometry" else ros.twist_stamped
    package = "nav_msgs" if kind == "Odometry" else "geometry_msgs"
    message = make(at_ns if stamped else 0, speed_m_s)
    return "/wheel", f"{package}/msg/{kind}", at_ns + RECORDED_LATER_NS, message


def in_order(messages: Sequence[Message]) -> list[Message]:
    return sorted(messages, key=lambda message: message[2])


def travelled(path: Path) -> list[float]:
    with open_source(path, wheel_topic="wheel") as source:
        return [frame.travelled_m for frame in source.frames()]


@pytest.mark.parametrize("kind", ["Odometry", "TwistStamped"])
def test_frames_say_how_far_the_robot_had_come(kind: str, ros: Ros, tmp_path: Path) -> None:
    messages = [info_at(ros, 0), *(image_at(ros, i) for i in range(10))]
    messages += [speed_at(ros, 0.02 * i - 0.09, 2.0 + 0.1 * i, kind) for i in range(55)]
    path = ros.write(tmp_path, in_order(messages))
    with open_source(path, wheel_topic="wheel") as source:
        assert source.length == 10
        for _ in range(2):  # from the start each time
            frames = list(source.frames())
            assert [f.stamp_ns for f in frames] == [stamp(i) for i in range(10)]
            metres = np.diff([f.travelled_m for f in frames])
            # At the stamp of frame i the speed is 2.45 + 0.5 i.
            assert metres == pytest.approx(0.245 + 0.05 * (np.arange(9) + 0.5), abs=0.01)
        assert not source.skipped
    with open_source(path) as source:
        assert all(np.isnan(frame.travelled_m) for frame in source.frames())


def test_where_the_wheels_say_nothing_the_distance_is_unknown(tmp_path: Path) -> None:
    ros = Ros("mcap")
    messages = [info_at(ros, 0), *(image_at(ros, i) for i in range(20))]
    messages += [speed_at(ros, 0.05 * i - 0.01) for i in (*range(10, 15), *range(28, 33))]
    metres = np.array(travelled(ros.write(tmp_path, in_order(messages))))
    assert np.flatnonzero(np.isfinite(metres)).tolist() == [5, 6, 7, 8, 14, 15, 16, 17]
    assert np.diff(metres[5:9]) == pytest.approx(0.2)
    assert metres[14] < metres[8]  # over the pause no difference says anything
    assert np.diff(metres[14:18]) == pytest.approx(0.2)


def test_bad_wheel_speeds_are_skipped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ros = Ros("mcap")
    messages = [info_at(ros, 0), image_at(ros, 0), image_at(ros, 1)]
    messages += [speed_at(ros, 0.02 * i - 0.01) for i in range(7)]
    messages += [speed_at(ros, 0.055, float("nan")), speed_at(ros, 0.01)]
    path = ros.write(tmp_path, in_order(messages))
    with open_source(path, wheel_topic="/wheel") as source:
        metres = [frame.travelled_m for frame in source.frames()]
        assert source.skipped == {"bad wheel speed": 2}
    assert metres[1] - metres[0] == pytest.approx(0.2)
    assert len(caplog.records) == 2


def test_wheels_without_stamps_go_by_the_time_of_recording(ros: Ros, tmp_path: Path) -> None:
    messages = [info_at(ros, 0), *(image_at(ros, i, header=ros.header(0)) for i in range(5))]
    messages += [speed_at(ros, 0.02 * i - 0.01, stamped=False) for i in range(30)]
    assert np.diff(travelled(ros.write(tmp_path, in_order(messages)))) == pytest.approx(0.2)


def test_a_wheel_topic_that_is_not_there_is_refused(tmp_path: Path) -> None:
    ros = Ros("mcap")
    path = ros.write(tmp_path, [info_at(ros, 0), image_at(ros, 0), speed_at(ros, 0.0)])
    message = refused(path, wheel_topic="/wheels")
    assert "no Odometry or TwistStamped on /wheels; it has /wheel (Odometry, 1)" in message
    assert "it has /wheel" in refused(path, wheel_topic="/camera/image_raw")


def damaged(path: Path, change: Callable[[bytearray], bytearray]) -> None:
    path.write_bytes(change(bytearray(path.read_bytes())))


def cut_at(at: int, data: bytearray) -> bytearray:
    return data[:at]


def flipped_at(at: int, value: int, data: bytearray) -> bytearray:
    data[at : at + 4] = bytes([value]) * len(data[at : at + 4])
    return data


def open_and_read(path: Path) -> None:
    """Open and read a bag that may be damaged: SourceError is all that may come out."""
    try:
        source = open_source(path, topic="/camera/image_raw")
    except SourceError as error:
        assert "\n" not in str(error)  # noqa: PT017 - a source is as good
        return
    with source:
        for frame in source.frames():
            assert frame.image.ndim == 2


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bags_never_crash(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = good_bag(Ros(kind), tmp_path, count=3)
    if kind != "bag":
        (whole,) = whole.glob(f"*.{kind}")
    content = whole.read_bytes()
    path = tmp_path / f"damaged.{kind}"
    dice = random.Random(7)
    caplog.set_level(logging.CRITICAL)
    changes = [partial(cut_at, len(content) * i // 60) for i in range(60)]
    for i in range(160):
        at = len(content) * i // 160 + dice.randrange(16)
        changes.append(partial(flipped_at, at, dice.choice([0, 1, 127, 255, dice.randrange(256)])))
    for change in changes:
        path.write_bytes(change(bytearray(content)))
        open_and_read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_random_bytes_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"noise.{kind}"
    magic = {"bag": b"#ROSBAG V2.0\n", "mcap": b"\x89MCAP0\r\n", "db3": b"SQLite format 3\0"}[kind]
    for start in (b"", magic):
        for size in (0, 1, 100, 5000):
            path.write_bytes(start + random.Random(size).randbytes(size))
            refused(path)


def test_a_broken_metadata_file_is_refused(tmp_path: Path) -> None:
    path = good_bag(Ros("mcap"), tmp_path)
    for text in ("", "a: [", "rosbag2_bagfile_information: 3", "\0\0", "[" * 1200):
        (path / "metadata.yaml").write_text(text)
        refused(path)


def test_a_bag_that_breaks_off_ends_the_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = good_bag(Ros("mcap"), tmp_path)
    (file,) = folder.glob("*.mcap")
    damaged(file, lambda data: data.replace(b"mono8", b"\xff\xff\xff\xff\xff"))
    with open_source(folder) as source:
        assert not list(source.frames())
        assert source.skipped.total() > 0
    assert caplog.records
