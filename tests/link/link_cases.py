"""Frames, estimates and a stand-in for the adjuster, for the tests of the link.

Run as a program this file is an adjuster's process whose adjuster is `Counting`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vo_stream.camera import CameraModel
from vo_stream.config import Config
from vo_stream.link.process import WorkerProcess
from vo_stream.link.worker import serve
from vo_stream.link.zmq_link import ZmqLink
from vo_stream.se3 import SE3
from vo_stream.values import Estimate, Frame, Keyframe, Motion, Refinement, Status

COUNTING = (sys.executable, str(Path(__file__)))
"""The command of a process with the stand-in."""

CAMERA = CameraModel(320, 240, 300.0, 300.0, 159.5, 119.5)
PERIOD_NS = 100_000_000
LIMIT_S = 60.0
"""What is awaited has come by then, or the test fails."""

WORK, HANG, RAISE, CRASH, SLOW = range(5)
"""What the stand-in does with a frame: its first pixel says it."""
SLOW_S = 0.05


class Counting:
    """A stand-in for the adjuster: each solve says how many frames it was given."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._frames = 0
        self._newest: tuple[Frame, Estimate] | None = None

    def add(self, frame: Frame, estimate: Estimate) -> None:
        task = int(frame.image[0, 0])
        if task == HANG:
            time.sleep(1e6)
        elif task == RAISE:
            raise RuntimeError("the frame asked for it")
        elif task == CRASH:
            os._exit(3)
        elif task == SLOW:
            time.sleep(SLOW_S)
        self._frames += 1
        self._newest = frame, estimate

    def solve(self) -> Refinement | None:
        if self._newest is None:
            return None
        frame, estimate = self._newest
        source = f"{self._frames} frames, {self._config.adjust.tracks} tracks"
        return make_refinement(frame.stamp_ns, session=estimate.session, scale_source=source)


def load_counting(progress: Callable[[str], None]) -> type[Counting]:
    progress("nothing to compile")
    return Counting


def make_image(number: int, task: int = WORK) -> npt.NDArray[np.uint8]:
    """A textured wall that moves to the left by a few pixels a frame; its first pixel a task."""
    rng = np.random.default_rng(7)
    wall = cv2.GaussianBlur(rng.integers(0, 256, (240, 1320)).astype(np.float32), (0, 0), 2.0)
    wall = cv2.normalize(wall, None, 0.0, 255.0, cv2.NORM_MINMAX)
    start = 4 * number % 1000
    image = np.ascontiguousarray(wall[:, start : start + 320]).astype(np.uint8)
    image[0, 0] = task
    return image


def make_frame(number: int, task: int = WORK, session: int = 1) -> tuple[Frame, Estimate]:
    """Frame `number` of a stream and its estimate."""
    motion = Motion(SE3.exp([0.05, 0.0, 0.0, 0.0, 0.0, 0.0]), np.full(6, 1e-3))
    frame = Frame(number * PERIOD_NS, make_image(number, task), CAMERA)
    estimate = Estimate(
        stamp_ns=frame.stamp_ns,
        status=Status.TRACKING if number else Status.INITIALIZING,
        odom_from_camera=SE3.exp([0.05 * number, 0.0, 0.0, 0.0, 0.0, 0.0]),
        covariance=1e-6 * np.eye(6),
        metric=False,
        motion=motion if number else None,
        session=session,
    )
    return frame, estimate


def make_refinement(
    stamp_ns: int = 0, session: int = 1, scale_source: str = "", landmarks: int = 5
) -> Refinement:
    rng = np.random.default_rng(3)
    poses = [SE3.exp(rng.normal(size=6)) for _ in range(4)]
    return Refinement(
        session=session,
        stamp_ns=stamp_ns,
        map_from_odom=poses[0],
        scale=1.25,
        scale_std=np.inf,
        metric=True,
        scale_source=scale_source,
        keyframes=tuple(Keyframe(stamp_ns - i, pose) for i, pose in enumerate(poses)),
        landmarks=rng.normal(size=(landmarks, 3)).astype(np.float32),
        landmark_stds=rng.random(landmarks).astype(np.float32),
        map_stamp_ns=2**61,
        reason="a reason, with an ü",
    )


def config_of(**link: object) -> Config:
    return Config().replaced({"link": link})


def counting_link(lossless: bool = False, **link: object) -> ZmqLink:
    return ZmqLink(config_of(**link), lossless=lossless, command=COUNTING)


def worker_of(link: ZmqLink) -> int:
    """Return the number of a link's process."""
    assert isinstance(link._place, WorkerProcess)
    assert link._place.pid is not None
    return link._place.pid


def folder_of(link: ZmqLink) -> Path:
    """Return the folder with a link's sockets."""
    assert isinstance(link._place, WorkerProcess)
    return link._place._folder


def await_state(link: ZmqLink, *states: str) -> list[Refinement]:
    """Poll until the link is in one of `states`; return what came meanwhile."""
    refinements: list[Refinement] = []
    until(lambda: _polled(link, refinements) and link.status().state in states)
    return refinements


def await_refinement(link: ZmqLink) -> Refinement:
    refinements: list[Refinement] = []
    until(lambda: _polled(link, refinements) and bool(refinements))
    return refinements[0]


def drain(link: ZmqLink) -> list[Refinement]:
    refinements = []
    while (refinement := link.poll()) is not None:
        refinements.append(refinement)
    return refinements


def until(true: Callable[[], bool], limit_s: float = LIMIT_S) -> float:
    """Wait until something is so; return after how many seconds. Fails after `limit_s`."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < limit_s, "nothing happened"
        time.sleep(0.002)
    return time.monotonic() - began


def with_settings(estimate: Estimate, **changes: object) -> Estimate:
    return replace(estimate, **changes)  # type: ignore[arg-type]


def _polled(link: ZmqLink, refinements: list[Refinement]) -> bool:
    if (refinement := link.poll()) is not None:
        refinements.append(refinement)
    return True


if __name__ == "__main__":
    serve(sys.argv[1:], load_counting)
