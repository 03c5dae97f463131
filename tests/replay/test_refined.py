"""The refined trajectory: through every keyframe, and like the live one between them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refinements import refinement

from vo_stream.replay.alignment import PoseStack, Similarity
from vo_stream.replay.refined import MAX_LANDMARK_STD, MAX_LANDMARKS, RefinementLog, bend
from vo_stream.replay.trajectory import Trajectory
from vo_stream.se3 import SE3, Array

FRAME_NS = 50_000_000


def walk(n: int, seed: int = 0) -> Trajectory:
    """Return a curved path of `n` frames, 0.1 m each."""
    rng = np.random.default_rng(seed)
    poses = [SE3.identity()]
    for turn in rng.normal(0.0, 0.03, (n - 1, 3)):
        poses.append(poses[-1] @ SE3.exp([0.0, 0.0, 0.1, *turn]))
    return Trajectory(FRAME_NS * np.arange(n), tuple(poses))


def times(scale: float, pose: SE3) -> SE3:
    return SE3(np.concatenate([pose.wxyz_xyz[:4], scale * pose.translation]))


def chosen(path: Trajectory, which: list[int], scale: float = 1.0) -> Trajectory:
    poses = tuple(times(scale, path.world_from_camera[i]) for i in which)
    return Trajectory(path.stamps_ns[which], poses)


def laid(path: Trajectory, at: SE3) -> Trajectory:
    return Trajectory(path.stamps_ns, tuple(at @ pose for pose in path.world_from_camera))


def apart(a: Trajectory, b: Trajectory) -> Array:
    """Return (n,) how far the poses of two trajectories are from each other, m and rad."""
    between = PoseStack.of(a.world_from_camera).inverse() @ PoseStack.of(b.world_from_camera)
    return between.distances + between.angles


def test_keyframes_that_did_not_move_leave_everything_where_it_was() -> None:
    live = walk(50)
    bent = bend(live, chosen(live, [3, 10, 20, 44]))
    assert bent.stamps_ns.tolist() == live.stamps_ns.tolist()
    assert apart(bent, live).max() < 1e-12


def test_another_scale_holds_before_between_and_after_the_keyframes() -> None:
    live = walk(50)
    bent = bend(live, chosen(live, [3, 10, 20, 44], scale=2.5))
    assert apart(bent, chosen(live, list(range(50)), scale=2.5)).max() < 1e-11


def test_it_goes_through_the_keyframes_and_not_in_jumps() -> None:
    live, which = walk(60), [0, 9, 21, 40, 59]
    rng = np.random.default_rng(1)
    moved = tuple(live.world_from_camera[i] @ SE3.exp(rng.normal(0.0, 0.05, 6)) for i in which)
    keyframes = Trajectory(live.stamps_ns[which], moved)
    bent = bend(live, keyframes)
    through = Trajectory(keyframes.stamps_ns, tuple(bent.world_from_camera[i] for i in which))
    assert apart(through, keyframes).max() < 1e-12
    steps = PoseStack.of(bent.world_from_camera).between(np.arange(59), np.arange(1, 60))
    live_steps = PoseStack.of(live.world_from_camera).between(np.arange(59), np.arange(1, 60))
    assert np.abs((live_steps.inverse() @ steps).logs()).max() < 0.03


def test_the_error_is_spread_by_time() -> None:
    """One late frame, not the number of frames, says how much of the error it takes."""
    stamps = FRAME_NS * np.array([0, 1, 2, 10])
    live = Trajectory(stamps, (SE3.identity(),) * 4)
    end = SE3.exp([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    bent = bend(live, Trajectory(stamps[[0, 3]], (SE3.identity(), end)))
    x = [pose.translation[0] for pose in bent.world_from_camera]
    np.testing.assert_allclose(x, [0.0, 0.1, 0.2, 1.0])


def test_a_pair_that_shows_no_ratio_takes_its_neighbours() -> None:
    """Out and back between two keyframes: their distance is nothing, the way is not."""
    z = [0.0, 1.0, 2.0, 3.0, 2.001, 3.0, 4.0]
    poses = tuple(SE3.exp([0.0, 0.0, d, 0.0, 0.0, 0.0]) for d in z)
    live = Trajectory(FRAME_NS * np.arange(7), poses)
    bent = bend(live, chosen(live, [0, 2, 4], scale=3.0))
    np.testing.assert_allclose(
        [pose.translation[2] for pose in bent.world_from_camera], 3.0 * np.array(z), atol=1e-9
    )


def test_a_camera_that_never_moved() -> None:
    live = Trajectory(FRAME_NS * np.arange(5), (SE3.identity(),) * 5)
    assert apart(bend(live, chosen(live, [0, 3])), live).max() == 0.0


def test_an_hour_and_a_half_is_bent_in_seconds() -> None:
    n = 100_000
    angle = 1e-3 * np.arange(n)
    poses = [SE3(np.array([1.0, 0, 0, 0, np.sin(a), 0, a])) for a in angle]
    live = Trajectory(FRAME_NS * np.arange(n), tuple(poses))
    began = time.process_time()
    bent = bend(live, chosen(live, list(range(0, n, 7))))
    assert time.process_time() - began < 10.0
    assert apart(bent, live).max() < 1e-9


twists = st.lists(st.floats(-1.5, 1.5), min_size=6, max_size=6)


@given(st.lists(twists, min_size=1, max_size=4))
def test_stacked_exponentials_are_the_single_ones(values: list[list[float]]) -> None:
    stack = PoseStack.exp(np.array(values))
    single = PoseStack.of([SE3.exp(v) for v in values])
    np.testing.assert_allclose(stack.quaternions, single.quaternions, atol=1e-12)
    np.testing.assert_allclose(stack.translations, single.translations, atol=1e-11)


def test_a_similarity_places_points() -> None:
    turn = SE3.exp([1.0, 2.0, 3.0, 0.0, 0.0, np.pi / 2])
    placed = Similarity(2.0, SE3(np.concatenate([turn.wxyz_xyz[:4], [1.0, 2.0, 3.0]]))).place(
        [[1.0, 0.0, 0.0]]
    )
    np.testing.assert_allclose(placed, [[1.0, 4.0, 3.0]], atol=1e-12)


# collecting


def poses_at(live: Trajectory, which: list[int]) -> dict[int, SE3]:
    return {int(live.stamps_ns[i]): live.world_from_camera[i] for i in which}


def test_the_newest_word_on_a_keyframe_counts() -> None:
    live, log = walk(20), RefinementLog()
    log.add(refinement(poses_at(live, [0, 5])))
    moved = SE3.exp([0.0, 0.3, 0.0, 0.0, 0.0, 0.0])
    log.add(refinement({int(live.stamps_ns[5]): moved, int(live.stamps_ns[9]): moved}, metric=True))
    refined = log.refined({1: live})[1]
    assert refined.keyframes.stamps_ns.tolist() == live.stamps_ns[[0, 5, 9]].tolist()
    np.testing.assert_allclose(refined.trajectory.world_from_camera[5].wxyz_xyz, moved.wxyz_xyz)
    assert refined.metric
    assert log.count == 2


def test_each_session_has_its_own_map_and_needs_two_keyframes() -> None:
    live, log = walk(20), RefinementLog()
    log.add(refinement(poses_at(live, [0, 5]), session=3))
    log.add(refinement(poses_at(live, [0]), session=4))
    log.add(refinement(poses_at(live, [0, 5]), session=5))
    assert list(log.refined({3: live, 4: live, 6: live})) == [3]


def test_a_keyframe_that_no_frame_knows_is_left_out() -> None:
    live, log = walk(20), RefinementLog()
    log.add(refinement(poses_at(live, [0, 5]) | {7: SE3.identity()}))
    assert len(log.refined({1: live})[1].keyframes) == 2


def test_unsolved_windows_are_counted_and_bring_no_landmarks() -> None:
    live, log = walk(20), RefinementLog()
    log.add(refinement(poses_at(live, [0, 5]), landmarks=[[1, 2, 3]]))
    log.add(refinement(poses_at(live, [5, 9]), landmarks=[[4, 5, 6]], reason="too few"))
    assert log.unsolved == {"too few": 1}
    refined = log.refined({1: live})[1]
    assert refined.landmarks.tolist() == [[1, 2, 3]]
    assert len(refined.keyframes) == 3


def test_a_lone_first_keyframe_is_no_window_that_was_not_solved() -> None:
    live, log = walk(20), RefinementLog()
    log.add(refinement(poses_at(live, [0]), reason="the first keyframe"))
    assert (log.count, log.unsolved) == (1, {})


def say(
    log: RefinementLog, there: Trajectory, first_ns: int, metric: bool = False, landmark: float = 1
) -> None:
    """Let an adjuster say its map, a growing window at a time; it is metric at the end."""
    keyframes = dict(zip(there.stamps_ns.tolist(), there.world_from_camera, strict=True))
    for n in range(1, len(keyframes) + 1):
        log.add(
            refinement(
                dict([*keyframes.items()][:n]),
                map_stamp_ns=first_ns,
                metric=metric and n == len(keyframes),
                landmarks=[[landmark, 0.0, 0.0]] if n == len(keyframes) else (),
                reason="" if n > 1 else "the first keyframe",
            )
        )


def test_a_map_begins_where_the_live_motion_left_the_one_before() -> None:
    """The adjuster is replaced: the new one knows the live pose, not that of the old map."""
    live, log = walk(60), RefinementLog()
    moved = SE3.exp([0.3, -0.2, 0.5, 0.1, 0.2, -0.1])
    say(log, laid(chosen(live, [0, 8, 16, 24]), moved), 0)
    say(log, chosen(live, [30, 38, 46, 58]), int(live.stamps_ns[30]), landmark=2.0)
    refined = log.refined({1: live})[1]
    assert len(refined.keyframes) == 8
    assert apart(refined.trajectory, laid(live, moved)).max() < 1e-11
    placed = moved.apply(np.array([[2.0, 0.0, 0.0]]))
    np.testing.assert_allclose(refined.landmarks, [[1.0, 0.0, 0.0], *placed], atol=1e-6)


def test_maps_in_metres_are_joined_as_they_are() -> None:
    """Live lengths are twice a metre's until the first map has found that; then they are metres."""
    metres = walk(60)
    steps = PoseStack.of(metres.world_from_camera).between(np.arange(59), np.arange(1, 60))
    poses = [SE3.identity()]
    for i, step in enumerate(steps.motions()):
        poses.append(poses[-1] @ times(2.0 if i < 24 else 1.0, step))
    live, log = Trajectory(metres.stamps_ns, tuple(poses)), RefinementLog()
    first = chosen(metres, [0, 8, 16, 24, 28])
    for n, scale in ((4, 2.0), (5, 1.0)):
        window = zip(first.stamps_ns[:n].tolist(), first.world_from_camera[:n], strict=True)
        found = {stamp: times(scale, pose) for stamp, pose in window}
        log.add(refinement(found, metric=scale == 1.0))
    say(log, chosen(live, [30, 38, 46, 58]), int(live.stamps_ns[30]), metric=True)
    refined = log.refined({1: live})[1]
    assert refined.metric
    assert apart(refined.trajectory, metres).max() < 1e-9


@pytest.mark.parametrize("metric", [(True, True), (True, False), (False, True), (False, False)])
def test_lengths_are_metres_where_those_of_all_maps_are(metric: tuple[bool, bool]) -> None:
    live, log = walk(60), RefinementLog()
    say(log, chosen(live, [0, 8, 16]), 0, metric[0])
    say(log, chosen(live, [30, 38, 46]), int(live.stamps_ns[30]), metric[1])
    assert log.refined({1: live})[1].metric == all(metric)


def test_a_map_of_one_keyframe_leaves_the_next_where_it_is() -> None:
    live, log = walk(60), RefinementLog()
    say(log, chosen(live, [0]), 0)
    say(log, chosen(live, [30, 38, 46]), int(live.stamps_ns[30]), metric=True)
    refined = log.refined({1: live})[1]
    assert refined.metric
    assert apart(refined.trajectory, live).max() < 1e-11


def test_a_window_that_finds_the_metre_brings_all_that_was_before_to_it() -> None:
    """What left the window is not sent again, so it is rescaled with what it was seen beside."""
    live, log = walk(40), RefinementLog()
    log.add(refinement(poses_at(live, [0, 5, 10, 15]), landmarks=[[1.0, 2.0, 3.0]]))
    log.add(refinement(poses_at(live, [15, 20, 25, 30])))
    metres = chosen(live, [20, 25, 30, 35], scale=0.5)
    window = dict(zip(metres.stamps_ns.tolist(), metres.world_from_camera, strict=True))
    log.add(refinement(window, metric=True))
    refined = log.refined({1: live})[1]
    assert refined.metric
    expected = chosen(live, list(range(40)), scale=0.5)
    assert apart(refined.trajectory, expected).max() < 1e-11
    np.testing.assert_allclose(refined.landmarks, [[0.5, 1.0, 1.5]], rtol=1e-6)


def test_landmarks_worth_nothing_are_left_out() -> None:
    live, log = walk(20), RefinementLog()
    points = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [np.inf, 0.0, 0.0], [7.0, 8.0, 9.0]]
    stds = [0.01, 2.0 * MAX_LANDMARK_STD, 0.01, np.nan]
    log.add(refinement(poses_at(live, [0, 5]), landmarks=points, stds=stds))
    assert log.refined({1: live})[1].landmarks.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("at_once", [7, 300, 50_000])
def test_landmarks_are_bounded_and_evenly_chosen(at_once: int) -> None:
    live, log, n = walk(20), RefinementLog(), 210_000
    numbers = np.repeat(np.arange(n, dtype=np.float32)[:, None], 3, axis=1)
    for start in range(0, n, at_once):
        points = numbers[start : start + at_once]
        log.add(refinement(poses_at(live, [0, 5]), landmarks=points))
    kept = log.refined({1: live})[1].landmarks
    assert MAX_LANDMARKS / 2 <= len(kept) <= MAX_LANDMARKS
    assert set(np.diff(kept[:, 0])) == {16.0}
