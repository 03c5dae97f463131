"""From rendered clips to what the loop trains on: endless windows of steps with their truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from vo_stream.training.clip import Clip
from vo_stream.training.truth import StepTruth, step_truth

Size = tuple[int, int]
"""(width, height) of images, pixels."""

MIN_BATCH = 2
"""Clips of one step of the training; batch normalisation needs more than one."""

GAMMA = (0.7, 1.4)
GAIN = (0.8, 1.2)
"""Ranges of what images are brightened by, on top of what the renderer does."""


@dataclass(frozen=True)
class Step:
    """One frame of B streams, as the network takes it in, and what truly happened.

    `image` (B, 1, H, W) 0..1; `rays` (B, 2, h, w); `dt` (B, 1) s, 0 where fresh; `fresh` (B,)
    bool: the stream begins here, its state is to be as after start().
    """

    image: Tensor
    rays: Tensor
    dt: Tensor
    fresh: Tensor
    truth: StepTruth


@dataclass(frozen=True)
class Window:
    """Steps to train on at once. `first`: new streams begin, of another size perhaps."""

    steps: list[Step]
    first: bool


@dataclass(frozen=True)
class Variety:
    """What is done to clips before they are trained on; chances are 0..1.

    `flip`: mirrored. `reverse`: played backwards. `brightness`: other gamma and gain. `drop`:
    frames left out here and there (else a run of them on end). `kept`: share of a clip's frames
    that is used. `reset`: chance of each frame that the stream begins anew.
    """

    flip: float = 0.5
    reverse: float = 0.1
    brightness: float = 0.5
    drop: float = 0.4
    kept: float = 0.8
    reset: float = 0.01


class Clips(Protocol):
    """Where training clips come from."""

    def draw(self, size: Size, batch: int, generator: torch.Generator) -> Clip:
        """Return a batch of clips of a size, all of one length."""
        ...


def steps_of(clip: Clip, fresh: Tensor | None = None) -> Iterator[Step]:
    """Yield the steps of a batch of clips.

    `fresh` (B, T) bool: where streams begin; without it at the first frame only.
    """
    if fresh is None:
        fresh = torch.zeros(clip.images.shape[:2], dtype=torch.bool, device=clip.images.device)
        fresh[:, 0] = True
    xy = clip.rays()
    for t in range(clip.images.shape[1]):
        p = max(t - 1, 0)
        dt = (clip.stamps[:, t] - clip.stamps[:, p]).float()[:, None]
        truth = step_truth(
            clip.inverse_depth[:, t],
            clip.velocity[:, t],
            clip.intrinsics,
            (clip.rotation[:, p], clip.position[:, p]),
            (clip.rotation[:, t], clip.position[:, t]),
            dt,
        )
        image = clip.images[:, t, None].float() / 255.0
        yield Step(image, xy, torch.where(fresh[:, t, None], 0.0, dt), fresh[:, t], truth)


def windows(
    clips: Clips,
    sizes: list[Size],
    batch: int,
    length: int,
    variety: Variety,
    device: torch.device,
    seed: int,
) -> Iterator[Window]:
    """Yield windows of `length` steps without end: those of a batch of clips, then of another.

    `batch`: how many clips of the smallest size; of larger ones fewer, for about as many pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = batch * min(width * height for width, height in sizes)
    while True:
        size = sizes[int(torch.randint(len(sizes), (), generator=generator))]
        batch = max(MIN_BATCH, round(pixels / (size[0] * size[1])))
        clip = varied(clips.draw(size, batch, generator).to(device), variety, generator)
        clip = picked(clip, frames_to_keep(clip, variety, length, generator))
        count = clip.images.shape[1]
        fresh = _chance(variety.reset, (batch, count), generator).to(device)
        fresh[:, 0] = True
        steps = list(steps_of(clip, fresh))
        for begin in range(0, count, length):
            yield Window(steps[begin : begin + length], begin == 0)


def frames_to_keep(clip: Clip, variety: Variety, length: int, generator: torch.Generator) -> Tensor:
    """Return the frames (B, n) of each clip to train on, n a multiple of the window's length."""
    batch, count = clip.images.shape[:2]
    keep = max(length, round(variety.kept * count) // length * length)
    if keep > count:
        raise ValueError(f"a clip of {count} frames has no window of {length}")
    scattered = torch.rand(batch, count, generator=generator).argsort(dim=1)[:, :keep]
    start = torch.randint(count - keep + 1, (batch, 1), generator=generator)
    on_end = start + torch.arange(keep)
    drop = _chance(variety.drop, (batch, 1), generator)
    return torch.where(drop, scattered.sort(dim=1).values, on_end)


def varied(clip: Clip, variety: Variety, generator: torch.Generator) -> Clip:
    """Return the clips, some of them mirrored, reversed, brightened."""
    for chance, change in (
        (variety.flip, mirrored),
        (variety.reverse, reversed_in_time),
        (variety.brightness, lambda c: brightened(c, generator)),
    ):
        chosen = _chance(chance, (len(clip.images),), generator)
        if bool(chosen.any()):
            clip = _where(chosen.to(clip.images.device), change(clip), clip)
    return clip


def picked(clip: Clip, frames: Tensor) -> Clip:
    """Return frames (B, n) of each clip, its own for each."""
    frames = frames.to(clip.images.device)
    item = torch.arange(len(frames), device=frames.device)[:, None]
    timed = (f.name for f in fields(Clip) if f.name != "intrinsics")
    return replace(clip, **{name: getattr(clip, name)[item, frames] for name in timed})


def mirrored(clip: Clip) -> Clip:
    """Return clips of the mirror world: left is right."""
    sign = clip.position.new_tensor([-1.0, 1.0, 1.0])
    fx, fy, cx, cy = clip.intrinsics.unbind(1)
    return replace(
        clip,
        images=clip.images.flip(-1),
        inverse_depth=clip.inverse_depth.flip(-1),
        velocity=clip.velocity.flip(-2) * sign,
        rotation=clip.rotation * sign * sign[:, None],
        position=clip.position * sign,
        intrinsics=torch.stack([fx, fy, clip.images.shape[-1] - 1 - cx, cy], dim=1),
    )


def reversed_in_time(clip: Clip) -> Clip:
    """Return clips played backwards."""
    played = clip.frames(torch.arange(clip.images.shape[1]).flip(0).to(clip.images.device))
    stamps = clip.stamps[:, :1] + clip.stamps[:, -1:] - played.stamps
    return replace(played, velocity=-played.velocity, stamps=stamps)


def brightened(clip: Clip, generator: torch.Generator) -> Clip:
    """Return clips of another gamma and gain, one of each for a whole clip."""
    batch = len(clip.images)
    low, high = (torch.tensor([GAMMA[i], GAIN[i]]) for i in (0, 1))
    gamma, gain = (low + (high - low) * torch.rand(batch, 2, generator=generator)).unbind(1)
    grey = torch.linspace(0.0, 1.0, 256)
    table = (255.0 * gain[:, None] * grey ** gamma[:, None]).round().clamp(0.0, 255.0)
    table = table.to(clip.images.device, torch.uint8)
    item = torch.arange(batch, device=table.device)[:, None]
    images = table[item, clip.images.flatten(1).long()].view_as(clip.images)
    return replace(clip, images=images)


def _chance(probability: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) < probability


def _where(chosen: Tensor, one: Clip, other: Clip) -> Clip:
    """Return the chosen (B,) items of one batch, the others of the other."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(chosen.view(-1, *[1] * (a.dim() - 1)), a, b)

    names = (field.name for field in fields(Clip))
    return Clip(**{name: pick(getattr(one, name), getattr(other, name)) for name in names})
