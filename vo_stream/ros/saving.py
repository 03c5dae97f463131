"""Writing trajectories to files, in a thread of its own: a day of driving takes seconds."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from vo_stream.replay.atomic import write_atomically
from vo_stream.replay.trajectory import Trajectory, tum_text
from vo_stream.ros.publishers import Kept
from vo_stream.se3 import SE3

logger = logging.getLogger(__name__)


def save(kept: Kept, path: Path, done: Any) -> None:
    """Write what was kept to `path`, and its keyframes beside it, then tell `done`, a Future.

    Its result is (whether all was written, a line for people).
    """

    def write() -> None:
        try:
            done.set_result(_written(kept, path))
        except Exception as error:  # a bug; who waits must not wait for ever
            logger.exception("the trajectory cannot be written")
            done.set_result((False, f"{type(error).__name__}: {error}"))

    threading.Thread(target=write, name="vo_stream writer", daemon=True).start()


def _written(kept: Kept, path: Path) -> tuple[bool, str]:
    if not len(kept.stamps_ns):
        return False, "there is no pose yet"
    if not path.name:
        return False, "node.trajectory_file names no file"
    live = Trajectory(kept.stamps_ns, tuple(SE3(pose) for pose in kept.poses))
    stamps_ns, poses = zip(*kept.keyframes, strict=True) if kept.keyframes else ((), ())
    try:
        write_atomically(path, tum_text(live, f"odom_from_camera; metric: {kept.metric}"))
        said = f"{len(live)} poses in {path.absolute()}"
        if kept.keyframes:
            beside = path.with_suffix(f".keyframes{path.suffix}")
            about = f"map_from_camera; metric: {kept.metric}"
            write_atomically(beside, tum_text(Trajectory.from_unsorted(stamps_ns, poses), about))
            said += f", {len(poses)} keyframes in {beside.name}"
    except OSError as error:
        return False, f"{path.absolute()}: cannot be written ({error.strerror})"
    return True, said
