"""The length of a backend's motions, as the adjuster or a setting corrects it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from vo_stream.config import ScaleConfig
from vo_stream.se3 import SE3
from vo_stream.values import Motion, Refinement

MAX_SCALE_STD = 0.1
"""Standard deviation of the scale's logarithm up to which a refinement's scale is taken."""

NEW_UNIT_STD = 0.5
"""Standard deviation of the logarithm of a scale whose backend began anew."""

SCALE_RANGE = (1e-3, 1e3)
"""A scale outside is a fault of the adjuster."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What motions are multiplied by, and whether they are metres then.

    `factor`; `std`: standard deviation of its logarithm; `metric`; `follows`: whether refinements
    change it.
    """

    factor: float
    std: float
    metric: bool
    follows: bool

    @staticmethod
    def at_start(config: ScaleConfig, net_is_metric: bool) -> Scale:
        """Return the scale before anything was refined."""
        return Scale(
            factor=config.factor if config.source == "fixed" else 1.0,
            std=0.0,
            metric=config.source == "fixed" or (config.source == "network" and net_is_metric),
            follows=config.source != "fixed",
        )

    def refined(self, refinement: Refinement) -> Scale:
        """Return the scale a refinement asks for; self where it is not sure or not sane."""
        usable = (
            self.follows
            and not refinement.reason
            and 0.0 <= refinement.scale_std <= MAX_SCALE_STD  # nan is not
            and SCALE_RANGE[0] <= refinement.scale <= SCALE_RANGE[1]
        )
        if not usable:
            return self
        return replace(
            self, factor=refinement.scale, std=refinement.scale_std, metric=refinement.metric
        )

    def of_new_unit(self, first: Scale) -> Scale:
        """Return the scale after the backend began a unit of its own: it fits by chance only.

        `first`: the scale at the session's start, which holds where the backend's unit is metres.
        """
        if first.metric or not self.follows:
            return self
        return replace(self, std=NEW_UNIT_STD, metric=False)

    def applied_to(self, motion: Motion) -> Motion:
        """Return a backend's motion at this scale, with the scale's own uncertainty."""
        if self.factor == 1.0 and self.std == 0.0:
            return motion
        step = motion.prev_from_curr
        moved = self.factor * step.translation
        unsure = self.std * math.sqrt(float(moved @ moved))
        std = np.concatenate([np.hypot(self.factor * motion.std[:3], unsure), motion.std[3:]])
        pose = SE3(np.concatenate([step.wxyz_xyz[:4], moved]))
        return replace(motion, prev_from_curr=pose, std=std)
