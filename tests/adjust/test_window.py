"""The window, on points and poses whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from vo_stream.adjust.live_motion import at_scale
from vo_stream.adjust.solver import solve
from vo_stream.adjust.window import (
    DEPTH_STDS,
    FIRST_INVERSE_DEPTH,
    SCALE_WALK_STD,
    Landmarks,
    Sightings,
    WindowKeyframe,
    carried_on,
    in_cameras,
    in_map,
    triangulated,
    window_problem,
)
from vo_stream.se3 import SE3, Array

CENTRE = np.array([3.0, -2.0, 5.0])
NO_BEND = (0.0, 0.01)


def poses(count: int = 5) -> list[SE3]:
    step = SE3.exp([0.3, -0.05, 0.2, 0.02, 0.05, -0.03])
    path = [SE3.exp([1.0, 2.0, 3.0, 0.4, -0.9, 0.2])]
    for _ in range(count - 1):
        path.append(path[-1] @ step)
    return path


def cloud(first: SE3, count: int = 40, seed: int = 0) -> Array:
    """Return points in front of the first of a few cameras, in the map."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(3.0, 9.0, (count, 1))
    plane = rng.uniform(-0.5, 0.5, (count, 2))
    return first.apply(depth * np.concatenate([plane, np.ones((count, 1))], axis=1))


def bent(plane: Array, bend: float) -> Array:
    return np.asarray(plane * (1.0 + bend * (plane**2).sum(axis=1, keepdims=True)))


def keyframe(
    i: int,
    path: Sequence[SE3],
    points: Array,
    ids: Sequence[int] | None = None,
    bend: float = 0.0,
    log_scale: float = 0.0,
) -> WindowKeyframe:
    """Return a keyframe that sees some of the points, exactly; they are their own tracks."""
    seen = np.arange(len(points)) if ids is None else np.array(ids, dtype=np.int64)
    local = path[i].inverse().apply(points[seen])
    before = path[max(i - 1, 0)]
    return WindowKeyframe(
        stamp_ns=i,
        map_from_camera=path[i],
        odom_from_camera=path[i],
        motion=at_scale(before.inverse() @ path[i], np.exp(-log_scale)),
        information=(i + 1.0) * np.eye(6),
        scale_variance=0.1 * i,
        log_scale=log_scale,
        ids=seen,
        plane=bent(local[:, :2] / local[:, 2:], bend),
        variances=np.full(len(seen), 1e-6) * (1.0 + seen),
    )


def window(bend: float = 0.0, log_scale: float = 0.0) -> tuple[list[WindowKeyframe], Array]:
    path = poses()
    points = cloud(path[0])
    return [keyframe(i, path, points, None, bend, log_scale) for i in range(len(path))], points


def world_of(keyframes: Sequence[WindowKeyframe]) -> tuple[Array, Array]:
    rotations = np.array([k.map_from_camera.rotation for k in keyframes])
    return rotations, np.array([k.map_from_camera.translation for k in keyframes])


def test_sightings_come_by_track_and_then_by_keyframe() -> None:
    path = poses(3)
    points = cloud(path[0])
    keyframes = [
        keyframe(0, path, points, [1, 4, 7, 9]),
        keyframe(1, path, points, [2, 4, 9]),
        keyframe(2, path, points, [1, 2, 4, 30]),
    ]
    seen = Sightings.of(keyframes)
    np.testing.assert_array_equal(seen.ids, [1, 2, 4, 9])  # not what one alone saw
    np.testing.assert_array_equal(seen.first, [0, 2, 4, 7, 9])
    np.testing.assert_array_equal(seen.keyframes, [0, 2, 1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(seen.anchors, [0, 1, 0, 0])
    np.testing.assert_array_equal(seen.tracks, [0, 0, 1, 1, 2, 2, 2, 3, 3])
    for track, who, plane, variance in zip(
        seen.tracks, seen.keyframes, seen.plane, seen.variances, strict=True
    ):
        row = keyframes[who].ids.tolist().index(seen.ids[track])
        np.testing.assert_array_equal(plane, keyframes[who].plane[row])
        assert variance == keyframes[who].variances[row]


@pytest.mark.parametrize("ids", [([], []), ([1, 2], [3, 4])])
def test_keyframes_that_share_nothing_have_no_sightings(ids: tuple[list[int], list[int]]) -> None:
    path = poses(2)
    seen = Sightings.of([keyframe(i, path, cloud(path[0]), ids[i]) for i in range(2)])
    assert seen.ids.shape == seen.anchors.shape == seen.tracks.shape == (0,)
    np.testing.assert_array_equal(seen.first, [0])


@pytest.mark.parametrize("bend", [0.0, 1e-3])
def test_triangulation_is_exact_on_exact_data(bend: float) -> None:
    keyframes, points = window(bend)
    found = triangulated(Sightings.of(keyframes), *world_of(keyframes), bend)
    local = keyframes[0].map_from_camera.inverse().apply(points)
    expected = np.column_stack([local[:, :2] / local[:, 2:], 1.0 / local[:, 2]])
    np.testing.assert_allclose(found, expected, atol=1e-12 if bend == 0.0 else 1e-5)


def test_triangulation_says_nan_where_nothing_shows() -> None:
    still = [poses()[0]] * 4  # a camera that only stood
    points = cloud(still[0])
    keyframes = [keyframe(i, still, points) for i in range(4)]
    found = triangulated(Sightings.of(keyframes), *world_of(keyframes), 0.0)
    assert np.isnan(found[:, 2]).all()
    assert np.isfinite(found[:, :2]).all()


def test_triangulation_says_nan_where_a_landmark_would_lie_behind() -> None:
    path = [SE3.identity(), SE3.exp([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])]
    two = [keyframe(i, path, np.array([[0.0, 0.0, 5.0]])) for i in range(2)]
    # It moved ahead of the camera, which no standing thing in front does.
    wrong = replace(two[1], plane=-two[1].plane)
    for second, behind in ((two[1], False), (wrong, True)):
        pair = [two[0], second]
        found = triangulated(Sightings.of(pair), *world_of(pair), 0.0)
        assert np.isnan(found[0, 2]) == behind


def cameras(count: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(7)
    motions = [SE3.exp(rng.normal(0.0, 1.0, 6)) for _ in range(count)]
    return np.array([m.rotation for m in motions]), np.array([m.translation for m in motions])


def test_into_the_map_and_back_changes_nothing_even_at_infinity() -> None:
    points = np.random.default_rng(2).uniform(-1.0, 1.0, (30, 3))
    points[:, 2] = np.abs(points[:, 2])
    points[:5, 2] = 0.0
    points[5:8, 2] = 1e-9
    rotations, positions = cameras(30)
    there = in_map(points, rotations, positions)
    np.testing.assert_array_equal(there[:5, 3], 0.0)
    np.testing.assert_allclose(in_cameras(there, rotations, positions), points, atol=1e-12)
    # A point at infinity is a direction: it does not move with the camera.
    np.testing.assert_allclose(
        in_cameras(there[:5], rotations[:5], positions[:5] + 100.0), points[:5], atol=1e-12
    )


def test_what_lies_behind_a_camera_is_nan_in_it() -> None:
    there = in_map(np.array([[0.1, 0.2, 0.5]]), np.eye(3)[None], np.zeros((1, 3)))
    turned = np.diag([-1.0, 1.0, -1.0])[None]
    assert np.isnan(in_cameras(there, turned, np.zeros((1, 3)))).all()
    assert np.isnan(in_cameras(there, np.eye(3)[None], np.array([[0.0, 0.0, 3.0]]))).all()


def landmarks_of(points: Array) -> Landmarks:
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    return Landmarks(10 * np.arange(len(points)), homogeneous, np.full(len(points), 0.1))


def test_rows_of_landmarks() -> None:
    some = landmarks_of(np.ones((4, 3)))
    np.testing.assert_array_equal(some.rows(np.array([-5, 0, 5, 10, 30, 31, 10**12])),
                                  [-1, 0, -1, 1, 3, -1, -1])  # fmt: skip
    np.testing.assert_array_equal(Landmarks.empty().rows(np.array([0, 1])), [-1, -1])
    assert len(some.rows(np.empty(0, dtype=np.int64))) == 0


def test_inverse_depths_of_tracks() -> None:
    camera = poses()[2]
    local = np.array([[0.3, 0.1, 4.0], [1.0, 0.0, 2.0], [0.0, 0.0, -3.0], [0.1, 0.1, 8.0]])
    some = landmarks_of(camera.apply(local))
    some.depth_stds[1] = 0.9
    far = np.concatenate([camera.rotation @ [0.1, 0.2, 1.0], [0.0]])
    some = Landmarks(
        np.append(some.ids, 40), np.vstack([some.points, far]), np.append(some.depth_stds, 0.1)
    )
    found = some.inverse_depths(np.array([0, 10, 20, 30, 35, 40]), camera, 0.5)
    expected = [0.25, np.nan, np.nan, 0.125, np.nan, np.nan]
    np.testing.assert_allclose(found, expected)
    assert np.isnan(Landmarks.empty().inverse_depths(np.arange(3), camera, 0.5)).all()


def test_finite_landmarks_leave_out_what_lies_at_infinity_or_beyond() -> None:
    points = np.array([[2.0, 4.0, 6.0, 2.0], [1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, -0.1]])
    xyz, stds = Landmarks(np.arange(3), points, np.array([0.1, 0.2, 0.3])).finite()
    np.testing.assert_allclose(xyz, [[1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(stds, [0.1])


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_a_resized_map_looks_the_same_from_each_keyframe(factor: float) -> None:
    keyframes, points = window(log_scale=0.3)
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    homogeneous[:3, 3] = 0.0  # directions
    landmarks = Landmarks(np.arange(len(points)), homogeneous, np.full(len(points), 0.1))
    larger = landmarks.resized(CENTRE, factor)
    np.testing.assert_array_equal(larger.ids, landmarks.ids)
    for k in keyframes:
        resized = k.resized(CENTRE, factor)
        before = in_cameras(homogeneous, *(a.repeat(len(points), 0) for a in world_of([k])))
        after = in_cameras(larger.points, *(a.repeat(len(points), 0) for a in world_of([resized])))
        np.testing.assert_allclose(after[:, :2], before[:, :2], atol=1e-12)
        np.testing.assert_allclose(after[:, 2], before[:, 2] / factor, atol=1e-12)
        np.testing.assert_allclose(
            resized.map_from_camera.rotation, k.map_from_camera.rotation, atol=1e-12
        )
        assert resized.log_scale == pytest.approx(0.3 + np.log(factor))
        # The live motion stays the backend's own; carried on, it grows with the map.
        assert resized.motion is k.motion
        way = carried_on(resized, k.motion).translation - resized.map_from_camera.translation
        old = carried_on(k, k.motion).translation - k.map_from_camera.translation
        np.testing.assert_allclose(way, factor * old, atol=1e-12)
    at_centre = keyframes[0].map_from_camera.translation
    np.testing.assert_allclose(
        keyframes[0].resized(at_centre, factor).map_from_camera.translation, at_centre
    )


def test_a_keyframe_without_some_tracks() -> None:
    (first, *_), _ = window()
    less = first.without(np.array([3, 5, 1000]))
    kept = np.delete(np.arange(len(first.ids)), [3, 5])
    np.testing.assert_array_equal(less.ids, kept)
    np.testing.assert_array_equal(less.plane, first.plane[kept])
    np.testing.assert_array_equal(less.variances, first.variances[kept])
    assert len(first.without(first.ids).ids) == 0
    assert len(first.without(np.empty(0, dtype=np.int64)).ids) == len(first.ids)


def test_the_problem_is_what_the_window_holds() -> None:
    keyframes, _ = window(log_scale=0.3)
    seen = Sightings.of(keyframes)
    problem, start = window_problem(keyframes, seen, Landmarks.empty(), 2, (0.004, 0.01))
    many, landmarks, sightings = len(keyframes), len(seen.ids), len(seen.plane)
    assert problem.held == 2
    assert problem.motions.shape == (many, 3, 4)
    assert problem.motion_information.shape == (many, 6, 6)
    assert problem.walk_information.shape == (many,)
    for array in (problem.anchors, problem.depth_prior, start.points):
        assert len(array) == landmarks
    for array in (problem.keyframes, problem.plane, problem.weights):
        assert len(array) == sightings == problem.first[-1]
    assert problem.bend_prior == 0.004
    assert problem.bend_information == pytest.approx(1e4)
    assert start.bend == pytest.approx([0.004])
    for k, keyframe_k in enumerate(keyframes):
        np.testing.assert_array_equal(problem.motions[k], keyframe_k.motion.as_matrix()[:3])
        np.testing.assert_array_equal(problem.motion_information[k], (k + 1.0) * np.eye(6))
        assert 1.0 / problem.walk_information[k] == pytest.approx(SCALE_WALK_STD**2 + 0.1 * k)
        np.testing.assert_allclose(start.rotations[k], keyframe_k.map_from_camera.rotation)
        np.testing.assert_allclose(start.positions[k], keyframe_k.map_from_camera.translation)
        own = problem.keyframes == k
        np.testing.assert_allclose(1.0 / problem.weights[own], keyframe_k.variances)
    np.testing.assert_array_equal(start.log_scales, 0.3)
    assert problem.log_scale_prior == 0.3
    np.testing.assert_array_equal(problem.depth_prior, start.points[:, 2])
    usual = np.median(start.points[:, 2])
    assert problem.depth_information == pytest.approx(1.0 / (DEPTH_STDS * usual) ** 2)


def test_exact_data_are_their_own_solution() -> None:
    """Sightings, live motions and scale agree: nothing costs anything but the weak prior."""
    keyframes, points = window(log_scale=0.3)
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    known = Landmarks(np.arange(len(points)), homogeneous, np.full(len(points), 0.1))
    for landmarks in (Landmarks.empty(), known):
        seen = Sightings.of(keyframes)
        solution = solve(*window_problem(keyframes, seen, landmarks, 1, NO_BEND))
        assert solution.solved
        assert solution.first_cost < 1e-12
        assert solution.errors.max() < 1e-6
        found = in_map(solution.state.points, *(a[seen.anchors] for a in world_of(keyframes)))
        np.testing.assert_allclose(found[:, :3] / found[:, 3:], points, atol=1e-6)


def test_a_known_landmark_starts_where_it_is_known_to_be() -> None:
    keyframes, points = window()
    moved = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    moved[:, :3] += 0.2
    landmarks = Landmarks(np.arange(20), moved[:20], np.full(20, 0.1))
    seen = Sightings.of(keyframes)
    _, start = window_problem(keyframes, seen, landmarks, 1, NO_BEND)
    there = in_map(start.points, *(a[seen.anchors] for a in world_of(keyframes)))
    expected = np.concatenate([moved[:20, :3], points[20:]])
    np.testing.assert_allclose(there[:, :3] / there[:, 3:], expected, atol=1e-9)


def test_landmarks_of_unknown_depth_start_at_the_usual_one() -> None:
    still = [poses()[0]] * 3
    points = cloud(still[0])
    keyframes = [keyframe(i, still, points) for i in range(3)]
    seen = Sightings.of(keyframes)
    problem, start = window_problem(keyframes, seen, Landmarks.empty(), 1, NO_BEND)
    np.testing.assert_array_equal(start.points[:, 2], FIRST_INVERSE_DEPTH)
    np.testing.assert_array_equal(start.points[:, :2], keyframes[0].plane)
    assert np.isfinite(problem.depth_information)
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    some = Landmarks(np.arange(7), homogeneous[:7], np.full(7, 0.1))
    problem, start = window_problem(keyframes, seen, some, 1, NO_BEND)
    usual = np.median(1.0 / still[0].inverse().apply(points[:7])[:, 2])
    np.testing.assert_allclose(start.points[7:, 2], usual)


def test_a_landmark_behind_its_keyframe_is_begun_anew() -> None:
    keyframes, points = window()
    behind = keyframes[0].map_from_camera.apply([[0.1, 0.1, -4.0]])
    landmarks = Landmarks(
        np.zeros(1, dtype=np.int64), np.append(behind, 1.0)[None], np.array([0.1])
    )
    _, start = window_problem(keyframes, Sightings.of(keyframes), landmarks, 1, NO_BEND)
    assert np.isfinite(start.points).all()
    np.testing.assert_array_equal(start.points[0, :2], keyframes[0].plane[0])
    assert len(points) == len(start.points)
