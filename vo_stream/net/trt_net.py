"""The network on an NVIDIA GPU, by TensorRT or TensorRT-RTX, without torch.

All that touches CUDA happens in one thread. A frame is one CUDA graph: image and dt go up, the
engine runs, the packed answer comes down. There are two graphs, since a graph has its addresses
inside and the state lies in two sets of buffers that are read and written in turn: it never leaves
the GPU. Rays go up when they are others than before.
"""

from __future__ import annotations

import logging
import re
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from vo_stream.config import NetConfig
from vo_stream.errors import NetError
from vo_stream.net.cuda_memory import Cuda
from vo_stream.net.learned_net import Answer, Floats, Image, LearnedNet
from vo_stream.net.owner import Owner
from vo_stream.net.packed import unpacked
from vo_stream.net.ping_pong import Slot, Spares, Stream
from vo_stream.net.sidecar import RELEASED, read_sidecar_for_gpu
from vo_stream.net.tensorrt_engine import EngineOptions, cached_engine, forget_engine
from vo_stream.net.tensorrt_library import find_library, log_of, require_gpu
from vo_stream.net.trt_buffers import Interface, TrtBuffers, interface_of

logger = logging.getLogger(__name__)

NAME = "tensorrt"

ATTEMPTS = 2
"""At an engine: one from the cache that cannot be loaded is built once more."""

PROGRESS_EVERY_S = 5.0
"""Time between two lines of the log while an engine is built, which may take minutes."""

Size = tuple[int, int]
Memory = Slot[TrtBuffers]


class _Loaded(NamedTuple):
    """An engine with what it needs to run."""

    engine: Any
    context: Any
    interface: Interface


class TrtNet(LearnedNet[Memory]):
    """StepNet of an ONNX file's engine.

    An engine is for one size of image: it is taken from the cache or built for net.engine_size
    here, else when the first image comes. Raises NetError where the file, the library, a GPU that
    it supports or cuda-bindings is missing, or the engine cannot be built.
    """

    def __init__(self, config: NetConfig) -> None:
        self._model_file = Path(config.model_file) if config.model_file else RELEASED
        self._sidecar = read_sidecar_for_gpu(self._model_file)
        super().__init__(self._sidecar.spec(NAME))
        self._folder = Path(config.engine_folder) if config.engine_folder else None
        ahead = camera_size(config.engine_size) if config.engine_size else self._sidecar.size
        self._library = find_library()
        self._gpu = require_gpu(self._library)  # without one a Runtime may crash the process
        self._spares: Spares[TrtBuffers] = Spares()
        self._engines: dict[Size, _Loaded] = {}
        self._owner: Owner | None = Owner(NAME)
        self._cuda: Cuda | None = None
        try:
            self._owner.do(self._open)
            if ahead is not None:
                self._clean(*self.spec.input_size(ahead))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the GPU."""
        if self._owner is not None:
            self._owner.do(self._free)
            self._owner.close()
            self._owner = None

    def _clean(self, width: int, height: int) -> Memory:
        assert self._owner is not None
        return self._owner.do(partial(self._new_stream, (width, height))).start()

    def _run(
        self, image: Image, rays: Floats, dt_s: float, memory: Memory
    ) -> tuple[Answer, Memory]:
        assert self._owner is not None
        return self._owner.do(partial(self._step, image, rays, dt_s, memory))

    # What follows happens in the owner's thread.

    def _open(self) -> None:
        self._cuda = Cuda()
        self._log = log_of(self._library.module)
        self._runtime = self._library.module.Runtime(self._log)

    def _free(self) -> None:
        for buffers in self._spares.made:
            buffers.close()
        self._spares.made.clear()
        self._engines.clear()
        self._runtime = None
        if self._cuda is not None:
            self._cuda.close()

    def _step(
        self, image: Image, rays: Floats, dt_s: float, memory: Memory
    ) -> tuple[Answer, Memory]:
        buffers = memory.stream.buffers
        buffers.feed(image, rays, dt_s)
        after = memory.stream.step(memory, partial(self._run_through, buffers))
        return unpacked(buffers.packed), after

    def _run_through(self, buffers: TrtBuffers, index: int) -> None:
        try:
            buffers.run(index)
        except NetError as error:
            raise NetError(f"the network cannot be run: {error}{self._log.told()}") from None

    def _new_stream(self, size: Size) -> Stream[TrtBuffers]:
        """Return a stream with a clean state; loads or builds the engine where it is the first."""
        assert self._cuda is not None
        if size not in self._engines:
            self._engines[size] = self._loaded(size)
        _, context, interface = self._engines[size]
        stream = self._spares.stream(size, partial(TrtBuffers, self._cuda, context, interface))
        stream.buffers.clear()
        return stream

    def _loaded(self, size: Size) -> _Loaded:
        """Load the engine for images of (width, height), from the cache or built."""
        for attempt in range(ATTEMPTS):
            begun = time.monotonic()
            path = self._file(size)
            there = time.monotonic()
            try:
                engine = self._deserialized(path)
                interface = interface_of(self._library.module, engine, self._sidecar, size)
                break
            except NetError as error:
                forget_engine(path)
                if attempt == ATTEMPTS - 1:
                    raise NetError(f"{path}: {error}") from None
                logger.warning("%s: %s; it is built anew", path, error)
        context = engine.create_execution_context()
        if context is None:
            raise NetError(f"{path}: the engine cannot be run{self._log.told()}")
        seconds = there - begun, time.monotonic() - there
        logger.info(
            "engine for images of %dx%d: there after %.1f s, loaded in %.1f s", *size, *seconds
        )
        return _Loaded(engine, context, interface)

    def _file(self, size: Size) -> Path:
        """Return the file of the engine for images of that size; builds it where there is none."""
        return cached_engine(
            self._library,
            self._gpu,
            self._model_file,
            self._sidecar,
            size,
            EngineOptions(),
            self._folder,
            _Progress(size),
        )

    def _deserialized(self, path: Path) -> Any:
        """Return the engine in a file; raises NetError, with the library's own words."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise NetError((error.strerror or "cannot be read").lower()) from None
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise NetError(f"{self._library} cannot load the engine{self._log.told()}")
        return engine


class _Progress:
    """Tells the log how far the build of an engine is, now and then."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._next = 0.0

    def __call__(self, phase: str, done: float) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_EVERY_S
            logger.info(
                "building the engine for images of %dx%d, once for this GPU: %s, %.0f %%",
                *self._size,
                phase,
                100.0 * done,
            )


def camera_size(text: str) -> Size:
    """Return (width, height) from "WIDTHxHEIGHT"; raises NetError."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise NetError(f"net.engine_size: {text!r} is not WIDTHxHEIGHT, such as 1280x720")
    return int(found[1]), int(found[2])
