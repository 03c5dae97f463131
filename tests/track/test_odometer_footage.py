"""The odometer with its real backend, on rendered footage and on recorded sequences."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from vo_stream.config import Config
from vo_stream.demo.world import render_demo
from vo_stream.net.geometric_net import GeometricNet
from vo_stream.replay.metrics import evaluate
from vo_stream.replay.result import trajectory_of
from vo_stream.replay.sources import open_source
from vo_stream.replay.trajectory import Trajectory, format_tum
from vo_stream.se3 import SE3
from vo_stream.track.odometer import Odometer
from vo_stream.values import Estimate, Frame, Status

RECORDED = Path(__file__).parents[3] / "shared" / "data"
SEQUENCES = [
    "davis_slider_depth",
    "euroc_v101_a",
    "euroc_v101_b",
    "hololens_000",
    "kitti00_first200",
    "kitti01_first51",
    "tartanair_sample",
    "tum_fr1_xyz",
]


def odometer() -> Odometer:
    config = Config()
    return Odometer(GeometricNet(config.geometric), config.track)


def black(frame: Frame) -> Frame:
    return Frame(frame.stamp_ns, np.zeros_like(frame.image), frame.camera)


def length(pose: SE3) -> float:
    return float(np.linalg.norm(pose.translation))


@pytest.fixture(scope="module")
def street() -> list[tuple[Frame, SE3]]:
    """Four and a half seconds: driving, braking, standing."""
    return list(render_demo("street", seconds=5.0, size=(620, 188)))


def test_a_drive_and_a_stop(street: list[tuple[Frame, SE3]]) -> None:
    vo = odometer()
    estimates = [vo.step(frame) for frame, _ in street]
    assert {e.status for e in estimates[1:]} == {Status.TRACKING}
    path, stds = trajectory_of(estimates)
    truth = Trajectory(path.stamps_ns, tuple(pose for _, pose in street))
    metrics = evaluate(path, truth, stds=stds, metric=False)
    assert metrics.ate_rmse_m["sim3"] < 0.3  # of 30 m
    resting = [e for e in estimates if e.reason == "at rest"]
    assert len(resting) > 10
    first, last = resting[0].odom_from_camera, resting[-1].odom_from_camera
    assert np.array_equal(first.wxyz_xyz, last.wxyz_xyz)


def test_slow_motion_is_not_lost() -> None:
    """At 120 Hz no two frames in a row show parallax; over several it adds up."""
    posed = list(render_demo("room", seconds=1.0, fps=120.0, size=(320, 240)))
    vo = odometer()
    estimates = [vo.step(frame) for frame, _ in posed]
    path, _ = trajectory_of(estimates)
    truth = Trajectory(path.stamps_ns, tuple(pose for _, pose in posed))
    metrics = evaluate(path, truth, metric=False)
    true_length = length(posed[0][1].inverse() @ posed[-1][1])
    assert metrics.ate_rmse_m["sim3"] < 0.05 * true_length
    assert length(path.world_from_camera[-1]) > 1.0  # in scenes 10 units deep


def test_a_blackout_is_survived(street: list[tuple[Frame, SE3]]) -> None:
    frames = [frame for frame, _ in street[:60]]
    frames[20:45] = map(black, frames[20:45])
    vo = odometer()
    estimates = [vo.step(frame) for frame in frames]
    statuses = [e.status for e in estimates]
    assert statuses[19] is Status.TRACKING
    assert set(statuses[20:28]) == {Status.DEGRADED}
    assert Status.LOST in statuses[31:45]
    assert statuses[-1] is Status.TRACKING
    lost = [e for e in estimates if e.status is Status.LOST]
    assert np.array_equal(lost[0].odom_from_camera.wxyz_xyz, lost[-1].odom_from_camera.wxyz_xyz)
    assert np.trace(lost[-1].covariance) > np.trace(lost[0].covariance)


def test_the_scale_outlives_a_gap() -> None:
    posed = list(render_demo("room", seconds=4.0, size=(320, 240)))
    kept = [*posed[:25], *posed[55:]]
    vo = odometer()
    estimates = [vo.step(frame) for frame, _ in kept]
    assert "gap" in estimates[25].reason

    def scale(some: list[Estimate], true: list[tuple[Frame, SE3]]) -> float:
        moved = length(some[0].odom_from_camera.inverse() @ some[-1].odom_from_camera)
        return moved / length(true[0][1].inverse() @ true[-1][1])

    ratio = scale(estimates[26:], kept[26:]) / scale(estimates[:25], kept[:25])
    assert 0.6 < ratio < 1.6


@pytest.mark.parametrize("name", SEQUENCES)
def test_recorded_sequence(name: str) -> None:
    """Sixty frames: every one answered, none lost, the same bytes twice."""
    if not (RECORDED / name).is_dir():
        pytest.skip(f"the recorded sequence {name} is not on this machine")
    texts = []
    for _ in range(2):
        vo = odometer()
        with open_source(RECORDED / name) as source:
            estimates = [vo.step(frame) for frame in islice(source.frames(), 60)]
        assert len(estimates) == min(60, source.length or 0)
        assert not any(e.refused or e.status is Status.LOST for e in estimates)
        texts.append("".join(format_tum(e.stamp_ns, e.odom_from_camera) for e in estimates))
    assert texts[0] == texts[1]
    path, _ = trajectory_of(estimates)
    if name == "euroc_v101_a":  # stands still
        assert max(length(pose) for pose in path.world_from_camera) < 0.02
