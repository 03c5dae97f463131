"""Keeping gradients from exploding where the network solves small systems of equations.

Alignment and ego-motion layer are solvers: where their systems are nearly singular, as for a
scene that shows nothing, their derivatives are huge, and one such sample would decide the
direction of a whole batch's gradient. So each sample's gradient is limited where it enters and
leaves a solver, besides the clipping of the whole (Pascanu et al., 2013).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vo_stream.net.model import StepOutput

STAGES = ("log_inverse_depth", "log_depth_std")
STATE = ("inverse_depth", "information")
"""What enters a solver: by name, besides the flow of every stage and its information."""

LIMIT = 10.0
"""Of a sample's gradient, in those of a loss that each cell adds its share of a mean of 1 to."""


def limit_gradients(output: StepOutput, state: Mapping[str, Tensor], share: float) -> None:
    """Limit what is propagated back through a step's output and the state after it.

    `share`: of one step in the loss that is to be differentiated; samples share it further.
    """
    for tensor in _limited(output, state):
        if tensor.requires_grad:
            batch, _, height, width = tensor.shape
            limit = LIMIT * share / batch / (height * width) ** 0.5
            hook = partial(limited, limit=limit)
            tensor.register_hook(hook)  # type: ignore[no-untyped-call]


def limited(gradient: Tensor, limit: float) -> Tensor:
    """Return a gradient (B, ...) with no sample's norm above the limit; 0 where not finite."""
    norm = gradient.flatten(1).norm(dim=1)
    factor = torch.where(torch.isfinite(norm), (limit / norm.clamp_min(1e-30)).clamp_max(1.0), 0.0)
    factor = factor.view(-1, *[1] * (gradient.dim() - 1))
    return torch.where(factor > 0.0, gradient, 0.0) * factor


def _limited(output: StepOutput, state: Mapping[str, Tensor]) -> Iterator[Tensor]:
    stages: dict[str, Any] = output.stages
    yield from stages.get("flows", [])
    yield from (information for _, information in stages.get("informed", []))
    yield from (stages[name] for name in STAGES if name in stages)
    yield from (state[name] for name in STATE if name in state)
