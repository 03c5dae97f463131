"""Holding the map to metres: one scale, filtered, with a gate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

DRIFT_STD = 0.006
"""By how much the logarithm of a map's scale may drift from keyframe to keyframe."""

CORRELATION = 1.3
"""Measurements at neighbouring keyframes share errors: their standard deviations are taken to be
this much larger."""

GATE = 3.0
"""A measurement this many standard deviations off is not believed."""

METRIC_LIVE_STD = 0.1
"""Live lengths that are metres err by about this part, keyframe after keyframe."""

ENOUGH = 4
"""Measurements that must agree before the map is called metric."""

LEAST_ANSWERED = 0.3
"""Part of the keyframes that must have shown the scale, or it was not what it seemed."""

MEMORY = 50
"""Keyframes over which that part is taken: what went well long ago says nothing of today."""

PATIENCE = 5
"""After so many refusals on end the filter, not the measurements, must be wrong: it starts anew."""


@dataclass(frozen=True, slots=True)
class MetricScale:
    """How far the map's unit is from a metre: a Kalman filter of one number.

    `log_error`: logarithm of what the map's lengths must be multiplied by to be metres; `variance`
    of it; `agreed`: measurements taken, of `asked` keyframes, both of the last ones at most;
    `refused`: on end.
    """

    log_error: float = 0.0
    variance: float = math.inf
    agreed: float = 0
    asked: float = 0
    refused: int = 0

    @staticmethod
    def assumed() -> MetricScale:
        """Return the filter of a map that begins in live lengths that are metres."""
        return MetricScale(0.0, METRIC_LIVE_STD**2, ENOUGH, ENOUGH)

    @property
    def known(self) -> bool:
        """Whether enough measurements agree."""
        return self.agreed >= max(ENOUGH, LEAST_ANSWERED * self.asked)

    @property
    def std(self) -> float:
        """Standard deviation of the logarithm; infinite while nothing is known."""
        return math.sqrt(self.variance)

    def measured(self, log_error: float, log_std: float) -> MetricScale:
        """Return the filter after the map has drifted for a keyframe and was measured again."""
        noise = (CORRELATION * log_std) ** 2
        variance = self.variance + DRIFT_STD**2
        surprise = log_error - self.log_error
        agreed, asked = self._one_more()
        if not self.agreed:
            return MetricScale(log_error, noise, 1, asked)
        if surprise * surprise > GATE**2 * (variance + noise):
            if self.refused + 1 >= PATIENCE:
                return MetricScale(log_error, noise, 1, 1)
            return MetricScale(self.log_error, variance, agreed, asked, self.refused + 1)
        gain = variance / (variance + noise)
        moved = self.log_error + gain * surprise
        return MetricScale(moved, (1.0 - gain) * variance, agreed + 1, asked)

    def unmeasured(self) -> MetricScale:
        """Return the filter after a keyframe that showed nothing."""
        agreed, asked = self._one_more()
        return replace(self, variance=self.variance + DRIFT_STD**2, agreed=agreed, asked=asked)

    def _one_more(self) -> tuple[float, float]:
        """Return `agreed` and `asked` when one more keyframe has been asked, not yet answered."""
        fade = min(1.0, MEMORY / (self.asked + 1))
        return fade * self.agreed, fade * (self.asked + 1)

    def corrected(self) -> MetricScale:
        """Return the filter after the map was multiplied by exp(log_error)."""
        return replace(self, log_error=0.0)
