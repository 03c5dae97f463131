"""Each loss tells what it is meant to, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vo_stream.net.model import StepOutput
from vo_stream.se3 import SE3
from vo_stream.training.gradients import limit_gradients, limited
from vo_stream.training.losses import (
    FARTHEST_M,
    NEAREST_M,
    LossWeights,
    flow_nll,
    laplace_nll,
    log_depth_error,
    losses,
    median_inverse_depth,
    pose_nll,
    rotation_error,
    twist_error,
)
from vo_stream.training.truth import StepTruth

B, H, W = 3, 4, 5
NOBODY = torch.zeros(B, dtype=torch.bool)
MOTION = SE3.exp([0.1, -0.05, 0.6, 0.02, -0.03, 0.01])


def tensors(motion: SE3) -> tuple[Tensor, Tensor]:
    rotation = torch.tensor(motion.rotation, dtype=torch.float32).expand(B, 3, 3)
    return rotation, torch.tensor(motion.translation, dtype=torch.float32).expand(B, 3)


def truth_of(motion: SE3 = MOTION) -> StepTruth:
    generator = torch.Generator().manual_seed(0)
    flow = 3.0 * torch.randn(B, 2, H, W, generator=generator)
    inverse_depth = 0.05 + 0.3 * torch.rand(B, 1, H, W, generator=generator)
    rotation, translation = tensors(motion)
    valid = torch.ones(B, 1, H, W, dtype=torch.bool)
    return StepTruth(rotation, translation, flow, flow.clone(), inverse_depth, valid)


def perfect(truth: StepTruth) -> StepOutput:
    information = torch.tensor([100.0, 0.0, 100.0])[None, :, None, None].expand(B, 3, H, W)
    stages: dict[str, Any] = {
        "flows": [truth.flow, truth.flow],
        "informed": [(truth.flow, information)],
        "log_inverse_depth": truth.inverse_depth.log(),
        "log_depth_std": torch.full((B, 1, H, W), -2.0),
        "solved_rotation": truth.rotation,
        "solved_translation": truth.translation,
    }
    return StepOutput(
        truth.rotation,
        truth.translation,
        torch.full((B, 6), 0.01),
        truth.flow,
        truth.inverse_depth,
        torch.ones(B, 1, H, W),
        stages,
    )


def told(output: StepOutput, fresh: Tensor = NOBODY, **changes: Any) -> dict[str, Tensor]:
    return losses(output, truth_of(), fresh, LossWeights(**changes), progress=1.0)


LIKELIHOODS = {"flow_nll", "depth_nll", "pose_nll"}
DIRECT = {"flow", "prior_depth", "depth", "rotation", "direction", "log_scale", "translation"} | {
    f"solved_{name}" for name in ("rotation", "direction", "log_scale", "translation")
}


def test_what_is_right_costs_nothing() -> None:
    found = told(perfect(truth_of()))
    assert set(found) == DIRECT | LIKELIHOODS
    for name in DIRECT - {"flow"}:
        assert float(found[name]) == pytest.approx(0.0, abs=1e-3), name
    assert float(found["flow"]) == pytest.approx(0.05)


def with_stage(output: StepOutput, name: str, value: Tensor | list[Tensor]) -> StepOutput:
    return output._replace(stages={**output.stages, name: value})


TURNED = tensors(MOTION @ SE3.exp([0.0, 0.0, 0.0, 0.0, 0.01, 0.0]))[0]
WRONG: dict[str, tuple[Callable[[StepOutput, StepTruth], StepOutput], set[str]]] = {
    "first stage": (lambda o, t: with_stage(o, "flows", [t.flow + 1.0, t.flow]), {"flow"}),
    "last stage": (lambda o, t: with_stage(o, "flows", [t.flow, t.flow + 1.0]), {"flow"}),
    "prior": (
        lambda o, t: with_stage(o, "log_inverse_depth", t.inverse_depth.log() + 0.3),
        {"prior_depth", "depth_nll"},
    ),
    "depth": (lambda o, t: o._replace(inverse_depth=1.2 * t.inverse_depth), {"depth"}),
    "turn": (lambda o, t: o._replace(rotation=TURNED), {"rotation", "pose_nll"}),
    "length": (
        lambda o, t: o._replace(translation=1.1 * t.translation),
        {"log_scale", "translation", "direction", "pose_nll"},
    ),
    "direction": (
        lambda o, t: o._replace(translation=t.translation.flip(1)),
        {"direction", "translation", "pose_nll"},
    ),
    "solved turn": (lambda o, t: with_stage(o, "solved_rotation", TURNED), {"solved_rotation"}),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_error_raises_its_own_loss_only(what: str) -> None:
    change, raised = WRONG[what]
    right, wrong = told(perfect(truth_of())), told(change(perfect(truth_of()), truth_of()))
    for name, value in right.items():
        if name in raised:
            assert float(wrong[name]) > float(value) + 1e-4, name
        else:
            assert float(wrong[name]) == pytest.approx(float(value), abs=1e-5), name


def test_later_stages_weigh_more() -> None:
    output, truth = perfect(truth_of()), truth_of()
    early = told(with_stage(output, "flows", [truth.flow + 1.0, truth.flow]))["flow"]
    late = told(with_stage(output, "flows", [truth.flow, truth.flow + 1.0]))["flow"]
    assert float(late) > 1.2 * float(early)


def test_of_a_fresh_sample_only_the_prior_counts() -> None:
    truth = truth_of()
    fresh = torch.tensor([True, False, True])
    output = perfect(truth)
    bad = output._replace(
        rotation=torch.where(fresh[:, None, None], TURNED, truth.rotation),
        inverse_depth=torch.where(fresh[:, None, None, None], 9.0, truth.inverse_depth),
    )
    wrong_flow = torch.where(fresh[:, None, None, None], truth.flow + 50.0, truth.flow)
    bad = with_stage(bad, "flows", [wrong_flow])
    for name, value in told(bad, fresh).items():
        assert float(value) == pytest.approx(float(told(output, fresh)[name]), abs=1e-6), name
    prior = with_stage(output, "log_inverse_depth", truth.inverse_depth.log() + 1.0)
    assert told(prior, ~NOBODY)["prior_depth"] > 1.0
    assert told(prior, ~NOBODY)["rotation"] == 0.0


def test_every_gradient_is_finite_even_where_there_is_no_motion() -> None:
    truth = truth_of(SE3.identity())
    output = perfect(truth)
    leaves = [
        value.clone().requires_grad_()
        for value in (output.rotation, output.translation, output.std)
    ]
    output = output._replace(rotation=leaves[0], translation=leaves[1], std=leaves[2])
    found = losses(output, truth, NOBODY, LossWeights(nll_moves_motion=True), 1.0)
    torch.autograd.backward(torch.stack(list(found.values())).sum())
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_a_model_without_flow_and_depth_is_judged_by_its_motion() -> None:
    output = perfect(truth_of())._replace(stages={})
    expected = {"rotation", "direction", "log_scale", "translation", "pose_nll"}
    assert set(told(output)) == expected


def test_the_pose_comes_in_bit_by_bit() -> None:
    truth = truth_of()
    output = perfect(truth)._replace(rotation=TURNED)
    weights = LossWeights(pose_full=0.2, nll_from=0.4, nll_full=0.6)
    at = {p: losses(output, truth, NOBODY, weights, p) for p in (0.0, 0.1, 0.4, 0.5, 1.0)}
    assert at[0.0]["rotation"] == 0.0
    assert at[0.1]["rotation"] == pytest.approx(0.5 * float(at[1.0]["rotation"]))
    assert at[0.4]["pose_nll"] == 0.0
    assert at[0.5]["pose_nll"] == pytest.approx(0.5 * float(at[1.0]["pose_nll"]))


def test_depths_beyond_the_bounds_are_as_good_as_the_bounds() -> None:
    true = torch.tensor([0.0, 0.5 / FARTHEST_M, 0.1, 2.0 / NEAREST_M])
    farther = torch.tensor([1e-6, 0.1 / FARTHEST_M, 0.05, 9.0 / NEAREST_M]).log()
    np.testing.assert_allclose(
        log_depth_error(farther, true), [0.0, 0.0, np.log(0.5), 0.0], atol=1e-6
    )
    nearer = torch.tensor([2.0 / FARTHEST_M, 2.0 / FARTHEST_M, 0.2, 0.5 / NEAREST_M]).log()
    expected = np.log([2.0, 2.0, 2.0, 0.5])
    np.testing.assert_allclose(log_depth_error(nearer, true), expected, atol=1e-5)


def test_the_twist_is_what_the_estimate_lacks() -> None:
    twist = np.array([0.01, -0.02, 0.015, 0.004, -0.003, 0.002])
    estimate = MOTION @ SE3.exp(twist).inverse()
    error = twist_error(*tensors(estimate), truth_of())
    np.testing.assert_allclose(error[0], twist, atol=1e-4)
    np.testing.assert_allclose(
        rotation_error(tensors(estimate)[0], truth_of().rotation)[0], twist[3:], atol=1e-5
    )


def best_std(nll: Tensor, std: Tensor) -> float:
    return float(std[nll.argmin()])


def test_the_likelihoods_are_best_near_the_true_deviation() -> None:
    generator = torch.Generator().manual_seed(1)
    std = torch.logspace(-2, 2, 81)
    error = 0.5 * torch.randn(20_000, 1, generator=generator)
    pose = torch.stack([pose_nll(error, torch.full_like(error, s)).mean() for s in std])
    assert best_std(pose, std) == pytest.approx(0.5, rel=0.15)
    laplace = torch.stack([laplace_nll(error, torch.full_like(error, s).log()) for s in std])
    assert best_std(laplace, std) == pytest.approx(0.5 * (4.0 / np.pi) ** 0.5, rel=0.1)
    flow = 0.5 * torch.randn(1, 2, 100, 100, generator=generator)
    values = []
    for s in std:
        both = torch.full((1, 1, 100, 100), float(s) ** -2)
        information = torch.cat([both, 0.0 * both, both], dim=1)
        values.append(flow_nll(flow, information, 0.0 * flow).mean())
    assert best_std(torch.stack(values), std) == pytest.approx(0.5, rel=0.15)


def test_an_absurd_error_teaches_no_more_than_a_large_one() -> None:
    log_std = torch.zeros(3, 6, requires_grad=True)
    error = torch.tensor([0.0, 10.0, 1e6])[:, None].expand(3, 6)
    torch.autograd.backward(pose_nll(error, log_std.exp()).sum())
    assert log_std.grad is not None
    none, large, absurd = log_std.grad[:, 0].tolist()
    assert none == pytest.approx(1.0)
    assert absurd < large < -4.0
    assert absurd > -10.0


def test_the_sky_is_not_in_the_median_depth() -> None:
    truth = truth_of()
    sky = truth.inverse_depth.clone()
    sky[:, :, :2] = 0.0
    expected = truth.inverse_depth[:, :, 2:].flatten(1).median(dim=1).values
    torch.testing.assert_close(median_inverse_depth(replace(truth, inverse_depth=sky)), expected)
    nothing = replace(truth, inverse_depth=torch.zeros_like(sky))
    assert (median_inverse_depth(nothing) == 1.0 / FARTHEST_M).all()


def test_one_sample_cannot_drown_the_others_gradient() -> None:
    gradient = torch.ones(4, 2, 3)
    gradient[1] *= 1e9
    gradient[2, 0, 0] = torch.inf
    gradient[3, 0, 0] = torch.nan
    found = limited(gradient, 10.0)
    torch.testing.assert_close(found[0], gradient[0])
    assert float(torch.linalg.vector_norm(found[1])) == pytest.approx(10.0)
    assert not found[2:].any()


def test_the_limit_holds_where_a_step_is_differentiated() -> None:
    leaf = torch.ones(B, 2, H, W, requires_grad=True)
    flow = 1.0 * leaf
    output = with_stage(perfect(truth_of()), "flows", [flow])
    limit_gradients(output, {}, share=0.5)
    torch.autograd.backward((flow * torch.tensor([1e-3, 1.0, 1e9])[:, None, None, None]).sum())
    assert leaf.grad is not None
    norms = torch.linalg.vector_norm(leaf.grad.flatten(1), dim=1)
    limit = 10.0 * 0.5 / B / (H * W) ** 0.5
    np.testing.assert_allclose(norms, [1e-3 * (2 * H * W) ** 0.5, limit, limit], rtol=1e-5)
