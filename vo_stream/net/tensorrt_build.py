"""Engines: what TensorRT makes of a network's file for one size of image.

The precision is the file's: the network is strongly typed, and single precision stays single
precision, since TensorFloat-32 has too few digits for the geometry. Files take any size of image;
here the inputs get their shapes after the file is read, so an engine is for one size and nothing
in it is dynamic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from vo_stream.errors import NetError
from vo_stream.net.learned_net import CELL
from vo_stream.net.packed import add_packed
from vo_stream.net.sidecar import INPUTS, NEXT, OUTPUTS, PREVIOUS, Sidecar
from vo_stream.net.tensorrt_library import Library, log_of

logger = logging.getLogger(__name__)

Shapes = dict[str, tuple[int, ...]]
OnProgress = Callable[[str, float], None]
"""Is told what goes on, and the part of the work that is done, 0..1; it never goes back."""

REPORTED_STEP = 0.001
"""Part of the work after which progress is told again: there are thousands of steps."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine is built.

    `workspace_bytes`: the most memory on the GPU that a layer may use beside its inputs and
    outputs. `optimization_level`: 0..5, more tries more and takes longer; 3 is the library's own
    choice. TensorRT-RTX takes no notice of it.
    """

    workspace_bytes: int = 1 << 30
    optimization_level: int = 3


class Source(NamedTuple):
    """A network that was read, and what must live as long: its builder, its parser."""

    builder: Any
    network: Any
    parser: Any


def build_engine(
    library: Library,
    model_file: Path,
    sidecar: Sidecar,
    size: tuple[int, int],
    options: EngineOptions,
    on_progress: OnProgress | None = None,
    timing_file: Path | None = None,
) -> bytes:
    """Return the serialized engine of a network's file for images of (width, height).

    Its tensors are those that the sidecar names and `net.packed.PACKED`, all in single precision.
    `timing_file`: where TensorRT keeps what it measured, so that the next build is faster; one that
    does not fit is replaced. What `on_progress` raises ends the build. TensorRT needs the GPU (see
    `require_gpu`), TensorRT-RTX none. Raises NetError, in one line with the library's own words,
    where the file cannot be read or built.
    """
    log = log_of(library.module)
    log.told()
    source = read_network(library, model_file, sidecar, size)
    layers = source.network.num_layers
    logger.info("%s: %d layers, before %s fuses them", model_file, layers, library)
    config = config_of(library, source.builder, options)
    monitor = _monitor(library.module, on_progress)
    config.progress_monitor = monitor
    if timing_file is not None:
        use_timings(config, timing_file)
    serialized = source.builder.build_serialized_network(source.network, config)
    if monitor.error is not None:
        raise monitor.error
    if serialized is None:
        raise NetError(f"{model_file}: {library} cannot build an engine{log.told()}")
    if timing_file is not None:
        keep_timings(config, timing_file)
    if on_progress is not None:
        on_progress("built", 1.0)
    return bytes(serialized)


def read_network(
    library: Library, model_file: Path, sidecar: Sidecar, size: tuple[int, int]
) -> Source:
    """Read a network's file for images of (width, height), with the packed vector added.

    Raises NetError, in one line, where the file is not what its sidecar says or has something that
    the library cannot do.
    """
    module, log = library.module, log_of(library.module)
    try:
        builder = module.Builder(log)
    except TypeError:  # how the bindings say that there is none
        raise NetError(f"{library} cannot build engines here{log.told()}") from None
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, log)
    _parse(parser, model_file, library)
    _fix_shapes(network, model_file, sidecar, size)
    add_packed(module, network, sidecar)
    return Source(builder, network, parser)


def config_of(library: Library, builder: Any, options: EngineOptions) -> Any:
    """Return an IBuilderConfig for the options, without TensorFloat-32."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.builder_optimization_level = options.optimization_level
    config.clear_flag(library.module.BuilderFlag.TF32)
    return config


def input_shapes(sidecar: Sidecar, size: tuple[int, int]) -> Shapes:
    """Return the shapes of a network's inputs for images of (width, height), by name."""
    width, height = size
    fed = ((1, 1, height, width), (1, 2, height // CELL, width // CELL), (1, 1))
    states = {PREVIOUS + name: part.shape(width, height) for name, part in sidecar.states.items()}
    return {**dict(zip(INPUTS, fed, strict=True)), **states}


def use_timings(config: Any, file: Path) -> None:
    """Let a builder's IBuilderConfig use what was measured in earlier builds, where that fits."""
    try:
        before = file.read_bytes()
    except OSError:
        before = b""
    timings = config.create_timing_cache(before)
    if timings is None or not config.set_timing_cache(timings, ignore_mismatch=False):
        logger.warning("%s: does not fit this library and GPU; it is replaced", file)
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def keep_timings(config: Any, file: Path) -> None:
    """Write what was measured, whole or not at all; without it the next build takes longer."""
    timings = config.get_timing_cache()
    if timings is None:
        return
    partial = file.with_name(file.name + ".partial")
    try:
        partial.write_bytes(bytes(timings.serialize()))
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        logger.warning("%s: not kept (%s)", file, error.strerror)


def _parse(parser: Any, model_file: Path, library: Library) -> None:
    try:
        content = model_file.read_bytes()
    except OSError as error:
        raise NetError(f"{model_file}: {(error.strerror or 'cannot be read').lower()}") from None
    if not parser.parse(content):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        nodes = (f"node {e.node()} {e.node_operator()}".strip() for e in errors)
        reasons = (" ".join(e.desc().split()) for e in errors)
        said = "; ".join(map(": ".join, zip(nodes, reasons, strict=True)))
        raise NetError(f"{model_file}: {library} cannot read it ({said})")


def _fix_shapes(network: Any, model_file: Path, sidecar: Sidecar, size: tuple[int, int]) -> None:
    """Give the inputs of a network their shapes; checks that it is what the sidecar describes."""
    width, height = size
    if sidecar.size is not None and sidecar.size != size:
        only = "x".join(map(str, sidecar.size))
        raise NetError(f"{model_file}: takes images of {only} only, not {width}x{height}")
    if width % sidecar.multiple or height % sidecar.multiple:
        raise NetError(f"{width}x{height}: not multiples of {sidecar.multiple}")
    shapes = input_shapes(sidecar, size)
    inputs = {t.name: t for t in map(network.get_input, range(network.num_inputs))}
    if set(inputs) != set(shapes):
        raise NetError(f"{model_file}: its inputs are not those that its sidecar names")
    for name, tensor in inputs.items():
        tensor.shape = shapes[name]
    try:
        found = map(network.get_output, range(network.num_outputs))
        outputs = {tensor.name: tuple(tensor.shape) for tensor in found}
    except RuntimeError:  # the library finds out when it is asked
        raise NetError(f"{model_file}: what its sidecar says of the shapes does not fit") from None
    if set(outputs) != {*OUTPUTS, *(NEXT + name for name in sidecar.states)}:
        raise NetError(f"{model_file}: its outputs are not those that its sidecar names")
    for name in sidecar.states:
        if outputs[NEXT + name] != shapes[PREVIOUS + name]:
            raise NetError(
                f"{model_file}: {name} goes in as {shapes[PREVIOUS + name]} and comes out as "
                f"{outputs[NEXT + name]}"
            )


class _Phase:
    """A part of a build: some steps, in each of which parts of it may run one after another."""

    def __init__(self, parent: _Phase | None, steps: int) -> None:
        self.parent = parent
        self._steps = steps
        self._done = 0
        self._finished_within = 0

    def part(self, within: float = 0.0) -> float:
        """Return what is done, 0..1. `within`: the part done of a phase that runs in this step.

        How many phases a step has is not known: each gets half of what is left of the step.
        """
        step = 1.0 - 0.5**self._finished_within * (1.0 - 0.5 * within)
        part = min((self._done + step) / self._steps, 1.0)
        return part if self.parent is None else self.parent.part(part)

    def complete(self, step: int) -> None:
        self._done, self._finished_within = step + 1, 0

    def finish(self) -> None:
        if self.parent is not None:
            self.parent._finished_within += 1


def _monitor(module: Any, on_progress: OnProgress | None) -> Any:
    """Return an IProgressMonitor of a library's module that tells `on_progress`."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        """Called from several threads. Keeps in `error` what goes wrong: the library would not."""

        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._phases: dict[str, _Phase] = {}
            self._lock = Lock()
            self._told = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._note(self._start, phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._note(self._complete, phase_name, step)
            return self.error is None

        def phase_finish(self, phase_name: str) -> None:
            self._note(self._finish, phase_name)

        def _note(self, change: Callable[..., None], *arguments: Any) -> None:
            try:
                with self._lock:
                    change(*arguments)
            except BaseException as error:  # noqa: BLE001  # raised when the library has stopped
                self.error = self.error or error

        def _start(self, name: str, parent: str | None, steps: int) -> None:
            self._phases[name] = _Phase(self._phases.get(parent or ""), steps)

        def _complete(self, name: str, step: int) -> None:
            phase = self._phases.get(name)
            if phase is None:
                return
            phase.complete(step)
            part = phase.part()
            if part >= self._told + REPORTED_STEP and on_progress is not None:
                self._told = part
                on_progress(name, part)

        def _finish(self, name: str) -> None:
            phase = self._phases.pop(name, None)
            if phase is not None:
                phase.finish()

    return Monitor()
