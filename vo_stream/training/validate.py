"""How good a model is on held-out rendered clips, in figures that mean something.

The clips are streamed as a robot would: state from start() to the end, no frame dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vo_stream.net.model import OdometryNet, StepOutput
from vo_stream.pose_error import AXES
from vo_stream.training.clip import Clip
from vo_stream.training.data import steps_of
from vo_stream.training.deepvo import DeepVO
from vo_stream.training.losses import (
    log_depth_error,
    median_inverse_depth,
    rotation_error,
    safe_norm,
    twist_error,
)
from vo_stream.training.precision import autocast
from vo_stream.training.truth import StepTruth

MIN_PARALLAX = 0.01
"""Translations over median depth from which direction and scale are judged."""

WORST_ROTATION_DEG = 5.0
WORST_SHARE = 1.0
"""No step counts for more than this in the score."""

Errors = dict[str, list[Tensor]]


@torch.no_grad()
def validate(model: OdometryNet | DeepVO, clips: Iterable[Clip]) -> dict[str, float]:
    """Return the figures of a model over batches of clips, `score` among them: less is better.

    `flow_px_<i>`: mean flow error of each stage. `depth_prior_log`, `depth_log`: median error of
    the log depth. `rotation_deg`, `direction_deg`: medians. `scale_log_bias`, `scale_log_std` of
    the translation's length. `drift_percent`, `drift_deg`: error of the end of a clip, over the
    way travelled and in rotation; medians. `nees_<axis>`: mean of (error / std)^2, 1 is right;
    `nees`: of all axes. `score`: geometric mean of the mean rotation error (degrees) and the mean
    error of translation as a share of the truth, the worst steps cut off.
    """
    was_training = model.training
    model.eval()
    steps: Errors = {}
    ends: Errors = {}
    for clip in clips:
        _stream(model, clip, steps, ends)
    model.train(was_training)
    found = _figures({name: torch.cat(parts) for name, parts in steps.items()})
    way, end, turn = (torch.cat(ends[name]) for name in ("way", "end", "turn"))
    found["drift_percent"] = _median(100.0 * (end / way)[way > 0.0])
    found["drift_deg"] = _median(turn)
    return found


def _stream(model: OdometryNet | DeepVO, clip: Clip, steps: Errors, ends: Errors) -> None:
    """Run a batch of clips; append each step's errors to `steps`, the clips' drift to `ends`."""
    images = clip.images
    batch, device = len(images), images.device
    state = model.start(batch, images.shape[2], images.shape[3], device)
    here = true_here = torch.eye(4, device=device).expand(batch, 4, 4)
    way = least = torch.zeros(batch, device=device)
    for step in steps_of(clip):
        with autocast(device):
            output, state = model(step.image, step.rays, step.dt, state)
        if bool(step.fresh.all()):
            continue
        _append(steps, _errors(output, step.truth))
        here = here @ _matrix(output.rotation.float(), output.translation.float())
        true_here = true_here @ _matrix(step.truth.rotation, step.truth.translation)
        way = way + safe_norm(step.truth.translation)
        least = least + MIN_PARALLAX / median_inverse_depth(step.truth)
    turn = safe_norm(rotation_error(here[:, :3, :3], true_here[:, :3, :3]))
    drift = {
        "way": torch.where(way > least, way, 0.0),  # a way too short tells of no drift
        "end": safe_norm(here[:, :3, 3] - true_here[:, :3, 3]),
        "turn": turn.clamp(max=1.0).asin().rad2deg(),
    }
    _append(ends, drift)


def _errors(output: StepOutput, truth: StepTruth) -> dict[str, Tensor]:
    """Return all errors of one step by name, of what can be judged."""
    found: dict[str, Tensor] = {}
    stages: dict[str, Any] = output.stages
    for i, flow in enumerate(stages.get("flows", [])):
        square = (flow.float() - truth.flow).square().sum(dim=1, keepdim=True)
        found[f"flow_px_{i}"] = square.sqrt()[truth.valid]
    if "log_inverse_depth" in stages:
        some = truth.inverse_depth > 0.0
        log_final = output.inverse_depth.float().clamp_min(1e-4).log()
        for name, value in ("prior_", stages["log_inverse_depth"].float()), ("", log_final):
            error = log_depth_error(value, truth.inverse_depth)
            found[f"depth_{name}log"] = error.abs()[some]
    translation, true_translation = output.translation.float(), truth.translation
    length, true_length = safe_norm(translation), safe_norm(true_translation)
    floor = MIN_PARALLAX / median_inverse_depth(truth)
    moving = true_length > floor
    error = twist_error(output.rotation, translation, truth)
    cosine = (translation * true_translation).sum(dim=1) / (length * true_length)
    return found | {
        "rotation_deg": safe_norm(error[:, 3:]).clamp(max=1.0).asin().rad2deg(),
        "direction_deg": cosine.clamp(-1.0, 1.0).acos().rad2deg()[moving],
        "scale_log": (length / true_length).log()[moving],
        "share": safe_norm(translation - true_translation) / (true_length + floor),
        "squares": (error / output.std.float()).square(),
    }


def _append(errors: Errors, found: dict[str, Tensor]) -> None:
    for name, values in found.items():
        errors.setdefault(name, []).append(values.cpu())


def _figures(steps: dict[str, Tensor]) -> dict[str, float]:
    found = {name: _mean(steps[name]) for name in steps if name.startswith("flow_px_")}
    for name in ("depth_prior_log", "depth_log", "rotation_deg", "direction_deg"):
        if name in steps:
            found[name] = _median(steps[name])
    found["scale_log_bias"] = _median(steps["scale_log"])
    found["scale_log_std"] = _median((steps["scale_log"] - found["scale_log_bias"]).abs()) * 1.4826
    for axis, squares in zip(AXES, steps["squares"].T, strict=True):
        found[f"nees_{axis}"] = _mean(squares)
    found["nees"] = _mean(steps["squares"])
    rotation = _mean(steps["rotation_deg"].clamp(max=WORST_ROTATION_DEG))
    found["rotation_mean_deg"] = rotation
    found["translation_share"] = share = _mean(steps["share"].clamp(max=WORST_SHARE))
    found["score"] = math.sqrt(rotation * share)
    return found


def _matrix(rotation: Tensor, translation: Tensor) -> Tensor:
    top = torch.cat([rotation, translation[:, :, None]], dim=2)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(top), 1, 4)
    return torch.cat([top, bottom], dim=1)


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan


def _median(values: Tensor) -> float:
    return float(values.median()) if len(values) else math.nan
