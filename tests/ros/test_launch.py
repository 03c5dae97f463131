"""The launch files: what they name exists, and they start and end the real node.

The latter needs launch_ros, which an installation of ROS 2 has and PyPI does not.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vo_stream.config import settings
from vo_stream.demo.world import START_NS, render_demo
from vo_stream.messages import stamp_ns_of
from vo_stream.replay.writers import IMAGE_TOPIC, write_ros2_bag
from vo_stream.values import NANOSECONDS

if TYPE_CHECKING:
    from graph import Graph, Process

ROOT = Path(__file__).resolve().parents[2]
NODE_FILE = ROOT / "launch" / "vo_stream.launch.py"
REPLAY_FILE = ROOT / "launch" / "replay.launch.py"
FILES = sorted((ROOT / "launch").glob("*.launch.py"))

FRAMES, FPS = 20, 20

RUNNER = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
path, *arguments = sys.argv[1:]
service = LaunchService()
service.include_launch_description(IncludeLaunchDescription(
    PythonLaunchDescriptionSource(path),
    launch_arguments=[argument.split(":=", 1) for argument in arguments],
))
sys.exit(service.run())
"""
"""What `ros2 launch` does, without ros2cli."""

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def calls(path: Path, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node


def declared(path: Path) -> set[str]:
    names = [ast.literal_eval(call.args[0]) for call in calls(path, "DeclareLaunchArgument")]
    assert len(names) == len(set(names))
    return set(names)


def constant(path: Path, name: str) -> Any:
    (value,) = [
        node.value
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return ast.literal_eval(value)


def test_the_launch_files_are_found() -> None:
    assert {NODE_FILE, REPLAY_FILE} < set(FILES)


@each_file
def test_a_launch_file_compiles(path: Path) -> None:
    compile(path.read_text(encoding="utf-8"), str(path), "exec")


@each_file
def test_every_argument_is_described_and_in_the_usage(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    usage = set(re.findall(r"(\w+):=", docstring)) - {"ARGUMENT"}
    assert usage == declared(path)
    for call in calls(path, "DeclareLaunchArgument"):
        assert any(keyword.arg == "description" for keyword in call.keywords)


@each_file
def test_only_declared_arguments_are_read(path: Path) -> None:
    calls_with_text = [
        call.args[0].value
        for name in ("LaunchConfiguration", "given")
        for call in calls(path, name)
        if isinstance(call.args[0], ast.Constant)
    ]
    assert calls_with_text
    assert set(calls_with_text) <= declared(path)


@each_file
def test_the_commands_are_installed(path: Path) -> None:
    scripts = re.findall(r'"([\w-]+) = vo_stream', (ROOT / "setup.py").read_text(encoding="utf-8"))
    names = {ast.literal_eval(call.args[0]) for call in calls(path, "_command") if call.args}
    assert names <= set(scripts)


def test_the_parameters_are_settings_of_the_node() -> None:
    parameters = constant(NODE_FILE, "PARAMETERS")
    assert set(parameters) <= declared(NODE_FILE)
    assert set(parameters.values()) - {"use_sim_time"} <= {setting.key for setting in settings()}


def test_replay_hands_the_node_arguments_it_has() -> None:
    (include,) = calls(REPLAY_FILE, "IncludeLaunchDescription")
    (handed,) = (node for node in ast.walk(include) if isinstance(node, ast.Dict))
    names = ast.literal_eval(handed)
    assert set(names) <= declared(NODE_FILE)
    assert not declared(NODE_FILE) & declared(REPLAY_FILE)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An installation of the package as colcon lays it out; its code is what is tested here."""
    if find_spec("launch_ros") is None:
        pytest.skip("needs launch_ros")
    prefix = tmp_path / "install"
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "vo_stream").touch()
    for folder in ("config", "launch"):
        shutil.copytree(ROOT / folder, prefix / "share" / "vo_stream" / folder)
    commands = prefix / "lib" / "vo_stream"
    commands.mkdir(parents=True)
    for name, module in (("vo_stream_node", "vo_stream.ros.main"), ("vo-stream", "vo_stream.cli")):
        script = f"#!{sys.executable}\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
        (commands / name).write_text(script, encoding="utf-8")
        (commands / name).chmod(0o755)
    return prefix


def launch(graph: Graph, prefix: Path, file: Path, *arguments: str, **environment: str) -> Process:
    prefixes = os.pathsep.join([str(prefix), os.environ.get("AMENT_PREFIX_PATH", "")])
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    installed = prefix / "share" / "vo_stream" / "launch" / file.name
    command = [sys.executable, "-c", RUNNER, installed, *arguments]
    return graph.start(*command, AMENT_PREFIX_PATH=prefixes, PYTHONPATH=paths, **environment)


def parameter(graph: Graph, node: str, name: str) -> Any:
    from rcl_interfaces.srv import GetParameters
    from rclpy.parameter import parameter_value_to_python

    request = GetParameters.Request(names=[name])
    response = graph.call(GetParameters, f"{node}/get_parameters", request)
    return parameter_value_to_python(response.values[0])


def node_environment(prefix: Path) -> dict[str, str]:
    """Return the environment of the process that runs this prefix's node."""
    program = str(prefix / "lib" / "vo_stream" / "vo_stream_node").encode()
    (found,) = [
        process
        for process in Path("/proc").glob("[0-9]*")
        if program in (process / "cmdline").read_bytes().split(b"\0")
    ]
    entries = (found / "environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"


def test_the_node_comes_up_as_asked_and_ends_on_sigint(graph: Graph, prefix: Path) -> None:
    asked = ["namespace:=robot", "image:=/cam/image_raw", "mount:=forward", "adjust:=false"]
    process = launch(graph, prefix, NODE_FILE, *asked)
    node = "/robot/vo_stream"
    graph.spin_until(lambda: graph.state(node) == "active")
    graph.spin_until(lambda: graph.node.count_subscribers("/cam/image_raw"))
    assert graph.node.count_subscribers("/cam/camera_info") == 1
    assert parameter(graph, node, "adjust.enabled") is False
    assert parameter(graph, node, "input.drop_stale") is True
    assert parameter(graph, node, "frames.mount") == "forward"
    assert parameter(graph, node, "use_sim_time") is False
    assert node_environment(prefix)[PROFILE].endswith("share/vo_stream/config/fastdds_shm.xml")
    process.interrupt()
    assert "process has finished cleanly" in process.output()


def test_what_is_left_empty_stays_as_the_file_says(graph: Graph, prefix: Path) -> None:
    file = graph.folder / "mine.yaml"
    file.write_text("/**: {ros__parameters: {adjust: {enabled: false}, frames: {odom: o}}}\n")
    asked = [f"params_file:={file}", "autostart:=false", "dds_profile:=", "use_sim_time:=true"]
    launch(graph, prefix, NODE_FILE, *asked)
    assert parameter(graph, "/vo_stream", "adjust.enabled") is False
    assert parameter(graph, "/vo_stream", "frames.odom") == "o"
    assert parameter(graph, "/vo_stream", "use_sim_time") is True
    assert graph.state() == "unconfigured"
    assert PROFILE not in node_environment(prefix)


def test_the_users_own_dds_profile_goes_first(graph: Graph, prefix: Path) -> None:
    own = shutil.copy(ROOT / "config" / "fastdds_shm.xml", graph.folder / "own.xml")
    launch(graph, prefix, NODE_FILE, "adjust:=false", **{PROFILE: str(own)})
    graph.spin_until(lambda: graph.state() == "active")
    assert node_environment(prefix)[PROFILE] == str(own)


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    path = tmp_path / "room"
    write_ros2_bag(path, render_demo("room", seconds=FRAMES / FPS, fps=FPS, size=(160, 120)))
    return path


def test_a_bag_is_played_to_its_end_without_a_drop(graph: Graph, prefix: Path, bag: Path) -> None:
    from nav_msgs.msg import Odometry

    stamps: list[int] = []

    def on_odometry(message: Any) -> None:
        stamps.append(stamp_ns_of(message))

    graph.node.create_subscription(Odometry, "/vo_stream/odometry", on_odometry, 100)
    asked = [f"bag:={bag}", f"image:={IMAGE_TOPIC}", "mount:=forward", "adjust:=false"]
    process = launch(graph, prefix, REPLAY_FILE, *asked, "rate:=2.0", "use_sim_time:=true")
    graph.spin_until(lambda: process.popen.poll() is not None, timeout_s=60.0)
    assert process.popen.returncode == 0, process.output()
    due = [(START_NS + i * NANOSECONDS // FPS) for i in range(FRAMES)]
    # What comes before the calibration cannot be used, and in the bag that is the first image.
    assert stamps in (due, due[1:]), process.output()


def test_a_replay_ends_on_sigint(graph: Graph, prefix: Path, bag: Path) -> None:
    asked = [f"bag:={bag}", f"image:={IMAGE_TOPIC}", "mount:=forward", "loop:=true"]
    process = launch(graph, prefix, REPLAY_FILE, *asked)
    graph.spin_until(lambda: graph.node.count_publishers("/vo_stream/odometry"))
    graph.spin_until(lambda: graph.node.count_publishers(IMAGE_TOPIC))
    graph.spin(1.0)
    process.interrupt()
    assert process.output().count("process has finished cleanly") == 2
