"""The recurrent judge: what the stream so far makes of a solved motion.

The ego-motion layer knows two frames. The judge remembers more: from the solved motion, how well
it is known, and what the image looks like as a whole, its core corrects the motion within a few
of its standard deviations, corrects the scale of its translation, and says how far the standard
deviations can be believed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vo_stream.net.ego_motion import EgoMotion, TwoView
from vo_stream.net.encoder import POOLED
from vo_stream.net.recurrent import CORES, State
from vo_stream.net.rigid import moved, twist_from_identity

MEMORY = 128
"""Size of the recurrent core."""

MAX_CORRECTION = 2.0
"""Of the motion, in standard deviations of the solved one."""

MAX_LOG_SCALE = 0.3
"""Of the correction of the translation's length."""

MEAN_LOG_INVERSE_DEPTH = -1.5
"""Where training starts: 4.5 m."""


class Judged(NamedTuple):
    """`rotation`: (batch, 3, 3), `translation`: (batch, 3) m and `std`: (batch, 6) as in
    `StepOutput`. `memory`: the core's new state."""

    rotation: Tensor
    translation: Tensor
    std: Tensor
    memory: State


class Judge(nn.Module):
    """Corrects motions by what it remembers. `core`: a name of `CORES`."""

    def __init__(self, core: str) -> None:
        super().__init__()
        self.core = CORES[core](MEMORY)
        self.digest = nn.Linear(POOLED + 23, MEMORY)
        self.verdict = nn.Linear(MEMORY, 13)
        nn.init.zeros_(self.verdict.weight)  # believe the solver at first
        nn.init.zeros_(self.verdict.bias)

    def forward(
        self, solved: EgoMotion, views: TwoView, pooled: Tensor, dt: Tensor, state: State
    ) -> Judged:
        """Judge a solved motion. `pooled`: (batch, 128) of the image; `dt`: (batch, 1) s."""
        summary = torch.cat([pooled, summarised(solved, views, dt, state["seen"])], dim=1)
        said, memory = self.core(functional.relu(self.digest(summary)), state)
        verdict = self.verdict(said)
        std = torch.diagonal(solved.covariance, dim1=1, dim2=2).clamp(min=1e-14).sqrt()
        correction = MAX_CORRECTION * std * verdict[:, :6].tanh() * state["seen"]
        rotation, translation = moved(solved.rotation, solved.translation, correction)
        translation = translation * (MAX_LOG_SCALE * verdict[:, 6:7].tanh()).exp()
        return Judged(rotation, translation, std * verdict[:, 7:].clamp(-4.0, 6.0).exp(), memory)

    def recall(self, state: State) -> Tensor:
        """Return what the core said last, (batch, 128)."""
        recalled: Tensor = self.core.recall(state)
        return recalled


def summarised(solved: EgoMotion, views: TwoView, dt: Tensor, seen: Tensor) -> Tensor:
    """Return (batch, 23): the solved motion and how well it is known, in numbers near 1."""
    twist = twist_from_identity(solved.rotation, solved.translation)
    log_std = 0.5 * torch.diagonal(solved.covariance, dim1=1, dim2=2).clamp(min=1e-12).log()
    shift = (solved.log_depth - views.log_depth) * solved.trust
    carried = (views.carried - views.log_depth) * views.carried_information.clamp(max=1.0)
    means = torch.cat(
        [
            views.log_depth.mean(2) - MEAN_LOG_INVERSE_DEPTH,
            solved.log_depth.mean(2) - MEAN_LOG_INVERSE_DEPTH,
            shift.mean(2),
            carried.mean(2),
            views.carried_information.mean(2).clamp(max=100.0) / 100.0,
            solved.trust.mean(2),
            0.5 * views.log_depth_information.mean(2).log(),
        ],
        dim=1,
    )
    square = solved.translation.square().sum(1, keepdim=True)
    return torch.cat(
        [
            twist[:, :3],
            20.0 * twist[:, 3:],
            (log_std + 5.0) / 3.0,
            means,
            0.5 * (square + 1e-4).log() + 2.0,
            10.0 * dt.clamp(max=1.0),
            seen,
            (square + 1e-8).sqrt() / (dt + 0.05) / 10.0,
        ],
        dim=1,
    )
