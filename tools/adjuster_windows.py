"""A made-up drive, the windows of keyframes it gives, and what an answer to one costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vo_stream.adjust.factors import MOTION_HUBER
from vo_stream.adjust.solver import HUBER, Indices
from vo_stream.se3 import SE3, Array

WIDTH, HEIGHT, FOCAL, CENTRE = 1241.0, 376.0, 700.0, (620.0, 188.0)
"""The camera, in pixels, much like KITTI's."""

CAMERA_HEIGHT, STREET, FARTHEST = 1.65, 9.0, 80.0
"""Metres: of the camera above the road, from it to the houses, and to what is farthest."""

STEP = 1.0
"""Metres between keyframes."""

NOISE_PX, OUTLIERS, OUTLIER_PX = 0.7, 0.05, (5.0, 30.0)
LOST = 0.12
"""Share of the landmarks in view that the tracker loses at each keyframe."""

OFF = 3.0
"""Standard deviations beyond which the adjuster drops a sighting after a solve."""

WORST = 100.0
"""Standard deviations: a sighting costs no more than this error, nor less if behind its camera."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """K keyframes, N landmarks, M sightings sorted by landmark, then by keyframe; the first
    keyframe is held. All of it is the start of a solve.

    `number`: of the first keyframe in its recording. `rotations` (K, 3, 3), `positions` (K, 3):
    map_from_camera. `motions` (K, 3, 4): prev_from_curr as measured, `motion_stds` (K, 6) of its
    error twist (v, w). `ids` (N,), `points` (N, 3): landmarks in the map. `first` (N + 1,): where
    their sightings begin; `keyframes` (M,), `plane` (M, 2) on z = 1; `std` of each coordinate.
    """

    number: int
    rotations: Array
    positions: Array
    motions: Array
    motion_stds: Array
    ids: Indices
    points: Array
    first: Indices
    keyframes: Indices
    plane: Array
    std: float

    @property
    def landmarks(self) -> Indices:
        """The landmark of each sighting, as an index."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.first))

    @property
    def anchors(self) -> Indices:
        """The keyframe that saw each landmark first."""
        return self.keyframes[self.first[:-1]]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Poses as in Window; `points` (N, 4) homogeneous, the last number 0 for one at infinity
    and negative beyond; `iterations` as the solver counts them.
    """

    rotations: Array
    positions: Array
    points: Array
    iterations: int


def sighting_errors(window: Window, answer: Answer) -> Array:
    """Return the (M,) reprojection errors in standard deviations; behind a camera, the worst."""
    k, n = window.keyframes, window.landmarks
    moved = answer.points[n, :3] - answer.points[n, 3:] * answer.positions[k]
    q = np.einsum("mji,mj->mi", answer.rotations[k], moved)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.linalg.norm(window.plane - q[:, :2] / q[:, 2:], axis=1) / window.std
    return np.where(q[:, 2] > 0.0, np.minimum(off, WORST), WORST)


def huber(errors: npt.ArrayLike, bound: float) -> Array:
    """Return Huber's function of errors in standard deviations."""
    e = np.asarray(errors, dtype=np.float64)
    return np.where(e <= bound, 0.5 * e**2, bound * (e - 0.5 * bound))


def cost(window: Window, answer: Answer) -> float:
    """Return what an answer costs: the one measure for all solvers, the one of our solver."""
    errors = sighting_errors(window, answer)
    total = huber(errors, HUBER).sum()
    for i in range(1, len(answer.positions)):
        turn, before = window.motions[i, :, :3].T, answer.rotations[i - 1].T
        step = before @ (answer.positions[i] - answer.positions[i - 1])
        left = SE3.from_rotation_translation(turn @ before @ answer.rotations[i], np.zeros(3))
        error = np.concatenate([turn @ (step - window.motions[i, :, 3]), left.rotation_vector])
        size = np.linalg.norm(error / window.motion_stds[i])
        total += float(huber(size, MOTION_HUBER))
    return float(total)


def nearer(window: Window, answer: Answer) -> Answer:
    """Return the answer with the landmarks beyond infinity put there, where others' must end."""
    beyond = np.minimum(answer.points[:, 3:], 0.0)
    at_anchor = np.concatenate([window.positions[window.anchors], np.ones_like(beyond)], axis=1)
    return replace(answer, points=answer.points - beyond * at_anchor)


def start_of(window: Window) -> Answer:
    """Return the start, as an answer."""
    points = np.concatenate([window.points, np.ones((len(window.points), 1))], axis=1)
    return Answer(window.rotations, window.positions, points, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """What really was, and what was measured.

    `poses`: map_from_camera of each keyframe. `motions`: prev_from_curr as measured, `stds` (6,)
    of their error twists. `ids`, `plane`: what each keyframe saw, ids ascending.
    """

    poses: list[SE3]
    motions: list[SE3]
    stds: Array
    ids: list[Indices]
    plane: list[Array]


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """What is known so far of a drive; `points` (all ids, 3) are not numbers where unknown."""

    rotations: Array
    positions: Array
    points: Array

    @staticmethod
    def at_truth(road: Drive) -> Estimates:
        """Return the true poses, and no landmark."""
        return Estimates(
            np.array([pose.rotation for pose in road.poses]),
            np.array([pose.translation for pose in road.poses]),
            np.full((max(int(ids[-1]) for ids in road.ids) + 1, 3), np.nan),
        )

    def predict(self, road: Drive, k: int) -> None:
        """Write the pose of keyframe `k` as its measured motion has it."""
        before, motion = self.rotations[k - 1], road.motions[k]
        self.rotations[k] = before @ motion.rotation
        self.positions[k] = self.positions[k - 1] + before @ motion.translation

    def take(self, window: Window, answer: Answer) -> None:
        """Write what a solver found; a landmark that is not in front is forgotten."""
        which = slice(window.number, window.number + len(answer.positions))
        self.rotations[which], self.positions[which] = answer.rotations, answer.positions
        with np.errstate(divide="ignore", invalid="ignore"):
            points = answer.points[:, :3] / answer.points[:, 3:]
        points[answer.points[:, 3] <= 1e-9] = np.nan
        self.points[window.ids] = points


def drive(seed: int, keyframes: int, tracks: int, turn_deg: float, outliers: float) -> Drive:
    """Drive along a winding street; motions are measured to 3 % and `turn_deg` degrees."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0.0, 2.0 * np.pi)
    poses = [SE3.identity()]
    for k in range(1, keyframes):
        turn = np.radians(1.5) * np.sin(0.1 * k + phase)
        poses.append(poses[-1] @ SE3.exp([0.0, 0.0, STEP, 0.0, turn, 0.0]))
    stds = np.repeat([0.03 * STEP, np.radians(turn_deg)], 3)
    motions = [SE3.identity()] + [
        a.inverse() @ b @ SE3.exp(rng.normal(0.0, stds)) for a, b in pairwise(poses)
    ]
    all_ids, all_plane = [], []
    ids, points, count = np.empty(0, dtype=np.int64), np.empty((0, 3)), 0
    for pose in poses:
        kept = in_view(pose.inverse().apply(points)) & (rng.random(len(ids)) > LOST)
        fresh = tracks - int(kept.sum())
        ids = np.concatenate([ids[kept], np.arange(count, count + fresh)])
        points = np.concatenate([points[kept], pose.apply(street(rng, fresh))])
        count += fresh
        pixels = projected(pose.inverse().apply(points))
        pixels += rng.normal(0.0, NOISE_PX, pixels.shape)
        wrong, angle = rng.random(len(ids)) < outliers, rng.uniform(0.0, 2.0 * np.pi, len(ids))
        far = wrong * rng.uniform(*OUTLIER_PX, len(ids))
        pixels += far[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        all_ids.append(ids)
        all_plane.append((pixels - CENTRE) / FOCAL)
    return Drive(poses, motions, stds, all_ids, all_plane)


def street(rng: np.random.Generator, count: int) -> Array:
    """Return points in the camera, spread evenly over the image: road, houses and things before."""
    rays = (rng.uniform(0.0, (WIDTH, HEIGHT), (count, 2)) - CENTRE) / FOCAL
    with np.errstate(divide="ignore"):
        road = np.where(rays[:, 1] > 0.0, CAMERA_HEIGHT / rays[:, 1], np.inf)
        houses = STREET / np.abs(rays[:, 0])
    depth = np.minimum(np.minimum(road, houses), FARTHEST) * rng.uniform(0.7, 1.0, count)
    return np.concatenate([rays, np.ones((count, 1))], axis=1) * np.maximum(depth, 3.0)[:, None]


def projected(points: Array) -> Array:
    """Return the pixels of points in the camera."""
    return np.asarray(points[:, :2] / points[:, 2:] * FOCAL + CENTRE)


def in_view(points: Array) -> Any:
    """Return whether points in the camera are in its image, and not too near."""
    pixels = projected(points)
    inside = (pixels > 0.0).all(axis=1) & (pixels < (WIDTH, HEIGHT)).all(axis=1)
    return inside & (points[:, 2] > 2.0)


def window_of(road: Drive, known: Estimates, first: int, last: int) -> Window:
    """Return the window of these keyframes, both included, and the landmarks seen at least twice.

    Landmarks that are not known yet are triangulated.
    """
    numbers = range(first, last + 1)
    ids = np.concatenate([road.ids[k] for k in numbers])
    keyframes = np.repeat(np.arange(len(numbers)), [len(road.ids[k]) for k in numbers])
    order = np.lexsort((keyframes, ids))
    _, inverse, counts = np.unique(ids[order], return_inverse=True, return_counts=True)
    order = order[counts[inverse] >= 2]
    unique, begins = np.unique(ids[order], return_index=True)
    window = Window(
        number=first,
        rotations=known.rotations[first : last + 1].copy(),
        positions=known.positions[first : last + 1].copy(),
        motions=np.array([road.motions[k].as_matrix()[:3] for k in numbers]),
        motion_stds=np.tile(road.stds, (len(numbers), 1)),
        ids=unique,
        points=known.points[unique],
        first=np.append(begins, len(order)),
        keyframes=keyframes[order],
        plane=np.concatenate([road.plane[k] for k in numbers])[order],
        std=NOISE_PX / FOCAL,
    )
    unknown = np.isnan(window.points).any(axis=1)
    window.points[unknown] = triangulated(window)[unknown]
    return window


def triangulated(window: Window) -> Array:
    """Return (N, 3) landmarks on the ray that saw each first; least squares of inverse depths."""
    n, k, a = window.landmarks, window.keyframes, window.anchors
    rays = np.concatenate([window.plane[window.first[:-1]], np.ones((len(a), 1))], axis=1)
    rays = np.einsum("nij,nj->ni", window.rotations[a], rays)
    turned = np.einsum("mji,mj->mi", window.rotations[k], rays[n])
    away = window.positions[a[n]] - window.positions[k]
    moved = np.einsum("mji,mj->mi", window.rotations[k], away)
    # turned + rho moved lies on the sighting's ray: two equations for rho.
    left = turned[:, :2] - window.plane * turned[:, 2:]
    right = moved[:, :2] - window.plane * moved[:, 2:]
    top = np.bincount(n, -(left * right).sum(axis=1), len(a))
    rho = top / np.maximum(np.bincount(n, (right**2).sum(axis=1), len(a)), 1e-12)
    rho = np.where(rho > 0.0, np.clip(rho, 1.0 / 200.0, 1.0 / 2.0), 1.0 / 30.0)
    return np.asarray(window.positions[a] + rays / rho[:, None])


def without_outliers(road: Drive, window: Window, answer: Answer) -> Drive:
    """Return the drive less the sightings that an answer shows to be off, as the adjuster does."""
    off = sighting_errors(window, answer) > OFF
    ids, plane = list(road.ids), list(road.plane)
    for k in range(len(answer.positions)):
        number = window.number + k
        gone = window.ids[window.landmarks[off & (window.keyframes == k)]]
        kept = ~np.isin(ids[number], gone)
        ids[number], plane[number] = ids[number][kept], plane[number][kept]
    return replace(road, ids=ids, plane=plane)
