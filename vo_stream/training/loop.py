"""The training loop: truncated back-propagation through time over endless rendered clips.

A window of a few frames is run, its losses are back-propagated through all of it, and its last
state is handed on to the next window of the same clips, cut off from the gradient (Williams &
Peng, 1990). Gradients are clipped by their norm (Pascanu et al., 2013); a step whose gradients
are not finite is left out and counted.
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from vo_stream.net.model import OdometryNet
from vo_stream.net.recurrent import State
from vo_stream.training.checkpoint import (
    Position,
    RunningMean,
    load_training,
    load_weights,
    save_training,
    write_tensors,
)
from vo_stream.training.data import Step, Window
from vo_stream.training.deepvo import DeepVO
from vo_stream.training.gradients import limit_gradients
from vo_stream.training.log import TrainingLog
from vo_stream.training.losses import LossWeights
from vo_stream.training.meter import Meter
from vo_stream.training.objectives import make_objective
from vo_stream.training.precision import autocast
from vo_stream.training.schedule import Schedule, make_optimizer, set_rate

LOG = logging.getLogger(__name__)

LAST, BEST = "last.safetensors", "best.safetensors"
"""Files of a training: where it goes on from, and the weights that validated best."""

LOG_EVERY_S = 10.0

PREVIOUS_IMAGE = "previous_image"
"""What the loop keeps beside the model's state: (B, 1, H, W), zeros where a stream is fresh."""

Model: TypeAlias = OdometryNet | DeepVO
MODELS: dict[str, type[Model]] = {"odometry": OdometryNet, "deepvo": DeepVO}

Validate: TypeAlias = Callable[[Model], dict[str, float]]


@dataclass(frozen=True)
class LoopSettings:
    """How to train.

    `minutes`: of the whole schedule, over all runs that resume it. `stop_after`: minutes after
    which this run ends, before the schedule does. `rate`: highest learning rate. `clip_norm`: of
    the gradient. `loss`: one of `OBJECTIVES`, `weights` those of the default one. `small`: a small
    training file, see `save_training`.
    """

    minutes: float
    stop_after: float = math.inf
    model: str = "odometry"
    core: str = "lstm"
    optimizer: str = "adamw"
    rate: float = 5e-4
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    loss: str = "default"
    weights: LossWeights = field(default_factory=LossWeights)
    small: bool = False
    checkpoint_every_s: float = 60.0
    validate_every_s: float = 300.0
    seed: int = 0


def make_model(name: str, core: str) -> Model:
    """Return a new model: one of `MODELS`, with a recurrent core."""
    return MODELS[name](core)


class Training:
    """A training in `folder`: a model, its optimizer, and how far it has come."""

    def __init__(self, settings: LoopSettings, folder: Path, device: torch.device) -> None:
        self.settings, self.folder, self.device = settings, folder, device
        torch.manual_seed(settings.seed)
        self.model = make_model(settings.model, settings.core).to(device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
        self.mean = RunningMean(self.model)
        self.schedule = Schedule(60.0 * settings.minutes, settings.rate)
        self.optimizer = make_optimizer(
            settings.optimizer, self.model, settings.rate, settings.weight_decay
        )
        self.position = Position()
        self._objective = make_objective(settings.loss, settings.weights)
        self._validated = make_model(settings.model, settings.core).to(device)
        self._stop = False
        self._state: State = {}
        self._meter = Meter()

    def resume(self) -> None:
        """Go on from the folder's last checkpoint; VoStreamError when there is none that fits."""
        path = self.folder / LAST
        self.position = load_training(path, self.model, self.mean, self.optimizer)
        LOG.info("resumed %s at step %d", path, self.position.steps)

    def begin_from(self, path: Path) -> None:
        """Start with the weights of a file."""
        load_weights(path, self.model)
        self.mean = RunningMean(self.model)

    def run(self, windows: Iterator[Window], validate: Validate, shown: bool = True) -> Position:
        """Train until the time is up or a signal asks to stop; a checkpoint is left either way."""
        total_s, begun_s = self.schedule.total_s, self.position.trained_s
        until_s = min(total_s, begun_s + 60.0 * self.settings.stop_after)
        every: dict[Callable[[TrainingLog], None], float] = {
            self._log: LOG_EVERY_S,
            self._save: self.settings.checkpoint_every_s,
            lambda log: self._validate(log, validate): self.settings.validate_every_s,
        }
        due = {act: begun_s + interval for act, interval in every.items()}
        before = time.perf_counter()
        self._meter = Meter()
        self.model.train()
        with TrainingLog(self.folder, total_s, begun_s, shown) as log, self._signals():
            while self.position.trained_s < until_s and not self._stop:
                with self._meter.timed("data"):
                    window = next(windows)
                self._train(window)
                for act, interval in every.items():
                    if self.position.trained_s >= due[act]:
                        act(log)
                        due[act] = self.position.trained_s + interval
                now = time.perf_counter()
                self.position.trained_s += now - before
                before = now
                log.show(self.position.trained_s, f", step {self.position.steps}")
            self._save(log)
            if not self._stop:
                self._validate(log, validate)
                self._save(log)
        return self.position

    def _train(self, window: Window) -> None:
        """Take one optimizer step on a window."""
        first = window.steps[0]
        if window.first or not self._state:
            batch, _, height, width = first.image.shape
            self._state = self.model.start(batch, height, width, self.device)
        set_rate(self.optimizer, self.schedule.rate(self.position.trained_s))
        progress = self.schedule.progress(self.position.trained_s)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        with self._meter.timed("forward"):
            state, found = self._forward(window.steps, self._state, progress)
            total = torch.stack(list(found.values())).sum()
        self.position.steps += 1
        self._meter.count(len(window.steps) * first.image.shape[0])
        with self._meter.timed("backward"):
            norm = self._descend(total) if finite(total, *state.values()) else math.nan
        if math.isfinite(norm):
            self.mean.update(self.model, self.position.steps)
            self._state = {name: value.detach() for name, value in state.items()}
            measured = {**found, "loss": total, "gradient_norm": torch.tensor(norm)}
            self._meter.add({name: value.detach() for name, value in measured.items()})
        else:
            self.position.skipped += 1
            self._state = {}
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)  # running statistics saw what was not finite

    def _descend(self, loss: Tensor) -> float:
        """Take a step down if all gradients are finite; return their norm before the clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
        return float(norm)

    def _forward(
        self, steps: list[Step], state: State, progress: float
    ) -> tuple[State, dict[str, Tensor]]:
        """Run a window; return the state after it and each loss's mean over the steps."""
        found: dict[str, Tensor] = {}
        for step in steps:
            state = cleared(state, step.fresh)
            previous = state.get(PREVIOUS_IMAGE, torch.zeros_like(step.image))
            with autocast(self.device):
                output, state = self.model(step.image, step.rays, step.dt, state)
            limit_gradients(output, state, 1.0 / len(steps))
            state[PREVIOUS_IMAGE] = step.image
            parts = self._objective(output, step, previous, progress)
            for name, value in parts.items():
                found[name] = found.get(name, 0.0) + value / len(steps)
        return state, found

    def _log(self, log: TrainingLog) -> None:
        values = self._meter.means()
        values |= {
            "rate": self.schedule.rate(self.position.trained_s),
            "skipped": float(self.position.skipped),
        }
        log.add("train", self.position.steps, self.position.trained_s, values)

    def _save(self, log: TrainingLog) -> None:
        save_training(
            self.folder / LAST,
            self.model,
            self.mean,
            self.optimizer,
            self.position,
            self.about(),
            self.settings.small,
        )

    def _validate(self, log: TrainingLog, validate: Validate) -> None:
        """Judge the mean of the weights; keep it if it is the best so far."""
        self._validated.load_state_dict(self.mean.weights)
        figures = validate(self._validated)
        self.position.epochs += 1
        log.add("validation", self.position.steps, self.position.trained_s, figures)
        LOG.info("step %d: score %.4f", self.position.steps, figures["score"])
        if figures["score"] < self.position.best:
            self.position.best = figures["score"]
            header = {**self.about(), "position": asdict(self.position), "figures": figures}
            write_tensors(self.folder / BEST, self.mean.weights, header)

    def about(self) -> dict[str, Any]:
        """Return what a file's header tells of how its weights came about."""
        return {"settings": asdict(self.settings)}

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """End after the current step when interrupted; at once the second time."""
        before: dict[int, Any] = {}

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop = True
            LOG.info("stopping after this step")
            signal.signal(number, before[number])

        for wanted in (signal.SIGINT, signal.SIGTERM):
            before[wanted] = signal.signal(wanted, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def cleared(state: State, fresh: Tensor) -> State:
    """Return the state with that of fresh samples (B,) as after start(): zeros."""
    if not bool(fresh.any()):
        return state
    return {
        name: torch.where(fresh.view(-1, *[1] * (value.dim() - 1)), 0.0, value)
        for name, value in state.items()
    }


def finite(*values: Tensor) -> bool:
    """Say whether all numbers are finite. Of others no gradient may be asked for: where images
    are sampled at such positions, torch reads from anywhere."""
    return all(bool(torch.isfinite(value).all()) for value in values)
