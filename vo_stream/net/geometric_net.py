"""The classical backend: tracked corners, the essential matrix, and landmarks that carry scale.

It knows no metres: its unit of length makes the first scene's median depth `FIRST_DEPTH`. It is
the baseline that a learned backend must beat, and what runs where none suits.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from vo_stream.config import GeometricConfig
from vo_stream.corners import CornerTracker, Image, Pixels, detect
from vo_stream.net.landmarks import Landmarks
from vo_stream.net.motion_solver import (
    MIN_PARALLAX_PX,
    MIN_SCALE_INFORMATION,
    MIN_SUPPORT,
    Matches,
    is_contradicted,
    parallax_px,
    scale_information,
    solve_motion,
    supported_by,
)
from vo_stream.net.ray_grid import RayGrid
from vo_stream.net.stepnet import NetSpec, NetState
from vo_stream.net.two_view import MIN_POINTS, essential_motion, rotation_between
from vo_stream.net.uncertainty import FIRST_NOISE_PX, common_std, learned_noise_px, motion_std
from vo_stream.se3 import SE3
from vo_stream.values import Motion

FIRST_DEPTH = 10.0
"""Median depth of the first scene: this fixes the backend's unit of length."""

DRIFT_PER_FRAME = 0.1
"""Growth of a corner's variance with each frame it has been followed, as a part of it."""

FORGET = 0.9
"""Share of what is known of a landmark's depth that still holds a frame later."""

DEPTH_MAX_STD = 1.0
"""Landmarks whose depth is known to this part of it tell the scene's median depth."""

BLIND_DEPTH_STD = 0.01
BLIND_ANGLE_STD_RAD = 0.01
"""Least standard deviations of a guessed motion: parts of the median depth, and radians."""

LONGEST_PREDICTION = 3.0
"""A motion is predicted to go on for at most this many of its own durations."""

MIN_MATCHED = 0.5
"""With a smaller share of corners matched the prediction was no help, or the view is new."""

REFILL = 0.75
"""New corners are looked for when this share of the last lot is left."""

KEEP_IMAGE_S = 0.3
"""How long the last good image is kept for matching while new ones show nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class GeometricState:
    """All that the backend remembers of a stream.

    `image`: the last good one, with the `pixels` (n, 2) of its `landmarks`; `refilled`: how many
    there were after the last search for corners.
    `camera_from_reported`: where the odometer has been told the camera is, since.
    `prev_from_curr`, `dt_s`: the last motion. `age_s`: time since the image. `depth`: median
    depth of the scene. `noise_px`: standard deviation of a tracked corner. `doubts`: in how many
    frames on end the landmarks were contradicted. `has_scale`: a unit of length was chosen.
    """

    image: Image | None = None
    pixels: Pixels = field(default_factory=lambda: np.empty((0, 2), dtype=np.float32))
    landmarks: Landmarks = field(default_factory=Landmarks.empty)
    refilled: int = 0
    camera_from_reported: SE3 = field(default_factory=SE3.identity)
    prev_from_curr: SE3 = field(default_factory=SE3.identity)
    dt_s: float = 0.0
    age_s: float = 0.0
    depth: float = FIRST_DEPTH
    noise_px: float = FIRST_NOISE_PX
    doubts: int = 0
    has_scale: bool = False


class GeometricNet:
    """StepNet from two-view geometry and landmarks; stateless itself, see `GeometricState`."""

    def __init__(self, config: GeometricConfig) -> None:
        self.spec = NetSpec("geometric", metric=False, max_pixels=config.max_pixels)
        self._config = config
        self._tracker = CornerTracker(config.window_px, config.levels, config.forward_backward_px)

    def start(self, after: NetState | None = None) -> GeometricState:
        """Return the state before the first frame; the scene's depth outlives an interruption."""
        if after is None:
            return GeometricState()
        assert isinstance(after, GeometricState)
        return GeometricState(depth=after.depth, noise_px=after.noise_px, has_scale=after.has_scale)

    def close(self) -> None:
        """Nothing to free."""

    def step(
        self,
        image: Image,
        rays: npt.NDArray[np.float32],
        dt_s: float,
        state: NetState,
    ) -> tuple[Motion | None, GeometricState]:
        """See StepNet.step."""
        assert isinstance(state, GeometricState)
        grid = RayGrid.of(rays)
        if state.image is None:
            return None, self._refill(replace(state, image=image), grid)
        state = replace(state, age_s=state.age_s + dt_s)
        predicted = _predict(state, dt_s)
        matches = self._match(image, grid, state, predicted)
        if matches is None:
            return self._blind(image, grid, dt_s, state, predicted, "too few corners match")
        solution = solve_motion(matches, predicted, state.depth, state.doubts)
        if solution is None:
            motion = self._rotation_only(matches, grid, state)
        else:
            support = supported_by(solution, matches)
            if support.mean() < MIN_SUPPORT or support.sum() < MIN_POINTS:
                reason = "the corners agree on no motion"
                return self._blind(image, grid, dt_s, state, predicted, reason)
            restarted = solution.new_scale and state.has_scale  # the first scale is the unit
            std = motion_std(solution, state.depth, grid.pixel, restarted)
            seen = state.camera_from_reported.inverse() @ solution.curr_from_prev.inverse()
            motion = Motion(seen, std, reason="scale started anew" if restarted else "")
            doubted = is_contradicted(solution, matches)
            state = replace(
                state,
                doubts=state.doubts + 1 if doubted else 0,
                has_scale=True,
                noise_px=learned_noise_px(state.noise_px, solution, support),
            )
            matches = replace(
                matches, pixels=matches.pixels[support], landmarks=solution.landmarks[support]
            )
        if len(matches.pixels) >= MIN_MATCHED * len(state.pixels) and (
            solution is None or parallax_px(matches, solution) < MIN_PARALLAX_PX
        ):
            return motion, _waiting(state, motion, dt_s)
        return motion, self._next(image, grid, dt_s, state, matches, motion)

    def _match(
        self, image: Image, grid: RayGrid, state: GeometricState, predicted: SE3
    ) -> Matches | None:
        """Follow the corners and keep those that one rigid motion explains."""
        assert state.image is not None
        guess = _expected_pixels(state, predicted, grid)
        pixels, good, noise_px = self._tracker.track(state.image, image, state.pixels, guess)
        if good.sum() < MIN_MATCHED * len(good):  # start where they were
            again = self._tracker.track(state.image, image, state.pixels)
            better = again[1] & ~good
            pixels[better], noise_px[better] = again[0][better], again[2][better]
            good |= better
        prev, curr = grid.plane(state.pixels[good]), grid.plane(pixels[good])
        two_view = essential_motion(
            prev,
            curr,
            self._config.epipolar_px * grid.pixel,
            self._config.solver,
            self._config.seed,
        )
        if two_view is None:
            return None
        keep = two_view.inliers
        landmarks = state.landmarks[good][keep]
        drift = 1.0 + DRIFT_PER_FRAME * landmarks.age
        noise = np.sqrt(state.noise_px**2 * drift + noise_px[good][keep] ** 2) * grid.pixel
        return Matches(
            pixels[good][keep],
            prev[keep],
            curr[keep],
            landmarks,
            noise,
            two_view,
            grid.pixel,
            self._config.epipolar_px,
        )

    def _rotation_only(self, matches: Matches, grid: RayGrid, state: GeometricState) -> Motion:
        """Return a turn without a step; the step's bound is what parallax there was."""
        rotation, parallax = rotation_between(matches.prev, matches.curr, grid.pixel)
        turn = SE3.from_rotation_translation(rotation.T, np.zeros(3))
        angle = float(np.median(parallax)) + state.noise_px * grid.pixel
        std = np.repeat([angle * state.depth, angle / np.sqrt(len(parallax))], 3)
        std = np.hypot(std, common_std(turn, state.depth, grid.pixel))
        return Motion(state.camera_from_reported.inverse() @ turn, std)

    def _next(
        self,
        image: Image,
        grid: RayGrid,
        dt_s: float,
        state: GeometricState,
        matches: Matches,
        motion: Motion,
    ) -> GeometricState:
        """Return the state after a motion that was seen."""
        image_from_camera = state.camera_from_reported @ motion.prev_from_curr
        landmarks = replace(
            matches.landmarks.moved(image_from_camera.inverse()),
            information=matches.landmarks.information * FORGET,
            age=matches.landmarks.age + 1,
        )
        depth = state.depth
        known = landmarks.relative_std < DEPTH_MAX_STD
        if known.any() and scale_information(landmarks) >= MIN_SCALE_INFORMATION:
            depth = float(np.median(landmarks.points()[known, 2] / landmarks.inverse_depth[known]))
        following = replace(
            state,
            image=image,
            pixels=matches.pixels,
            landmarks=landmarks,
            camera_from_reported=SE3.identity(),
            prev_from_curr=motion.prev_from_curr,
            dt_s=dt_s,
            age_s=0.0,
            depth=depth if np.isfinite(depth) and depth > 0.0 else state.depth,
        )
        return self._refill(following, grid)

    def _blind(
        self,
        image: Image,
        grid: RayGrid,
        dt_s: float,
        state: GeometricState,
        predicted: SE3,
        reason: str,
    ) -> tuple[Motion, GeometricState]:
        """Guess that the motion went on; wait for a better image before starting over."""
        guess = state.camera_from_reported.inverse() @ predicted
        length = float(np.linalg.norm(guess.translation)) + BLIND_DEPTH_STD * state.depth
        std = np.concatenate([np.full(3, length), np.full(3, guess.angle + BLIND_ANGLE_STD_RAD)])
        motion = Motion(guess, std, observed=False, reason=reason)
        waiting = replace(state, camera_from_reported=predicted, prev_from_curr=guess, dt_s=dt_s)
        if state.age_s <= KEEP_IMAGE_S:
            return motion, waiting
        fresh = GeometricState(
            image=image,
            prev_from_curr=guess,
            dt_s=dt_s,
            depth=state.depth,
            noise_px=state.noise_px,
            has_scale=state.has_scale,
        )
        return motion, self._refill(fresh, grid)

    def _refill(self, state: GeometricState, grid: RayGrid) -> GeometricState:
        """Look for new corners where too few are left."""
        assert state.image is not None
        if len(state.pixels) >= REFILL * state.refilled and state.refilled >= MIN_POINTS:
            return state
        border = self._config.window_px // 2 + 1
        found = detect(state.image, self._config.corners, state.pixels, border)
        fresh = Landmarks.first_seen(grid.plane(found), 1.0 / state.depth)
        return replace(
            state,
            pixels=np.concatenate([state.pixels, found]),
            landmarks=state.landmarks.joined(fresh),
            refilled=len(state.pixels) + len(found),
        )


def _waiting(state: GeometricState, motion: Motion, dt_s: float) -> GeometricState:
    """Return the state after a motion too small for its image to tell anything of depths.

    The old image stays, so that slow motion adds up to parallax over several frames, and the
    errors of each do not.
    """
    return replace(
        state,
        camera_from_reported=state.camera_from_reported @ motion.prev_from_curr,
        prev_from_curr=motion.prev_from_curr,
        dt_s=dt_s,
        age_s=0.0,
    )


def _predict(state: GeometricState, dt_s: float) -> SE3:
    """Return image_from_camera if the camera goes on as it did."""
    if state.dt_s <= 0.0:
        return state.camera_from_reported
    steps = min(
        LONGEST_PREDICTION, dt_s / state.dt_s
    )  # a longer wait says little of the motion in it
    return state.camera_from_reported @ SE3.exp(steps * state.prev_from_curr.log())


def _expected_pixels(state: GeometricState, predicted: SE3, grid: RayGrid) -> Pixels:
    """Return where the corners should be in the new image; where they were if that is outside."""
    assert state.image is not None
    height, width = state.image.shape
    p = state.landmarks.moved(predicted.inverse()).points()
    in_front = p[:, 2] > 0.0
    plane = p[:, :2] / np.where(in_front, p[:, 2], 1.0)[:, None]
    pixels = plane * grid.focal + grid.centre
    inside = (pixels >= 0).all(axis=1) & (pixels <= [width - 1, height - 1]).all(axis=1)
    return np.where((in_front & inside)[:, None], pixels, state.pixels).astype(np.float32)
