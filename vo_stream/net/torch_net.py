"""The network in torch: the reference that every other backend is compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vo_stream.config import NetConfig
from vo_stream.errors import NetError
from vo_stream.net.learned_net import Answer, Floats, Image, LearnedNet
from vo_stream.net.model import OdometryNet
from vo_stream.net.recurrent import State
from vo_stream.net.sidecar import RELEASED, read_sidecar

NAME = "torch"

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


class TorchNet(LearnedNet[State]):
    """StepNet of the weights beside a network's file.

    `device`: as torch calls it; None takes the GPU where there is one. Raises NetError where the
    weights are missing or do not fit.
    """

    def __init__(self, config: NetConfig, device: str | None = None) -> None:
        released = Path(config.model_file) if config.model_file else RELEASED
        path = released.with_suffix(".safetensors")
        super().__init__(read_sidecar(path).spec(NAME))
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if config.threads:
            torch.set_num_threads(config.threads)
        self._network = load_network(path)[0].to(self._device)

    def _clean(self, width: int, height: int) -> State:
        return self._network.start(1, height, width, self._device)

    @torch.inference_mode()
    def _run(self, image: Image, rays: Floats, dt_s: float, memory: State) -> tuple[Answer, State]:
        try:
            output, after = self._network(
                self._tensor(image)[None, None].float() / 255.0,
                self._tensor(rays)[None],
                torch.full((1, 1), dt_s, device=self._device),
                memory,
            )
            sums = torch.stack([part.sum() for part in after.values()])
            said = torch.cat(
                [
                    output.rotation.flatten(),
                    output.translation.flatten(),
                    output.std.flatten(),
                    output.weight.mean()[None],
                    sums.isfinite().all()[None],
                ]
            )
            numbers: Floats = said.cpu().numpy()
        except RuntimeError as error:  # out of memory, a driver that failed
            raise NetError(f"the network cannot be run: {' '.join(str(error).split())}") from error
        rotation, translation, std, trust, sound = np.split(numbers, [9, 12, 18, 19])
        return Answer(
            rotation.reshape(3, 3), translation, std, float(trust[0]), bool(sound[0])
        ), after

    def _tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        return torch.tensor(array, device=self._device)
