"""What others say on /tf_static and /tf."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from vo_stream.ros import interface
from vo_stream.ros.mount import Mount
from vo_stream.ros.qos import profile
from vo_stream.ros.tf_watch import ParentWatch


class TransformListener:
    """Listens to /tf_static until it is closed, and to /tf while it is asked to.

    A busy /tf costs several percent of a core in Python, so nobody listens longer than needed to
    find out who else publishes.
    """

    def __init__(self, node: Any, mount: Mount, watch: ParentWatch) -> None:
        self._node = node
        self._mount = mount
        self._watch = watch
        self._static: Any = None
        self._moving: Any = None
        if find_spec("tf2_msgs") is not None:
            self._static = self._subscription(interface.TF_STATIC, self._on_static)

    def watch_moving(self, on: bool) -> None:
        """Begin or end listening to /tf."""
        if on and self._moving is None and self._static is not None:
            self._moving = self._subscription(interface.TF, self._on_moving)
        elif not on and self._moving is not None:
            self._node.destroy_subscription(self._moving)
            self._moving = None

    def close(self) -> None:
        """Stop listening."""
        self.watch_moving(False)
        if self._static is not None:
            self._node.destroy_subscription(self._static)
            self._static = None

    def _subscription(self, topic: interface.Topic, callback: Any) -> Any:
        from tf2_msgs.msg import TFMessage

        return self._node.create_subscription(TFMessage, topic.name, callback, profile(topic.qos))

    def _on_static(self, message: Any) -> None:
        self._mount.heard(message.transforms)
        self._watch.heard(message.transforms)

    def _on_moving(self, message: Any) -> None:
        self._watch.heard(message.transforms)
