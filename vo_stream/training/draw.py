"""Random numbers for the worlds: everything is drawn from one generator, so a seed repeats it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Draw:
    """Draws float32 tensors on the CPU from a generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return values in [low, high)."""
        values = torch.rand(shape, generator=self._generator, device=self._generator.device)
        return values.cpu() * (high - low) + low

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return values in [low, high) whose logarithms are uniform."""
        return torch.exp(self.uniform(math.log(low), math.log(high), *shape))

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal values."""
        values = torch.randn(shape, generator=self._generator, device=self._generator.device)
        return values.cpu()

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Return booleans that are true with this probability."""
        return self.uniform(0, 1, *shape) < probability

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return int64 values in [low, high)."""
        return self.uniform(low, high, *shape).long().clamp(low, high - 1)

    def sign(self, *shape: int) -> Tensor:
        """Return -1 or 1."""
        return torch.where(self.chance(0.5, *shape), 1.0, -1.0)

    def generator_on(self, device: torch.device) -> torch.Generator:
        """Return a new generator on a device, seeded from this one."""
        return torch.Generator(device).manual_seed(int(self.integers(0, 2**24, 1)))
