from __future__ import annotations

import pytest

from vo_stream.track.status import Tracking
from vo_stream.values import Status

COAST_S = 0.5


@pytest.mark.parametrize("before", list(Status))
def test_a_seen_motion_tracks_whatever_was_before(before: Status) -> None:
    assert Tracking(before, 9.0).after(0.1, True, COAST_S) == Tracking(Status.TRACKING, 0.0)


@pytest.mark.parametrize("before", list(Status))
def test_blindness_degrades_then_loses(before: Status) -> None:
    tracking = Tracking(before)
    statuses = []
    for _ in range(8):
        tracking = tracking.after(0.1, False, COAST_S)
        statuses.append(tracking.status)
    assert statuses == [Status.DEGRADED] * 5 + [Status.LOST] * 3
    assert tracking.blind_s == pytest.approx(0.8)
