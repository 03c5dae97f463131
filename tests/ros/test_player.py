"""`vo-stream play` in a process of its own, heard by the test."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bags
import pytest
from bags import CAMERA_INFO_TOPIC, IMAGE_TOPIC, STORE, Message, Storage, message
from graph import Graph, Process
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags import rosbag2
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from vo_stream.se3 import SE3
from vo_stream.values import NANOSECONDS, Frame

FOUND_S = "4"
"""What the player waits for the test to find it: participants announce themselves every 3 s."""

PLAY = (sys.executable, "-m", "vo_stream.cli", "play")

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE, TRANSIENT_LOCAL = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Return one second of images."""
    return list(bags.rendered_frames(seconds=1.0, fps=10.0, size=(64, 48)))


def cdr(messages: Sequence[Message], topic: str) -> list[bytes]:
    """Return what is to be heard of a topic: on the wire, DDS fills up to four bytes."""
    ours = [bytes(STORE.serialize_cdr(m.content, m.type)) for m in messages if m.topic == topic]
    return [data + bytes(-len(data) % 4) for data in ours]


def infos(frame: Frame, times_s: Sequence[float]) -> Iterator[Message]:
    """Yield a CameraInfo for each time."""
    for time_s in times_s:
        stamp_ns = frame.stamp_ns + round(time_s * NANOSECONDS)
        info = bags.camera_info(Frame(stamp_ns, frame.image, frame.camera))
        yield message(CAMERA_INFO_TOPIC, stamp_ns, info)


def play(graph: Graph, *arguments: object) -> Process:
    return graph.start(*PLAY, *arguments, "--delay", FOUND_S)


def listen(
    graph: Graph,
    kind: Any,
    topic: str,
    durability: DurabilityPolicy = VOLATILE,
) -> list[bytes]:
    """Return a list that fills with what comes on a topic, byte for byte."""
    heard: list[bytes] = []
    qos = QoSProfile(depth=1000, reliability=RELIABLE, durability=durability)
    graph.node.create_subscription(kind, topic, heard.append, qos, raw=True)
    return heard


def stamps_s(heard: list[bytes], first: Frame) -> list[float]:
    """Return the stamps of CameraInfos, in seconds after a frame."""
    stamps = [deserialize_message(data, CameraInfo).header.stamp for data in heard]
    return [round(s.sec + s.nanosec / 1e9 - first.stamp_ns / 1e9, 3) for s in stamps]


def ended(graph: Graph, player: Process) -> str:
    """Wait for the player's end and return its last line."""
    graph.spin_until(lambda: player.popen.poll() is not None, 60.0)
    assert player.popen.returncode == 0
    return player.output().splitlines()[-1]


def refused(graph: Graph, *arguments: object, **environment: str) -> str:
    """Return the one line with which the player says no."""
    player = graph.start(*PLAY, *arguments, **environment)
    player.popen.wait(60.0)
    assert player.popen.returncode == 2
    (line,) = player.output().splitlines()
    return line


@pytest.mark.parametrize("storage", ["mcap", "db3", "bag"])
def test_every_message_arrives_as_it_was_recorded(
    storage: Storage, frames: list[Frame], graph: Graph, tmp_path: Path
) -> None:
    messages = list(bags.camera_messages(frames))
    path = bags.write_bag(tmp_path / "bag", messages, storage)
    images, cameras = (
        listen(graph, Image, IMAGE_TOPIC),
        listen(graph, CameraInfo, CAMERA_INFO_TOPIC),
    )
    player = play(graph, path)
    last = ended(graph, player)
    graph.spin_until(lambda: len(images) == len(cameras) == len(frames))
    assert images == cdr(messages, IMAGE_TOPIC)
    assert cameras == cdr(messages, CAMERA_INFO_TOPIC)
    pattern = r"20 messages on 2 topics in \d+\.\d s, lateness p99 \d+\.\d\d ms"
    assert re.fullmatch(pattern, last)
    assert player.output() == last + "\n"


def test_topics_have_the_qos_that_was_recorded(
    frames: list[Frame], graph: Graph, tmp_path: Path
) -> None:
    offered = {
        IMAGE_TOPIC: [bags.qos(reliable=False, deadline_s=3)],
        CAMERA_INFO_TOPIC: [bags.qos(transient_local=True)],
        "/mixed": [bags.qos(reliable=False), bags.qos(transient_local=True)],
        "/tf_static": [bags.qos(depth=1)],
    }
    expected = {
        IMAGE_TOPIC: (BEST_EFFORT, VOLATILE, 3),
        CAMERA_INFO_TOPIC: (RELIABLE, TRANSIENT_LOCAL, 0),
        "/mixed": (RELIABLE, VOLATILE, 0),
        "/plain": (RELIABLE, VOLATILE, 0),
        "/tf_static": (RELIABLE, TRANSIENT_LOCAL, 0),
    }
    messages = list(bags.camera_messages(frames))
    extra = bags.transform("a", "b", SE3.identity())
    messages += [message(t, messages[-1].recorded_ns, extra) for t in expected if "cam" not in t]
    play(graph, bags.write_bag(tmp_path / "bag", messages, offered=offered), "--loop")
    found: dict[str, tuple[Any, Any, int]] = {}

    def all_found() -> bool:
        for topic in expected:
            for info in graph.node.get_publishers_info_by_topic(topic):
                qos = info.qos_profile
                deadline = qos.deadline if qos.deadline < Duration(seconds=1000) else Duration()
                seconds = deadline.nanoseconds // NANOSECONDS
                found[topic] = (qos.reliability, qos.durability, seconds)
        return len(found) == len(expected)

    graph.spin_until(all_found)
    assert found == expected


@pytest.mark.parametrize("storage", ["mcap", "bag"])
def test_who_comes_late_gets_all_static_transforms(
    storage: Storage, frames: list[Frame], graph: Graph, tmp_path: Path
) -> None:
    start_ns = frames[0].stamp_ns
    transforms = [
        message("/tf_static", start_ns, bags.transform("base_link", name, SE3.identity()))
        for name in ("imu", "camera", "lidar")
    ]
    messages = [*transforms, *infos(frames[0], range(60))]
    heard = listen(graph, CameraInfo, CAMERA_INFO_TOPIC)
    play(graph, bags.write_bag(tmp_path / "bag", messages, storage), "--start", 0.5)
    graph.spin_until(lambda: heard)
    late = listen(graph, TFMessage, "/tf_static", TRANSIENT_LOCAL)
    graph.spin_until(lambda: len(late) == len(transforms))
    assert late == cdr(messages, "/tf_static")


def test_a_loop_starts_over_with_the_same_stamps(
    frames: list[Frame], graph: Graph, tmp_path: Path
) -> None:
    path = bags.write_bag(tmp_path / "bag", infos(frames[0], [0.0, 0.1, 0.2]))
    heard = listen(graph, CameraInfo, CAMERA_INFO_TOPIC)
    play(graph, path, "--loop")
    graph.spin_until(lambda: len(heard) >= 8)
    assert stamps_s(heard[:8], frames[0]) == [0.0, 0.1, 0.2, 0.0, 0.1, 0.2, 0.0, 0.1]


def test_the_clock_follows_the_bag_and_goes_back_with_it(
    frames: list[Frame], graph: Graph, tmp_path: Path
) -> None:
    bag = [*infos(frames[0], [0.0, 0.5, 1.0])]
    own = STORE.types["rosgraph_msgs/msg/Clock"](bags.header(7 * NANOSECONDS).stamp)
    bag.append(message("/clock", bag[-1].recorded_ns, own))
    path = bags.write_bag(tmp_path / "bag", bag)
    heard = listen(graph, Clock, "/clock")
    player = play(graph, path, "--loop", "--clock")

    def times_s() -> list[float]:
        clocks = [deserialize_message(data, Clock).clock for data in heard]
        return [c.sec + c.nanosec / 1e9 - frames[0].stamp_ns / 1e9 for c in clocks]

    def jumps() -> list[int]:
        times = times_s()
        return [i for i in range(1, len(times)) if times[i] < times[i - 1]]

    graph.spin_until(lambda: len(jumps()) == 2)
    times, (first, second) = times_s(), jumps()
    assert times[0] == pytest.approx(0.0, abs=0.1)
    for turn in (times[:first], times[first:second]):
        assert turn[0] == pytest.approx(0.0, abs=0.1)
        assert turn[-1] >= 1.0
        assert len(turn) > 20
    assert "/clock is left out" in player.output()


def test_faster_than_recorded(frames: list[Frame], graph: Graph, tmp_path: Path) -> None:
    times_s = [float(i) for i in range(31)]
    heard = listen(graph, CameraInfo, CAMERA_INFO_TOPIC)
    path = bags.write_bag(tmp_path / "bag", infos(frames[0], times_s))
    seconds = float(ended(graph, play(graph, path, "--rate", 10)).split()[6])
    assert 3.0 <= seconds < 20.0
    graph.spin_until(lambda: len(heard) == len(times_s))
    assert stamps_s(heard, frames[0]) == times_s


def test_a_part_of_the_bag_and_some_topics(
    frames: list[Frame], graph: Graph, tmp_path: Path
) -> None:
    path = bags.write_bag(tmp_path / "bag", bags.camera_messages(frames))
    heard = listen(graph, CameraInfo, CAMERA_INFO_TOPIC)
    part = ("--topic", CAMERA_INFO_TOPIC.strip("/"), "--start", 0.25, "--duration", 0.4)
    assert "4 messages on 1 topics" in ended(graph, play(graph, path, *part))
    graph.spin_until(lambda: len(heard) == 4)
    assert stamps_s(heard, frames[0]) == [0.3, 0.4, 0.5, 0.6]


def test_a_type_that_is_not_installed_is_left_out(
    frames: list[Frame], graph: Graph, tmp_path: Path
) -> None:
    path = tmp_path / "bag"
    (info,) = infos(frames[0], [0.0])
    with rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        for topic, kind in (("/odd", "odd_msgs/msg/Odd"), ("/module", "os/msg/Path")):
            odd = writer.add_connection(topic, kind, msgdef="int8 x\n", rihs01="RIHS01_0")
            writer.write(odd, info.recorded_ns, b"\0\1\0\0\7")
        known = writer.add_connection(info.topic, info.type, typestore=STORE)
        writer.write(known, info.recorded_ns, STORE.serialize_cdr(info.content, info.type))
    player = play(graph, path)
    assert "1 messages on 1 topics" in ended(graph, player)
    *warnings, _ = player.output().splitlines()
    assert sorted(w.partition(" is left out")[0] for w in warnings) == [
        "vo-stream: WARNING: /module (os/msg/Path)",
        "vo-stream: WARNING: /odd (odd_msgs/msg/Odd)",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("background", [False, True])
def test_it_ends_when_asked(
    number: signal.Signals, background: bool, frames: list[Frame], graph: Graph, tmp_path: Path
) -> None:
    path = bags.write_bag(tmp_path / "bag", bags.camera_messages(frames))
    heard = listen(graph, Image, IMAGE_TOPIC)
    command = (*PLAY, path, "--loop", "--delay", FOUND_S)
    ignoring = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")  # as a shell does with a background job
    player = graph.start(*(ignoring if background else ()), *command)
    graph.spin_until(lambda: heard)
    os.killpg(player.popen.pid, number)
    assert player.popen.wait(10.0) == 0, player.output()
    (line,) = player.output().splitlines()
    assert re.match(r"\d+ messages on 2 topics", line)


def test_what_cannot_be_played_is_said_in_one_line(
    frames: list[Frame], graph: Graph, tmp_path: Path
) -> None:
    path = bags.write_bag(tmp_path / "bag", infos(frames[0], [0.0, 0.1]))
    assert "no metadata.yaml" in refused(graph, tmp_path)
    line = refused(graph, path, "--topic", "/no")
    assert line.endswith(f"has no messages on /no; it has {CAMERA_INFO_TOPIC}")
    assert "no message to play" in refused(graph, path, "--start", 5)
    assert "ROS_DOMAIN_ID" in refused(graph, path, ROS_DOMAIN_ID="many")
    # The Python packages are there then, but not their libraries.
    without_ros = {"LD_LIBRARY_PATH": "", "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1"}
    line = refused(graph, path, **without_ros)
    assert line.startswith("vo-stream: play needs ROS 2: make ros")


@pytest.mark.parametrize("option", ["--rate", "--delay", "--start", "--duration"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_odd_numbers_are_refused(option: str, value: str, graph: Graph, tmp_path: Path) -> None:
    assert option in refused(graph, tmp_path, option, value)
