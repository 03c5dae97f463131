"""The values that travel between the rooms: frozen, with unit and frame in the docstring."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vo_stream.camera import CameraModel
from vo_stream.se3 import SE3, Array

NANOSECONDS = 1_000_000_000
"""In a second. Time is integer nanoseconds everywhere."""


class Status(Enum):
    """How far an estimate can be trusted. One state machine, in `track/status.py`, sets it."""

    INITIALIZING = "initializing"
    """The first frame of a stream or the first after a reset: there is no motion yet."""
    TRACKING = "tracking"
    """The pose follows the images."""
    DEGRADED = "degraded"
    """The images gave no motion for a moment: the pose coasts on the last one."""
    LOST = "lost"
    """The images have given no motion for too long: the pose is held, its covariance grows."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera image.

    `stamp_ns`: time of exposure in integer nanoseconds, never the time of arrival.
    `image`: (height, width) uint8 grey, read-only; whoever made it must not write to its buffer
    any more, since a backend may keep it. `camera`: the model that took it.
    `travelled_m`: how far the camera had come by then since some time before, as the robot's wheels
    say, in metres; nan where they say nothing. Only differences mean something, and a negative one
    says nothing either: something broke in between.
    """

    stamp_ns: int
    image: npt.NDArray[np.uint8]
    camera: CameraModel
    travelled_m: float = math.nan

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", read_only(self.image))


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """What a backend says of one step.

    `prev_from_curr`: motion of the camera since the previous frame, in the previous camera's
    optical frame (x right, y down, z forward); metres where the backend's spec says metric, else
    its own unit of length.
    `std`: (6,) standard deviations of its error twist (v in that unit, w in radians), in the
    current camera's frame: `true = prev_from_curr @ exp(error)`.
    `observed`: False where the images did not show the motion (dark, blank, no match); the motion
    is then a guess. `reason` says why, for the log; it is never parsed.
    """

    prev_from_curr: SE3
    std: Array
    observed: bool = True
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", read_only(np.asarray(self.std, dtype=np.float64)))

    @property
    def is_finite(self) -> bool:
        """Whether motion and standard deviations are finite numbers, the latter positive."""
        return self.prev_from_curr.is_finite and bool(
            np.isfinite(self.std).all() and (self.std > 0.0).all()
        )


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """The answer to one frame. Every frame gets exactly one.

    `odom_from_camera`: pose of the optical frame in `odom`, the optical frame of the stream's
    first frame. `covariance`: (6, 6) of that pose's error twist (v, w) in the camera frame
    (`true = estimate @ exp(error)`). `metric`: whether lengths are metres.
    `motion`: what was added to the pose; None where nothing was (a first frame, LOST, refused).
    `session`: counts the stream's restarts; poses of different sessions do not compare.
    `scale`: what the backend's own lengths were multiplied by in `motion` (1 unless a refinement or
    a setting said otherwise).
    `reason`: why the status is not TRACKING or the frame was refused; for the log, never parsed.
    `refused`: the frame could not be used; the state is as if it had not come.
    `if_independent`: (6, 6) what `covariance` would be were the errors of steps independent; None
    where it is the same.
    """

    stamp_ns: int
    status: Status
    odom_from_camera: SE3
    covariance: Array
    metric: bool
    motion: Motion | None
    session: int
    scale: float = 1.0
    reason: str = ""
    refused: bool = False
    if_independent: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "covariance", read_only(self.covariance))
        if self.if_independent is not None:
            object.__setattr__(self, "if_independent", read_only(self.if_independent))

    @property
    def covariance_of_steps(self) -> Array:
        """(6, 6) what `covariance` would be if the errors of steps were independent."""
        return self.covariance if self.if_independent is None else self.if_independent


@dataclass(frozen=True, slots=True, eq=False)
class Keyframe:
    """A frame whose pose the adjuster refines.

    `map_from_camera`: pose of its optical frame in `map`, in the map's unit of length.
    """

    stamp_ns: int
    map_from_camera: SE3


@dataclass(frozen=True, slots=True, eq=False)
class Refinement:
    """What the background adjuster says after a new keyframe.

    `session`: of the estimates it was made from. `stamp_ns`: of the newest keyframe.
    `map_stamp_ns`: of the map's first one; a session gets a new map when the adjuster starts anew.
    `map_from_odom`: where the live trajectory's frame lies in `map`, exact at that stamp; the
    first keyframe of a map has the same pose in both. `scale`: what the backend's own lengths
    must be multiplied by to be the map's, and `scale_std` the standard deviation of its logarithm,
    infinite where the window does not show it. `metric`: whether the map's lengths are metres;
    `scale_source`: what made them so, for people.
    `keyframes`: the window, oldest first. `landmarks`: (n, 3) float32 points in `map`, and
    `landmark_stds`: (n,) float32 their standard deviation along the ray, as a part of the depth.
    `reason`: why the window could not be solved; the poses are then the last good ones, carried on
    by the live motion. Empty where it was solved. For the log, never parsed.
    """

    session: int
    stamp_ns: int
    map_from_odom: SE3
    scale: float
    scale_std: float
    metric: bool
    scale_source: str
    keyframes: tuple[Keyframe, ...]
    landmarks: npt.NDArray[np.float32]
    landmark_stds: npt.NDArray[np.float32]
    map_stamp_ns: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "landmarks", read_only(self.landmarks))
        object.__setattr__(self, "landmark_stds", read_only(self.landmark_stds))


_Scalar = TypeVar("_Scalar", bound=np.generic)


def read_only(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """Return a view of `array` that refuses to be written to."""
    view = array[...]
    view.flags.writeable = False
    return view
