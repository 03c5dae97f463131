"""Files are whole or not there, whoever else writes, and what is no file is left alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from vo_stream.replay.atomic import write_atomically


def test_many_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    path, texts = tmp_path / "file", [str(n) * 100_000 for n in range(10)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(write_atomically, path), texts * 5))
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("old")
    link = tmp_path / "link"
    link.symlink_to("there")
    write_atomically(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "there").read_text() == "new"


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, "text")
    with pytest.raises(OSError, match="no regular file"):
        write_atomically(Path("/dev/null"), "text")
    assert not Path("/dev/null").is_file()
