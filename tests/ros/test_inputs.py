"""Images, calibration and transforms as they come on a real graph: late, changed, broken."""

from __future__ import annotations

import gc
import math
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from camera import Camera, Footage, footage, image_message, info_message
from graph import Graph
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from vo_stream.camera import CameraModel
from vo_stream.config import Config
from vo_stream.errors import VoStreamError
from vo_stream.link.channel import NoLink
from vo_stream.messages import stamp_ns_of
from vo_stream.net.backends import open_backend
from vo_stream.ros.inbox import Inbox
from vo_stream.ros.inputs import Inputs
from vo_stream.ros.mount import Mount
from vo_stream.ros.outgoing import tf_message, transform_message
from vo_stream.ros.publishers import Publishers
from vo_stream.ros.stream import Arrival, Outputs, Stream
from vo_stream.ros.tf_watch import ParentWatch
from vo_stream.ros.transforms import TransformListener
from vo_stream.ros.wheel import WheelDistance
from vo_stream.se3 import SE3
from vo_stream.track.odometer import Odometer
from vo_stream.values import Estimate, Refinement

Pixels = npt.NDArray[np.uint8]

FILM = footage()
CAMERA = FILM.frames[0].camera
SHARP = footage(seconds=0.6, size=(640, 192))
"""A short drive with enough in it for the odometry not to hang on single corners."""

RELIABLE = QoSProfile(depth=100)
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)

MOUNT = SE3.exp([0.3, -0.1, 0.5, 0.2, 1.1, -0.4])

WAIT_S, LIMIT_S = 0.3, 20.0

LOSSLESS = {"input.drop_stale": False, "node.wait_s": 0.5}


class Collected:
    """Outputs that keep what they are given."""

    def __init__(self) -> None:
        self.estimates: list[Estimate] = []
        self.mounts: list[SE3] = []

    def publish_estimate(self, estimate: Estimate, base_from_camera: SE3, dt_s: float) -> None:
        self.estimates.append(estimate)
        self.mounts.append(base_from_camera)

    def publish_refinement(self, refinement: Refinement, base_from_camera: SE3) -> None:
        pass


class Robot:
    """Inputs and worker in a node of their own; the graph's node publishes what they hear.

    `settings`: in place of the defaults, and of a mount that looks forward. `remapped`: other names
    of topics. `working`: whether images are taken from the inbox.
    """

    def __init__(
        self,
        graph: Graph,
        settings: Mapping[str, object] | None = None,
        remapped: Mapping[str, str] | None = None,
        working: bool = True,
        make_outputs: Callable[[Node, Config], Outputs] | None = None,
    ) -> None:
        self.graph = graph
        cheap = {"frames.mount": "forward", "net.backend": "geometric"}
        self.config = Config().replaced(cheap | dict(settings or {}))
        rules = [part for a, b in (remapped or {}).items() for part in ("-r", f"{a}:={b}")]
        self.node = Node("robot", context=graph.context, cli_args=["--ros-args", *rules])
        graph.executor.add_node(self.node)
        keep_all = not self.config.input.drop_stale
        self.inbox = Inbox[Arrival](
            self.config.input.queue if keep_all else 1, not keep_all, graph.executor.wake
        )
        watch = ParentWatch(self.config.frames)
        self.mount = Mount(self.config.frames)
        self.transforms = TransformListener(self.node, self.mount, watch)
        self.outputs = Collected()
        self.odometer = Odometer(open_backend(self.config), self.config.track, self.config.scale)
        made = make_outputs(self.node, self.config) if make_outputs else self.outputs
        wheel = WheelDistance()
        try:
            self.inputs = Inputs(self.node, self.config, self.inbox, self.mount, wheel, {})
        except VoStreamError:
            self._close_node()
            raise
        self.stream = Stream(self.odometer, NoLink(), self.inbox, made, wheel.at)
        self._working = working
        if working:
            self.stream.start()
        self._publishers: dict[str, Any] = {}

    def close(self) -> None:
        self.inputs.close()
        if self._working:
            self.stream.stop()
        self.transforms.close()
        self._close_node()

    def _close_node(self) -> None:
        self.graph.executor.remove_node(self.node)
        self.node.destroy_node()

    def publish(self, message: Any, topic: str, qos: QoSProfile = RELIABLE) -> None:
        """Publish a message to the subscriber that is there."""
        if topic not in self._publishers:
            publisher = self.graph.node.create_publisher(type(message), topic, qos)
            self._publishers[topic] = publisher
            self.graph.spin_until(publisher.get_subscription_count)
            self.graph.spin_until(lambda: self.node.count_publishers(topic))
            self.inputs.look_after()
            self.graph.spin_until(publisher.get_subscription_count)
        self._publishers[topic].publish(message)

    def _came_after(self, count: int) -> bool:
        return self.inputs.images > count

    def settled(self) -> bool:
        """Whether every image was worked off, or left out."""
        stream = self.stream
        done = stream.published + stream.failed + sum(stream.refused.values())
        left_out = sum(self.inputs.unused.values())
        return done + left_out == self.inputs.images

    def show(self, *messages: Any, topic: str = "/image") -> None:
        """Publish images, and wait until each is dealt with before the next."""
        for message in messages:
            before = self.inputs.images
            self.publish(message, topic)
            self.graph.spin_until(partial(self._came_after, before))
            end = time.monotonic() + LIMIT_S
            while self._working and not self.settled():
                assert time.monotonic() < end
                time.sleep(0.001)

    def calibrate(self, info: Any, topic: str = "/camera_info") -> None:
        """Publish a CameraInfo and wait until it was looked at."""
        self.publish(info, topic)
        self.graph.spin(0.03)

    def line(self) -> str:
        """Return what is missing after more than `WAIT_S` of images."""
        end = time.monotonic() + 1.3 * WAIT_S
        number = 1000
        while time.monotonic() < end:
            self.show(shot(number := number + 1))
        return self.inputs.missing(WAIT_S)

    @property
    def estimates(self) -> list[Estimate]:
        return self.outputs.estimates

    @property
    def camera(self) -> CameraModel:
        state = self.odometer.state
        assert state is not None
        return state.camera


Make = Callable[..., Robot]


@pytest.fixture
def robot(graph: Graph) -> Iterator[Make]:
    made: list[Robot] = []

    def make(settings: Mapping[str, object] | None = None, **others: Any) -> Robot:
        made.append(Robot(graph, settings, **others))
        return made[-1]

    yield make
    for each in made:
        each.close()


def shot(number: int, film: Footage = FILM, **fields: Any) -> Any:
    """Return the Image of a frame; `fields` replace some of the message's."""
    message = image_message(film.frames[film.at(number)].image, film.stamp_ns(number), "camera")
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def info(camera: CameraModel = CAMERA, stamp_ns: int = 1, **fields: Any) -> Any:
    message = info_message(camera, stamp_ns, "camera")
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def matrix(camera: CameraModel = CAMERA, factor: float = 1.0) -> list[float]:
    fx, fy = camera.fx * factor, camera.fy * factor
    return [fx, 0.0, camera.cx, 0.0, fy, camera.cy, 0.0, 0.0, 1.0]


# Calibration.


def test_without_calibration_images_are_left_out_and_a_line_says_so(robot: Make) -> None:
    made = robot()
    made.show(shot(0))
    assert made.inputs.missing(WAIT_S) == ""  # not yet
    assert made.line() == (
        "no calibration: nobody publishes /camera_info (sensor_msgs/msg/CameraInfo)"
    )
    assert made.inputs.unused == {"no calibration": made.inputs.images}
    assert made.stream.published == 0


def test_calibration_that_comes_late_is_taken_with_the_next_image(robot: Make) -> None:
    made = robot()
    made.show(shot(0), shot(1))
    made.calibrate(info())
    made.show(shot(2), shot(3))
    assert [e.stamp_ns for e in made.estimates] == [FILM.stamp_ns(2), FILM.stamp_ns(3)]
    assert made.line() == ""


def test_where_none_may_be_lost_the_first_image_waits_for_its_calibration(robot: Make) -> None:
    made = robot(LOSSLESS)
    for number in range(3):
        made.publish(shot(number), "/image")
    made.graph.spin_until(lambda: made.inputs.images == 1)
    made.calibrate(info())
    made.graph.spin(0.05)
    assert made.inputs.images == 1
    made.inputs.look_after()
    made.graph.spin_until(lambda: len(made.estimates) == 3)
    assert [e.stamp_ns for e in made.estimates] == [FILM.stamp_ns(number) for number in range(3)]
    assert not made.inputs.unused


def test_it_does_not_wait_for_ever(robot: Make) -> None:
    made = robot(LOSSLESS)
    for number in range(3):
        made.publish(shot(number), "/image")

    def left_out() -> bool:
        made.inputs.look_after()
        return made.inputs.unused["no calibration"] == 3

    made.graph.spin_until(left_out)
    assert made.inputs.missing(WAIT_S).startswith("no calibration: nobody publishes /camera_info")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "zeros": ({"k": [0.0] * 9}, "focal length 0.0 x 0.0 px: not calibrated (must be positive)"),
    "nan": ({"k": [math.nan] * 9}, "the calibration holds a number that is not finite"),
    "no size": ({"width": 0}, "an image of 0x96 pixels is not possible"),
    "model": (
        {"distortion_model": "fovmodel", "d": [0.1]},
        "distortion model 'fovmodel' is not supported; use one of: none, plumb_bob, "
        "rational_polynomial, equidistant",
    ),
    "coefficients": (
        {"d": [0.1, 0.2, 0.3]},
        "plumb_bob takes 4 or 5 coefficients, not 3",
    ),
    "binning": ({"binning_x": 2**32 - 1}, "an image of 0x96 pixels is not possible"),
}


@pytest.mark.parametrize("case", BAD)
def test_calibration_that_cannot_be_used_is_refused_in_a_line(robot: Make, case: str) -> None:
    fields, why = BAD[case]
    made = robot()
    made.calibrate(info(**fields))
    made.show(shot(0))
    assert made.inputs.missing(WAIT_S) == f"/camera_info: {why}"
    assert made.line() == f"/camera_info: {why}"
    made.calibrate(info())
    made.show(shot(1))
    assert len(made.estimates) == 1
    assert made.inputs.missing(WAIT_S) == ""


def test_bad_calibration_under_way_is_told_and_the_good_one_holds(robot: Make) -> None:
    made = robot()
    made.calibrate(info())
    made.show(shot(0), shot(1))
    made.calibrate(info(k=[0.0] * 9))
    made.show(shot(2))
    assert made.inputs.missing(WAIT_S).startswith("/camera_info: focal length 0.0")
    made.calibrate(info())
    made.show(shot(3))
    assert made.inputs.missing(WAIT_S) == ""
    assert len(made.estimates) == 4
    assert {e.reason for e in made.estimates[1:]} == {""}


CHANGED: dict[str, dict[str, Any]] = {
    "focal length": {"k": matrix(factor=1.1)},
    "distortion": {"d": [-0.05, 0.01, 0.0, 0.0, 0.0]},
    "model": {"distortion_model": "equidistant", "d": [-0.02, 0.0, 0.0, 0.0]},
}


@pytest.mark.parametrize("case", CHANGED)
def test_another_calibration_starts_the_backend_anew_once_and_keeps_the_pose(
    robot: Make, case: str
) -> None:
    made = robot()
    for number in range(10):
        fields = CHANGED[case] if number >= 5 else {}
        made.calibrate(info(stamp_ns=FILM.stamp_ns(number), **fields))
        made.show(shot(number))
    reasons = [e.reason for e in made.estimates]
    anew = "started anew after the camera's calibration changed"
    assert [i for i, reason in enumerate(reasons) if reason == anew] == [5]
    before, after = made.estimates[4:6]
    assert np.array_equal(before.odom_from_camera.wxyz_xyz, after.odom_from_camera.wxyz_xyz)
    assert {e.session for e in made.estimates} == {1}
    assert made.estimates[-1].motion is not None


def test_a_calibration_of_another_size(robot: Make) -> None:
    made = robot()
    made.calibrate(info(width=640, height=192))
    made.show(shot(0))
    assert made.stream.refused == {"the image is #x#, its calibration is for #x#": 1}
    made.calibrate(info())
    made.show(shot(1))
    assert len(made.estimates) == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"width": 640, "height": 192, "binning_x": 2, "binning_y": 2},
            CameraModel(320, 96, CAMERA.fx / 2, CAMERA.fy / 2, CAMERA.cx / 2, CAMERA.cy / 2),
        ),
        (
            {
                "width": 640,
                "height": 480,
                "roi": RegionOfInterest(x_offset=40, y_offset=20, width=320, height=96),
            },
            CameraModel(320, 96, CAMERA.fx, CAMERA.fy, CAMERA.cx - 40, CAMERA.cy - 20),
        ),
    ],
    ids=["binning", "roi"],
)
def test_a_part_of_the_sensor(robot: Make, fields: Any, expected: CameraModel) -> None:
    made = robot()
    made.calibrate(info(**fields))
    made.show(shot(0), shot(1))
    assert made.camera == expected


@pytest.mark.parametrize(
    ("settings", "topic", "rectified"),
    [
        ({}, "/image", False),
        ({"camera.rectified": True}, "/image", True),
        ({}, "/cam/image_rect", True),
        ({}, "/cam/image_rect_color", True),
    ],
)
def test_images_that_are_rectified_have_the_projection_of_p(
    robot: Make, settings: Any, topic: str, rectified: bool
) -> None:
    p = [200.0, 0.0, 150.0, 0.0, 0.0, 210.0, 50.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    made = robot(settings, remapped={"image": topic})
    made.calibrate(info(p=p, d=[-0.1, 0.01, 0.0, 0.0, 0.0]))
    made.show(shot(0), topic=topic)
    if rectified:
        assert made.camera == CameraModel(320, 96, 200.0, 210.0, 150.0, 50.0)
    else:
        assert made.camera.distortion_model == "plumb_bob"
        assert made.camera.fx == CAMERA.fx


def calibration_file(folder: Path, k: list[float] | None = None) -> Path:
    path = folder / "camera.yaml"
    path.write_text(
        f"image_width: {CAMERA.width}\nimage_height: {CAMERA.height}\n"
        "distortion_model: plumb_bob\n"
        f"camera_matrix: {{rows: 3, cols: 3, data: {k or matrix()}}}\n"
        "distortion_coefficients: {rows: 1, cols: 5, data: [0.0, 0.0, 0.0, 0.0, 0.0]}\n"
        "rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}\n"
        f"projection_matrix: {{rows: 3, cols: 4, data: {[0.0] * 12}}}\n"
    )
    return path


def test_a_file_takes_the_place_of_messages(robot: Make, tmp_path: Path) -> None:
    made = robot({"camera.calibration_file": str(calibration_file(tmp_path))})
    made.show(shot(0))
    assert made.camera == CAMERA
    assert not made.node.count_subscribers("/camera_info")


@pytest.mark.parametrize("k", [None, [0.0] * 9])
def test_a_file_that_cannot_be_used_is_told_before_anything_is_made(
    graph: Graph, tmp_path: Path, k: list[float] | None
) -> None:
    path = calibration_file(tmp_path, k) if k else tmp_path / "absent.yaml"
    with pytest.raises(VoStreamError) as caught:
        Robot(graph, {"camera.calibration_file": str(path)})
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not graph.node.count_subscribers("/image")


# Transforms.


def test_a_mount_that_is_never_published(robot: Make) -> None:
    made = robot({"frames.mount": "tf_static"})
    made.calibrate(info())
    assert made.line() == (
        "no transform base_link -> camera: nothing was heard on /tf_static; publish it, or set "
        "frames.mount: forward"
    )
    assert made.inputs.unused == {"no transform": made.inputs.images}


def test_a_mount_that_comes_late(robot: Make) -> None:
    pytest.importorskip("tf2_msgs", reason="needs tf2_msgs")
    made = robot({"frames.mount": "tf_static"})
    made.calibrate(info())
    made.show(shot(0))
    mount = transform_message(0, "base_link", "camera", MOUNT)
    made.publish(tf_message([mount]), "/tf_static", LATCHED)
    made.graph.spin_until(lambda: made.mount.base_from_camera("camera"))
    made.show(shot(1))
    assert [e.stamp_ns for e in made.estimates] == [FILM.stamp_ns(1)]
    assert np.allclose(made.outputs.mounts[0].as_matrix(), MOUNT.as_matrix())
    assert made.line() == ""


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"frames.mount": "tf_static"},
            "the images name no frame: set frames.camera, or frames.mount: forward",
        ),
        ({"frames.mount": "forward"}, ""),
        (
            {"frames.mount": "tf_static", "frames.camera": "camera"},
            "no transform base_link -> camera: nothing was heard on /tf_static; publish it, or "
            "set frames.mount: forward",
        ),
    ],
)
def test_images_that_name_no_frame(robot: Make, settings: Any, line: str) -> None:
    made = robot(settings)
    made.calibrate(info())
    unnamed = shot(0)
    unnamed.header.frame_id = ""
    made.show(unnamed)
    end = time.monotonic() + 1.3 * WAIT_S
    while time.monotonic() < end:
        made.show(unnamed)
    assert made.inputs.missing(WAIT_S) == line


# Images.


def padded(pixels: Pixels, padding: int = 7) -> tuple[bytes, int]:
    flat = pixels.reshape(len(pixels), -1)
    rows = np.pad(flat, ((0, 0), (0, padding)), constant_values=222)
    return rows.tobytes(), rows.shape[1]


def two_bytes(first: Pixels, second: Pixels) -> Pixels:
    return np.stack([first, second], axis=-1)


ENCODINGS: dict[str, tuple[str, Callable[[Pixels], Pixels], int]] = {
    "mono8": ("mono8", lambda g: g, 0),
    "8UC1": ("8UC1", lambda g: g, 0),
    "mono16": ("mono16", lambda g: two_bytes(255 - g, g), 0),
    "mono16 big-endian": ("mono16", lambda g: two_bytes(g, 255 - g), 1),
    "rgb8": ("rgb8", lambda g: np.dstack([g] * 3), 0),
    "bgr8": ("bgr8", lambda g: np.dstack([g] * 3), 0),
    "rgba8": ("rgba8", lambda g: np.dstack([g, g, g, 255 - g]), 0),
    "bgra8": ("bgra8", lambda g: np.dstack([g, g, g, 255 - g]), 0),
    "yuv422": ("yuv422", lambda g: two_bytes(255 - g, g), 0),
    "yuv422_yuy2": ("yuv422_yuy2", lambda g: two_bytes(g, 255 - g), 0),
    **{f"bayer_{m}8": (f"bayer_{m}8", lambda g: g, 0) for m in ("rggb", "bggr", "gbrg", "grbg")},
}


@pytest.fixture(scope="module")
def expected() -> list[Estimate]:
    """What the odometer says of the short drive."""
    config = Config().replaced({"net.backend": "geometric"})
    odometer = Odometer(open_backend(config), config.track, config.scale)
    return [odometer.step(frame) for frame in SHARP.frames]


def difference(one: list[Estimate], other: list[Estimate]) -> float:
    """Return the largest angle between the turns and the directions of two drives' steps."""
    assert [e.stamp_ns for e in one] == [e.stamp_ns for e in other]
    angles = []
    for a, b in zip(one[1:], other[1:], strict=True):
        assert a.motion is not None
        assert b.motion is not None
        step, due = a.motion.prev_from_curr, b.motion.prev_from_curr
        ways = [m.translation / np.linalg.norm(m.translation) for m in (step, due)]
        angles += [(step.inverse() @ due).angle, float(np.linalg.norm(ways[0] - ways[1]))]
    return max(angles)


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_gives_the_same_odometry(
    robot: Make, name: str, expected: list[Estimate]
) -> None:
    encoding, encode, big_endian = ENCODINGS[name]
    made = robot()
    made.calibrate(info(SHARP.frames[0].camera))
    for number, frame in enumerate(SHARP.frames):
        data, step = padded(encode(frame.image))
        fields = {"encoding": encoding, "data": data, "step": step, "is_bigendian": big_endian}
        made.show(shot(number, SHARP, **fields))
    allowed = 0.05 if encoding.startswith("bayer") else 0.0  # a mosaic is smoothed
    assert difference(made.estimates, expected) <= allowed


@pytest.mark.parametrize(("suffix", "allowed"), [(".png", 0.0), (".jpg", 0.05)])
def test_compressed_images_give_the_same_odometry(
    robot: Make, suffix: str, allowed: float, expected: list[Estimate]
) -> None:
    made = robot({"input.transport": "compressed"})
    made.calibrate(info(SHARP.frames[0].camera))
    for number, frame in enumerate(SHARP.frames):
        message = CompressedImage(header=shot(number, SHARP).header, format=suffix[1:])
        message.data = array("B", cv2.imencode(suffix, frame.image)[1].tobytes())
        made.show(message, topic="/image/compressed")
    assert difference(made.estimates, expected) <= allowed


BROKEN: dict[str, dict[str, Any]] = {
    "unsupported encoding": {"encoding": "32FC1"},
    "truncated image": {"data": b"\x00" * 1000},
    "wrong step": {"step": 5},
    "impossible size": {"height": 0, "width": 0},
    "the image is #x#, its calibration is for #x#": {"width": 64},
    "the image has no stamp": {"header": Image().header},
}


def test_broken_images_are_counted_by_reason_and_the_next_one_goes_on(robot: Make) -> None:
    made = robot()
    made.calibrate(info())
    made.show(shot(0))
    for number, fields in enumerate(BROKEN.values(), start=1):
        made.show(shot(number, **fields))
        made.show(shot(number))
    assert made.stream.refused == dict.fromkeys(BROKEN, 1)
    assert (made.stream.failed, len(made.estimates)) == (0, 1 + len(BROKEN))


@pytest.mark.parametrize("grey", [0, 255])
def test_images_without_a_picture(robot: Make, grey: int) -> None:
    made = robot()
    made.calibrate(info())
    made.show(*(shot(number) for number in range(5)))
    blank = np.full((96, 320), grey, dtype=np.uint8).tobytes()
    made.show(*(shot(number, data=blank) for number in range(5, 25)))
    made.show(*(shot(number) for number in range(25, 30)))
    statuses = [e.status.value for e in made.estimates]
    assert statuses[6] == "degraded"
    assert statuses[24] == "lost"
    assert statuses[-1] == "tracking"
    assert made.stream.failed == 0


def test_paused_images_are_counted_only(robot: Make) -> None:
    made = robot()
    made.calibrate(info())
    made.show(shot(0))
    made.inputs.paused = True
    made.show(shot(1), shot(2))
    made.inputs.paused = False
    made.show(shot(3))
    assert made.inputs.unused == {"paused": 2}
    assert [e.stamp_ns for e in made.estimates] == [FILM.stamp_ns(0), FILM.stamp_ns(3)]


# Where images wait.


def test_a_full_inbox_leaves_images_with_dds_and_none_is_lost(robot: Make) -> None:
    made = robot({**LOSSLESS, "input.queue": 3}, working=False)
    made.calibrate(info())
    made.show(shot(0))
    for number in range(1, 20):
        made.publish(shot(number), "/image")
    made.graph.spin(0.2)
    assert made.inputs.images == 3
    taken: list[Any] = []
    while len(taken) < 20:
        made.graph.spin_until(lambda: made.inbox.is_full or made.inputs.images == 20)
        taken.append(made.inbox.get(1.0))
    assert [stamp_ns_of(arrival.message) for arrival in taken] == [
        FILM.stamp_ns(number) for number in range(20)
    ]
    assert made.inbox.dropped == 0


def test_other_messages_are_heard_while_the_inbox_is_full(robot: Make) -> None:
    made = robot({**LOSSLESS, "input.queue": 1}, working=False)
    made.calibrate(info())
    made.show(shot(0))
    made.publish(shot(1), "/image")
    made.calibrate(info(k=[0.0] * 9))
    assert made.inputs.missing(WAIT_S).startswith("/camera_info: focal length 0.0")
    assert made.inputs.images == 1


def test_of_images_that_come_too_fast_the_newest_is_kept(robot: Make) -> None:
    made = robot(working=False)
    made.calibrate(info())
    made.show(*(shot(number) for number in range(10)))
    assert made.inbox.dropped == 9
    arrival = made.inbox.get(0.0)
    assert arrival is not None
    assert arrival.message == shot(9)


# Silence.


def test_images_that_end_are_missed(robot: Make) -> None:
    made = robot()
    assert made.inputs.missing(WAIT_S) == ""
    made.graph.spin(1.2 * WAIT_S)
    assert made.inputs.missing(WAIT_S) == "nobody publishes /image (sensor_msgs/msg/Image)"
    made.calibrate(info())
    made.show(shot(0))
    assert made.inputs.missing(WAIT_S) == ""
    made.graph.spin(1.2 * WAIT_S)
    assert made.inputs.missing(WAIT_S) == "/image: no image for more than 0.3 s"


def test_the_node_says_what_is_missing_until_it_comes(graph: Graph) -> None:
    """The same in a process: one line in the log, and the diagnostics for as long as it lasts."""
    heard = pytest.importorskip("heard", reason="needs tf2_msgs").Heard(graph)
    node = graph.start_node(
        node__autostart=True,
        node__wait_s=0.5,
        adjust__enabled=False,
        frames__mount="forward",
    )
    line = "no calibration: nobody publishes /camera_info (sensor_msgs/msg/CameraInfo)"
    camera = Camera(graph, infos="")
    camera.wait_for_reader()
    while not heard.diagnostics or heard.diagnostics[-1].message != line:
        camera.stream(2)
    camera.stream(40)
    assert node.output().count(line) == 1
    infos = graph.node.create_publisher(CameraInfo, "/camera_info", LATCHED)
    infos.publish(info())
    while heard.diagnostics[-1].message != "tracking":
        camera.stream(2)
    assert "no longer: no calibration: nobody publishes" in node.output()


# All at once, and again and again.


def test_nothing_is_left_behind(graph: Graph) -> None:
    def counts() -> tuple[int, ...]:
        gc.collect()
        node = graph.node
        fds = len(list(Path("/proc/self/fd").iterdir()))
        entities = len(list(node.subscriptions)), len(list(node.waitables))
        return threading.active_count(), fds, *entities

    config = Config().replaced({"scale.source": "wheel", "frames.mount": "forward"})
    inbox, mount = Inbox[Arrival](1, drop_stale=True), Mount(config.frames)
    overridden: dict[str, Any] = {}
    after_one: tuple[int, ...] = ()
    for _ in range(30):
        Inputs(graph.node, config, inbox, mount, WheelDistance(), overridden).close()
        graph.spin(0.0)
        after_one = after_one or counts()
    assert counts() == after_one


FUZZED = 500

ODD = (0.0, -1.0, 1e-3, 1e6, 1e-320, 1e300, math.inf, -math.inf, math.nan, 0.5, 320.0)
MODELS = ("plumb_bob", "rational_polynomial", "equidistant", "none", "", "fisheye", "\u26a0")
KNOWN = ("mono8", "mono16", "rgb8", "bgra8", "bayer_rggb8", "bayer_gbrg16", "yuv422", "32FC1", "")


def any_info(random: Random) -> Any:
    message = info()
    for name in random.sample(["k", "p", "d", "model", "size", "binning", "roi"], 2):
        if name in "kp":
            values = np.array(getattr(message, name))
            values[random.randrange(len(values))] = random.choice(ODD)
            setattr(message, name, values)
        elif name == "d":
            count = random.choice((0, 1, 4, 5, 8, 12))
            message.d = [random.choice((*ODD, -0.1, 0.1, 0.01)) for _ in range(count)]
        elif name == "model":
            message.distortion_model = random.choice(MODELS)
        elif name == "size":
            message.width = random.choice((0, 1, 2, 319, 2**32 - 1))
        elif name == "binning":
            message.binning_x = random.choice((0, 1, 2, 2**32 - 1))
        else:
            numbers = [random.choice((0, 1, 160, 320, 2**32 - 1)) for _ in range(4)]
            names = ("x_offset", "y_offset", "width", "height")
            message.roi = RegionOfInterest(**dict(zip(names, numbers, strict=True)))
    return message


def any_image(random: Random, number: int) -> Any:
    message = shot(number)
    for name in random.sample(["pixels", "stamp", "size", "step", "encoding", "frame"], 1):
        if name == "pixels":
            count = random.choice((0, 1, 1000, 320 * 96 - 1, 320 * 96, 320 * 96 * 4))
            message.data = random.choice((bytes(count), b"\xff" * count, random.randbytes(count)))
        elif name == "stamp":
            message.header.stamp.sec = random.choice((0, 1, -1, 2**31 - 1, -(2**31), 1_700_000_000))
            message.header.stamp.nanosec = random.choice((0, 1, 10**9, 2**32 - 1))
        elif name == "size":
            message.width = random.choice((0, 1, 2, 40, 319, 16_385, 2**32 - 1))
            message.height = random.choice((0, 1, 2, 40, 96, 16_385, 2**32 - 1))
        elif name == "step":
            message.step = random.choice((0, 1, 319, 321, 2**32 - 1))
        elif name == "encoding":
            message.encoding = random.choice(KNOWN)
            message.is_bigendian = random.choice((0, 1, 255))
        else:
            message.header.frame_id = random.choice(("", "/", "\u26a0", "x" * 10_000))
    return message


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_comes_only_finite_numbers_go_out(graph: Graph, robot: Make, seed: int) -> None:
    random = Random(seed)
    heard: list[Odometry] = []
    graph.node.create_subscription(Odometry, "/robot/odometry", heard.append, 1000)
    made = robot(
        make_outputs=lambda node, config: Publishers(node, config, ParentWatch(config.frames))
    )
    made.calibrate(info())
    for number in range(FUZZED // 2):
        kind = random.random()
        if kind < 0.2:
            made.publish(any_info(random), "/camera_info")
        elif kind < 0.4:
            made.publish(info(), "/camera_info")
        made.show(any_image(random, number) if random.random() < 0.5 else shot(number))
    assert made.stream.failed == 0, made.stream.failing
    assert made.stream.published > FUZZED // 10
    graph.spin_until(lambda: len(heard) == made.stream.published)
    for message in heard:
        pose, twist = message.pose, message.twist
        p, q = pose.pose.position, pose.pose.orientation
        v, w = twist.twist.linear, twist.twist.angular
        numbers = [p.x, p.y, p.z, q.x, q.y, q.z, q.w, v.x, v.y, v.z, w.x, w.y, w.z]
        assert np.isfinite([*numbers, *pose.covariance, *twist.covariance]).all()
