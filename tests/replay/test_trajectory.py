"""Trajectories: exact stamps, TUM files, interpolation and its limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from vo_stream.errors import SourceError
from vo_stream.replay.trajectory import (
    MAX_INTERPOLATION_GAP_NS,
    SAME_TIME_NS,
    Trajectory,
    format_tum,
    parse_stamp_ns,
    read_tum,
)
from vo_stream.se3 import SE3


@pytest.mark.parametrize(
    ("text", "stamp_ns"),
    [
        ("0", 0),
        ("5.", 5_000_000_000),
        ("1305031102.175304", 1305031102175304000),
        ("1403715273.262142976", 1403715273262142976),  # 19 digits: a float would round
        ("1403715273.2621429769", 1403715273262142976),  # what is finer than 1 ns is cut
        ("1.5e1", 15_000_000_000),
        ("-2.25", -2_250_000_000),
        (" 7.000000001 ", 7_000_000_001),
    ],
)
def test_stamps_are_exact(text: str, stamp_ns: int) -> None:
    assert parse_stamp_ns(text) == stamp_ns


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e30", "abc", "1.2.3", "0x10"])
def test_what_is_no_stamp(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - Python's own words for most of them
        parse_stamp_ns(text)


@given(st.integers(0, 2**62), st.lists(st.floats(-1e4, 1e4), min_size=6, max_size=6))
def test_tum_lines_round_trip(stamp_ns: int, twist: list[float]) -> None:
    pose = SE3.exp(twist)
    words = format_tum(stamp_ns, pose).split()
    assert parse_stamp_ns(words[0]) == stamp_ns
    values = [float(w) for w in words[1:]]
    again = SE3.from_quaternion_xyzw(values[3:], values[:3])
    assert_allclose(again.translation, pose.translation, rtol=1e-8, atol=1e-8)
    assert (pose.inverse() @ again).angle < 1e-7


def test_negative_stamps_round_trip() -> None:
    for stamp_ns in (-1, -1_500_000_000, -2_000_000_000):
        assert parse_stamp_ns(format_tum(stamp_ns, SE3.identity()).split()[0]) == stamp_ns


def test_file_round_trip(tmp_path: Path) -> None:
    poses = [SE3.exp([i, -i, 0.5 * i, 0.1 * i, 0.2, -0.3]) for i in range(5)]
    stamps = [1403715273262142976 + 50_000_000 * i for i in range(5)]
    path = tmp_path / "wegstück.tum"
    lines = [format_tum(s, p) for s, p in zip(stamps, poses, strict=True)]
    path.write_text("# a comment\n\n" + "".join(reversed(lines)) + lines[2], encoding="utf-8")
    read = read_tum(path)
    assert read.stamps_ns.tolist() == stamps
    assert len(read) == 5
    for there, pose in zip(read.world_from_camera, poses, strict=True):
        assert_allclose(there.translation, pose.translation, atol=1e-8)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("1.0 1 2 3 0 0 0", 2),
        ("1.0 1 2 3 0 0 0 0", 2),
        ("1.0 1 2 nan 0 0 0 1", 2),
        ("soon 1 2 3 0 0 0 1", 2),
        ("1.0 1 2 x 0 0 0 1", 2),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, number: int) -> None:
    path = tmp_path / "bad.tum"
    path.write_text(f"0.0 0 0 0 0 0 0 1\n{line}\n", encoding="utf-8")
    with pytest.raises(SourceError, match=rf"bad\.tum:{number}: expected"):
        read_tum(path)


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty.tum", tmp_path / "binary.tum"
    empty.write_text("# nothing\n", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe\x00\x01")
    for path, said in [(empty, "no pose"), (binary, "TUM"), (tmp_path / "absent", "TUM")]:
        with pytest.raises(SourceError, match=said):
            read_tum(path)


def test_interpolation_follows_the_screw() -> None:
    first, motion = SE3.exp([1.0, 2.0, 3.0, 0.3, 0.0, 0.1]), [1.0, 0.0, 0.2, 0.0, 0.4, 0.0]
    both = Trajectory(np.array([0, 100_000_000]), (first, first @ SE3.exp(motion)))
    quarter = both.at(25_000_000)
    assert quarter is not None
    expected = first @ SE3.exp(0.25 * np.array(motion))
    assert_allclose(quarter.wxyz_xyz, expected.wxyz_xyz, atol=1e-12)


def test_gaps_and_ends_have_no_pose() -> None:
    gap = MAX_INTERPOLATION_GAP_NS + 1
    pose = SE3.identity()
    path = Trajectory(np.array([0, gap, 2 * gap - 1]), (pose,) * 3)
    assert path.at(gap // 2) is None
    assert path.at(gap + gap // 2) is not None
    assert path.at(-SAME_TIME_NS - 1) is None
    assert path.at(2 * gap + SAME_TIME_NS) is None
    for near in (-SAME_TIME_NS, SAME_TIME_NS, gap - SAME_TIME_NS, 2 * gap - 1 + SAME_TIME_NS):
        assert path.at(near) is pose
    assert Trajectory(np.array([], dtype=np.int64), ()).at(0) is None


def test_a_trajectory_is_in_order() -> None:
    pose = SE3.identity()
    with pytest.raises(ValueError, match="strictly"):
        Trajectory(np.array([0, 0]), (pose, pose))
    with pytest.raises(ValueError, match="one stamp"):
        Trajectory(np.array([0]), (pose, pose))
    other = SE3.exp([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    path = Trajectory.from_unsorted([5, 1, 5], [pose, pose, other])
    assert path.stamps_ns.tolist() == [1, 5]
    assert path.world_from_camera[1] is pose
    assert not path.stamps_ns.flags.writeable
