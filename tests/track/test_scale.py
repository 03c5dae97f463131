"""The scale of the live odometry: from settings, from refinements, and never by a jump."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from vo_stream.camera import CameraModel
from vo_stream.config import ScaleConfig, TrackConfig
from vo_stream.net.stepnet import NetSpec, NetState
from vo_stream.pose_error import PoseError
from vo_stream.se3 import SE3
from vo_stream.track.bounds import MAX_STD, bounded
from vo_stream.track.odometer import Odometer
from vo_stream.track.scale import MAX_SCALE_STD, NEW_UNIT_STD, Scale
from vo_stream.values import Estimate, Frame, Keyframe, Motion, Refinement

CAMERA = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)
STEP = SE3.exp([0.02, -0.01, 0.1, 0.003, 0.01, -0.002])
STD = np.array([1e-3, 2e-3, 3e-3, 1e-4, 2e-4, 3e-4])


@dataclass(frozen=True)
class Count:
    """A memory that counts the frames it has seen."""

    frames: int = 0


class KnownNet:
    """A backend that always moves by `STEP`."""

    def __init__(self, metric: bool = False) -> None:
        self.spec = NetSpec("known", metric, 64 * 48)
        self.fails = False

    def start(self, after: NetState | None = None) -> Count:
        return Count()

    def step(
        self,
        image: npt.NDArray[np.uint8],
        rays: npt.NDArray[np.float32],
        dt_s: float,
        state: NetState,
    ) -> tuple[Motion | None, Count]:
        assert isinstance(state, Count)
        seen = state.frames > 0 and not self.fails
        return (Motion(STEP, STD) if seen else None), Count(state.frames + 1)

    def close(self) -> None: ...


def frame(i: int) -> Frame:
    image = np.random.default_rng(i).integers(0, 256, (48, 64), dtype=np.uint8)
    return Frame(i * 100_000_000, image, CAMERA)


def refinement(scale: float = 2.0, std: float = 0.01, **others: object) -> Refinement:
    made = Refinement(
        session=1,
        stamp_ns=0,
        map_from_odom=SE3.exp([5.0, 6.0, 7.0, 0.1, 0.2, 0.3]),
        scale=scale,
        scale_std=std,
        metric=False,
        scale_source="",
        keyframes=(Keyframe(0, SE3.identity()),),
        landmarks=np.empty((0, 3), dtype=np.float32),
        landmark_stds=np.empty(0, dtype=np.float32),
    )
    return replace(made, **others)  # type: ignore[arg-type]


def odometer(source: str = "network", metric: bool = False, factor: float = 1.0) -> Odometer:
    made = Odometer(KnownNet(metric), TrackConfig(), ScaleConfig(source=source, factor=factor))
    for i in range(5):
        made.step(frame(i))
    return made


def steps_add_up(estimates: list[Estimate]) -> None:
    """Each pose is the last one and its own motion, to the last bit (REP-105)."""
    for before, after in pairwise(estimates):
        assert after.motion is not None
        expected = before.odom_from_camera @ after.motion.prev_from_curr
        np.testing.assert_array_equal(after.odom_from_camera.wxyz_xyz, expected.wxyz_xyz)


@pytest.mark.parametrize(
    ("source", "net_is_metric", "factor", "metric", "follows"),
    [
        ("network", True, 1.0, True, True),
        ("network", False, 1.0, False, True),
        ("camera_height", True, 1.0, False, True),
        ("camera_height", False, 1.0, False, True),
        ("none", True, 1.0, False, True),
        ("fixed", False, 2.5, True, False),
        ("fixed", True, 2.5, True, False),
    ],
)
def test_the_scale_at_the_start(
    source: str, net_is_metric: bool, factor: float, metric: bool, follows: bool
) -> None:
    config = ScaleConfig(source=source, factor=2.5)
    assert Scale.at_start(config, net_is_metric) == Scale(factor, 0.0, metric, follows)
    estimate = odometer(source, net_is_metric, 2.5).step(frame(5))
    assert estimate.metric == metric
    assert estimate.scale == factor
    assert estimate.motion is not None
    np.testing.assert_allclose(
        estimate.motion.prev_from_curr.translation, factor * STEP.translation, rtol=1e-12
    )


UNUSABLE = {
    "another session": refinement(session=2),
    "an older session": refinement(session=0),
    "not solved": refinement(reason="too little parallax"),
    "unsure": refinement(std=2.0 * MAX_SCALE_STD),
    "unknown": refinement(std=math.inf),
    "nan std": refinement(std=math.nan),
    "nan": refinement(math.nan),
    "infinite": refinement(math.inf),
    "zero": refinement(0.0),
    "negative": refinement(-1.0),
    "negative std": refinement(std=-0.01),
    "tiny": refinement(1e-9),
    "huge": refinement(1e9),
}


@pytest.mark.parametrize("bad", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_is_not_sure_or_not_sane_is_not_taken(bad: Refinement) -> None:
    one, other = odometer(), odometer()
    assert not one.refine(bad)
    assert not one.refine(replace(bad, metric=True))
    a, b = one.step(frame(5)), other.step(frame(5))
    np.testing.assert_array_equal(a.odom_from_camera.wxyz_xyz, b.odom_from_camera.wxyz_xyz)
    np.testing.assert_array_equal(a.covariance, b.covariance)
    assert (a.scale, a.metric) == (b.scale, b.metric) == (1.0, False)


def test_a_scale_is_taken_from_the_next_step_on() -> None:
    odo = odometer()
    before = odo.step(frame(5))
    pose = before.odom_from_camera.wxyz_xyz.copy()
    assert odo.refine(refinement(2.0))
    np.testing.assert_array_equal(before.odom_from_camera.wxyz_xyz, pose)
    after = odo.step(frame(6))
    assert after.scale == 2.0
    assert after.motion is not None
    motion = after.motion.prev_from_curr
    np.testing.assert_allclose(motion.translation, 2.0 * STEP.translation, rtol=1e-12)
    np.testing.assert_allclose(motion.rotation, STEP.rotation, atol=1e-15)
    steps_add_up([before, after])
    # Not on top of the old one: it is of the backend's own lengths.
    odo.refine(refinement(3.0))
    assert odo.step(frame(7)).scale == 3.0


def test_odometry_is_continuous_whatever_the_refinements_say() -> None:
    odo, rng = odometer(), np.random.default_rng(0)
    estimates = [odo.step(frame(5))]
    published = [estimates[0].odom_from_camera.wxyz_xyz.copy()]
    for i in range(6, 40):
        wild = SE3.exp(rng.normal(0.0, 3.0, 6))
        odo.refine(refinement(float(rng.uniform(0.3, 3.0)), 0.02, map_from_odom=wild))
        estimates.append(odo.step(frame(i)))
        published.append(estimates[-1].odom_from_camera.wxyz_xyz.copy())
    steps_add_up(estimates)
    assert len({e.scale for e in estimates}) > 30
    for estimate, pose in zip(estimates, published, strict=True):
        np.testing.assert_array_equal(estimate.odom_from_camera.wxyz_xyz, pose)


def test_an_unsure_scale_makes_lengths_unsure_and_no_turn() -> None:
    motion = Motion(STEP, STD)
    scaled = Scale(2.0, 0.05, False, True).applied_to(motion)
    length = 2.0 * float(np.linalg.norm(STEP.translation))
    np.testing.assert_allclose(scaled.std[:3], np.hypot(2.0 * STD[:3], 0.05 * length))
    np.testing.assert_array_equal(scaled.std[3:], STD[3:])
    exact = Scale(1.0, 0.0, False, True)
    assert exact.applied_to(motion) is motion
    unsure = Scale(1.0, 0.05, False, True).applied_to(motion)
    np.testing.assert_allclose(unsure.std[:3], np.hypot(STD[:3], 0.025 * length))


def test_a_guess_stays_a_guess_and_keeps_its_reason() -> None:
    guess = Motion(STEP, STD, observed=False, reason="it is dark")
    scaled = Scale(2.0, 0.05, False, True).applied_to(guess)
    assert (scaled.observed, scaled.reason) == (False, "it is dark")


def test_a_fixed_scale_is_not_changed() -> None:
    odo = odometer("fixed", factor=2.5)
    assert not odo.refine(refinement(1.7, metric=True))
    assert not odo.refine(refinement(1.7))
    estimate = odo.step(frame(5))
    assert (estimate.scale, estimate.metric) == (2.5, True)


def test_lengths_are_metres_once_the_map_says_so() -> None:
    odo = odometer("camera_height")
    assert not odo.step(frame(5)).metric
    assert odo.refine(refinement(1.5))
    assert not odo.step(frame(6)).metric
    assert odo.refine(refinement(1.6, metric=True))
    assert odo.step(frame(7)).metric


@pytest.mark.parametrize("source", ["network", "camera_height"])
def test_lengths_are_metres_as_long_as_the_map_says_so(source: str) -> None:
    odo = odometer(source, metric=True)
    for i, metric in enumerate([True, False, True]):
        assert odo.refine(refinement(1.5 + i, metric=metric))
        estimate = odo.step(frame(5 + i))
        assert (estimate.scale, estimate.metric) == (1.5 + i, metric)


def test_a_backend_that_begins_anew_has_a_unit_of_its_own() -> None:
    followed = Scale(2.0, 0.01, True, True)
    assert followed.of_new_unit(Scale(1.0, 0.0, False, True)) == Scale(
        2.0, NEW_UNIT_STD, False, True
    )
    # Unless its unit is metres, or the setting says what it is.
    assert followed.of_new_unit(Scale(1.0, 0.0, True, True)) == followed
    for metric in (False, True):
        fixed = Scale(2.5, 0.0, metric, False)
        assert fixed.of_new_unit(fixed) == fixed


@pytest.mark.parametrize(
    ("source", "net_is_metric", "kept"),
    [("camera_height", False, False), ("camera_height", True, False), ("network", True, True)],
)
def test_after_a_fault_of_the_backend_the_scale_is_unsure(
    source: str, net_is_metric: bool, kept: bool
) -> None:
    net = KnownNet(net_is_metric)
    odo = Odometer(net, TrackConfig(), ScaleConfig(source=source))
    for i in range(5):
        odo.step(frame(i))
    assert odo.refine(refinement(2.0, metric=True))
    assert odo.step(frame(5)).metric
    net.fails = True
    assert odo.step(frame(6)).metric == kept
    net.fails = False
    after = odo.step(frame(7))
    assert (after.scale, after.metric) == (2.0, kept)
    assert after.motion is not None
    unsure = 0.01 if kept else NEW_UNIT_STD
    length = 2.0 * float(np.linalg.norm(STEP.translation))
    np.testing.assert_allclose(after.motion.std[:3], np.hypot(2.0 * STD[:3], unsure * length))
    assert odo.refine(refinement(1.5, metric=True))  # the next that is sure mends it
    assert odo.step(frame(8)).metric


def test_the_same_scale_again_is_taken_as_it_is() -> None:
    odo = odometer()
    assert odo.refine(refinement(2.0))
    odo.refine(refinement(2.0))
    assert odo.step(frame(5)).scale == 2.0


def test_before_the_first_frame_and_after_a_reset_nothing_is_taken() -> None:
    odo = Odometer(KnownNet(), TrackConfig())
    assert not odo.refine(refinement())
    for i in range(3):
        odo.step(frame(i))
    assert odo.refine(refinement())
    odo.reset()
    assert not odo.refine(refinement())
    assert not odo.refine(refinement(session=2))  # it has not begun
    first = odo.step(frame(3))
    assert (first.session, first.scale) == (2, 1.0)
    assert not odo.refine(refinement())


def test_a_gap_keeps_the_scale() -> None:
    odo = odometer()
    odo.refine(refinement(2.0))
    odo.step(frame(5))
    assert odo.step(frame(30)).scale == 2.0
    after = odo.step(frame(31))
    assert after.motion is not None
    np.testing.assert_allclose(
        after.motion.prev_from_curr.translation, 2.0 * STEP.translation, rtol=1e-12
    )


def test_a_refused_frame_has_the_scale_too() -> None:
    odo = odometer()
    odo.refine(refinement(2.0, metric=True))
    refused = odo.step(frame(4))
    assert refused.refused
    assert (refused.scale, refused.metric) == (2.0, True)


def test_uncertainty_is_bounded_axis_by_axis_and_stays_positive() -> None:
    small = replace(PoseError.of(np.diag(np.arange(1.0, 7.0) * 1e-3)), lasting=np.eye(6))
    np.testing.assert_array_equal(bounded(small).covariance, small.covariance)
    np.testing.assert_array_equal(bounded(small).lasting, small.lasting)
    mixed = np.random.default_rng(0).normal(size=(6, 6))
    huge = bounded(PoseError.of(1e12 * (mixed @ mixed.T))).covariance
    np.testing.assert_allclose(np.sqrt(np.diag(huge)), MAX_STD)
    np.testing.assert_array_equal(huge, huge.T)
    assert np.linalg.eigvalsh(huge / np.outer(MAX_STD, MAX_STD)).min() > 0.0
    large = PoseError.of(np.diag([1e12, 1.0, 1.0, 1e-4, 1e-4, 1e-4]))
    one = bounded(replace(large, of_steps=np.eye(6), lasting=np.ones((6, 6))))
    np.testing.assert_array_equal(one.of_steps, np.eye(6))
    np.testing.assert_allclose(np.diag(one.covariance), [1e8, 1.0, 1.0, 1e-4, 1e-4, 1e-4])
    np.testing.assert_allclose(one.lasting[:, 0], [1e-2, 1.0, 1.0, 1.0, 1.0, 1.0])
