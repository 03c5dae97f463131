"""The loop with the real network on rendered clips, small and for a few steps."""

from __future__ import annotations

import csv
import math
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_cases import SIZE, OneClip, rendered

from vo_stream.net.model import StepOutput
from vo_stream.training.checkpoint import Position, read_tensors
from vo_stream.training.data import Step, Variety, Window, steps_of, windows
from vo_stream.training.loop import (
    BEST,
    LAST,
    MODELS,
    PREVIOUS_IMAGE,
    LoopSettings,
    Training,
    cleared,
)
from vo_stream.training.losses import LossWeights
from vo_stream.training.precision import autocast
from vo_stream.training.validate import validate

CPU = torch.device("cpu")
SETTINGS = LoopSettings(minutes=60.0, validate_every_s=1e9, rate=1e-3)
PLAIN = Variety(flip=0.0, reverse=0.0, brightness=0.0, drop=0.0, kept=1.0, reset=0.0)


def stream(seed: int = 0) -> Iterator[Window]:
    return windows(OneClip(rendered()), [SIZE], 2, 2, PLAIN, CPU, seed)


def interrupted(stream: Iterator[Window], steps: int) -> Iterator[Window]:
    """Yield windows; ask the process to stop during the last of some steps."""
    for number, window in enumerate(stream, start=1):
        if number == steps:
            os.kill(os.getpid(), signal.SIGINT)
        yield window


def flat(training: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in training.model.parameters()])


def score(value: float = 1.0) -> dict[str, float]:
    return {"score": value}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(training: Training, steps: int, validated: float = 1.0) -> Position:
    return training.run(interrupted(stream(), steps), lambda model: score(validated), shown=False)


def test_it_learns(tmp_path: Path) -> None:
    weights = LossWeights(pose_full=0.0)
    training = Training(replace(SETTINGS, weights=weights), tmp_path, CPU)
    window = next(stream())
    with torch.no_grad():
        before = training._forward(window.steps, start(training), 0.0)[1]
    training.schedule = replace(training.schedule, warm_up=1e-9)
    for _ in range(8):
        training._train(replace(window, first=True))
    with torch.no_grad():
        after = training._forward(window.steps, start(training), 0.0)[1]
    assert sum(after.values()) < 0.8 * sum(before.values())
    assert after["flow"] < 0.8 * before["flow"]
    assert training.position.skipped == 0


def start(training: Training) -> dict[str, torch.Tensor]:
    return training.model.start(2, SIZE[1], SIZE[0])


def test_interrupted_it_leaves_a_checkpoint_and_resumes_there(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    training = Training(SETTINGS, tmp_path, CPU)
    position = run(training, steps=3)
    assert position.steps == 3
    assert signal.getsignal(signal.SIGINT) == handler
    resumed = Training(replace(SETTINGS, seed=7), tmp_path, CPU)
    assert not torch.equal(flat(resumed), flat(training))
    resumed.resume()
    assert resumed.position == position
    position = replace(position)
    assert torch.equal(flat(resumed), flat(training))
    resumed.position.trained_s += 600.0
    assert run(resumed, steps=2).steps == 5
    assert resumed.position.trained_s > position.trained_s + 600.0
    assert resumed.optimizer.param_groups[0]["lr"] == pytest.approx(
        resumed.schedule.rate(resumed.position.trained_s), rel=1e-3
    )
    _, header = read_tensors(tmp_path / LAST)
    assert header["position"]["steps"] == 5
    assert header["settings"]["core"] == "lstm"


def test_it_ends_in_time_and_logs(tmp_path: Path) -> None:
    settings = replace(SETTINGS, minutes=1.0, stop_after=0.005, checkpoint_every_s=0.0)
    training = Training(replace(settings, validate_every_s=0.1), tmp_path, CPU)
    position = training.run(stream(), lambda model: score(2.0), shown=False)
    assert 0.3 <= position.trained_s < 30.0
    assert position.steps >= 1
    validations = rows(tmp_path / "validation.csv")
    assert [row["score"] for row in validations] == ["2"] * position.epochs
    (board,) = (tmp_path / "tensorboard").iterdir()
    assert b"validation/score" in board.read_bytes()
    assert training.schedule.progress(position.trained_s) < 1.0


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    scores = iter([3.0, 2.0, 5.0, math.nan])
    settings = replace(SETTINGS, validate_every_s=0.0, core="gru")
    training = Training(settings, tmp_path, CPU)
    best: dict[int, torch.Tensor] = {}

    def judge(model: torch.nn.Module) -> dict[str, float]:
        best[len(best)] = next(iter(model.state_dict().values())).clone()
        return score(next(scores))

    training.run(interrupted(stream(), 4), judge, shown=False)
    tensors, header = read_tensors(tmp_path / BEST)
    assert header["position"]["best"] == training.position.best == 2.0
    assert header["settings"]["core"] == "gru"
    assert set(tensors) == set(training.model.state_dict())
    assert torch.equal(next(tensors[name] for name in training.model.state_dict()), best[1])


def test_gradients_that_are_not_finite_change_nothing(tmp_path: Path) -> None:
    training = Training(SETTINGS, tmp_path, CPU)
    good = next(stream())
    training._train(good)
    weights, mean = flat(training), {k: v.clone() for k, v in training.mean.weights.items()}
    broken = [replace(step, image=step.image * torch.nan) for step in good.steps]
    training._train(Window(broken, first=False))
    assert training.position.skipped == 1
    assert torch.equal(flat(training), weights)
    assert all(torch.equal(training.mean.weights[k], v) for k, v in mean.items())
    training._train(replace(good, first=False))
    assert training.position.skipped == 1
    assert all(torch.isfinite(t).all() for t in training.model.state_dict().values())
    assert all(torch.isfinite(t).all() for t in training.mean.weights.values())
    assert not torch.equal(flat(training), weights)


def test_the_state_is_handed_on_without_its_gradient(tmp_path: Path) -> None:
    training = Training(replace(SETTINGS, rate=0.0), tmp_path, CPU)
    pieces = stream()
    first, second = next(pieces), next(pieces)
    assert not second.first
    training._train(first)
    training._train(second)
    assert not any(value.requires_grad for value in training._state.values())
    state = start(training)
    with torch.no_grad(), autocast(CPU):
        for step in first.steps + second.steps:
            _, state = training.model(step.image, step.rays, step.dt, state)
    for name, value in state.items():
        torch.testing.assert_close(training._state[name], value)
    assert torch.equal(training._state[PREVIOUS_IMAGE], second.steps[-1].image)


def test_a_fresh_sample_starts_from_nothing() -> None:
    state = {"a": torch.ones(3, 4), "b": torch.full((3, 1, 2, 2), torch.nan)}
    found = cleared(state, torch.tensor([False, True, True]))
    assert found["a"].sum(dim=1).tolist() == [4.0, 0.0, 0.0]
    assert torch.isnan(found["b"]).flatten(1).all(dim=1).tolist() == [True, False, False]
    assert state["a"].sum() == 12.0


@pytest.mark.parametrize(("model", "core"), [("odometry", "tcn"), ("deepvo", "lstm")])
def test_every_model_goes_through_the_same_loop(tmp_path: Path, model: str, core: str) -> None:
    assert model in MODELS
    settings = replace(SETTINGS, model=model, core=core, weights=LossWeights(pose_full=0.0))
    training = Training(settings, tmp_path, CPU)
    before = flat(training)
    for window, _ in zip(stream(), range(2), strict=False):
        training._train(window)
    assert training.position.skipped == 0
    assert not torch.equal(flat(training), before)


class Oracle(torch.nn.Module):
    """Knows the truth of a clip; says it with errors of known deviation."""

    def __init__(self, steps: list[Step], std: torch.Tensor) -> None:
        super().__init__()
        self.steps, self.std = steps, std

    def start(self, batch: int, height: int, width: int, device: object) -> dict[str, int]:
        return {"t": 0}

    def forward(
        self, image: object, rays: object, dt: object, state: dict[str, int]
    ) -> tuple[StepOutput, dict[str, int]]:
        truth = self.steps[state["t"]].truth
        error = self.std * torch.randn(len(truth.rotation), 6)
        turn = torch.linalg.matrix_exp(skew(error[:, 3:]))
        shift = (truth.rotation @ error[:, :3, None])[..., 0]
        flow = truth.flow + torch.tensor([3.0, 4.0])[:, None, None]
        stages: dict[str, torch.Tensor | list[torch.Tensor]] = {
            "flows": [flow, truth.flow],
            "log_inverse_depth": truth.inverse_depth.clamp_min(1e-9).log() + 0.25,
        }
        std = self.std.expand(len(error), 6)
        none = torch.zeros_like(truth.inverse_depth)
        output = StepOutput(
            truth.rotation @ turn, truth.translation + shift, std, flow, truth.inverse_depth, none,
            stages,
        )  # fmt: skip
        return output, {"t": state["t"] + 1}


def skew(w: torch.Tensor) -> torch.Tensor:
    x, y, z = w.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)


def test_the_figures_of_a_model_that_knows_the_truth() -> None:
    clip = rendered()
    steps = list(steps_of(clip))
    found = validate(Oracle(steps, torch.full((6,), 1e-9)), [clip])  # type: ignore[arg-type]
    assert found["flow_px_0"] == pytest.approx(5.0)
    assert found["flow_px_1"] == 0.0
    assert found["depth_prior_log"] == pytest.approx(0.25, abs=1e-3)
    assert found["depth_log"] == pytest.approx(0.0, abs=1e-5)
    for name in ("rotation_deg", "direction_deg", "scale_log_bias", "drift_deg", "score"):
        assert found[name] == pytest.approx(0.0, abs=0.05), name
    assert found["drift_percent"] < 0.1


def test_the_figures_of_known_errors() -> None:
    clip = rendered().select(torch.arange(3).repeat(100))
    torch.manual_seed(0)
    std = torch.tensor([0.02, 0.01, 0.03, 0.002, 0.001, 0.004])
    found = validate(Oracle(list(steps_of(clip)), std), [clip])  # type: ignore[arg-type]
    for axis in ("vx", "vy", "vz", "wx", "wy", "wz"):
        assert found[f"nees_{axis}"] == pytest.approx(1.0, abs=0.15), axis
    assert found["nees"] == pytest.approx(1.0, abs=0.07)
    mean = torch.linalg.vector_norm(std[3:] * torch.randn(20_000, 3), dim=1).mean()
    assert found["rotation_mean_deg"] == pytest.approx(float(mean.rad2deg()), rel=0.1)
    steps = len(clip.images[0]) - 1
    assert found["drift_deg"] > 1.5 * found["rotation_mean_deg"]
    assert found["drift_deg"] < steps * found["rotation_mean_deg"]
