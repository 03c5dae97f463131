"""How the node fares, as one status: the worst that is known, and every count."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from camera import footage, image_message
from diagnostic_msgs.msg import DiagnosticStatus
from graph import Graph

from vo_stream.config import Config
from vo_stream.link.channel import NoLink
from vo_stream.net.backends import open_backend
from vo_stream.ros.diagnostics import Diagnostics, Parts
from vo_stream.ros.frames import FORWARD
from vo_stream.ros.inbox import Inbox
from vo_stream.ros.inputs import Inputs
from vo_stream.ros.mount import Mount
from vo_stream.ros.stream import Arrival, Stream
from vo_stream.ros.wheel import WheelDistance
from vo_stream.se3 import SE3
from vo_stream.track.odometer import Odometer
from vo_stream.values import NANOSECONDS, Estimate, Refinement, Status

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

FILM = footage(seconds=0.5)
LIMIT_S = 20.0


class Nowhere:
    """Outputs that keep nothing."""

    def publish_estimate(self, estimate: Estimate, base_from_camera: SE3, dt_s: float) -> None:
        pass

    def publish_refinement(self, refinement: Refinement, base_from_camera: SE3) -> None:
        pass


class Node:
    """The parts of an active node, and its diagnostics."""

    def __init__(self, graph: Graph) -> None:
        config = Config().replaced({"frames.mount": "forward", "net.backend": "geometric"})
        inbox = Inbox[Arrival](100, drop_stale=False)
        odometer = Odometer(open_backend(config), config.track)
        inputs = Inputs(graph.node, config, inbox, Mount(config.frames), WheelDistance(), {})
        stream = Stream(odometer, NoLink(), inbox, Nowhere(), lambda stamp_ns: math.nan)
        self.parts = Parts(inbox, inputs, stream)
        self.diagnostics = Diagnostics("robot")
        self.stream = stream
        stream.start()

    def show(self, number: int, encoding: str = "mono8") -> None:
        """Have the worker deal with an image."""
        frame = FILM.frames[number]
        message = image_message(frame.image, frame.stamp_ns, "camera")
        message.encoding = encoding
        due = self._done() + 1
        self.parts.inbox.put(Arrival(message, frame.camera, FORWARD, time.perf_counter()))
        end = time.monotonic() + LIMIT_S
        while self._done() < due:
            assert time.monotonic() < end
            time.sleep(0.001)

    def _done(self) -> int:
        return self.stream.published + sum(self.stream.refused.values())

    def status(self, missing: str = "", conflict: str = "", now_ns: int = 0) -> DiagnosticStatus:
        return self.diagnostics.status("active", "geometric", self.parts, missing, conflict, now_ns)


@pytest.fixture
def node(graph: Graph) -> Iterator[Node]:
    node = Node(graph)
    yield node
    node.parts.inputs.close()
    node.stream.stop()


def values(status: DiagnosticStatus) -> dict[str, str]:
    keys = [value.key for value in status.values]
    assert len(keys) == len(set(keys))
    return {value.key: value.value for value in status.values}


@pytest.mark.parametrize("lifecycle", ["unconfigured", "inactive"])
def test_without_work_nothing_is_wrong(lifecycle: str) -> None:
    status = Diagnostics("robot").status(lifecycle, "geometric", None, "", "", 0)
    assert (status.level, status.message) == (OK, lifecycle)
    assert status.name == "robot: visual odometry"
    assert values(status) == {"lifecycle": lifecycle, "backend": "geometric"}


def test_the_state_of_the_odometry_sets_the_level(node: Node) -> None:
    status = node.status()
    assert (status.level, status.message) == (WARN, "no image yet")
    node.show(0)
    status = node.status()
    assert (status.level, status.message) == (WARN, "initializing: first frame")
    node.show(1)
    status = node.status()
    assert (status.level, status.message) == (OK, "tracking")
    assert values(status)["odometry messages"] == "2"


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (Status.INITIALIZING, WARN),
        (Status.TRACKING, OK),
        (Status.DEGRADED, WARN),
        (Status.LOST, ERROR),
    ],
)
@pytest.mark.parametrize("reason", ["", "too dark"])
def test_every_state_has_a_level(node: Node, state: Status, level: bytes, reason: str) -> None:
    node.show(0)
    assert node.stream.last is not None
    node.stream.last = replace(node.stream.last, status=state, reason=reason)
    status = node.status()
    message = f"{state.value}: {reason}" if reason else state.value
    assert (status.level, status.message) == (level, message)


def test_a_refused_image_is_an_error_until_the_next_good_one(node: Node) -> None:
    node.show(0)
    node.show(1, encoding="mono9")
    status = node.status()
    assert status.level == ERROR
    assert status.message.startswith("the image is refused: unsupported encoding: 'mono9'")
    assert values(status)["left out: unsupported encoding"] == "1"
    assert values(status)["refused"] == "1"
    node.show(2)
    assert node.status().level == OK


def test_what_fails_outdoes_what_is_refused(node: Node) -> None:
    node.show(0, encoding="mono9")
    node.stream.failing = "NetError: out of memory"
    status = node.status()
    message = "images cannot be processed: NetError: out of memory"
    assert (status.level, status.message) == (ERROR, message)


def test_a_pause_is_told(node: Node) -> None:
    node.show(0)
    node.parts.inputs.paused = True
    status = node.status()
    assert (status.level, status.message) == (WARN, "paused")


@pytest.mark.parametrize(
    ("missing", "conflict", "level", "message"),
    [
        ("no images", "", ERROR, "no images"),
        ("", "two parents", WARN, "two parents"),
        ("no images", "two parents", ERROR, "no images"),
    ],
)
def test_what_is_missing_outdoes_all(
    node: Node, missing: str, conflict: str, level: bytes, message: str
) -> None:
    node.show(0)
    node.show(1)
    status = node.status(missing, conflict)
    assert (status.level, status.message) == (level, message)


def test_a_conflict_makes_nothing_better(node: Node) -> None:
    node.show(0, encoding="mono9")
    assert node.status(conflict="two parents").level == ERROR


def test_rates_are_those_since_the_last_status(node: Node) -> None:
    for number in range(5):
        node.show(number)
    assert float(values(node.status())["odometry rate (Hz)"]) > 0.0
    assert values(node.status())["odometry rate (Hz)"] == "0"
    node.show(5)
    assert float(values(node.status())["odometry rate (Hz)"]) > 0.0


def test_latencies_are_told(node: Node) -> None:
    assert values(node.status())["latency p50 (ms)"] == "nan"
    for number in range(3):
        node.show(number)
    told = values(node.status())
    assert 0.0 < float(told["latency p50 (ms)"]) <= float(told["latency p99 (ms)"])


@pytest.mark.parametrize(
    ("after_s", "told"), [(0.25, "0.25"), (59.0, "59"), (-1.0, None), (61.0, None), (1e9, None)]
)
def test_the_age_of_an_image_is_told_where_its_stamp_is_of_this_clock(
    node: Node, after_s: float, told: str | None
) -> None:
    node.show(0)
    now_ns = FILM.frames[0].stamp_ns + round(after_s * NANOSECONDS)
    assert values(node.status(now_ns=now_ns)).get("image age (s)") == told


def test_what_the_adjuster_found_is_told(node: Node) -> None:
    node.show(0)
    assert values(node.status())["adjuster"] == "off"
    assert "landmarks" not in values(node.status())
    assert node.stream.last is not None
    node.stream.refinement = Refinement(
        session=1,
        stamp_ns=node.stream.last.stamp_ns - NANOSECONDS // 2,
        map_from_odom=SE3.identity(),
        scale=1.5,
        scale_std=0.02,
        metric=True,
        scale_source="wheel",
        keyframes=(),
        landmarks=np.zeros((7, 3), dtype=np.float32),
        landmark_stds=np.zeros(7, dtype=np.float32),
    )
    told = values(node.status())
    assert [told[key] for key in ("scale std", "scale source", "landmarks", "window")] == [
        "0.02",
        "wheel",
        "7",
        "solved",
    ]
    assert (told["refined age (s)"], told["metric"]) == ("0.5", "no")
