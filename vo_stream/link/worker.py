"""The adjuster's process, and the command `vo_adjuster`, which offers it to other computers."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import zmq

from vo_stream.config import Config
from vo_stream.errors import LinkError
from vo_stream.link.channel import Adjusting
from vo_stream.link.keys import protect_adjuster
from vo_stream.link.packet import Part, WireError
from vo_stream.link.sockets import adjuster_socket, received, send
from vo_stream.link.wire import (
    COMPILING,
    READY,
    AdjusterState,
    FrameMessage,
    Hello,
    decode,
    encode_refinement,
    encode_state,
)

logger = logging.getLogger(__name__)

MakeAdjuster = Callable[[Config], Adjusting]
Load = Callable[[Callable[[str], None]], MakeAdjuster]
"""Loads what takes long, and calls back now and then with a word on how it goes."""

NICENESS = 10
"""The live side goes first."""

HEARTBEAT_S = 0.5
"""Between states, where nothing else happens."""

STREAMS_REMEMBERED = 64

IPC = "ipc://"


class Service:
    """Answers one link at a time: the one whose stream began last.

    The messages of streams before it change nothing.
    """

    def __init__(self, socket: zmq.Socket[bytes], load: Load) -> None:
        self._socket = socket
        self._load = load
        self._make_adjuster: MakeAdjuster
        self._adjuster: Adjusting | None = None
        self._config = Config()
        self._state = COMPILING
        self._peer = b""
        self._stream = 0
        self._over: deque[int] = deque(maxlen=STREAMS_REMEMBERED)
        self._frames: list[FrameMessage] = []
        self._done = self._faults = 0
        self._last_error = ""

    def run(self) -> None:
        """Load the adjuster, meanwhile say so to whoever asks; then work without end."""
        self._make_adjuster = self._load(self._progress)
        self._state = READY
        while True:
            self._tell()
            self._socket.poll(int(1e3 * HEARTBEAT_S))
            self._round()

    def _progress(self, what: str) -> None:
        logger.info("%s", what)
        self._receive()
        self._tell()

    def _round(self) -> None:
        """Work off all that has come."""
        self._receive()
        frames, self._frames = self._frames, []
        for message in frames:
            self._guarded(self._add, message)
            self._done = message.serial
        if frames:
            self._guarded(self._solve)

    def _tell(self) -> None:
        """Say the state to the link, if there is one."""
        if self._peer:
            state = AdjusterState(self._state, self._done, self._faults)
            self._answer(encode_state(self._stream, state))

    def _receive(self) -> None:
        while (parts := received(self._socket)) is not None:
            peer, *parts = parts
            try:
                stream, message = decode(parts)
                if not isinstance(message, Hello | FrameMessage):
                    raise WireError("a message that only an adjuster sends")
            except WireError as error:
                self._faults += 1
                if str(error) != self._last_error:  # one line for a thousand messages
                    logger.warning("a message that cannot be used: %s", error)
                    self._last_error = str(error)
                continue
            if stream in self._over:
                continue
            if stream != self._stream:
                self._begin(stream)
            self._peer = bytes(peer)
            if isinstance(message, FrameMessage):
                self._frames.append(message)

    def _begin(self, stream: int) -> None:
        self._over.append(self._stream)
        self._stream, self._done = stream, 0
        self._adjuster, self._frames = None, []

    def _add(self, message: FrameMessage) -> None:
        if self._adjuster is None or message.config != self._config:
            self._config = message.config
            self._adjuster = self._make_adjuster(message.config)
        self._adjuster.add(message.frame, message.estimate)

    def _solve(self) -> None:
        refinement = self._adjuster.solve() if self._adjuster else None
        if refinement is not None:
            self._answer(encode_refinement(self._stream, refinement))

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        """Have work done; an adjuster that fails is made anew, and the next frame goes on."""
        try:
            work(*arguments)
        except Exception as error:
            if repr(error) != self._last_error:
                logger.exception("the adjuster failed and starts anew")
                self._last_error = repr(error)
            self._adjuster = None

    def _answer(self, parts: Sequence[Part]) -> None:
        with suppress(zmq.Again):  # a link that does not fetch its answers goes without
            send(self._socket, parts, self._peer)


def serve(arguments: Sequence[str], load: Load) -> None:
    """Run an adjuster as the command line says, until it is told to end."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _end_with_parent(options.listen)
    else:  # a shell that starts it in the background has it ignore SIGINT
        for asked_to_end in (signal.SIGINT, signal.SIGTERM):
            signal.signal(asked_to_end, signal.default_int_handler)
    level = logging.WARNING if options.child else logging.INFO
    logging.basicConfig(format="vo_adjuster: %(levelname)s: %(message)s", level=level)
    os.nice(NICENESS)
    try:
        with _listening(options.listen, options.key, options.clients) as socket:
            logger.info("listening at %s", options.listen)
            Service(socket, load).run()
    except LinkError as error:
        parser.exit(1, f"vo_adjuster: {error}\n")
    except KeyboardInterrupt:
        logger.info("interrupted")


@contextmanager
def _listening(endpoint: str, key: str, clients: str) -> Iterator[zmq.Socket[bytes]]:
    """Yield a socket that is bound; raises LinkError."""
    context = zmq.Context()
    socket, authenticator = adjuster_socket(context), None
    try:
        if not endpoint.startswith(IPC):
            authenticator = protect_adjuster(socket, endpoint, key, clients)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise LinkError(f"{endpoint}: cannot listen there ({error})") from None
        yield socket
    finally:
        if authenticator:
            authenticator.stop()
        context.destroy(linger=0)


def _end_with_parent(endpoint: str) -> None:
    """Have this process end when the other end of its standard input is gone.

    That is when the parent ends, however it does. A thread waits for it, so that it holds during
    long work too; the socket is removed here, for the parent may not have had the time.
    """

    def wait() -> None:
        while os.read(0, 1):
            pass
        path = Path(endpoint.removeprefix(IPC))
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()
        os._exit(0)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "vo_adjuster",
        description="Refine the trajectory of a robot's vo_stream, for one at a time.",
    )
    parser.add_argument("--listen", required=True, help="address to offer it at: tcp://host:port")
    parser.add_argument("--key", default="", help="file with this adjuster's secret CURVE key")
    parser.add_argument("--clients", default="", help="folder with the robots' public keys, *.key")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser


def _load(progress: Callable[[str], None]) -> MakeAdjuster:
    from vo_stream.adjust.adjuster import Adjuster, compile_adjuster

    compile_adjuster(progress)
    return Adjuster


def main() -> None:
    """Run the command `vo_adjuster`."""
    serve(sys.argv[1:], _load)


if __name__ == "__main__":
    main()
