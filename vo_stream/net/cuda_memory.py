"""Memory, a stream and graphs of CUDA, by the package cuda-bindings: no torch is needed.

The runtime API uses the device's primary context, so it gets along with other libraries in the
process. All of it belongs to one thread: the one that made the `Cuda`. The calls used are the same
in cuda-bindings 12 and 13.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from vo_stream.errors import NetError

logger = logging.getLogger(__name__)

ALIGNMENT = 256
"""Bytes. Where tensors begin within an allocation: as CUDA aligns allocations themselves."""

REMEDY = "pip install 'cuda-bindings>=12.6,<13' for CUDA 12, cuda-bindings for CUDA 13"

Shapes = Mapping[str, tuple[int, ...]]


def load_runtime() -> Any:
    """Return the module of CUDA's runtime API; raises NetError where it is not installed."""
    try:
        return import_module("cuda.bindings.runtime")
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        raise NetError(f"cuda-bindings cannot be loaded: {REMEDY} ({reason})") from None


class Cuda:
    """The CUDA runtime on the first GPU, with a stream of its own.

    Calling it calls a function of the runtime API by name. Raises NetError, with that name and
    the error's, where one fails.
    """

    def __init__(self) -> None:
        self.api = load_runtime()
        self("cudaSetDevice", 0)
        self.stream = self("cudaStreamCreateWithFlags", self.api.cudaStreamNonBlocking)

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime API; returns what it gives beside the error's code."""
        error, *results = getattr(self.api, name)(*arguments)
        if int(error) != 0:
            self.api.cudaGetLastError()  # else whoever asks for it next is told of this one
            raise NetError(f"{name} failed: {getattr(error, 'name', int(error))}")
        return results[0] if results else None

    @property
    def stream_handle(self) -> int:
        """The stream, as other libraries take it."""
        return int(self.stream)

    def synchronize(self) -> None:
        """Wait until all that the stream was given is done."""
        self("cudaStreamSynchronize", self.stream)

    def captured(self, work: Callable[[], None]) -> Graph:
        """Return what `work` gives to the stream as a graph; none of it is done meanwhile."""
        modes = self.api.cudaStreamCaptureMode
        self("cudaStreamBeginCapture", self.stream, modes.cudaStreamCaptureModeThreadLocal)
        try:
            work()
        except BaseException:
            with suppress(NetError):  # a capture that has failed gives no graph
                self("cudaGraphDestroy", self("cudaStreamEndCapture", self.stream))
            raise
        graph = self("cudaStreamEndCapture", self.stream)
        try:
            return Graph(self, self("cudaGraphInstantiate", graph, 0))
        finally:
            self("cudaGraphDestroy", graph)

    def free(self, name: str, resource: Any) -> None:
        """Call a function that gives something back; if it fails there is nothing left to do."""
        try:
            self(name, resource)
        except NetError as error:
            logger.warning("%s", error)

    def close(self) -> None:
        """Give the stream back."""
        self.free("cudaStreamDestroy", self.stream)


class Graph:
    """Work that was captured, with all its addresses, and is launched as one."""

    def __init__(self, cuda: Cuda, executable: Any) -> None:
        self._cuda, self._executable = cuda, executable

    def launch(self) -> None:
        """Give the work to the stream."""
        self._cuda("cudaGraphLaunch", self._executable, self._cuda.stream)

    def close(self) -> None:
        """Free the graph."""
        self._cuda.free("cudaGraphExecDestroy", self._executable)


class DeviceBlock:
    """Tensors in single precision that lie in one allocation on the GPU.

    `addresses`: of each, by name. What they hold at first is undefined.
    """

    def __init__(self, cuda: Cuda, shapes: Shapes) -> None:
        self._cuda = cuda
        offsets, self.size = _laid_out(shapes)
        self.address = int(cuda("cudaMalloc", self.size))
        self.addresses = {name: self.address + offset for name, offset in offsets.items()}

    def zero(self) -> None:
        """Let the stream set all of it to zero."""
        self._cuda("cudaMemsetAsync", self.address, 0, self.size, self._cuda.stream)

    def close(self) -> None:
        """Free the memory."""
        self._cuda.free("cudaFree", self.address)


class MirroredBlock:
    """A `DeviceBlock` and its image in pinned memory of the host: `arrays`, by the same names.

    A copy either way is one transfer and does not hold up the caller.
    """

    def __init__(self, cuda: Cuda, shapes: Shapes) -> None:
        self._cuda = cuda
        self.device = DeviceBlock(cuda, shapes)
        try:
            self._host = int(cuda("cudaMallocHost", self.device.size))
        except NetError:
            self.device.close()
            raise
        offsets, _ = _laid_out(shapes)
        self.arrays = {
            name: _array(self._host + offset, shapes[name]) for name, offset in offsets.items()
        }
        for array in self.arrays.values():
            array.fill(0.0)

    def upload(self) -> None:
        """Let the stream copy all of it to the GPU."""
        kind = self._cuda.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(self.device.address, self._host, kind)

    def download(self) -> None:
        """Let the stream copy all of it to the host; the arrays have it after `synchronize`."""
        kind = self._cuda.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(self._host, self.device.address, kind)

    def close(self) -> None:
        """Free the memory; the arrays must not be touched any more."""
        self.arrays.clear()
        self.device.close()
        self._cuda.free("cudaFreeHost", self._host)

    def _copy(self, to: int, source: int, kind: Any) -> None:
        size, stream = self.device.size, self._cuda.stream
        self._cuda("cudaMemcpyAsync", to, source, size, kind, stream)


def _laid_out(shapes: Shapes) -> tuple[dict[str, int], int]:
    """Return where each tensor begins, in bytes, and how many bytes there are."""
    offsets, size = {}, 0
    for name, shape in shapes.items():
        offsets[name] = size
        size += -(-4 * math.prod(shape) // ALIGNMENT) * ALIGNMENT
    return offsets, size


def _array(address: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return memory as an array; it does not own it."""
    memory = (ctypes.c_float * math.prod(shape)).from_address(address)
    array: npt.NDArray[np.float32] = np.ctypeslib.as_array(memory)
    return array.reshape(shape)
