"""The window: keyframes, what they saw, and the landmarks behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vo_stream.adjust.live_motion import at_scale
from vo_stream.adjust.solver import Indices, Problem, State
from vo_stream.adjust.tracks import Ids
from vo_stream.corners import Image
from vo_stream.se3 import SE3, Array

SCALE_WALK_STD = 0.02
"""By how much the logarithm of the live motion's scale may change from keyframe to keyframe."""

DEPTH_STDS = 10.0
"""Standard deviation of a landmark's inverse depth before anything was seen of it, in medians."""

FIRST_INVERSE_DEPTH = 0.1
"""Of the first landmarks whose depth nothing shows."""


@dataclass(frozen=True, slots=True, eq=False)
class WindowKeyframe:
    """A keyframe in the window.

    `map_from_camera`, `odom_from_camera`: refined pose, and the live one. `motion`: the live
    motion from the keyframe before, in the backend's own lengths; `information` (6, 6) of its error
    twist; `scale_variance`: by which the logarithm of its unit may have changed on the way;
    `log_scale`: of what makes its lengths the map's. `ids` (n,): the tracks it saw, at `plane`
    (n, 2) on the plane z = 1, with `variances` (n,). `image`: kept where the ground is looked for.
    `travelled_m`: as in `Frame`.
    """

    stamp_ns: int
    map_from_camera: SE3
    odom_from_camera: SE3
    motion: SE3
    information: Array
    scale_variance: float
    log_scale: float
    ids: Ids
    plane: Array
    variances: Array
    image: Image | None = None
    travelled_m: float = math.nan

    def without(self, ids: Ids) -> WindowKeyframe:
        """Return it as if it had not seen these tracks."""
        kept = ~np.isin(self.ids, ids, assume_unique=True)
        return replace(
            self, ids=self.ids[kept], plane=self.plane[kept], variances=self.variances[kept]
        )

    def resized(self, centre: Array, factor: float) -> WindowKeyframe:
        """Return it in a map that was multiplied by `factor` about `centre`."""
        position = centre + factor * (self.map_from_camera.translation - centre)
        pose = SE3(np.concatenate([self.map_from_camera.wxyz_xyz[:4], position]))
        return replace(self, map_from_camera=pose, log_scale=self.log_scale + np.log(factor))


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """Points of the map: `ids` (n,) ascending, those of their tracks; `points` (n, 4) homogeneous,
    so that one may lie at infinity; `depth_stds` (n,) of the depth, as a part of it.
    """

    ids: Ids
    points: Array
    depth_stds: Array

    @staticmethod
    def empty() -> Landmarks:
        """Return no landmarks."""
        return Landmarks(np.empty(0, dtype=np.int64), np.empty((0, 4)), np.empty(0))

    def rows(self, ids: Ids) -> Indices:
        """Return (m,) rows of tracks, -1 for those that are no landmark."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.asarray(np.where(self.ids[at] == ids, at, -1))

    def inverse_depths(self, ids: Ids, map_from_camera: SE3, max_std: float) -> Array:
        """Return (m,) inverse depths of tracks in a camera, NaN where they are not known."""
        rows = self.rows(ids)
        result = np.full(len(ids), np.nan)
        known = rows >= 0
        known[known] = self.depth_stds[rows[known]] < max_std
        seen = in_cameras(
            self.points[rows[known]],
            map_from_camera.rotation[None],
            map_from_camera.translation[None],
        )
        result[known] = np.where(seen[:, 2] > 0.0, seen[:, 2], np.nan)
        return result

    def finite(self) -> tuple[Array, Array]:
        """Return (m, 3) points that do not lie at infinity or beyond, and (m,) `depth_stds`."""
        near = self.points[:, 3] > 0.0
        return self.points[near, :3] / self.points[near, 3:], self.depth_stds[near]

    def resized(self, centre: Array, factor: float) -> Landmarks:
        """Return them in a map that was multiplied by `factor` about `centre`."""
        weight = self.points[:, 3:]
        moved = factor * self.points[:, :3] + (1.0 - factor) * weight * centre
        return replace(self, points=np.concatenate([moved, weight], axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """What the keyframes of a window saw: M sightings of N tracks, by track, then by keyframe.

    `ids` (N,) ascending; `first` (N + 1,): where each track's sightings begin; `keyframes`,
    `plane`, `variances`: (M,), (M, 2), (M,).
    """

    ids: Ids
    first: Indices
    keyframes: Indices
    plane: Array
    variances: Array

    @staticmethod
    def of(keyframes: Sequence[WindowKeyframe]) -> Sightings:
        """Gather the tracks that at least two keyframes saw."""
        ids = np.concatenate([k.ids for k in keyframes])
        who = np.repeat(np.arange(len(keyframes)), [len(k.ids) for k in keyframes])
        plane = np.concatenate([k.plane for k in keyframes])
        variances = np.concatenate([k.variances for k in keyframes])
        order = np.lexsort((who, ids))
        _, track, counts = np.unique(ids[order], return_inverse=True, return_counts=True)
        order = order[counts[track] >= 2]
        tracks, first = np.unique(ids[order], return_index=True)
        return Sightings(
            tracks, np.append(first, len(order)), who[order], plane[order], variances[order]
        )

    @property
    def anchors(self) -> Indices:
        """(N,) the keyframe that saw each track first."""
        return self.keyframes[self.first[:-1]]

    @property
    def tracks(self) -> Indices:
        """(M,) the row in `ids` of each sighting."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.first))


def window_problem(
    keyframes: Sequence[WindowKeyframe],
    seen: Sightings,
    landmarks: Landmarks,
    held: int,
    bend: tuple[float, float],
) -> tuple[Problem, State]:
    """Return the window as the solver wants it, and where to start from.

    `bend`: what is known of the lens, and its standard deviation.
    """
    poses = [k.map_from_camera for k in keyframes]
    rotations = np.array([p.rotation for p in poses])
    positions = np.array([p.translation for p in poses])
    anchors, rows = seen.anchors, landmarks.rows(seen.ids)
    known = rows >= 0
    points = triangulated(seen, rotations, positions, bend[0])
    points[known] = in_cameras(
        landmarks.points[rows[known]], rotations[anchors[known]], positions[anchors[known]]
    )
    usable = np.isfinite(points).all(axis=1)
    usual = float(np.median(points[usable, 2])) if usable.any() else FIRST_INVERSE_DEPTH
    points[~usable, :2], points[~usable, 2] = seen.plane[seen.first[:-1]][~usable], usual
    problem = Problem(
        held=held,
        motions=np.array([k.motion.as_matrix()[:3] for k in keyframes]),
        motion_information=np.array([k.information for k in keyframes]),
        walk_information=1.0 / np.array([SCALE_WALK_STD**2 + k.scale_variance for k in keyframes]),
        log_scale_prior=keyframes[held - 1].log_scale,
        anchors=anchors,
        depth_prior=points[:, 2].copy(),
        depth_information=1.0 / (DEPTH_STDS * max(abs(usual), 1e-9)) ** 2,
        first=seen.first,
        keyframes=seen.keyframes,
        plane=seen.plane,
        weights=1.0 / seen.variances,
        bend_prior=bend[0],
        bend_information=1.0 / bend[1] ** 2,
    )
    log_scales = np.array([k.log_scale for k in keyframes])
    return problem, State(rotations, positions, log_scales, points, np.array([bend[0]]))


def triangulated(seen: Sightings, rotations: Array, positions: Array, bend: float) -> Array:
    """Return (N, 3) landmarks (x, y, rho) in the camera that saw each first; rho may be NaN.

    rho is linear in the other sightings: least squares over them. It is NaN where they show nothing
    or put the landmark behind the camera.
    """
    track, n = seen.tracks, len(seen.ids)
    plane = seen.plane * (1.0 - bend * (seen.plane**2).sum(axis=1, keepdims=True))
    anchor_plane, anchors = plane[seen.first[:-1]], seen.anchors[track]
    rays = np.concatenate([anchor_plane, np.ones((n, 1))], axis=1)[track]
    back = np.swapaxes(rotations[seen.keyframes], 1, 2)
    turned = np.einsum("mij,mjk,mk->mi", back, rotations[anchors], rays)
    moved = np.einsum("mij,mj->mi", back, positions[anchors] - positions[seen.keyframes])
    # turned + rho * moved lies on the sighting's ray: two equations for rho.
    a = turned[:, :2] - plane * turned[:, 2:]
    b = moved[:, :2] - plane * moved[:, 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = -np.bincount(track, (a * b).sum(axis=1), n) / np.bincount(
            track, (b * b).sum(axis=1), n
        )
    rho = np.where(rho > 0.0, rho, np.nan)
    return np.concatenate([anchor_plane, rho[:, None]], axis=1)


def in_cameras(points: Array, rotations: Array, positions: Array) -> Array:
    """Return homogeneous points (n, 4) as (x, y, rho) in cameras (n, 3, 3), (n, 3).

    NaN where one lies behind its camera.
    """
    q = np.einsum("nji,nj->ni", rotations, points[:, :3] - points[:, 3:] * positions)
    ahead = np.where(q[:, 2:] > 0.0, q[:, 2:], np.nan)
    return np.asarray(np.concatenate([q[:, :2], points[:, 3:]], axis=1) / ahead)


def in_map(points: Array, rotations: Array, positions: Array) -> Array:
    """Return (n, 4) homogeneous points of (x, y, rho) in cameras; the inverse of `in_cameras`."""
    rays = np.concatenate([points[:, :2], np.ones((len(points), 1))], axis=1)
    xyz = np.einsum("nij,nj->ni", rotations, rays) + points[:, 2:] * positions
    return np.asarray(np.concatenate([xyz, points[:, 2:]], axis=1))


def carried_on(last: WindowKeyframe, keyframe_from_here: SE3) -> SE3:
    """Return map_from_camera where the live motion since a keyframe has led."""
    return last.map_from_camera @ at_scale(keyframe_from_here, float(np.exp(last.log_scale)))
