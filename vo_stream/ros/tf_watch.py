"""Noticing that somebody else publishes a transform that the node publishes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vo_stream.io_config import FramesConfig, PublishConfig
from vo_stream.ros.static_tf import plain_name

OWN_KEPT = 1000
"""Own transforms that are known again when they come back; they do within milliseconds."""


class ParentWatch:
    """Other parents of the frames whose parent the node says.

    It is fed what is heard on /tf and /tf_static, the node's own messages among it: rclpy does not
    say who sent a message. So whatever was not given to `published` before (frames, stamp and
    values) is somebody else's. That finds another publisher of the very same transform as well as
    one with another parent, whoever begins. One watch serves the node for as long as its frames
    keep their names. `published` may be called from another thread than the rest.
    """

    def __init__(self, frames: FramesConfig) -> None:
        self._frames = frames
        self._own: dict[tuple[object, ...], None] = {}
        self._mounted = ""
        self._others: dict[str, str] = {}

    def published(self, transforms: Iterable[Any]) -> None:
        """Note transforms of the node's own; to be called before they are published."""
        ours = (plain_name(self._frames.base), plain_name(self._frames.odom))
        for transform in transforms:
            self._own[_identity(transform)] = None
            child = plain_name(transform.child_frame_id)
            if child not in ours:
                self._mounted = child
        while len(self._own) > OWN_KEPT:
            del self._own[next(iter(self._own))]

    def heard(self, transforms: Iterable[Any]) -> None:
        """Take in the transforms of a TFMessage."""
        for transform in transforms:
            if _identity(transform) not in self._own:
                child = plain_name(transform.child_frame_id)
                self._others[child] = plain_name(transform.header.frame_id)

    def conflict(self, publish: PublishConfig) -> str:
        """Say in one line which transform has two publishers, and what to do; empty: none has.

        `publish`: what the node publishes now.
        """
        frames = self._frames
        for child, published, remedy in (
            (
                frames.base,
                publish.odom_tf,
                "set publish.odom_tf: false or name another frames.base",
            ),
            (frames.odom, publish.map_tf, "set publish.map_tf: false or name another frames.odom"),
            (self._mounted, True, "set frames.mount: tf_static"),
        ):
            parent = self._others.get(plain_name(child))
            if published and parent is not None:
                return (
                    f"{child} has the parent {parent} already, by another node: two publishers of "
                    f"one frame make it jump; {remedy}"
                )
        return ""


def _identity(transform: Any) -> tuple[object, ...]:
    """Return what tells a transform from all others."""
    stamp = transform.header.stamp
    t, q = transform.transform.translation, transform.transform.rotation
    names = plain_name(transform.header.frame_id), plain_name(transform.child_frame_id)
    return *names, stamp.sec, stamp.nanosec, t.x, t.y, t.z, q.x, q.y, q.z, q.w
