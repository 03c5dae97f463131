"""Where training clips come from: a folder that a background process fills, or the GPU itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from vo_stream.training.clip import Clip, concatenate
from vo_stream.training.data import Size
from vo_stream.training.render import KINDS, render_clips

HELD_OUT_SEED = 1_000_000_000
"""Worlds from this seed on are never trained on."""

NICENESS = 15
"""Of the process that renders while another trains."""

WAIT_S = 1.0
"""How often to look whether there are clips enough to begin with."""


@dataclass(frozen=True)
class Recipe:
    """What clips to render. `frames`: of a clip. `kinds`: of worlds, as often as they are named."""

    frames: int = 24
    kinds: tuple[str, ...] = KINDS

    def render(self, size: Size, batch: int, seed: int, device: torch.device | str = "cpu") -> Clip:
        """Return a batch of clips; the same seed gives the same."""
        generator = torch.Generator().manual_seed(seed)
        return render_clips(batch, self.frames, size, generator, device, self.kinds)


class ClipFolder:
    """Clips in files `<width>x<height>_<seed>.npz`, of one world each.

    `keep`: how many of a size there may be; then the oldest makes room for the newest.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        folder.mkdir(parents=True, exist_ok=True)

    def files(self, size: Size) -> list[Path]:
        """Return the files of a size, oldest first."""
        return sorted(self.folder.glob(f"{size[0]}x{size[1]}_*.npz"))

    def add(self, clip: Clip, seed: int) -> None:
        """Write a clip of one world; remove the oldest beyond `keep`."""
        height, width = clip.images.shape[-2:]
        clip.save(self.folder / f"{width}x{height}_{seed:010d}.npz")
        for old in self.files((width, height))[: -self.keep]:
            old.unlink(missing_ok=True)

    def next_seed(self, first: int) -> int:
        """Return a seed that no file here has; they count up from `first`."""
        seeds = (int(path.stem.split("_")[1]) for path in self.folder.glob("*_*.npz"))
        return max([first, *(seed + 1 for seed in seeds)])

    def draw(self, size: Size, batch: int, generator: torch.Generator) -> Clip:
        """See Clips.draw; clips are cut to the shortest of them."""
        drawn: list[Clip] = []
        while len(drawn) < batch:
            files = self.files(size)
            which = int(torch.randint(len(files), (), generator=generator))
            try:
                drawn.append(Clip.load(files[which]))
            except FileNotFoundError:
                continue  # it has just made room for another
        frames = torch.arange(min(clip.images.shape[1] for clip in drawn))
        return concatenate([clip.frames(frames) for clip in drawn])


class RenderedClips:
    """Clips rendered where they are used; each is used about `reuse` times.

    `pool`: how many batches of a size are kept for another use.
    """

    def __init__(
        self, recipe: Recipe, device: torch.device, seed: int, reuse: float = 4.0, pool: int = 16
    ) -> None:
        self._recipe, self._device, self._seed = recipe, device, seed
        self._reuse, self._keep = reuse, pool
        self._pools: dict[tuple[Size, int], list[Clip]] = {}

    def draw(self, size: Size, batch: int, generator: torch.Generator) -> Clip:
        """See Clips.draw; batches that are used again are mixed with each other."""
        pool = self._pools.setdefault((size, batch), [])
        new = float(torch.rand((), generator=generator)) < 1.0 / self._reuse
        if new or not pool:
            pool.append(self._recipe.render(size, batch, self._seed, self._device))
            self._seed += 1
            del pool[: -self._keep]
            return pool[-1]
        which = torch.randint(len(pool), (batch,), generator=generator)
        return concatenate([pool[int(k)].select(slice(i, i + 1)) for i, k in enumerate(which)])


def held_out(
    folder: Path, sizes: Iterable[Size], count: int, recipe: Recipe, device: torch.device
) -> list[Clip]:
    """Return a batch of `count` held-out clips for each size; rendered once, then read."""
    batches = []
    for size in sizes:
        path = folder / f"held_out_{size[0]}x{size[1]}.npz"
        if not path.exists():
            seed = HELD_OUT_SEED + 10_000 * size[0] + size[1]  # other worlds for each size
            recipe.render(size, count, seed, device).save(path)
        batches.append(Clip.load(path).to(device))
    return batches


@contextmanager
def rendering(
    clips: ClipFolder, sizes: list[Size], recipe: Recipe, seed: int, enough: int
) -> Iterator[None]:
    """Fill a folder with new worlds in another process; begin when there are `enough` a size."""
    process = multiprocessing.get_context("spawn").Process(
        target=keep_rendering,
        args=(clips.folder, clips.keep, sizes, recipe, seed, os.getpid()),
        name="vo_stream worlds",
        daemon=True,
    )
    process.start()
    try:
        while any(len(clips.files(size)) < enough for size in sizes):
            if not process.is_alive():
                raise RuntimeError(f"rendering ended with exit code {process.exitcode}")
            time.sleep(WAIT_S)
        yield
    finally:
        process.terminate()
        process.join()


def keep_rendering(
    folder: Path, keep: int, sizes: list[Size], recipe: Recipe, seed: int, parent: int
) -> None:
    """Render world after world into a folder for as long as the process `parent` lives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    os.nice(NICENESS)
    torch.set_num_threads(1)
    clips = ClipFolder(folder, keep)
    seed = clips.next_seed(seed)
    while os.getppid() == parent:
        size = min(sizes, key=lambda s: len(clips.files(s)))
        if len(clips.files(size)) >= keep:
            size = sizes[seed % len(sizes)]
        clips.add(recipe.render(size, 1, seed), seed)
        seed += 1
