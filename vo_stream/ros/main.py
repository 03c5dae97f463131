"""The command vo_stream_node."""

from __future__ import annotations

import sys

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn

from vo_stream.errors import VoStreamError
from vo_stream.ros.node import VoStreamNode

SWITCH_S = 0.001
"""How long a Python thread may keep another one waiting: the executor must not wait for the
worker."""


def main() -> None:
    """Run the node until it is interrupted."""
    sys.setswitchinterval(SWITCH_S)
    rclpy.init()
    node = None
    code = 0
    try:
        node = VoStreamNode()
        code = _run(node)
    except VoStreamError as error:
        rclpy.logging.get_logger("vo_stream").fatal(str(error))
        code = 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    sys.exit(code)


def _run(node: VoStreamNode) -> int:
    if node.get_parameter("node.autostart").value:
        for step in (node.trigger_configure, node.trigger_activate):
            if step() is not TransitionCallbackReturn.SUCCESS:
                return 1
    else:
        node.get_logger().info("waiting to be configured; node.autostart: true does it at once")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    executor.spin()
    return 0


if __name__ == "__main__":
    main()
