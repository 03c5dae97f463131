"""PoseNet's losses: their quaternions, where they are least, and how they weigh."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vo_stream.net.model import StepOutput
from vo_stream.net.rigid import moved, rotation_from
from vo_stream.training.posenet import BETA_M, posenet_losses, quaternion_distance
from vo_stream.training.truth import StepTruth

B = 2
NOBODY = torch.zeros(B, dtype=torch.bool)


def truth_of() -> StepTruth:
    turn = torch.tensor([[0.02, -0.05, 0.01], [0.0, 0.1, -0.03]])
    shift = torch.tensor([[0.1, 0.0, 0.8], [-0.02, 0.01, 0.3]])
    nothing = torch.zeros(B, 2, 4, 6)
    return StepTruth(
        rotation_from(turn), shift, nothing, nothing, nothing[:, :1], nothing[:, :1] > 0
    )


def wrong_by(twist: Tensor) -> StepOutput:
    truth = truth_of()
    rotation, translation = moved(truth.rotation, truth.translation, twist.expand(B, 6))
    grid = torch.zeros(B, 1, 4, 6)
    return StepOutput(
        rotation, translation, torch.ones(B, 6), grid.expand(B, 2, 4, 6), grid, grid, {}
    )


def total(twist: Tensor, beta: float | None) -> Tensor:
    return torch.stack([*posenet_losses(wrong_by(twist), truth_of(), NOBODY, beta).values()]).sum()


@pytest.mark.parametrize("angle", [0.0, 1e-3, 0.5, 3.0])
def test_the_distance_is_that_of_the_quaternions(angle: float) -> None:
    axis = torch.tensor([[0.6, -0.64, 0.48]])
    one = rotation_from(torch.tensor([[0.3, -0.2, 0.9]]))
    other = one @ rotation_from(angle * axis)
    half = torch.tensor(angle / 2.0)
    quaternion = torch.cat([half.cos()[None], half.sin() * axis[0]])  # between the two
    expected = (quaternion - torch.tensor([1.0, 0.0, 0.0, 0.0])).norm()
    assert float(quaternion_distance(one, other)) == pytest.approx(
        float(expected), abs=2e-6, rel=1e-3
    )


@pytest.mark.parametrize("beta", [BETA_M, None])
@pytest.mark.parametrize("axis", range(6))
@pytest.mark.parametrize("error", [0.03, -0.3])
def test_the_truth_is_best_and_the_gradient_leads_there(
    beta: float | None, axis: int, error: float
) -> None:
    twist = torch.zeros(1, 6)
    twist[0, axis] = error
    twist.requires_grad_()
    loss = total(twist, beta)
    assert loss > total(torch.zeros(1, 6), beta)
    (gradient,) = torch.autograd.grad(loss, twist)
    assert gradient[0, axis] * error > 0.0
    assert total(twist.detach() - 1e-4 * gradient / gradient.norm(), beta) < loss


def test_at_the_truth_the_gradient_is_finite() -> None:
    for beta in (BETA_M, None):
        twist = torch.zeros(1, 6, requires_grad=True)
        (gradient,) = torch.autograd.grad(total(twist, beta), twist)
        assert torch.isfinite(gradient).all()


def test_beta_weighs_the_orientation() -> None:
    output = wrong_by(torch.tensor([0.1, 0.0, 0.0, 0.0, 0.02, 0.0]))
    light = posenet_losses(output, truth_of(), NOBODY, 1.0)
    heavy = posenet_losses(output, truth_of(), NOBODY, 50.0)
    assert light["position"] == heavy["position"] == pytest.approx(0.1, rel=1e-3)
    assert heavy["orientation"] == 50.0 * light["orientation"]
    assert light["orientation"] == pytest.approx(0.01, rel=1e-3)  # half the angle


def test_uncertainty_weighs_both_alike_whatever_their_units() -> None:
    shares = []
    for metres, radians in ((0.1, 0.001), (0.001, 0.3)):
        twist = torch.tensor([[metres, 0.0, 0.0, 0.0, radians, 0.0]], requires_grad=True)
        (gradient,) = torch.autograd.grad(total(twist, None), twist)
        shares.append((gradient * twist).detach()[0])
    for share in shares:  # the change of the loss by a relative change of each error
        assert share[0] == pytest.approx(1.0, abs=0.55)
        assert share[4] == pytest.approx(1.0, abs=0.55)


def test_fresh_samples_do_not_count() -> None:
    output = wrong_by(torch.tensor([0.1, 0.0, 0.0, 0.0, 0.02, 0.0]))
    broken = output._replace(
        rotation=torch.stack([output.rotation[0], rotation_from(torch.ones(1, 3))[0]]),
        translation=torch.stack([output.translation[0], torch.full((3,), 1e6)]),
    )
    for beta in (BETA_M, None):
        fresh = torch.tensor([False, True])
        found = posenet_losses(broken, truth_of(), fresh, beta)
        usual = posenet_losses(output, truth_of(), fresh, beta)
        assert found == usual
        nobody = posenet_losses(broken, truth_of(), ~NOBODY, beta)
        assert all(torch.isfinite(value) for value in nobody.values())
