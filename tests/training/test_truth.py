"""Flow and motion of a step against a projection written down anew, in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vo_stream.se3 import SE3
from vo_stream.training.truth import StepTruth, relative_motion, step_truth

ROWS, COLUMNS = 6, 10
INTRINSICS = np.array([70.0, 72.0, 38.0, 25.0])
DT_S = 0.1
PREV = SE3.exp([0.3, -0.2, 1.0, 0.1, -0.3, 0.05])
CURR = PREV @ SE3.exp([0.02, -0.01, 0.3, 0.01, 0.03, -0.02])


def pose(world_from_camera: SE3) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.tensor(world_from_camera.rotation[None]),
        torch.tensor(world_from_camera.translation[None]),
    )


def truth_of(
    inverse_depth: np.ndarray, velocity: np.ndarray, prev: SE3 = PREV, curr: SE3 = CURR
) -> StepTruth:
    dt = torch.tensor([[DT_S]], dtype=torch.float64)
    return step_truth(
        torch.from_numpy(inverse_depth[None]),
        torch.from_numpy(velocity[None]),
        torch.from_numpy(INTRINSICS[None]),
        pose(prev),
        pose(curr),
        dt,
    )


def scene() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    inverse_depth = 1.0 / rng.uniform(3.0, 30.0, (ROWS, COLUMNS))
    return inverse_depth, rng.normal(0.0, 2.0, (ROWS, COLUMNS, 3))


def projected(i: int, j: int, depth: float, velocity: np.ndarray) -> np.ndarray:
    """Return the displacement of a cell's point: out into the world, back in time, into view."""
    fx, fy, cx, cy = INTRINSICS
    u, v = 8.0 * j + 3.5, 8.0 * i + 3.5
    point = depth * np.array([(u - cx) / fx, (v - cy) / fy, 1.0])
    before = CURR.apply(point[None])[0] - velocity * DT_S
    x, y, z = PREV.inverse().apply(before[None])[0]
    return np.array([fx * x / z + cx - u, fy * y / z + cy - v])


def test_the_flow_leads_to_where_the_point_was() -> None:
    inverse_depth, velocity = scene()
    truth = truth_of(inverse_depth, velocity)
    assert truth.valid.sum() > 30
    for i, j in np.argwhere(truth.valid[0, 0].numpy()):
        depth = 1.0 / inverse_depth[i, j]
        moving, still = projected(i, j, depth, velocity[i, j]), projected(i, j, depth, np.zeros(3))
        np.testing.assert_allclose(truth.flow[0, :, i, j], moving, atol=1e-9)
        np.testing.assert_allclose(truth.static_flow[0, :, i, j], still, atol=1e-9)


def test_the_motion_is_prev_from_curr() -> None:
    rotation, translation = relative_motion(pose(PREV), pose(CURR))
    expected = PREV.inverse() @ CURR
    np.testing.assert_allclose(rotation[0], expected.rotation, atol=1e-12)
    np.testing.assert_allclose(translation[0], expected.translation, atol=1e-12)


def test_the_sky_turns_but_does_not_come_nearer() -> None:
    inverse_depth, velocity = np.zeros((ROWS, COLUMNS)), np.zeros((ROWS, COLUMNS, 3))
    turned = SE3.from_rotation_translation(CURR.rotation, PREV.translation)
    there, here = truth_of(inverse_depth, velocity), truth_of(inverse_depth, velocity, PREV, turned)
    assert there.valid.float().mean() > 0.5
    assert there.flow.abs().max() > 1.0
    torch.testing.assert_close(there.flow, here.flow)


@pytest.mark.parametrize(
    ("step", "part"),
    [
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1.0),
        ([0.0, 0.0, 0.0, 0.0, 1.2, 0.0], 0.0),  # turned away
        ([0.0, 0.0, -9.7, 0.0, 0.0, 0.0], 0.0),  # it was behind the camera
        ([4.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0.7),  # 28 of 80 px to the side
    ],
)
def test_what_was_out_of_view_is_not_valid(step: list[float], part: float) -> None:
    inverse_depth, velocity = np.full((ROWS, COLUMNS), 0.1), np.zeros((ROWS, COLUMNS, 3))
    truth = truth_of(inverse_depth, velocity, PREV @ SE3.exp(step).inverse(), PREV)
    assert truth.valid.double().mean() == pytest.approx(part)
    assert torch.isfinite(truth.flow).all()
    assert not truth.flow[(~truth.valid).expand_as(truth.flow)].any()
