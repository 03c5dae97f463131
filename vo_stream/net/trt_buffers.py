"""What one stream has on the GPU: its buffers, and a step through them as a CUDA graph."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vo_stream.errors import NetError
from vo_stream.net.cuda_memory import Cuda, DeviceBlock, Graph, MirroredBlock, Shapes
from vo_stream.net.learned_net import CELL, Floats, Image
from vo_stream.net.packed import PACKED, packed_size
from vo_stream.net.sidecar import INPUTS, NEXT, PREVIOUS, Sidecar

logger = logging.getLogger(__name__)

IMAGE, RAYS, DT = INPUTS

Held = TypeVar("Held", MirroredBlock, DeviceBlock, Graph)


class Interface(NamedTuple):
    """The tensors of an engine for one size of image: names to shapes.

    `fed`: image and dt. `rays`. `states`: by their names without prefix. `packed`: what is read.
    `unread`: all other outputs; they need a place, too.
    """

    fed: Shapes
    rays: Shapes
    states: Shapes
    packed: Shapes
    unread: Shapes


def interface_of(library: Any, engine: Any, sidecar: Sidecar, size: tuple[int, int]) -> Interface:
    """Return the tensors of a TensorRT engine for images of (width, height).

    `library`: the module that the engine is of. Raises NetError where they are not those of the
    network that the sidecar describes, in single precision.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    there = {name: tuple(engine.get_tensor_shape(name)) for name in names}
    width, height = size
    fed = {IMAGE: (1, 1, height, width), DT: (1, 1)}
    rays = {RAYS: (1, 2, height // CELL, width // CELL)}
    states = {name: part.shape(width, height) for name, part in sidecar.states.items()}
    packed = {PACKED: (1, packed_size(sidecar))}
    inputs = fed | rays | {PREVIOUS + name: shape for name, shape in states.items()}
    read = packed | {NEXT + name: shape for name, shape in states.items()}
    for name, shape in {**inputs, **read}.items():
        if there.get(name) != shape:
            found = there.get(name, "missing")
            raise NetError(f"the engine is of another network: {name} is {found}, not {shape}")
    for name in names:
        if engine.get_tensor_dtype(name) != library.DataType.FLOAT:
            raise NetError(f"the engine is of another network: {name} is not in single precision")
        is_input = engine.get_tensor_mode(name) == library.TensorIOMode.INPUT
        if is_input != (name in inputs):
            raise NetError(f"the engine is of another network: {name} is a tensor the other way")
    unread = {name: there[name] for name in names if name not in inputs and name not in read}
    return Interface(fed, rays, states, packed, unread)


class TrtBuffers:
    """The buffers of one stream, and a captured step for both ways between the two sets.

    `context`: an IExecutionContext of the engine; those of one engine share it, since they run one
    after the other in one stream of CUDA. Where the library's work cannot be captured it is given
    to the GPU call by call, and the log says so. Raises NetError, out of memory for one.
    """

    def __init__(self, cuda: Cuda, context: Any, interface: Interface) -> None:
        self._cuda, self._context = cuda, context
        self._resources = ExitStack()
        self._rays_from: Floats | None = None
        self._graphs: list[Graph] = []
        try:
            self._fed = self._held(MirroredBlock(cuda, interface.fed))
            self._rays = self._held(MirroredBlock(cuda, interface.rays))
            self._packed = self._held(MirroredBlock(cuda, interface.packed))
            unread = self._held(DeviceBlock(cuda, interface.unread))
            self._sets = [self._held(DeviceBlock(cuda, interface.states)) for _ in range(2)]
            shared: dict[str, int] = {}
            for block in (self._fed.device, self._rays.device, self._packed.device, unread):
                shared |= block.addresses
            self._addresses = [shared | self._states_from(index) for index in range(2)]
            self._prepare()
        except BaseException:
            self.close()
            raise

    @property
    def packed(self) -> Floats:
        """What the last step said, a row as in `net.packed`; it changes with the next step."""
        row: Floats = self._packed.arrays[PACKED][0]
        return row

    def clear(self) -> None:
        """Let set 0 hold the state of a stream that has seen nothing."""
        self._sets[0].zero()

    def feed(self, image: Image, rays: Floats, dt_s: float) -> None:
        """Take what goes in: `image` (height, width), `rays` (2, h, w), seconds."""
        there = self._fed.arrays[IMAGE][0, 0]
        assert image.shape == there.shape, "images of one stream have one size"
        np.multiply(image, np.float32(1.0 / 255.0), out=there)
        self._fed.arrays[DT][:] = dt_s
        if self._rays_from is not rays:
            self._rays_from = None
            self._rays.arrays[RAYS][0] = rays
            self._rays.upload()
            self._rays_from = rays

    def run(self, index: int) -> None:
        """Take the step from the set of that index into the other one; raises NetError."""
        if self._graphs:
            self._graphs[index].launch()
        else:
            self._enqueue(index)
        self._cuda.synchronize()

    def close(self) -> None:
        """Free all of it, and the context; whoever still holds this can do nothing with it."""
        self._context = None
        self._graphs.clear()
        self._resources.close()

    def _held(self, resource: Held) -> Held:
        self._resources.callback(resource.close)
        return resource

    def _states_from(self, index: int) -> dict[str, int]:
        """Return where the tensors of the state lie for a step from the set of that index."""
        old, new = self._sets[index].addresses, self._sets[1 - index].addresses
        before = {PREVIOUS + name: address for name, address in old.items()}
        return before | {NEXT + name: address for name, address in new.items()}

    def _enqueue(self, index: int) -> None:
        """Give a step to the stream, call by call."""
        self._fed.upload()
        for name, address in self._addresses[index].items():
            if not self._context.set_tensor_address(name, address):
                raise NetError(f"the library refuses the address of {name}")
        if not self._context.execute_async_v3(self._cuda.stream_handle):
            raise NetError("the library cannot run the engine")
        self._packed.download()

    def _prepare(self) -> None:
        """Take a step each way, so that all that is done once is done, then capture them.

        These steps leave a state behind: `clear` comes before the first frame.
        """
        self.clear()
        for index in range(2):
            self._enqueue(index)
        self._cuda.synchronize()
        try:
            graphs = [
                self._held(self._cuda.captured(partial(self._enqueue, index))) for index in range(2)
            ]
        except NetError as error:
            logger.warning("steps go to the GPU call by call, without a CUDA graph: %s", error)
        else:
            self._graphs = graphs
