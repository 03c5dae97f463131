"""The baseline: same manners as the network, near its cost, and it can learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from training_cases import rendered

from vo_stream.net.model import OdometryNet, StepOutput
from vo_stream.net.recurrent import State
from vo_stream.training.data import steps_of
from vo_stream.training.deepvo import DeepVO
from vo_stream.training.losses import LossWeights, losses

HEIGHT, WIDTH = 64, 96
CORES = ("lstm", "gru", "rnn", "tcn")


def frames(count: int, batch: int = 1, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.rand(count, batch, 1, height, width, generator=generator)


def streamed(
    net: DeepVO | OdometryNet, images: Tensor, state: State | None = None, ray: float = 0.1
) -> tuple[StepOutput, State]:
    batch, _, height, width = images.shape[1:]
    rays = torch.full((batch, 2, height // 8, width // 8), ray)
    state = net.start(batch, height, width) if state is None else state
    with torch.no_grad():
        for image in images:
            output, state = net(image, rays, torch.full((batch, 1), 0.1), state)
    return output, state


def baseline(core: str = "lstm") -> DeepVO:
    torch.manual_seed(0)
    return DeepVO(core).eval()


@pytest.mark.parametrize("size", [(32, 32), (32, 96), (96, 64)])
def test_any_multiple_of_32(size: tuple[int, int]) -> None:
    output, _ = streamed(baseline(), frames(2, 3, *size))
    h, w = size[0] // 8, size[1] // 8
    assert output.rotation.shape == (3, 3, 3)
    assert output.translation.shape == (3, 3)
    assert output.std.shape == (3, 6)
    assert output.flow.shape == (3, 2, h, w)
    assert output.inverse_depth.shape == output.weight.shape == (3, 1, h, w)
    torch.testing.assert_close(output.rotation.det(), torch.ones(3))


@pytest.mark.parametrize("core", CORES)
def test_the_state_is_as_announced_and_not_written_to(core: str) -> None:
    net = baseline(core)
    announced = net.state_shapes(HEIGHT, WIDTH)
    _, state = streamed(net, frames(2, 2))
    before = {name: value.clone() for name, value in state.items()}
    assert {n: tuple(v.shape) for n, v in state.items()} == {
        n: (2, *s) for n, s in announced.items()
    }
    first, _ = streamed(net, frames(1, 2), state)
    again, _ = streamed(net, frames(1, 2), state)
    assert all(torch.equal(value, before[name]) for name, value in state.items())
    assert torch.equal(first.translation, again.translation)


@pytest.mark.parametrize("core", CORES)
def test_image_camera_and_memory_matter(core: str) -> None:
    net = baseline(core).train()  # with activations as strong as they are meant to be
    image = frames(3)[2:]
    _, state = streamed(net, frames(2))
    usual, _ = streamed(net, image, state)
    others = [
        streamed(net, 0.5 * image, state),
        streamed(net, image, state, ray=0.2),
        *(
            streamed(net, image, {**state, name: torch.zeros_like(value)})
            for name, value in state.items()
            if name != "seen"
        ),
    ]
    for output, _ in others:
        assert (output.translation - usual.translation).abs().max() > 1e-6


@pytest.mark.parametrize("core", CORES)
def test_it_costs_about_what_the_network_costs(core: str) -> None:
    flops = []
    for net in (baseline(core), OdometryNet(core).eval()):
        with FlopCounterMode(display=False) as counter:
            streamed(net, frames(1, 1, 192, 640))
        flops.append(counter.get_total_flops())
    assert 0.7 < flops[0] / flops[1] < 1.4
    assert sum(p.numel() for p in net.parameters()) <= 5e6
    assert sum(p.numel() for p in baseline(core).parameters()) <= 5e6


@pytest.mark.parametrize("value", [0.0, 1.0, 1e3])
def test_it_is_finite_forward_and_backward(value: float) -> None:
    net = DeepVO()
    image = torch.full((2, 1, HEIGHT, WIDTH), value)
    rays = torch.zeros(2, 2, HEIGHT // 8, WIDTH // 8)
    output, state = net(image, rays, torch.zeros(2, 1), net.start(2, HEIGHT, WIDTH))
    output, _ = net(image, rays, torch.full((2, 1), 9.0), state)
    assert output.std.min() > 0.0
    total = output.rotation.sum() + output.translation.sum() + output.std.log().sum()
    gradients = torch.autograd.grad(total, list(net.parameters()))
    assert all(torch.isfinite(g).all() for g in gradients)


def test_half_precision_leaves_motion_and_state_in_full() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, state = streamed(baseline(), frames(2))
    assert {x.dtype for x in [*output[:-1], *state.values()]} == {torch.float32}


def test_the_training_losses_judge_its_motion_only_and_it_learns() -> None:
    torch.manual_seed(0)
    net = DeepVO()
    clip = rendered().frames(slice(0, 3))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    history = []
    for _ in range(8):
        state = net.start(3, *clip.images.shape[-2:])
        total = torch.zeros(())
        for step in steps_of(clip):
            output, state = net(step.image, step.rays, step.dt, state)
            parts = losses(output, step.truth, step.fresh, LossWeights(), 1.0)
            total = total + torch.stack([*parts.values()]).sum()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        history.append(float(total.detach()))
    assert not {"flow", "depth", "prior_depth"} & set(parts)
    assert {"rotation", "direction", "log_scale", "pose_nll"} <= set(parts)
    assert history[-1] < 0.7 * history[0]
