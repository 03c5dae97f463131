"""The processes of `bench_ros.py`: a camera, one that hears the node, one that takes images.

Each prints one line when it begins and one of JSON when it ends, by itself or by SIGINT.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import rclpy
from bench_ros_footage import read_footage
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from vo_stream.camera import CameraModel
from vo_stream.demo.world import scaled
from vo_stream.encodings import GreyImage
from vo_stream.messages import grey_of, stamp_ns_of
from vo_stream.ros import interface
from vo_stream.ros.process import reuse_large_blocks
from vo_stream.values import NANOSECONDS

BEGUN = "begun"

CAMERA_FRAME = "camera_optical_frame"

DEPTH = 5
"""Messages that DDS keeps of the images, as camera drivers ask for."""

HEARD_DEPTH = 200

DISCOVERED_S = 0.5
"""From when the camera sees its subscriber until that surely sees the camera."""

NODE_S = 30.0
"""The node is up by then, and found."""

SPIN_S = 0.1
"""Signals are looked at this often."""

ODOMETRY = f"/{interface.NODE_NAME}/odometry"


def publish(args: argparse.Namespace, stopped: Callable[[], bool]) -> dict[str, Any]:
    """Publish footage at a rate, to and fro; return each image's stamp and what it took."""
    node = Node("bench_camera", start_parameter_services=False)
    qos = _image_qos(args.reliable)
    images = node.create_publisher(Image, interface.IMAGE.name, qos)
    infos = node.create_publisher(CameraInfo, interface.CAMERA_INFO.name, qos)
    frames = read_footage(args.footage)
    pictures = [_picture(frame.image, args.size, args.encoding) for frame in frames]
    info = _camera_info(scaled(frames[0].camera, args.size))
    while not (images.get_subscription_count() or stopped()):
        time.sleep(SPIN_S)
    time.sleep(DISCOVERED_S)
    _say(BEGUN)
    stamps: list[int] = []
    took: list[float] = []
    late, start = 0, time.monotonic()
    for i, at in zip(count(), _to_and_fro(len(pictures)), strict=False):
        message = Image(height=info.height, width=info.width, encoding=args.encoding)
        message.step = len(pictures[at]) // info.height
        message.header.frame_id = CAMERA_FRAME
        message.data = pictures[at]
        pause = start + i / args.rate - time.monotonic()
        if pause > 0.0:
            time.sleep(pause)
        elif i:
            late += 1
        if stopped() or i >= args.seconds * args.rate:
            break
        now = time.time_ns()
        for each in (message, info):
            each.header.stamp.sec, each.header.stamp.nanosec = divmod(now, NANOSECONDS)
        began = time.perf_counter()
        infos.publish(info)
        images.publish(message)
        took.append(1e3 * (time.perf_counter() - began))
        stamps.append(now)
    return {"stamps_ns": stamps, "publish_ms": took, "late": late}


def listen(_: argparse.Namespace, stopped: Callable[[], bool]) -> dict[str, Any]:
    """Take odometry and diagnostics; return the stamps, when they came, and the largest values."""
    node = Node("bench_listener", start_parameter_services=False)
    stamps: list[int] = []
    received: list[int] = []
    diagnostics: dict[str, str] = {}
    largest: dict[str, float] = {}

    def on_odometry(message: Any) -> None:
        received.append(time.time_ns())
        stamps.append(stamp_ns_of(message))

    def on_diagnostics(message: Any) -> None:
        for pair in (pair for status in message.status for pair in status.values):
            diagnostics[pair.key] = pair.value
            try:
                largest[pair.key] = max(float(pair.value), largest.get(pair.key, 0.0))
            except ValueError:
                continue

    node.create_subscription(Odometry, ODOMETRY, on_odometry, HEARD_DEPTH)
    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, HEARD_DEPTH)
    end = time.monotonic() + NODE_S
    while not (node.count_publishers(ODOMETRY) or stopped()):
        if time.monotonic() > end:
            raise SystemExit(f"nobody offers {ODOMETRY} after {NODE_S:g} s")
        time.sleep(SPIN_S)
    _spin(node, stopped)
    heard = {"diagnostics": diagnostics, "largest": largest}
    return {"stamps_ns": stamps, "received_ns": received, **heard}


def take(args: argparse.Namespace, stopped: Callable[[], bool]) -> dict[str, Any]:
    """Take images as bytes and turn them grey; return what each took in milliseconds."""
    node = Node("bench_taker", start_parameter_services=False)
    parts: dict[str, list[float]] = {"deserialise_ms": [], "grey_ms": [], "both_ms": []}
    cpu = [0.0, 0.0]

    def on_image(data: bytes) -> None:
        began = time.perf_counter()
        message = deserialize_message(data, Image)
        ready = time.perf_counter()
        grey_of(message)
        done = time.perf_counter()
        parts["deserialise_ms"].append(1e3 * (ready - began))
        parts["grey_ms"].append(1e3 * (done - ready))
        parts["both_ms"].append(1e3 * (done - began))
        cpu[1] = time.process_time()
        cpu[0] = cpu[0] or cpu[1]

    node.create_subscription(
        Image, interface.IMAGE.name, on_image, _image_qos(args.reliable), raw=True
    )
    _spin(node, stopped)
    each = max(1, len(parts["both_ms"]) - 1)
    return {**parts, "cpu_ms_per_image": 1e3 * (cpu[1] - cpu[0]) / each}


def _spin(node: Any, stopped: Callable[[], bool]) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    _say(BEGUN)
    while not stopped():
        executor.spin_once(timeout_sec=SPIN_S)
    executor.shutdown()


def _say(line: str) -> None:
    print(line, flush=True)


def _image_qos(reliable: bool) -> Any:
    policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=DEPTH, reliability=policy)


def _to_and_fro(length: int) -> Iterator[int]:
    """Yield 0, 1, ..., length - 1, ..., 1, 0, 1, ... for ever."""
    period = max(1, 2 * (length - 1))
    for i in count():
        yield min(i % period, period - i % period) if length > 1 else 0


def _picture(grey: GreyImage, size: tuple[int, int], encoding: str) -> Any:
    """Return the data of an Image; an array, since rclpy takes numpy's byte by byte."""
    resized = cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR)
    if encoding == "rgb8":
        resized = cv2.cvtColor(resized, cv2.COLOR_GRAY2RGB)
    return array("B", resized.tobytes())


def _camera_info(camera: CameraModel) -> Any:
    info = CameraInfo(width=camera.width, height=camera.height)
    info.header.frame_id = CAMERA_FRAME
    info.distortion_model, info.d = camera.distortion_model, list(camera.distortion)
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    info.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def main() -> int:
    """Play one role; return the exit code."""
    parser = argparse.ArgumentParser(description="One process of bench_ros.py.")
    roles = {"publish": publish, "listen": listen, "take": take}
    parser.add_argument("role", choices=roles)
    parser.add_argument("--footage", type=Path)
    parser.add_argument("--size", type=_size, default=(640, 480))
    parser.add_argument("--encoding", default="mono8")
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--reliable", action="store_true")
    args = parser.parse_args()
    signals: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: signals.append(number))
    reuse_large_blocks()  # as the node does
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    result = roles[args.role](args, lambda: bool(signals))
    _say(json.dumps({**result, "cpu_s": time.process_time()}))
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
