"""The network: encoder, matching, alignment, ego-motion layer and a recurrent core.

One step takes the current frame and the state of the stream. The frame is encoded once; its
features are matched with those of the previous frame, first everywhere at 1/16, then around that
at 1/8, then aligned to a fraction of a pixel at 1/4. The ego-motion layer explains the flow by a
rigid motion and a depth for each cell, held by a prior of the depth from the image alone and by
the depths that the previous frame had, which the state carries like a filter. Where the layer does
not trust a flow, its explanation is the better guess: from there the flow is aligned again, at
1/2, and the motion solved for again. The core remembers what outlives a frame: it conditions the
depth, corrects the motion within a few of its standard deviations, corrects its scale, and says
how far the standard deviations can be believed.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from vo_stream.net.alignment import CELL, Aligned, Alignment, looked_up, positions
from vo_stream.net.ego_motion import (
    LOG_INVERSE_DEPTH_RANGE,
    EgoMotion,
    TwoView,
    guess_ego_motion,
    rigid_target,
    solve_ego_motion,
)
from vo_stream.net.encoder import (
    CELLS,
    COARSE,
    CONTEXT,
    HALF,
    QUARTER,
    Encoder,
    Features,
    conv,
)
from vo_stream.net.judge import MEAN_LOG_INVERSE_DEPTH, MEMORY, Judge
from vo_stream.net.matching import local_scores, match_everywhere, window
from vo_stream.net.recurrent import State

Prior = tuple[Tensor, Tensor]
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

RADIUS = 3
"""Of the local scores, in cells."""


CELLS_AT_ONCE = 32.0
"""So many cells share one error of the depth's prior: together they know as much as one."""

LEAST_VARIANCE = 0.5 * 0.05**2
"""Of the flow of one cell, px^2 of both directions: none is known better than to 0.05 px."""


class StepOutput(NamedTuple):
    """What one step says.

    `rotation`: (batch, 3, 3) and `translation`: (batch, 3) m, prev_from_curr. `std`: (batch, 6)
    standard deviations of its error twist (v in m, w in rad) in the current camera's frame.
    `flow`: (batch, 2, h, w) px from each cell of the current frame to the same point in the
    previous one. `inverse_depth`: (batch, 1, h, w) 1/m in the current frame. `weight`: (batch, 1,
    h, w) in 0..1, the trust in each cell: 0 for what moves by itself or was not found.
    `stages`: what only training looks at.
    """

    rotation: Tensor
    translation: Tensor
    std: Tensor
    flow: Tensor
    inverse_depth: Tensor
    weight: Tensor
    stages: dict[str, Any]


class OdometryNet(nn.Module):
    """Monocular metric odometry, one frame at a time. Width and height are multiples of 32."""

    multiple = 32

    def __init__(self, core: str = "lstm") -> None:
        super().__init__()
        self.encoder = Encoder()
        self.judge = Judge(core)
        self.sharpness = nn.Parameter(torch.tensor([math.log(12.0), math.log(12.0)]))
        scores = (2 * RADIUS + 1) ** 2
        self.flow_hidden = nn.Sequential(conv(scores + 3 + CONTEXT, 64), conv(64, 64))
        self.flow_head = _zeroed(nn.Conv2d(64, 2, 3, 1, 1), 0.0)
        self.align_quarter = Alignment(stride=4, window=6, iterations=2)
        self.align_half = Alignment(stride=2, window=8, iterations=1)
        self.depth_hidden = nn.Conv2d(CONTEXT + 2, 64, 3, 1, 1)
        self.depth_memory = _zeroed(nn.Linear(MEMORY, 64), 0.0)
        self.depth_head = _zeroed(nn.Conv2d(64, 2, 1), MEAN_LOG_INVERSE_DEPTH, math.log(0.5))
        self.weight_of_hidden = nn.Conv2d(64, 48, 3, 1, 1)
        self.weight_of_signs = nn.Conv2d(5, 48, 3, 1, 1, bias=False)
        self.weight_first = _zeroed(nn.Conv2d(48, 1, 1), 1.0)
        self.weight_head = _zeroed(nn.Conv2d(48, 1, 1), 1.0)
        self.forgetting = nn.Parameter(torch.tensor(math.log(0.15)))
        self.scale_noise = nn.Parameter(torch.tensor(math.log(0.4)))
        self.scale_drift = nn.Parameter(torch.tensor(math.log(0.02)))

    def state_shapes(self, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Return the shape, without the batch, of each part of the state for an image's size."""
        h, w = height // CELL, width // CELL
        return {
            "half": (HALF, 4 * h, 4 * w),
            "quarter": (QUARTER, 2 * h, 2 * w),
            "cells": (CELLS, h, w),
            "coarse": (COARSE, h // 2, w // 2),
            "inverse_depth": (1, h, w),
            "information": (1, h, w),
            "scale": (1,),
            "seen": (1,),
            **self.judge.core.shapes,
        }

    def start(
        self, batch: int, height: int, width: int, device: torch.device | str | None = None
    ) -> State:
        """Return the state of a stream that has seen nothing: zeros."""
        shapes = self.state_shapes(height, width)
        return {name: torch.zeros(batch, *s, device=device) for name, s in shapes.items()}

    def forward(
        self, image: Tensor, rays: Tensor, dt: Tensor, state: State
    ) -> tuple[StepOutput, State]:
        """Take in a frame.

        `image`: (batch, 1, H, W) grey, 0..1. `rays`: (batch, 2, H/8, W/8) x and y of the ray of
        each cell's centre. `dt`: (batch, 1) s since the previous frame. `state`: from `start` or
        the previous step; it is not changed. On the first frame the motion means nothing.
        """
        features = self.encoder(image)
        prior = self._depth(features, rays, state)
        quarter, hidden, flows = self._flow(features, state)
        weighed = self.weight_of_hidden(hidden)  # for both informations
        information = self._information(quarter, weighed, flows, self.weight_first)
        with exact(image.device):
            views = self._views(quarter.flow, information, prior, rays, state)
            guess = guess_ego_motion(views)
            rigid = rigid_target(views.rays, guess)
            flow = (rigid + guess.trust * (views.target - rigid) - views.rays).detach()
            flow = flow.reshape(rays.shape) * focal_length(rays)[:, :, None, None]
            half = self.align_half(features.half, state["half"], flow)
        refined = self._information(half, weighed, flows, self.weight_head)
        with exact(image.device):
            views = self._views(half.flow, refined, prior, rays, state)
            views = views.remembering(guess.remembers)
            solved, known = self._scaled(solve_ego_motion(views, guess), views, state)
            output, after = self._judged(solved, views, half, features, dt, state)
            after["scale"] = known * state["seen"]
        output.stages["flows"] = [*flows, half.flow]
        output.stages["informed"] = [(quarter.flow, information), (half.flow, refined)]
        output.stages["log_inverse_depth"], output.stages["log_depth_std"] = prior
        return output, after

    def _views(
        self, flow: Tensor, information: Tensor, prior: Prior, rays: Tensor, state: State
    ) -> TwoView:
        """Return what the ego-motion layer is to explain."""
        focal = focal_length(rays)
        height, width = rays.shape[-2:]
        filtered = torch.cat([state["inverse_depth"], state["information"]], dim=1)
        before, visible = looked_up(filtered, positions(height, width, rays) + flow / CELL)
        carried, certainty = before[:, :1], before[:, 1:] * visible
        certainty = certainty / (1.0 + certainty * (2.0 * self.forgetting).exp())
        fx, fy = focal[:, :1, None, None], focal[:, 1:, None, None]
        scale = torch.cat([fx * fx, fx * fy, fy * fy], dim=1) * state["seen"][:, :, None, None]
        return TwoView(
            rays.flatten(2),
            (rays + flow / focal[:, :, None, None]).flatten(2),
            (information * scale).flatten(2),
            prior[0].flatten(2),
            (-2.0 * prior[1]).exp().flatten(2) / CELLS_AT_ONCE,
            carried.flatten(2),
            certainty.flatten(2),
        )

    def _scaled(self, solved: EgoMotion, views: TwoView, state: State) -> tuple[EgoMotion, Tensor]:
        """Return the solution with its scale drawn towards that of the depth's prior, and the
        information (batch, 1) about the logarithm of the scale after that.

        Carried depths hold the scale from frame to frame, but let it drift; the prior knows it,
        cell by cell badly, on the whole well. So the scale is filtered by itself (Kalman, 1960):
        the first frames of a stream settle it, the later ones hold it.
        """
        share = solved.trust * views.log_depth_information
        error = ((views.log_depth - solved.log_depth) * share).sum(2) / (share.sum(2) + 1e-6)
        measured = (-2.0 * self.scale_noise).exp()
        before = state["scale"]
        known = before / (1.0 + before * (2.0 * self.scale_drift).exp()) + measured
        error = error * (measured / known)  # (batch, 1)
        return solved._replace(
            translation=solved.translation * (-error).exp(),
            log_depth=(solved.log_depth + error[..., None]).clamp(*LOG_INVERSE_DEPTH_RANGE),
        ), known

    def _judged(
        self,
        solved: EgoMotion,
        views: TwoView,
        aligned: Aligned,
        features: Features,
        dt: Tensor,
        state: State,
    ) -> tuple[StepOutput, State]:
        """Let the core judge the solved motion; return that and the next state."""
        rotation, translation, std, memory = self.judge(solved, views, features.pooled, dt, state)
        shape = aligned.visible.shape
        depth = solved.log_depth.reshape(shape)
        weight = solved.trust.reshape(shape) * aligned.visible * state["seen"][:, :, None, None]
        stages: dict[str, Any] = {
            "solved_rotation": solved.rotation,
            "solved_translation": solved.translation,
        }
        output = StepOutput(rotation, translation, std, aligned.flow, depth.exp(), weight, stages)
        after = {
            "half": features.half,
            "quarter": features.quarter,
            "cells": features.cells,
            "coarse": features.coarse,
            "inverse_depth": depth,
            "information": solved.log_depth_information.reshape(shape),
            "seen": torch.ones_like(state["seen"]),
            **memory,
        }
        return output, after

    def _depth(self, features: Features, rays: Tensor, state: State) -> Prior:
        """Return the prior of the log inverse depth and its log std, (batch, 1, h, w) each."""
        dtype = features.context.dtype
        x = self.depth_hidden(torch.cat([features.context, rays.to(dtype)], dim=1)).float()
        memory = self.depth_memory(self.judge.recall(state))[:, :, None, None]
        both = self.depth_head(functional.relu(x + memory).to(dtype)).float()
        return both[:, :1].clamp(*LOG_INVERSE_DEPTH_RANGE), both[:, 1:].clamp(-3.0, 1.0)

    def _flow(self, features: Features, state: State) -> tuple[Aligned, Tensor, list[Tensor]]:
        """Return the flow aligned at 1/4, the decoder's hidden features, and every stage's flow."""
        with exact(features.half.device):
            first, second, evidence = self._matched(features, state)
        evidence = evidence.to(features.context.dtype)
        hidden = self.flow_hidden(torch.cat([evidence, features.context], dim=1))
        third = second + CELL * self.flow_head(hidden).float()
        with exact(features.half.device):
            quarter = self.align_quarter(features.quarter, state["quarter"], third)
        return quarter, hidden, [first, second, third, quarter.flow]

    def _matched(self, features: Features, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Return the flow as matched at 1/16, then at 1/8, and the evidence for it."""
        sharp = self.sharpness.exp()
        coarse, peak = match_everywhere(features.coarse, state["coarse"], sharp[0])
        up = torch.cat([2 * CELL * coarse, peak], dim=1)
        up = functional.interpolate(up, scale_factor=2.0, mode="bilinear")
        first, peak = up[:, :2], up[:, 2:]
        height, width = first.shape[-2:]
        there, _ = looked_up(state["cells"], positions(height, width, first) + first / CELL)
        scores = local_scores(features.cells, there, RADIUS)
        probability = (scores * sharp[1]).softmax(dim=3)
        nudge = (probability @ window(RADIUS, scores).T).permute(0, 3, 1, 2)
        evidence = torch.cat([scores.permute(0, 3, 1, 2), nudge, peak], dim=1)
        return first, first + CELL * nudge, evidence

    def _information(
        self, aligned: Aligned, weighed: Tensor, flows: list[Tensor], head: nn.Module
    ) -> Tensor:
        """Return the information (batch, 3, h, w) of the flow, 1/px^2: what the alignment says,
        times what the network makes of it."""
        xx, xy, yy = torch.split(aligned.information, 1, dim=1)
        trace = xx + yy + 1e-3
        weakest = (xx * yy - xy * xy).clamp(min=0.0) / trace + 1e-3
        nudge = aligned.flow - flows[2]
        nudge = (nudge * nudge).sum(1, keepdim=True) + 1e-2
        signs = torch.cat([trace, weakest, aligned.energy + 1e-3, nudge], dim=1).log()
        signs = torch.cat([signs, aligned.visible], dim=1).to(weighed.dtype)
        x = functional.relu(weighed + self.weight_of_signs(signs))
        factor = head(x).float().clamp(-8.0, 6.0).exp() * aligned.visible
        bounded: Tensor = aligned.information * (factor / (1.0 + trace * factor * LEAST_VARIANCE))
        return bounded


def exact(device: torch.device) -> torch.autocast:
    """Geometry is computed in full precision, whatever the convolutions are computed in."""
    return torch.autocast(device.type, enabled=False)


def focal_length(rays: Tensor) -> Tensor:
    """Return the focal lengths (batch, 2) in px of a regular grid of rays of the cells' centres."""
    height, width = rays.shape[-2:]
    across = rays[:, 0, 0, -1] - rays[:, 0, 0, 0]
    down = rays[:, 1, -1, 0] - rays[:, 1, 0, 0]
    return torch.stack([CELL * (width - 1) / across, CELL * (height - 1) / down], dim=1)


def _zeroed(layer: Layer, *bias: float) -> Layer:
    """Make a layer say the same of everything at first: `bias`, one number or one a channel."""
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor(bias).expand_as(layer.bias))
    return layer
