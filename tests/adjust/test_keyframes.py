"""When a frame becomes a keyframe."""

from __future__ import annotations

import numpy as np
import pytest

from vo_stream.adjust.keyframes import (
    FEWEST_SHARED,
    MAX_WAIT_S,
    MIN_SHARED,
    PARALLAX_RAD,
    SLOW_PARALLAX_RAD,
    is_due,
    parallax_rad,
)
from vo_stream.se3 import SE3, Array

IDS = np.arange(100)


def seen_from(points: Array, world_from_camera: SE3) -> Array:
    local = world_from_camera.inverse().apply(points)
    return np.asarray(local[:, :2] / local[:, 2:])


def scene(count: int = 50, depth: float = 4.0) -> Array:
    plane = np.random.default_rng(1).uniform(-0.4, 0.4, (count, 2))
    return depth * np.concatenate([plane, np.ones((count, 1))], axis=1)


def parallax_of(motion: SE3, count: int = 50, depth: float = 4.0) -> float:
    points = scene(count, depth)
    return parallax_rad(seen_from(points, SE3.identity()), seen_from(points, motion), motion)


@pytest.mark.parametrize("turn", [[0.0, 0.3, 0.0], [0.2, -0.1, 0.4]])
def test_a_turn_has_no_parallax(turn: list[float]) -> None:
    assert parallax_of(SE3.exp([0.0, 0.0, 0.0, *turn])) < 1e-12


def test_a_step_aside_has_that_of_its_length_over_the_depth_turned_or_not() -> None:
    assert parallax_of(SE3.exp([0.2, 0.0, 0.0, 0.0, 0.0, 0.0])) == pytest.approx(0.05)
    assert parallax_of(SE3.exp([0.2, 0.0, 0.0, 0.0, 0.0, 0.0]), depth=8.0) == pytest.approx(0.025)
    turned = SE3.from_rotation_translation(
        SE3.exp([0.0, 0.0, 0.0, 0.1, 0.2, 0.3]).rotation, [0.0, 0.2, 0.0]
    )
    assert parallax_of(turned) == pytest.approx(0.05)


def test_few_shared_corners_say_nothing() -> None:
    step = SE3.exp([0.2, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert parallax_of(step, FEWEST_SHARED - 1) == 0.0
    assert parallax_of(step, FEWEST_SHARED) > 0.04
    assert parallax_rad(np.empty((0, 2)), np.empty((0, 2)), step) == 0.0


def test_corners_turned_out_of_sight_call_for_a_keyframe() -> None:
    """A live motion that turns the camera away while the corners stay: something is wrong."""
    plane = scene()[:, :2] / 4.0
    assert parallax_rad(plane, plane, SE3.exp([0.0, 0.0, 0.0, 0.0, 3.0, 0.0])) > PARALLAX_RAD


def test_one_corner_gone_wild_does_not_matter() -> None:
    plane = scene()[:, :2] / 4.0
    wild = plane.copy()
    wild[:10] += 100.0
    assert parallax_rad(plane, wild, SE3.identity()) == 0.0


def test_parallax_calls_for_a_keyframe() -> None:
    assert is_due(IDS, 100, 1.01 * PARALLAX_RAD, 0.0)
    assert not is_due(IDS, 100, 0.99 * PARALLAX_RAD, 0.1)


def test_lost_corners_call_for_a_keyframe() -> None:
    assert is_due(IDS, int(100 * MIN_SHARED) - 1, 0.0, 0.0)
    assert is_due(IDS, 0, 0.0, 0.0)
    assert not is_due(IDS, int(100 * MIN_SHARED) + 1, 0.0, 0.0)


def test_after_a_keyframe_with_hardly_a_corner_each_frame_may_be_the_next() -> None:
    assert is_due(IDS[:0], 0, 0.0, 0.0)
    assert is_due(IDS[: FEWEST_SHARED - 1], FEWEST_SHARED - 1, 0.0, 0.0)
    assert not is_due(IDS[:FEWEST_SHARED], FEWEST_SHARED, 0.0, 0.0)


def test_a_slow_camera_gets_one_after_a_while_and_one_that_stands_none() -> None:
    assert is_due(IDS, 100, 1.01 * SLOW_PARALLAX_RAD, MAX_WAIT_S + 0.1)
    assert not is_due(IDS, 100, 1.01 * SLOW_PARALLAX_RAD, MAX_WAIT_S - 0.1)
    assert not is_due(IDS, 100, 0.99 * SLOW_PARALLAX_RAD, 3600.0)
