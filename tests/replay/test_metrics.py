"""Alignment and metrics, against values worked out by hand or by plainer code."""

from __future__ import annotations

import itertools
import json
import math
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose

from vo_stream.errors import SourceError
from vo_stream.replay.alignment import (
    ALIGNMENTS,
    PoseStack,
    Similarity,
    align,
    associate,
    umeyama,
)
from vo_stream.replay.metrics import (
    KITTI_LENGTHS_M,
    SHORT_LENGTHS_M,
    error_curves,
    evaluate,
    kitti_errors,
)
from vo_stream.replay.trajectory import Trajectory
from vo_stream.se3 import SE3, Array

FRAME_NS = 100_000_000


def trajectory(poses: list[SE3], frame_ns: int = FRAME_NS, start_ns: int = 0) -> Trajectory:
    return Trajectory(start_ns + frame_ns * np.arange(len(poses)), tuple(poses))


def straight(n: int, step_m: float) -> Trajectory:
    return trajectory([SE3.exp([0.0, 0.0, step_m * i, 0.0, 0.0, 0.0]) for i in range(n)])


def random_walk(n: int, seed: int, step_m: float = 1.0) -> Trajectory:
    rng = np.random.default_rng(seed)
    pose, poses = SE3.identity(), []
    for _ in range(n):
        poses.append(pose)
        wander = rng.normal(scale=[0.1, 0.1, 0.3, 0.01, 0.05, 0.01])
        pose = pose @ SE3.exp(wander + [0.0, 0.0, step_m, 0.0, 0.0, 0.0])
    return trajectory(poses)


def moved(path: Trajectory, scale: float, motion: SE3) -> Trajectory:
    """Apply p -> scale R p + t to every pose."""
    poses = [
        motion @ SE3.from_rotation_translation(p.rotation, scale * p.translation)
        for p in path.world_from_camera
    ]
    return Trajectory(path.stamps_ns, tuple(poses))


def positions(path: Trajectory) -> Array:
    return np.array([p.translation for p in path.world_from_camera])


# pose stacks


def test_pose_stack_agrees_with_single_motions() -> None:
    rng = np.random.default_rng(3)
    twists = rng.normal(size=(40, 6)) * np.repeat([1.0, 1e-3, 1e-6, 0.0], 10)[:, None]
    a = [SE3.exp(t) for t in twists]
    b = [SE3.exp(t) for t in rng.normal(size=(40, 6))]
    stack_a, stack_b = PoseStack.of(a), PoseStack.of(b)
    product = stack_a @ stack_b
    assert_allclose(product.translations, [(x @ y).translation for x, y in zip(a, b, strict=True)])
    assert_allclose(product.angles, [(x @ y).angle for x, y in zip(a, b, strict=True)], atol=1e-12)
    assert_allclose(stack_a.inverse().translations, [x.inverse().translation for x in a])
    assert_allclose(stack_a.logs(), [x.log() for x in a], atol=1e-12)
    assert_allclose(product.logs(), [(x @ y).log() for x, y in zip(a, b, strict=True)], atol=1e-9)


# association


def test_association_interpolates_and_counts() -> None:
    truth = straight(11, 1.0)
    stamps = np.array([-FRAME_NS, 50_000_000, 100_000_000, 425_000_000, 2 * 10**9])
    pairs = associate(Trajectory(stamps, (SE3.identity(),) * 5), truth)
    assert pairs.indices.tolist() == [1, 2, 3]
    assert_allclose(pairs.groundtruth.translations[:, 2], [0.5, 1.0, 4.25])


def test_too_few_matches_name_both_time_ranges() -> None:
    late = trajectory([SE3.identity()] * 5, start_ns=10**12)
    with pytest.raises(SourceError, match=r"only 0 of 5.*1000\.000 to 1000\.400.*0\.000 to 0\.500"):
        evaluate(late, straight(6, 1.0))
    empty = Trajectory(np.array([], dtype=np.int64), ())
    with pytest.raises(SourceError, match="no time at all"):
        evaluate(empty, straight(6, 1.0))


def test_poses_that_are_not_finite_are_left_out() -> None:
    truth = straight(6, 1.0)
    broken = list(truth.world_from_camera)
    broken[2] = SE3(np.array([1.0, 0.0, 0.0, 0.0, np.nan, 0.0, 0.0]))
    metrics = evaluate(trajectory(broken), truth)
    assert metrics.matched == 5
    assert metrics.ate_rmse_m["none"] == 0.0


# alignment


def test_known_similarity_is_recovered() -> None:
    truth = random_walk(50, 0)
    motion = SE3.exp([3.0, -2.0, 1.0, 0.4, -1.2, 2.0])
    fitted = umeyama(positions(truth), positions(moved(truth, 2.5, motion)), with_scale=True)
    assert_allclose(fitted.scale, 2.5, rtol=1e-12)
    assert_allclose((fitted.motion.inverse() @ motion).log(), np.zeros(6), atol=1e-7)


def test_mirrored_points_do_not_give_a_reflection() -> None:
    points = np.random.default_rng(1).normal(size=(30, 3))
    fitted = umeyama(points, points * [1.0, 1.0, -1.0], with_scale=True)
    assert_allclose(np.linalg.det(fitted.motion.rotation), 1.0)
    assert 0.0 < fitted.scale < 1.0


@pytest.mark.parametrize("how", ALIGNMENTS)
def test_straight_path_keeps_the_orientation_that_positions_leave_open(how: str) -> None:
    truth = straight(30, 1.0)
    roll = SE3.exp([5.0, 1.0, 2.0, 0.1, 0.2, 0.9])
    curves = error_curves(moved(truth, 1.0, roll), truth, how)  # type: ignore[arg-type]
    assert_allclose(curves.translation_m, 0.0, atol=1e-7)
    assert_allclose(curves.rotation_deg, 0.0, atol=1e-4)


def test_similarity_is_applied_as_documented() -> None:
    motion = SE3.exp([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])
    pose = SE3.exp([0.5, 0.1, -2.0, 0.3, 0.0, 0.0])
    there = Similarity(2.0, motion).apply(PoseStack.of([pose]))
    assert_allclose(there.translations, motion.apply([2.0 * pose.translation]))
    assert_allclose(there.angles, [(motion @ pose).angle])


# ATE


def test_identity_gives_zeros() -> None:
    truth = random_walk(400, 2)
    metrics = evaluate(truth, truth)
    assert metrics.matched == metrics.frames == 400
    assert_allclose(metrics.scale_sim3, 1.0)
    for how in ALIGNMENTS:
        assert_allclose(metrics.ate_rmse_m[how], 0.0, atol=1e-5)
        assert_allclose(metrics.end_drift_percent[how] or 0.0, 0.0, atol=1e-5)
    assert_allclose(metrics.t_rel_percent["raw"] or 0.0, 0.0, atol=1e-9)
    assert_allclose(metrics.r_rel_deg_per_100m or 0.0, 0.0, atol=1e-9)
    assert_allclose(metrics.rpe_translation_rmse_m["raw"] or 0.0, 0.0, atol=1e-9)
    assert metrics.kitti_lengths_m == KITTI_LENGTHS_M


def test_ate_of_a_path_twice_too_long_by_hand() -> None:
    """Truth 0, 1, 2 and estimate 0, 2, 4 on a line: errors 0 1 2, about the means 1 0 1."""
    truth, estimate = straight(3, 1.0), straight(3, 2.0)
    metrics = evaluate(moved(estimate, 1.0, SE3.exp([9.0, 0.0, 0.0, 0.0, 1.0, 0.0])), truth)
    assert_allclose(metrics.ate_rmse_m["none"], math.sqrt(5.0 / 3.0))
    assert_allclose(metrics.ate_rmse_m["se3"], math.sqrt(2.0 / 3.0))
    assert_allclose(metrics.ate_rmse_m["sim3"], 0.0, atol=1e-7)
    assert_allclose(metrics.scale_sim3, 0.5)
    assert_allclose(metrics.end_drift_percent["none"] or 0.0, 100.0)
    assert_allclose(metrics.end_drift_percent["se3"] or 0.0, 50.0)
    assert_allclose(list(metrics.path_length_m.values()), [2.0, 4.0, 2.0])


# RPE


def test_rpe_by_hand() -> None:
    """1 m/s too fast and 2 degrees per second too much, seen over every one-second window."""
    truth = trajectory([SE3.exp([0.0, 0.0, 0.1 * i, 0.0, 0.0, 0.0]) for i in range(31)])
    turn = math.radians(0.2)
    fast = trajectory([SE3.exp([0.0, 0.0, 0.2 * i, 0.0, 0.0, 0.0]) for i in range(31)])
    turned = trajectory([SE3.exp([0.0, 0.0, 0.0, 0.0, turn * i, 0.0]) for i in range(31)])
    metrics = evaluate(fast, truth)
    assert metrics.rpe_windows == 21
    assert_allclose(metrics.rpe_translation_rmse_m["raw"] or 0.0, 1.0)
    assert_allclose(metrics.rpe_translation_rmse_m["scaled"] or 0.0, 0.0, atol=1e-9)
    metrics = evaluate(turned, truth)
    assert_allclose(metrics.rpe_rotation_rmse_deg or 0.0, 2.0)
    assert_allclose(metrics.rpe_rotation_median_deg or 0.0, 2.0)


def test_rpe_takes_only_windows_within_half_a_frame() -> None:
    truth = straight(40, 0.1)
    gap = np.r_[0:12, 30:40]  # one second after frames 2..11 nothing was seen
    holed = Trajectory(truth.stamps_ns[gap], tuple(truth.world_from_camera[i] for i in gap))
    assert evaluate(holed, truth).rpe_windows == 2


# KITTI


def devkit_errors(truth: Trajectory, estimate: Trajectory) -> tuple[list[float], list[float]]:
    """calcSequenceErrors of the KITTI devkit, loop by loop with 4x4 matrices."""
    poses_gt = [p.as_matrix() for p in truth.world_from_camera]
    poses = [p.as_matrix() for p in estimate.world_from_camera]
    distances = [0.0]
    for before, after in itertools.pairwise(poses_gt):
        distances.append(distances[-1] + float(np.linalg.norm(after[:3, 3] - before[:3, 3])))
    t_errors, r_errors = [], []
    for first in range(0, len(poses_gt), 10):
        for length in KITTI_LENGTHS_M:
            last = next(
                (i for i in range(first, len(poses)) if distances[i] > distances[first] + length),
                -1,
            )
            if last == -1:
                continue
            delta_gt = np.linalg.inv(poses_gt[first]) @ poses_gt[last]
            delta = np.linalg.inv(poses[first]) @ poses[last]
            error = np.linalg.inv(delta) @ delta_gt
            cosine = 0.5 * (np.trace(error[:3, :3]) - 1.0)
            t_errors.append(float(np.linalg.norm(error[:3, 3])) / length)
            r_errors.append(math.acos(max(min(cosine, 1.0), -1.0)) / length)
    return t_errors, r_errors


def test_kitti_figures_are_the_devkits() -> None:
    truth, estimate = random_walk(450, 4, step_m=1.2), random_walk(450, 5, step_m=1.25)
    t_errors, r_errors = devkit_errors(truth, estimate)
    metrics = evaluate(estimate, truth)
    assert metrics.kitti_segments == len(t_errors) > 50
    assert_allclose(metrics.t_rel_percent["raw"] or 0.0, 100.0 * np.mean(t_errors), rtol=1e-9)
    expected = 100.0 * math.degrees(float(np.mean(r_errors)))
    assert_allclose(metrics.r_rel_deg_per_100m or 0.0, expected, rtol=1e-6)


def test_two_percent_of_scale_is_a_t_rel_of_two_percent() -> None:
    """No step ends on 100 m exactly, so that rounding cannot choose the last frame."""
    step = 100.0 / 1023.5
    truth, estimate = straight(1100, step), straight(1100, 1.02 * step)
    moves, turns = kitti_errors(
        PoseStack.of(estimate.world_from_camera), PoseStack.of(truth.world_from_camera), (100.0,)
    )
    assert len(moves) == math.ceil((1100 - 1024) / 10)
    assert_allclose(100.0 * moves, 2.0 * 1024.0 / 1023.5)  # the end lies half a step beyond
    assert_allclose(turns, 0.0, atol=1e-12)


def test_constant_yaw_error_gives_its_rate() -> None:
    """0.05 degrees too much per metre is 5 degrees per 100 m, overshoot of one step aside."""
    truth = straight(301, 1.0)
    too_much = SE3.exp([0.0, 0.0, 1.0, 0.0, math.radians(0.05), 0.0])
    poses = [SE3.identity()]
    for _ in range(300):
        poses.append(poses[-1] @ too_much)
    metrics = evaluate(trajectory(poses), truth)
    # Ends are the first frames beyond 100 and 200 m: 101 and 201 steps.
    segments = [101.0 / 100.0] * 20 + [201.0 / 200.0] * 10
    assert metrics.kitti_segments == len(segments)
    assert_allclose(metrics.r_rel_deg_per_100m or 0.0, 5.0 * np.mean(segments), rtol=1e-9)


@pytest.mark.parametrize("n", [12, 199])
def test_short_paths_take_short_lengths(n: int) -> None:
    metrics = evaluate(straight(n, 1.0), straight(n, 1.0))
    assert metrics.kitti_lengths_m == SHORT_LENGTHS_M
    assert metrics.t_rel_percent["raw"] is not None


def test_long_paths_take_long_lengths_and_tiny_ones_none() -> None:
    assert evaluate(straight(202, 1.0), straight(202, 1.0)).kitti_lengths_m == KITTI_LENGTHS_M
    tiny = evaluate(straight(9, 1.0), straight(9, 1.0))
    assert tiny.t_rel_percent == {"raw": None, "scaled": None}
    assert tiny.r_rel_deg_per_100m is None


# NEES


def drawn(truth: Trajectory, std: Array, seed: int, scale: float = 1.0) -> Trajectory:
    """An estimate whose steps obey `true = estimate @ exp(error)`, lengths divided by `scale`."""
    rng = np.random.default_rng(seed)
    pose, poses = SE3.identity(), [SE3.identity()]
    before = truth.world_from_camera[0]
    for there in truth.world_from_camera[1:]:
        step = before.inverse() @ there @ SE3.exp(rng.normal(size=6) * std).inverse()
        step = SE3(np.concatenate([step.wxyz_xyz[:4], step.translation / scale]))
        pose, before = pose @ step, there
        poses.append(pose)
    return trajectory(poses)


STD = np.array([0.01, 0.02, 0.03, 0.001, 0.002, 0.0005])


def test_nees_of_honest_deviations_is_one() -> None:
    truth = random_walk(2000, 6)
    stds = np.tile(STD, (2000, 1))
    metrics = evaluate(drawn(truth, STD, 7), truth, stds=stds)
    assert metrics.nees_steps == 1999
    for axes in ("all", "translation", "rotation"):
        assert metrics.nees[axes] == pytest.approx(1.0, abs=0.06)
        assert metrics.nees_inside_95_fraction[axes] == pytest.approx(0.95, abs=0.02)
    boasting = evaluate(drawn(truth, STD, 7), truth, stds=stds / 2.0)
    assert boasting.nees["all"] == pytest.approx(4.0 * (metrics.nees["all"] or 0.0))


def test_nees_of_an_unscaled_estimate_is_taken_after_the_sim3_scale() -> None:
    truth, small = random_walk(300, 8), 1e-4 * STD
    scaled_std = np.tile(small / [7.0, 7.0, 7.0, 1.0, 1.0, 1.0], (300, 1))
    estimate = drawn(truth, small, 9, scale=7.0)
    metrics = evaluate(estimate, truth, stds=scaled_std, metric=False)
    assert metrics.nees["all"] == pytest.approx(1.0, abs=0.3)
    assert (evaluate(estimate, truth, stds=scaled_std).nees["all"] or 0.0) > 100.0


def test_steps_without_deviation_or_neighbour_say_nothing() -> None:
    truth = random_walk(40, 10)
    stds = np.tile(STD, (40, 1))
    stds[5] = np.nan
    stds[6, 2] = 0.0
    assert evaluate(truth, truth, stds=stds).nees_steps == 37
    holed = Trajectory.from_unsorted(
        truth.stamps_ns[np.r_[0:20, 30:40]].tolist(),
        [truth.world_from_camera[i] for i in np.r_[0:20, 30:40]],
    )
    # Ground truth with a hole of a second: the step that enters it and the one that leaves it miss.
    assert evaluate(truth, holed, stds=np.tile(STD, (40, 1))).nees_steps == 28


# degenerate input, output, cost


def all_finite(value: object) -> bool:
    if isinstance(value, dict):
        return all(all_finite(v) for v in value.values())
    if isinstance(value, list):
        return all(all_finite(v) for v in value)
    return value is None or math.isfinite(value)  # type: ignore[arg-type]


STILL = trajectory([SE3.exp([4.0, 5.0, 6.0, 0.1, 0.2, 0.3])] * 30)


@pytest.mark.parametrize("estimate", [STILL, straight(30, 0.1), straight(3, 1.0)])
@pytest.mark.parametrize("truth", [STILL, straight(30, 0.1)])
def test_degenerate_input_stays_finite(estimate: Trajectory, truth: Trajectory) -> None:
    figures = evaluate(estimate, truth, stds=np.tile(STD, (len(estimate), 1))).as_dict()
    assert all_finite(figures)
    json.dumps(figures, allow_nan=False)


def test_standing_still() -> None:
    metrics = evaluate(STILL, STILL)
    assert metrics.scale_sim3 == 1.0
    assert_allclose(metrics.ate_rmse_m["sim3"], 0.0, atol=1e-9)
    creeping = evaluate(straight(30, 0.1), STILL)
    assert creeping.scale_sim3 == 1.0
    assert_allclose(creeping.standing_s, 2.9)
    assert_allclose(creeping.standing_path_m["raw"], 2.9)
    driving = evaluate(STILL, straight(30, 0.1))
    assert driving.standing_s == 0.0


def test_figures_survive_json() -> None:
    figures = evaluate(random_walk(30, 11), random_walk(30, 12)).as_dict()
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_a_hundred_thousand_poses_take_seconds() -> None:
    n = 100_000
    angle = 1e-3 * np.arange(n)
    zeros = np.zeros(n)
    values = np.stack(
        [np.cos(angle / 2), zeros, np.sin(angle / 2), zeros, 1e2 * np.sin(angle), zeros, angle],
        axis=1,
    )
    truth = trajectory([SE3(row) for row in values])
    started = time.perf_counter()
    metrics = evaluate(truth, truth, stds=np.ones((n, 6)))
    assert time.perf_counter() - started < 10.0  # a second or two alone on the machine
    assert metrics.matched == n
    assert metrics.nees_steps == n - 1


def test_none_only_makes_the_start_equal() -> None:
    truth, estimate = random_walk(20, 13), random_walk(20, 14)
    pairs = associate(moved(estimate, 1.0, SE3.exp([1.0, 2.0, 3.0, 0.5, 0.6, 0.7])), truth)
    aligned = align(pairs, "none").apply(pairs.estimate)
    assert_allclose(aligned.translations, positions(estimate), atol=1e-9)


def test_a_straight_path_does_not_turn_the_rotation_error() -> None:
    """Positions on a line say nothing of the turn about it; the orientations do."""
    stamps = np.arange(50) * 100_000_000
    true = [SE3.exp([0.0, 0.0, 0.5 * i, 0.0, 0.0, 0.0]) for i in range(50)]
    world = SE3.exp([1.0, 2.0, 3.0, 0.3, -0.5, 0.9])
    estimate = Trajectory(stamps, tuple(world @ pose for pose in true))
    for alignment in ("se3", "sim3"):
        curves = error_curves(estimate, Trajectory(stamps, tuple(true)), alignment)
        assert_allclose(curves.rotation_deg, 0.0, atol=1e-4)
