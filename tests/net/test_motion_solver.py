"""What the solver makes of landmarks that are right, too few, or wrong together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vo_stream.net.landmarks import Landmarks
from vo_stream.net.motion_solver import (
    MAX_DOUBTS,
    Matches,
    is_contradicted,
    scale_information,
    solve_motion,
    supported_by,
)
from vo_stream.net.two_view import essential_motion
from vo_stream.net.uncertainty import RESTART_SCALE_STD, motion_std
from vo_stream.se3 import SE3, Array

PIXEL = 1.0 / 500.0
CURR_FROM_PREV = SE3.exp([0.3, 0.05, -0.4, 0.01, 0.03, -0.02])
DEPTH = 10.0


def matches(relative_std: float, depth_error: Array | float = 1.0) -> Matches:
    """Return 200 matches of a world 3 to 20 deep, with landmarks wrong by a factor."""
    rng = np.random.default_rng(1)
    n = 200
    prev = rng.uniform([-0.6, -0.4], [0.6, 0.4], (n, 2))
    depth = rng.uniform(3.0, 20.0, n)
    rays = np.concatenate([prev, np.ones((n, 1))], axis=1)
    points = CURR_FROM_PREV.apply(rays * depth[:, None])
    curr = points[:, :2] / points[:, 2:] + rng.normal(0.0, 0.05 * PIXEL, (n, 2))
    believed = depth * depth_error
    information = np.zeros(n) if np.isinf(relative_std) else (believed / relative_std) ** 2
    landmarks = replace(
        Landmarks.first_seen(prev, 1.0), inverse_depth=1.0 / believed, information=information
    )
    two_view = essential_motion(prev, curr, PIXEL, "five_point", 0)
    assert two_view is not None
    keep = two_view.inliers
    two_view = replace(two_view, inliers=np.ones(keep.sum(), dtype=bool))
    noise = np.full(keep.sum(), 0.3 * PIXEL)
    return Matches(
        curr[keep].astype(np.float32), prev[keep], curr[keep], landmarks[keep], noise, two_view,
        PIXEL, 1.0,
    )  # fmt: skip


def length(motion: SE3) -> float:
    return float(np.linalg.norm(motion.translation))


def test_known_landmarks_carry_the_scale() -> None:
    m = matches(0.1)
    solution = solve_motion(m, SE3.identity(), DEPTH, 0)
    assert solution is not None
    assert not solution.new_scale
    assert length(solution.curr_from_prev) == pytest.approx(length(CURR_FROM_PREV), rel=0.01)
    assert supported_by(solution, m).mean() > 0.95
    assert not is_contradicted(solution, m)


def test_without_scale_the_camera_is_as_fast_as_it_was() -> None:
    m = matches(np.inf)
    assert scale_information(m.landmarks) == 0.0
    predicted = SE3.exp([0.0, 0.0, 0.8, 0.0, 0.0, 0.0])
    solution = solve_motion(m, predicted, DEPTH, 0)
    assert solution is not None
    assert solution.new_scale
    assert length(solution.curr_from_prev) == pytest.approx(0.8, rel=0.03)


def test_without_scale_or_speed_the_depth_is_what_it_was() -> None:
    solution = solve_motion(matches(np.inf), SE3.identity(), 2 * DEPTH, 0)
    assert solution is not None
    assert solution.new_scale
    depths = 1.0 / solution.landmarks.inverse_depth
    assert np.median(depths) == pytest.approx(2 * DEPTH, rel=0.1)


def test_a_new_scale_is_uncertain_only_after_an_old_one() -> None:
    solution = solve_motion(matches(np.inf), SE3.identity(), DEPTH, 0)
    assert solution is not None
    step = length(solution.curr_from_prev)
    first, restarted = (motion_std(solution, DEPTH, PIXEL, again) for again in (False, True))
    assert first[:3].max() < 0.1 * step
    assert restarted[:3].min() >= RESTART_SCALE_STD * step


def test_depths_that_are_wrong_together_are_doubted_then_given_up() -> None:
    rng = np.random.default_rng(2)
    m = matches(0.02, rng.uniform(0.3, 3.0, 200))
    solution = solve_motion(m, SE3.identity(), DEPTH, 0)
    assert solution is not None
    given_up = solve_motion(m, SE3.identity(), DEPTH, MAX_DOUBTS)
    assert given_up is not None
    assert given_up.new_scale
    turned = (given_up.curr_from_prev.inverse() @ CURR_FROM_PREV).angle
    assert turned < 0.005


def test_no_parallax_and_no_scale_is_no_solution() -> None:
    m = matches(np.inf)
    turn = SE3.exp([0.0, 0.0, 0.0, 0.01, 0.02, 0.0])
    rays = np.concatenate([m.prev, np.ones((len(m.prev), 1))], axis=1) @ turn.rotation.T
    curr = rays[:, :2] / rays[:, 2:]
    two_view = replace(m.two_view, rotation=turn.rotation)
    still = replace(m, curr=curr, two_view=two_view)
    assert solve_motion(still, SE3.identity(), DEPTH, 0) is None
