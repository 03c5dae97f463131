"""Clips come, go and come back as they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from training_cases import rendered

from vo_stream.training.clip_store import (
    ClipFolder,
    Recipe,
    RenderedClips,
    held_out,
    keep_rendering,
    rendering,
)

SIZE = (64, 32)
SMALL = Recipe(frames=2, kinds=("room",))
CPU = torch.device("cpu")


def test_the_oldest_makes_room(tmp_path: Path) -> None:
    clips = ClipFolder(tmp_path, keep=2)
    clip = rendered().select(slice(0, 1))
    for seed in (7, 8, 10):
        clips.add(clip, seed)
    assert [path.stem for path in clips.files((128, 96))] == [
        "128x96_0000000008",
        "128x96_0000000010",
    ]
    assert clips.files((96, 128)) == []
    assert clips.next_seed(0) == 11
    assert clips.next_seed(50) == 50


def test_a_batch_is_drawn_from_all_files(tmp_path: Path) -> None:
    clips, clip = ClipFolder(tmp_path, keep=9), rendered()
    for seed in range(3):
        clips.add(clip.select(slice(seed, seed + 1)), seed)
    drawn = clips.draw((128, 96), 12, torch.Generator().manual_seed(0))
    assert len(drawn.images) == 12
    assert {images.sum().item() for images in drawn.images} == {
        images.sum().item() for images in clip.images
    }


def test_clips_of_another_length_are_cut_to_the_shortest(tmp_path: Path) -> None:
    clips, clip = ClipFolder(tmp_path, keep=2), rendered()
    count = clip.images.shape[1]
    clips.add(clip.select(slice(0, 1)), 0)
    clips.add(clip.select(slice(1, 2)).frames(torch.arange(count - 2)), 1)
    drawn = clips.draw((128, 96), 12, torch.Generator().manual_seed(0))
    assert drawn.images.shape[:2] == (12, count - 2)
    kept = clip.images[:2, : count - 2]
    assert all(any(torch.equal(one, other) for other in kept) for one in drawn.images)


def test_a_process_beside_fills_the_folder_and_ends(tmp_path: Path) -> None:
    clips = ClipFolder(tmp_path, keep=2)
    with rendering(clips, [SIZE], SMALL, 100, enough=1):
        files = clips.files(SIZE)
    assert files
    assert clips.next_seed(0) > 100
    drawn = clips.draw(SIZE, 1, torch.Generator())
    seed = int(clips.files(SIZE)[0].stem.split("_")[1])
    assert torch.equal(drawn.images, SMALL.render(SIZE, 1, seed).images) or len(files) > 1


def test_rendering_ends_with_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "nice", lambda by: 0)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    keep_rendering(tmp_path, 2, [SIZE], SMALL, 0, parent=-1)
    assert list(tmp_path.iterdir()) == []


def test_held_out_clips_are_rendered_once(tmp_path: Path) -> None:
    sizes = [SIZE, (32, 64)]
    first = held_out(tmp_path, sizes, 2, SMALL, CPU)
    assert [clip.images.shape for clip in first] == [(2, 2, 32, 64), (2, 2, 64, 32)]
    again = held_out(tmp_path, sizes, 2, Recipe(frames=9), CPU)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.images, other.images)
        torch.testing.assert_close(one.position, other.position)


def test_rendered_batches_are_used_again_and_mixed() -> None:
    clips = RenderedClips(SMALL, CPU, seed=0, reuse=3.0)
    generator = torch.Generator().manual_seed(1)
    drawn = [clips.draw(SIZE, 2, generator) for _ in range(9)]
    seen = [tuple(images.sum().item() for images in clip.images) for clip in drawn]
    worlds = {each for pair in seen for each in pair}
    assert 4 <= len(worlds) <= 12
    assert len(set(seen)) > len(worlds) / 2
