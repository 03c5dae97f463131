"""Doubles of TensorRT and its engines, where there is no GPU to run the real ones.

They keep a record of what is asked of them; on the double of CUDA, ONNX Runtime takes the place of
an engine. What they prove is our own bookkeeping.
"""
# ruff: noqa: N802 - functions and errors are called as TensorRT calls them

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_double import CudaDouble, Floats
from network_cases import SIZE, pixel_rays, stream

from vo_stream.config import NetConfig
from vo_stream.net import cuda_memory, trt_net
from vo_stream.net.learned_net import CELL, LearnedState
from vo_stream.net.onnx_net import open_session
from vo_stream.net.packed import MOTION, PACKED, packed_size
from vo_stream.net.proof import DT_S
from vo_stream.net.sidecar import INPUTS, NEXT, OUTPUTS, PREVIOUS, Sidecar, read_sidecar
from vo_stream.net.tensorrt_library import Library
from vo_stream.net.trt_net import Memory, TrtNet

SMALL = (96, 64)
RAYS = {size: pixel_rays(size) for size in (SIZE, SMALL)}
State = LearnedState[Memory]

MAGIC = b"an engine of the double\n"


class SeverityDouble(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1


class LoggerDouble:
    Severity = SeverityDouble

    def __init__(self) -> None:
        pass

    def log(self, severity: SeverityDouble, message: str) -> None:
        raise NotImplementedError


class DataTypeDouble(Enum):
    FLOAT = 0


class ModeDouble(Enum):
    INPUT = 1
    OUTPUT = 2


class TensorrtDouble:
    """In the place of the module tensorrt. `ran`: the addresses that each run read and wrote.

    `broken`: calls that say no; "capture" for all work while it is captured. `alive`: runtimes,
    engines and contexts that were not let go.
    """

    __name__ = "tensorrt_double"
    ILogger = LoggerDouble
    DataType = DataTypeDouble
    TensorIOMode = ModeDouble

    def __init__(self, cuda: CudaDouble) -> None:
        self.cuda = cuda
        self.ran: list[dict[str, int]] = []
        self.broken: set[str] = set()
        self.alive = 0

    def Runtime(self, logger: LoggerDouble) -> RuntimeDouble:
        return RuntimeDouble(self, logger)


class Counted:
    def __init__(self, module: TensorrtDouble) -> None:
        self.module = module
        module.alive += 1

    def __del__(self) -> None:
        self.module.alive -= 1


class RuntimeDouble(Counted):
    def __init__(self, module: TensorrtDouble, logger: LoggerDouble) -> None:
        super().__init__(module)
        self._logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> EngineDouble | None:
        if not content.startswith(MAGIC):
            self._logger.log(SeverityDouble.ERROR, "magic tag\ndoes not match")
            return None
        return EngineDouble(self.module, **json.loads(content.removeprefix(MAGIC)))


class EngineDouble(Counted):
    """Of the network in `model_file`, for images of one size; `lacks` one of its tensors."""

    def __init__(
        self, module: TensorrtDouble, model_file: str, size: tuple[int, int], lacks: str = ""
    ) -> None:
        super().__init__(module)
        self.model_file = Path(model_file)
        self.sidecar = read_sidecar(self.model_file)
        self.inputs, self.outputs = tensors(self.sidecar, size)
        self.shapes = {n: s for n, s in {**self.inputs, **self.outputs}.items() if n != lacks}

    @property
    def num_io_tensors(self) -> int:
        return len(self.shapes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_dtype(self, name: str) -> Enum:
        return DataTypeDouble.FLOAT

    def get_tensor_mode(self, name: str) -> Enum:
        return ModeDouble.INPUT if name in self.inputs else ModeDouble.OUTPUT

    def create_execution_context(self) -> ContextDouble | None:
        if "create_execution_context" in self.module.broken:
            return None
        return ContextDouble(self)


class ContextDouble(Counted):
    def __init__(self, engine: EngineDouble) -> None:
        super().__init__(engine.module)
        self._engine = engine
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine.shapes and address % cuda_memory.ALIGNMENT == 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        if "execute_async_v3" in self.module.broken:
            return False
        stream = self.module.cuda.streams[stream_handle]
        if "capture" in self.module.broken and stream.recorded is not None:
            return False
        assert self._addresses.keys() == self._engine.shapes.keys(), "every tensor has a place"
        addresses = dict(self._addresses)
        stream.take(lambda: self._compute(addresses))
        return True

    def _compute(self, addresses: dict[str, int]) -> None:
        engine, cuda = self._engine, self.module.cuda
        self.module.ran.append(addresses)
        run = session(engine.model_file)
        names = [*OUTPUTS, *(NEXT + name for name in engine.sidecar.states)]
        read = {name: cuda.floats(addresses[name], shape) for name, shape in engine.inputs.items()}
        outputs = dict(zip(names, run(names, read), strict=True))
        outputs[PACKED] = packed(engine.sidecar, outputs)[None]
        for name, array in outputs.items():
            if name in addresses:
                cuda.floats(addresses[name], engine.shapes[name])[:] = array


@cache
def session(model_file: Path) -> Callable[..., list[Floats]]:
    run: Callable[..., list[Floats]] = open_session(model_file, NetConfig(threads=1)).run
    return run


def packed(sidecar: Sidecar, outputs: dict[str, Floats]) -> Floats:
    rows = [outputs[name].ravel() for name in MOTION]
    sums = [outputs[NEXT + name].sum() for name in sidecar.states]
    return np.concatenate([*rows, [outputs["weight"].mean()], sums]).astype(np.float32)


def tensors(
    sidecar: Sidecar, size: tuple[int, int]
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return the shapes of an engine's inputs and of its outputs."""
    width, height = size
    h, w = height // CELL, width // CELL
    states = {name: part.shape(width, height) for name, part in sidecar.states.items()}
    inputs = dict(zip(INPUTS, [(1, 1, height, width), (1, 2, h, w), (1, 1)], strict=True))
    shapes = [(1, 3, 3), (1, 3), (1, 6), (1, 2, h, w), (1, 1, h, w), (1, 1, h, w)]
    outputs = dict(zip(OUTPUTS, shapes, strict=True)) | {PACKED: (1, packed_size(sidecar))}
    return (
        inputs | {PREVIOUS + name: shape for name, shape in states.items()},
        outputs | {NEXT + name: shape for name, shape in states.items()},
    )


@dataclass
class Doubles:
    """All that is put in the place of a GPU; `built`: the sizes that engines were built for."""

    folder: Path
    cuda: CudaDouble = field(default_factory=CudaDouble)
    built: list[tuple[int, int]] = field(default_factory=list)
    lacks: str = ""

    def __post_init__(self) -> None:
        self.tensorrt = TensorrtDouble(self.cuda)

    def file(self, size: tuple[int, int]) -> Path:
        return self.folder / "{}x{}.engine".format(*size)

    def cached_engine(
        self,
        library: Library,
        gpu: object,
        model_file: Path,
        sidecar: Sidecar,
        size: tuple[int, int],
        options: object,
        folder: Path | None,
        on_progress: Callable[[str, float], None],
    ) -> Path:
        path = self.file(size)
        if not path.exists():
            on_progress("Building the double", 0.5)
            self.built.append(size)
            content = {"model_file": str(model_file), "size": size, "lacks": self.lacks}
            path.write_bytes(MAGIC + json.dumps(content).encode())
        return path


@contextmanager
def in_place_of_a_gpu(folder: Path) -> Iterator[Doubles]:
    """Let `TrtNet` find the doubles where it looks for a GPU and its libraries."""
    doubles = Doubles(folder)
    library = Library(doubles.tensorrt, "double", "0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_memory, "load_runtime", lambda: doubles.cuda)
        patch.setattr(trt_net, "find_library", lambda: library)
        patch.setattr(trt_net, "require_gpu", lambda _: SimpleNamespace(name="double"))
        patch.setattr(trt_net, "cached_engine", doubles.cached_engine)
        yield doubles


def open_net(network_file: Path, **settings: Any) -> TrtNet:
    return TrtNet(NetConfig(model_file=str(network_file), threads=1, **settings))


def begun(net: TrtNet, frames: int = 2, size: tuple[int, int] = SIZE) -> State:
    """Return the state after some frames."""
    state = net.start()
    for index, image in enumerate(stream(frames, size=size)):
        _, state = net.step(image, RAYS[size], DT_S if index else 0.0, state)
    return state
