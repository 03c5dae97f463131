"""Landmarks with uncertain depth, and the camera motion that explains where they went.

A landmark is a ray from where it was first seen, with an inverse depth that each later sighting
makes more certain (Civera et al., "Inverse depth parametrization for monocular SLAM", 2008). The
camera's pose and all inverse depths are solved together by Gauss-Newton; the inverse depths are
eliminated by the Schur complement, so a step costs one 6x6 system. What is left on each landmark's
diagonal is its new information: the solve is the depth filter as well. A landmark never seen
before has no information and adds an epipolar constraint only; a well known one adds both its
coordinates; no case is told apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vo_stream.se3 import SE3, Array, rotation_from_vector

Mask = npt.NDArray[np.bool_]

SHARED_NOISE = 0.5
"""Share of a sighting's noise that it has in common with the landmark's other sightings."""

ITERATIONS = 8
HUBER = 1.5
"""Error, in standard deviations, beyond which a sighting counts less."""

MAX_VOTER_STD = 0.3
"""Only depths better known than this part of them say how long a step was."""

TINY = 1e-6 * np.eye(6)
"""Keeps the system solvable where nothing is seen."""

STEP_TOLERANCE = 1e-7
"""Largest change of the last iteration, radians and parts of the scene depth."""

NEAREST_DEPTH_FRACTION = 1e-3
"""A sighting must lie this far in front of the camera, as a part of its ray's length."""


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """n landmarks `origin + direction / inverse_depth` in the frame of the newest camera.

    `origin`: (n, 3) where the camera was at the first sighting. `direction`: (n, 3) ray (x, y, 1)
    of that sighting, as it lies now. `inverse_depth`: (n,) along that sighting's optical axis.
    `information`: (n,) inverse variance of the inverse depth; 0 where it is a mere guess.
    `age`: (n,) frames since the first sighting.
    """

    origin: Array
    direction: Array
    inverse_depth: Array
    information: Array
    age: npt.NDArray[np.int64]

    @staticmethod
    def empty() -> Landmarks:
        """Return no landmarks."""
        none3, none = np.empty((0, 3)), np.empty(0)
        return Landmarks(none3, none3, none, none, np.empty(0, dtype=np.int64))

    @staticmethod
    def first_seen(plane: Array, inverse_depth: float) -> Landmarks:
        """Return new landmarks at (n, 2) points on the plane z = 1, their depth a mere guess."""
        n = len(plane)
        rays = np.concatenate([plane, np.ones((n, 1))], axis=1)
        depth = np.full(n, inverse_depth)
        return Landmarks(np.zeros((n, 3)), rays, depth, np.zeros(n), np.zeros(n, dtype=np.int64))

    def __len__(self) -> int:
        """Return the number of landmarks."""
        return len(self.inverse_depth)

    def __getitem__(self, keep: Mask) -> Landmarks:
        """Return those that `keep` selects."""
        return Landmarks(
            self.origin[keep],
            self.direction[keep],
            self.inverse_depth[keep],
            self.information[keep],
            self.age[keep],
        )

    def joined(self, other: Landmarks) -> Landmarks:
        """Return both sets, self first."""
        return Landmarks(
            np.concatenate([self.origin, other.origin]),
            np.concatenate([self.direction, other.direction]),
            np.concatenate([self.inverse_depth, other.inverse_depth]),
            np.concatenate([self.information, other.information]),
            np.concatenate([self.age, other.age]),
        )

    @property
    def relative_std(self) -> Array:
        """(n,) standard deviation of each depth as a part of it; infinite where unknown."""
        with np.errstate(divide="ignore"):
            return np.asarray(1.0 / (np.sqrt(self.information) * np.abs(self.inverse_depth)))

    def moved(self, curr_from_prev: SE3) -> Landmarks:
        """Return the same landmarks in the frame of the next camera."""
        origin, direction = curr_from_prev.apply(self.origin), self.direction
        turned = direction @ curr_from_prev.rotation.T
        return Landmarks(origin, turned, self.inverse_depth, self.information, self.age)

    def points(self) -> Array:
        """(n, 3) points in the newest camera, each times its inverse depth (finite at infinity)."""
        return self.direction + self.inverse_depth[:, None] * self.origin


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """The solve's answer.

    `curr_from_prev`: the camera's motion. `information`: (6, 6) of its twist error (v, w) in the
    new camera's frame. `landmarks`: the same ones, still in the old frame, better known.
    `errors`: (n,) their reprojection errors in standard deviations. `valid`: (n,) those in front
    of the camera. `new_scale`: the length of the motion was not carried over but chosen.
    """

    curr_from_prev: SE3
    information: Array
    landmarks: Landmarks
    errors: Array
    valid: Mask
    new_scale: bool = False


def solve(
    landmarks: Landmarks,
    plane: Array,
    noise: Array,
    start: SE3,
    gauge: Array,
) -> Solution:
    """Find the camera's motion, and better inverse depths, from one sighting of each landmark.

    `plane`: (n, 2) sightings on the plane z = 1. `noise`: (n,) their standard deviation there.
    `start`: first guess of curr_from_prev. `gauge`: (6, 6) information that holds the motion at
    `start` where the sightings leave it free (the scale of a first step).
    """
    rotation, translation = start.rotation, start.translation.copy()
    prior_depth, prior = landmarks.inverse_depth, landmarks.information
    rho = prior_depth.copy()
    moved = np.zeros(6)
    variance = noise * noise
    for _ in range(ITERATIONS):
        p = (landmarks.direction + rho[:, None] * landmarks.origin) @ rotation.T
        p += rho[:, None] * translation
        baseline = landmarks.origin @ rotation.T + translation
        inv_z, valid = _safe_inverse(p[:, 2])
        xy = p[:, :2] * inv_z[:, None]
        r = plane - xy
        # d: how the sighting moves with inverse depth; j: how it moves with the pose's twist.
        d = (baseline[:, :2] - xy * baseline[:, 2:]) * inv_z[:, None]
        j = _pose_jacobian(xy, rho * inv_z)
        errors = np.sqrt((r * r).sum(axis=1) / variance)
        weight = np.where(valid, np.minimum(1.0, HUBER / np.maximum(errors, 1e-12)), 0.0)
        w = weight / variance
        h_depth = w * (d * d).sum(axis=1) + prior
        g_depth = w * (d * r).sum(axis=1) + prior * (prior_depth - rho)
        h_cross = w[:, None] * np.einsum("ni,nij->nj", d, j)
        inv_h = 1.0 / np.maximum(h_depth, 1e-12)
        flat = j.reshape(-1, 6)
        information = flat.T @ (flat * np.repeat(w, 2)[:, None])
        information -= h_cross.T @ (h_cross * inv_h[:, None])
        gradient = flat.T @ (r * w[:, None]).ravel() - h_cross.T @ (g_depth * inv_h)
        system = information + gauge + TINY
        step = np.linalg.solve(system, gradient - gauge @ moved)
        turn = rotation_from_vector(step[3:])
        rotation, translation = turn @ rotation, turn @ translation + step[:3]
        moved += step
        rho = rho + (g_depth - h_cross @ step) * inv_h
        if np.abs(step).max() < STEP_TOLERANCE:
            break
    # An inverse depth is as uncertain as the pose lets it be, not only as its own sighting does.
    a = h_cross * inv_h[:, None]
    variance_rho = inv_h + np.einsum("ni,ij,nj->n", a, np.linalg.inv(system), a)
    known = np.where(h_depth > 0.0, 1.0 / variance_rho, 0.0)
    # ... nor can repeating a sighting tell more than its noise that stays the same allows.
    limit = (d * d).sum(axis=1) / (SHARED_NOISE**2 * variance)
    known = np.minimum(known, np.maximum(prior, limit))
    result = Landmarks(landmarks.origin, landmarks.direction, rho, known, landmarks.age)
    p = result.points() @ rotation.T + rho[:, None] * translation
    inv_z, valid = _safe_inverse(p[:, 2])
    r = plane - p[:, :2] * inv_z[:, None]
    errors = np.sqrt((r * r).sum(axis=1) / variance)
    pose = SE3.from_rotation_translation(rotation, translation)
    return Solution(pose, information + gauge + TINY, result, errors, valid)


def _safe_inverse(z: Array) -> tuple[Array, Mask]:
    """Return 1/z, and which z are far enough in front of the camera (others become 1)."""
    valid = z > NEAREST_DEPTH_FRACTION
    return 1.0 / np.where(valid, z, 1.0), valid


def _pose_jacobian(xy: Array, inverse_depth: Array) -> Array:
    """Return (n, 2, 6) derivatives of points on z = 1 by a twist (v, w) applied in the camera."""
    x, y = xy[:, 0], xy[:, 1]
    j = np.zeros((len(xy), 2, 6))
    j[:, 0, 0] = j[:, 1, 1] = inverse_depth
    j[:, 0, 2], j[:, 1, 2] = -x * inverse_depth, -y * inverse_depth
    j[:, 0, 3], j[:, 0, 4], j[:, 0, 5] = -x * y, 1.0 + x * x, -y
    j[:, 1, 3], j[:, 1, 4], j[:, 1, 5] = -1.0 - y * y, x * y, x
    return j


def step_length(landmarks: Landmarks, plane: Array, curr_from_prev: SE3) -> float:
    """Return the length of a step of known direction, as most landmarks of known depth see it.

    `plane`: (n, 2) their sightings after the step. `curr_from_prev`: its rotation, with a
    translation of length 1. The half of the landmarks that the step moved most have a vote each;
    the median is taken, since a mean weighted by depth errors would come out short.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        points = landmarks.points() / landmarks.inverse_depth[:, None]
        turned = points @ curr_from_prev.rotation.T
        rays = np.concatenate([plane, np.ones((len(plane), 1))], axis=1)
        across = np.cross(rays, turned)
        moved = -np.cross(rays, curr_from_prev.translation)
        votes = (moved * across).sum(axis=1) / (moved * moved).sum(axis=1)
        sensitivity = np.linalg.norm(moved, axis=1) / np.abs(turned[:, 2])
    usable = np.isfinite(votes) & (landmarks.relative_std < MAX_VOTER_STD)
    if not usable.any():
        return 0.0
    usable &= sensitivity >= np.median(sensitivity[usable])
    return float(np.median(votes[usable]))
