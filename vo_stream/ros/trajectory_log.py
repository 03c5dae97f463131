"""The poses of the session, kept for whoever asks for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vo_stream.se3 import Array
from vo_stream.values import Estimate


class TrajectoryLog:
    """The last `length` poses of the newest session; 64 bytes each, taken as it fills."""

    def __init__(self, length: int) -> None:
        self._stamps_ns = np.empty(length, dtype=np.int64)
        self._poses = np.empty((length, 7))
        self._session = 0
        self._count = 0

    def add(self, estimate: Estimate) -> None:
        """Take in an estimate that was not refused; another session replaces what there was."""
        if estimate.session != self._session:
            self._session, self._count = estimate.session, 0
        at = self._count % len(self._stamps_ns)
        self._stamps_ns[at] = estimate.stamp_ns
        self._poses[at] = estimate.odom_from_camera.wxyz_xyz
        self._count += 1

    def copy(self) -> tuple[npt.NDArray[np.int64], Array]:
        """Return stamps (n,) and odom_from_camera (n, 7), wxyz and xyz, oldest first."""
        kept = min(self._count, len(self._stamps_ns))
        order = np.arange(self._count - kept, self._count) % len(self._stamps_ns)
        return self._stamps_ns[order], self._poses[order]
