"""Two trajectories of one recording: matched in time, then laid over each other.

Umeyama, "Least-squares estimation of transformation parameters between two point patterns"
(1991); mean of rotations: Markley et al., "Averaging quaternions" (2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vo_stream.errors import SourceError
from vo_stream.replay.trajectory import Trajectory
from vo_stream.se3 import SE3, Array
from vo_stream.values import NANOSECONDS

Alignment: TypeAlias = Literal["none", "se3", "sim3"]
ALIGNMENTS: tuple[Alignment, ...] = ("none", "se3", "sim3")
"""How an estimate may be laid over ground truth before it is judged; see `align`."""

FARTHEST_M = 1e9
"""Coordinates beyond this are no places, and their squares overflow."""

MIN_MATCHES = 3
"""Fewer pairs of poses than this fix no alignment."""

STANDING_SPREAD_M = 1e-6
"""Positions that spread less than this are one point: they give no direction and no scale."""

_TIE_BREAK = 1e-10
"""Weight of the orientations, relative to the positions, in `umeyama`: only to break ties."""

_SMALL_ANGLE_RAD = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class PoseStack:
    """`n` rigid motions as arrays, for arithmetic on whole trajectories at once.

    `quaternions`: (n, 4) unit, scalar first; `translations`: (n, 3) in metres. A stack of one
    composes with a stack of any length.
    """

    quaternions: Array
    translations: Array

    @staticmethod
    def of(poses: Sequence[SE3]) -> PoseStack:
        """Stack single motions."""
        values = np.array([pose.wxyz_xyz for pose in poses], dtype=np.float64).reshape(-1, 7)
        return PoseStack(values[:, :4], values[:, 4:])

    @staticmethod
    def exp(twists: Array) -> PoseStack:
        """Stack the motions of (n, 6) twists (v metres, w radians); `SE3.exp` of every one."""
        v, w = twists[:, :3], twists[:, 3:]
        angle = np.linalg.norm(w, axis=1, keepdims=True)
        small = angle < _SMALL_ANGLE_RAD
        safe = np.where(small, 1.0, angle)
        half = np.where(small, 0.5, np.sin(0.5 * safe) / safe)
        b = np.where(small, 0.5, (1.0 - np.cos(safe)) / safe**2)
        c = np.where(small, 1.0 / 6.0, (safe - np.sin(safe)) / safe**3)
        turned = np.cross(w, v)
        quaternions = np.concatenate([np.cos(0.5 * angle), half * w], axis=1)
        return PoseStack(quaternions, v + b * turned + c * np.cross(w, turned))

    def motions(self) -> tuple[SE3, ...]:
        """Return the single motions."""
        return tuple(map(SE3, np.concatenate([self.quaternions, self.translations], axis=1)))

    def __len__(self) -> int:
        return len(self.translations)

    def __getitem__(self, which: slice | npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> PoseStack:
        return PoseStack(self.quaternions[which], self.translations[which])

    def __matmul__(self, other: PoseStack) -> PoseStack:
        """Compose pose by pose: `a_from_b @ b_from_c` is `a_from_c`."""
        return PoseStack(
            _multiply(self.quaternions, other.quaternions),
            self.translations + _rotate(self.quaternions, other.translations),
        )

    def inverse(self) -> PoseStack:
        """Return `b_from_a` of each `a_from_b`."""
        conjugate = self.quaternions * [1.0, -1.0, -1.0, -1.0]
        return PoseStack(conjugate, -_rotate(conjugate, self.translations))

    def scaled(self, scale: float | Array) -> PoseStack:
        """Multiply the translations, by one number or an (n, 1) for each; leave the rotations."""
        return PoseStack(self.quaternions, scale * self.translations)

    def between(self, first: npt.NDArray[np.intp], last: npt.NDArray[np.intp]) -> PoseStack:
        """Return the motions `first_from_last` between poses of the stack."""
        return self[first].inverse() @ self[last]

    @property
    def distances(self) -> Array:
        """(n,) lengths of the translations in metres."""
        return np.asarray(np.linalg.norm(self.translations, axis=1), dtype=np.float64)

    @property
    def angles(self) -> Array:
        """(n,) angles of the rotations in radians, 0 to pi."""
        sine = np.linalg.norm(self.quaternions[:, 1:], axis=1)
        return np.asarray(2.0 * np.arctan2(sine, np.abs(self.quaternions[:, 0])))

    def logs(self) -> Array:
        """(n, 6) twists (v metres, w radians); `SE3.log` of every motion."""
        angle = self.angles
        small = angle < _SMALL_ANGLE_RAD
        safe = np.where(small, 1.0, angle)
        half = 0.5 * safe
        sign = np.where(self.quaternions[:, 0] < 0.0, -1.0, 1.0)
        w = np.where(small, 2.0, safe / np.sin(half)) * sign
        w = w[:, None] * self.quaternions[:, 1:]
        d = np.where(small, 1.0 / 12.0, (1.0 - half / np.tan(half)) / safe**2)
        turned = np.cross(w, self.translations)
        v = self.translations - 0.5 * turned + d[:, None] * np.cross(w, turned)
        return np.concatenate([v, w], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Similarity:
    """The map `p -> scale * R p + t`, with `R` and `t` those of `motion`."""

    scale: float
    motion: SE3

    def apply(self, poses: PoseStack) -> PoseStack:
        """Move camera poses into the new frame; their orientation turns, nothing stretches it."""
        return PoseStack.of([self.motion]) @ poses.scaled(self.scale)

    def place(self, points: npt.ArrayLike) -> Array:
        """Move (n, 3) points into the new frame."""
        return self.motion.apply(self.scale * np.asarray(points, dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The poses of an estimate that have ground truth, beside it.

    `indices`: (n,) which poses of the estimated trajectory these are; `stamps_ns`: (n,).
    """

    indices: npt.NDArray[np.intp]
    stamps_ns: npt.NDArray[np.int64]
    estimate: PoseStack
    groundtruth: PoseStack

    def __len__(self) -> int:
        return len(self.stamps_ns)


def associate(estimate: Trajectory, groundtruth: Trajectory) -> Pairs:
    """Pair every estimated pose with ground truth at its stamp, interpolated over short gaps.

    Poses that are not finite, or farther than `FARTHEST_M`, are left out. Raises SourceError where
    fewer than `MIN_MATCHES` pair.
    """
    indices, true = [], []
    for i, (stamp, pose) in enumerate(
        zip(estimate.stamps_ns.tolist(), estimate.world_from_camera, strict=True)
    ):
        there = groundtruth.at(stamp)
        if there is not None and _is_place(there) and _is_place(pose):
            indices.append(i)
            true.append(there)
    if len(indices) < MIN_MATCHES:
        raise SourceError(
            f"only {len(indices)} of {len(estimate)} estimated poses have ground truth: the "
            f"estimate covers {_time_range(estimate)}, the ground truth {_time_range(groundtruth)}"
        )
    which = np.array(indices, dtype=np.intp)
    estimated = PoseStack.of([estimate.world_from_camera[i] for i in indices])
    return Pairs(which, estimate.stamps_ns[which], estimated, PoseStack.of(true))


def _is_place(pose: SE3) -> bool:
    return pose.is_finite and bool((np.abs(pose.translation) < FARTHEST_M).all())


def align(pairs: Pairs, alignment: Alignment) -> Similarity:
    """Return the map that lays the estimate over the ground truth.

    "none" fits nothing: it only makes the first paired poses equal (start pose given). "se3" fits
    rotation and translation, "sim3" a scale as well, both by `umeyama` on the positions.
    """
    true_from_estimate = pairs.groundtruth @ pairs.estimate.inverse()
    if alignment == "none":
        first = np.concatenate(
            [true_from_estimate.quaternions[0], true_from_estimate.translations[0]]
        )
        return Similarity(1.0, SE3(first))
    return umeyama(
        pairs.estimate.translations,
        pairs.groundtruth.translations,
        with_scale=alignment == "sim3",
        prior=_mean_rotation(true_from_estimate.quaternions),
    )


def align_orientation(pairs: Pairs) -> Similarity:
    """Return the turn that lays the estimate's orientations over the true ones, on the whole.

    Positions along a straight line leave the turn about it open; orientations do not.
    """
    true_from_estimate = pairs.groundtruth @ pairs.estimate.inverse()
    mean = _mean_rotation(true_from_estimate.quaternions)
    return Similarity(1.0, SE3.from_rotation_translation(mean, np.zeros(3)))


def umeyama(
    source: Array, target: Array, *, with_scale: bool, prior: npt.ArrayLike | None = None
) -> Similarity:
    """Return the map of (n, 3) `source` points onto `target` with the least squared error.

    Never a reflection (Umeyama 1991, equations 39 to 42). Points on a line leave the turn around
    it open, points in one place the whole rotation: there the result is as near as can be to the
    (3, 3) rotation `prior` (default: none). Where either set stands still the scale is 1.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    from_mean, to_mean = source - source_mean, target - target_mean
    covariance = to_mean.T @ from_mean / len(source)
    variance = float((from_mean**2).sum(axis=1).mean())
    spread = min(variance, float((to_mean**2).sum(axis=1).mean())) ** 0.5
    stands = spread <= STANDING_SPREAD_M
    tie_break = np.eye(3) if prior is None else np.asarray(prior, dtype=np.float64)
    weight = 0.0 if prior is None else _TIE_BREAK * float(np.linalg.norm(covariance))
    u, _, vt = np.linalg.svd(tie_break if stands else covariance + weight * tie_break)
    keep_handed = np.diag([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ keep_handed @ vt
    scale = float(np.sum(rotation * covariance)) / variance if with_scale and not stands else 1.0
    translation = target_mean - scale * rotation @ source_mean
    return Similarity(scale, SE3.from_rotation_translation(rotation, translation))


def _mean_rotation(quaternions: Array) -> Array:
    """Return the (3, 3) rotation nearest to all of the (n, 4) quaternions."""
    _, vectors = np.linalg.eigh(quaternions.T @ quaternions)
    return SE3(np.concatenate([vectors[:, -1], np.zeros(3)])).rotation


def _multiply(a: Array, b: Array) -> Array:
    """Multiply (n, 4) quaternions, scalar first."""
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    scalar = aw * bw - np.sum(av * bv, axis=-1, keepdims=True)
    return np.concatenate([scalar, aw * bv + bw * av + np.cross(av, bv)], axis=-1)


def _rotate(q: Array, v: Array) -> Array:
    """Turn (n, 3) vectors by (n, 4) unit quaternions."""
    twice = 2.0 * np.cross(q[..., 1:], v)
    return np.asarray(v + q[..., :1] * twice + np.cross(q[..., 1:], twice), dtype=np.float64)


def _time_range(trajectory: Trajectory) -> str:
    if not len(trajectory):
        return "no time at all"
    first, last = trajectory.stamps_ns[[0, -1]] / NANOSECONDS
    return f"{first:.3f} to {last:.3f} s"
