"""What the node holds while it goes through its life again and again, for `bench_ros.py`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from bench_ros_process import NODE_PARAMETERS, Graph, Usage, table, usage_of
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from vo_stream.ros import interface

LIFE_S = 600.0
"""Hard limit of the whole measurement."""

WAIT_S = 30.0
"""A transition, and the first odometry after it, take no longer."""

ASKED = 3
"""Times a transition is asked for, within that time."""

ODOMETRIES = 5
"""Odometries that are waited for in each cycle."""

CAMERA = ["--size", "640x480", "--encoding", "mono8", "--rate", "30"]

CYCLE = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
)


class Driver:
    """Changes the node's state by its services and hears its odometry."""

    def __init__(self, domain: int) -> None:
        self.heard = 0
        self._context = Context()
        rclpy.init(args=[], context=self._context, domain_id=domain)
        node = Node("bench_driver", context=self._context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        name = f"/{interface.NODE_NAME}"
        self._client = node.create_client(ChangeState, f"{name}/change_state")
        node.create_subscription(Odometry, f"{name}/odometry", self._on_odometry, 10)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        rclpy.shutdown(context=self._context)

    def meet(self) -> None:
        """Wait until the node is there; raises RuntimeError where it does not come."""
        self._spin_until(self._client.service_is_ready, "the node does not come")

    def change(self, transition: int) -> None:
        """Have the node change its state; raises RuntimeError where it does not.

        Fast DDS loses a request or an answer now and then: it is asked again. A node that refuses
        then has heard the first.
        """
        for asked in range(ASKED):
            request = ChangeState.Request(transition=Transition(id=transition))
            future = self._client.call_async(request)
            if self._spun(future.done, WAIT_S / ASKED):
                if not (future.result().success or asked):
                    raise RuntimeError(f"the node refused transition {transition}")
                return
        raise RuntimeError(f"no answer to transition {transition} within {WAIT_S:g} s")

    def hear(self, count: int) -> None:
        """Wait for so many odometries more; raises RuntimeError where they do not come."""
        until = self.heard + count
        self._spin_until(lambda: self.heard >= until, "no odometry comes")

    def _on_odometry(self, _: Any) -> None:
        self.heard += 1

    def _spin_until(self, holds: Callable[[], bool], else_: str) -> None:
        if not self._spun(holds, WAIT_S):
            raise RuntimeError(f"{else_} within {WAIT_S:g} s")

    def _spun(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Spin until something holds; return whether it does by then."""
        end = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True


def cycles(graph: Graph, footage: Path, count: int, adjust: bool) -> dict[str, Any]:
    """Take the node through `count` cycles while images come; return what it held, and the end.

    The node is looked at unconfigured: at the start, after the first cycle, in the middle and at
    the end. Then it is activated again, and the time from SIGINT to the end of the node and all
    it started is taken.
    """
    camera = graph.start_role("publish", "--footage", footage, *CAMERA)
    parameters = {**NODE_PARAMETERS, "node.autostart": False, "adjust.enabled": adjust}
    node = graph.start_node(parameters)
    os.environ.update(graph.environment)
    driver = Driver(graph.domain)
    marks = {count // 2: "middle", 0: "start", 1: "first cycle", count: "end"}
    held: dict[str, dict[str, Any]] = {}
    try:
        driver.meet()
        began = time.monotonic()
        for done in range(count + 1):
            if done:
                _cycle(driver)
            if done in marks:
                held[marks[done]] = usage_of(node.pid)._asdict()
        cycle_s = (time.monotonic() - began) / max(1, count)
        for transition in CYCLE[:2]:
            driver.change(transition)
        driver.hear(ODOMETRIES)
        active = usage_of(node.pid)._asdict()
        end_s = node.end()
    except RuntimeError as error:
        raise RuntimeError(f"{error}; its last words:\n{node.said()}") from None
    finally:
        driver.close()
    camera.line()
    camera.result()
    return {
        "cycles": count,
        "adjust": adjust,
        "held": {**held, "active again": active},
        "cycle_s": cycle_s,
        "sigint_to_exit_s": end_s,
        "exit_code": node.popen.wait(),
    }


def _cycle(driver: Driver) -> None:
    configure, activate, deactivate, cleanup = CYCLE
    driver.change(configure)
    driver.change(activate)
    driver.hear(ODOMETRIES)
    driver.change(deactivate)
    driver.change(cleanup)


def cycles_text(result: dict[str, Any]) -> str:
    """Return what the node held as a table, and how it ended."""
    rows = [["", "RSS MB", "threads", "open files", "sockets", "children"]]
    for when, values in result["held"].items():
        usage = Usage(**values)
        rows.append([when, f"{usage.rss_mb:.1f}", *map(str, usage[1:])])
    adjuster = "with" if result["adjust"] else "without"
    return "\n".join(
        [
            f"{result['cycles']} cycles {adjuster} the adjuster, {result['cycle_s']:.2f} s each; "
            f"{result['machine']}",
            *table(rows),
            f"SIGINT to the end of all: {result['sigint_to_exit_s']:.2f} s, exit code "
            f"{result['exit_code']}",
        ]
    )
