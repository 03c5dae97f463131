"""Small rendered clips and what else the tests of training share."""

from __future__ import annotations

from functools import lru_cache

import torch

from vo_stream.training.clip import Clip
from vo_stream.training.clip_store import Recipe

SIZE = (128, 96)


@lru_cache(maxsize=1)
def rendered() -> Clip:
    """Return three clips of eight frames as a camera takes them; not to be written to."""
    return Recipe(frames=8).render(SIZE, 3, seed=5)


class OneClip:
    """Clips of which there is but one batch."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def draw(self, size: tuple[int, int], batch: int, generator: torch.Generator) -> Clip:
        """See Clips.draw."""
        assert size == (self.clip.images.shape[3], self.clip.images.shape[2])
        return self.clip.select(slice(0, batch))
