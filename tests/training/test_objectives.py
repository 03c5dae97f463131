"""The other losses in the loop: a few steps make each smaller, and the image before is at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_cases import SIZE, OneClip, rendered

from vo_stream.net import model
from vo_stream.net.matching import match_everywhere, window
from vo_stream.net.model import StepOutput
from vo_stream.training.clip import Clip
from vo_stream.training.clip_store import Recipe
from vo_stream.training.data import Step, Variety, Window, windows
from vo_stream.training.loop import LoopSettings, Training
from vo_stream.training.objectives import OBJECTIVES

CPU = torch.device("cpu")
SETTINGS = LoopSettings(minutes=60.0)
PLAIN = Variety(flip=0.0, reverse=0.0, brightness=0.0, drop=0.0, kept=1.0, reset=0.0)


def stream(clip: Clip | None = None) -> Iterator[Window]:
    return windows(OneClip(clip or rendered()), [SIZE], 2, 2, PLAIN, CPU, seed=0)


def losses_before_and_after(
    training: Training, steps: int, clip: Clip | None = None
) -> tuple[dict[str, Tensor], ...]:
    training.schedule = replace(training.schedule, warm_up=1e-9)
    pieces = next(stream(clip))
    found = []
    for count in (steps, 0):
        with torch.no_grad():
            found.append(
                training._forward(pieces.steps, training.model.start(2, SIZE[1], SIZE[0]), 0.0)[1]
            )
        for _ in range(count):
            training._train(pieces)
    assert training.position.skipped == 0
    return tuple(found)


@pytest.mark.parametrize("loss", ["posenet", "posenet-homoscedastic"])
def test_posenets_loss_is_made_smaller(tmp_path: Path, loss: str) -> None:
    assert loss in OBJECTIVES
    settings = replace(SETTINGS, loss=loss, model="deepvo", rate=1e-2)
    before, after = losses_before_and_after(Training(settings, tmp_path, CPU), 6)
    assert set(before) == {"position", "orientation"}
    assert after["position"] < before["position"]
    assert after["orientation"] < before["orientation"]
    if loss == "posenet":
        assert sum(after.values()) < 0.95 * sum(before.values())


def test_view_synthesis_corrects_a_motion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hardly(current: Tensor, previous: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
        flow, peak = match_everywhere(current, previous, sharpness)
        return 0.01 * flow, peak  # untrained features match nothing over a distance

    monkeypatch.setattr(model, "match_everywhere", hardly)
    monkeypatch.setattr(model, "window", lambda radius, like: 0.01 * window(radius, like))
    training = Training(replace(SETTINGS, loss="view_synthesis", rate=3e-3), tmp_path, CPU)
    assert isinstance(training.model, model.OdometryNet)
    with torch.no_grad():
        training.model.judge.verdict.bias[:7] = 1.0  # makes the solved motion wrong
    moving = Recipe(frames=8, kinds=("street",)).render(SIZE, 2, seed=1)
    before, after = losses_before_and_after(training, 10, moving)
    assert set(before) == {"photometric", "smoothness", "explained"}
    assert after["photometric"] < 0.98 * before["photometric"]
    assert sum(after.values()) < sum(before.values())


def test_the_image_before_is_kept_across_windows_and_forgotten_where_fresh(tmp_path: Path) -> None:
    training = Training(replace(SETTINGS, rate=0.0), tmp_path, CPU)
    found: list[Tensor] = []

    def spy(output: StepOutput, step: Step, previous: Tensor, progress: float) -> dict[str, Tensor]:
        found.append(previous)
        return {"any": output.translation.square().sum()}

    training._objective = spy
    pieces = stream()
    first, second = next(pieces), next(pieces)
    broken = replace(second.steps[1], fresh=torch.tensor([False, True]))
    training._train(first)
    training._train(replace(second, steps=[second.steps[0], broken]))
    images = [step.image for step in first.steps + second.steps]
    assert not found[0].any()
    assert torch.equal(found[1], images[0])
    assert torch.equal(found[2], images[1])
    assert torch.equal(found[3][0], images[2][0])
    assert not found[3][1].any()
