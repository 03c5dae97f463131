"""The node heard with another DDS than its own: what it sends is ROS 2's wire format."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from camera import Camera, footage
from graph import Graph, Process
from heard import EVERYTHING, Heard
from nav_msgs.msg import Odometry

from vo_stream.messages import stamp_ns_of

APART = Path(__file__).resolve().parents[2] / ".venv" / "cyclonedds"
"""An environment of its own: its libraries are not ROS's."""

LISTENER = Path(__file__).with_name("cyclone_listener.py")

ODOMETRY, TRANSFORMS = "/vo_stream/odometry", "/tf"

IMAGES = 20

MOST_IMAGES = 300
"""Until the listener has found the node, which takes a second or two."""

THIS_COMPUTER_ONLY = """
<CycloneDDS><Domain>
  <General>
    <Interfaces><NetworkInterface name="lo"/></Interfaces><AllowMulticast>false</AllowMulticast>
  </General>
  <Discovery>
    <ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>30</MaxAutoParticipantIndex>
    <Peers><Peer address="localhost"/></Peers>
  </Discovery>
</Domain></CycloneDDS>
"""
"""Discovery as ROS does it with that range: no multicast."""

pytestmark = pytest.mark.skipif(
    not (APART / "installed").exists(), reason="needs .venv/cyclonedds, which make test makes"
)


def listening(graph: Graph) -> Process:
    """Start the listener with none of the libraries that ROS's wheels bring."""
    unset = ("-u", "LD_LIBRARY_PATH", "-u", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    command = (
        "env",
        *unset,
        APART / "bin" / "python",
        LISTENER,
        graph.domain,
        ODOMETRY,
        TRANSFORMS,
    )
    return graph.start(*command, CYCLONEDDS_URI=THIS_COMPUTER_ONLY)


def heard_by(listener: Process, topic: str) -> list[list[Any]]:
    """Return stamps, frames and numbers of each message on a topic."""
    *lines, _ = listener.output().split("\n")  # the last one may not be whole
    messages = [json.loads(line) for line in lines if line.startswith("[")]
    return [rest for name, *rest in messages if name == topic]


def heard_up_to(listener: Process, topic: str, stamp_ns: int) -> bool:
    return bool(heard_by(listener, topic)[-1][0][0] >= stamp_ns)


def numbers(odometry: Odometry) -> list[float]:
    pose, twist = odometry.pose, odometry.twist
    p, q, v, w = pose.pose.position, pose.pose.orientation, twist.twist.linear, twist.twist.angular
    return [
        *(p.x, p.y, p.z, q.x, q.y, q.z, q.w, *pose.covariance),
        *(v.x, v.y, v.z, w.x, w.y, w.z, *twist.covariance),
    ]


def test_another_dds_hears_the_same(graph: Graph) -> None:
    camera = Camera(graph, footage("room", 3.0, (240, 180)), qos=EVERYTHING)
    heard, listener = Heard(graph), listening(graph)
    graph.start_node(node__autostart=True, input__drop_stale=False, frames__mount="forward")
    camera.wait_for_reader()
    while not (heard_by(listener, ODOMETRY) and heard_by(listener, TRANSFORMS)):
        assert camera.shown < MOST_IMAGES, graph.said()
        camera.stream(1)
    sent_ns = camera.stream(IMAGES)
    heard.wait_for_stamp(sent_ns[-1])
    for topic in (ODOMETRY, TRANSFORMS):
        graph.spin_until(partial(heard_up_to, listener, topic, sent_ns[-1]))
    by_stamp = {stamp_ns_of(odometry): odometry for odometry in heard.odometry}

    odometry_heard, transforms_heard = (
        [m for m in heard_by(listener, topic) if m[0][0] >= sent_ns[0]]
        for topic in (ODOMETRY, TRANSFORMS)
    )
    assert len(odometry_heard) == len(transforms_heard) == IMAGES
    for sent, (stamps_ns, frames, values) in zip(sent_ns, odometry_heard, strict=True):
        assert stamps_ns == [sent]
        assert frames == [["odom", "base_link"]]
        assert values == numbers(by_stamp[sent])
    for sent, (stamps_ns, frames, values) in zip(sent_ns, transforms_heard, strict=True):
        assert stamps_ns == [sent, sent]
        assert frames == [["odom", "base_link"], ["map", "odom"]]
        assert values[:7] == numbers(by_stamp[sent])[:7]
        assert len(values) == 2 * 7
