"""What a motion backend owes the odometer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vo_stream.camera import reduced_size
from vo_stream.pose_error import INDEPENDENT, Correlation
from vo_stream.values import Motion


@dataclass(frozen=True, slots=True)
class NetSpec:
    """What the odometer must know of a backend.

    `name`: as in the setting net.backend. `metric`: whether its translations are metres.
    `max_pixels`: images are scaled down (never up) to about this many pixels.
    `multiple`: input width and height are multiples of this. `correlation`: how alike the errors of
    its steps are.
    """

    name: str
    metric: bool
    max_pixels: int
    multiple: int = 1
    correlation: Correlation = INDEPENDENT

    def input_size(self, camera_size: tuple[int, int]) -> tuple[int, int]:
        """Return the input (width, height) for a camera's, keeping its aspect ratio."""
        return reduced_size(camera_size, self.max_pixels, self.multiple)


class NetState(Protocol):
    """A backend's memory of the stream so far. Only the backend that made it looks inside."""


class StepNet(Protocol):
    """A motion backend. It holds no stream of its own: all memory is in the `NetState`.

    A state may be stepped from once; stepping again from an older one may raise NetError, since
    its buffers may have been written over. A step that raises has not spent its state. `step` never
    writes to its arguments; it may keep the image, which nobody may write to either.
    """

    spec: NetSpec

    def start(self, after: NetState | None = None) -> NetState:
        """Return a clean state: the next frame is the first of a stream.

        `after`: the state before an interruption. What outlives one may be kept of it (the scale
        of the scene), but no image.
        """
        ...

    def step(
        self,
        image: npt.NDArray[np.uint8],
        rays: npt.NDArray[np.float32],
        dt_s: float,
        state: NetState,
    ) -> tuple[Motion | None, NetState]:
        """Take in the next frame.

        `image`: (height, width) uint8, undistorted. `rays`: (height, width, 2) float32, x and y
        of each pixel's ray (x, y, 1); regular, as a Rectifier makes them. `dt_s`: seconds since
        the previous frame, 0 on the first. Returns the motion since the previous frame, None on
        the first, and the new state. After motions that were not observed, the next observed one
        starts from where those guesses led.
        """
        ...

    def close(self) -> None:
        """Free what the backend holds; it is not used afterwards."""
        ...
