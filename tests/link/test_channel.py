"""The links that need no process."""

from __future__ import annotations

import pytest
from link_cases import RAISE, Counting, make_frame, with_settings

from vo_stream.config import Config
from vo_stream.link.channel import InlineLink, Link, LinkStatus, NoLink
from vo_stream.values import Refinement


def test_inline_works_a_frame_off_at_once() -> None:
    link: Link = InlineLink(Counting(Config()))
    for i in range(3):
        assert link.send(*make_frame(i))
    assert link.finish(0.0)
    refinements = [link.poll() for _ in range(4)]
    assert refinements.pop() is None
    assert [r.stamp_ns for r in refinements if r] == [make_frame(i)[0].stamp_ns for i in range(3)]
    assert link.status() == LinkStatus(alive=True, state="inline", sent=3, received=3)
    link.close()


def test_a_refused_frame_is_left_out() -> None:
    link = InlineLink(Counting(Config()))
    frame, estimate = make_frame(0)
    assert link.send(frame, with_settings(estimate, refused=True))
    assert link.poll() is None
    assert link.status().sent == 0


def test_inline_hides_no_bug() -> None:
    with pytest.raises(RuntimeError, match="asked for it"):
        InlineLink(Counting(Config())).send(*make_frame(0, RAISE))


def test_the_real_adjuster_inline() -> None:
    from vo_stream.adjust.adjuster import Adjuster

    refinements: list[list[int]] = []
    for _ in range(2):
        link = InlineLink(Adjuster(Config()))
        came: list[Refinement] = []
        for i in range(20):
            link.send(*make_frame(i))
            while (refinement := link.poll()) is not None:
                came.append(refinement)
        refinements.append([r.stamp_ns for r in came])
    assert refinements[0] == refinements[1] != []


def test_no_link_leads_nowhere() -> None:
    link: Link = NoLink()
    assert link.send(*make_frame(0))
    assert link.poll() is None
    assert link.finish(0.0)
    assert link.status() == LinkStatus(alive=False, state="off")
    link.close()
