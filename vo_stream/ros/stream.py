"""The worker: one thread that takes images through the odometer and hands out the results."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from vo_stream.camera import CameraModel
from vo_stream.encodings import ImageError
from vo_stream.link.channel import Link
from vo_stream.messages import grey_of, stamp_ns_of
from vo_stream.ros.inbox import Inbox
from vo_stream.se3 import SE3
from vo_stream.track.odometer import Odometer
from vo_stream.values import NANOSECONDS, Estimate, Frame, Refinement

logger = logging.getLogger(__name__)

IDLE_S = 0.1
"""Without images the adjuster is looked after this often."""

WAIT_S = 0.005
"""Between two looks at an adjuster that is waited for."""

LATENCIES_KEPT = 1000

LAST_STAMP_NS = 2**31 * NANOSECONDS - 1
"""Seconds of a message's stamp are 32 bits."""

DIGITS = re.compile(r"\d+")
"""Left out of the reasons that images are counted by: they must not fill the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """An image message, what was known when it came, and when that was (`time.perf_counter`)."""

    message: Any
    camera: CameraModel
    base_from_camera: SE3
    arrived_s: float


class Outputs(Protocol):
    """Where results go; called in the worker's thread."""

    def publish_estimate(self, estimate: Estimate, base_from_camera: SE3, dt_s: float) -> None:
        """Hand out the estimate of an image; `dt_s`: since the image before it, nan for a first."""
        ...

    def publish_refinement(self, refinement: Refinement, base_from_camera: SE3) -> None:
        """Hand out what the adjuster says."""
        ...


class Stream:
    """Takes images from the inbox, one by one and in order, until it is stopped.

    The odometer and the link belong to its thread while it runs. `travelled_m`: how far the camera
    has come at a stamp, by the wheels; nan where they do not say. `most_waiting`: with so many
    images at the adjuster, the next one waits; None never waits. What it counts others may read:
    `failing` and `refusing` say what the last image raised or why it was refused, empty where not.
    """

    def __init__(
        self,
        odometer: Odometer,
        link: Link,
        inbox: Inbox[Arrival],
        outputs: Outputs,
        travelled_m: Callable[[int], float],
        most_waiting: int | None = None,
    ) -> None:
        self.published = 0
        self.failed = 0
        self.failing = self.refusing = ""
        self.refused: Counter[str] = Counter()
        self.last: Estimate | None = None
        self.refinement: Refinement | None = None
        self.link_status = link.status()
        self.latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._odometer = odometer
        self._link = link
        self._inbox = inbox
        self._outputs = outputs
        self._travelled_m = travelled_m
        self._most_waiting = most_waiting
        self._requests: deque[Callable[[], None]] = deque()
        self._base_from_camera = SE3.identity()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="vo_stream worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread finish the image it is at, and wait for that; then do what was asked."""
        self._stopping = True
        self._inbox.wake()
        self._thread.join()
        self._do_what_was_asked()

    def ask(self, request: Callable[[], None]) -> None:
        """Have something done between two images."""
        self._requests.append(request)
        self._inbox.wake()

    def _run(self) -> None:
        while not self._stopping:
            try:
                arrival = self._inbox.get(IDLE_S)
                self._do_what_was_asked()
                if arrival is not None:
                    self._process(arrival)
                    self.failing = ""
                self._take_in()
                self._await_adjuster()
            except Exception as error:  # noqa: BLE001 - the odometer's state is as it was: go on
                self._fail(error)

    def _do_what_was_asked(self) -> None:
        while self._requests:
            request = self._requests.popleft()
            try:
                request()
            except Exception:  # it must not cost an image
                logger.exception("a request failed")

    def _fail(self, error: Exception) -> None:
        self.failed += 1
        if not self.failing:  # one line for a thousand images
            logger.error("an image could not be processed", exc_info=error)
        self.failing = f"{type(error).__name__}: {error}"

    def _process(self, arrival: Arrival) -> None:
        stamp_ns = stamp_ns_of(arrival.message)
        if not 0 < stamp_ns <= LAST_STAMP_NS:
            self._refuse("the image's stamp is no time" if stamp_ns else "the image has no stamp")
            return
        try:
            image = grey_of(arrival.message)
        except ImageError as error:
            self._refuse(str(error), error.reason)
            return
        frame = Frame(stamp_ns, image, arrival.camera, self._travelled_m(stamp_ns))
        estimate = self._odometer.step(frame)
        if estimate.refused:
            # The odometer has logged it.
            self._count_refusal(estimate.reason, DIGITS.sub("#", estimate.reason))
            return
        self.refusing = ""
        before, self.last = self.last, estimate
        dt_s = float("nan")
        if before is not None and before.session == estimate.session:
            dt_s = (estimate.stamp_ns - before.stamp_ns) / NANOSECONDS
        else:
            self.refinement = None
        self._base_from_camera = arrival.base_from_camera
        self._outputs.publish_estimate(estimate, arrival.base_from_camera, dt_s)
        self.published += 1
        self.latencies_ms.append(1e3 * (time.perf_counter() - arrival.arrived_s))
        self._link.send(frame, estimate)

    def _take_in(self) -> None:
        """Take what the adjuster has to say."""
        while (refinement := self._link.poll()) is not None:
            self._odometer.refine(refinement)
            if self.last is not None and refinement.session == self.last.session:
                self.refinement = refinement
                self._outputs.publish_refinement(refinement, self._base_from_camera)
        before, self.link_status = self.link_status, self._link.status()
        if before.state != self.link_status.state:
            logger.info("adjuster: %s", self.link_status.state)

    def _await_adjuster(self) -> None:
        """Hold the images back while the adjuster works and has as many as it may."""
        if self._most_waiting is None:
            return
        restarts = self.link_status.restarts
        while (
            self.link_status.waiting >= self._most_waiting
            and self.link_status.restarts == restarts
            and not self.link_status.hopeless
            and not self._stopping
        ):
            time.sleep(WAIT_S)
            self._do_what_was_asked()
            self._take_in()

    def _refuse(self, why: str, reason: str = "") -> None:
        """Leave out an image; `reason`: what to count it by, if not `why`."""
        if self.refusing != why:  # one line for a thousand images
            logger.warning("image refused: %s", why)
        self._count_refusal(why, reason or why)

    def _count_refusal(self, why: str, reason: str) -> None:
        self.refused[reason] += 1
        self.refusing = why
