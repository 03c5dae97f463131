"""The worker: images through a real odometer, one by one, whatever goes wrong on the way."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from camera import FPS, footage, image_message

from vo_stream.adjust.adjuster import Adjuster
from vo_stream.config import Config
from vo_stream.errors import NetError
from vo_stream.link.channel import InlineLink, Link, LinkStatus, NoLink
from vo_stream.net.backends import open_backend
from vo_stream.ros.frames import FORWARD
from vo_stream.ros.inbox import Inbox
from vo_stream.ros.stream import DIGITS, Arrival, Stream
from vo_stream.se3 import SE3
from vo_stream.track.odometer import Odometer
from vo_stream.values import NANOSECONDS, Estimate, Frame, Refinement

LIMIT_S = 20.0

CONFIG = Config().replaced({"net.backend": "geometric"})


class Collected:
    """Outputs that keep what they are given."""

    def __init__(self) -> None:
        self.estimates: list[Estimate] = []
        self.dts_s: list[float] = []
        self.refinements: list[Refinement] = []

    def publish_estimate(self, estimate: Estimate, base_from_camera: SE3, dt_s: float) -> None:
        assert base_from_camera is FORWARD
        self.estimates.append(estimate)
        self.dts_s.append(dt_s)

    def publish_refinement(self, refinement: Refinement, base_from_camera: SE3) -> None:
        assert base_from_camera is FORWARD
        self.refinements.append(refinement)


class FailingOutputs(Collected):
    """Outputs that raise at the second estimate."""

    def publish_estimate(self, estimate: Estimate, base_from_camera: SE3, dt_s: float) -> None:
        super().publish_estimate(estimate, base_from_camera, dt_s)
        if len(self.estimates) == 2:
            raise RuntimeError("nobody is there")


class FailingOdometer(Odometer):
    """An odometer whose backend breaks at some steps."""

    fails_at: tuple[int, ...] = ()
    steps = 0

    def step(self, frame: Frame) -> Estimate:
        self.steps += 1
        if self.steps in self.fails_at:
            raise NetError("out of memory")
        return super().step(frame)


class BusyLink(NoLink):
    """A link whose adjuster takes nothing, until it is replaced."""

    restarts = 0

    def status(self) -> LinkStatus:
        return LinkStatus(True, "busy", waiting=9 * (not self.restarts), restarts=self.restarts)


class Worker:
    """A stream with an inbox that takes any number of images."""

    def __init__(
        self,
        odometer: Odometer | None = None,
        link: Link | None = None,
        outputs: Collected | None = None,
        most_waiting: int | None = None,
    ) -> None:
        self.odometer = odometer or made(Odometer)
        self.outputs = outputs or Collected()
        self.inbox = Inbox[Arrival](1000, drop_stale=False)
        self.stream = Stream(
            self.odometer,
            link or NoLink(),
            self.inbox,
            self.outputs,
            lambda stamp_ns: math.nan,
            most_waiting,
        )

    def put(self, *numbers: int, **changes: Any) -> None:
        """Put in images by their numbers; `changes`: fields of the message."""
        for number in numbers:
            message = shown(number)
            for name, value in changes.items():
                setattr(message, name, value)
            self.inbox.put(Arrival(message, CAMERA, FORWARD, time.perf_counter()))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self.stream.start()
        try:
            yield
        finally:
            ending = threading.Thread(target=self.stream.stop, daemon=True)
            ending.start()
            ending.join(LIMIT_S)
            assert not ending.is_alive()

    def until(self, holds: Callable[[], object]) -> None:
        end = time.monotonic() + LIMIT_S
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.002)

    def done(self) -> int:
        """Return how many images were worked off."""
        return self.stream.published + self.stream.failed + sum(self.stream.refused.values())

    def work_off(self, *numbers: int, **changes: Any) -> None:
        """Put in images and wait until the worker has done with them."""
        due = self.done() + len(numbers)
        self.put(*numbers, **changes)
        self.until(lambda: self.done() == due)


FILM = footage()
CAMERA = FILM.frames[0].camera


def shown(number: int) -> Any:
    return image_message(FILM.frames[FILM.at(number)].image, FILM.stamp_ns(number), "camera")


def made(kind: type[Odometer]) -> Any:
    return kind(open_backend(CONFIG), CONFIG.track, CONFIG.scale)


def stamped(number: int, stamp_ns: int) -> Any:
    header = shown(number).header
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, NANOSECONDS)
    return header


def test_each_image_gets_what_the_odometer_says_of_it() -> None:
    odometer: Odometer = made(Odometer)
    expected = [
        odometer.step(Frame(FILM.stamp_ns(i), FILM.frames[FILM.at(i)].image, CAMERA))
        for i in range(30)
    ]
    worker = Worker()
    worker.put(*range(30))
    with worker.at_work():
        worker.until(lambda: worker.stream.published == 30)
    got = worker.outputs.estimates
    assert [e.stamp_ns for e in got] == [e.stamp_ns for e in expected]
    for one, other in zip(got, expected, strict=True):
        assert one.odom_from_camera.wxyz_xyz.tobytes() == other.odom_from_camera.wxyz_xyz.tobytes()
        assert np.array_equal(one.covariance, other.covariance)
    assert worker.stream.last is got[-1]
    assert math.isnan(worker.outputs.dts_s[0])
    assert worker.outputs.dts_s[1:] == pytest.approx([1.0 / FPS] * 29)
    assert len(worker.stream.latencies_ms) == 30
    assert min(worker.stream.latencies_ms) > 0.0
    assert (worker.stream.failed, worker.stream.refused, worker.stream.refusing) == (0, {}, "")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoding": "mono9"}, "unsupported encoding"),
        ({"step": 319}, "wrong step"),
        ({"height": 97}, "truncated image"),
        ({"height": 0, "width": 0}, "impossible size"),
        ({"data": b""}, "truncated image"),
        ({"header": stamped(1, 0)}, "the image has no stamp"),
        ({"header": stamped(1, FILM.stamp_ns(0))}, "the stamp is the previous one's"),
        ({"height": 95}, "the image is #x#, its calibration is for #x#"),
    ],
)
def test_an_image_that_cannot_be_used_is_counted_and_left_out(
    changes: dict[str, object], reason: str
) -> None:
    worker = Worker()
    with worker.at_work():
        worker.work_off(0)
        worker.work_off(1, **changes)
        assert worker.stream.refused == {reason: 1}
        assert DIGITS.sub("#", worker.stream.refusing).startswith(reason)
        assert "\n" not in worker.stream.refusing
        worker.work_off(2)
        assert worker.stream.refusing == ""
    assert (worker.stream.published, worker.stream.failed) == (2, 0)
    assert worker.outputs.dts_s[1:] == pytest.approx([2.0 / FPS])


def test_a_reason_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    with worker.at_work():
        worker.work_off(*range(50), encoding="mono9")
    assert worker.stream.refused == {"unsupported encoding": 50}
    assert len([text for text in caplog.messages if "mono9" in text]) == 1


def test_reasons_without_end_do_not_fill_the_memory() -> None:
    worker = Worker()
    with worker.at_work():
        worker.work_off(0)
        for height in range(1, 60):
            worker.work_off(1, height=height)
    assert worker.stream.refused == {"the image is #x#, its calibration is for #x#": 59}


def test_a_backend_that_breaks_costs_its_image_only(caplog: pytest.LogCaptureFixture) -> None:
    odometer: FailingOdometer = made(FailingOdometer)
    odometer.fails_at = (3, 4, 5)
    worker = Worker(odometer)
    with worker.at_work():
        worker.work_off(0, 1)
        worker.work_off(2, 3, 4)
        assert worker.stream.failing == "NetError: out of memory"
        assert worker.stream.failed == 3
        worker.work_off(5)
        worker.until(lambda: worker.stream.failing == "")
    assert [e.stamp_ns for e in worker.outputs.estimates] == [FILM.stamp_ns(i) for i in (0, 1, 5)]
    assert worker.outputs.dts_s[-1] == pytest.approx(4.0 / FPS)
    assert caplog.messages.count("an image could not be processed") == 1


def test_results_that_cannot_be_handed_out_stop_nothing() -> None:
    worker = Worker(outputs=FailingOutputs())
    worker.put(*range(4))
    with worker.at_work():
        worker.until(lambda: len(worker.outputs.estimates) == 4)
        worker.until(lambda: worker.stream.published == 3)
    assert worker.stream.failed == 1


def test_requests_are_done_between_images_in_the_workers_thread() -> None:
    worker = Worker()
    done: list[tuple[int, str]] = []

    def note(number: int) -> None:
        done.append((number, threading.current_thread().name))

    with worker.at_work():
        for number in range(10):
            worker.put(number)
            worker.stream.ask(partial(note, number))
        worker.until(lambda: worker.stream.published == 10 and len(done) == 10)
        worker.stream.ask(partial(note, 10))
        worker.until(lambda: len(done) == 11)  # without an image
    assert done == [(number, "vo_stream worker") for number in range(11)]


def test_a_reset_begins_a_new_session() -> None:
    worker = Worker()
    with worker.at_work():
        worker.work_off(0, 1, 2)
        worker.stream.ask(worker.odometer.reset)
        worker.work_off(3, 4)
    assert [e.session for e in worker.outputs.estimates] == [1, 1, 1, 2, 2]
    assert [math.isnan(dt_s) for dt_s in worker.outputs.dts_s] == [True, False, False, True, False]


def test_it_stops_while_it_waits_for_images() -> None:
    with Worker().at_work():
        pass


def test_it_stops_with_images_left() -> None:
    worker = Worker()
    worker.put(*range(500))
    with worker.at_work():
        worker.until(lambda: worker.stream.published > 2)
    assert worker.stream.published < 500
    assert len(worker.outputs.estimates) == worker.stream.published


def test_a_full_adjuster_holds_images_back_and_a_stop_ends_that() -> None:
    worker = Worker(link=BusyLink(), most_waiting=8)
    worker.put(*range(10))
    with worker.at_work():
        worker.until(lambda: worker.stream.published == 1)
        time.sleep(0.1)
        assert worker.stream.published == 1


def test_images_go_on_when_a_full_adjuster_is_replaced() -> None:
    link = BusyLink()
    worker = Worker(link=link, most_waiting=8)
    worker.put(*range(10))
    with worker.at_work():
        worker.until(lambda: worker.stream.published == 1)
        link.restarts = 1
        worker.until(lambda: worker.stream.published == 10)


def test_a_live_stream_waits_for_no_adjuster(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    link = BusyLink()
    worker = Worker(link=link)
    worker.put(*range(10))
    with worker.at_work():
        worker.until(lambda: worker.stream.published == 10)
    assert worker.stream.link_status.state == "busy"


def test_what_the_adjuster_says_is_handed_out_and_belongs_to_its_session() -> None:
    config = replace(CONFIG, scale=replace(CONFIG.scale, source="none"))
    worker = Worker(link=InlineLink(Adjuster(config)))
    with worker.at_work():
        worker.work_off(*range(30))
        worker.until(lambda: worker.stream.refinement is not None)
        assert worker.stream.refinement is worker.outputs.refinements[-1]
        count = len(worker.outputs.refinements)
        assert all(r.session == 1 for r in worker.outputs.refinements)
        worker.stream.ask(worker.odometer.reset)
        worker.work_off(30)
        assert worker.stream.refinement is None or worker.stream.refinement.session == 2
        worker.work_off(*range(31, 58))
        worker.until(lambda: len(worker.outputs.refinements) > count)
    stamps_ns = [r.stamp_ns for r in worker.outputs.refinements]
    assert stamps_ns == sorted(stamps_ns)
    assert {r.session for r in worker.outputs.refinements} == {1, 2}


def test_what_was_asked_before_a_stop_is_done() -> None:
    worker = Worker()
    done: list[int] = []
    worker.put(*range(50))
    with worker.at_work():
        worker.until(lambda: worker.stream.published > 0)
        worker.stream.ask(partial(done.append, 1))
    assert done == [1]


def test_a_request_that_fails_costs_no_image(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()

    def fail() -> None:
        raise RuntimeError("cannot be done")

    worker.put(0, 1, 2)
    worker.stream.ask(fail)
    with worker.at_work():
        worker.until(lambda: worker.stream.published == 3)
    assert worker.stream.failed == 0
    assert caplog.messages == ["a request failed"]
