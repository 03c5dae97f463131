"""The background half: from frames and live estimates to refined keyframes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vo_stream.adjust.bend import Bend
from vo_stream.adjust.ground_plane import NoGround, height_above_ground
from vo_stream.adjust.keyframes import FEWEST_SHARED, is_due, parallax_rad
from vo_stream.adjust.live_motion import LiveMotion, at_scale, step_between
from vo_stream.adjust.metric_scale import METRIC_LIVE_STD, MetricScale
from vo_stream.adjust.road_view import compile_ground
from vo_stream.adjust.solver import Solution, State, compile_solver, solve
from vo_stream.adjust.tracks import Mask, Tracks, plane_of
from vo_stream.adjust.wheel_scale import wheel_scale
from vo_stream.adjust.window import (
    Landmarks,
    Sightings,
    WindowKeyframe,
    carried_on,
    in_map,
    window_problem,
)
from vo_stream.camera import Rectifier, reduced_size
from vo_stream.config import Config
from vo_stream.errors import ConfigError
from vo_stream.se3 import SE3
from vo_stream.values import NANOSECONDS, Estimate, Frame, Keyframe, Refinement

logger = logging.getLogger(__name__)

HELD = 8
"""Keyframes behind the window that stay as they are. Landmarks seen from them tie the window to the
map and carry its scale on."""

NOISE_PX = 0.25
"""Standard deviation of a sighting, beside what image noise gives it."""

OUTLIER_STDS = 8.0
"""A sighting further from its landmark is dropped, and its track with it."""

MANY_OUTLIERS = 0.1
"""With more than this part of outliers the window is solved again without them."""

FEWEST_LANDMARKS = 12
"""Fewer shared landmarks, or fewer whose depth shows, do not hold a window."""

MOST_OUTLIERS = 0.5
"""With more than this part of them the corners show no one scene."""

LEAST_KNOWN = 0.2
"""Part of the landmarks whose depth must show: noise alone makes a few look near."""

LOOSE_SCALE = 1.0
"""Change of the newest log scale in one solve from which on nothing held it."""

KNOWN_DEPTH = 0.5
"""Standard deviation of a depth, as a part of it, up to which it is known at all."""

GOOD_DEPTH = 0.3
"""And up to which a landmark is worth showing."""


def compile_adjuster(progress: Callable[[str], None] = lambda _: None) -> None:
    """Compile all that an Adjuster runs, or load what an earlier process compiled.

    `progress` is told what takes time: 15 s at the first start, then half a second.
    """
    compile_solver(progress)
    compile_ground()


class Adjuster:
    """Refines keyframes over a window: `add` every frame, then `solve`.

    It follows one stream. A new session, or another camera, starts a new map.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rectifier: Rectifier | None = None
        self._start(0)

    def _start(self, session: int) -> None:
        self._session = session
        self._tracks = Tracks(self._config.adjust.tracks)
        self._keyframes: list[WindowKeyframe] = []
        self._landmarks = Landmarks.empty()
        self._previous: Estimate | None = None
        self._since = LiveMotion.none()
        self._bend = Bend()
        self._metric = MetricScale()
        self._live_metres = False
        self._map_stamp_ns = 0
        self._unsolved = False

    def add(self, frame: Frame, estimate: Estimate) -> None:
        """Take in a frame and the live estimate of it; perhaps it becomes a keyframe."""
        if estimate.refused or not self._usable(frame, estimate):
            return
        assert self._rectifier is not None
        # Once is enough: a map that has lost its metres takes them from the estimates, too.
        self._live_metres |= estimate.metric and self._config.scale.source != "none"
        image, camera = self._rectifier(frame.image), self._rectifier.camera
        if self._previous is not None:
            step, last = step_between(self._previous, estimate), self._keyframes[-1]
            scale = math.exp(last.log_scale)
            here = carried_on(last, self._since.keyframe_from_here)
            self._tracks.follow(
                image,
                camera,
                at_scale(step.prev_from_curr, scale),
                step.std * np.repeat([scale, 1.0], 3),
                self._landmarks.inverse_depths(self._tracks.ids, here, KNOWN_DEPTH),
            )
            self._since = self._since.after(step)
        else:
            nowhere, nothing = np.full(6, math.inf), np.empty(0)
            self._tracks.follow(image, camera, SE3.identity(), nowhere, nothing)
        self._previous = estimate
        if self._is_due(frame.stamp_ns):
            self._add_keyframe(frame, estimate)

    def _usable(self, frame: Frame, estimate: Estimate) -> bool:
        """Make ready for a frame; say whether it can be used."""
        previous = self._previous
        if estimate.session != self._session:
            self._start(estimate.session)
        elif previous is not None and estimate.stamp_ns <= previous.stamp_ns:
            return False
        if not (
            estimate.odom_from_camera.is_finite and np.isfinite(estimate.covariance_of_steps).all()
        ):
            return False
        if self._rectifier is None or self._rectifier.source != frame.camera:
            size = reduced_size(frame.camera.size, self._config.adjust.max_pixels)
            try:
                self._rectifier = Rectifier(frame.camera, size)
            except ConfigError as error:
                logger.warning("%s", error)
                return False
            self._start(estimate.session)
        return True

    def _is_due(self, stamp_ns: int) -> bool:
        if not self._keyframes:
            return True
        assert self._rectifier is not None
        last = self._keyframes[-1]
        _, then, now = np.intersect1d(
            last.ids, self._tracks.ids, assume_unique=True, return_indices=True
        )
        plane = plane_of(self._tracks.pixels[now], self._rectifier.camera)
        parallax = parallax_rad(last.plane[then], plane, self._since.keyframe_from_here)
        wait_s = (stamp_ns - last.stamp_ns) / NANOSECONDS
        return is_due(last.ids, len(now), parallax, wait_s)

    def _add_keyframe(self, frame: Frame, estimate: Estimate) -> None:
        assert self._rectifier is not None
        self._tracks.polish()
        self._tracks.start_keyframe()
        if self._keyframes and len(self._tracks.ids) < FEWEST_SHARED:  # the image shows nothing
            return
        camera, odom = self._rectifier.camera, estimate.odom_from_camera
        noise = NOISE_PX**2 + self._tracks.noise_px**2
        last = self._keyframes[-1] if self._keyframes else None
        if last is None:  # a map begins, in the live odometry's unit
            self._map_stamp_ns = frame.stamp_ns
            self._metric = MetricScale.assumed() if self._live_metres else MetricScale()
        self._keyframes.append(
            WindowKeyframe(
                frame.stamp_ns,
                carried_on(last, self._since.keyframe_from_here) if last else odom,
                odom,
                self._since.keyframe_from_here,
                self._since.information,
                self._since.scale_variance,
                last.log_scale if last else math.log(estimate.scale),
                self._tracks.ids,
                plane_of(self._tracks.pixels, camera),
                noise / (camera.fx * camera.fy),
                self._tracks.image if self._config.scale.source == "camera_height" else None,
                frame.travelled_m,
            )
        )
        del self._keyframes[: -(self._config.adjust.window + HELD)]
        self._since = LiveMotion.none()
        self._unsolved = True

    def solve(self) -> Refinement | None:
        """Refine the window if there is a new keyframe; None where there is none."""
        if not self._unsolved:
            return None
        self._unsolved = False
        log_scale_std, reason = self._refine()
        if not reason:
            self._measure_metres()
        return self._refinement(log_scale_std, reason)

    def _refine(self) -> tuple[float, str]:
        """Solve the window; return how well the newest log scale is known, or why it is not.

        Where the window cannot be solved nothing changes.
        """
        keyframes = self._keyframes
        held = max(1, len(keyframes) - self._config.adjust.window)
        if len(keyframes) < 2:
            return math.inf, "the first keyframe"
        for last_try in (False, True):
            seen = Sightings.of(keyframes)
            if len(seen.ids) < FEWEST_LANDMARKS:
                return math.inf, "too few corners are shared"
            bend = (self._bend.value, self._bend.std)
            problem, start = window_problem(keyframes, seen, self._landmarks, held, bend)
            solution = solve(problem, start)
            if not solution.solved:
                return math.inf, "the window is singular"
            outliers = ~(solution.errors <= OUTLIER_STDS)
            if outliers.mean() > MOST_OUTLIERS:
                return math.inf, "the corners agree on no motion"
            if last_try or outliers.mean() <= MANY_OUTLIERS:
                break
            keyframes = _without_outliers(keyframes, seen, outliers)
        if reason := _why_not(solution, start, keyframes[-1].scale_variance):
            return math.inf, reason
        anchors, state = seen.anchors, solution.state
        points = in_map(state.points, start.rotations[anchors], start.positions[anchors])
        self._landmarks = Landmarks(seen.ids, points, solution.depth_stds)
        self._bend = self._bend.after(solution, self._config.adjust.window)
        self._tracks.drop(seen.ids[seen.tracks[outliers & (seen.keyframes == len(keyframes) - 1)]])
        keyframes = _without_outliers(keyframes, seen, outliers)
        for k in range(held, len(keyframes)):
            pose = SE3.from_rotation_translation(state.rotations[k], state.positions[k])
            log_scale = float(state.log_scales[k])
            keyframes[k] = replace(keyframes[k], map_from_camera=pose, log_scale=log_scale)
        self._keyframes = keyframes
        return solution.log_scale_std, ""

    def _measure_metres(self) -> None:
        """Let the source of the scale say how far the map's unit is from a metre, and mend it."""
        measured = self._metres()
        if measured is None:
            self._metric = self._metric.unmeasured()
            return
        self._metric = self._metric.measured(*measured)
        if self._metric.known:
            factor = math.exp(self._metric.log_error)
            centre = self._keyframes[0].map_from_camera.translation
            self._keyframes = [k.resized(centre, factor) for k in self._keyframes]
            self._landmarks = self._landmarks.resized(centre, factor)
            self._metric = self._metric.corrected()

    def _metres(self) -> tuple[float, float] | None:
        """Return the logarithm of metres over the map's unit and its deviation; None: unknown."""
        scale, last = self._config.scale, self._keyframes[-1]
        if scale.source == "camera_height":
            assert self._rectifier is not None
            plane = height_above_ground(
                self._rectifier.camera,
                [k.image for k in self._keyframes if k.image is not None],
                [k.map_from_camera for k in self._keyframes],
                *self._landmarks.finite(),
            )
            if isinstance(plane, NoGround):
                logger.debug("no ground: %s", plane.reason)
                return None
            return math.log(scale.camera_height_m / plane.height), plane.log_std
        if scale.source == "wheel":
            return wheel_scale(self._keyframes, self._landmarks.finite()[0], scale.wheel_std)
        if not self._live_metres:
            return None
        factor = scale.factor if scale.source == "fixed" else 1.0
        return math.log(factor) - last.log_scale, METRIC_LIVE_STD

    def _refinement(self, log_scale_std: float, reason: str) -> Refinement:
        last, metric = self._keyframes[-1], self._metric.known
        points, stds = self._landmarks.finite()
        good = stds < GOOD_DEPTH
        return Refinement(
            session=self._session,
            stamp_ns=last.stamp_ns,
            map_stamp_ns=self._map_stamp_ns,
            map_from_odom=last.map_from_camera @ last.odom_from_camera.inverse(),
            scale=math.exp(last.log_scale),
            scale_std=math.hypot(log_scale_std, self._metric.std) if metric else log_scale_std,
            metric=metric,
            scale_source=self._config.scale.source if metric else "",
            keyframes=tuple(Keyframe(k.stamp_ns, k.map_from_camera) for k in self._keyframes),
            landmarks=points[good].astype(np.float32),
            landmark_stds=stds[good].astype(np.float32),
            reason=reason,
        )


def _why_not(solution: Solution, start: State, scale_variance: float) -> str:
    """Return why a solved window says nothing; empty where it does."""
    known = (solution.depth_stds < KNOWN_DEPTH).sum()
    if known < max(FEWEST_LANDMARKS, LEAST_KNOWN * len(solution.depth_stds)):
        return "too little parallax"
    change = float(abs(solution.state.log_scales[-1] - start.log_scales[-1]))
    if change > LOOSE_SCALE + math.sqrt(scale_variance):
        return "nothing holds the scale"
    return ""


def _without_outliers(
    keyframes: list[WindowKeyframe], seen: Sightings, outliers: Mask
) -> list[WindowKeyframe]:
    """Return the keyframes as if they had not seen what turned out to be wrong."""
    wrong = [seen.ids[seen.tracks[outliers & (seen.keyframes == k)]] for k in range(len(keyframes))]
    return [k.without(ids) for k, ids in zip(keyframes, wrong, strict=True)]
