"""What a training makes small, by name: the network's own losses and those it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from vo_stream.net.model import StepOutput
from vo_stream.training.data import Step
from vo_stream.training.losses import LossWeights, losses
from vo_stream.training.posenet import BETA_M, posenet_losses
from vo_stream.training.view_synthesis import ViewSynthesisWeights, view_synthesis_losses

Objective: TypeAlias = Callable[[StepOutput, Step, Tensor, float], dict[str, Tensor]]
"""From what a model said of a step, the step, the image (B, 1, H, W) before and the progress 0..1:
the weighted losses by name; their sum is what to minimise."""

OBJECTIVES = ("default", "posenet", "posenet-homoscedastic", "view_synthesis")


def make_objective(name: str, weights: LossWeights) -> Objective:
    """Return one of `OBJECTIVES`. `weights`: of the default one's parts."""

    def default(
        output: StepOutput, step: Step, previous: Tensor, progress: float
    ) -> dict[str, Tensor]:
        return losses(output, step.truth, step.fresh, weights, progress)

    def posenet(
        output: StepOutput, step: Step, previous: Tensor, progress: float
    ) -> dict[str, Tensor]:
        beta = BETA_M if name == "posenet" else None
        return posenet_losses(output, step.truth, step.fresh, beta)

    def view_synthesis(
        output: StepOutput, step: Step, previous: Tensor, progress: float
    ) -> dict[str, Tensor]:
        return view_synthesis_losses(
            output, step.image, previous, step.rays, step.fresh, ViewSynthesisWeights()
        )

    found: tuple[Objective, ...] = (default, posenet, posenet, view_synthesis)
    return dict(zip(OBJECTIVES, found, strict=True))[name]
