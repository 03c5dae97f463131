from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from vo_stream.training import paths  # noqa: E402
from vo_stream.training.draw import Draw  # noqa: E402
from vo_stream.training.paths import Path  # noqa: E402

N, FRAMES = 256, 12


def draw() -> Draw:
    return Draw(torch.Generator().manual_seed(3))


def speeds(path: Path) -> Tensor:
    """Return (n, T - 1) m/s."""
    rate: Tensor = path.position.diff(dim=1).norm(dim=-1) / path.stamps.diff(dim=1)
    return rate


def turn_rates(path: Path) -> Tensor:
    """Return (n, T - 1) rad/s."""
    step = path.rotation[:, :-1].mT.double() @ path.rotation[:, 1:].double()
    angle = (step - step.mT).flatten(2).norm(dim=2) / (2 * math.sqrt(2))
    rate: Tensor = angle.clamp(max=1).asin() / path.stamps.diff(dim=1)
    return rate


def driven() -> Path:
    return paths.vehicle(draw(), N, FRAMES, torch.linspace(-0.03, 0.03, N))


def test_vehicles_drive_at_speeds_of_vehicles() -> None:
    path = driven()
    speed = speeds(path)
    assert speed.max() < 35
    assert 3 < speed.median() < 14
    assert (speed.amax(1) < 0.01).any(), "none stands"
    assert (speed.amax(1) > 16).any(), "none is fast"
    height = -path.position[..., 1]
    assert height.min() > 1.3
    assert height.max() < 2.0
    assert 1.6 < height.median() < 1.7


def test_vehicles_move_where_they_head_and_bend_no_tighter_than_they_can() -> None:
    path = driven()
    heading = path.rotation[:, :-1, :, 2]
    step = path.position.diff(dim=1)
    moving = speeds(path) > 1
    cosine = (heading * step).sum(-1) / step.norm(dim=-1).clamp(min=1e-6)
    assert cosine[moving].quantile(0.1) > 0.9
    sideways = turn_rates(path) * speeds(path)
    assert sideways[moving].quantile(0.95) < 4.5
    assert (turn_rates(path)[moving] / speeds(path)[moving] > 1 / 20).any(), "none turns off"


@pytest.mark.parametrize(
    ("path", "fastest", "quickest"),
    [
        (paths.hand_held(draw(), N, FRAMES), 1.5, math.radians(60)),
        (paths.drone(draw(), N, FRAMES), 3.5, math.radians(200)),
    ],
)
def test_hands_and_drones_keep_their_limits(path: Path, fastest: float, quickest: float) -> None:
    assert speeds(path).max() <= fastest * 1.001
    assert turn_rates(path).max() <= quickest * 1.001
    assert speeds(path).max() > 0.4 * fastest


def test_hands_also_turn_on_the_spot_slide_and_rest() -> None:
    path = paths.hand_held(draw(), N, FRAMES)
    speed, rate = speeds(path).amax(1), turn_rates(path).amax(1)
    assert ((speed == 0) & (rate > 0.1)).any()
    assert ((speed > 0.1) & (rate < 0.01)).any()
    assert ((speed < 0.002) & (rate < 0.01)).any()


def test_rates_are_in_range_and_stamps_rise() -> None:
    for path in (driven(), paths.hand_held(draw(), N, FRAMES), paths.drone(draw(), N, FRAMES)):
        steps = path.stamps.diff(dim=1)
        assert steps.min() > 1 / 33
        assert steps.max() < 1 / 7
        assert (path.stamps[:, 0] == 0).all()


def test_rotations_turn_the_way_their_names_say() -> None:
    angle = torch.tensor(0.1)
    assert paths.about_y(angle)[0, 2] > 0  # ahead turns right
    assert paths.about_x(angle)[1, 2] < 0  # ahead turns up
    vector = torch.tensor([0.0, 0.1, 0.0])
    assert torch.allclose(paths.exp(vector), paths.about_y(angle), atol=1e-6)
