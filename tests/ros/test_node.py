"""The node in a process of its own, driven through its services as an operator would."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from camera import Camera, footage
from graph import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, Graph, Process
from heard import EVERYTHING, Heard, covariance_of, graph_apart, pose_of, values_of
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from vo_stream.messages import stamp_ns_of
from vo_stream.replay.trajectory import read_tum
from vo_stream.ros.frames import FORWARD, moved_to_base
from vo_stream.se3 import SE3
from vo_stream.values import NANOSECONDS

ENDS_WITHIN_S = 10.0
"""Generous: it takes tenths of a second."""

WARM_UP = 10
"""Images until the node has found its way."""

ROOM = ("room", 3.0, (240, 180))

UNKNOWN = 200
"""No transition has this number."""

REST = 20
"""Images until standing still counts as rest, and some more."""

RATE_HZ = 40.0
"""Twice that at which the images are stamped."""


def started(graph: Graph, **parameters: object) -> tuple[Process, Camera, Heard]:
    """Start a node that loses no image, a camera that it is ready for, and one who listens."""
    heard, camera = Heard(graph), Camera(graph, footage(*ROOM), qos=EVERYTHING)
    given = {"input__drop_stale": False, **parameters}
    process = graph.start_node(frames__mount="forward", node__autostart=True, **given)
    camera.wait_for_reader()
    return process, camera, heard


def driven(camera: Camera, heard: Heard, count: int = WARM_UP) -> SE3:
    """Drive on for some images, and return where that has led to."""
    heard.wait_for_stamp(camera.stream(count, RATE_HZ)[-1])
    return pose_of(heard.odometry[-1])


def answer(graph: Graph, service: str) -> tuple[bool, str]:
    response = graph.call(Trigger, f"/vo_stream/{service}")
    return response.success, response.message


def set_parameters(graph: Graph, **values: object) -> str:
    """Set parameters whose dots are written as two underscores; return why not, or nothing."""
    request = SetParametersAtomically.Request(
        parameters=[
            Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
    )
    result = graph.call(
        SetParametersAtomically, "/vo_stream/set_parameters_atomically", request
    ).result
    assert result.successful or result.reason
    return str(result.reason)


def processes() -> Iterator[tuple[int, int, str]]:
    """Yield number, parent's number and command of every process that runs."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended meanwhile
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state != "Z":
            yield int(folder.name), int(parent), command


def child(pid: int) -> int | None:
    """Return the number of a process's only child; None where there is none."""
    found = [number for number, parent, _ in processes() if parent == pid]
    assert len(found) <= 1
    return found[0] if found else None


def node_of(process: Process) -> int:
    """Return the number of the node's own process, below `timeout`."""
    pid = child(process.popen.pid)
    assert pid is not None
    return pid


def adjuster_of(graph: Graph, process: Process) -> int:
    """Return the number of the adjuster's process."""
    graph.spin_until(lambda: child(node_of(process)) is not None)
    pid = child(node_of(process))
    assert pid is not None
    return pid


def runs(pid: int) -> bool:
    return any(number == pid for number, _, _ in processes())


def errors(process: Process) -> list[str]:
    """Return the lines that are not just information."""
    return [line for line in process.output().splitlines() if not line.startswith("[INFO]")]


def test_its_life_by_services(graph: Graph) -> None:
    heard, camera = Heard(graph), Camera(graph, footage(*ROOM))
    process = graph.start_node(frames__mount="forward")
    assert graph.state() == "unconfigured"
    assert heard.next_diagnostics().message == "unconfigured"
    for service in ("reset", "save_trajectory"):
        assert answer(graph, service) == (False, "the node is not configured")
    assert child(node_of(process)) is None

    assert graph.change_state(CONFIGURE)
    assert graph.state() == "inactive"
    adjuster = adjuster_of(graph, process)
    assert answer(graph, "save_trajectory") == (False, "there is no pose yet")
    for service in ("pause", "resume"):
        assert answer(graph, service) == (False, "the node is not active")
    assert graph.node.count_subscribers("/image") == 0

    assert graph.change_state(ACTIVATE)
    assert graph.state() == "active"
    camera.wait_for_reader()
    driven(camera, heard)
    assert values_of(heard.next_diagnostics())["lifecycle"] == "active"

    assert graph.change_state(DEACTIVATE)
    assert graph.state() == "inactive"
    graph.spin_until(lambda: graph.node.count_subscribers("/image") == 0)
    there = len(heard.odometry)
    camera.stream(5, RATE_HZ)
    assert len(heard.odometry) == there
    assert runs(adjuster)

    assert graph.change_state(CLEANUP)
    assert graph.state() == "unconfigured"
    assert not runs(adjuster)
    graph.spin_until(lambda: graph.node.count_publishers("/vo_stream/odometry") == 0)

    assert graph.change_state(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert graph.state() == "finalized"
    assert errors(process) == []


@pytest.mark.parametrize(
    ("state", "shutdown"),
    [
        ("inactive", Transition.TRANSITION_INACTIVE_SHUTDOWN),
        ("active", Transition.TRANSITION_ACTIVE_SHUTDOWN),
    ],
)
def test_shutdown_ends_what_there_is(graph: Graph, state: str, shutdown: int) -> None:
    process = graph.start_node(frames__mount="forward")
    assert graph.change_state(CONFIGURE)
    assert state == "inactive" or graph.change_state(ACTIVATE)
    adjuster = adjuster_of(graph, process)
    assert graph.change_state(shutdown)
    assert graph.state() == "finalized"
    assert not runs(adjuster)
    assert errors(process) == []


def test_a_message_that_rclpy_cannot_take_ends_nothing(graph: Graph) -> None:
    process, camera, heard = started(graph, use_sim_time=True)
    clock = graph.node.create_publisher(Clock, "/clock", 10)
    graph.spin_until(clock.get_subscription_count)
    while "could not be dealt with: ValueError" not in process.output():
        clock.publish(Clock(clock=Time(sec=-1)))  # the first may come before they have met
        graph.spin(0.2)
    driven(camera, heard)


def test_paused_images_do_not_wait(graph: Graph) -> None:
    _, camera, heard = started(graph, input__queue=200)
    driven(camera, heard)
    camera.stream(30, 1000.0)
    assert answer(graph, "pause") == (True, "paused")
    there = len(heard.odometry)
    graph.spin(0.5)
    assert len(heard.odometry) <= there + 2  # what was at work


def test_a_transition_that_the_state_has_not_is_refused(graph: Graph) -> None:
    graph.start_node(frames__mount="forward")
    for transition in (ACTIVATE, DEACTIVATE, CLEANUP, UNKNOWN):
        assert not graph.change_state(transition)
        assert graph.state() == "unconfigured"
    assert graph.change_state(CONFIGURE)
    assert not graph.change_state(CONFIGURE)
    assert graph.state() == "inactive"


@pytest.mark.parametrize(
    ("given", "reason", "remedy"),
    [
        (
            {"scale__source": "camera_height"},
            "cannot configure: scale.source: camera_height needs to know the height; give "
            "scale.camera_height_m",
            {"scale__camera_height_m": 1.65},
        ),
        (
            {"scale__source": "wheel", "adjust__enabled": False},
            "cannot configure: scale.source: wheel needs the adjuster; let adjust.enabled be true "
            "or take another source",
            {"adjust__enabled": True},
        ),
        (
            {"link__endpoint": "tcp://192.0.2.1:5555"},
            "cannot configure: tcp://192.0.2.1:5555: a network needs keys; ",
            {"link__endpoint": ""},
        ),
    ],
)
def test_what_cannot_be_configured_is_one_line_and_can_be_mended(
    graph: Graph, given: dict[str, object], reason: str, remedy: dict[str, object]
) -> None:
    process = graph.start_node(frames__mount="forward", **given)
    assert not graph.change_state(CONFIGURE)
    assert graph.state() == "unconfigured"
    (line,) = errors(process)
    assert reason in line
    assert child(node_of(process)) is None
    assert set_parameters(graph, **remedy) == ""
    assert graph.change_state(CONFIGURE)
    assert graph.state() == "inactive"
    assert errors(process) == [line]


MISSING = "/nowhere/camera.yaml: cannot be read (No such file or directory)"


def test_what_cannot_be_activated_is_one_line_and_leaves_it_inactive(graph: Graph) -> None:
    process = graph.start_node(frames__mount="forward", camera__calibration_file=MISSING[:20])
    assert graph.change_state(CONFIGURE)
    for count in (1, 2):
        assert not graph.change_state(ACTIVATE)
        assert graph.state() == "inactive"
        assert len(errors(process)) == count
        assert f"cannot activate: {MISSING}" in errors(process)[-1]
    assert graph.node.count_subscribers("/image") == 0
    assert graph.change_state(CLEANUP)
    assert set_parameters(graph, camera__calibration_file="") == ""
    assert graph.change_state(CONFIGURE)
    assert graph.change_state(ACTIVATE)


def test_what_cannot_start_by_itself_ends_with_the_reason(graph: Graph) -> None:
    process = graph.start_node(node__autostart=True, camera__calibration_file=MISSING[:20])
    assert process.popen.wait(20.0) == 1
    (line,) = errors(process)
    assert f"cannot activate: {MISSING}" in line


def test_it_lives_many_times(graph: Graph) -> None:
    process, camera, heard = started(graph)
    driven(camera, heard)
    for transition in (DEACTIVATE, CLEANUP) + 5 * (CONFIGURE, ACTIVATE, DEACTIVATE, CLEANUP):
        assert graph.change_state(transition)
    graph.spin_until(lambda: child(node_of(process)) is None)
    graph.spin_until(lambda: graph.node.count_subscribers("/image") == 0)
    assert graph.change_state(CONFIGURE)
    assert graph.change_state(ACTIVATE)
    camera.wait_for_reader()
    there = len(heard.odometry)
    driven(camera, heard)
    assert len(heard.odometry) == there + WARM_UP
    np.testing.assert_array_equal(pose_of(heard.odometry[there]).log(), np.zeros(6))
    assert errors(process) == []


def test_the_pose_is_kept_while_it_is_inactive(graph: Graph) -> None:
    process, camera, heard = started(graph)
    held = driven(camera, heard)
    before = covariance_of(heard.odometry[-1].pose)
    assert graph.change_state(DEACTIVATE)
    graph.spin_until(lambda: graph.node.count_subscribers("/image") == 0)
    assert graph.change_state(ACTIVATE)
    camera.wait_for_reader()
    away_s = 2
    camera.later_ns = away_s * NANOSECONDS
    there = len(heard.odometry)
    driven(camera, heard, 4)
    first, *others = heard.odometry[there:]
    assert (held.inverse() @ pose_of(first)).angle < 1e-9
    np.testing.assert_allclose(pose_of(first).translation, held.translation, atol=1e-9)
    grown = covariance_of(first.pose) - before
    assert np.linalg.eigvalsh(grown).min() > 0.0
    # The parameter's 2 m/s; lengths of no known unit widen it further.
    assert np.sqrt(np.diag(grown)[:3]).min() > 2.0 * away_s
    assert len(others) == 3
    assert np.linalg.norm(pose_of(others[-1]).translation - held.translation) > 1e-3
    assert values_of(heard.next_diagnostics())["session"] == "1"
    assert errors(process) == []


def test_it_goes_on_without_an_adjuster_that_was_killed(graph: Graph) -> None:
    process, camera, heard = started(graph, input__drop_stale=True)
    driven(camera, heard, 20)
    first = adjuster_of(graph, process)
    os.kill(first, signal.SIGKILL)
    there = len(heard.odometry)
    driven(camera, heard, 20)
    assert len(heard.odometry) > there + 10
    graph.spin_until(lambda: values_of(heard.next_diagnostics())["adjuster restarts"] == "1")
    assert adjuster_of(graph, process) != first
    graph.spin_until(lambda: values_of(heard.next_diagnostics())["adjuster"] == "ready")
    assert values_of(heard.diagnostics[-1])["session"] == "1"
    assert heard.diagnostics[-1].level == b"\x00"


def test_reset_begins_one_session_at_the_origin(graph: Graph) -> None:
    _, camera, heard = started(graph)
    assert np.linalg.norm(driven(camera, heard).translation) > 1e-3
    assert answer(graph, "reset")[0]
    there = len(heard.odometry)
    driven(camera, heard)
    lengths = [np.linalg.norm(pose_of(o).translation) for o in heard.odometry[there:]]
    assert len(lengths) == WARM_UP
    assert lengths[0] == 0.0
    assert lengths[-1] > 1e-3
    assert values_of(heard.next_diagnostics())["session"] == "2"


def test_pause_leaves_images_alone_and_resume_goes_on(graph: Graph) -> None:
    _, camera, heard = started(graph)
    held = driven(camera, heard)
    assert answer(graph, "pause") == (True, "paused")
    there = len(heard.odometry)
    camera.stream(5, RATE_HZ)
    status = heard.next_diagnostics()
    assert (status.level, status.message) == (b"\x01", "paused")
    assert values_of(status)["left out: paused"] == "5"
    assert len(heard.odometry) == there
    assert answer(graph, "resume") == (True, "resumed")
    driven(camera, heard, 3)
    assert len(heard.odometry) == there + 3
    assert values_of(heard.next_diagnostics())["session"] == "1"
    # Six times as long ago as usual, and no further on than that explains.
    steps = [pose_of(o).translation for o in heard.odometry]
    usual = np.linalg.norm(steps[there - 1] - steps[there - 2])
    assert np.linalg.norm(steps[there] - held.translation) < 8.0 * usual


def test_the_trajectory_is_saved_whole(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "drive.tum"
    _, camera, heard = started(graph, node__trajectory_file=path)
    assert answer(graph, "save_trajectory") == (False, "there is no pose yet")
    driven(camera, heard, 60)
    graph.spin_until(lambda: "landmarks" in values_of(heard.next_diagnostics()))
    success, said = answer(graph, "save_trajectory")
    assert success
    live = read_tum(path)
    assert said.startswith(f"{len(heard.odometry)} poses in {path}, ")
    assert live.stamps_ns.tolist() == [stamp_ns_of(o) for o in heard.odometry]
    for odometry, pose in zip(heard.odometry, live.world_from_camera, strict=True):
        moved = pose_of(odometry).inverse() @ moved_to_base(pose, FORWARD)
        np.testing.assert_allclose(moved.log(), np.zeros(6), atol=1e-6)
    keyframes = read_tum(tmp_path / "drive.keyframes.tum")
    assert len(keyframes) > 1
    assert set(keyframes.stamps_ns) <= set(live.stamps_ns)
    assert sorted(p.name for p in tmp_path.glob("drive*")) == ["drive.keyframes.tum", "drive.tum"]

    assert set_parameters(graph, node__trajectory_file="/proc/drive.tum") == ""
    success, said = answer(graph, "save_trajectory")
    assert not success
    assert said.startswith("/proc/drive.tum: cannot be written (")


def test_a_parameter_takes_the_transform_away_while_it_runs(graph: Graph) -> None:
    _, camera, heard = started(graph)
    driven(camera, heard)
    for published in (False, True):
        assert set_parameters(graph, publish__odom_tf=published) == ""
        graph.spin(0.1)
        heard.transforms.clear()
        there = len(heard.odometry)
        driven(camera, heard)
        graph.spin(0.1)
        assert len(heard.odometry) == there + WARM_UP
        assert len(heard.from_to("odom", "base_link")) == (WARM_UP if published else 0)
        assert len(heard.from_to("map", "odom")) == WARM_UP


def test_a_parameter_of_the_odometer_is_taken_with_the_next_image(graph: Graph) -> None:
    _, camera, heard = started(graph)
    driven(camera, heard)
    still = camera.film.frames[camera.film.at(camera.shown)].image
    for zero_motion_px, resting in ((0.3, True), (0.0, False)):
        assert set_parameters(graph, track__zero_motion_px=zero_motion_px) == ""
        heard.wait_for_stamp(camera.stream(REST, RATE_HZ, image=still)[-1])
        assert ("at rest" in heard.next_diagnostics().message) is resting


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            {"scale__source": "none"},
            "scale.source is taken when the node is configured: deactivate and clean up first",
        ),
        ({"track__zero_motion_px": 50.0}, "zero_motion_px"),
        ({"track__max_gap_s": float("nan")}, "max_gap_s"),
        ({"publish__odom_tf": "no"}, "Wrong parameter type"),
        ({"node__autostart": False}, "read-only"),
        ({"publish__map_tf": False, "net__backend": "auto"}, "net.backend is taken when"),
    ],
)
def test_other_changes_are_refused_with_the_reason(
    shared: Graph, given: dict[str, object], reason: str
) -> None:
    assert reason in set_parameters(shared, **given)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """A graph with an active node, for all tests that leave it as it is."""
    with graph_apart(tmp_path_factory.mktemp("shared")) as graph:
        started(graph)
        yield graph


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_adjuster(graph: Graph, number: signal.Signals) -> None:
    process, camera, heard = started(graph)
    driven(camera, heard)
    node, adjuster = node_of(process), adjuster_of(graph, process)
    began_s = time.monotonic()
    os.kill(node, number)
    while runs(node) or runs(adjuster):
        camera.publish()  # it comes in the middle of the work
        graph.spin(0.01)
        assert time.monotonic() - began_s < ENDS_WITHIN_S
    assert process.popen.wait(ENDS_WITHIN_S) == 0
    assert errors(process) == []


def test_a_killed_node_leaves_no_process_behind(graph: Graph) -> None:
    process, camera, heard = started(graph)
    driven(camera, heard)
    node, adjuster = node_of(process), adjuster_of(graph, process)
    os.kill(node, signal.SIGKILL)
    graph.spin_until(lambda: not runs(adjuster), ENDS_WITHIN_S)
    assert not any(parent == node for _, parent, _ in processes())
