"""Wheel odometry as messages, asked for the distance at an image's stamp."""

from __future__ import annotations

from threading import Lock
from typing import Any

from vo_stream.messages import stamp_ns_of
from vo_stream.se3 import SE3
from vo_stream.travelled import TravelledDistance, camera_speed_of


class WheelDistance:
    """How far the camera has come, by messages of the robot's speed.

    The executor's thread adds, the worker's thread asks; a lock keeps them apart, for some
    microseconds each. `base_from_camera`: None while it is not known; it may be set at any time.
    """

    def __init__(self, base_from_camera: SE3 | None = None) -> None:
        self.base_from_camera = base_from_camera
        self.messages = 0
        self._distance = TravelledDistance()
        self._lock = Lock()

    def add(self, message: Any) -> None:
        """Take in a nav_msgs/Odometry or geometry_msgs/TwistStamped."""
        self.messages += 1
        speed_m_s = camera_speed_of(message, self.base_from_camera)
        with self._lock:
            self._distance.add(stamp_ns_of(message), speed_m_s)

    def at(self, stamp_ns: int) -> float:
        """Return `Frame.travelled_m` at an instant: metres, nan where it is not known."""
        with self._lock:
            return self._distance.at(stamp_ns)

    @property
    def dropped(self) -> int:
        """Messages that could not be used."""
        return self._distance.dropped

    @property
    def breaks(self) -> int:
        """How often the distance was not known: pauses, slips, clocks that jumped."""
        return self._distance.breaks
