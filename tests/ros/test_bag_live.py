"""A played bag through the live node gives the bytes that a replay of it gives."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import bags
import pytest
from bags import CAMERA_INFO_TOPIC, IMAGE_TOPIC, Message
from diagnostic_msgs.msg import DiagnosticArray
from graph import Graph, Process
from std_srvs.srv import Trigger

from vo_stream.values import NANOSECONDS, Frame

RECORDED = Path(__file__).parents[3] / "shared" / "data"

CLI = (sys.executable, "-m", "vo_stream.cli")

START_NS = 1000 * NANOSECONDS
"""Some sequences begin at 0, which in ROS means that there is no stamp."""

FOUND_S = 4.5
"""What the player waits: discovery takes up to 3 s where a first packet met nobody, and volatile
topics keep nothing for those who come late. The node starts meanwhile."""


class Played(NamedTuple):
    """A bag that went through a node. `values`: its last diagnostics."""

    trajectory: list[str]
    values: dict[str, str]
    node: Process


@cache
def room() -> tuple[Frame, ...]:
    """Return three seconds."""
    return tuple(bags.rendered_frames(seconds=3.0, fps=20.0, size=(320, 240)))


def recorded(name: str, limit: int) -> list[Frame]:
    if not (RECORDED / name).is_dir():
        pytest.skip(f"the recorded sequence {name} is not on this machine")
    frames = bags.recorded_frames(RECORDED / name, limit)
    return [replace(frame, stamp_ns=frame.stamp_ns + START_NS) for frame in frames]


def with_calibration_first(frames: Sequence[Frame], compressed: bool = False) -> list[Message]:
    before = frames[0].stamp_ns - NANOSECONDS // 2
    info = bags.message(CAMERA_INFO_TOPIC, before, bags.camera_info(frames[0]))
    return [info, *bags.camera_messages(frames, compressed)]


def poses(path: Path) -> list[str]:
    """Return the lines of a TUM file, without what is said of it."""
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def through_node(
    graph: Graph, bag: Path, rate: float, stopped_s: float = 0.0, **parameters: object
) -> Played:
    """Play a bag into a lossless node and have its trajectory saved when it has come to rest.

    `stopped_s`: for so long the node's process gets no time, from its first image on.
    """
    heard: list[dict[str, str]] = []

    def hear(message: Any) -> None:
        heard.append({value.key: value.value for value in message.status[0].values})

    def at_rest() -> bool:
        return (
            bool(heard) and heard[-1]["image rate (Hz)"] == heard[-1]["odometry rate (Hz)"] == "0"
        )

    player = graph.start(*CLI, "play", bag, "--rate", rate, "--delay", FOUND_S)
    node = graph.start_node(
        *("-r", f"image:={IMAGE_TOPIC}", "-r", f"camera_info:={CAMERA_INFO_TOPIC}"),
        node__autostart=True,
        input__drop_stale=False,
        adjust__enabled=False,
        frames__mount="forward",
        **parameters,
    )
    graph.node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
    if stopped_s:
        graph.spin_until(lambda: "tracking" in node.output())
        os.killpg(node.popen.pid, signal.SIGSTOP)
        graph.spin(stopped_s)
        os.killpg(node.popen.pid, signal.SIGCONT)
    graph.spin_until(lambda: player.popen.poll() is not None, 60.0)
    assert player.popen.returncode == 0, player.output()
    heard.clear()
    graph.spin_until(at_rest)
    saved = graph.call(Trigger, "/vo_stream/save_trajectory")
    assert saved.success, saved.message + graph.said()
    return Played(poses(graph.folder / "trajectory.tum"), heard[-1], node)


def check_identical(
    graph: Graph,
    messages: Iterable[Message],
    rate: float,
    stopped_s: float = 0.0,
    net: str = "geometric",
    **parameters: object,
) -> None:
    bag, replayed = bags.write_bag(graph.folder / "bag", messages), graph.folder / "replayed"
    replay = graph.start(*CLI, "replay", bag, "--net", net, "--no-adjust", "--out", replayed)
    played = through_node(graph, bag, rate, stopped_s, net__backend=net, **parameters)
    assert replay.popen.wait(60) == 0, replay.output()
    expected = poses(replayed / "live.tum")
    counts = [played.values[key] for key in ("images", "odometry messages")]
    assert counts == [str(len(expected))] * 2
    losses = [played.values[key] for key in ("dropped as stale", "refused")]
    assert losses == ["0", "0"]
    assert played.trajectory == expected


def test_a_recorded_sequence(graph: Graph) -> None:
    frames = recorded("kitti00_first200", 60)
    check_identical(graph, with_calibration_first(frames), rate=3.0)


def test_the_network(graph: Graph) -> None:
    check_identical(graph, with_calibration_first(room()[:30]), rate=0.5, net="onnxruntime")


def test_compressed_images_faster_than_they_can_be_worked_off(graph: Graph) -> None:
    """None is dropped, however long the queue before the node is."""
    messages = with_calibration_first(room(), compressed=True)
    check_identical(graph, messages, rate=20.0, input__transport="compressed", input__queue=2)


def test_a_node_that_is_held_up_for_a_second_misses_nothing(graph: Graph) -> None:
    check_identical(graph, with_calibration_first(room()), rate=1.0, stopped_s=1.0)


def test_the_first_image_waits_for_its_calibration(graph: Graph) -> None:
    """A driver may publish it after the image, and the two may overtake each other."""
    frames = room()[:20]
    info = bags.camera_info(frames[0])
    later = bags.message(CAMERA_INFO_TOPIC, frames[3].stamp_ns, info)
    images = [m for m in bags.camera_messages(frames) if m.topic == IMAGE_TOPIC]
    check_identical(graph, [*images[:3], later, *images[3:]], rate=1.0)


def test_a_best_effort_publisher_is_taken_as_it_is(graph: Graph) -> None:
    frames = room()[:30]
    best_effort = {IMAGE_TOPIC: [bags.qos(reliable=False)]}
    bag = bags.write_bag(graph.folder / "bag", with_calibration_first(frames), offered=best_effort)
    played = through_node(graph, bag, rate=1.0)
    assert len(played.trajectory) > len(frames) // 2
