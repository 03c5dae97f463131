"""Calibration of the six standard deviations: one temperature an axis, folded into the weights,
and how alike the errors of neighbouring steps are, told beside them.

A network is sure of itself on what it was trained on. On held-out clips its errors are compared
with what it said of them, and each axis' standard deviation is multiplied by one number
(temperature scaling: Guo et al., 2017; for regression Laves et al., 2020). The number goes into a
bias, so the calibrated network is the same graph with other weights.

The temperature makes the mean of the squared errors in standard deviations, each cut off at
`CUT_OFF` squared, what it is for a normal error (Huber's proposal 2, 1964). A plain mean would be
set by the few steps that are lost anyway; a quantile would not see them at all.

The errors in standard deviations, cut off likewise, are then multiplied by those of later steps of
the same clip: these products fall off with the time in between as the correlation does
(`vo_stream.pose_error`), whose share and time are fitted by least squares.

NEES (normalised estimation error squared): Bar-Shalom et al., "Estimation with applications to
tracking and navigation" (2001), section 5.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from vo_stream.errors import VoStreamError
from vo_stream.net.model import OdometryNet
from vo_stream.pose_error import AXES, INDEPENDENT, Correlation, PoseError
from vo_stream.se3 import SE3, Array
from vo_stream.training.clip import Clip
from vo_stream.training.data import steps_of

CUT_OFF = 4.0
"""Errors beyond this many standard deviations count as this many."""

WINDOWS_S = {"step": 0.0, "second": 1.0}
"""Increments that are judged: the shortest that take so long."""

CHI2_95_6DOF = 12.592
CHI2_95_1DOF = 3.841

MAX_LOG_TEMPERATURE = 7.0
"""Where the search for a temperature ends; beyond, the network's std means nothing."""

LONGEST_LAG_S = 2.0
"""Between the steps of which the correlation is fitted: most clips last that long."""

LASTING_S = np.geomspace(0.05, 60.0, 60)
"""Times that are tried for how long errors last. A clip does not tell a longest one from ever."""

HALVINGS = 50
"""Of that range: far below what any clips can tell."""


@dataclass(frozen=True)
class Stream:
    """A clip as the network saw it.

    `estimated`, `true`: prev_from_curr of each of T - 1 steps. `std`: (T - 1, 6) of the estimate's
    error twist, (v in m, w in rad) in the current camera. `stamps`: (T,) s of the frames.
    """

    estimated: Sequence[SE3]
    true: Sequence[SE3]
    std: Array
    stamps: Array


@dataclass(frozen=True)
class Nees:
    """Squared errors of increments in predicted variances, over independent clips.

    `axes`: their mean for each axis, `all`: for all six with their covariance, over 6; 1 is right.
    `axes_band`, `all_band`: where 95 % of such means lie if the predictions are right, by
    chi-square: each clip counts as one sample, as the steps of a clip err alike.
    `axes_inside`, `inside`: share of the increments within the 95 % bound of one axis, of all six.
    """

    clips: int
    increments: int
    axes: dict[str, float]
    axes_band: tuple[float, float]
    axes_inside: dict[str, float]
    all: float
    all_band: tuple[float, float]
    inside: float


@torch.no_grad()
def streams(model: OdometryNet, clips: Iterable[Clip]) -> list[Stream]:
    """Stream batches of clips in full precision, as a robot does; return each clip's steps."""
    found: list[Stream] = []
    model.eval()
    for clip in clips:
        batch, _, height, width = clip.images.shape
        state = model.start(batch, height, width, clip.images.device)
        parts: list[list[torch.Tensor]] = []
        for step in steps_of(clip):
            output, state = model(step.image, step.rays, step.dt, state)
            truth = step.truth
            said = (output.rotation, output.translation, truth.rotation, truth.translation)
            parts.append([*said, output.std])
        columns = [torch.stack(c, dim=1)[:, 1:].double().cpu().numpy() for c in zip(*parts)]  # noqa: B905
        stamps = clip.stamps.cpu().numpy()
        for i in range(batch):
            rotation, translation, true_rotation, true_translation, std = (c[i] for c in columns)
            found.append(
                Stream(
                    _motions(rotation, translation),
                    _motions(true_rotation, true_translation),
                    std,
                    stamps[i],
                )
            )
    return found


def _motions(rotations: Array, translations: Array) -> list[SE3]:
    pairs = zip(rotations, translations, strict=True)
    return [SE3.from_rotation_translation(rotation, translation) for rotation, translation in pairs]


def halves(clips: Iterable[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Return the even and the odd items of each batch, so that no world is on both sides: a folder
    may hold batches of several sizes that show the same worlds in the same order."""
    batches = list(clips)
    even = [clip.select(slice(0, None, 2)) for clip in batches]
    odd = [clip.select(slice(1, None, 2)) for clip in batches if len(clip.images) > 1]
    return even, odd


def increments(
    stream: Stream,
    window_s: float,
    temperature: Array | float = 1.0,
    correlation: Correlation = INDEPENDENT,
) -> list[tuple[Array, Array]]:
    """Return the error twist (6,) and covariance (6, 6) of one increment after another.

    `temperature`: (6,) or one for all, factor of the standard deviations. `correlation`: how alike
    the errors of steps are. Covariances are carried on to first order, as the odometer does.
    """
    found: list[tuple[Array, Array]] = []
    motion = truth = SE3.identity()
    error = none = PoseError.of(np.zeros((6, 6)))
    since = before = stream.stamps[0]
    steps = zip(stream.estimated, stream.true, stream.std, stream.stamps[1:], strict=True)
    for step, true_step, std, stamp in steps:
        motion, truth = motion @ step, truth @ true_step
        error = error.after(step, temperature * std, stamp - before, correlation)
        before = stamp
        if stamp - since >= window_s:
            found.append(((motion.inverse() @ truth).log(), error.covariance))
            motion = truth = SE3.identity()
            error, since = none, stamp
    return found


def temperatures(found: Iterable[Stream]) -> Array:
    """Return the factor (6,) that each axis' standard deviation is to be multiplied by."""
    pairs = [pair for stream in found for pair in increments(stream, 0.0)]
    ratios = np.array([error / np.sqrt(np.diag(covariance)) for error, covariance in pairs])
    if not np.isfinite(ratios).all() or not len(ratios):
        raise VoStreamError("no clips to calibrate on, or a network that is not finite on them")
    squares = ratios**2
    density = math.exp(-0.5 * CUT_OFF**2) / math.sqrt(2.0 * math.pi)
    beyond = math.erfc(CUT_OFF / math.sqrt(2.0))
    wanted = 1.0 - beyond - 2.0 * CUT_OFF * density + CUT_OFF**2 * beyond
    low, high = np.full(6, -MAX_LOG_TEMPERATURE), np.full(6, MAX_LOG_TEMPERATURE)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        mean = np.minimum(squares * np.exp(-2.0 * middle), CUT_OFF**2).mean(axis=0)
        low, high = np.where(mean > wanted, middle, low), np.where(mean > wanted, high, middle)
    return np.asarray(np.exp(0.5 * (low + high)), dtype=np.float64)


def correlation_of(found: Iterable[Stream], temperature: Array) -> Correlation:
    """Return how alike the errors of steps are, whose standard deviations are to be multiplied by
    `temperature` (6,)."""
    fading, overlap = np.zeros((len(LASTING_S), 6)), np.zeros((len(LASTING_S), 1))
    for stream in found:
        pairs = increments(stream, 0.0, temperature)
        errors = np.array([error / np.sqrt(np.diag(covariance)) for error, covariance in pairs])
        errors = np.clip(errors, -CUT_OFF, CUT_OFF)
        earlier, later = np.triu_indices(len(errors), 1)
        lag = stream.stamps[1:][later] - stream.stamps[1:][earlier]
        near = lag <= LONGEST_LAG_S
        if not near.any():
            continue
        model = np.exp(-lag[near] / LASTING_S[:, None])  # (times, pairs)
        products = errors[earlier[near]] * errors[later[near]]
        fading += model @ products / near.sum()  # each clip counts the same
        overlap += (model**2).mean(axis=1, keepdims=True)
    if not overlap.any():
        return INDEPENDENT
    share = np.clip(fading / overlap, 0.0, 1.0)
    best = (share**2 * overlap - 2.0 * share * fading).argmin(axis=0)
    return Correlation(tuple(share[best, np.arange(6)].tolist()), tuple(LASTING_S[best].tolist()))


def nees(
    found: Sequence[Stream],
    window_s: float,
    temperature: Array | float = 1.0,
    correlation: Correlation = INDEPENDENT,
) -> Nees | None:
    """Return how well errors agree with what was said of them; None if no clip lasts so long."""
    by_stream = [increments(stream, window_s, temperature, correlation) for stream in found]
    pairs = [pair for stream in by_stream for pair in stream]
    if not pairs:
        return None
    squares, whole = np.empty((len(pairs), 6)), np.empty(len(pairs))
    for i, (error, covariance) in enumerate(pairs):
        std = np.sqrt(np.diag(covariance))
        ratio = error / std
        squares[i] = ratio**2
        whole[i] = ratio @ np.linalg.solve(covariance / np.outer(std, std), ratio)
    clips = sum(bool(stream) for stream in by_stream)
    return Nees(
        clips=clips,
        increments=len(pairs),
        axes=_by_axis(squares.mean(axis=0)),
        axes_band=chi2_band(clips),
        axes_inside=_by_axis((squares <= CHI2_95_1DOF).mean(axis=0)),
        all=float(whole.mean()) / 6.0,
        all_band=chi2_band(6 * clips),
        inside=float((whole <= CHI2_95_6DOF).mean()),
    )


def chi2_band(freedom: int, share: float = 0.95) -> tuple[float, float]:
    """Return the middle `share` of chi-square over its degrees of freedom.

    By Wilson and Hilferty's cube root (1931): to 3 % from six degrees of freedom on.
    """
    spread = 2.0 / (9.0 * freedom)
    z = NormalDist().inv_cdf(0.5 + 0.5 * share) * math.sqrt(spread)
    low, high = max(1.0 - spread - z, 0.0), 1.0 - spread + z
    return low**3, high**3


def _by_axis(values: Iterable[float]) -> dict[str, float]:
    return {axis: float(value) for axis, value in zip(AXES, values, strict=True)}


@torch.no_grad()
def fold(model: OdometryNet, temperature: Array) -> None:
    """Multiply the standard deviations that a network says by (6,) factors, in its weights."""
    bias = model.judge.verdict.bias
    bias[-6:] += torch.from_numpy(np.log(temperature)).to(bias)


def rates(stamps: Iterable[Array]) -> tuple[float, float]:
    """Return the lowest and highest median frame rate, Hz, of clips with stamps (B, T) s."""
    found = np.concatenate([1.0 / np.median(np.diff(s, axis=1), axis=1) for s in stamps])
    return round(float(found.min()), 1), round(float(found.max()), 1)


def stamps_in(folder: Path) -> list[Array]:
    """Return the stamps (B, T) s of the clips' files in a folder, without reading their images."""
    found: list[Array] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            found.append(np.asarray(file["stamps"], dtype=np.float64))
    return found


def calibrate(model: OdometryNet, clips: Iterable[Clip]) -> dict[str, Any]:
    """Calibrate a network in place on one half of the clips, judge it on the other.

    Returns what is told of it in the header of its weights: `temperature`, `error_share` and
    `error_time_s` (see `Correlation`) of each axis, `clips` calibrated on and judged by, `nees` by
    window (`WINDOWS_S`) `before` and `after`, see `Nees`; None where the clips are too short.
    """
    first, second = halves(clips)
    seen = streams(model, first)
    ours = temperatures(seen)
    alike = correlation_of(seen, ours)
    judged = streams(model, second)
    fold(model, ours)
    report: dict[str, Any] = {}
    for name, window_s in WINDOWS_S.items():
        both = {"before": nees(judged, window_s), "after": nees(judged, window_s, ours, alike)}
        report[name] = {when: None if n is None else asdict(n) for when, n in both.items()}
    counts = [sum(len(clip.images) for clip in half) for half in (first, second)]
    return {
        "temperature": _by_axis(ours),
        "error_share": _by_axis(alike.share),
        "error_time_s": _by_axis(alike.time_s),
        "clips": counts,
        "nees": report,
    }
