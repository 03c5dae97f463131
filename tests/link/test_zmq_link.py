"""The adjuster in a process of its own, and all that can befall it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from link_cases import (
    COUNTING,
    CRASH,
    HANG,
    LIMIT_S,
    PERIOD_NS,
    RAISE,
    SLOW,
    await_refinement,
    await_state,
    config_of,
    counting_link,
    drain,
    folder_of,
    make_frame,
    until,
    with_settings,
    worker_of,
)

from vo_stream.config import Config
from vo_stream.errors import LinkError
from vo_stream.link.channel import LinkStatus
from vo_stream.link.zmq_link import MAX_UNDER_WAY, ZmqLink
from vo_stream.values import Refinement

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def link() -> Iterator[ZmqLink]:
    """A link to the stand-in, ready."""
    with closing(counting_link()) as made:
        await_state(made, "ready")
        yield made


def assert_all_answered(status: LinkStatus, worked_off: int) -> None:
    assert status.sent == status.dropped + status.waiting + worked_off


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_frames_go_and_refinements_come_back(link: ZmqLink) -> None:
    for i in range(5):
        assert link.send(*make_frame(i, session=2))
        assert link.finish(LIMIT_S)
    stamps = [(r.stamp_ns, r.session) for r in drain(link)]
    assert stamps == [(PERIOD_NS * i, 2) for i in range(5)]
    status = link.status()
    assert (status.alive, status.state) == (True, "ready")
    assert (status.sent, status.received) == (5, 5)
    assert (status.dropped, status.waiting, status.faults, status.restarts) == (0, 0, 0, 0)
    assert 0.0 <= status.age_s < LIMIT_S


def test_the_settings_reach_the_adjuster() -> None:
    config = Config().replaced({"adjust.tracks": 77})
    with closing(ZmqLink(config, command=COUNTING)) as link:
        link.send(*make_frame(0))
        assert "77 tracks" in await_refinement(link).scale_source


def test_a_refused_frame_is_not_sent(link: ZmqLink) -> None:
    frame, estimate = make_frame(0)
    assert link.send(frame, with_settings(estimate, refused=True))
    assert link.status().sent == 0


def test_a_frame_that_cannot_be_sent_is_dropped_and_counted(link: ZmqLink) -> None:
    frame, estimate = make_frame(0)
    wrong = type(frame)(0, frame.image[:100], frame.camera)
    assert not link.send(wrong, estimate)
    assert link.send(*make_frame(1))
    assert link.finish(LIMIT_S)
    assert_all_answered(link.status(), worked_off=1)


def test_a_full_queue_drops_the_oldest_and_counts_it() -> None:
    # Nothing is handed over before the process is ready, so all of these wait at the link.
    with closing(counting_link(queue=4)) as link:
        answers = [link.send(*make_frame(i)) for i in range(10)]
        assert answers == [True] * 4 + [False] * 6
        assert link.status().dropped == 6
        assert link.finish(LIMIT_S)
        last = drain(link)[-1]
        assert last.stamp_ns == 9 * PERIOD_NS
        assert last.scale_source.startswith("4 frames")
        assert_all_answered(link.status(), worked_off=4)


def test_a_slow_adjuster_gets_the_newest_and_every_frame_is_counted(link: ZmqLink) -> None:
    link.send(*make_frame(0))
    assert link.finish(LIMIT_S)
    for i in range(1, 61):
        link.send(*make_frame(i, SLOW))
    assert link.status().waiting <= 8 + MAX_UNDER_WAY
    assert link.finish(LIMIT_S)
    last = drain(link)[-1]
    assert last.stamp_ns == 60 * PERIOD_NS
    status = link.status()
    assert status.dropped > 0
    assert_all_answered(status, worked_off=int(last.scale_source.split()[0]))


def test_lossless_waits_instead_of_dropping() -> None:
    with closing(counting_link(lossless=True, queue=2)) as link:
        assert all(link.send(*make_frame(i, SLOW if i % 4 == 0 else 0)) for i in range(40))
        assert link.finish(LIMIT_S)
        assert drain(link)[-1].scale_source.startswith("40 frames")
        assert_all_answered(link.status(), worked_off=40)
        assert link.status().dropped == 0


def test_lossless_goes_on_when_the_adjuster_ends_in_between() -> None:
    with closing(counting_link(lossless=True, queue=2)) as link:
        for i in range(20):
            link.send(*make_frame(i, CRASH if i == 10 else 0))
        assert link.finish(LIMIT_S)
        assert drain(link)[-1].stamp_ns == 19 * PERIOD_NS
        status = link.status()
        assert status.restarts == 1
        assert 1 <= status.dropped <= MAX_UNDER_WAY


def test_lossless_does_not_wait_for_what_never_works() -> None:
    never = (sys.executable, "-c", "")
    with closing(ZmqLink(config_of(queue=1), lossless=True, command=never)) as link:
        for i in range(20):
            link.send(*make_frame(i))
        status = link.status()
        assert status.sent == 20
        assert status.dropped == 19
        assert status.restarts >= 2
        assert not link.finish(3600.0)


def test_the_real_adjuster_survives_twenty_kills() -> None:
    rng = random.Random(1)
    pids, numbers = [], count()
    with closing(ZmqLink(Config())) as link:
        folder = folder_of(link)
        await_state(link, "ready")
        for kill in range(20):
            for _ in range(rng.randrange(1, 5)):
                link.send(*make_frame(next(numbers)))
            pids.append(worker_of(link))
            os.kill(pids[-1], signal.SIGKILL)
            until(lambda: (link.poll(), link.status().restarts > kill)[1])  # noqa: B023
            drain(link)

            def refined() -> bool:
                link.send(*make_frame(next(numbers)))
                return link.poll() is not None

            until(refined)
            status = link.status()
            assert status.restarts == kill + 1
        pids.append(worker_of(link))
        assert link.finish(LIMIT_S)
        assert link.status().waiting == 0
        assert list(folder.iterdir()) == [folder / "21"]
    assert len(set(pids)) == 21
    assert all(has_ended(pid) for pid in pids)
    assert not folder.exists()


def test_the_real_adjuster_refines() -> None:
    with closing(ZmqLink(Config(), lossless=True)) as link:
        refinements: list[Refinement] = []
        for i in range(30):
            assert link.send(*make_frame(i))
            refinements += drain(link)
        assert link.finish(LIMIT_S)
        refinements += drain(link)
        assert refinements
        assert link.status().received == len(refinements)
        assert link.status().faults == 0
        assert any(len(r.landmarks) for r in refinements)


def test_an_adjuster_that_hangs_is_noticed_and_replaced() -> None:
    with closing(counting_link(hang_s=0.5)) as link:
        await_state(link, "ready")
        hanging = worker_of(link)
        link.send(*make_frame(0, HANG))
        link.send(*make_frame(1))
        link.send(*make_frame(2))
        assert until(lambda: (link.poll(), link.status().restarts == 1)[1]) >= 0.4
        assert has_ended(hanging)
        assert link.finish(LIMIT_S)
        assert drain(link)[-1].stamp_ns == 2 * PERIOD_NS
        assert_all_answered(link.status(), worked_off=1)


def test_an_idle_adjuster_is_left_alone() -> None:
    with closing(counting_link(hang_s=0.5)) as link:
        await_state(link, "ready")
        link.send(*make_frame(0))
        assert link.finish(LIMIT_S)
        os.kill(worker_of(link), signal.SIGSTOP)
        until(lambda: link.status().age_s > 1.0)
        assert drain(link) != []
        os.kill(worker_of(link), signal.SIGCONT)
        link.send(*make_frame(1))
        assert link.finish(LIMIT_S)
        assert link.status().restarts == 0


def test_an_adjuster_that_raises_starts_anew_in_the_same_process(link: ZmqLink) -> None:
    pid = worker_of(link)
    sources = []
    for i, task in enumerate([0, 0, RAISE, 0, RAISE, RAISE, 0, 0]):
        link.send(*make_frame(i, task))
        assert link.finish(LIMIT_S)
        sources += [r.scale_source.split()[0] for r in drain(link)]
    assert sources == ["1", "2", "1", "1", "2"]
    assert worker_of(link) == pid
    assert link.status().restarts == 0


def test_the_terminals_interrupt_does_not_reach_the_process(link: ZmqLink) -> None:
    pid = worker_of(link)
    assert os.getpgid(pid) != os.getpgid(0)
    os.kill(pid, signal.SIGINT)
    link.send(*make_frame(0))
    assert link.finish(LIMIT_S)
    assert worker_of(link) == pid


def test_closing_ends_everything_and_later_calls_do_nothing() -> None:
    link = counting_link()
    pid, folder = worker_of(link), folder_of(link)
    assert folder.stat().st_mode & 0o777 == 0o700
    link.send(*make_frame(0))
    link.close()
    link.close()
    assert has_ended(pid)
    assert not folder.exists()
    assert not link.send(*make_frame(1))
    assert link.poll() is None
    assert link.finish(1.0)
    status = link.status()
    assert (status.state, status.alive) == ("closed", False)
    assert (status.sent, status.dropped, status.waiting) == (2, 2, 0)


PARENT = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from link_cases import *
link = counting_link()
await_state(link, "ready")
for i in range(3):
    link.send(*make_frame(i, HANG if HANGS else 0))
print(worker_of(link), folder_of(link), flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("hangs", [False, True])
def test_the_process_ends_with_its_parent(hangs: bool) -> None:
    program = f"HANGS = {hangs}\n{PARENT}"
    # Both hold this pipe for their errors: it ends when both have ended.
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        _, folder = parent.stdout.readline().split()
        assert Path(folder).exists()
        parent.kill()
        _, errors = parent.communicate(timeout=LIMIT_S)
    assert errors == ""
    assert not Path(folder).exists()


def test_a_parent_that_forgets_to_close_leaves_nothing_behind() -> None:
    program = PARENT.replace("HANGS", "False").replace("time.sleep(1000)", "sys.exit()")
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True, text=True, check=True, timeout=LIMIT_S,
    )  # fmt: skip
    pid, folder = ran.stdout.split()
    assert ran.stderr == ""
    assert has_ended(int(pid))
    assert not Path(folder).exists()


def test_a_long_path_for_temporary_files_is_avoided(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with closing(counting_link()) as link:
        await_state(link, "ready")
        assert len(str(folder_of(link))) < 80
    assert list(long.iterdir()) == []


def test_a_process_that_cannot_be_started_is_an_error() -> None:
    with pytest.raises(LinkError, match="cannot be started"):
        ZmqLink(Config(), command=("/there/is/no/such/program",))
