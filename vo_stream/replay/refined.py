"""What the adjuster made of a run: keyframes, landmarks, and the trajectory bent to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vo_stream.replay.alignment import FARTHEST_M, PoseStack, Similarity
from vo_stream.replay.trajectory import Trajectory
from vo_stream.se3 import SE3, Array
from vo_stream.values import Keyframe, Refinement, read_only

MAX_LANDMARKS = 20_000
"""Landmarks kept of a session, evenly chosen from all that were seen."""

MAX_LANDMARK_STD = 0.2
"""Standard deviation, as a part of the depth, up to which a landmark is worth showing."""

STRAIGHTNESS = 0.5
SHORTEST_SHARE = 0.1
"""The live way between two keyframes shows a ratio of lengths where their distance is at least this
part of the way walked, and this part of the median distance of the session's keyframes."""


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """One session as the adjuster sees it, in its frame `map`.

    `trajectory`: map_from_camera of every frame; `keyframes`: of those that were refined.
    `landmarks`: (n, 3) float32. `metric`: whether the lengths are metres.
    """

    trajectory: Trajectory
    keyframes: Trajectory
    landmarks: npt.NDArray[np.float32]
    metric: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "landmarks", read_only(self.landmarks))


class RefinementLog:
    """Collects the refinements of a run. `count`: how many there were, solved or not.

    `unsolved`: how often a window could not be solved, by reason.
    """

    def __init__(self) -> None:
        self.count = 0
        self.unsolved: Counter[str] = Counter()
        self._maps: dict[int, dict[int, _Map]] = {}

    def add(self, refinement: Refinement) -> None:
        """Take in what the adjuster said; its newest word on a keyframe counts."""
        self.count += 1
        maps = self._maps.setdefault(refinement.session, {})
        maps.setdefault(refinement.map_stamp_ns, _Map()).add(refinement)
        if refinement.reason and len(refinement.keyframes) > 1:
            self.unsolved[refinement.reason] += 1

    def refined(self, live: Mapping[int, Trajectory]) -> dict[int, Refined]:
        """Return the sessions that have two keyframes or more.

        `live`: odom_from_camera of each session's frames.
        """
        refined = {}
        for session in live.keys() & self._maps.keys():
            there = _joined([*self._maps[session].values()], live[session])
            keyframes = there.keyframes_among(live[session].stamps_ns)
            if len(keyframes) >= 2:
                bent = bend(live[session], keyframes)
                refined[session] = Refined(bent, keyframes, there.landmarks.points, there.metric)
        return dict(sorted(refined.items()))


def bend(live: Trajectory, keyframes: Trajectory) -> Trajectory:
    """Return map_from_camera of every live frame, through all of the keyframes.

    From a keyframe on goes the live motion, its length multiplied by the ratio of the refined and
    the live distance to the next keyframe; the error that is left there is spread evenly over the
    time between. Before the first and after the last keyframe there is none to spread. `keyframes`:
    two or more, at stamps of `live`.
    """
    poses = PoseStack.of(live.world_from_camera)
    knots = PoseStack.of(keyframes.world_from_camera)
    at = np.searchsorted(live.stamps_ns, keyframes.stamps_ns)
    first = np.arange(len(at) - 1)
    motions, refined_motions = poses.between(at[:-1], at[1:]), knots.between(first, first + 1)
    walked = np.diff(_along(poses)[at])
    ratios = _ratios(motions.distances, refined_motions.distances, walked)[:, None]
    errors = (motions.scaled(ratios).inverse() @ refined_motions).logs()

    frames = np.arange(len(live))
    after = np.searchsorted(at, frames, side="right")
    knot = np.maximum(after - 1, 0)
    piece = np.minimum(knot, len(first) - 1)
    since = (live.stamps_ns - keyframes.stamps_ns[piece]) / np.diff(keyframes.stamps_ns)[piece]
    share = np.where((after > 0) & (after < len(at)), since, 0.0)[:, None]
    moved = poses.between(at[knot], frames).scaled(ratios[piece])
    bent = knots[knot] @ moved @ PoseStack.exp(share * errors[piece])
    return Trajectory(live.stamps_ns, bent.motions())


def _ratios(live: Array, refined: Array, walked: Array) -> Array:
    """Return refined over live distance of each (n,) piece; its neighbour's where it shows none."""
    long_enough = np.maximum(STRAIGHTNESS * walked, SHORTEST_SHARE * np.median(live))
    shows = np.flatnonzero((live >= long_enough) & (live > 0.0) & (refined > 0.0))
    if not len(shows):
        return np.ones(len(live))
    nearest = np.searchsorted(shows, np.arange(len(live)), side="right") - 1
    return np.asarray((refined[shows] / live[shows])[np.maximum(nearest, 0)])


def _along(poses: PoseStack) -> Array:
    """(n,) length of the path up to each pose."""
    steps = np.linalg.norm(np.diff(poses.translations, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _joined(maps: Sequence[_Map], live: Trajectory) -> _Map:
    """Return a session's maps as one: each begins where the live motion left the one before.

    An adjuster that starts anew in the middle of a session knows nothing of the old map.
    """
    whole = _Map()
    for part in maps:
        start = part.keyframes_among(live.stamps_ns)
        if not len(start):
            continue
        before = whole.keyframes_among(live.stamps_ns)
        to_whole = Similarity(1.0, SE3.identity())
        if len(before) >= 2:
            at = int(np.searchsorted(live.stamps_ns, start.stamps_ns[0]))
            there = bend(live, before).world_from_camera[at]
            to_whole = Similarity(1.0, there @ start.world_from_camera[0].inverse())
        poses = to_whole.apply(PoseStack.of([*part.keyframes.values()]))
        whole.keyframes.update(zip(part.keyframes, poses.motions(), strict=True))
        whole.landmarks.add(to_whole.place(part.landmarks.points).astype(np.float32))
        whole.metric = part.metric and (whole.metric or len(before) < 2)
    return whole


class _Map:
    """What is known of one map while the run goes on."""

    def __init__(self) -> None:
        self.keyframes: dict[int, SE3] = {}
        self.landmarks = _Cloud()
        self.metric = False

    def add(self, refinement: Refinement) -> None:
        """Take in the window's keyframes and, where it was solved, its landmarks."""
        if refinement.metric and not self.metric:
            self._rescale(refinement.keyframes)
        self.metric = refinement.metric
        self.keyframes.update((k.stamp_ns, k.map_from_camera) for k in refinement.keyframes)
        if not refinement.reason:
            points = refinement.landmarks
            near = (np.abs(points) < FARTHEST_M).all(axis=1)  # neither inf nor nan is
            self.landmarks.add(points[near & (refinement.landmark_stds <= MAX_LANDMARK_STD)])

    def _rescale(self, window: Sequence[Keyframe]) -> None:
        """Bring all to the unit of a window in metres: what left it before is not sent again."""
        shared = [k for k in window if k.stamp_ns in self.keyframes]
        if len(shared) < 2:
            return
        first, last = (self.keyframes[k.stamp_ns] for k in (shared[0], shared[-1]))
        new_first, new_last = (k.map_from_camera for k in (shared[0], shared[-1]))
        length = float(np.linalg.norm((first.inverse() @ last).translation))
        new_length = float(np.linalg.norm((new_first.inverse() @ new_last).translation))
        if length == 0.0 or new_length == 0.0:
            return
        scale = new_length / length
        first_in_metres = SE3(first.wxyz_xyz * [1.0, 1.0, 1.0, 1.0, scale, scale, scale])
        self.move(Similarity(scale, new_first @ first_in_metres.inverse()))

    def move(self, by: Similarity) -> None:
        """Move the whole map."""
        poses = by.apply(PoseStack.of([*self.keyframes.values()]))
        self.keyframes = dict(zip(self.keyframes, poses.motions(), strict=True))
        self.landmarks.move(by)

    def keyframes_among(self, stamps_ns: npt.NDArray[np.int64]) -> Trajectory:
        """Return the keyframes at these stamps, in order."""
        known = sorted(self.keyframes.keys() & set(stamps_ns.tolist()))
        return Trajectory(np.array(known, dtype=np.int64), tuple(self.keyframes[s] for s in known))


class _Cloud:
    """At most `MAX_LANDMARKS` points, every `step`-th of all that came."""

    def __init__(self) -> None:
        self._kept: list[npt.NDArray[np.float32]] = []
        self._count = self._seen = 0
        self._step = 1

    @property
    def points(self) -> npt.NDArray[np.float32]:
        """(n, 3) points, oldest first."""
        return np.concatenate([np.empty((0, 3), dtype=np.float32), *self._kept])

    def move(self, similarity: Similarity) -> None:
        """Lay all points so far elsewhere."""
        self._kept = [similarity.place(points).astype(np.float32) for points in self._kept]

    def add(self, points: npt.NDArray[np.float32]) -> None:
        """Take in (n, 3) points; where they are too many, every second of all is dropped."""
        kept = points[-self._seen % self._step :: self._step]
        self._seen += len(points)
        self._kept.append(kept.copy())
        self._count += len(kept)
        while self._count > MAX_LANDMARKS:
            self._kept = [self.points[::2]]
            self._count = len(self._kept[0])
            self._step *= 2
