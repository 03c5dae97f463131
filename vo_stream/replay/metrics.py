"""How good a trajectory is: the figures of the papers, computed as their authors compute them.

ATE and RPE: Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems" (2012).
t_rel and r_rel: Geiger et al., "Are we ready for autonomous driving?" (2012), and the KITTI
odometry devkit (evaluate_odometry.cpp). NEES: Bar-Shalom et al., "Estimation with applications to
tracking and navigation" (2001), section 5.4.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vo_stream.replay.alignment import (
    ALIGNMENTS,
    Alignment,
    Pairs,
    PoseStack,
    Similarity,
    align,
    align_orientation,
    associate,
)
from vo_stream.replay.trajectory import SAME_TIME_NS, Trajectory
from vo_stream.se3 import Array
from vo_stream.values import NANOSECONDS

RPE_WINDOW_S = 1.0

KITTI_LENGTHS_M = (100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0)
SHORT_LENGTHS_M = (10.0, 20.0, 30.0, 40.0, 50.0)
SHORT_PATH_M = 200.0
"""Paths shorter than this are judged over `SHORT_LENGTHS_M`; never compare those with KITTI's."""

KITTI_STEP = 10
"""A segment starts at every tenth frame."""

CHI2_95_6DOF = 12.592
CHI2_95_3DOF = 7.815

STANDING_SPEED_M_S = 0.02
STANDING_WINDOW_S = 0.5
"""The camera stands where, this long before and after, it stays below `STANDING_SPEED_M_S`."""

_AXES = {
    "all": (slice(0, 6), CHI2_95_6DOF),
    "translation": (slice(0, 3), CHI2_95_3DOF),
    "rotation": (slice(3, 6), CHI2_95_3DOF),
}


@dataclass(frozen=True, slots=True)
class Metrics:
    """The figures of one estimated trajectory. None: the recording does not show it.

    Keys "none", "se3", "sim3" are the alignments of `align`. Errors between two poses of one
    trajectory need no alignment: they are "raw", or "scaled" by the estimate's one global scale
    `scale_sim3`.
    """

    frames: int
    matched: int
    duration_s: float
    scale_sim3: float
    ate_rmse_m: Mapping[str, float]
    end_drift_percent: Mapping[str, float | None]
    path_length_m: Mapping[str, float]
    rpe_windows: int
    rpe_translation_rmse_m: Mapping[str, float | None]
    rpe_rotation_rmse_deg: float | None
    rpe_rotation_median_deg: float | None
    kitti_lengths_m: tuple[float, ...]
    kitti_segments: int
    t_rel_percent: Mapping[str, float | None]
    r_rel_deg_per_100m: float | None
    standing_s: float
    standing_path_m: Mapping[str, float]
    nees_steps: int
    nees: Mapping[str, float | None]
    nees_inside_95_fraction: Mapping[str, float | None]

    def as_dict(self) -> dict[str, object]:
        """Return plain values that JSON can hold; None for what is not a finite number."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


@dataclass(frozen=True, slots=True, eq=False)
class ErrorCurves:
    """Error of every paired pose after one alignment.

    `pairs`: the poses compared; `aligned`: the estimate in the ground truth's frame;
    `translation_m`: (n,). `rotation_deg`: (n,), after aligning the orientations on the whole,
    except where nothing is aligned.
    """

    pairs: Pairs
    alignment: Alignment
    similarity: Similarity
    aligned: PoseStack
    translation_m: Array
    rotation_deg: Array


def evaluate(
    estimate: Trajectory,
    groundtruth: Trajectory,
    *,
    stds: npt.ArrayLike | None = None,
    metric: bool = True,
) -> Metrics:
    """Judge an estimated trajectory against ground truth.

    `stds`: (n, 6) predicted standard deviations, row i for the motion from pose i - 1 to pose i of
    `estimate` (`values.Motion.std`); rows that are not finite and positive say nothing, row 0 is
    never used. `metric`: whether the estimate's lengths are metres; where they are not, NEES
    compares them after the Sim(3) scale. Raises SourceError where the two do not meet in time.
    """
    pairs = associate(estimate, groundtruth)
    maps = {how: align(pairs, how) for how in ALIGNMENTS}
    aligned = {how: maps[how].apply(pairs.estimate) for how in ALIGNMENTS}
    misses = {
        how: np.linalg.norm(aligned[how].translations - pairs.groundtruth.translations, axis=1)
        for how in ALIGNMENTS
    }
    scale = maps["sim3"].scale
    scales = {"raw": 1.0, "scaled": scale}
    walked, true_walked = _steps_m(pairs.estimate), _steps_m(pairs.groundtruth)
    path, true_path = float(walked.sum()), float(true_walked.sum())
    windows = {name: _window_errors(pairs, s) for name, s in scales.items()}
    turned_deg = np.degrees(windows["raw"].angles)
    lengths = SHORT_LENGTHS_M if true_path < SHORT_PATH_M else KITTI_LENGTHS_M
    segments = {
        name: kitti_errors(pairs.estimate.scaled(s), pairs.groundtruth, lengths)
        for name, s in scales.items()
    }
    standing = _standing(pairs)
    nees = _squared_errors(pairs, stds, 1.0 if metric else scale)
    return Metrics(
        frames=len(estimate),
        matched=len(pairs),
        duration_s=float(pairs.stamps_ns[-1] - pairs.stamps_ns[0]) / NANOSECONDS,
        scale_sim3=scale,
        ate_rmse_m={how: _rms(misses[how]) or 0.0 for how in ALIGNMENTS},
        end_drift_percent={
            how: 100.0 * float(misses[how][-1]) / true_path if true_path > 0.0 else None
            for how in ALIGNMENTS
        },
        path_length_m={"groundtruth": true_path, "raw": path, "scaled": scale * path},
        rpe_windows=len(turned_deg),
        rpe_translation_rmse_m={name: _rms(e.distances) for name, e in windows.items()},
        rpe_rotation_rmse_deg=_rms(turned_deg),
        rpe_rotation_median_deg=float(np.median(turned_deg)) if len(turned_deg) else None,
        kitti_lengths_m=lengths,
        kitti_segments=len(segments["raw"][0]),
        t_rel_percent={name: _mean(100.0 * t) for name, (t, _) in segments.items()},
        r_rel_deg_per_100m=_mean(100.0 * np.degrees(segments["raw"][1])),
        standing_s=float(np.diff(pairs.stamps_ns)[standing].sum()) / NANOSECONDS,
        standing_path_m={
            "groundtruth": float(true_walked[standing].sum()),
            "raw": float(walked[standing].sum()),
            "scaled": scale * float(walked[standing].sum()),
        },
        nees_steps=len(nees),
        nees={k: _mean(nees[:, axes].mean(axis=1)) for k, (axes, _) in _AXES.items()},
        nees_inside_95_fraction={
            k: _mean(nees[:, axes].sum(axis=1) <= bound) for k, (axes, bound) in _AXES.items()
        },
    )


def error_curves(
    estimate: Trajectory, groundtruth: Trajectory, alignment: Alignment
) -> ErrorCurves:
    """Return the error at every paired pose; raises SourceError as `evaluate` does."""
    pairs = associate(estimate, groundtruth)
    similarity = align(pairs, alignment)
    aligned = similarity.apply(pairs.estimate)
    miss = np.linalg.norm(aligned.translations - pairs.groundtruth.translations, axis=1)
    turned = aligned if alignment == "none" else align_orientation(pairs).apply(pairs.estimate)
    turn = (pairs.groundtruth.inverse() @ turned).angles
    return ErrorCurves(pairs, alignment, similarity, aligned, miss, np.degrees(turn))


def kitti_errors(
    estimate: PoseStack, groundtruth: PoseStack, lengths_m: tuple[float, ...]
) -> tuple[Array, Array]:
    """Return every segment's error per metre: translation (m/m) and rotation (rad/m).

    As in the devkit: a segment starts at every tenth frame and ends at the first frame further
    along the ground-truth path than its length; the error is divided by the nominal length.
    """
    along = np.concatenate([[0.0], np.cumsum(_steps_m(groundtruth))])
    first = np.arange(0, len(groundtruth), KITTI_STEP)
    moves, turns = [], []
    for length in lengths_m:
        last = np.searchsorted(along, along[first] + length, side="right")
        start, end = first[last < len(along)], last[last < len(along)]
        error = estimate.between(start, end).inverse() @ groundtruth.between(start, end)
        moves.append(error.distances / length)
        turns.append(error.angles / length)
    return np.concatenate(moves), np.concatenate(turns)


def _window_errors(pairs: Pairs, scale: float) -> PoseStack:
    """Return the errors of the motions over `RPE_WINDOW_S` (Sturm 2012, equation 1)."""
    wanted = pairs.stamps_ns + round(RPE_WINDOW_S * NANOSECONDS)
    last = _nearest(pairs.stamps_ns, wanted)
    half_frame = 0.5 * float(np.median(np.diff(pairs.stamps_ns))) + SAME_TIME_NS
    first = np.arange(len(pairs))
    fits = (np.abs(pairs.stamps_ns[last] - wanted) <= half_frame) & (last > first)
    first, last = first[fits], last[fits]
    true = pairs.groundtruth.between(first, last)
    return true.inverse() @ pairs.estimate.scaled(scale).between(first, last)


def _standing(pairs: Pairs) -> npt.NDArray[np.bool_]:
    """Return for each step between paired poses whether the true camera stood still."""
    window_ns = round(STANDING_WINDOW_S * NANOSECONDS)
    positions = pairs.groundtruth.translations
    still = np.ones(len(pairs), dtype=np.bool_)
    for shift in (-window_ns, window_ns):
        there = positions[_nearest(pairs.stamps_ns, pairs.stamps_ns + shift)]
        moved = np.linalg.norm(there - positions, axis=1)
        still &= moved < STANDING_SPEED_M_S * STANDING_WINDOW_S
    return np.asarray(still[1:] & still[:-1], dtype=np.bool_)


def _squared_errors(pairs: Pairs, stds: npt.ArrayLike | None, scale: float) -> Array:
    """Return (m, 6) squared errors of single steps, each divided by its predicted variance.

    The error is the twist with `true = estimate @ exp(error)`.
    """
    if stds is None:
        return np.empty((0, 6))
    followed = np.flatnonzero(np.diff(pairs.indices) == 1)
    std = np.array(stds, dtype=np.float64)[pairs.indices[followed + 1]]
    std[:, :3] *= scale
    says = (np.isfinite(std) & (std > 0.0)).all(axis=1)
    first, std = followed[says], std[says]
    estimated = pairs.estimate.scaled(scale).between(first, first + 1)
    error = (estimated.inverse() @ pairs.groundtruth.between(first, first + 1)).logs()
    return np.asarray((error / std) ** 2, dtype=np.float64)


def _nearest(
    stamps_ns: npt.NDArray[np.int64], wanted_ns: npt.NDArray[np.int64]
) -> npt.NDArray[np.intp]:
    """Return the indices of the stamps nearest to the wanted ones."""
    after = np.clip(np.searchsorted(stamps_ns, wanted_ns), 1, len(stamps_ns) - 1)
    before_is_nearer = wanted_ns - stamps_ns[after - 1] <= stamps_ns[after] - wanted_ns
    return np.asarray(after - before_is_nearer, dtype=np.intp)


def _steps_m(poses: PoseStack) -> Array:
    """(n - 1,) distances from pose to pose."""
    return np.asarray(np.linalg.norm(np.diff(poses.translations, axis=0), axis=1))


def _mean(values: Array | npt.NDArray[np.bool_]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _rms(values: Array) -> float | None:
    return float(np.sqrt(np.mean(values**2))) if len(values) else None


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
