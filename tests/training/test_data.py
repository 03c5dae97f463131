"""What becomes of clips before they are trained on: the truth must follow the pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from training_cases import SIZE, OneClip, rendered

from vo_stream.training.clip import Clip
from vo_stream.training.clip_store import Recipe
from vo_stream.training.data import (
    Step,
    Variety,
    brightened,
    frames_to_keep,
    mirrored,
    picked,
    reversed_in_time,
    steps_of,
    windows,
)
from vo_stream.training.render import render_clips

CPU = torch.device("cpu")
PLAIN = Variety(flip=0.0, reverse=0.0, brightness=0.0, drop=0.0, kept=1.0, reset=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sampled(image: Tensor, u: Tensor, v: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    grid = torch.stack([(2 * u + 1) / width - 1, (2 * v + 1) / height - 1], dim=-1)
    return functional.grid_sample(image, grid, align_corners=False)


def photometric_error(step: Step, previous: Tensor, flow: Tensor) -> float:
    """Return the median difference of the cells' pixels here and where the flow leads."""
    rows, columns = flow.shape[-2:]
    v, u = torch.meshgrid(torch.arange(rows) * 8 + 3.5, torch.arange(columns) * 8 + 3.5,
                          indexing="ij")  # fmt: skip
    u, v = u.expand(len(flow), -1, -1), v.expand(len(flow), -1, -1)
    here, there = sampled(step.image, u, v), sampled(previous, u + flow[:, 0], v + flow[:, 1])
    return float((here - there).abs()[step.truth.valid].median())


@pytest.fixture(scope="module")
def clean() -> Clip:
    return render_clips(3, 5, SIZE, generator(3), clean=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda clip: clip,
        mirrored,
        reversed_in_time,
        lambda clip: picked(clip, torch.tensor([[0, 2], [1, 2], [3, 4]])),
    ],
)
def test_the_flow_leads_to_the_same_colour(clean: Clip, change) -> None:  # type: ignore[no-untyped-def]
    steps = list(steps_of(change(clean)))
    pairs = list(zip(steps[1:], steps, strict=False))
    right = sum(photometric_error(s, p.image, s.truth.flow) for s, p in pairs)
    none = sum(photometric_error(s, p.image, 0.0 * s.truth.flow) for s, p in pairs)
    wrong = sum(photometric_error(s, p.image, -s.truth.flow) for s, p in pairs)
    assert right < 0.5 * none < 0.5 * wrong


def test_the_mirror_world_moves_mirrored() -> None:
    clip = rendered()
    ours, theirs = (list(steps_of(c))[3] for c in (clip, mirrored(clip)))
    flow = ours.truth.flow.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]
    torch.testing.assert_close(theirs.truth.flow, flow, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(theirs.rays[:, 0], -ours.rays[:, 0].flip(-1))
    assert torch.equal(theirs.truth.valid, ours.truth.valid.flip(-1))
    assert torch.linalg.det(theirs.truth.rotation) == pytest.approx(1.0, abs=1e-5)
    back = mirrored(mirrored(clip))
    torch.testing.assert_close(back.rotation, clip.rotation)
    assert torch.equal(back.images, clip.images)


def test_played_backwards_the_motion_is_undone() -> None:
    clip = rendered()
    last = clip.images.shape[1] - 1
    there = list(steps_of(clip))[last].truth
    back = list(steps_of(reversed_in_time(clip)))[1].truth
    eye = torch.eye(3).expand_as(there.rotation)
    torch.testing.assert_close(there.rotation @ back.rotation, eye, atol=1e-5, rtol=0.0)
    assert (reversed_in_time(clip).stamps.diff(dim=1) > 0.0).all()


def test_brightness_leaves_the_truth_alone() -> None:
    clip = rendered()
    other = brightened(clip, generator())
    assert not torch.equal(other.images, clip.images)
    assert torch.equal(other.inverse_depth, clip.inverse_depth)
    order = clip.images[0].flatten().long().argsort()
    assert (other.images[0].flatten()[order].long().diff() >= 0).all()


def test_frames_are_left_out_but_never_out_of_order() -> None:
    clip = Recipe(frames=8).render((64, 32), 2, seed=1)
    clip = clip.select(torch.arange(2).repeat(20))
    kept = frames_to_keep(clip, Variety(drop=0.5, kept=0.8), 3, generator())
    assert kept.shape == (40, 6)
    steps = kept.diff(dim=1)
    assert (steps > 0).all()
    assert kept.max() < 8
    assert 5 < int((steps == 1).all(dim=1).sum()) < 35
    with pytest.raises(ValueError, match="no window of 9"):
        frames_to_keep(clip, PLAIN, 9, generator())


def test_dt_grows_over_frames_left_out() -> None:
    clip = rendered()
    frames = torch.tensor([[0, 1, 4]]).expand(3, -1)
    steps = list(steps_of(picked(clip, frames)))
    torch.testing.assert_close(steps[2].dt[:, 0], (clip.stamps[:, 4] - clip.stamps[:, 1]).float())
    assert (steps[0].dt == 0.0).all()


def test_windows_follow_each_other_in_the_clip() -> None:
    clip = rendered()
    stream = windows(OneClip(clip), [SIZE], 2, 4, PLAIN, CPU, seed=0)
    one, two, three = next(stream), next(stream), next(stream)
    assert [one.first, two.first, three.first] == [True, False, True]
    images = torch.stack([step.image[:, 0] for step in one.steps + two.steps], dim=1)
    torch.testing.assert_close(images * 255.0, clip.images[:2].float())
    fresh = [bool(step.fresh.any()) for step in one.steps + two.steps]
    assert fresh == [True] + 7 * [False]


def test_streams_begin_anew_at_random() -> None:
    variety = replace(PLAIN, reset=0.3)
    stream = windows(OneClip(rendered()), [SIZE], 3, 8, variety, CPU, seed=0)
    steps = [step for _ in range(5) for step in next(stream).steps[1:]]
    fresh = torch.stack([step.fresh for step in steps])
    assert 0.1 < fresh.float().mean() < 0.5
    assert all((step.dt[:, 0] == 0.0).equal(step.fresh) for step in steps)


def test_the_same_seed_gives_the_same_windows() -> None:
    def first(seed: int) -> Tensor:
        return next(windows(OneClip(rendered()), [SIZE], 2, 4, Variety(), CPU, seed)).steps[2].image

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
