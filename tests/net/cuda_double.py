"""A double of CUDA's runtime, where there is no GPU to run the real one.

It keeps a record of what is asked of it, and is strict where CUDA is: a stream does nothing before
it is waited for, a graph has the addresses inside that it was captured with, new memory holds no
zeros, a copy must stay within one allocation. The host's memory takes the place of the GPU's. What
it proves is our own bookkeeping.
"""
# ruff: noqa: N802, N815 - functions and errors are called as CUDA calls them

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from vo_stream.net import cuda_memory

Floats = npt.NDArray[np.float32]

UNDEFINED = 0xFF
"""What fills new memory: floats of it are not numbers."""


class CudaDoubleError(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class CaptureModeDouble(Enum):
    cudaStreamCaptureModeThreadLocal = 1


class CopyKindDouble(Enum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class CudaDouble:
    """In the place of cuda.bindings.runtime: functions return (error, results...).

    `calls`: names, in order. `threads`: that called. `memory`: what is allocated, by address.
    `failing`: functions that fail, and how.
    """

    cudaStreamNonBlocking = 1
    cudaStreamCaptureMode = CaptureModeDouble
    cudaMemcpyKind = CopyKindDouble

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.threads: set[int] = set()
        self.failing: dict[str, CudaDoubleError] = {}
        self.memory: dict[int, tuple[str, npt.NDArray[np.uint8]]] = {}
        self.streams: dict[int, StreamDouble] = {}
        self.graphs: set[GraphDouble] = set()

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        function = object.__getattribute__(self, f"_{name}")

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            self.threads.add(threading.get_ident())
            if error := self.failing.get(name):
                if name == "cudaStreamEndCapture":  # which ends it all the same
                    arguments[0].recorded = None
                return error, None
            return tuple(function(*arguments))

        return call

    def within(self, address: int, size: int, kind: str) -> npt.NDArray[np.uint8]:
        """Return a range of memory of that kind; an assertion fails where it is none."""
        for start, (found, memory) in self.memory.items():
            if start <= address and address + size <= start + memory.size and found == kind:
                return memory[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address:#x} are not within memory of the {kind}")

    def floats(self, address: int, shape: tuple[int, ...]) -> Floats:
        size = 4 * int(np.prod(shape))
        return self.within(address, size, "device").view(np.float32).reshape(shape)

    @property
    def capturing(self) -> bool:
        return any(stream.recorded is not None for stream in self.streams.values())

    def _allocated(self, size: int, kind: str) -> tuple[Any, ...]:
        if self.capturing:
            return CudaDoubleError.cudaErrorStreamCaptureUnsupported, None
        raw = np.full(size + cuda_memory.ALIGNMENT, UNDEFINED, dtype=np.uint8)
        begin = -raw.ctypes.data % cuda_memory.ALIGNMENT
        address = raw.ctypes.data + begin
        self.memory[address] = kind, raw[begin : begin + size]
        return CudaDoubleError.cudaSuccess, address

    def _freed(self, address: int, kind: str) -> tuple[Any, ...]:
        assert self.memory.pop(address)[0] == kind
        return (CudaDoubleError.cudaSuccess,)

    def _cudaMalloc(self, size: int) -> tuple[Any, ...]:
        return self._allocated(size, "device")

    def _cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        return self._allocated(size, "host")

    def _cudaFree(self, address: int) -> tuple[Any, ...]:
        return self._freed(address, "device")

    def _cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        return self._freed(address, "host")

    def _cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        assert device == 0
        return (CudaDoubleError.cudaSuccess,)

    def _cudaGetLastError(self) -> tuple[Any, ...]:
        return (CudaDoubleError.cudaSuccess,)

    def _cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == self.cudaStreamNonBlocking
        stream = StreamDouble()
        self.streams[int(stream)] = stream
        return CudaDoubleError.cudaSuccess, stream

    def _cudaStreamDestroy(self, stream: StreamDouble) -> tuple[Any, ...]:
        del self.streams[int(stream)]
        return (CudaDoubleError.cudaSuccess,)

    def _cudaStreamSynchronize(self, stream: StreamDouble) -> tuple[Any, ...]:
        if self.capturing:
            return (CudaDoubleError.cudaErrorStreamCaptureUnsupported,)
        stream.work_off()
        return (CudaDoubleError.cudaSuccess,)

    def _cudaMemsetAsync(
        self, address: int, value: int, size: int, stream: StreamDouble
    ) -> tuple[Any, ...]:
        stream.take(lambda: self.within(address, size, "device").fill(value))
        return (CudaDoubleError.cudaSuccess,)

    def _cudaMemcpyAsync(
        self, to: int, source: int, size: int, kind: Enum, stream: StreamDouble
    ) -> tuple[Any, ...]:
        up = kind is CopyKindDouble.cudaMemcpyHostToDevice
        target = self.within(to, size, "device" if up else "host")
        origin = self.within(source, size, "host" if up else "device")
        stream.take(lambda: np.copyto(target, origin))
        return (CudaDoubleError.cudaSuccess,)

    def _cudaStreamBeginCapture(self, stream: StreamDouble, mode: Enum) -> tuple[Any, ...]:
        stream.recorded = []
        return (CudaDoubleError.cudaSuccess,)

    def _cudaStreamEndCapture(self, stream: StreamDouble) -> tuple[Any, ...]:
        assert stream.recorded is not None
        graph = GraphDouble(stream.recorded)
        stream.recorded = None
        self.graphs.add(graph)
        return CudaDoubleError.cudaSuccess, graph

    def _cudaGraphInstantiate(self, graph: GraphDouble, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        executable = GraphDouble(list(graph.work))
        self.graphs.add(executable)
        return CudaDoubleError.cudaSuccess, executable

    def _cudaGraphDestroy(self, graph: GraphDouble) -> tuple[Any, ...]:
        self.graphs.remove(graph)
        return (CudaDoubleError.cudaSuccess,)

    def _cudaGraphExecDestroy(self, graph: GraphDouble) -> tuple[Any, ...]:
        return self._cudaGraphDestroy(graph)

    def _cudaGraphLaunch(self, graph: GraphDouble, stream: StreamDouble) -> tuple[Any, ...]:
        assert graph in self.graphs
        for work in graph.work:
            stream.take(work)
        return (CudaDoubleError.cudaSuccess,)


class StreamDouble:
    """Work that waits until somebody waits for it; while a capture goes on it is only recorded."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.recorded: list[Callable[[], None]] | None = None

    def __int__(self) -> int:
        return id(self)

    def take(self, work: Callable[[], None]) -> None:
        (self.waiting if self.recorded is None else self.recorded).append(work)

    def work_off(self) -> None:
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()


@dataclass(frozen=True, eq=False)
class GraphDouble:
    work: list[Callable[[], None]]
