"""tf2_msgs, which tools/build_tf2_msgs.py builds where ROS 2 comes from PyPI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from graph import Graph

TOOL = Path(__file__).resolve().parents[2] / "tools" / "build_tf2_msgs.py"

SENDER = """
import time
import rclpy
from geometry_msgs.msg import TransformStamped
from tf2_msgs.msg import TFMessage

rclpy.init()
node = rclpy.create_node("sender")
publisher = node.create_publisher(TFMessage, "/tf", 10)
while publisher.get_subscription_count() == 0:
    time.sleep(0.01)
for number in range(3):
    transform = TransformStamped(child_frame_id="child")
    transform.header.frame_id = "parent"
    transform.header.stamp.nanosec = 999_999_999
    transform.transform.translation.x = 0.1 * number
    publisher.publish(TFMessage(transforms=[transform] * number))
publisher.wait_for_all_acked()
"""


@pytest.fixture
def tf_message() -> Any:
    return pytest.importorskip("tf2_msgs.msg", reason="needs a built tf2_msgs").TFMessage


def test_it_goes_to_another_process_that_has_no_variable_of_ros(
    graph: Graph, tf_message: Any
) -> None:
    heard: list[Any] = []
    graph.node.create_subscription(tf_message, "/tf", heard.append, 10)
    variables = {
        "HOME": graph.folder,
        "ROS_DOMAIN_ID": graph.domain,
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    bare = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
    sender = graph.start(*bare, sys.executable, "-c", SENDER)
    graph.spin_until(lambda: len(heard) == 3)
    for number, message in enumerate(heard):
        assert len(message.transforms) == number
        for transform in message.transforms:
            assert (transform.header.frame_id, transform.child_frame_id) == ("parent", "child")
            assert transform.header.stamp.nanosec == 999_999_999
            assert transform.transform.translation.x == 0.1 * number
    assert sender.popen.wait(20) == 0


def test_it_is_the_type_that_the_rest_of_ros_means(graph: Graph, tf_message: Any) -> None:
    """Nodes compare hashes of a type's description; rosbags has them from ROS's own files."""
    from rosbags.typesys import Stores, get_typestore

    graph.node.create_publisher(tf_message, "/tf", 10)
    (info,) = graph.node.get_publishers_info_by_topic("/tf")
    known = get_typestore(Stores.ROS2_JAZZY).hash_rihs01("tf2_msgs/msg/TFMessage")
    assert str(info.topic_type_hash) == known


def test_where_it_is_there_nothing_is_built(tf_message: Any) -> None:
    done = build()
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("lost", "environment", "said"),
    [
        ("rclpy", {}, "ROS 2"),
        ("rosidl_generator_py", {}, "pip install '.[ros]'"),
        ("tf2_msgs", {"CC": "no-such-compiler"}, "build-essential"),
        ("tf2_msgs", {"CXX": "no-such-compiler"}, "build-essential"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    lost: str, environment: dict[str, str], said: str
) -> None:
    done = build("tf2_msgs", lost, **environment)
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    assert "needs it for /tf" in line
    assert said in line


def test_a_build_that_fails_says_why() -> None:
    pytest.importorskip("rosidl_generator_py", reason="needs the generators of messages")
    done = build("tf2_msgs", CC="false")
    assert done.returncode == 1
    assert "CMake Error" in done.stdout
    assert "needs it for /tf" in done.stdout.splitlines()[-1]


def build(*lost: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the tool where some packages cannot be imported."""
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({lost!r}))\n"
        f"sys.argv = [{str(TOOL)!r}]\n"
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
