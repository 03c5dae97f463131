"""The sockets of a link: one pair for both ways, the same on this computer and across a network.

The link has a DEALER, the adjuster a ROUTER. One connection carries frames there and refinements
back, so that a network needs one open port and one pair of keys, and the adjuster knows whom it
answers. (PUSH and PULL would take two of each.)
"""

from __future__ import annotations

import zmq

from vo_stream.link.packet import MAX_PART_BYTES, Part

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


def received(socket: zmq.Socket[bytes]) -> list[Part] | None:
    """Return the parts of the next message, not copied; None where none has come."""
    try:
        return [part.buffer for part in socket.recv_multipart(zmq.NOBLOCK, copy=False)]
    except zmq.Again:
        return None


def _bounded(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    socket.linger = 0
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_PART_BYTES)  # else a length that lies is believed
    socket.setsockopt(zmq.HEARTBEAT_IVL, LIVENESS_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * LIVENESS_MS)
    return socket


def can(ability: str) -> bool:
    """Say whether this libzmq has an ability, such as "ipc" or "curve"."""
    return bool(zmq.has(ability))
