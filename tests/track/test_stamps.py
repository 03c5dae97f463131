from __future__ import annotations

import pytest

from vo_stream.track.stamps import JUMP_S, StampCheck

S = 1_000_000_000
LAST = 1_700_000_000 * S


@pytest.mark.parametrize(
    ("after_s", "word"),
    [
        (0.0, "previous"),
        (-0.5, "older"),
        (0.1, ""),
        (5.0, ""),
        (-5.0, ""),
        (JUMP_S + 1.0, "confirm"),
        (-JUMP_S - 1.0, "confirm"),
    ],
)
def test_one_stamp(after_s: float, word: str) -> None:
    refusal = StampCheck(1.0).refusal(LAST + round(after_s * S), LAST)
    assert (word in refusal) if word else (refusal == "")


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_jump_is_believed_when_the_next_stamp_goes_on_from_it(jump_s: float) -> None:
    stamps = StampCheck(1.0)
    jumped = LAST + round(jump_s * S)
    assert stamps.refusal(jumped, LAST)
    assert stamps.refusal(jumped + S // 10, LAST) == ""
    assert stamps.turned_back(jumped, LAST) == (jump_s < 0.0)


def test_a_wrong_stamp_between_good_ones_is_forgotten() -> None:
    stamps = StampCheck(1.0)
    assert stamps.refusal(LAST + 3600 * S, LAST)
    assert stamps.refusal(LAST + S // 10, LAST) == ""
    assert stamps.refusal(LAST + 3601 * S, LAST)


def test_pictures_taken_far_apart_lose_only_the_first() -> None:
    stamps = StampCheck(1.0)
    assert stamps.refusal(LAST + 60 * S, LAST)
    assert stamps.refusal(LAST + 120 * S, LAST) == ""
