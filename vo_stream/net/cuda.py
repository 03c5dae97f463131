"""Which NVIDIA GPU there is, asked of the driver alone: nothing large is loaded, nothing created.

Libraries for a GPU may take the process with them where there is none, so this is asked first.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from vo_stream.errors import NetError

DRIVER = "libcuda.so.1"
"""The library that comes with NVIDIA's driver."""

NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE: the driver runs, and sees no GPU."""

CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""

LONGEST_NAME = 256
"""Of a GPU, in bytes."""


class Gpu(NamedTuple):
    """A GPU: its name, and its compute capability as (major, minor)."""

    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name} (compute capability {dotted(self.capability)})"


def dotted(version: tuple[int, int]) -> str:
    """Return (8, 7) as 8.7."""
    return ".".join(map(str, version))


def cuda_devices() -> int:
    """Return how many GPUs the CUDA driver sees; 0 without a driver."""
    try:
        return _devices(_started_driver())
    except NetError:
        return 0


def first_gpu() -> Gpu | None:
    """Return the GPU that CUDA takes when none is named; None where there is none."""
    try:
        return find_gpu()
    except NetError:
        return None


def find_gpu() -> Gpu:
    """Return the GPU that CUDA takes when none is named.

    Raises NetError, in one line: there is no driver, it does not run, or it sees no GPU.
    """
    driver = _started_driver()
    if _devices(driver) == 0:
        raise NetError(_no_gpu())
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(LONGEST_NAME)
    parts = [ctypes.c_int(0) for _ in CAPABILITY]
    _check(driver, driver.cuDeviceGet(ctypes.byref(device), 0))
    _check(driver, driver.cuDeviceGetName(name, LONGEST_NAME, device))
    for part, attribute in zip(parts, CAPABILITY, strict=True):
        _check(driver, driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device))
    return Gpu(name.value.decode(errors="replace"), (parts[0].value, parts[1].value))


def newest_cuda() -> tuple[int, int] | None:
    """Return the newest version of CUDA that the driver serves; None without a driver."""
    version = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL(DRIVER)
        _check(driver, driver.cuDriverGetVersion(ctypes.byref(version)))
    except (OSError, AttributeError, NetError):
        return None
    return version.value // 1000, version.value % 1000 // 10


def _started_driver() -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL(DRIVER)
        _check(driver, driver.cuInit(0))
    except (OSError, AttributeError):
        raise NetError(f"NVIDIA's driver is missing: no {DRIVER} can be loaded") from None
    return driver


def _devices(driver: ctypes.CDLL) -> int:
    count = ctypes.c_int(0)
    _check(driver, driver.cuDeviceGetCount(ctypes.byref(count)))
    return count.value


def _check(driver: ctypes.CDLL, result: int) -> None:
    if result == NO_DEVICE:
        raise NetError(_no_gpu())
    if result != 0:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(result, ctypes.byref(text))
        meaning = (text.value or b"unknown").decode(errors="replace")
        raise NetError(f"NVIDIA's driver does not work: CUDA error {result} ({meaning})")


def _no_gpu() -> str:
    return "NVIDIA's driver sees no GPU (nvidia-smi lists them; CUDA_VISIBLE_DEVICES may hide them)"
