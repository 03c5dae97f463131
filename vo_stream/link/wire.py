"""The messages between a link and its adjuster: what each says, encoded beside decoded.

    hello       link to adjuster: a stream begins
    frame       link to adjuster: one frame and its estimate
    refinement  adjuster to link
    state       adjuster to link: what it is doing, and up to which frame it has come

A stream is one run of one link with one adjuster, named by a random number that every message
carries. It tells the messages of an earlier run apart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vo_stream.camera import CameraModel
from vo_stream.config import Config
from vo_stream.errors import ConfigError
from vo_stream.link.packet import MAX_TEXT, Packet, Part, WireError, pack, parse_json
from vo_stream.se3 import SE3, Array
from vo_stream.values import Estimate, Frame, Keyframe, Motion, Refinement, Status

MAX_LENGTH = 1e12
"""Metres or units of the backend: a larger coordinate is a broken one. Scales too."""
MAX_VARIANCE = MAX_LENGTH**2
MAX_LANDMARKS = 100_000
MAX_KEYFRAMES = 1000
MAX_SETTINGS = 2000
"""Characters."""
MAX_CAMERA_NUMBERS = 4 + 8
"""Focal lengths, principal point, and the coefficients of the longest distortion."""
UNIT_TOLERANCE = 1e-6
"""How far the norm of a quaternion may be from 1."""

COMPILING, READY = "compiling", "ready"


@dataclass(frozen=True, slots=True)
class Hello:
    """A stream begins; whoever hears it says its state."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameMessage:
    """One frame for the adjuster.

    `serial`: counts the frames of the stream from 1. `config`: the settings the adjuster must
    work with; only `adjust` and `scale` travel, the rest are defaults.
    """

    serial: int
    frame: Frame
    estimate: Estimate
    config: Config


@dataclass(frozen=True, slots=True)
class AdjusterState:
    """What the adjuster is doing: `COMPILING` or `READY`.

    `done`: serial of the last frame of the stream that it has worked off, with all before it.
    `faults`: how many messages it could not use.
    """

    state: str
    done: int = 0
    faults: int = 0


Message: TypeAlias = Hello | FrameMessage | Refinement | AdjusterState


def decode(parts: Sequence[Part]) -> tuple[int, Message]:
    """Return (stream, message); raises WireError. The image is a view of its part."""
    packet = Packet(parts)
    if packet.kind == "hello":
        return packet.stream, Hello()
    if packet.kind == "frame":
        return packet.stream, _frame(packet)
    if packet.kind == "refinement":
        return packet.stream, _refinement(packet)
    if packet.kind == "state":
        return packet.stream, _state(packet)
    raise WireError(f"a message of unknown kind {packet.kind!r:.40}")


def encode_hello(stream: int) -> list[Part]:
    """Return the parts of a greeting."""
    return pack("hello", stream, {}, {})


def encode_state(stream: int, state: AdjusterState) -> list[Part]:
    """Return the parts of a state."""
    return pack("state", stream, asdict(state), {})


def _state(packet: Packet) -> AdjusterState:
    state = packet.text("state")
    if state not in (COMPILING, READY):
        raise WireError(f"unknown state {state!r:.40}")
    return AdjusterState(state, packet.integer("done", 0), packet.integer("faults", 0))


def encode_settings(config: Config) -> str:
    """Return the settings that an adjuster needs, as every frame carries them."""
    return json.dumps({"adjust": asdict(config.adjust), "scale": asdict(config.scale)})


@lru_cache(maxsize=8)
def decode_settings(text: str) -> Config:
    """Return the settings in a text of `encode_settings`; equal texts give the same object."""
    tree = parse_json(text)
    if not isinstance(tree, dict) or set(tree) != {"adjust", "scale"}:
        raise WireError("settings of other sections than adjust and scale")
    if not all(isinstance(section, dict) for section in tree.values()):
        raise WireError("a section of the settings is no object")
    try:
        return Config().replaced(tree)
    except ConfigError as error:
        raise WireError(f"{error!s:.200}") from None


def encode_frame(
    stream: int, serial: int, settings: str, frame: Frame, estimate: Estimate
) -> list[Part]:
    """Return the parts of a frame; raises WireError for one that cannot be used there.

    The image is not copied unless its rows lie apart. `settings`: of `encode_settings`.
    """
    camera, image, motion = frame.camera, frame.image, estimate.motion
    if image.dtype != np.uint8 or image.shape != (camera.height, camera.width):
        raise WireError(f"an image {image.dtype} {image.shape} for a camera of {camera.size}")
    finite = estimate.odom_from_camera.is_finite and np.isfinite(estimate.covariance_of_steps).all()
    if not finite or not (motion is None or motion.is_finite):
        raise WireError("an estimate that is not finite")
    fields: dict[str, object] = {
        "serial": serial,
        "settings": settings,
        "stamp": int(frame.stamp_ns),
        "camera": [camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion],
        "distortion": camera.distortion_model,
        "estimate_stamp": int(estimate.stamp_ns),
        "status": estimate.status.value,
        "metric": estimate.metric,
        "session": estimate.session,
        "refused": estimate.refused,
        "reason": _sendable(estimate.reason),
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        "image": image,
        "pose": estimate.odom_from_camera.wxyz_xyz,
        "covariance": estimate.covariance_of_steps,  # the adjuster asks for no other
        "scale": np.array([estimate.scale]),
        "travelled": np.array([_travelled(frame.travelled_m)]),
    }
    if motion:
        fields["observed"] = motion.observed
        fields["motion_reason"] = _sendable(motion.reason)
        arrays["motion"] = motion.prev_from_curr.wxyz_xyz
        arrays["motion_std"] = motion.std
    return pack("frame", stream, fields, arrays)


def _frame(packet: Packet) -> FrameMessage:
    image = packet.array("image", "|u1", None, None)
    travelled_m = _travelled(float(packet.array("travelled", "<f8", 1)[0]))
    frame = Frame(packet.integer("stamp"), image, _camera(packet, image), travelled_m)
    motion = None
    if packet.has_array("motion"):
        motion = Motion(
            prev_from_curr=_pose(packet, "motion"),
            std=_positive(packet, "motion_std", 6),
            observed=packet.flag("observed"),
            reason=packet.text("motion_reason"),
        )
    estimate = Estimate(
        stamp_ns=packet.integer("estimate_stamp"),
        status=_status(packet),
        odom_from_camera=_pose(packet, "pose"),
        covariance=_covariance(packet),
        metric=packet.flag("metric"),
        motion=motion,
        session=packet.integer("session", 0),
        scale=float(_positive(packet, "scale", 1)[0]),
        reason=packet.text("reason"),
        refused=packet.flag("refused"),
    )
    config = decode_settings(packet.text("settings", MAX_SETTINGS))
    return FrameMessage(packet.integer("serial", 1), frame, estimate, config)


def _camera(packet: Packet, image: npt.NDArray[np.uint8]) -> CameraModel:
    numbers = packet.numbers("camera", MAX_CAMERA_NUMBERS)
    if len(numbers) < 4:
        raise WireError(f"a camera of {len(numbers)} numbers")
    height, width = image.shape
    fx, fy, cx, cy, *distortion = numbers
    try:
        model = packet.text("distortion")
        return CameraModel(width, height, fx, fy, cx, cy, model, tuple(distortion))
    except ConfigError as error:
        raise WireError(f"{error!s:.200}") from None


def _travelled(metres: float) -> float:
    if abs(metres) > MAX_LENGTH:  # nan is not, and means unknown
        raise WireError(f"a distance of {metres} m")
    return metres


def _status(packet: Packet) -> Status:
    try:
        return Status(packet.text("status"))
    except ValueError as error:
        raise WireError(f"{error!s:.200}") from None


def encode_refinement(stream: int, refinement: Refinement) -> list[Part]:
    """Return the parts of a refinement."""
    keyframes = refinement.keyframes
    poses = [keyframe.map_from_camera.wxyz_xyz for keyframe in keyframes]
    fields = {
        "session": refinement.session,
        "map_stamp_ns": refinement.map_stamp_ns,
        "stamp": int(refinement.stamp_ns),
        "metric": refinement.metric,
        "scale_source": _sendable(refinement.scale_source),
        "reason": _sendable(refinement.reason),
    }
    arrays = {
        "map_from_odom": refinement.map_from_odom.wxyz_xyz,
        "scale": np.array([refinement.scale]),
        "scale_std": np.array([refinement.scale_std]),
        "stamps": np.array([keyframe.stamp_ns for keyframe in keyframes], dtype=np.int64),
        "poses": np.array(poses).reshape(-1, 7),
        "landmarks": refinement.landmarks,
        "landmark_stds": refinement.landmark_stds,
    }
    return pack("refinement", stream, fields, arrays)


def _refinement(packet: Packet) -> Refinement:
    stamps = packet.array("stamps", "<i8", None)
    poses = packet.finite("poses", len(stamps), 7, largest=MAX_LENGTH)
    landmarks = packet.array("landmarks", "<f4", None, 3)
    if len(stamps) > MAX_KEYFRAMES or len(landmarks) > MAX_LANDMARKS:
        raise WireError(f"{len(stamps)} keyframes, {len(landmarks)} landmarks")
    if not np.isfinite(landmarks).all():
        raise WireError("a landmark that is not finite")
    scale_std = packet.array("scale_std", "<f8", 1)
    landmark_stds = packet.array("landmark_stds", "<f4", len(landmarks))
    for stds in (scale_std, landmark_stds):  # infinite means not known
        if not (stds >= 0.0).all():
            raise WireError("a standard deviation that is negative or no number")
    return Refinement(
        session=packet.integer("session", 0),
        stamp_ns=packet.integer("stamp"),
        map_from_odom=_pose(packet, "map_from_odom"),
        scale=float(_positive(packet, "scale", 1)[0]),
        scale_std=float(scale_std[0]),
        metric=packet.flag("metric"),
        scale_source=packet.text("scale_source"),
        keyframes=tuple(
            Keyframe(int(stamp), _se3(pose)) for stamp, pose in zip(stamps, poses, strict=True)
        ),
        landmarks=landmarks,
        landmark_stds=landmark_stds,
        map_stamp_ns=packet.integer("map_stamp_ns"),
        reason=packet.text("reason"),
    )


def _sendable(text: str) -> str:
    """Return a text as the other side accepts it."""
    return text[:MAX_TEXT].encode(errors="replace").decode()


def _pose(packet: Packet, name: str) -> SE3:
    return _se3(packet.finite(name, 7, largest=MAX_LENGTH))


def _se3(wxyz_xyz: Array) -> SE3:
    if not abs(float(np.linalg.norm(wxyz_xyz[:4])) - 1.0) <= UNIT_TOLERANCE:
        raise WireError("a quaternion that is no rotation")
    return SE3(wxyz_xyz)


def _positive(packet: Packet, name: str, count: int) -> Array:
    values = packet.finite(name, count, largest=MAX_LENGTH)
    if not (values > 0.0).all():
        raise WireError(f"{name} is not positive")
    return values


def _covariance(packet: Packet) -> Array:
    covariance = packet.finite("covariance", 6, 6, largest=MAX_VARIANCE)
    if not (np.diag(covariance) >= 0.0).all():
        raise WireError("a variance that is negative")
    return covariance
