from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import Tensor  # noqa: E402

from vo_stream.training import cast  # noqa: E402
from vo_stream.training.clip import CELL, Clip  # noqa: E402
from vo_stream.training.draw import Draw  # noqa: E402
from vo_stream.training.render import KINDS, render_clips, staged  # noqa: E402
from vo_stream.training.scene import scene  # noqa: E402
from vo_stream.training.truth import step_truth  # noqa: E402

SIZE = (320, 96)
SMALL = (96, 64)
SHIFTS = ((0.3, 0.0), (-0.3, 0.0), (0.0, 0.3), (0.0, -0.3))


def rendered(kind: str, seed: int, batch: int = 6, frames: int = 2, clean: bool = True) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    return render_clips(batch, frames, SIZE, generator, kinds=(kind,), clean=clean)


def warp_error(clip: Clip, shift: tuple[float, float] = (0.0, 0.0)) -> tuple[Tensor, Tensor]:
    """Return (B, h, w) mean grey level differences of 3 x 3 pixels about each cell's centre in the
    second frame to where the truth (shifted by px) says they were in the first, and where that
    can be said."""
    truth = step_truth(
        clip.inverse_depth[:, 1],
        clip.velocity[:, 1],
        clip.intrinsics,
        (clip.rotation[:, 0], clip.position[:, 0]),
        (clip.rotation[:, 1], clip.position[:, 1]),
        (clip.stamps[:, 1:] - clip.stamps[:, :1]).float(),
    )
    prev, curr = clip.images[:, :2].float().unbind(1)
    height, width = prev.shape[-2:]
    v, u = torch.meshgrid(
        torch.arange(height // CELL) * CELL + 3.5,
        torch.arange(width // CELL) * CELL + 3.5,
        indexing="ij",
    )
    to_u, to_v = u + truth.flow[:, 0], v + truth.flow[:, 1]

    def at(image: Tensor, u: Tensor, v: Tensor) -> Tensor:
        grid = torch.stack([u * 2 / (width - 1) - 1, v * 2 / (height - 1) - 1], -1)
        grid = grid.expand(len(image), *v.shape[-2:], 2)
        sampled = F.grid_sample(image[:, None], grid, mode="bicubic", align_corners=True)
        return sampled[:, 0]

    errors = [
        at(prev, to_u + shift[0] + i, to_v + shift[1] + j) - at(curr, u + i, v + j)
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    ]
    inside = (to_u > 2) & (to_u < width - 3) & (to_v > 2) & (to_v < height - 3)
    return torch.stack(errors).abs().mean(0), truth.valid[:, 0] & inside


@pytest.mark.parametrize("kind", KINDS)
def test_the_pictures_move_as_the_truth_says(kind: str) -> None:
    clip = rendered(kind, 5)
    error, seen = warp_error(clip)
    assert seen.float().mean() > 0.5
    assert error[seen].median() < 2.5
    shifted = [warp_error(clip, shift)[0][seen].mean() for shift in SHIFTS]
    assert min(shifted) > 1.2 * error[seen].mean()
    for one, other in ((0, 1), (2, 3)):  # the valley's floor: within 0.05 px of no shift
        steep = shifted[one] + shifted[other] - 2 * error[seen].mean()
        assert abs(shifted[one] - shifted[other]) / steep * 0.15 < 0.05


def test_what_drives_moves_as_the_truth_says() -> None:
    clip = rendered("street", 8, batch=16)
    error, seen = warp_error(clip)
    driving = seen & (clip.velocity[:, 1].norm(dim=-1) > 0)
    assert driving.sum() > 30
    stopped = Clip(**{f.name: getattr(clip, f.name) for f in fields(Clip)})
    stopped.velocity.zero_()
    as_if_parked, still_seen = warp_error(stopped)
    both = driving & still_seen
    assert error[both].mean() < 0.6 * as_if_parked[both].mean()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_run_into(kind: str) -> None:
    clip = rendered(kind, 11, batch=12, frames=3)
    least = {"street": 1.0, "room": 0.2, "clutter": 0.05}[kind]
    assert clip.inverse_depth.max() < 1 / least * 1.2


def test_shapes_types_and_finite_values() -> None:
    clip = render_clips(4, 3, SMALL, torch.Generator().manual_seed(1))
    assert clip.images.shape == (4, 3, 64, 96)
    assert clip.images.dtype == torch.uint8
    assert clip.inverse_depth.shape == (4, 3, 8, 12)
    assert clip.velocity.shape == (4, 3, 8, 12, 3)
    assert clip.rotation.shape == (4, 3, 3, 3)
    assert clip.position.shape == (4, 3, 3)
    assert clip.intrinsics.shape == (4, 4)
    assert clip.stamps.shape == (4, 3)
    assert clip.stamps.dtype == torch.float64
    assert clip.rays().shape == (4, 2, 8, 12)
    for field in fields(Clip):
        value = getattr(clip, field.name)
        assert value.dtype in (torch.uint8, torch.float32, torch.float64)
        assert value.isfinite().all()
    eye = torch.eye(3).expand_as(clip.rotation)
    assert torch.allclose(clip.rotation.mT @ clip.rotation, eye, atol=1e-5)
    assert (clip.stamps.diff(dim=1) > 0).all()
    assert (clip.inverse_depth >= 0).all()


def test_equal_seeds_give_equal_clips_and_others_do_not() -> None:
    one, same, other = (
        render_clips(3, 2, SMALL, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5)
    )
    for field in fields(Clip):
        assert torch.equal(getattr(one, field.name), getattr(same, field.name))
    assert not torch.equal(one.images, other.images)


def test_the_truth_does_not_depend_on_the_effects() -> None:
    clean, taken = rendered("room", 2, clean=True), rendered("room", 2, clean=False)
    assert torch.equal(clean.inverse_depth, taken.inverse_depth)
    assert not torch.equal(clean.images, taken.images)


def test_the_sky_is_infinitely_far_and_rooms_have_none() -> None:
    street = rendered("street", 3)
    above = street.inverse_depth[:, :, 0]
    assert (above == 0).float().mean() > 0.1
    assert (street.inverse_depth[:, :, -1] > 0).all()
    assert (street.velocity[street.inverse_depth == 0] == 0).all()
    assert (rendered("room", 3).inverse_depth > 0).all()


def test_the_ground_is_where_the_camera_height_says() -> None:
    clip = rendered("street", 3, batch=12)
    ray = torch.cat([clip.rays(), torch.ones(12, 1, 12, 40)], 1)
    down = torch.einsum("bj,bjhw->bhw", clip.rotation[:, 0, 1], ray)
    expected = down / -clip.position[:, 0, 1, None, None]
    on_ground = ((clip.inverse_depth[:, 0] / expected - 1).abs() < 1e-3) & (down > 0)
    assert (on_ground[:, -1].float().mean()) > 0.5
    assert (clip.inverse_depth[:, 0] > expected * (1 - 1e-3))[down > 0.01].all()  # none below


def test_small_groups_of_rays_see_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rendered("clutter", 6, batch=2)
    monkeypatch.setitem(cast._CHUNK, "cpu", 2**13)
    monkeypatch.setitem(cast._PIXELS, "cpu", SIZE[0] * SIZE[1])
    parts = rendered("clutter", 6, batch=2)
    assert torch.allclose(whole.inverse_depth, parts.inverse_depth, rtol=1e-4)
    assert (whole.images.float() - parts.images.float()).abs().mean() < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_rendering_stays_on_the_scenes_device(kind: str) -> None:
    world, path = staged(kind, Draw(torch.Generator().manual_seed(0)), 2, 2)
    intrinsics = torch.tensor([[60.0, 60.0, 47.5, 31.5]]).expand(2, 4)
    plain = cast.film(scene(world, path, intrinsics), SMALL)
    with torch.device("meta"):  # what is made on no device in particular has no values here
        taken = cast.film(scene(world, path, intrinsics), SMALL)
    assert torch.allclose(taken.image, plain.image)


def test_a_file_holds_the_clip(tmp_path: Path) -> None:
    clip = render_clips(2, 2, SMALL, torch.Generator().manual_seed(7))
    clip.save(tmp_path / "clip.npz")
    read = Clip.load(tmp_path / "clip.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.npz"]
    for field in fields(Clip):
        old, new = getattr(clip, field.name), getattr(read, field.name)
        assert old.dtype == new.dtype
        if field.name in ("inverse_depth", "velocity"):
            assert torch.allclose(old, new, rtol=1e-3, atol=1e-4)
        else:
            assert torch.equal(old, new)


@pytest.mark.parametrize(("size", "kinds"), [((100, 64), KINDS), (SMALL, ("sea",))])
def test_what_cannot_be_rendered_is_refused(size: tuple[int, int], kinds: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        render_clips(1, 1, size, kinds=kinds)
