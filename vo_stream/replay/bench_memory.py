"""Memory of this process, on the machine and on its first GPU."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
MB = 1e6

DRIVER = "libcuda.so.1"


def resident_mb() -> float:
    """Return the memory in RAM now, in MB of 10^6 bytes; the peak where the system tells no more.

    All that the process has there: interpreter, libraries, weights, buffers.
    """
    return _from_status("VmRSS") or _peak_by_usage()


def peak_mb() -> float:
    """Return the most that was in RAM at any time since the process began, in MB.

    Not `ru_maxrss`, which on Linux goes on from that of the process that started this one.
    """
    return _from_status("VmHWM") or _peak_by_usage()


def _from_status(key: str) -> float:
    """Return a figure of /proc/self/status in MB; 0 where there is none."""
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(found[0]) * 1024 / MB if found else 0.0


def _peak_by_usage() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / MB


def device_mb() -> float | None:
    """Return the memory that is taken on the first GPU, in MB; None where this process uses none.

    Of all processes: the driver tells no more. CUDA driver API, `cuMemGetInfo`. No context is
    created: one that is not there yet means that the process does not use the GPU.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
        return _taken_mb(driver)
    except (OSError, AttributeError):
        return None


def _taken_mb(driver: ctypes.CDLL) -> float | None:
    device, flags, active = ctypes.c_int(0), ctypes.c_uint(0), ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    state = driver.cuDevicePrimaryCtxGetState
    if state(device, ctypes.byref(flags), ctypes.byref(active)) != 0 or not active.value:
        return None
    context, free, total = ctypes.c_void_p(), ctypes.c_size_t(0), ctypes.c_size_t(0)
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) != 0:
        return None
    try:
        if driver.cuCtxPushCurrent_v2(context) != 0:
            return None
        told = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
    return (total.value - free.value) / MB if told == 0 else None
