"""Time that repeats, is late, jumps or loops: on a live node, by stamps alone and by /clock."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import bags
import numpy as np
import pytest
from camera import Camera, footage
from graph import Graph, quiet_domain
from heard import EVERYTHING, Heard, covariance_of, pose_of, values_of
from nav_msgs.msg import Odometry
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from vo_stream.messages import stamp_ns_of
from vo_stream.ros.outgoing import time_of
from vo_stream.track.stamps import JUMP_S
from vo_stream.values import NANOSECONDS

START_S = 1_700_000_000

LOST_S = 4.5
"""Discovery takes up to 3 s where a first packet met nobody; a player is to begin after that."""

TURN = 20
"""Images of a loop."""

JUMPS = "the stamp jumps; the next one must confirm it"
REPEATED = "the stamp is the previous one's"
LATE = "the stamp is older than the previous one's"
NONE = "the image has no stamp"

NO_STAMP = -float(START_S)


def every(step_s: float, count: int = TURN, start_s: float = 0.0) -> list[float]:
    return [start_s + i * step_s for i in range(count)]


class Case(NamedTuple):
    """Stamps that are sent, those that make each session, and what is refused, by reason.

    All in seconds after some time; NO_STAMP is 0. `kept`: at this odometry message the pose is
    what it was before.
    """

    sent: list[float]
    sessions: list[list[float]]
    refused: Mapping[str, int] = MappingProxyType({})
    kept: int = 0


CASES = {
    "short loop": Case(every(0.1) * 3, [every(0.1)] * 3),
    "long loop": Case(every(0.6) * 3, [every(0.6), every(0.6)[1:], every(0.6)[1:]], {JUMPS: 2}),
    "repeated": Case([0.0, 0.1, 0.1, 0.1, 0.2], [[0.0, 0.1, 0.2]], {REPEATED: 2}),
    "late": Case([0.0, 0.4, 0.8, 0.7, 0.0, 0.9], [[0.0, 0.4, 0.8, 0.9]], {LATE: 2}),
    "none": Case([0.0, 0.1, NO_STAMP, 0.2, NO_STAMP], [[0.0, 0.1, 0.2]], {NONE: 2}),
    "5 s on": Case([0.0, 0.1, 0.2, 5.2, 5.3, 5.4], [[0.0, 0.1, 0.2, 5.2, 5.3, 5.4]], kept=3),
    "1 h on": Case(
        [0.0, 0.1, 0.2, 3600.0, 3600.1, 3600.2],
        [[0.0, 0.1, 0.2, 3600.1, 3600.2]],
        {JUMPS: 1},
        kept=3,
    ),
    "one from next year": Case([0.0, 0.1, 3e7, 0.2, 0.3], [[0.0, 0.1, 0.2, 0.3]], {JUMPS: 1}),
    "one from last year": Case([0.0, 0.1, -3e7, 0.2, 0.3], [[0.0, 0.1, 0.2, 0.3]], {JUMPS: 1}),
    "set back by 2 s": Case([2.0, 2.1, 2.2, 0.2, 0.3, 0.4], [[2.0, 2.1, 2.2], [0.2, 0.3, 0.4]]),
    "set back by 1 h": Case(
        [3600.0, 3600.1, 0.0, 0.1, 0.2], [[3600.0, 3600.1], [0.1, 0.2]], {JUMPS: 1}
    ),
}


class Live:
    """A node that drops no image, its camera and its clock."""

    def __init__(self, graph: Graph, use_sim_time: bool) -> None:
        self.node = graph.start_node(
            use_sim_time=use_sim_time,
            node__autostart=True,
            input__drop_stale=False,
            adjust__enabled=False,
            frames__mount="forward",
        )
        self.heard = Heard(graph)
        self._graph = graph
        film = footage("room", seconds=1.0, size=(320, 240))
        self._camera = Camera(graph, film, qos=EVERYTHING)
        self._clock = graph.node.create_publisher(Clock, "/clock", EVERYTHING)
        self._sent = 0
        self._last: dict[str, str] = {}
        self._camera.wait_for_reader()
        if use_sim_time:
            graph.spin_until(self._clock.get_subscription_count)
        while not self.heard.odometry:  # the other direction may be later
            self.send([0.1 * self._sent - 1000.0])
            graph.spin(0.2)

    def begin(self) -> dict[str, str]:
        """Start anew, forget what was heard, and return the diagnostics up to now."""
        assert self._graph.call(Trigger, "/vo_stream/reset").success
        self.heard.odometry.clear()
        self.heard.transforms.clear()
        return self._last or self.values()

    def send(self, stamps_s: Sequence[float], first: int = 0) -> None:
        """Publish images, the first one of the film or a later one."""
        for i, stamp_s in enumerate(stamps_s, first):
            self._camera.publish(i % TURN, stamp_ns=at(stamp_s))
            self._sent += 1

    def tell_time(self, time_s: float) -> None:
        """Publish the time on /clock, which goes back, and let the node take it in."""
        self._clock.publish(Clock(clock=time_of(at(time_s))))
        self._graph.spin(0.5)

    def run_clock(self, until_s: float) -> None:
        """Publish the time on /clock, which goes on."""
        self._clock.publish(Clock(clock=time_of(at(until_s))))
        self._graph.spin(0.2)

    def values(self) -> dict[str, str]:
        """Wait until all images have been worked off; return the diagnostics then."""
        while True:
            values = values_of(self.heard.next_diagnostics())
            images, refused = int(values.get("images", -1)), int(values.get("refused", 0))
            if images == self._sent == refused + int(values["odometry messages"]):
                self._graph.spin(0.1)
                self._last = values
                return values

    def answered(self, count: int) -> None:
        """Wait until so many images have their odometry."""
        self._graph.spin_until(lambda: len(self.heard.odometry) == count)


def at(time_s: float) -> int:
    return START_S * NANOSECONDS + round(time_s * 1000) * 1_000_000


def stamps_s(odometry: Sequence[Odometry]) -> list[float]:
    return [round((stamp_ns_of(o) - at(0.0)) / NANOSECONDS, 3) for o in odometry]


def rounded(times_s: Sequence[float]) -> list[float]:
    return [round(t, 3) for t in times_s]


def is_origin(odometry: Odometry) -> bool:
    return bool((pose_of(odometry).wxyz_xyz == (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)).all())


def sessions_of(odometry: Sequence[Odometry]) -> list[list[Odometry]]:
    """Return the messages of each session: it begins where the pose is the origin again."""
    begins = [i for i, o in enumerate(odometry) if is_origin(o)]
    return [list(odometry[a:b]) for a, b in pairwise([*begins, len(odometry)])]


def check_numbers(heard: Heard) -> None:
    """All that was published is finite, and the transforms are those of the odometry."""
    for odometry in heard.odometry:
        for part in (odometry.pose, odometry.twist):
            covariance = covariance_of(part)
            assert np.isfinite(covariance).all()
            assert (np.diag(covariance) > 0.0).all()
        twist = odometry.twist.twist
        for v in (odometry.pose.pose.position, twist.linear, twist.angular):
            assert np.isfinite([v.x, v.y, v.z]).all()
        assert pose_of(odometry).is_finite
    transforms = heard.from_to("odom", "base_link")
    assert list(map(stamp_ns_of, transforms)) == list(map(stamp_ns_of, heard.odometry))


def node_on(tmp_path_factory: pytest.TempPathFactory, use_sim_time: bool) -> Iterator[Live]:
    with pytest.MonkeyPatch.context() as patch, quiet_domain() as domain:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        graph = Graph(int(domain), tmp_path_factory.mktemp("node"))
        try:
            yield Live(graph, use_sim_time)
        finally:
            graph.close()
        assert "Traceback" not in graph.said()


@pytest.fixture(scope="module")
def by_stamps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    yield from node_on(tmp_path_factory, use_sim_time=False)


@pytest.fixture(scope="module")
def by_clock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    yield from node_on(tmp_path_factory, use_sim_time=True)


def check(live: Live, before: Mapping[str, str], case: Case) -> None:
    """Compare what came, and what was counted since `before`, with what is expected."""
    after = live.values()
    found = sessions_of(live.heard.odometry)
    assert [stamps_s(session) for session in found] == [rounded(s) for s in case.sessions]
    assert int(after["session"]) - int(before["session"]) == len(case.sessions)
    for key, count in {
        "refused": sum(case.refused.values()),
        **{f"left out: {reason}": count for reason, count in case.refused.items()},
    }.items():
        assert int(after[key]) - int(before.get(key, 0)) == count
    check_numbers(live.heard)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_stamps_alone(case: Case, by_stamps: Live) -> None:
    before = by_stamps.begin()
    by_stamps.send(case.sent)
    check(by_stamps, before, case)
    if case.kept:
        kept, on = by_stamps.heard.odometry[case.kept - 1 : case.kept + 1]
        assert (pose_of(kept).wxyz_xyz == pose_of(on).wxyz_xyz).all()
        assert (np.diag(covariance_of(on.pose)) > np.diag(covariance_of(kept.pose))).all()


@pytest.mark.parametrize(
    ("step_s", "early"),
    [(0.1, 0), (0.1, 4), (0.6, 0), (0.6, 4)],
)
def test_clock_and_images_go_back(step_s: float, early: int, by_clock: Live) -> None:
    """The first images of the new loop may come before its time does."""
    live, turn = by_clock, every(step_s)
    before = live.begin()
    live.run_clock(turn[-1])
    live.send(turn)
    live.answered(TURN)
    # Without a clock, it takes two images to tell a long loop from a wrong stamp.
    unconfirmed = 1 if early and turn[-1] > JUMP_S else 0
    live.send(turn[:early])
    live.answered(TURN + early - unconfirmed)
    live.tell_time(turn[0])
    live.send(turn[early:], first=early)
    check(live, before, Case([], [turn, turn[unconfirmed:]], {JUMPS: 1} if unconfirmed else {}))


@pytest.mark.parametrize("step_s", [0.1, 0.6])
def test_images_of_the_old_loop_that_come_late_begin_no_session(
    step_s: float, by_clock: Live
) -> None:
    live, turn = by_clock, every(step_s)
    before = live.begin()
    live.run_clock(turn[-1])
    live.send(turn[:-2])
    live.answered(TURN - 2)
    live.tell_time(turn[0])
    live.send(turn[-2:], first=TURN - 2)
    live.send(turn)
    after = live.values()
    old, new = sessions_of(live.heard.odometry)
    assert stamps_s(new) == rounded(turn)
    assert stamps_s(old) == rounded(turn)[: len(old)]
    assert int(after["session"]) - int(before["session"]) == 2


def test_a_played_bag_loops(graph: Graph, tmp_path: Path) -> None:
    frames = list(bags.rendered_frames(seconds=1.3, fps=10.0, size=(320, 240)))
    bag = bags.write_bag(tmp_path / "bag", bags.camera_messages(frames))
    remapped = ("-r", f"image:={bags.IMAGE_TOPIC}", "-r", f"camera_info:={bags.CAMERA_INFO_TOPIC}")
    graph.start_node(
        *remapped,
        use_sim_time=True,
        node__autostart=True,
        adjust__enabled=False,
        frames__mount="forward",
    )
    heard = Heard(graph)
    heard.next_diagnostics()
    options = ("--loop", "--clock", "--delay", LOST_S)
    player = graph.start(sys.executable, "-m", "vo_stream.cli", "play", bag, *options)
    graph.spin_until(lambda: sum(map(is_origin, heard.odometry)) == 4, 30.0)
    player.interrupt()
    graph.spin(0.2)
    values = values_of(heard.next_diagnostics())
    found = sessions_of(heard.odometry)
    assert int(values["session"]) == len(found) == 4
    assert int(values["refused"]) == 0
    assert sum(map(len, found)) == len(heard.odometry)
    bag_stamps = {frame.stamp_ns for frame in frames}
    for session in found:
        stamps = list(map(stamp_ns_of, session))
        assert set(stamps) <= bag_stamps
        assert all(a < b for a, b in pairwise(stamps))
    for session in found[:-1]:
        assert len(session) > len(frames) // 2
    check_numbers(heard)
