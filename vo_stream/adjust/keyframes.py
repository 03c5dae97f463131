"""When a frame becomes a keyframe."""

from __future__ import annotations

import numpy as np

from vo_stream.adjust.tracks import Ids
from vo_stream.se3 import SE3, Array

PARALLAX_RAD = 0.04
"""Median parallax since the last keyframe that calls for the next: enough to see depth by, and
little enough that most corners are still the same."""

MIN_SHARED = 0.6
"""The next is due too when less than this part of the last one's corners is left."""

MAX_WAIT_S = 3.0
SLOW_PARALLAX_RAD = 0.005
"""And after this long, if there is this much parallax: a slow camera's map grows too, that of one
that stands still does not."""

FEWEST_SHARED = 8
"""With fewer shared corners the parallax says nothing, and a keyframe with fewer is worth none."""


def parallax_rad(last_plane: Array, plane: Array, last_from_here: SE3) -> float:
    """Return the median angle between shared corners' rays that the turn does not explain.

    `last_plane`, `plane`: (n, 2) their places on the plane z = 1 in the last keyframe and here.
    """
    if len(plane) < FEWEST_SHARED:
        return 0.0
    rays = np.concatenate([plane, np.ones((len(plane), 1))], axis=1) @ last_from_here.rotation.T
    ahead = rays[:, 2] > 0.0
    shift = rays[:, :2] / np.where(ahead, rays[:, 2], 1.0)[:, None] - last_plane
    return float(np.median(np.where(ahead, np.linalg.norm(shift, axis=1), np.pi)))


def is_due(last_ids: Ids, shared: int, parallax: float, wait_s: float) -> bool:
    """Say whether a frame should be a keyframe.

    `last_ids`: corners of the last one, of which `shared` are still there; `parallax` in radians
    and `wait_s` since then.
    """
    return (
        parallax > PARALLAX_RAD
        or len(last_ids) < FEWEST_SHARED
        or shared < MIN_SHARED * len(last_ids)
        or (wait_s > MAX_WAIT_S and parallax > SLOW_PARALLAX_RAD)
    )
