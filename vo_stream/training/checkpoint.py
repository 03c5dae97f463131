"""Checkpoints: safetensors files, written whole or not at all, that a training goes on from.

Two kinds. A weights file holds the tensors of a model's state_dict by their names. A training
file holds the weights, their running mean and the optimizer's moments. In the header of both is
one JSON object. Nothing is pickled: reading a file runs no code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from vo_stream.errors import VoStreamError

HEADER = "vo_stream"
"""Key of the JSON object in a file's header."""

WEIGHTS, MEAN, MEAN_MINUS_WEIGHTS, MOMENTS = "weights.", "mean.", "mean_minus_weights.", "moments."
"""Prefixes of a training file's tensors."""


@dataclass
class Position:
    """How far a training has come.

    `steps` of the optimizer in `trained_s` seconds, of which `skipped` had gradients that were
    not finite. `epochs`: validations so far. `best`: lowest score of them.
    """

    steps: int = 0
    trained_s: float = 0.0
    skipped: int = 0
    epochs: int = 0
    best: float = float("inf")


class RunningMean:
    """Exponential moving average of a model's weights: what is validated and released.

    `decay` per step; while there were few steps it is lower, so that the start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.weights = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, steps: int) -> None:
        """Take in the weights after an optimizer step, the `steps`-th."""
        share = 1.0 - min(self.decay, (1.0 + steps) / (10.0 + steps))
        for name, value in model.state_dict().items():
            mean = self.weights[name]
            if mean.is_floating_point():
                mean.lerp_(value, share)
            else:
                mean.copy_(value)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a safetensors file through a temporary one beside it, flushed to the disk."""
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    data = save(plain, metadata={HEADER: json.dumps(header)})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a file's tensors and its header's object; VoStreamError when it is none of ours."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except FileNotFoundError:
        raise VoStreamError(f"{path}: no such file") from None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise VoStreamError(f"{path}: not a checkpoint of vo_stream ({error})") from None


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Load a weights file, or a training file's mean, into a model; return the header's object."""
    tensors, header = read_tensors(path)
    if any(name.startswith(WEIGHTS) for name in tensors):
        tensors = _mean(tensors)
    _load(path, model, tensors)
    return header


def save_training(
    path: Path,
    model: nn.Module,
    mean: RunningMean,
    optimizer: torch.optim.Optimizer,
    position: Position,
    about: Mapping[str, Any],
    small: bool = False,
) -> None:
    """Write all that is needed to go on.

    `about`: what the header tells besides. `small`: the moments and what the mean differs from
    the weights by are rounded to bfloat16, which halves the file and costs no precision of the
    weights.
    """
    weights = model.state_dict()
    tensors = _named(WEIGHTS, weights)
    if small:
        difference = {n: mean.weights[n] - t for n, t in weights.items() if t.is_floating_point()}
        tensors |= _named(MEAN_MINUS_WEIGHTS, {n: _rounded(t) for n, t in difference.items()})
    else:
        tensors |= _named(MEAN, mean.weights)
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            rounded = _rounded(value) if small and value.dim() else value
            tensors[f"{MOMENTS}{index}.{name}"] = rounded
    header = {**about, "optimizer": type(optimizer).__name__, "position": asdict(position)}
    write_tensors(path, tensors, header)


def load_training(
    path: Path, model: nn.Module, mean: RunningMean, optimizer: torch.optim.Optimizer
) -> Position:
    """Load what `save_training` wrote; VoStreamError when it is of another model or optimizer."""
    tensors, header = read_tensors(path)
    if "position" not in header:
        raise VoStreamError(f"{path}: holds weights only; start a new training from them")
    if header["optimizer"] != type(optimizer).__name__:
        raise VoStreamError(f"{path}: of another optimizer ({header['optimizer']})")
    _load(path, model, _tail(WEIGHTS, tensors))
    for name, value in _mean(tensors).items():
        mean.weights[name].copy_(value)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _tail(MOMENTS, tensors).items():
        index, _, moment = name.partition(".")
        moments.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return Position(**header["position"])


def _load(path: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise VoStreamError(f"{path}: weights of another model ({reason})") from None


def _mean(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the running mean that a training file holds."""
    weights, difference = _tail(WEIGHTS, tensors), _tail(MEAN_MINUS_WEIGHTS, tensors)
    rounded = {
        n: t + difference[n].to(t.dtype) if n in difference else t for n, t in weights.items()
    }
    return rounded | _tail(MEAN, tensors)


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16)


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


def _tail(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
