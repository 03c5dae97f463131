"""Processes of a measurement, each under a hard limit, and what /proc says of them (Linux)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from domain_coordinator import domain_id

ROLES = Path(__file__).with_name("bench_ros_roles.py")

PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"

NODE_PARAMETERS = {"node.autostart": True, "frames.mount": "forward"}

POLL_S = 0.002

KILL_AFTER_S = 5
"""What does not end when its limit is over is killed so much later."""

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_PROC = Path("/proc")
_STATE, _PARENT, _USER_TICKS, _SYSTEM_TICKS, _THREADS, _PAGES = 0, 1, 11, 12, 17, 21
"""Where proc_pid_stat(5) says these, behind the name of the program."""


class Usage(NamedTuple):
    """What a process holds: resident memory, threads, open files, of them sockets, descendants."""

    rss_mb: float
    threads: int
    handles: int
    sockets: int
    children: int


class Process:
    """A program in a session of its own. What it writes goes to `log`.

    `answers`: its stdout is read here, by `line`.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        log: Path,
        limit_s: float,
        answers: bool = False,
    ) -> None:
        self._log = log
        with log.open("ab") as errors:
            self.popen = subprocess.Popen(
                ["timeout", f"--kill-after={KILL_AFTER_S}", f"{limit_s:.0f}", *command],
                env=environment,
                cwd=log.parent,
                stdout=subprocess.PIPE if answers else errors,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The program's own, behind `timeout`; raises RuntimeError where it has ended."""
        found = children_of(self.popen.pid)
        if not found:
            raise RuntimeError(f"a process ended early:\n{self.said()}")
        return found[0]

    def line(self) -> str:
        """Wait for the next line; raises RuntimeError where the process ends instead."""
        assert self.popen.stdout is not None
        text = self.popen.stdout.readline().strip()
        if not text:
            raise RuntimeError(f"a process ended early:\n{self.said()}")
        return str(text)

    def interrupt(self) -> list[int]:
        """Send SIGINT once to each of its processes, as a terminal does; return those."""
        family = descendants(self.popen.pid)
        for pid in family:
            _send(pid, signal.SIGINT)
        return family

    def result(self) -> Any:
        """Interrupt it, and return what it then has to say."""
        self.interrupt()
        return json.loads(self.line())

    def end(self) -> float:
        """Interrupt it and return the seconds until it and all it started have ended."""
        began = time.monotonic()
        family = self.interrupt()
        while any(map(is_running, family)):
            time.sleep(POLL_S)
        return time.monotonic() - began

    def kill(self) -> None:
        """End it and all it started."""
        for pid in [*descendants(self.popen.pid), self.popen.pid]:
            _send(pid, signal.SIGKILL)
        self.popen.communicate()

    def said(self) -> str:
        """Return the end of what it wrote to stderr."""
        return self._log.read_text(errors="replace")[-2000:]


class Graph:
    """A ROS graph on this computer, on a domain of its own; its processes end with it.

    `profile`: what DDS is configured with; None: nothing. `limit_s`: of each process.
    """

    def __init__(self, folder: Path, domain: int, profile: Path | None, limit_s: float) -> None:
        self.folder = folder
        self.domain = domain
        self.environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str(folder),
        }
        self.environment.pop(PROFILE_VARIABLE, None)
        if profile is not None:
            self.environment[PROFILE_VARIABLE] = str(profile)
        self._limit_s = limit_s
        self._processes: list[Process] = []

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()

    def start(self, command: list[str], answers: bool = False) -> Process:
        """Start a process."""
        log = self.folder / f"process{time.monotonic_ns()}.log"
        process = Process(command, self.environment, log, self._limit_s, answers)
        self._processes.append(process)
        return process

    def start_role(self, name: str, *options: object) -> Process:
        """Start one of the roles of `bench_ros_roles.py`."""
        return self.start([sys.executable, str(ROLES), name, *map(str, options)], answers=True)

    def start_node(self, parameters: Mapping[str, object]) -> Process:
        """Start the node of vo_stream."""
        values = []
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            values += ["-p", f"{name}:={text}"]
        return self.start([sys.executable, "-m", "vo_stream.ros.main", "--ros-args", *values])


@contextmanager
def new_graph(folder: Path, profile: Path | None, limit_s: float) -> Iterator[Graph]:
    """Yield a graph on a domain that nobody else uses."""
    with domain_id() as domain, Graph(folder, int(domain), profile, limit_s) as graph:
        yield graph


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        " ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def usage_of(pid: int) -> Usage:
    """Return what a process holds."""
    stat = _stat(pid)
    names = []
    for handle in (_PROC / str(pid) / "fd").iterdir():
        try:
            names.append(str(handle.readlink()))
        except OSError:
            continue
    return Usage(
        rss_mb=int(stat[_PAGES]) * PAGE_BYTES / 1e6,
        threads=int(stat[_THREADS]),
        handles=len(names),
        sockets=sum(name.startswith("socket:") for name in names),
        children=len(descendants(pid)),
    )


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far; 0 where it has ended."""
    try:
        stat = _stat(pid)
    except OSError:
        return 0.0
    return (int(stat[_USER_TICKS]) + int(stat[_SYSTEM_TICKS])) / CLOCK_TICKS


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return str(_stat(pid)[_STATE]) not in "ZX"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that run."""
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = _stat(int(entry.name))
            except OSError:
                continue
            if int(stat[_PARENT]) == pid and str(stat[_STATE]) not in "ZX":
                found.append(int(entry.name))
    return found


def descendants(pid: int) -> list[int]:
    """Return the children of a process, theirs, and so on."""
    return [p for child in children_of(pid) for p in (child, *descendants(child))]


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _stat(pid: int) -> list[Any]:
    """Return the fields of /proc/PID/stat behind the program's name, which may hold spaces."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
