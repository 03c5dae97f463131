"""The sockets of a link: one pair for both ways, the same on this computer and across a network.

The link has a DEALER, the adjuster a ROUTER. One connection carries frames there and refinements
back, so that a network needs one open port and one pair of keys, and the adjuster knows whom it
answers. (PUSH and PULL would take two of each.)
"""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from vo_stream.link.packet import MAX_MESSAGE_BYTES, Part, joined, split

RECONNECT_MS = 20
"""Between attempts to reach an adjuster that is just starting."""
MAX_RECONNECT_MS = 2000
LIVENESS_MS = 2000
"""A network connection without a sign of life for three times this is closed on both sides."""


def link_socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """Return the link's end, not connected."""
    socket = context.socket(zmq.DEALER)
    socket.reconnect_ivl, socket.reconnect_ivl_max = RECONNECT_MS, MAX_RECONNECT_MS
    return _bounded(socket)


def adjuster_socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """Return the adjuster's end, not bound."""
    return _bounded(context.socket(zmq.ROUTER))


def send(socket: zmq.Socket[bytes], parts: Sequence[Part], peer: bytes = b"") -> None:
    """Send a message, to `peer` where the socket is an adjuster's; raises zmq.Again where
    it would have to wait.

    It goes in one piece: libzmq ends the process when a socket is closed on a dead peer while a
    message of several parts is half sent (seen in 4.3.5).
    """
    message = joined(parts)
    socket.send_multipart([peer, message] if peer else [message], zmq.NOBLOCK)


def received(socket: zmq.Socket[bytes]) -> list[Part] | None:
    """Return the parts of the next message, not copied; None where none has come.

    At an adjuster the peer comes first. What is no message of ours has no parts.
    """
    try:
        pieces = [piece.buffer for piece in socket.recv_multipart(zmq.NOBLOCK, copy=False)]
    except zmq.Again:
        return None
    peer = pieces[:1] if socket.type == zmq.ROUTER else []
    message = pieces[len(peer) :]
    return [*peer, *(split(message[0]) if len(message) == 1 else [])]


def _bounded(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    socket.linger = 0
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)  # else a length that lies is believed
    socket.setsockopt(zmq.HEARTBEAT_IVL, LIVENESS_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * LIVENESS_MS)
    return socket


def can(ability: str) -> bool:
    """Say whether this libzmq has an ability, such as "ipc" or "curve"."""
    return bool(zmq.has(ability))
