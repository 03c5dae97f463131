from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from vo_stream.training import effects, textures  # noqa: E402
from vo_stream.training.draw import Draw  # noqa: E402
from vo_stream.training.paths import Path  # noqa: E402
from vo_stream.training.surfaces import _dashes  # noqa: E402

CPU = torch.device("cpu")


def spread(extent: float, moved: float = 0.0) -> Tensor:
    """Return the values of a grainy texture at 4000 places, filtered for an extent."""
    places = torch.linspace(0, 7.3, 4000) + moved
    number = torch.full_like(places, textures.families().grainy[0], dtype=torch.int64)
    wide = torch.full_like(places, extent)
    return textures.sample(textures.atlas(CPU), number, places, 0.77 * places, wide, wide)


def test_far_textures_fade_to_their_mean() -> None:
    contrast = [float(spread(2.0**-k).std()) for k in range(9)]
    assert contrast == sorted(contrast)
    assert contrast[0] < 0.01
    assert abs(float(spread(1.0).mean()) - 0.5) < 0.02


def test_filtering_moves_nothing() -> None:
    """A coarser level shows the same picture at the same place."""
    fine, coarse = spread(1 / 64), spread(1 / 32)
    step = 1 / 64
    there = (coarse - fine).square().mean()
    for moved in (step, -step):
        assert (spread(1 / 32, moved) - fine).square().mean() > 1.2 * there
    aside = [(spread(1 / 32, m) - fine).square().mean() for m in (step, -step)]
    assert abs(aside[0] - aside[1]) < 0.2 * (aside[0] + aside[1] - 2 * there)


def test_slant_blurs_along_one_direction_only() -> None:
    table = textures.atlas(CPU)
    places = torch.linspace(0, 1, 1000)
    number = torch.full_like(places, textures.families().grainy[0], dtype=torch.int64)
    narrow, wide = torch.full_like(places, 1 / 256), torch.full_like(places, 1 / 8)
    across = textures.sample(table, number, places, 0.3 + 0 * places, narrow, wide)
    along = textures.sample(table, number, 0.3 + 0 * places, places, narrow, wide)
    assert across.diff().abs().mean() > 3 * along.diff().abs().mean()


def test_dashes_are_averaged_over_the_footprint() -> None:
    phase = torch.linspace(-3, 3, 50)
    share = torch.full_like(phase, 0.4)
    assert torch.allclose(_dashes(phase, torch.ones_like(phase), share), share, atol=1e-5)
    sharp = _dashes(torch.tensor([0.2, 0.7, 5.2]), torch.full((3,), 1e-3), torch.full((3,), 0.4))
    assert torch.allclose(sharp, torch.tensor([1.0, 0.0, 1.0]), atol=1e-2)


def dot(height: int = 33, width: int = 65) -> Tensor:
    """Return (1, 2, H, W): a bright spot in the middle of two frames."""
    v = torch.arange(height)[:, None] - height // 2
    u = torch.arange(width) - width // 2
    spot = torch.exp(-(u.square() + v.square()) / 18.0)
    film: Tensor = spot.expand(1, 2, height, width).clone()
    return film


def centroid(image: Tensor) -> tuple[float, float]:
    height, width = image.shape
    weight = (image - image.median()).clamp(min=0.05) - 0.05
    u = (weight.sum(0) * torch.arange(width)).sum() / weight.sum() - width // 2
    v = (weight.sum(1) * torch.arange(height)).sum() / weight.sum() - height // 2
    return float(u), float(v)


def test_blur_keeps_things_in_their_place() -> None:
    film = dot()
    way = torch.tensor([6.0, 3.0]).view(1, 2, 1, 1).expand(2, 2, 33, 65)
    blurred = effects._blurred_along(film[0], way)
    assert blurred[0].max() < 0.9 * film.max()
    assert centroid(blurred[0]) == pytest.approx((0, 0), abs=0.01)
    soft = effects._defocused(film[0], 1.0)
    assert soft[0].max() < film.max()
    assert centroid(soft[0]) == pytest.approx((0, 0), abs=0.01)


def test_effects_keep_things_in_their_place_and_values_in_range() -> None:
    generator = torch.Generator().manual_seed(0)
    film = dot().repeat(24, 1, 1, 1) * 0.6 + 0.2
    taken = effects.apply(Draw(generator), film, torch.zeros(24, 2, 2, 33, 65))
    assert taken.min() >= 0
    assert taken.max() <= 1
    shift = torch.tensor([centroid(image) for image in taken[:, 0]])
    assert shift.median(0).values.abs().max() < 0.3
    assert (taken.mean((1, 2, 3)).std()) > 0.03, "exposures do not differ"


def test_flow_through_pixels_is_that_of_the_motion() -> None:
    """Driving ahead by a tenth of the depth: a pixel's way back to the middle is a tenth."""
    rotation = torch.eye(3).expand(1, 2, 3, 3)
    position = torch.tensor([[[0.0, 0, 0], [0.0, 0, 1.0]]])
    path = Path(rotation, position, torch.tensor([[0.0, 0.1]], dtype=torch.float64))
    intrinsics = torch.tensor([[40.0, 40.0, 32.0, 16.0]])
    flow = effects.pixel_flow(torch.full((1, 2, 33, 65), 0.1), path, intrinsics)
    assert flow[0, 1, 0, 16, 54] == pytest.approx(-22 / 11, abs=1e-4)
    assert flow[0, 1, 1, 27, 32] == pytest.approx(-11 / 11, abs=1e-4)
