"""The memory of a benchmark: of the process that is asked, and of the GPU that it uses."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from vo_stream.replay import bench_memory


def ask_memory(code: str) -> float:
    """Return what a fresh process prints."""
    code = f"from vo_stream.replay.bench_memory import *\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_memory_is_this_process_own() -> None:
    grown = "a = resident_mb(); b = bytearray(80_000_000); print(resident_mb() - a)"
    assert 75.0 < ask_memory(grown) < 90.0
    peak = "b = bytearray(80_000_000); del b; print(peak_mb() - resident_mb())"
    assert 70.0 < ask_memory(peak) < 90.0
    large = bytearray(300_000_000)  # of the process that starts the other one
    assert ask_memory("print(peak_mb())") < 150.0
    assert len(large) == 300_000_000


def test_a_process_that_uses_no_gpu_says_so() -> None:
    assert ask_memory("print(-1 if device_mb() is None else 1)") == -1.0


class DriverDouble:
    """Stands in for libcuda, which is not here: 10 GB, 4 of them free, a context in use."""

    def __init__(self, active: int = 1, fails: Sequence[str] = ()) -> None:
        self.calls: list[str] = []
        self._active, self._fails = active, fails

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self._fails:
                return 999
            if name == "cuDevicePrimaryCtxGetState":
                arguments[2]._obj.value = self._active
            elif name == "cuMemGetInfo_v2":
                arguments[0]._obj.value, arguments[1]._obj.value = 4_000_000_000, 10_000_000_000
            return 0

        return call


def taken(double: DriverDouble, monkeypatch: pytest.MonkeyPatch) -> float | None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: double)
    return bench_memory.device_mb()


def test_with_a_double_of_the_driver_memory_is_read_in_the_context_that_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = DriverDouble()
    assert taken(driver, monkeypatch) == 6000.0
    assert driver.calls[3:] == [
        "cuDevicePrimaryCtxRetain",
        "cuCtxPushCurrent_v2",
        "cuMemGetInfo_v2",
        "cuCtxPopCurrent_v2",
        "cuDevicePrimaryCtxRelease_v2",
    ]
    unused = DriverDouble(active=0)
    assert taken(unused, monkeypatch) is None
    assert "cuDevicePrimaryCtxRetain" not in unused.calls
    broken = DriverDouble(fails=["cuMemGetInfo_v2"])
    assert taken(broken, monkeypatch) is None
    assert broken.calls[-2:] == ["cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]
    assert taken(DriverDouble(fails=["cuInit"]), monkeypatch) is None
