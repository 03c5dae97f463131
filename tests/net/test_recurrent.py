"""The recurrent cores: streamed, each equals its textbook form over the whole sequence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vo_stream.net.recurrent import CORES, MAX_CELL, GruCore, LstmCore, RnnCore, TcnCore

SIZE, BATCH, FRAMES = 6, 3, 40
Core = LstmCore | GruCore | RnnCore | TcnCore


def sequence() -> Tensor:
    """Return (FRAMES, BATCH, SIZE)."""
    return torch.randn(FRAMES, BATCH, SIZE, generator=torch.Generator().manual_seed(1))


def start(core: Core) -> dict[str, Tensor]:
    return {name: torch.zeros(BATCH, *shape) for name, shape in core.shapes.items()}


def streamed(core: Core, frames: Tensor) -> Tensor:
    state, said = start(core), []
    for frame in frames:
        now, state = core(frame, state)
        said.append(now)
    return torch.stack(said)


@pytest.mark.parametrize(
    ("core", "whole"),
    [(LstmCore, nn.LSTM), (GruCore, nn.GRU), (RnnCore, nn.RNN)],
)
def test_a_streamed_cell_is_the_layer(
    core: type[LstmCore | GruCore | RnnCore], whole: Callable[[int, int], nn.RNNBase]
) -> None:
    torch.manual_seed(2)
    cell = core(SIZE)
    layer = whole(SIZE, SIZE)
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.cell.state_dict().items()})
    torch.testing.assert_close(streamed(cell, sequence()), layer(sequence())[0])


def test_the_streamed_tcn_is_two_causal_convolutions() -> None:
    torch.manual_seed(2)
    core = TcnCore(SIZE)
    back = (0, *core.TAPS)

    def convolved(layer: nn.Linear, inputs: Tensor) -> Tensor:
        kernel = torch.zeros(SIZE, SIZE, 1 + max(back))
        for tap, part in zip(back, layer.weight.chunk(len(back), dim=1), strict=True):
            kernel[:, :, max(back) - tap] = part
        past = functional.pad(inputs.permute(1, 2, 0), (max(back), 0))
        return inputs + functional.conv1d(past, kernel, layer.bias).permute(2, 0, 1).tanh()

    expected = convolved(core.second, convolved(core.first, sequence()))
    torch.testing.assert_close(streamed(core, sequence()), expected)


@pytest.mark.parametrize("name", CORES)
def test_the_state_keeps_its_shapes_and_is_not_written_to(name: str) -> None:
    core = CORES[name](SIZE)
    before = {name: torch.randn(BATCH, *shape) for name, shape in core.shapes.items()}
    copies = {name: value.clone() for name, value in before.items()}
    said, after = core(sequence()[0], before)
    assert said.shape == (BATCH, SIZE)
    assert {name: tuple(value.shape[1:]) for name, value in after.items()} == core.shapes
    for key, value in before.items():
        assert torch.equal(value, copies[key])
        assert not torch.equal(value, after[key])


@pytest.mark.parametrize("name", CORES)
def test_what_is_recalled_is_what_was_last_said(name: str) -> None:
    core = CORES[name](SIZE)
    frames = sequence()
    state = start(core)
    assert core.recall(state).abs().max() == 0.0, "nothing has been said yet"
    said, state = core(frames[0], state)
    recalled = core.recall(state)
    assert recalled.shape == said.shape
    assert recalled.abs().max() > 0.0


@pytest.mark.parametrize("name", CORES)
def test_the_past_matters(name: str) -> None:
    core = CORES[name](SIZE)
    frames = sequence()[:5]
    other = torch.cat([frames[:1] + 1.0, frames[1:]])
    assert (streamed(core, frames)[-1] - streamed(core, other)[-1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", CORES)
def test_the_gradient_reaches_the_first_frame(name: str) -> None:
    core = CORES[name](SIZE)
    frames = sequence()[:10].requires_grad_()
    (gradient,) = torch.autograd.grad(streamed(core, frames)[-1].sum(), frames)
    assert torch.isfinite(gradient).all()
    assert gradient[0].abs().max() > 0.0


def test_the_lstm_remembers_at_first() -> None:
    core = LstmCore(SIZE)
    gate = (core.cell.bias_hh + core.cell.bias_ih)[SIZE : 2 * SIZE]
    assert gate.min() > 0.5


def test_the_rnn_keeps_most_of_what_it_said() -> None:
    core = RnnCore(SIZE)
    torch.testing.assert_close(core.cell.weight_hh.detach(), 0.9 * torch.eye(SIZE))


def test_an_lstm_that_forgets_nothing_stays_bounded_and_turns_round() -> None:
    core = LstmCore(SIZE)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.zero_()
        core.cell.bias_ih[: 2 * SIZE] = 20.0  # let all in, forget nothing
        core.cell.weight_ih[2 * SIZE : 3 * SIZE] = 20.0 * torch.eye(SIZE)
        core.cell.bias_ih[3 * SIZE :] = 20.0
        state = {name: torch.zeros(1, *shape) for name, shape in core.shapes.items()}
        for _ in range(1000):
            _, state = core(torch.ones(1, SIZE), state)
        assert float(state["memory"].max()) == MAX_CELL
        for _ in range(15):
            said, state = core(-torch.ones(1, SIZE), state)
    assert said.max() < -0.9
