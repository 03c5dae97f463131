"""A training that is resumed goes on as if it had never stopped; a file is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from vo_stream.errors import VoStreamError
from vo_stream.training.checkpoint import (
    Position,
    RunningMean,
    load_training,
    load_weights,
    read_tensors,
    save_training,
    write_tensors,
)
from vo_stream.training.schedule import OPTIMIZERS, Schedule, make_optimizer, set_rate


class Run:
    """A tiny training."""

    def __init__(self, optimizer: str = "adamw", seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
        self.optimizer = make_optimizer(optimizer, self.model, 1e-2, 1e-2)
        self.mean = RunningMean(self.model)
        self.position = Position()

    def train(self, steps: int) -> None:
        for _ in range(steps):
            generator = torch.Generator().manual_seed(self.position.steps)
            x = torch.randn(8, 64, generator=generator)
            self.optimizer.zero_grad()
            torch.autograd.backward((self.model(x) - x[:, :4]).square().mean())
            self.optimizer.step()
            self.position.steps += 1
            self.position.trained_s += 0.5
            self.mean.update(self.model, self.position.steps)

    def save(self, path: Path, small: bool = False) -> None:
        save_training(
            path, self.model, self.mean, self.optimizer, self.position, {"name": "a run"}, small
        )

    def load(self, path: Path) -> None:
        self.position = load_training(path, self.model, self.mean, self.optimizer)

    def weights(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])

    def means(self) -> torch.Tensor:
        return torch.cat([t.flatten() for t in self.mean.weights.values()])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_training_goes_on_exactly(tmp_path: Path, optimizer: str) -> None:
    path = tmp_path / "last.safetensors"
    whole = Run(optimizer)
    whole.train(5)
    whole.save(path)
    whole.train(5)
    resumed = Run(optimizer, seed=9)
    resumed.load(path)
    assert resumed.position == Position(steps=5, trained_s=2.5)
    resumed.train(5)
    assert torch.equal(resumed.weights(), whole.weights())
    assert torch.equal(resumed.means(), whole.means())
    assert not torch.equal(whole.means(), whole.weights())


def test_a_small_file_keeps_the_weights_and_nearly_all_else(tmp_path: Path) -> None:
    whole = Run()
    whole.train(30)
    whole.save(tmp_path / "whole")
    whole.save(tmp_path / "small", small=True)
    sizes = [(tmp_path / name).stat().st_size for name in ("small", "whole")]
    assert sizes[0] < 0.75 * sizes[1]
    resumed = Run(seed=9)
    resumed.load(tmp_path / "small")
    assert torch.equal(resumed.weights(), whole.weights())
    torch.testing.assert_close(resumed.means(), whole.means(), atol=1e-4, rtol=0.0)
    whole.train(5)
    resumed.train(5)
    moved = (Run().weights() - whole.weights()).abs().mean()
    assert (resumed.weights() - whole.weights()).abs().mean() < 0.01 * moved


def test_a_training_file_serves_as_weights_too(tmp_path: Path) -> None:
    whole = Run()
    whole.train(3)
    for small in (False, True):
        whole.save(tmp_path / "last", small)
        other = Run(seed=9)
        assert load_weights(tmp_path / "last", other.model)["name"] == "a run"
        torch.testing.assert_close(other.weights(), whole.means(), atol=1e-4, rtol=0.0)
    write_tensors(tmp_path / "best", whole.mean.weights, {"name": "best"})
    assert load_weights(tmp_path / "best", other.model) == {"name": "best"}
    assert torch.equal(other.weights(), whole.means())


def test_a_file_that_does_not_fit_is_told_in_one_line(tmp_path: Path) -> None:
    run = Run()
    run.train(1)
    run.save(tmp_path / "last")
    write_tensors(tmp_path / "weights", run.mean.weights, {})
    (tmp_path / "short").write_bytes((tmp_path / "last").read_bytes()[:-7])
    (tmp_path / "text").write_text("no tensors here")
    larger = Run()
    larger.model = nn.Sequential(nn.Linear(64, 33), nn.ReLU(), nn.Linear(33, 4))
    cases = [
        (run, "missing", "no such file"),
        (run, "short", "not a checkpoint"),
        (run, "text", "not a checkpoint"),
        (run, "weights", "weights only"),
        (larger, "last", "another model"),
        (Run("adagrad"), "last", "another optimizer"),
    ]
    for into, name, reason in cases:
        with pytest.raises(VoStreamError, match=reason) as caught:
            into.load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_writing_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    write_tensors(path, {"a": torch.ones(3)}, {"turn": 1})

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_tensors(path, {"a": torch.zeros(3)}, {"turn": 2})
    tensors, header = read_tensors(path)
    assert header == {"turn": 1}
    assert tensors["a"].tolist() == [1.0, 1.0, 1.0]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_running_mean_follows_slowly_and_forgets_the_start() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    mean = RunningMean(model, decay=0.9)
    nn.init.constant_(model.weight, 1.0)
    values = []
    for step in range(1, 101):
        mean.update(model, step)
        values.append(float(mean.weights["weight"]))
    assert 1.0 < values[0] < 25.0
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(1.0, abs=0.01)


def test_the_rate_warms_up_and_cools_down() -> None:
    schedule = Schedule(total_s=1000.0, peak=1e-3, warm_up=0.1, last=0.02)
    rates = [schedule.rate(s) for s in range(0, 1001, 10)]
    assert max(rates) == rates[10] == pytest.approx(1e-3)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.51e-3)
    assert rates[-1] == schedule.rate(5000.0) == pytest.approx(2e-5)
    assert 0.0 < rates[0] < 1e-4
    assert [schedule.progress(s) for s in (0.0, 250.0, 2000.0)] == [0.0, 0.25, 1.0]


def test_only_matrices_decay() -> None:
    run = Run()
    set_rate(run.optimizer, 0.5)
    groups = run.optimizer.param_groups
    assert {g["lr"] for g in groups} == {0.5}
    assert [(g["weight_decay"], {p.dim() for p in g["params"]}) for g in groups] == [
        (1e-2, {2}),
        (0.0, {1}),
    ]
    with pytest.raises(ValueError, match="no optimizer"):
        make_optimizer("newton", run.model, 1.0, 0.0)
