"""The heart: from one frame to the next pose."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vo_stream.camera import CameraModel, Rectifier
from vo_stream.config import ScaleConfig, TrackConfig
from vo_stream.errors import ConfigError
from vo_stream.net.stepnet import NetState, StepNet
from vo_stream.pose_error import PoseError
from vo_stream.se3 import SE3, Array
from vo_stream.track.bounds import bounded, fault_of
from vo_stream.track.scale import Scale
from vo_stream.track.stamps import StampCheck
from vo_stream.track.status import Tracking
from vo_stream.track.zero_motion import SETTLE_NS, Rest
from vo_stream.values import NANOSECONDS, Estimate, Frame, Motion, Refinement, Status

Image: TypeAlias = npt.NDArray[np.uint8]
Rays: TypeAlias = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)

FIRST_STD = 1e-3
"""Standard deviation of the first pose, metres and radians: it defines the frame, but a
covariance of zero is refused by filters."""

REST_STD = 1e-4
"""Standard deviation of a step at rest, metres and radians."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamState:
    """Everything that survives from frame to frame. Replaced whole, once a step.

    Fields as in `Estimate`; `error` is that of the pose, `net` the backend's memory, `rest` the
    picture that stillness is judged by, `scale` what the backend's lengths are multiplied by.
    """

    session: int
    stamp_ns: int
    camera: CameraModel
    odom_from_camera: SE3
    error: PoseError
    tracking: Tracking
    net: NetState
    rest: Rest
    scale: Scale


@dataclass(slots=True)
class StageTimes:
    """How long the last step took, in milliseconds."""

    rectify: float = 0.0
    net: float = 0.0
    step: float = 0.0


class Odometer:
    """Turns frames into estimates: `step` once for each, in order of arrival.

    A step is a transaction: whatever fails before its last line leaves the state as it was, so
    the next frame goes on from there. Bad input never raises: it comes back as a status.
    """

    def __init__(self, net: StepNet, config: TrackConfig, scale: ScaleConfig | None = None) -> None:
        self.times = StageTimes()
        self._net = net
        self._config = config
        self._state: StreamState | None = None
        self._sessions = 0
        self._rectifier: Rectifier | None = None
        self._last_refusal = ""
        self._stamps = StampCheck(config.max_backwards_s)
        self._first_scale = Scale.at_start(scale or ScaleConfig(), net.spec.metric)

    @property
    def state(self) -> StreamState | None:
        """The stream so far; None before the first frame and after a reset."""
        return self._state

    def reset(self) -> None:
        """Forget the stream; the next frame starts a new session at the origin."""
        self._state = None
        self._stamps = StampCheck(self._config.max_backwards_s)

    def clock_went_back(self) -> None:
        """Begin a new session with the next stamp that goes back, unless one began already."""
        if self._state is not None:
            self._stamps.clock_went_back()

    def reconfigure(self, config: TrackConfig) -> None:
        """Judge by other settings from the next frame on."""
        if config != self._config:
            self._config, self._stamps = config, StampCheck(config.max_backwards_s)

    def refine(self, refinement: Refinement) -> bool:
        """Let future motions have the adjuster's scale; return whether it was taken.

        Poses that were returned already never move, and the next one goes on from the last.
        """
        state = self._state
        if state is None or refinement.session != state.session:
            return False
        scale = state.scale.refined(refinement)
        self._state = replace(state, scale=scale)
        return scale is not state.scale

    def step(self, frame: Frame) -> Estimate:
        """Take in a frame and return the estimate of its pose.

        Exceptions are bugs, or a backend that broke (NetError); the state is then unchanged.
        """
        began = time.perf_counter()
        self.times = StageTimes()
        state = self._state
        refusal = self._refusal(frame, state) or self._prepare_rectifier(frame.camera)
        if refusal:
            return self._refused(frame, state, refusal)
        if state is None or self._stamps.turned_back(frame.stamp_ns, state.stamp_ns):
            following, estimate = self._begin(frame)
        elif self._interrupted(frame, state):
            following, estimate = self._resume(frame, state)
        else:
            following, estimate = self._advance(frame, state)
        if state and state.tracking.status is not estimate.status:
            logger.info("%s", f"{estimate.status.value}: {estimate.reason}".removesuffix(": "))
        self.times.step = _milliseconds_since(began)
        if state and following.session != state.session:
            self._stamps.restarted()
        self._sessions = following.session
        self._state = following
        return estimate

    def _refusal(self, frame: Frame, state: StreamState | None) -> str:
        """Return why the frame cannot be used; empty where it can."""
        if frame.image.ndim != 2 or frame.image.dtype != np.uint8:
            return f"the image is {frame.image.dtype} {frame.image.shape}, not uint8 grey"
        height, width = frame.image.shape
        if (width, height) != frame.camera.size:
            calibrated = "{}x{}".format(*frame.camera.size)
            return f"the image is {width}x{height}, its calibration is for {calibrated}"
        if state is not None:
            return self._stamps.refusal(frame.stamp_ns, state.stamp_ns)
        return ""

    def _prepare_rectifier(self, camera: CameraModel) -> str:
        """Keep the rectifier, or make one for a new camera; return why there can be none."""
        if self._rectifier is None or self._rectifier.source != camera:
            try:
                self._rectifier = Rectifier(camera, self._net.spec.input_size(camera.size))
            except ConfigError as error:
                return str(error)
        return ""

    def _interrupted(self, frame: Frame, state: StreamState) -> str:
        """Return why the backend must start anew; empty where it can go on."""
        gap_s = (frame.stamp_ns - state.stamp_ns) / NANOSECONDS
        if gap_s > self._config.max_gap_s:
            return "a gap"
        return "the camera's calibration changed" if frame.camera != state.camera else ""

    def _begin(self, frame: Frame) -> tuple[StreamState, Estimate]:
        """Start a session: this frame's optical frame is the origin of odom."""
        net, rest = self._start_net(frame, None)
        state = StreamState(
            session=self._sessions + 1,
            stamp_ns=frame.stamp_ns,
            camera=frame.camera,
            odom_from_camera=SE3.identity(),
            error=PoseError.of(FIRST_STD**2 * np.eye(6)),
            tracking=Tracking(),
            net=net,
            rest=rest,
            scale=self._first_scale,
        )
        reason = "first frame" if state.session == 1 else "a new session"
        return state, self._estimate(state, None, reason)

    def _resume(self, frame: Frame, state: StreamState) -> tuple[StreamState, Estimate]:
        """Go on from the old pose with a backend that starts anew."""
        reason = self._interrupted(frame, state)
        net, rest = self._start_net(frame, state.net)
        dt_s = (frame.stamp_ns - state.stamp_ns) / NANOSECONDS
        following = replace(
            state,
            stamp_ns=frame.stamp_ns,
            camera=frame.camera,
            error=replace(self._unseen(state, dt_s), lasting=np.zeros((6, 6))),
            tracking=Tracking(),
            net=net,
            rest=rest,
        )
        return following, self._estimate(following, None, f"started anew after {reason}")

    def _advance(self, frame: Frame, state: StreamState) -> tuple[StreamState, Estimate]:
        """Add the motion since the previous frame."""
        dt_s = (frame.stamp_ns - state.stamp_ns) / NANOSECONDS
        image, rays = self._rectified(frame)
        motion, net = self._timed_step(image, rays, dt_s, state.net)
        motion = motion and state.scale.applied_to(motion)
        fault = fault_of(motion, dt_s, self._config)
        if fault or motion is None:  # the backend's memory may be spoiled with it
            _, net = self._net.step(image, rays, 0.0, self._net.start())
            error = replace(state.error, lasting=np.zeros((6, 6)))
            state = replace(state, error=error, scale=state.scale.of_new_unit(self._first_scale))
            motion = Motion(SE3.identity(), self._blind_std(dt_s), observed=False, reason=fault)
        solved = motion
        motion, rest = self._gated(solved, frame.stamp_ns, image, state)
        tracking = state.tracking.after(dt_s, motion.observed, self._config.max_coast_s)
        following = replace(state, stamp_ns=frame.stamp_ns, tracking=tracking, net=net, rest=rest)
        if tracking.status is Status.LOST:
            following = replace(following, error=self._unseen(state, dt_s))
            return following, self._estimate(following, None, motion.reason)
        alike = self._net.spec.correlation
        if fault or motion is not solved:  # what lasts fades on, and nothing comes to it
            alike = replace(alike, share=(0.0,) * 6)
        following = replace(
            following,
            odom_from_camera=state.odom_from_camera @ motion.prev_from_curr,
            error=bounded(state.error.after(motion.prev_from_curr, motion.std, dt_s, alike)),
        )
        return following, self._estimate(following, motion, motion.reason)

    def _rectified(self, frame: Frame) -> tuple[Image, Rays]:
        assert self._rectifier is not None
        began = time.perf_counter()
        image = self._rectifier(frame.image)
        self.times.rectify = _milliseconds_since(began)
        return image, self._rectifier.rays

    def _timed_step(
        self, image: Image, rays: Rays, dt_s: float, state: NetState
    ) -> tuple[Motion | None, NetState]:
        began = time.perf_counter()
        result = self._net.step(image, rays, dt_s, state)
        self.times.net = _milliseconds_since(began)
        return result

    def _start_net(self, frame: Frame, after: NetState | None) -> tuple[NetState, Rest]:
        image, rays = self._rectified(frame)
        _, net = self._timed_step(image, rays, 0.0, self._net.start(after))
        return net, Rest.at(frame.stamp_ns, image)

    def _gated(
        self, motion: Motion, stamp_ns: int, image: Image, state: StreamState
    ) -> tuple[Motion, Rest]:
        """Let the picture decide whether there was a motion at all; return the rest to go on."""
        threshold = self._config.zero_motion_px
        if threshold > 0.0 and state.rest.holds(image, threshold):
            if stamp_ns - state.rest.stamp_ns >= SETTLE_NS:
                motion = Motion(SE3.identity(), np.full(6, REST_STD), reason="at rest")
            return motion, state.rest
        if threshold > 0.0 and state.stamp_ns - state.rest.stamp_ns >= SETTLE_NS:
            motion = self._after_rest(motion)
        return motion, Rest.at(stamp_ns, image)

    def _after_rest(self, motion: Motion) -> Motion:
        """Return the first motion after a rest, as uncertain as what the rest may have hidden."""
        assert self._rectifier is not None
        angle = self._config.zero_motion_px / min(
            self._rectifier.camera.fx, self._rectifier.camera.fy
        )
        hidden = np.concatenate([motion.std[:3], np.full(3, angle)])
        return replace(motion, std=np.hypot(motion.std, hidden))

    def _blind_std(self, dt_s: float) -> Array:
        """Return the (6,) standard deviation of a step of which nothing is known."""
        rates = np.repeat([self._config.lost_speed_m_s, self._config.lost_turn_rate_rad_s], 3)
        return np.asarray(FIRST_STD + rates * dt_s)

    def _unseen(self, state: StreamState, dt_s: float) -> PoseError:
        """Return the pose's error after `dt_s` seconds of which nothing is known.

        The unknown speed is taken as constant, so that the standard deviation grows with time.
        """
        blind_s = state.tracking.blind_s
        squares = (blind_s + dt_s) ** 2 - blind_s**2
        return bounded(state.error.plus(squares * np.diag(self._blind_std(1.0) ** 2)))

    def _estimate(self, state: StreamState, motion: Motion | None, reason: str) -> Estimate:
        return Estimate(
            stamp_ns=state.stamp_ns,
            status=state.tracking.status,
            odom_from_camera=state.odom_from_camera,
            covariance=state.error.covariance,
            metric=state.scale.metric,
            motion=motion,
            session=state.session,
            scale=state.scale.factor,
            reason=reason,
            if_independent=state.error.of_steps,
        )

    def _refused(self, frame: Frame, state: StreamState | None, reason: str) -> Estimate:
        """Answer a frame that changes nothing with the pose as it is."""
        if reason != self._last_refusal:  # one line for a thousand frames
            logger.warning("frame at %d ns refused: %s", frame.stamp_ns, reason)
            self._last_refusal = reason
        scale = state.scale if state else self._first_scale
        return Estimate(
            stamp_ns=frame.stamp_ns,
            status=state.tracking.status if state else Status.INITIALIZING,
            odom_from_camera=state.odom_from_camera if state else SE3.identity(),
            covariance=state.error.covariance if state else FIRST_STD**2 * np.eye(6),
            metric=scale.metric,
            motion=None,
            session=state.session if state else self._sessions + 1,
            scale=scale.factor,
            reason=reason,
            refused=True,
            if_independent=state.error.of_steps if state else None,
        )


def _milliseconds_since(began: float) -> float:
    return 1e3 * (time.perf_counter() - began)
