"""The recurrent judge: how far it may go, what it remembers; and how the scale is filtered."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vo_stream.net.ego_motion import (
    LOG_INVERSE_DEPTH_RANGE,
    EgoMotion,
    Guess,
    TwoView,
    rigid_target,
)
from vo_stream.net.encoder import POOLED
from vo_stream.net.judge import MAX_CORRECTION, MAX_LOG_SCALE, MEMORY, Judge, Judged
from vo_stream.net.model import OdometryNet
from vo_stream.net.recurrent import CORES, State
from vo_stream.net.rigid import rotation_from

BATCH, CELLS = 2, 24
STD = torch.tensor([0.02, 0.01, 0.05, 0.001, 0.002, 0.0005])
DT = torch.full((BATCH, 1), 0.1)


def solution(trust: float = 0.8) -> EgoMotion:
    generator = torch.Generator().manual_seed(1)
    depth = -1.5 + 0.5 * torch.randn(BATCH, 1, CELLS, generator=generator)
    return EgoMotion(
        rotation_from(torch.tensor([[0.01, -0.03, 0.02], [0.0, 0.05, 0.0]])),
        torch.tensor([[0.1, -0.02, 0.5], [0.0, 0.01, 0.2]]),
        torch.diag(STD**2).expand(BATCH, 6, 6),
        depth,
        torch.full_like(depth, 30.0),
        torch.full_like(depth, trust),
    )


def two_views(solved: EgoMotion) -> TwoView:
    generator = torch.Generator().manual_seed(2)
    rays = torch.rand(BATCH, 2, CELLS, generator=generator) - 0.5
    return TwoView(
        rays,
        rays + 0.02,
        torch.full((BATCH, 3, CELLS), 4.0),
        solved.log_depth + 0.1,
        torch.full((BATCH, 1, CELLS), 0.2),
        solved.log_depth - 0.1,
        torch.full((BATCH, 1, CELLS), 5.0),
    )


def judge(core: str = "lstm", awake: float = 0.0) -> Judge:
    """Return a judge; `awake`: size of its verdict's random weights, 0 as before training."""
    torch.manual_seed(0)
    found = Judge(core).eval()
    if awake:
        nn.init.normal_(found.verdict.weight, std=awake)
    return found


def start(found: Judge, seen: float = 1.0) -> State:
    memory = {name: torch.zeros(BATCH, *shape) for name, shape in found.core.shapes.items()}
    return {"seen": torch.full((BATCH, 1), seen), **memory}


def pooled(seed: int = 3) -> Tensor:
    return torch.randn(BATCH, POOLED, generator=torch.Generator().manual_seed(seed))


def said(found: Judge, state: State, image: Tensor | None = None) -> Judged:
    solved = solution()
    with torch.no_grad():
        image = pooled() if image is None else image
        verdict: Judged = found(solved, two_views(solved), image, DT, state)
    return verdict


def after(found: Judge, frames: int) -> State:
    """Return the state after some frames, none like another."""
    state = start(found)
    for seed in range(frames):
        state = {**state, **said(found, state, pooled(10 + seed)).memory}
    return state


@pytest.mark.parametrize("core", CORES)
def test_untrained_it_changes_nothing(core: str) -> None:
    found = judge(core)
    verdict, solved = said(found, after(found, 2)), solution()
    torch.testing.assert_close(verdict.rotation, solved.rotation, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(verdict.translation, solved.translation, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(verdict.std, STD.expand(BATCH, 6))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_correction_is_bounded(sign: float) -> None:
    found, solved = judge(), solution()
    bias = found.verdict.bias
    with torch.no_grad():
        bias[:6] = sign * 1e6
    verdict = said(found, start(found))
    back = solved.rotation.transpose(1, 2)
    error = (back @ (verdict.translation - solved.translation)[..., None])[..., 0]
    torch.testing.assert_close(error, sign * MAX_CORRECTION * STD[:3].expand(BATCH, 3))
    turn = back @ verdict.rotation
    expected = rotation_from(sign * MAX_CORRECTION * STD[3:].expand(BATCH, 3))
    torch.testing.assert_close(turn, expected, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_scale_is_bounded_and_scales_only(sign: float) -> None:
    found, solved = judge(), solution()
    with torch.no_grad():
        found.verdict.bias[6] = sign * 1e6
    verdict = said(found, start(found))
    factor = torch.tensor(sign * MAX_LOG_SCALE).exp()
    torch.testing.assert_close(verdict.translation, factor * solved.translation)
    torch.testing.assert_close(verdict.rotation, solved.rotation, rtol=0.0, atol=1e-6)


def test_without_a_frame_before_the_motion_is_not_corrected() -> None:
    found = judge()
    with torch.no_grad():
        found.verdict.bias[:6] = 1e6
    verdict = said(found, start(found, seen=0.0))
    torch.testing.assert_close(verdict.translation, solution().translation)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("awake", [0.1, 100.0])
def test_standard_deviations_are_positive_and_finite(core: str, awake: float) -> None:
    found = judge(core, awake)
    for frames in (0, 1, 5):
        verdict = said(found, after(found, frames))
        assert (verdict.std > 0.0).all()
        assert all(torch.isfinite(part).all() for part in verdict[:3])
    solved = solution()._replace(covariance=torch.zeros(BATCH, 6, 6))
    with torch.no_grad():
        certain = found(solved, two_views(solved), pooled(), DT, start(found))
    assert (certain.std > 0.0).all()


@pytest.mark.parametrize("core", CORES)
def test_what_it_remembers_changes_its_verdict(core: str) -> None:
    found = judge(core, awake=0.1)
    shapes = {name: (BATCH, *shape) for name, shape in found.core.shapes.items()}
    new, old = said(found, start(found)), said(found, after(found, 3))
    assert {name: tuple(part.shape) for name, part in old.memory.items()} == shapes
    for one, other in zip(new[:3], old[:3], strict=True):
        assert not torch.allclose(one, other, rtol=1e-4, atol=0.0)
    state = after(found, 3)
    for name in shapes:
        forgot = said(found, {**state, name: torch.zeros_like(state[name])})
        assert not torch.allclose(forgot.std, old.std, rtol=1e-4, atol=0.0), name


@pytest.mark.parametrize("core", CORES)
def test_it_recalls_what_it_said_last(core: str) -> None:
    found = judge(core, awake=0.1)
    assert not found.recall(start(found)).any()
    first, second = found.recall(after(found, 1)), found.recall(after(found, 2))
    assert first.shape == (BATCH, MEMORY)
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("core", CORES)
def test_samples_of_a_batch_do_not_touch_each_other(core: str) -> None:
    found = judge(core, awake=0.1)
    state, images = after(found, 2), pooled()
    other = said(found, state, torch.stack([images[0], -images[1]]))
    usual = said(found, state, images)
    torch.testing.assert_close(other.std[0], usual.std[0])
    assert not torch.allclose(other.std[1], usual.std[1], rtol=1e-3)


# The scale


def network() -> OdometryNet:
    torch.manual_seed(0)
    return OdometryNet().eval()


def off_by(log_factor: float, trust: float = 0.8) -> tuple[EgoMotion, TwoView]:
    """Return a solution whose depths' logarithms all lie so far below those of the prior."""
    solved = solution(trust)
    return solved, two_views(solved)._replace(log_depth=solved.log_depth + log_factor)


def drawn_to_prior(
    net: OdometryNet, solved: EgoMotion, views: TwoView, known: float = 0.0
) -> tuple[EgoMotion, Tensor]:
    """Draw a solution's scale towards the prior's, with so much information about it before."""
    with torch.no_grad():
        return net._scaled(solved, views, {"scale": torch.full((BATCH, 1), known)})


@pytest.mark.parametrize("log_factor", [0.4, -0.4, 0.0])
@pytest.mark.parametrize("known", [0.0, 10.0, 1e4])
def test_the_scale_is_drawn_towards_the_prior_by_a_filter(log_factor: float, known: float) -> None:
    net = network()
    noise, drift = net.scale_noise.exp().item(), net.scale_drift.exp().item()
    before = 1.0 / (1.0 / known + drift**2) if known else 0.0
    solved, views = off_by(log_factor)
    drawn, after = drawn_to_prior(net, solved, views, known)
    torch.testing.assert_close(after, torch.full((BATCH, 1), before + 1.0 / noise**2))
    moved = log_factor / (1.0 + before * noise**2)
    torch.testing.assert_close(drawn.log_depth, solved.log_depth + moved, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(drawn.translation, solved.translation * math.exp(-moved))
    assert torch.equal(drawn.rotation, solved.rotation)


def test_a_stream_comes_to_hold_its_scale() -> None:
    net = network()
    known, moved = 0.0, []
    for _ in range(100):
        solved, views = off_by(0.4)
        drawn, after = drawn_to_prior(net, solved, views, known)
        moved.append(float((drawn.log_depth - solved.log_depth).mean()))
        known = float(after[0])
    assert moved[0] == pytest.approx(0.4, abs=1e-4)
    assert moved[:10] == sorted(moved[:10], reverse=True)
    assert moved[-1] < 0.05
    assert moved[-1] == pytest.approx(moved[-2], rel=1e-2)


def test_the_flow_stays_explained() -> None:
    solved, views = off_by(0.7)
    drawn, _ = drawn_to_prior(network(), solved, views)
    assert (drawn.translation - solved.translation).abs().max() > 0.01
    torch.testing.assert_close(
        drawn.translation[..., None] * drawn.log_depth.exp(),
        solved.translation[..., None] * solved.log_depth.exp(),
    )
    one, other = (
        rigid_target(views.rays, Guess(*s[:2], s.log_depth, s.trust, torch.ones(1, 1, 1)))
        for s in (drawn, solved)
    )
    torch.testing.assert_close(one, other)


def test_what_is_not_trusted_says_nothing_of_the_scale() -> None:
    net = network()
    solved, views = off_by(0.5, trust=0.0)
    drawn, _ = drawn_to_prior(net, solved, views)
    assert torch.equal(drawn.translation, solved.translation)
    assert torch.equal(drawn.log_depth, solved.log_depth)
    trust = torch.full((BATCH, 1, CELLS), 0.8)
    trust[..., : CELLS // 2] = 0.0
    error = torch.where(trust > 0.0, 0.2, 5.0)
    half, views = off_by(0.0)
    views = views._replace(log_depth=half.log_depth + error)
    drawn, _ = drawn_to_prior(net, half._replace(trust=trust), views)
    torch.testing.assert_close(drawn.log_depth, half.log_depth + 0.2, rtol=0.0, atol=1e-5)


def test_depths_stay_in_their_range() -> None:
    solved, views = off_by(50.0)
    drawn, _ = drawn_to_prior(network(), solved, views)
    assert drawn.log_depth.max() == LOG_INVERSE_DEPTH_RANGE[1]
