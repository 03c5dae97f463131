"""Whether there is an NVIDIA GPU, without loading anything large."""

from __future__ import annotations

import ctypes

DRIVER = "libcuda.so.1"


def cuda_devices() -> int:
    """Return how many GPUs the CUDA driver sees; 0 without a driver."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL(DRIVER)
        if driver.cuInit(0) == 0:
            driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return 0
    return count.value
