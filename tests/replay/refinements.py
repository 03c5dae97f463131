"""Refinements made by hand, and a link that hands them out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vo_stream.link.channel import LinkStatus
from vo_stream.se3 import SE3
from vo_stream.values import Estimate, Frame, Keyframe, Refinement


def refinement(
    keyframes: Mapping[int, SE3],
    *,
    session: int = 1,
    metric: bool = False,
    scale: float = 1.0,
    landmarks: npt.ArrayLike = (),
    stds: npt.ArrayLike | None = None,
    reason: str = "",
    map_stamp_ns: int = 0,
) -> Refinement:
    points = np.asarray(landmarks, dtype=np.float32).reshape(-1, 3)
    return Refinement(
        session=session,
        stamp_ns=max(keyframes),
        map_from_odom=SE3.identity(),
        scale=scale,
        scale_std=0.01,
        metric=metric,
        scale_source="camera height" if metric else "",
        keyframes=tuple(Keyframe(stamp, pose) for stamp, pose in sorted(keyframes.items())),
        landmarks=points,
        landmark_stds=np.asarray(
            np.full(len(points), 0.01) if stds is None else stds, dtype=np.float32
        ),
        map_stamp_ns=map_stamp_ns,
        reason=reason,
    )


class EchoLink:
    """Refines every other frame to where it was, all lengths multiplied; late by two frames."""

    def __init__(self, scale: float = 1.0, metric: bool = False) -> None:
        self.scale, self.metric = scale, metric
        self.said: list[str] = []
        self._made: deque[Refinement] = deque()
        self._keyframes: dict[int, SE3] = {}
        self._sent = 0

    def send(self, frame: Frame, estimate: Estimate) -> bool:
        self.said.append("send")
        self._sent += 1
        if estimate.refused or self._sent % 2 == 0:
            return True
        pose = estimate.odom_from_camera
        moved = self.scale * pose.translation
        self._keyframes[frame.stamp_ns] = SE3(np.concatenate([pose.wxyz_xyz[:4], moved]))
        self._made.append(
            refinement(
                self._keyframes,
                session=estimate.session,
                metric=self.metric,
                landmarks=[moved + [0.0, 0.0, 2.0]],
                reason="" if len(self._keyframes) > 1 else "one keyframe",
            )
        )
        return True

    def poll(self) -> Refinement | None:
        self.said.append("poll")
        late = 0 if "finish" in self.said else 1
        return self._made.popleft() if len(self._made) > late else None

    def status(self) -> LinkStatus:
        self.said.append("status")
        return LinkStatus(True, "echo", sent=self._sent, dropped=1, restarts=2)

    def finish(self, timeout_s: float) -> bool:
        self.said.append("finish")
        return True

    def close(self) -> None:
        self.said.append("close")
