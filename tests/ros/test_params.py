"""The settings as parameters of real nodes, set from another node and given to the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rclpy
from graph import Graph
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image

from vo_stream.config import NOT_FOR_THE_NODE, Config, settings
from vo_stream.errors import ConfigError
from vo_stream.ros.params import WHEN, Parameters, declare, read
from vo_stream.setting import AT_START

CONFIG_FILES = sorted(Path(__file__).parents[2].glob("config/*.yaml"))
TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
}


class Robot:
    """A lifecycle node with the settings as its parameters, in the tester's graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.configured = False
        self.changes: list[Config] = []
        self.node = LifecycleNode("vo_stream", context=graph.context)
        self.parameters = Parameters(self.node, lambda: self.configured, self.changed)
        graph.executor.add_node(self.node)

    def changed(self, config: Config) -> None:
        assert config == self.parameters.config(), "told before it was set"
        self.changes.append(config)

    def set(self, **values: object) -> list[str]:
        """Set parameters one by one over the graph; return the reasons, empty where accepted."""
        request = SetParameters.Request(parameters=messages(values))
        results = self.graph.call(SetParameters, "/vo_stream/set_parameters", request).results
        assert all(result.successful != bool(result.reason) for result in results)
        return [result.reason for result in results]

    def set_together(self, **values: object) -> str:
        """Set parameters atomically over the graph; return the reason, empty where accepted."""
        request = SetParametersAtomically.Request(parameters=messages(values))
        name = "/vo_stream/set_parameters_atomically"
        result = self.graph.call(SetParametersAtomically, name, request).result
        assert result.successful != bool(result.reason)
        return str(result.reason)


def messages(values: dict[str, object]) -> list[Any]:
    """Return parameter messages; dots are written as two underscores."""
    return [
        Parameter(name.replace("__", "."), value=value).to_parameter_msg()
        for name, value in values.items()
    ]


@pytest.fixture
def robot(graph: Graph) -> Iterator[Robot]:
    robot = Robot(graph)
    yield robot
    graph.executor.remove_node(robot.node)
    robot.node.destroy_node()


def test_parameters_describe_what_settings_say(robot: Robot) -> None:
    expected = {s.key: s for s in settings(but=NOT_FOR_THE_NODE)}
    request = ListParameters.Request()
    names = robot.graph.call(ListParameters, "/vo_stream/list_parameters", request).result.names
    assert [name for name in names if name in expected] == list(expected)
    assert not [name for name in names if name.startswith("replay.")]
    describe = DescribeParameters.Request(names=list(expected))
    name = "/vo_stream/describe_parameters"
    descriptors = robot.graph.call(DescribeParameters, name, describe).descriptors
    for setting, descriptor in zip(expected.values(), descriptors, strict=True):
        assert descriptor.name == setting.key
        assert descriptor.type == TYPES[setting.type]
        assert not descriptor.dynamic_typing
        assert descriptor.description.startswith(setting.help)
        assert (f"Unit: {setting.unit}." in descriptor.description) == bool(setting.unit)
        assert descriptor.description.endswith(WHEN[setting.taken])
        assert descriptor.read_only == (setting.taken == AT_START)
        ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
        if setting.minimum is None:
            assert not ranges
        else:
            (limits,) = ranges
            ends = (setting.minimum, setting.maximum)
            assert (limits.from_value, limits.to_value, limits.step) == (*ends, 0)
            assert bool(descriptor.integer_range) == (setting.type is int)
        assert all(choice in descriptor.additional_constraints for choice in setting.choices)
    read_only = [d.name for d in descriptors if d.read_only]
    assert read_only == ["node.autostart"]


def test_the_defaults_are_those_of_the_tree(robot: Robot) -> None:
    assert robot.parameters.config() == Config()


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("geometric__corners", 20, ["geometric.corners", "Min: 50, Max: 2000"]),
        ("track__max_gap_s", 60.5, ["track.max_gap_s", "Min: 0.05, Max: 60.0"]),
        ("track__max_gap_s", float("nan"), ["track.max_gap_s", "Min: 0.05, Max: 60.0"]),
        ("track__max_gap_s", 60.00003, ["/vo_stream: track.max_gap_s", "from 0.05 to 60 s"]),
        ("track__max_gap_s", 90, ["track.max_gap_s", "Min: 0.05, Max: 60.0"]),
        ("track__max_gap_s", "many", ["Wrong parameter type", "DOUBLE", "STRING"]),
        ("track__max_gap_s", [1.0], ["Wrong parameter type", "DOUBLE"]),
        ("track__max_gap_s", None, ["Static parameter cannot be undeclared"]),
        ("geometric__corners", 200.5, ["Wrong parameter type", "INTEGER", "DOUBLE"]),
        ("camera__rectified", 1, ["Wrong parameter type", "BOOL", "INTEGER"]),
        ("net__backend", "best", ["net.backend: 'best' is not one of auto, tensorrt, torch, onn"]),
        ("node__autostart", True, ["read-only", "node.autostart"]),
        ("net__nothing", 1, ["undeclared parameter"]),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_reason(
    key: str, value: object, parts: list[str], robot: Robot
) -> None:
    (reason,) = robot.set(**{key: value})
    assert "\n" not in reason
    for part in parts:
        assert part in reason
    assert robot.parameters.config() == Config()


def test_a_whole_number_is_taken_for_any_other_and_the_ends_of_a_range_too(robot: Robot) -> None:
    reasons = robot.set(track__max_gap_s=60, track__max_coast_s=0.3, geometric__corners=2000)
    assert reasons == [""] * 3
    expected = {"track.max_gap_s": 60.0, "track.max_coast_s": 0.3, "geometric.corners": 2000}
    assert robot.parameters.config() == Config().replaced(expected)
    get = GetParameters.Request(names=list(expected))
    values = robot.graph.call(GetParameters, "/vo_stream/get_parameters", get).values
    assert [v.type for v in values] == [TYPES[type(value)] for value in expected.values()]


def test_while_unconfigured_everything_may_be_set_and_nobody_is_told(robot: Robot) -> None:
    assert robot.set(net__backend="geometric", track__max_gap_s=2.0) == ["", ""]
    # One after the other, though the first is of no use without the second.
    assert robot.set(scale__source="camera_height", scale__camera_height_m=1.2) == ["", ""]
    scale = robot.parameters.config().scale
    assert (scale.source, scale.camera_height_m) == ("camera_height", 1.2)
    assert robot.changes == []


def test_while_configured_only_what_is_taken_at_once_may_change(robot: Robot) -> None:
    robot.configured = True
    reasons = robot.set(net__backend="geometric", track__max_gap_s=2, publish__path=False)
    assert reasons == [
        "net.backend is taken when the node is configured: deactivate and clean up first",
        "",
        "",
    ]
    one = Config().replaced({"track.max_gap_s": 2.0})
    assert robot.changes == [one, one.replaced({"publish.path": False})]
    robot.configured = False
    assert robot.set(net__backend="geometric") == [""]
    assert len(robot.changes) == 2


def test_while_configured_what_is_so_already_may_be_said_again(robot: Robot) -> None:
    robot.configured = True
    assert robot.set(net__backend="auto", geometric__corners=500) == ["", ""]


def test_a_set_of_several_is_taken_whole_or_not_at_all(robot: Robot) -> None:
    robot.configured = True
    assert robot.set_together(track__max_gap_s=2, net__backend="geometric").startswith("net.backen")
    assert robot.set_together(track__max_gap_s=2, track__max_coast_s=9.0)
    assert robot.set_together(track__max_gap_s=2, nothing=1)
    assert robot.parameters.config() == Config()
    assert robot.changes == []
    assert robot.set_together(track__max_gap_s=2, node__wait_s=1) == ""
    expected = Config().replaced({"track.max_gap_s": 2.0, "node.wait_s": 1.0})
    assert robot.changes == [expected]


def test_parameters_that_are_no_settings_are_left_to_whom_they_belong(robot: Robot) -> None:
    robot.configured = True
    assert robot.set(use_sim_time=True) == [""]
    assert robot.node.get_parameter("use_sim_time").value is True
    robot.node.declare_parameter("qos_overrides./image.subscription.depth", 5)
    assert robot.changes == []


@contextmanager
def started(graph: Graph, *arguments: object, namespace: str = "") -> Iterator[LifecycleNode]:
    """Yield a node of a process that was given these ROS arguments."""
    context = Context()
    given = ["--ros-args", *map(str, arguments)]
    rclpy.init(args=given, context=context, domain_id=graph.domain)
    try:
        node = LifecycleNode("vo_stream", namespace=namespace, context=context)
        yield node
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def given(graph: Graph, *arguments: object, namespace: str = "") -> Config:
    with started(graph, *arguments, namespace=namespace) as node:
        declare(node)
        return read(node)


def written(graph: Graph, text: str) -> Path:
    path = graph.folder / "robot.yaml"
    path.write_text(text, encoding="utf-8")
    return path


TREE = "{geometric: {corners: 200, epipolar_px: 2}, track.max_gap_s: 0.5, net.backend: geometric}"
EXPECTED = Config().replaced(
    {
        "geometric.corners": 200,
        "geometric.epipolar_px": 2.0,
        "track.max_gap_s": 0.5,
        "net.backend": "geometric",
    }
)


@pytest.mark.parametrize(
    ("section", "namespace"),
    [
        ("/**", ""),
        ("/**", "/robot"),
        ("vo_stream", ""),
        ("/vo_stream", ""),
        ("/robot/vo_stream", "/robot"),
        ("/**/vo_stream", "/robot"),
    ],
)
def test_a_parameter_file_is_read_in_each_of_its_shapes(
    section: str, namespace: str, graph: Graph
) -> None:
    path = written(graph, f"{section}:\n  ros__parameters: {TREE}\n")
    assert given(graph, "--params-file", path, namespace=namespace) == EXPECTED


def test_of_a_file_for_two_nodes_ours_is_taken(
    graph: Graph, capfd: pytest.CaptureFixture[str]
) -> None:
    other = "driver:\n  ros__parameters: {frame_rate: 30, geometric: {corners: 100}}\n"
    path = written(graph, f"{other}vo_stream:\n  ros__parameters: {TREE}\n")
    assert given(graph, "--params-file", path) == EXPECTED
    assert capfd.readouterr().err == ""


def test_the_command_line_sets_parameters_too(graph: Graph) -> None:
    arguments = ["-p", "track.max_gap_s:=2", "-p", "net.backend:=geometric"]
    expected = Config().replaced({"track.max_gap_s": 2.0, "net.backend": "geometric"})
    with started(graph, *arguments) as node:
        declare(node)
        assert read(node) == expected
        assert node.get_parameter("track.max_gap_s").type_ == Parameter.Type.DOUBLE


@pytest.mark.parametrize("path", CONFIG_FILES, ids=[path.name for path in CONFIG_FILES])
def test_our_own_files_are_taken_without_a_word(
    path: Path, graph: Graph, capfd: pytest.CaptureFixture[str]
) -> None:
    given(graph, "--params-file", path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("track.max_gap_s:=many", "track.max_gap_s: 'many' is not a number from 0.05 to 60 s"),
        ("track.max_gap_s:=100", "track.max_gap_s: 100 is not a number from 0.05 to 60 s"),
        ("geometric.corners:=2.5", "geometric.corners: 2.5 is not a whole number from 50 to 2000"),
        (
            "geometric.corners:=[200]",
            "geometric.corners: [200] is not a whole number from 50 to 2000",
        ),
        ("camera.rectified:=1", "camera.rectified: 1 is not true or false"),
        ("frames.odom:=3", "frames.odom: 3 is not a text"),
        (
            "net.backend:=best",
            "net.backend: 'best' is not one of auto, tensorrt, torch, onnxruntime, geometric",
        ),
        ("node.autostart:=maybe", "node.autostart: 'maybe' is not true or false"),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_is_allowed(
    argument: str, expected: str, graph: Graph
) -> None:
    with (
        started(graph, "-p", argument, namespace="/robot") as node,
        pytest.raises(ConfigError) as caught,
    ):
        declare(node)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"/robot/vo_stream: {argument.partition(':=')[0]}: ")
    assert message.endswith(expected)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("track.max_gap", "track.max_gap_s"),
        ("camera_height_m", "scale.camera_height_m"),
        ("replay.topc", "replay.topic"),
        ("foo.bar", ""),
    ],
)
def test_a_name_that_no_setting_has_is_warned_of(
    name: str, near: str, graph: Graph, capfd: pytest.CaptureFixture[str]
) -> None:
    assert given(graph, "-p", f"{name}:=1") == Config()
    (line,) = capfd.readouterr().err.splitlines()
    assert "[WARN]" in line
    assert f"no setting is called '{name}', it is ignored" in line
    assert (near in line) if near else line.endswith("ignored")


def test_what_a_shared_file_may_hold_is_not_warned_of(
    graph: Graph, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(
        graph,
        "/**:\n  ros__parameters:\n    use_sim_time: true\n    replay: {topic: /image}\n"
        "    start_type_description_service: false\n"
        "    qos_overrides: {/image: {subscription: {reliability: reliable, depth: 3}}}\n",
    )
    with started(graph, "--params-file", path) as node:
        parameters = Parameters(node, lambda: True, lambda _: pytest.fail("no setting changed"))
        assert parameters.config() == Config()
        overriding = QoSOverridingOptions.with_default_policies()
        image = node.create_subscription(
            Image, "/image", lambda _: None, 1, qos_overriding_options=overriding
        )
        profile = image.qos_profile
        assert (profile.depth, profile.reliability) == (3, ReliabilityPolicy.RELIABLE)
    assert capfd.readouterr().err == ""
