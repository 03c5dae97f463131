"""View synthesis: the true motion and depth explain the picture best, and are found from nearby."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from training_cases import rendered

from vo_stream.net.model import StepOutput
from vo_stream.net.rigid import moved, rotation_from
from vo_stream.training.clip import rays as clip_rays
from vo_stream.training.data import steps_of
from vo_stream.training.view_synthesis import (
    ViewSynthesisWeights,
    explainability,
    photometric_error,
    similarity,
    smoothness,
    synthesised,
    view_synthesis_losses,
)

H, W, F = 96, 128, 90.0
NOBODY = torch.zeros(1, dtype=torch.bool)
TWIST = torch.tensor([[0.1, -0.05, 0.3, 0.01, -0.02, 0.015]])
PLAIN = ViewSynthesisWeights(smoothness=0.0, explained=0.0)
SLOPE = torch.tensor([0.05, 0.15])
"""Of the inverse depth of a painted plane, 1/m per unit of the ray's x and y."""


def painted(where: Tensor) -> Tensor:
    """Return the brightness (1, 1, H, W) of a pattern of waves, 0.4 m and longer, at 2D points."""
    generator = torch.Generator().manual_seed(3)
    angle, phase = 2.0 * math.pi * torch.rand(2, 60, 1, 1, generator=generator)
    length = 0.4 * 8.0 ** torch.rand(60, 1, 1, generator=generator)
    along = (angle.cos() * where[0] + angle.sin() * where[1]) / length
    waves = length.sqrt() * torch.sin(2.0 * math.pi * along + phase)
    return (0.5 + 0.06 * waves.sum(0)).clamp(0.0, 1.0)[None, None]


def pixel_rays() -> Tensor:
    v, u = torch.meshgrid(torch.arange(float(H)), torch.arange(float(W)), indexing="ij")
    return torch.stack([(u - (W - 1) / 2) / F, (v - (H - 1) / 2) / F, torch.ones_like(u)])


class Pair:
    """A slanted plane, painted, seen from two places: exact."""

    def __init__(self) -> None:
        self.rotation, self.translation = rotation_from(TWIST[:, 3:]), TWIST[:, :3]
        rays = pixel_rays()
        normal = torch.cat([SLOPE, torch.tensor([0.3])])  # normal . X = 1 on the plane
        self.image = painted(rays[:2] / self._inverse_depth(rays))
        back = self.rotation[0].T
        ahead = torch.einsum("ij,jhw->ihw", back, rays)
        start = -back @ self.translation[0]
        reach = (1.0 - normal @ start) / torch.einsum("i,ihw->hw", normal, ahead)
        point = start[:, None, None] + reach * ahead
        self.previous = painted(point[:2])
        self.rays = clip_rays(torch.tensor([[F, F, (W - 1) / 2, (H - 1) / 2]]), H // 8, W // 8)
        self.inverse_depth = self._inverse_depth(self.rays[0])[None, None]

    @staticmethod
    def _inverse_depth(rays: Tensor) -> Tensor:
        return 0.3 + SLOPE[0] * rays[0] + SLOPE[1] * rays[1]

    def output(self, twist: Tensor | None = None, log_depth: Tensor | float = 0.0) -> StepOutput:
        """Return an output that errs by a twist and in the logarithm of the inverse depth."""
        twist = torch.zeros(1, 6) if twist is None else twist
        rotation, translation = moved(self.rotation, self.translation, twist)
        inverse_depth = self.inverse_depth * torch.as_tensor(log_depth).exp()
        flow = torch.zeros(1, 2, H // 8, W // 8)
        weight = torch.ones_like(inverse_depth)
        return StepOutput(rotation, translation, torch.ones(1, 6), flow, inverse_depth, weight, {})

    def losses(
        self, output: StepOutput, weights: ViewSynthesisWeights = PLAIN, fresh: Tensor = NOBODY
    ) -> dict[str, Tensor]:
        return view_synthesis_losses(output, self.image, self.previous, self.rays, fresh, weights)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair()


def photometric(pair: Pair, *error: Any) -> Tensor:
    return pair.losses(pair.output(*error))["photometric"]


def test_truth_warps_the_previous_image_into_the_current(pair: Pair) -> None:
    output = pair.output()
    warped, valid = synthesised(
        pair.previous, pair.inverse_depth, pair.rays, output.rotation, output.translation
    )
    error = (warped - pair.image).abs()
    assert valid.float().mean() > 0.8
    assert error[valid].mean() < 0.005
    assert (pair.previous - pair.image).abs().mean() > 0.04
    assert photometric(pair) < 0.2 * photometric(pair, -TWIST)


@pytest.mark.parametrize("axis", range(6))
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_true_motion_is_best_and_the_gradient_leads_there(
    pair: Pair, axis: int, sign: float
) -> None:
    twist = torch.zeros(1, 6)
    twist[0, axis] = sign * (0.05 if axis < 3 else 0.01)
    twist.requires_grad_()
    loss = photometric(pair, twist)
    assert loss > 1.05 * photometric(pair)
    (gradient,) = torch.autograd.grad(loss, twist)
    assert gradient[0, axis] * sign > 0.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_true_depth_is_best_and_the_gradient_leads_there(pair: Pair, sign: float) -> None:
    error = torch.full_like(pair.inverse_depth, sign * 0.15).requires_grad_()
    loss = photometric(pair, None, error)
    assert loss > 1.05 * photometric(pair)
    (gradient,) = torch.autograd.grad(loss, error)
    assert gradient.sum() * sign > 0.0
    right = (gradient * sign)[gradient != 0.0] > 0.0
    assert right.float().mean() > 0.7


def test_a_few_steps_down_the_gradient_find_the_motion(pair: Pair) -> None:
    twist = torch.tensor([[0.03, -0.02, 0.05, 0.005, 0.005, -0.01]], requires_grad=True)
    optimizer = torch.optim.Adam([twist], lr=3e-3)
    found = []
    for _ in range(20):
        optimizer.zero_grad()
        found.append(photometric(pair, twist))
        found[-1].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    best = photometric(pair)
    assert found[-1] - best < 0.2 * (found[0] - best)


def test_the_depth_of_one_image_is_what_is_taught(pair: Pair) -> None:
    prior = pair.inverse_depth.log().requires_grad_()
    output = pair.output(log_depth=1.0)
    output.stages["log_inverse_depth"] = prior
    loss = pair.losses(output)["photometric"]
    torch.testing.assert_close(loss.detach(), photometric(pair), rtol=1e-3, atol=0.0)
    (gradient,) = torch.autograd.grad(loss, prior)
    assert gradient.abs().max() > 0.0


def test_a_model_without_depth_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match="depth"):
        pair.losses(pair.output()._replace(inverse_depth=torch.zeros(1, 1, H // 8, W // 8)))


def test_what_leaves_the_view_does_not_count(pair: Pair) -> None:
    behind = torch.tensor([[0.0, 0.0, -50.0, 0.0, 0.0, 0.0]])
    aside = torch.tensor([[500.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    for twist in (behind, aside):
        twist.requires_grad_()
        loss = photometric(pair, twist)
        (gradient,) = torch.autograd.grad(loss, twist)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
    assert photometric(pair, aside) == 0.0
    found = pair.losses(pair.output(-TWIST), fresh=~NOBODY)
    assert found["photometric"] == 0.0


def explained(pair: Pair, information: Tensor, weight: float) -> dict[str, Tensor]:
    output = pair.output()
    flow = torch.zeros(1, 2, *information.shape[-2:])
    full = torch.cat([information, 0.0 * information, information], dim=1)
    output.stages["informed"] = [(flow, full)]
    image = pair.image.clone()
    image[..., :48, :64] = image[..., :48, :64].flip(3)  # what moved by itself
    weights = replace(PLAIN, explained=weight)
    return view_synthesis_losses(output, image, pair.previous, pair.rays, NOBODY, weights)


def test_the_mask_learns_to_leave_out_what_moved(pair: Pair) -> None:
    information = torch.full_like(pair.inverse_depth, 4.0).requires_grad_()
    (gradient,) = torch.autograd.grad(
        torch.stack([*explained(pair, information, 0.05).values()]).sum(), information
    )
    there, elsewhere = gradient[..., 1:5, 1:7], gradient[..., 7:-1, 1:-1]
    assert (there > 0.0).float().mean() > 0.7, "less information there lowers the loss"
    assert (elsewhere < 0.0).float().mean() > 0.9, "more of it elsewhere does"


def test_the_regulariser_keeps_the_mask_from_leaving_out_all(pair: Pair) -> None:
    some, none = torch.full_like(pair.inverse_depth, 40.0), torch.zeros_like(pair.inverse_depth)
    without = explained(pair, none, 1e-9)
    assert without["photometric"] == 0.0
    with_some, with_none = explained(pair, some, 0.2), explained(pair, none, 0.2)
    assert sum(with_some.values()) < sum(with_none.values())
    output = pair.output()
    output.stages["informed"] = [(some, torch.cat([some, some, some], dim=1))]
    assert explainability(output).max() < 1.0


def test_similarity_is_one_of_what_is_alike() -> None:
    image = torch.rand(1, 1, 24, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(similarity(image, image), torch.ones(1, 1, 24, 32))
    assert similarity(image, 1.0 - image).mean() < 0.0
    assert photometric_error(image, image, 0.85).abs().max() < 1e-5
    apart = photometric_error(image, image + 0.1, 0.0)
    torch.testing.assert_close(apart, torch.full_like(apart, 0.1))


def test_depth_may_jump_where_the_image_does() -> None:
    step = torch.ones(1, 1, 8, 12)
    step[..., 6:] = 3.0
    assert smoothness(torch.full_like(step, 2.0), step) == 0.0
    at_edge = smoothness(step, 0.2 * step)
    assert at_edge < 0.1 * smoothness(step, torch.zeros_like(step))
    torch.testing.assert_close(smoothness(5.0 * step, 0.2 * step), at_edge)


def test_a_rendered_clip_is_explained_by_its_truth() -> None:
    better = []
    steps = list(steps_of(rendered()))
    for previous, step in pairwise(steps):
        truth = step.truth
        batch = len(truth.rotation)
        output = StepOutput(
            truth.rotation,
            truth.translation,
            torch.ones(batch, 6),
            truth.flow,
            truth.inverse_depth,
            torch.ones_like(truth.inverse_depth),
            {},
        )
        still = output._replace(
            rotation=torch.eye(3).expand(batch, 3, 3), translation=torch.zeros(batch, 3)
        )
        found = [
            view_synthesis_losses(out, step.image, previous.image, step.rays, step.fresh, PLAIN)[
                "photometric"
            ]
            for out in (output, still)
        ]
        better.append(bool(found[0] < found[1]))
    assert sum(better) >= len(better) - 1


def test_the_pixels_of_every_size_are_where_the_cells_say() -> None:
    image = torch.arange(W, dtype=torch.float32).expand(1, 1, H, W)
    pair = Pair()
    for stride in (1, 2, 8):
        small = functional.avg_pool2d(image, stride)
        warped, valid = synthesised(
            small, pair.inverse_depth, pair.rays, torch.eye(3)[None], torch.zeros(1, 3)
        )
        torch.testing.assert_close(warped, small, rtol=0.0, atol=1e-2)
        assert valid[..., 1:-1, 1:-1].all()
