"""The poses of a session, as many as fit."""

from __future__ import annotations

import numpy as np
import pytest

from vo_stream.ros.trajectory_log import TrajectoryLog
from vo_stream.se3 import SE3
from vo_stream.values import Estimate, Status


def estimate(number: int, session: int = 1) -> Estimate:
    return Estimate(
        stamp_ns=1_700_000_000_000_000_000 + number,
        status=Status.TRACKING,
        odom_from_camera=SE3.exp([number, 0.0, 0.0, 0.0, 0.0, 0.1]),
        covariance=np.eye(6),
        metric=False,
        motion=None,
        session=session,
    )


def filled(length: int, count: int, session: int = 1) -> TrajectoryLog:
    log = TrajectoryLog(length)
    for number in range(count):
        log.add(estimate(number, session))
    return log


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 10, 13])
def test_the_last_poses_are_kept_oldest_first(count: int) -> None:
    stamps_ns, poses = filled(5, count).copy()
    kept = [estimate(number) for number in range(max(0, count - 5), count)]
    assert stamps_ns.tolist() == [e.stamp_ns for e in kept]
    assert poses.shape == (len(kept), 7)
    assert all(map(np.array_equal, poses, (e.odom_from_camera.wxyz_xyz for e in kept)))


@pytest.mark.parametrize("session", [2, 1000])
def test_a_new_session_replaces_the_old_one(session: int) -> None:
    log = filled(5, 7)
    log.add(estimate(3, session))
    assert log.copy()[0].tolist() == [estimate(3).stamp_ns]


def test_a_copy_stays_as_it_is() -> None:
    log = filled(5, 5)
    stamps_ns, poses = log.copy()
    before = stamps_ns.copy(), poses.copy()
    log.add(estimate(5))
    assert np.array_equal(stamps_ns, before[0])
    assert np.array_equal(poses, before[1])
