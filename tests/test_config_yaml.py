"""The parameter files that we ship: each serves a replay and the node as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vo_stream.config import Config, check_adjuster
from vo_stream.replay.settings_file import read_settings

FILES = {path.stem: path for path in sorted(Path(__file__).parents[1].glob("config/*.yaml"))}

HINT = re.compile(r"^    # ((?:  )?[a-z_]+:(?: \S+)?)$", re.MULTILINE)
"""A section or a setting that is commented out."""


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_every_key_exists_and_its_value_is_allowed(path: Path) -> None:
    check_adjuster(read_settings(path))


@pytest.mark.parametrize("name", ["kitti", "handheld", "euroc"])
def test_what_is_commented_out_exists_too(name: str, tmp_path: Path) -> None:
    text, hints = HINT.subn(r"    \1", FILES[name].read_text(encoding="utf-8"))
    assert hints >= 2, "a section and a setting"
    changed = tmp_path / "changed.yaml"
    changed.write_text(text, encoding="utf-8")
    assert read_settings(changed) != read_settings(FILES[name])


@pytest.mark.parametrize(
    ("name", "source", "mount", "height_m"),
    [
        ("kitti", "camera_height", "forward", 1.65),
        ("handheld", "none", "forward", 0.0),
        ("euroc", "none", "forward", 0.0),
    ],
)
def test_the_examples_say_where_metres_come_from_and_how_the_camera_sits(
    name: str, source: str, mount: str, height_m: float
) -> None:
    config = read_settings(FILES[name])
    assert (config.scale.source, config.scale.camera_height_m) == (source, height_m)
    assert config.frames.mount == mount
    assert config != Config()
