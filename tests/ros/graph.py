"""A ROS graph for one test: real DDS, a domain of its own, processes under a hard limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import rclpy
from domain_coordinator import domain_id
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

LIMIT_S = 120
"""A process that lives longer is killed, whatever became of the test."""

NODE = "/vo_stream"

CONFIGURE = Transition.TRANSITION_CONFIGURE
CLEANUP = Transition.TRANSITION_CLEANUP
ACTIVATE = Transition.TRANSITION_ACTIVATE
DEACTIVATE = Transition.TRANSITION_DEACTIVATE

ANSWER_S = 2.0
"""An answer that has not come by then may be lost: rmw_fastrtps drops it where the service has not
found the client 0.1 s after the request. On a busy computer that happens to some first calls."""

ASKED = 10
"""How often a question is asked until it fails."""

FIRST_PORT, PORTS_OF_A_DOMAIN = 7400, 250
"""Domain n has the UDP ports from 7400 + 250 n on (DDSI-RTPS 2.5, 9.6.2)."""


@contextmanager
def quiet_domain() -> Iterator[int]:
    """Reserve a domain that nobody is on.

    Its last user, another worker perhaps, may have left a participant behind: rclpy's lifecycle
    nodes stay on the graph after `destroy_node`, until the garbage is collected. Their services are
    found, and never answer.
    """
    with domain_id(_quiet_domains().__next__) as domain:
        yield int(domain)


def _quiet_domains() -> Iterator[int]:
    sockets = Path("/proc/net/udp").read_text().splitlines()[1:]
    ports = [int(line.split()[1].rpartition(":")[2], 16) for line in sockets]
    busy = {(port - FIRST_PORT) // PORTS_OF_A_DOMAIN for port in ports}
    yield from (domain for domain in range(1, 101) if domain not in busy)


class Graph:
    """What a test needs of ROS: a node of its own, spun while it waits, and other processes."""

    def __init__(self, domain: int, folder: Path) -> None:
        self.folder = folder
        self.domain = domain
        self.environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str(folder),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore:failed to send response:RuntimeWarning",  # see ANSWER_S
        }
        self.context = Context()
        rclpy.init(args=[], context=self.context, domain_id=domain)
        self.node = Node("tester", context=self.context, start_parameter_services=False)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.processes: list[Process] = []

    def close(self) -> None:
        for process in self.processes:
            process.end()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def spin(self, seconds: float) -> None:
        """Take part in the graph for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.0:
            self.executor.spin_once(timeout_sec=left)

    def spin_until(self, holds: Callable[[], object], timeout_s: float = 20.0) -> None:
        """Take part until something holds; fail if it does not."""
        assert self._spun(holds, timeout_s), f"not within {timeout_s:g} s{self.said()}"

    def _spun(self, holds: Callable[[], object], timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while not (held := holds()) and time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)
        return bool(held)

    def call(self, kind: Any, name: str, request: Any = None, timeout_s: float = 20.0) -> Any:
        """Call a service and return its response."""
        with self._client(kind, name, timeout_s) as client:
            future = client.call_async(request or kind.Request())
            self.spin_until(future.done, timeout_s)
            return future.result()

    @contextmanager
    def _client(self, kind: Any, name: str, timeout_s: float = 20.0) -> Iterator[Any]:
        client = self.node.create_client(kind, name)
        try:
            self.spin_until(client.service_is_ready, timeout_s)
            yield client
        finally:
            self.node.destroy_client(client)

    def change_state(self, transition: int, node: str = NODE) -> bool:
        """Ask a lifecycle node for a transition; return whether it succeeded.

        Where the answer is lost (`ANSWER_S`) the node's state tells.
        """
        before = self.state(node)
        with self._client(ChangeState, f"{node}/change_state") as client:
            request = ChangeState.Request(transition=Transition(id=transition))
            future = client.call_async(request)
            if self._spun(future.done, ANSWER_S):
                return bool(future.result().success)
            after = self.state(node)  # what is asked later is answered later
            return bool(future.result().success) if future.done() else after != before

    def state(self, node: str = NODE) -> str:
        """Return the state of a lifecycle node; where the answer is lost, ask again."""
        with self._client(GetState, f"{node}/get_state") as client:
            for _ in range(ASKED):
                future = client.call_async(GetState.Request())
                if self._spun(future.done, ANSWER_S):
                    return str(future.result().current_state.label)
        raise AssertionError(f"no answer to {ASKED} requests{self.said()}")

    def start(self, *command: object, **environment: str) -> Process:
        """Start a process in this graph; it ends with the test."""
        process = Process(list(map(str, command)), {**self.environment, **environment}, self.folder)
        self.processes.append(process)
        return process

    def start_node(self, *arguments: object, **parameters: object) -> Process:
        """Start the vo_stream node with parameters whose dots are written as two underscores.

        Unless told otherwise it runs the geometric backend, which costs least.
        """
        values: list[object] = []
        for name, value in {"net__backend": "geometric", **parameters}.items():
            text = str(value).lower() if isinstance(value, bool) else value
            values += ["-p", f"{name.replace('__', '.')}:={text}"]
        command = [sys.executable, "-m", "vo_stream.ros.main", "--ros-args", *values, *arguments]
        return self.start(*command)

    def said(self) -> str:
        """Return what the processes wrote, for the message of a failure."""
        return "".join(f"\n--- {p.command}\n{p.output()[-3000:]}" for p in self.processes)


class Process:
    """A process of the graph, in a process group of its own."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self.command = " ".join(command)
        self._log = folder / f"process{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                ["timeout", "--kill-after=5", str(LIMIT_S), *command],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        """Return what it has written so far."""
        return self._log.read_text(errors="replace")

    def interrupt(self, timeout_s: float = 10.0) -> float:
        """Send SIGINT to its group, as a terminal does, and return the seconds until it ended."""
        began = time.monotonic()
        os.killpg(self.popen.pid, signal.SIGINT)
        self.popen.wait(timeout_s)
        return time.monotonic() - began

    def end(self) -> None:
        """Let it end in order, since DDS leaves files behind else, or kill it."""
        if self.popen.poll() is None:
            self.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(3.0)
        self.kill()

    def kill(self) -> None:
        """End it and all it started."""
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
