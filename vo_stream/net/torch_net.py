"""The network in torch: the reference that every other backend is compared with."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vo_stream.config import NetConfig
from vo_stream.errors import NetError
from vo_stream.net.learned_net import CELL, Answer, Floats, Image, LearnedNet
from vo_stream.net.model import OdometryNet
from vo_stream.net.packed import MOTION, unpacked
from vo_stream.net.ping_pong import Slot, Spares
from vo_stream.net.sidecar import RELEASED, read_sidecar
from vo_stream.pose_error import AXES, INDEPENDENT, Correlation

logger = logging.getLogger(__name__)

NAME = "torch"

WARM_UP_STEPS = 3
"""Each way before capture: libraries choose their algorithms in the first ones."""

HEADER = "vo_stream"
"""Key of the JSON object in the header of a file of weights: how they came about."""


def load_network(path: Path) -> tuple[OdometryNet, dict[str, Any]]:
    """Return the network of a safetensors file, for inference, and what its header tells.

    Raises NetError, in one line, where it is missing or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"unreadable ({error})"
        raise NetError(f"{path}: {reason}") from None
    try:
        network = OdometryNet(core_of(about))
        network.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise NetError(f"{path}: not weights of this version's network ({reason})") from None
    return network.eval(), about


def core_of(about: Mapping[str, Any]) -> str:
    """Return the recurrent core of weights by what their header tells."""
    return str(about.get("settings", {}).get("core", "lstm"))


def rates_of(about: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the lowest and highest frame rate that weights were trained on, if they tell."""
    rates = about.get("rate_hz")
    return None if rates is None else (float(rates[0]), float(rates[1]))


def correlation_of(about: Mapping[str, Any]) -> Correlation:
    """Return how alike the errors of steps are by the header of weights: independent where they
    were not calibrated."""
    found = about.get("calibration", {})
    if "error_share" not in found:
        return INDEPENDENT
    keys = ("error_share", "error_time_s")
    try:
        return Correlation(*(tuple(float(found[key][axis]) for axis in AXES) for key in keys))
    except (LookupError, TypeError, ValueError) as error:
        raise NetError(f"weights whose calibration is damaged ({error})") from None


def sees_gpu() -> bool:
    """Return whether this torch can use an NVIDIA GPU."""
    return bool(torch.cuda.is_available())


class TorchBuffers:
    """The buffers of one stream: what goes in, what comes out, two sets of the state.

    A step reads and writes nothing else, so that on a GPU it can be a CUDA graph, one for each way
    between the two sets. On a CPU the same step is taken as it is. `states`: the two sets.
    """

    def __init__(self, network: OdometryNet, width: int, height: int, device: torch.device) -> None:
        self._network, self._device = network, device
        self._on_gpu = device.type == "cuda"
        self._rays_from: Floats | None = None
        self._image = torch.zeros(1, 1, height, width, dtype=torch.uint8, device=device)
        self._rays = torch.zeros(1, 2, height // CELL, width // CELL, device=device)
        self._dt = torch.zeros(1, 1, device=device)
        self._pinned = torch.zeros_like(self._image, device="cpu", pin_memory=self._on_gpu)
        self.states = [network.start(1, height, width, device) for _ in range(2)]
        self._packed = self._stepped(0)
        self._graphs = self._captured() if self._on_gpu else []

    def clear(self) -> None:
        """Let set 0 hold the state of a stream that has seen nothing."""
        for part in self.states[0].values():
            part.zero_()

    def feed(self, image: Image, rays: Floats, dt_s: float) -> None:
        """Take what goes in: `image` (height, width), `rays` (2, h, w), seconds."""
        there = self._pinned[0, 0].numpy()
        assert image.shape == there.shape, "images of one stream have one size"
        there[:] = image
        self._image.copy_(self._pinned, non_blocking=True)
        self._dt.fill_(dt_s)
        if self._rays_from is not rays:
            self._rays_from = None
            self._rays.copy_(torch.tensor(rays)[None])
            self._rays_from = rays

    def run(self, index: int) -> None:
        """Take the step from the set of that index into the other one."""
        if self._graphs:
            self._graphs[index].replay()
        else:
            self._step(index)

    def packed(self) -> Floats:
        """Return what the last step said, as in `net.packed`; waits for it."""
        numbers: Floats = self._packed.cpu().numpy()
        return numbers

    def _step(self, index: int) -> None:
        self._packed.copy_(self._stepped(index))

    def _stepped(self, index: int) -> Tensor:
        """Write the new state into the other set; return the packed answer."""
        image = self._image.float() / 255.0
        output, after = self._network(image, self._rays, self._dt, self.states[index])
        for name, part in self.states[1 - index].items():
            part.copy_(after[name])
        said = [getattr(output, name).flatten() for name in MOTION]
        sums = [after[name].sum()[None] for name in after]
        return torch.cat([*said, output.weight.mean()[None], *sums])

    def _captured(self) -> list[torch.cuda.CUDAGraph]:
        """Return a step each way as graphs; none, and a line in the log, where that fails.

        The steps before leave a state behind: `clear` comes before the first frame.
        """
        try:
            side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_STEPS):
                    for index in range(2):
                        self._step(index)
            torch.cuda.current_stream(self._device).wait_stream(side)
            graphs = [torch.cuda.CUDAGraph() for _ in range(2)]
            pool = torch.cuda.graph_pool_handle()  # one: nothing in it outlives a step
            for index, graph in enumerate(graphs):
                with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                    self._step(index)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            logger.warning("steps go to the GPU call by call, without a CUDA graph: %s", reason)
            return []
        return graphs


class TorchNet(LearnedNet[Slot[TorchBuffers]]):
    """StepNet of the weights beside a network's file.

    `device`: as torch calls it; None takes the GPU where there is one. Raises NetError where the
    weights are missing or do not fit.
    """

    def __init__(self, config: NetConfig, device: str | None = None) -> None:
        released = Path(config.model_file) if config.model_file else RELEASED
        path = released.with_suffix(".safetensors")
        super().__init__(read_sidecar(path).spec(NAME))
        self._device = torch.device(device or ("cuda" if sees_gpu() else "cpu"))
        if config.threads:
            torch.set_num_threads(config.threads)
        if self._device.type == "cuda":  # the geometry needs more digits than TF32 has
            torch.backends.cudnn.allow_tf32 = False
        self._network = load_network(path)[0].to(self._device)
        self._spares: Spares[TorchBuffers] = Spares()

    @torch.inference_mode()
    def _clean(self, width: int, height: int) -> Slot[TorchBuffers]:
        make = partial(TorchBuffers, self._network, width, height, self._device)
        with _failures_told():
            stream = self._spares.stream((width, height), make)
            stream.buffers.clear()
        return stream.start()

    @torch.inference_mode()
    def _run(
        self, image: Image, rays: Floats, dt_s: float, memory: Slot[TorchBuffers]
    ) -> tuple[Answer, Slot[TorchBuffers]]:
        buffers = memory.stream.buffers
        with _failures_told():
            buffers.feed(image, rays, dt_s)
            after = memory.stream.step(memory, buffers.run)
            return unpacked(buffers.packed()), after


@contextmanager
def _failures_told() -> Iterator[None]:
    """Raise NetError where torch cannot go on: out of memory, a driver that failed."""
    try:
        yield
    except RuntimeError as error:
        raise NetError(f"the network cannot be run: {' '.join(str(error).split())}") from error
