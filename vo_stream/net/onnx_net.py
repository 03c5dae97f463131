"""The network on the CPU, by ONNX Runtime.

The state never leaves its buffers: each stream has two sets of them, and a step reads one and
writes the other (ONNX Runtime's IO binding). The graph takes images of any size, so one session
serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vo_stream.config import NetConfig
from vo_stream.errors import NetError
from vo_stream.net.learned_net import CELL, Answer, Floats, Image, LearnedNet
from vo_stream.net.ping_pong import Slot, Stream
from vo_stream.net.sidecar import (
    INPUTS,
    NEXT,
    OUTPUTS,
    PREVIOUS,
    RELEASED,
    RELEASED_INT8,
    Sidecar,
    read_sidecar,
)

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding

NAME = "onnxruntime"

READ = {"rotation": (1, 3, 3), "translation": (1, 3), "std": (1, 6)}
"""Outputs of fixed shape that are read after each step."""

_ERRORS_ONLY = 3  # of ONNX Runtime's log levels


class OnnxBuffers:
    """The buffers of one stream, and their bindings for both ways between the two sets.

    `states`: the two sets.
    """

    def __init__(self, session: InferenceSession, sidecar: Sidecar, width: int, height: int):
        self.shape = (height, width)
        h, w = height // CELL, width // CELL
        self.image = np.zeros((1, 1, height, width), dtype=np.float32)
        self.rays = np.zeros((1, 2, h, w), dtype=np.float32)
        self.dt = np.zeros((1, 1), dtype=np.float32)
        self.answer = {name: np.zeros(shape, np.float32) for name, shape in READ.items()}
        self.answer["weight"] = np.zeros((1, 1, h, w), dtype=np.float32)
        self.states = [
            {n: np.zeros(p.shape(width, height), np.float32) for n, p in sidecar.states.items()}
            for _ in range(2)
        ]
        self.rays_from: Floats | None = None
        self._session = session
        self._bindings = [self._binding(session, index) for index in range(2)]

    def _binding(self, session: InferenceSession, index: int) -> IOBinding:
        """Bind a step from the set of that index to the other one."""
        binding = session.io_binding()
        inputs = dict(zip(INPUTS, (self.image, self.rays, self.dt), strict=True))
        inputs |= {PREVIOUS + name: array for name, array in self.states[index].items()}
        outputs = self.answer | {NEXT + n: array for n, array in self.states[1 - index].items()}
        for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return binding

    def run(self, index: int) -> None:
        """Take the step from the set of that index into the other one; raises NetError."""
        try:
            self._session.run_with_iobinding(self._bindings[index])
        except _runtime_errors() as error:
            raise NetError(f"the network cannot be run: {_one_line(error)}") from error


class OnnxNet(LearnedNet[Slot[OnnxBuffers]]):
    """StepNet of an ONNX file.

    Raises NetError where ONNX Runtime is missing, or the file is missing, damaged or of another
    version than its sidecar.
    """

    def __init__(self, config: NetConfig) -> None:
        released = RELEASED_INT8 if config.precision == "int8" else RELEASED
        path = Path(config.model_file) if config.model_file else released
        self._sidecar = read_sidecar(path)
        super().__init__(self._sidecar.spec(NAME))
        self._session: InferenceSession | None = open_session(path, config)
        _check_interface(path, self._session, self._sidecar)
        try:
            self._warm_up()
        except NetError as error:
            raise NetError(f"{path}: {error}") from None

    def close(self) -> None:
        """Free the network."""
        self._session = None

    def _clean(self, width: int, height: int) -> Slot[OnnxBuffers]:
        assert self._session is not None
        return Stream(OnnxBuffers(self._session, self._sidecar, width, height)).start()

    def _run(
        self, image: Image, rays: Floats, dt_s: float, memory: Slot[OnnxBuffers]
    ) -> tuple[Answer, Slot[OnnxBuffers]]:
        assert self._session is not None
        buffers = memory.stream.buffers
        assert image.shape == buffers.shape, "images of one stream have one size"
        np.multiply(image, np.float32(1.0 / 255.0), out=buffers.image[0, 0])
        if buffers.rays_from is not rays:
            buffers.rays_from, buffers.rays[0] = rays, rays
        buffers.dt[:] = dt_s
        after = memory.stream.step(memory, buffers.run)
        said = {name: buffers.answer[name][0] for name in READ}
        trust = float(buffers.answer["weight"].mean())
        sound = _all_finite(buffers.states[after.index])
        return Answer(**said, trust=trust, sound=sound), after

    def _warm_up(self) -> None:
        """Run once, so that the first frame finds all memory allocated."""
        width, height = self.spec.input_size((self.spec.max_pixels, self.spec.max_pixels))
        blank = np.zeros((height, width), dtype=np.uint8)
        rays = np.zeros((2, height // CELL, width // CELL), dtype=np.float32)
        self._run(blank, rays, 0.0, self._clean(width, height))


def _all_finite(state: Mapping[str, Floats]) -> bool:
    """Whether a state is finite: its sums are, unless they overflow."""
    sums = [float(array.sum()) for array in state.values()]
    return bool(np.isfinite(sums).all())


def open_session(path: Path, config: NetConfig) -> InferenceSession:
    """Return a session on the CPU; raises NetError."""
    try:
        import onnxruntime
    except ImportError as error:
        reason = _one_line(error)
        raise NetError(
            f"onnxruntime cannot be loaded: pip install onnxruntime ({reason})"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(config.spinning)))
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between the frames
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except _runtime_errors() as error:
        raise NetError(f"{path}: ONNX Runtime cannot load it: {_one_line(error)}") from None


def open_graph(path: Path) -> Callable[[dict[str, Floats]], dict[str, Floats]]:
    """Return an ONNX file as a function of arrays by name, without buffers of its own.

    Both raise NetError: where it cannot be loaded, and where it cannot be run on what it is given.
    """
    session = open_session(path, NetConfig())
    names = [value.name for value in session.get_outputs()]

    def run(inputs: dict[str, Floats]) -> dict[str, Floats]:
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except _runtime_errors() as error:
            raise NetError(f"{path.name}: cannot be run: {_one_line(error)}") from None

    return run


def _check_interface(path: Path, session: InferenceSession, sidecar: Sidecar) -> None:
    """Raise NetError where the graph's inputs and outputs are not what the sidecar says."""
    inputs = [*INPUTS, *(PREVIOUS + name for name in sidecar.states)]
    outputs = [*OUTPUTS, *(NEXT + name for name in sidecar.states)]
    if [value.name for value in session.get_inputs()] != inputs:
        raise NetError(f"{path}: its inputs are not those that its sidecar names")
    if [value.name for value in session.get_outputs()] != outputs:
        raise NetError(f"{path}: its outputs are not those that its sidecar names")


def _runtime_errors() -> tuple[type[Exception], ...]:
    """Return the errors of ONNX Runtime, which have no common parent of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds = [kind for kind in vars(state).values() if isinstance(kind, type)]
    return (RuntimeError, *(kind for kind in kinds if issubclass(kind, Exception)))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
