"""Trajectories: stamped camera poses, and the TUM text format they are kept in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vo_stream.errors import SourceError
from vo_stream.se3 import SE3
from vo_stream.values import NANOSECONDS, read_only

MAX_INTERPOLATION_GAP_NS = 100_000_000
"""Ground truth is interpolated between samples at most this far apart."""

SAME_TIME_NS = 1_000
"""Stamps this close are one instant (TUM files round to a microsecond)."""

MAX_STAMP_S = 9e9
"""Stamps are 64-bit nanoseconds: they end in the year 2255."""


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Poses over time: `stamps_ns` (n,) int64, strictly increasing, and `world_from_camera`.

    The camera frame is the optical one (x right, y down, z forward); lengths in metres unless
    the estimator that made it is not metric.
    """

    stamps_ns: npt.NDArray[np.int64]
    world_from_camera: tuple[SE3, ...]

    def __post_init__(self) -> None:
        stamps = np.asarray(self.stamps_ns, dtype=np.int64)
        if stamps.shape != (len(self.world_from_camera),):
            raise ValueError("a trajectory has one stamp for each pose")
        if (np.diff(stamps) <= 0).any():
            raise ValueError("a trajectory's stamps increase strictly")
        object.__setattr__(self, "stamps_ns", read_only(stamps))

    @staticmethod
    def from_unsorted(stamps_ns: Sequence[int], poses: Sequence[SE3]) -> Trajectory:
        """Sort by time; of equal stamps the first is kept."""
        stamps, first = np.unique(np.asarray(stamps_ns, dtype=np.int64), return_index=True)
        return Trajectory(stamps, tuple(poses[i] for i in first))

    def __len__(self) -> int:
        """Return the number of poses."""
        return len(self.world_from_camera)

    def at(self, stamp_ns: int) -> SE3 | None:
        """Return the pose at an instant, interpolated over short gaps; None where there is none."""
        after = int(np.searchsorted(self.stamps_ns, stamp_ns))
        for i in (after - 1, after):
            if 0 <= i < len(self) and abs(int(self.stamps_ns[i]) - stamp_ns) <= SAME_TIME_NS:
                return self.world_from_camera[i]
        if not 0 < after < len(self):
            return None
        t0, t1 = int(self.stamps_ns[after - 1]), int(self.stamps_ns[after])
        if t1 - t0 > MAX_INTERPOLATION_GAP_NS:
            return None
        before = self.world_from_camera[after - 1]
        return before.interpolate(self.world_from_camera[after], (stamp_ns - t0) / (t1 - t0))


def parse_stamp_ns(text: str) -> int:
    """Read seconds as written ("1305031102.175304") into integer nanoseconds, exactly.

    Raises ValueError where the text is no finite number.
    """
    whole, _, fraction = text.strip().partition(".")
    seconds = float(text)
    if not abs(seconds) < MAX_STAMP_S:
        raise ValueError(f"{text!r} is no time in seconds")
    if whole.isdecimal() and (fraction.isdecimal() or not fraction):
        return int(whole) * NANOSECONDS + int(fraction[:9].ljust(9, "0"))
    return round(seconds * NANOSECONDS)


def format_tum(stamp_ns: int, pose: SE3) -> str:
    """Return one line of a TUM file: seconds, xyz, quaternion xyzw."""
    sign, magnitude = ("-", -stamp_ns) if stamp_ns < 0 else ("", stamp_ns)
    seconds = f"{sign}{magnitude // NANOSECONDS}.{magnitude % NANOSECONDS:09d}"
    numbers = " ".join(f"{x:.9g}" for x in (*pose.translation, *pose.quaternion_xyzw))
    return f"{seconds} {numbers}\n"


def tum_text(trajectory: Trajectory, about: str) -> str:
    """Return a trajectory as a TUM file; `about` is for its first line."""
    lines = map(format_tum, trajectory.stamps_ns.tolist(), trajectory.world_from_camera)
    return f"# timestamp tx ty tz qx qy qz qw, {about}\n" + "".join(lines)


def read_tum(path: Path) -> Trajectory:
    """Read `timestamp tx ty tz qx qy qz qw` lines; raises SourceError naming file and line."""
    stamps: list[int] = []
    poses: list[SE3] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "") or error
        raise SourceError(f"{path}: cannot be read as a TUM trajectory ({why})") from None
    for number, line in enumerate(lines, start=1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            stamp = parse_stamp_ns(words[0])
            values = [float(w) for w in words[1:8]]
            pose = SE3.from_quaternion_xyzw(values[3:7], values[:3])
        except ValueError:
            pose = None
        if pose is None or not pose.is_finite:
            raise SourceError(
                f"{path}:{number}: expected 'timestamp tx ty tz qx qy qz qw', got {line[:60]!r}"
            )
        stamps.append(stamp)
        poses.append(pose)
    if not poses:
        raise SourceError(f"{path}: holds no pose")
    return Trajectory.from_unsorted(stamps, poses)
