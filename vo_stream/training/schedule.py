"""The learning rate over the time that a training may take."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

OPTIMIZERS = ("adamw", "rmsprop", "adagrad")


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine down (Loshchilov & Hutter, 2017), by trained time.

    `total_s`: seconds of the whole training. `peak`: highest learning rate, `last`: the final
    one's share of it. `warm_up`: share of the time until the peak.
    """

    total_s: float
    peak: float
    warm_up: float = 0.02
    last: float = 0.02

    def progress(self, trained_s: float) -> float:
        """Return how much of the training is done, 0..1."""
        return min(max(trained_s / self.total_s, 0.0), 1.0) if self.total_s > 0.0 else 1.0

    def rate(self, trained_s: float) -> float:
        """Return the learning rate after some seconds of training."""
        progress = self.progress(trained_s)
        if progress < self.warm_up:
            return self.peak * max(progress / self.warm_up, self.last)
        done = (progress - self.warm_up) / (1.0 - self.warm_up)
        return self.peak * (self.last + (1.0 - self.last) * 0.5 * (1.0 + math.cos(math.pi * done)))


def make_optimizer(
    name: str, model: nn.Module, rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return one of `OPTIMIZERS` over all parameters; only matrices and kernels decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99))
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=rate, alpha=0.99)
    if name == "adagrad":
        return torch.optim.Adagrad(groups, lr=rate)
    raise ValueError(f"no optimizer is called {name}")


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all of the optimizer's parameters a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
