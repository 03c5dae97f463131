"""The link to an adjuster in another process or on another computer."""

from __future__ import annotations

import atexit
import logging
import secrets
import time
from collections import deque
from collections.abc import Sequence

import zmq

from vo_stream.config import Config, LinkConfig
from vo_stream.errors import LinkError
from vo_stream.link.channel import Link, LinkStatus, NoLink
from vo_stream.link.keys import protect_link
from vo_stream.link.packet import WireError
from vo_stream.link.process import WORKER, AdjusterPlace, Elsewhere, WorkerProcess
from vo_stream.link.sockets import link_socket, received, send
from vo_stream.link.wire import (
    COMPILING,
    READY,
    AdjusterState,
    Message,
    decode,
    encode_frame,
    encode_hello,
    encode_settings,
)
from vo_stream.values import Estimate, Frame, Refinement

logger = logging.getLogger(__name__)

STARTING, DEAD, CLOSED = "starting", "dead", "closed"

MAX_UNDER_WAY = 2
"""Frames that the adjuster may have at a time: one to work on, one so that it need not wait. The
others wait here, where the oldest can still be dropped."""

START_LIMIT_S = 120.0
"""An adjuster that is not ready after this long is replaced: its first start compiles."""

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 1.0
"""Before a restart, where the one before it helped nothing. Otherwise it is at once."""

HOPELESS = 3
"""After so many restarts without a single frame worked off, nothing waits for the adjuster."""

REFINEMENTS_KEPT = 1000
"""Where nobody fetches them the oldest goes."""

WAIT_S = 0.05
"""Longest wait, where one is allowed, before the adjuster is looked after again."""


class ZmqLink:
    """A `Link` whose adjuster is another process, which it starts and replaces as needed.

    With `config.link.endpoint` the adjuster is on another computer and is only connected to anew.
    `lossless`: for recordings; where a frame would be dropped, `send` waits for the adjuster
    instead, as long as there is hope that it works. `command`: what starts the process.
    Raises LinkError where the link cannot be set up. There is no thread: `send`, `poll` and
    `finish` do all the work, so an adjuster that ends is replaced at the next of them.
    """

    def __init__(
        self, config: Config, *, lossless: bool = False, command: Sequence[str] = WORKER
    ) -> None:
        self._config = config.link
        self._settings = encode_settings(config)
        self._lossless = lossless
        self._queue: deque[tuple[Frame, Estimate]] = deque()
        self._refinements: deque[Refinement] = deque(maxlen=REFINEMENTS_KEPT)
        self._sent = self._dropped = self._received = self._restarts = 0
        self._faults = self._faults_there = 0
        self._failures = 0
        self._state = DEAD
        self._stream = self._serial = self._done = 0
        self._socket: zmq.Socket[bytes] | None = None
        self._place = _place(config.link, command)
        self._context = zmq.Context()
        try:
            self._start()
        except (LinkError, OSError, zmq.ZMQError) as error:
            self.close()
            if isinstance(error, LinkError):
                raise
            raise LinkError(f"the adjuster cannot be started or reached: {error}") from None
        atexit.register(self.close)

    def send(self, frame: Frame, estimate: Estimate) -> bool:
        """Take a frame; see `Link.send`."""
        if estimate.refused:
            return True
        dropped = self._dropped
        self._sent += 1
        self._attend()
        if self._lossless:
            self._wait_for_room()
        if self._state == CLOSED:
            self._dropped += 1
            return False
        if not self._waiting:
            self._owed_since = time.monotonic()
        self._queue.append((frame, estimate))
        self._hand_over()
        if len(self._queue) > self._config.queue:
            self._queue.popleft()
            self._dropped += 1
        return self._dropped == dropped

    def poll(self) -> Refinement | None:
        """Return the oldest refinement that has come; see `Link.poll`."""
        self._attend()
        return self._refinements.popleft() if self._refinements else None

    def status(self) -> LinkStatus:
        """Say how the link fares, as of the last call."""
        return LinkStatus(
            alive=self._state in (COMPILING, READY),
            state=self._state,
            sent=self._sent,
            dropped=self._dropped,
            waiting=self._waiting,
            received=self._received,
            faults=self._faults + self._faults_there,
            restarts=self._restarts,
            age_s=time.monotonic() - self._heard_at,
            hopeless=self._failures >= HOPELESS,
        )

    def finish(self, timeout_s: float) -> bool:
        """Wait until all frames are worked off; see `Link.finish`."""
        deadline = time.monotonic() + timeout_s
        self._attend()
        while self._waiting and self._failures < HOPELESS:
            left_s = deadline - time.monotonic()
            if left_s <= 0.0:
                break
            self._wait(min(left_s, WAIT_S))
        return not self._waiting

    def close(self) -> None:
        """End the adjuster and remove all traces; what still waits counts as dropped."""
        if self._state == CLOSED:
            return
        self._dropped += self._waiting
        self._queue.clear()
        self._disconnect()
        self._state = CLOSED
        self._place.close()
        self._context.term()
        atexit.unregister(self.close)

    @property
    def _under_way(self) -> int:
        """How many frames the adjuster has."""
        return self._serial - self._done

    @property
    def _waiting(self) -> int:
        return len(self._queue) + self._under_way

    def _start(self) -> None:
        """Begin a stream with a new adjuster; raises what a wrong setting or the system says."""
        self._stream = secrets.randbits(64)
        self._heard_at = self._owed_since = time.monotonic()
        endpoint = self._place.start()
        self._socket = link_socket(self._context)
        if not self._place.local:
            protect_link(self._socket, self._config)
        self._socket.connect(endpoint)
        send(self._socket, encode_hello(self._stream))
        self._state = STARTING

    def _attend(self) -> None:
        """Take in what has come, see to the adjuster's health, hand over what it has room for."""
        if self._state == CLOSED:
            return
        self._receive()
        if self._state == DEAD:
            self._restart_in_time()
        elif fault := self._fault():
            self._give_up(fault)
            self._restart_in_time()
        self._hand_over()

    def _fault(self) -> str:
        """Return what is wrong with the adjuster; empty where nothing is known to be."""
        if not self._place.is_running():
            return "ended"
        patience_s = self._config.hang_s
        if self._state == COMPILING or (self._state == STARTING and self._place.local):
            patience_s = START_LIMIT_S
        silent = self._waiting and time.monotonic() - self._owed_since > patience_s
        return f"has not answered for {patience_s:g} s" if silent else ""

    def _give_up(self, fault: str) -> None:
        """Part with the adjuster and the frames it has."""
        log = logger.debug if self._failures else logger.warning  # one line for a thousand
        where = self._config.endpoint or "in the background"
        log("the adjuster %s %s: starting anew", where, fault)
        self._dropped += self._under_way
        self._disconnect()
        self._place.stop()
        self._state = DEAD
        delay_s = FIRST_BACKOFF_S * 2**self._failures if self._failures else 0.0
        self._start_at = time.monotonic() + min(delay_s, MAX_BACKOFF_S)
        self._failures = min(self._failures + 1, HOPELESS)

    def _restart_in_time(self) -> None:
        if time.monotonic() < self._start_at:
            return
        self._restarts += 1
        try:
            self._start()
        except (LinkError, OSError, zmq.ZMQError) as error:
            self._give_up(f"cannot be started ({error})")

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None
        self._serial = self._done = 0

    def _receive(self) -> None:
        while self._socket is not None and (parts := received(self._socket)) is not None:
            try:
                stream, message = decode(parts)
            except WireError as error:
                self._faults += 1
                logger.debug("a message that cannot be used: %s", error)
                continue
            if stream == self._stream:  # else of an adjuster that was given up
                self._hear(message)

    def _hear(self, message: Message) -> None:
        self._heard_at = time.monotonic()
        if isinstance(message, Refinement):
            self._received += 1
            self._refinements.append(message)
        elif isinstance(message, AdjusterState):
            done = min(message.done, self._serial)
            if done > self._done or message.state != READY or self._state != READY:
                self._owed_since = self._heard_at
            if done > self._done:
                self._done = done
                self._failures = 0
            self._state = message.state
            self._faults_there = message.faults
        else:
            self._faults += 1

    def _hand_over(self) -> None:
        """Let the adjuster have frames, the oldest first, up to what it may have at a time."""
        while self._queue and self._state == READY and self._under_way < MAX_UNDER_WAY:
            assert self._socket is not None
            frame, estimate = self._queue[0]
            try:
                serial = self._serial + 1
                parts = encode_frame(self._stream, serial, self._settings, frame, estimate)
                send(self._socket, parts)
                self._serial = serial
            except zmq.Again:
                return
            except WireError as error:
                self._dropped += 1
                logger.warning("a frame that cannot be sent: %s", error)
            self._queue.popleft()

    def _wait_for_room(self) -> None:
        while len(self._queue) >= self._config.queue and self._failures < HOPELESS:
            self._wait(WAIT_S)

    def _wait(self, timeout_s: float) -> None:
        """Let time pass until something comes, and attend to it."""
        if self._socket is None:
            time.sleep(timeout_s)
        else:
            self._socket.poll(int(1e3 * timeout_s) + 1)
        self._attend()


def open_background_link(config: Config) -> Link:
    """Return the way to an adjuster in another process, or to none where it is not enabled.

    Raises LinkError.
    """
    return ZmqLink(config) if config.adjust.enabled else NoLink()


def _place(config: LinkConfig, command: Sequence[str]) -> AdjusterPlace:
    if config.endpoint:
        return Elsewhere(config.endpoint)
    try:
        return WorkerProcess(command)
    except OSError as error:
        raise LinkError(f"no folder for the adjuster's socket: {error}") from None
