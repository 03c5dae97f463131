"""The files for RViz, Foxglove and Fast DDS fit the node that there is."""

from __future__ import annotations

import importlib
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml
from graph import Graph

from vo_stream.io_config import FramesConfig
from vo_stream.ros.diagnostics import Diagnostics
from vo_stream.ros.interface import NODE_NAME, PUBLISHED, SUBSCRIBED
from vo_stream.ros.outgoing import CLOUD_FIELDS
from vo_stream.ros.qos import profile

CONFIG = Path(__file__).resolve().parents[2] / "config"
FAST_DDS = CONFIG / "fastdds_shm.xml"


def resolved(name: str) -> str:
    """Return the full name of a topic, as the node in the root namespace asks for it."""
    return name if name.startswith("/") else "/" + name.replace("~", NODE_NAME)


TOPICS = {resolved(topic.name): topic for topic in (*SUBSCRIBED, *PUBLISHED)}


def rviz() -> dict[str, Any]:
    loaded = yaml.safe_load((CONFIG / "vo_stream.rviz").read_text(encoding="utf-8"))
    return dict(loaded["Visualization Manager"])


def foxglove() -> dict[str, Any]:
    return dict(json.loads((CONFIG / "foxglove.json").read_text(encoding="utf-8")))


SHOWN_BY = {
    "rviz_default_plugins/Odometry": "nav_msgs/msg/Odometry",
    "rviz_default_plugins/Path": "nav_msgs/msg/Path",
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
}
"""RViz's displays that have a topic, and the type they take."""


@pytest.mark.parametrize("kind", SHOWN_BY)
def test_rviz_subscribes_to_what_there_is(kind: str) -> None:
    (display,) = (d for d in rviz()["Displays"] if d["Class"] == kind)
    topic = TOPICS[display["Topic"]["Value"]]
    assert topic.type == SHOWN_BY[kind]
    qos = profile(topic.qos)
    assert display["Topic"]["Reliability Policy"] == words(qos.reliability.name)
    assert display["Topic"]["Durability Policy"] == words(qos.durability.name)
    assert display["Topic"]["Depth"] == qos.depth
    assert display["Enabled"] is display["Value"] is True


def words(policy: str) -> str:
    return policy.replace("_", " ").title()


def test_rviz_has_no_other_topic_and_names_the_nodes_frames() -> None:
    manager = rviz()
    assert {d["Class"] for d in manager["Displays"] if "Topic" in d} == set(SHOWN_BY)
    (cloud,) = (d for d in manager["Displays"] if "Channel Name" in d)
    assert cloud["Channel Name"] in CLOUD_FIELDS
    assert manager["Global Options"]["Fixed Frame"] == FramesConfig().map
    assert manager["Views"]["Current"]["Target Frame"] == FramesConfig().base


IN_3D = {"nav_msgs/msg/Odometry", "nav_msgs/msg/Path", "sensor_msgs/msg/PointCloud2"}


def test_foxglove_shows_what_there_is() -> None:
    panels = foxglove()["configById"]
    scene = panels["3D!vo_stream"]
    assert {TOPICS[name].type for name in scene["topics"]} == IN_3D
    assert scene["followTf"] == FramesConfig().map
    assert scene["topics"]["/vo_stream/landmarks"]["colorField"] in CLOUD_FIELDS
    image = TOPICS[panels["Image!vo_stream"]["imageMode"]["imageTopic"]]
    assert image.type == "sensor_msgs/msg/Image"


def test_foxglove_shows_the_nodes_diagnostics() -> None:
    panels = foxglove()["configById"]
    status = Diagnostics(NODE_NAME).status("active", "geometric", None, "", "", 0)
    for panel in ("DiagnosticSummary!vo_stream", "DiagnosticStatusPanel!vo_stream"):
        topic = TOPICS[panels[panel]["topicToRender"]]
        assert topic.type == "diagnostic_msgs/msg/DiagnosticArray"
    shown = panels["DiagnosticStatusPanel!vo_stream"]
    assert shown["selectedName"] == status.name
    assert shown["selectedHardwareId"] == status.hardware_id


@pytest.mark.parametrize(
    "value",
    [
        path["value"]
        for name, panel in foxglove()["configById"].items()
        if name.startswith("Plot!")
        for path in panel["paths"]
    ],
)
def test_foxglove_plots_numbers(value: str) -> None:
    name, *fields = value.split(".")
    package, _, message = TOPICS[name].type.split("/")
    number = getattr(importlib.import_module(f"{package}.msg"), message)()
    for field in fields:
        number = getattr(number, field)
    assert isinstance(number, float)


def test_every_foxglove_panel_has_its_place() -> None:
    def leaves(layout: Any) -> list[str]:
        if isinstance(layout, str):
            return [layout]
        assert layout["direction"] in ("row", "column")
        return leaves(layout["first"]) + leaves(layout["second"])

    loaded = foxglove()
    assert sorted(leaves(loaded["layout"])) == sorted(loaded["configById"])


def test_fast_dds_uses_each_transport_that_is_described() -> None:
    spaces = {"": "http://www.eprosima.com"}
    root = ET.parse(FAST_DDS).getroot()
    described = [e.text for e in root.findall(".//transport_descriptor/transport_id", spaces)]
    used = [e.text for e in root.findall(".//userTransports/transport_id", spaces)]
    assert described == used != []
    types = [e.text for e in root.findall(".//transport_descriptor/type", spaces)]
    assert types == ["SHM", "UDPv4"]


IMAGES = 60

SENDER = f"""
import time
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("sender", start_parameter_services=False)
publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
while not publisher.get_subscription_count():
    time.sleep(0.05)
time.sleep(0.5)
for _ in range({IMAGES}):
    publisher.publish(Image(width=1280, height=720, step=3840, data=bytes(3840 * 720)))
    time.sleep(1 / 30)
print("sent", flush=True)
time.sleep(60)
"""

RECEIVER = """
from contextlib import suppress
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("receiver", start_parameter_services=False)
heard = lambda image: print("received", len(image.data), flush=True)
node.create_subscription(Image, "image", heard, qos_profile_sensor_data)
with suppress(rclpy.executors.ExternalShutdownException):
    rclpy.spin(node)
"""


@pytest.mark.parametrize("receiver_too", [True, False])
def test_fast_dds_brings_large_best_effort_images(graph: Graph, receiver_too: bool) -> None:
    environment = {"FASTRTPS_DEFAULT_PROFILES_FILE": str(FAST_DDS)}
    others = environment if receiver_too else {}
    receiver = graph.start(sys.executable, "-c", RECEIVER, **others)
    sender = graph.start(sys.executable, "-c", SENDER, **environment)
    graph.spin_until(lambda: "sent" in sender.output(), timeout_s=60.0)
    graph.spin(1.0)
    received = len(re.findall(f"received {3840 * 720}", receiver.output()))
    # Without the file a quarter at most.
    assert received > 2 * IMAGES // 3, graph.said()
    assert "XMLPARSER" not in graph.said()
