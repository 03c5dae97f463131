"""How the error of a pose grows out of the errors of its steps.

Errors of neighbouring steps are alike: what made a network's last step too long makes the next one
too long, too. Taken for independent, a thousand steps would seem to average out what in truth adds
up. So the error of each axis, in its standard deviations, is here the sum of two: white noise, and
a first-order Gauss-Markov process, which fades with time. The processes are carried beside the
pose's error as a part of the state (Gelb, "Applied Optimal Estimation", 1974, section 4.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vo_stream.se3 import SE3, Array

AXES = ("vx", "vy", "vz", "wx", "wy", "wz")
"""Of an error twist: m, then rad."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """How alike the errors of steps are, for each of the six `AXES`.

    `share`: of the variance that lasts, 0..1. `time_s`: after which it has faded to 1/e, above 0.
    Raises ValueError for others.
    """

    share: tuple[float, ...]
    time_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.share) == len(self.time_s) == len(AXES):
            raise ValueError(f"{len(self.share)} shares, {len(self.time_s)} times for six axes")
        if not all(0.0 <= share <= 1.0 for share in self.share):
            raise ValueError(f"shares {self.share} are not all from 0 to 1")
        if not all(time > 0.0 for time in self.time_s):
            raise ValueError(f"times {self.time_s} s are not all above 0")


INDEPENDENT = Correlation((0.0,) * 6, (1.0,) * 6)


@dataclass(frozen=True, slots=True, eq=False)
class PoseError:
    """What is known of the error of a pose.

    `covariance`: (6, 6) of its error twist (v, w) in the camera's frame. `of_steps`: (6, 6) what it
    would be if the errors of steps were independent: what it grows by is what the steps in between
    were said to be worth. `lasting`: (6, 6) the covariance of the error twist, by rows, with the
    lasting error of each axis, which is in its standard deviations.
    """

    covariance: Array
    of_steps: Array
    lasting: Array

    @classmethod
    def of(cls, covariance: Array) -> PoseError:
        """Return the error of a pose before the first step."""
        return cls(covariance, covariance, np.zeros((6, 6)))

    def plus(self, covariance: Array) -> PoseError:
        """Return the error after something of which nothing but a covariance is known."""
        return PoseError(self.covariance + covariance, self.of_steps + covariance, self.lasting)

    def after(
        self, motion: SE3, std: npt.ArrayLike, dt_s: float, correlation: Correlation
    ) -> PoseError:
        """Return the error after one more step, of `dt_s` seconds.

        `motion`: prev_from_curr. `std`: (6,) standard deviations of its error twist in the current
        camera's frame.
        """
        std = np.asarray(std, dtype=np.float64)
        back = motion.inverse()
        faded = np.exp(-dt_s / np.array(correlation.time_s))
        before = back.adjoint() @ self.lasting * faded
        lasts = np.sqrt(correlation.share) * std
        crossed = before * lasts
        step = np.diag(std**2)
        return PoseError(
            back.transport(self.covariance) + step + crossed + crossed.T,
            back.transport(self.of_steps) + step,
            before + np.diag(lasts),
        )
