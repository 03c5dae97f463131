"""The network as a whole: shapes, state, limits, and the geometry it is built around."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vo_stream.net import model
from vo_stream.net.alignment import CELL
from vo_stream.net.judge import MEAN_LOG_INVERSE_DEPTH
from vo_stream.net.matching import match_everywhere, window
from vo_stream.net.model import OdometryNet, StepOutput, focal_length
from vo_stream.net.recurrent import State
from vo_stream.net.rigid import rotation_from

HEIGHT, WIDTH = 64, 96
FOCAL_PX = 80.0
MAX_PARAMETERS, MAX_FLOP = 5e6, 4e9
CORES = ("lstm", "gru", "rnn", "tcn")


def grid(height: int, width: int, focal: float = FOCAL_PX) -> Tensor:
    """Return the rays (1, 2, h, w) of a pinhole camera's cells."""
    v, u = torch.meshgrid(
        CELL * torch.arange(height // CELL) + 3.5, CELL * torch.arange(width // CELL) + 3.5,
        indexing="ij",
    )  # fmt: skip
    return torch.stack([u - (width - 1) / 2, v - (height - 1) / 2])[None] / focal


def frames(count: int, batch: int = 1, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Return noise (count, batch, 1, height, width)."""
    generator = torch.Generator().manual_seed(4)
    return torch.rand(count, batch, 1, height, width, generator=generator)


def network(core: str = "lstm", awake: bool = True) -> OdometryNet:
    """Return a network in eval mode; `awake`: with heads that say something, as after training."""
    torch.manual_seed(0)
    net = OdometryNet(core)
    if awake:
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.dim() > 1 and not parameter.any():
                    nn.init.normal_(parameter, std=0.05)
    return net.eval()


def streamed(
    net: nn.Module, images: Tensor, rays: Tensor | None = None, state: State | None = None
) -> tuple[StepOutput, State]:
    """Return the last output and state of a stream."""
    batch, _, height, width = images.shape[1:]
    if rays is None:
        rays = grid(height, width).expand(batch, -1, -1, -1)
    state = net.start(batch, height, width) if state is None else state  # type: ignore[operator]
    with torch.no_grad():
        for image in images:
            output, state = net(image, rays, torch.full((batch, 1), 0.1), state)
    return output, state


def tensors(output: StepOutput) -> list[Tensor]:
    """Return all tensors of an output, those of its stages too."""
    flat: list[Tensor] = []
    left: list[Any] = [*output[:-1], *output.stages.values()]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            flat.append(value)
        else:
            left += value
    return flat


def difference(one: StepOutput, other: StepOutput) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one[:4], other[:4], strict=True))


@pytest.mark.parametrize("size", [(32, 32), (32, 96), (96, 32), (96, 128)])
def test_any_multiple_of_32(size: tuple[int, int]) -> None:
    output, state = streamed(network(), frames(2, 1, *size))
    h, w = size[0] // 8, size[1] // 8
    assert output.rotation.shape == (1, 3, 3)
    assert output.translation.shape == (1, 3)
    assert output.std.shape == (1, 6)
    assert output.flow.shape == (1, 2, h, w)
    assert output.inverse_depth.shape == output.weight.shape == (1, 1, h, w)
    assert all(torch.isfinite(x).all() for x in [*tensors(output), *state.values()])


@pytest.mark.parametrize("core", CORES)
def test_the_state_is_as_announced(core: str) -> None:
    net = network(core)
    announced = net.state_shapes(HEIGHT, WIDTH)
    start = net.start(2, HEIGHT, WIDTH)
    _, after = streamed(net, frames(1, 2))
    for state in (start, after):
        assert {name: tuple(value.shape) for name, value in state.items()} == {
            name: (2, *shape) for name, shape in announced.items()
        }
    assert all(not value.any() for value in start.values())


def test_the_state_is_not_written_to() -> None:
    net = network()
    _, state = streamed(net, frames(2))
    before = {name: value.clone() for name, value in state.items()}
    first, _ = streamed(net, frames(1), state=state)
    assert all(torch.equal(value, before[name]) for name, value in state.items())
    again, _ = streamed(net, frames(1), state=state)
    assert difference(first, again) == 0.0


def test_image_rays_and_time_matter() -> None:
    net = network()
    usual, _ = streamed(net, frames(2))
    other, _ = streamed(net, torch.cat([frames(1), frames(3)[2:]]))
    assert difference(usual, other) > 1e-4
    other, _ = streamed(net, frames(2), grid(HEIGHT, WIDTH, 2 * FOCAL_PX))
    assert difference(usual, other) > 1e-4
    _, state = streamed(net, frames(1))
    with torch.no_grad():
        other, _ = net(frames(2)[1], grid(HEIGHT, WIDTH), torch.tensor([[0.4]]), state)
    assert difference(usual, other) > 1e-6


SCENES = {
    "black": lambda: torch.zeros(3, 2, 1, HEIGHT, WIDTH),
    "white": lambda: torch.ones(3, 2, 1, HEIGHT, WIDTH),
    "noise": lambda: frames(3, 2),
    "black to white": lambda: torch.linspace(0, 1, 3).round()[:, None, None, None, None].expand(
        3, 2, 1, HEIGHT, WIDTH
    ),
    "stripes": lambda: (torch.arange(WIDTH) % 8 > 3).float().expand(3, 2, 1, HEIGHT, WIDTH),
    "standing still": lambda: frames(1, 2).expand(3, -1, -1, -1, -1),
}  # fmt: skip


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("core", ["lstm", "tcn"])
def test_it_is_finite_forward_and_backward(scene: str, core: str) -> None:
    net = network(core).train()
    state = net.start(2, HEIGHT, WIDTH)
    total = torch.zeros(())
    for image in SCENES[scene]():
        output, state = net(
            image, grid(HEIGHT, WIDTH).expand(2, -1, -1, -1), torch.zeros(2, 1), state
        )
        assert all(torch.isfinite(x).all() for x in tensors(output))
        assert output.std.min() > 0.0
        total = total + sum(x.mean() for x in [*tensors(output), output.std.log()])
    names, parameters = zip(*net.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    silent = [name for name, g in zip(names, gradients, strict=True) if g is None]
    assert not silent, "every parameter is trained"
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)


def test_half_precision_convolutions_leave_geometry_and_state_in_full() -> None:
    net = network()
    state = net.start(1, HEIGHT, WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        for image in frames(3):
            output, state = net(image, grid(HEIGHT, WIDTH), torch.full((1, 1), 0.1), state)
    assert all(torch.isfinite(x).all() for x in tensors(output))
    assert {x.dtype for x in [*tensors(output), *state.values()]} == {torch.float32}


@pytest.mark.parametrize("core", CORES)
def test_it_keeps_to_its_budget(core: str) -> None:
    net = OdometryNet(core).eval()
    assert sum(p.numel() for p in net.parameters()) <= MAX_PARAMETERS
    with FlopCounterMode(display=False) as counter:
        streamed(net, frames(1, 1, 192, 640))
    assert counter.get_total_flops() <= MAX_FLOP


def test_focal_lengths_are_read_off_the_rays() -> None:
    rays = grid(HEIGHT, WIDTH) * torch.tensor([1.0, 0.5])[:, None, None]
    expected = torch.tensor([[FOCAL_PX, 2 * FOCAL_PX]])
    torch.testing.assert_close(focal_length(rays), expected)


class Plane:
    """A wall before the current camera, at the depth that an untrained network takes all for."""

    depth = math.exp(-MEAN_LOG_INVERSE_DEPTH)

    def __init__(self, twist: list[float]) -> None:
        motion = torch.tensor([twist])
        self.rotation, self.translation = rotation_from(motion[:, 3:])[0], motion[0, :3]
        v, u = torch.meshgrid(torch.arange(96.0), torch.arange(160.0), indexing="ij")
        rays = torch.stack([(u - 79.5) / FOCAL_PX, (v - 47.5) / FOCAL_PX, torch.ones_like(u)])
        self.current = self._painted(rays)
        start = -self.rotation.T @ self.translation
        ahead = torch.einsum("ji,jhw->ihw", self.rotation, rays)
        point = start[:, None, None] + (self.depth - start[2]) / ahead[2] * ahead
        self.previous = self._painted(point / self.depth)
        cells = grid(96, 160)[0]
        before = torch.cat([cells, torch.ones_like(cells[:1])])
        before = torch.einsum("ij,jhw->ihw", self.rotation, before)
        before = before + self.translation[:, None, None] / self.depth
        self.flow = (before[:2] / before[2:] - cells)[None] * FOCAL_PX

    @staticmethod
    def _painted(where: Tensor) -> Tensor:
        """Return the image (1, 1, 96, 160) of waves of 8 to 128 pixels."""
        generator = torch.Generator().manual_seed(0)
        angle, phase = 2.0 * math.pi * torch.rand(2, 60, 1, 1, generator=generator)
        length = 8.0 * 16.0 ** torch.rand(60, 1, 1, generator=generator) / FOCAL_PX
        along = (angle.cos() * where[0] + angle.sin() * where[1]) / length
        waves = length.sqrt() * torch.sin(2.0 * math.pi * along + phase)
        return (0.5 + 0.04 * waves.sum(0) / length.mean().sqrt()).clamp(0.0, 1.0)[None, None]


@pytest.fixture
def nearly_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained features match nothing over a distance: let them say a hundredth of it."""

    def hardly(current: Tensor, previous: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
        flow, peak = match_everywhere(current, previous, sharpness)
        return 0.01 * flow, peak

    monkeypatch.setattr(model, "match_everywhere", hardly)
    monkeypatch.setattr(model, "window", lambda radius, like: 0.01 * window(radius, like))


def seen(net: OdometryNet, plane: Plane) -> StepOutput:
    return streamed(net, torch.stack([plane.previous, plane.current]), grid(96, 160))[0]


@pytest.mark.usefixtures("nearly_matched")
@pytest.mark.parametrize(
    "twist",
    [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.1, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.05, 0.02, 0.1, 0.0, 0.01, 0.0],
        [0.0, 0.0, 0.0, 0.01, 0.01, -0.02],
    ],
)
def test_even_untrained_it_sees_a_small_motion(twist: list[float]) -> None:
    plane = Plane(twist)
    output = seen(network(awake=False), plane)
    assert (output.flow - plane.flow).norm(dim=1).median() < 0.15
    assert (output.translation[0] - plane.translation).norm() < 0.05
    assert (output.rotation[0] - plane.rotation).abs().max() < 0.01
    assert (output.inverse_depth * plane.depth).log().abs().median() < 0.25


@pytest.mark.usefixtures("nearly_matched")
def test_the_scale_is_that_of_the_depth_prior() -> None:
    plane = Plane([0.1, 0.02, 0.05, 0.0, 0.0, 0.0])
    net = network(awake=False)
    near = seen(net, plane)
    with torch.no_grad():
        bias = dict(net.named_parameters())["depth_head.bias"]
        bias.copy_(bias - torch.tensor([math.log(2.0), 0.0]))
    far = seen(net, plane)
    torch.testing.assert_close(far.translation, 2.0 * near.translation, rtol=0.05, atol=0.005)
    torch.testing.assert_close(far.rotation, near.rotation, rtol=0.0, atol=1e-3)


@pytest.mark.usefixtures("nearly_matched")
@pytest.mark.parametrize("core", CORES)
def test_every_part_of_the_state_matters(core: str) -> None:
    net = network(core)
    plane = Plane([0.1, 0.02, 0.05, 0.0, 0.01, 0.0])
    rays = grid(96, 160)
    _, state = streamed(net, torch.stack([plane.current, plane.current, plane.previous]), rays)
    usual, _ = streamed(net, plane.current[None], rays, state)
    for name, value in state.items():
        other = {**state, name: torch.zeros_like(value)}
        output, _ = streamed(net, plane.current[None], rays, other)
        assert difference(usual, output) > 1e-6, name


@pytest.mark.usefixtures("nearly_matched")
def test_the_first_frame_says_that_it_knows_nothing() -> None:
    net = network(awake=False)
    image = Plane([0.0] * 6).current
    first, _ = streamed(net, image[None])
    assert first.weight.abs().max() == 0.0
    later, _ = streamed(net, torch.stack([image, image]))
    assert later.weight.mean() > 0.5
    assert (first.std > 10.0 * later.std).all()
    assert later.std.min() > 0.0


@pytest.mark.usefixtures("nearly_matched")
def test_samples_of_a_batch_do_not_touch_each_other() -> None:
    net = network()
    planes = [Plane([x, 0.02, 0.05, 0.0, x / 10.0, 0.0]) for x in (-0.1, 0.0, 0.1)]
    images = torch.stack(
        [torch.cat([p.previous for p in planes]), torch.cat([p.current for p in planes])]
    )
    rays = grid(96, 160)
    together, state = streamed(net, images, rays.expand(3, -1, -1, -1))
    assert (together.translation[0] - together.translation[2]).abs().max() > 0.01
    for k in range(3):
        alone, its_state = streamed(net, images[:, k : k + 1], rays)
        for a, b in zip(alone[:6], together[:6], strict=True):
            torch.testing.assert_close(a, b[k : k + 1], rtol=1e-3, atol=1e-3)
        for name, value in its_state.items():
            torch.testing.assert_close(value, state[name][k : k + 1], rtol=1e-3, atol=1e-3)
