"""The process that an adjuster lives in: started, ended, and started anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import vo_stream

WORKER = (sys.executable, "-m", "vo_stream.link.worker")
"""The command of an adjuster on this computer."""

ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM",
    )
}  # fmt: skip
"""The adjuster takes one core; the others are the live side's."""

MAX_FOLDER_BYTES = 80
"""A socket's path may have 107 bytes, on some systems 103."""

END_LIMIT_S = 5.0
"""A process that was killed is gone within this time."""


class AdjusterPlace(Protocol):
    """Where an adjuster runs. `local`: whether it is ours to start and to end."""

    local: bool

    def start(self) -> str:
        """Have an adjuster there; return its endpoint. Raises OSError where none can be started."""
        ...

    def is_running(self) -> bool:
        """Return False where the adjuster is known to have ended."""
        ...

    def stop(self) -> None:
        """End the adjuster, whatever it is doing."""
        ...

    def close(self) -> None:
        """End the adjuster and free what `start` needs."""
        ...


class Elsewhere:
    """An adjuster on another computer: somebody else starts and ends it."""

    local = False

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def start(self) -> str:
        """Return its endpoint."""
        return self._endpoint

    def is_running(self) -> bool:
        """Return True: nobody knows."""
        return True

    def stop(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class WorkerProcess:
    """An adjuster in a process of its own, reached through a socket that only this user can open.

    The process holds the other end of a pipe and ends with it: when this process ends, however it
    does. It is killed to end it, since it has nothing to tidy up.
    """

    local = True

    def __init__(self, command: Sequence[str] = WORKER) -> None:
        self._command = tuple(command)
        self._folder = _private_folder()
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0

    @property
    def pid(self) -> int | None:
        """The number of the process; None where there is none."""
        return self._process.pid if self._process else None

    def start(self) -> str:
        """Start the process anew; raises OSError."""
        self.stop()
        self._started += 1
        endpoint = f"ipc://{self._folder / str(self._started)}"
        self._process = subprocess.Popen(
            [*self._command, "--child", "--listen", endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd=Path(vo_stream.__file__).parent.parent,  # the same vo_stream as here, for `-m`
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,  # Ctrl-C in the terminal is for this process to deal with
        )
        return endpoint

    def is_running(self) -> bool:
        """Return whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Kill the process and remove its socket."""
        if self._process is None:
            return
        self._process.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):  # the system's business from here on
            self._process.wait(END_LIMIT_S)
        self._process = None
        (self._folder / str(self._started)).unlink(missing_ok=True)

    def close(self) -> None:
        """Kill the process and remove the folder."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _private_folder() -> Path:
    """Return a new folder with a short path that only this user can enter; raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix="vo_"))
    if len(os.fsencode(folder)) <= MAX_FOLDER_BYTES:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="vo_", dir="/tmp"))
