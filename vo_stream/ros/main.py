"""The command vo_stream_node."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from vo_stream.encodings import silence_decoders
from vo_stream.errors import VoStreamError
from vo_stream.ros.process import Ending, prepare_process

logger = logging.getLogger(__name__)


def main() -> None:
    """Run the node until it is interrupted."""
    ending = prepare_process()
    silence_decoders()
    try:
        import rclpy
    except ImportError as error:
        sys.exit(f"vo_stream_node needs ROS 2 (make ros, or a ROS 2 installation): {error}")
    from rclpy._rclpy_pybind11 import RCLError, UnknownROSArgsError
    from rclpy.exceptions import ParameterException
    from rclpy.signals import SignalHandlerOptions

    from vo_stream.ros.node import VoStreamNode
    from vo_stream.ros.qos import reason_of

    node, code = None, 0
    try:
        _check_arguments(sys.argv)
        # rclpy's own handlers would end the context while the worker still publishes.
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = VoStreamNode()
        code = _run(node, ending)
    except (VoStreamError, ParameterException, RCLError, UnknownROSArgsError) as error:
        rclpy.logging.get_logger("vo_stream").fatal(reason_of(error))
        code = 2
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    sys.exit(code)


def _check_arguments(arguments: list[str]) -> None:
    from rclpy.utilities import remove_ros_args

    usage = argparse.ArgumentParser(
        "vo_stream_node",
        description="Live visual odometry on a ROS graph.",
        epilog="Parameters, remappings and the like follow --ros-args.",
    )
    usage.parse_args(remove_ros_args(arguments)[1:])


def _run(node: Any, ending: Ending) -> int:
    from rclpy._rclpy_pybind11 import RCLError
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.lifecycle import TransitionCallbackReturn

    if node.get_parameter("node.autostart").value:
        for step in (node.trigger_configure, node.trigger_activate):
            if step() is not TransitionCallbackReturn.SUCCESS:
                return 1
    else:
        node.get_logger().info("waiting to be configured; node.autostart: true does it at once")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not ending.asked:
        try:
            executor.spin_once()  # returns four times a second at least: the node has timers
        except RCLError:
            raise
        except Exception as error:
            logger.error("a message or request could not be dealt with: %r", error)
            logger.debug("it was raised here", exc_info=error)
    return 0


if __name__ == "__main__":
    main()
