"""The tree of settings: every leaf, and every way to get one wrong."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from vo_stream.config import Config, settings
from vo_stream.errors import ConfigError
from vo_stream.net.backends import BACKENDS
from vo_stream.setting import Setting

SETTINGS = {s.key: s for s in settings()}
RANGED = [s for s in SETTINGS.values() if s.minimum is not None]
every_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
every_range = pytest.mark.parametrize("setting", RANGED, ids=[s.key for s in RANGED])


def value_of(config: Config, key: str) -> object:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def refused(key: str, value: object) -> str:
    """Return the one line that refuses a value, after checking that it says what helps."""
    with pytest.raises(ConfigError) as caught:
        Config().replaced({key: value}, "robot.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"robot.yaml: {key}: ")
    assert message.endswith(SETTINGS[key].allowed)
    return message


def test_settings_cover_every_field_of_every_section() -> None:
    expected = [
        f"{section.name}.{leaf.name}"
        for section in dataclasses.fields(Config)
        for leaf in dataclasses.fields(getattr(Config(), section.name))
    ]
    assert list(SETTINGS) == expected


@every_setting
def test_each_setting_says_what_it_is(setting: Setting) -> None:
    assert setting.type in (bool, int, float, str)
    assert type(setting.default) is setting.type
    assert setting.help.endswith(".")
    assert setting.allowed
    assert (setting.minimum is None) == (setting.maximum is None)
    if setting.type in (int, float):
        assert setting.minimum is not None, "a number has a range"


@every_setting
def test_each_default_is_allowed_as_itself_and_as_text(setting: Setting) -> None:
    assert value_of(Config(), setting.key) == setting.default
    for value in (setting.default, str(setting.default)):
        parsed = setting.parse(value, "here")
        assert parsed == setting.default
        assert type(parsed) is setting.type


@every_range
def test_the_ends_of_a_range_belong_to_it_and_what_is_beyond_does_not(setting: Setting) -> None:
    low, high = setting.minimum, setting.maximum
    assert low is not None
    assert high is not None
    assert setting.parse(low, "here") == low
    assert setting.parse(high, "here") == high
    for value in (low - 1, high + 1, math.nan, math.inf, -math.inf, "nan", "inf"):
        refused(setting.key, value)


@every_setting
def test_values_of_another_type_are_refused(setting: Setting) -> None:
    values: tuple[object, ...] = (None, [], [setting.default], b"1", 1j, object)
    for value in values:
        refused(setting.key, value)
    if setting.type is not str:
        refused(setting.key, "many")
        refused(setting.key, "")
    if setting.type in (int, float):
        refused(setting.key, True)
    if setting.type in (bool, str):
        refused(setting.key, 1)


@every_range
def test_a_number_too_large_for_a_float_is_refused_like_any_other(setting: Setting) -> None:
    for value in (10**400, -(10**400), "1" + "0" * 400, "1e400"):
        refused(setting.key, value)


@pytest.mark.parametrize(
    ("key", "value", "parsed"),
    [
        ("geometric.corners", "200", 200),
        ("geometric.corners", 200.0, 200),
        ("track.max_gap_s", 2, 2.0),
        ("track.max_gap_s", " 2.5e-1", 0.25),
        ("camera.rectified", "True", True),
        ("camera.rectified", "false", False),
        ("camera.rectified", False, False),
        ("replay.topic", "/camera/image", "/camera/image"),
        ("geometric.solver", "eight_point", "eight_point"),
    ],
)
def test_values_are_read_as_a_person_means_them(key: str, value: object, parsed: object) -> None:
    result = value_of(Config().replaced({key: value}), key)
    assert result == parsed
    assert type(result) is type(parsed)


@pytest.mark.parametrize("value", [200.5, "200.5", "2 00", "0x80"])
def test_a_whole_number_is_never_rounded(value: object) -> None:
    assert "a whole number from 50 to 2000" in refused("geometric.corners", value)


def test_choices_are_named() -> None:
    message = refused("geometric.solver", "six_point")
    assert message == (
        "robot.yaml: geometric.solver: 'six_point' is not one of five_point, eight_point"
    )
    assert "true or false" in refused("camera.rectified", "yes")


def test_the_backends_of_the_setting_are_those_there_are() -> None:
    assert SETTINGS["net.backend"].choices == ("auto", *BACKENDS)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("geometric.corner", "geometric.corners"),
        ("net.backed", "net.backend"),
        ("track.max_gap", "track.max_gap_s"),
        ("replay.Topic", "replay.topic"),
    ],
)
def test_an_unknown_setting_is_answered_with_near_ones(key: str, near: str) -> None:
    section, name = key.split(".")
    for tree in ({key: 1}, {section: {name: 1}}):
        with pytest.raises(ConfigError) as caught:
            Config().replaced(tree, "robot.yaml")
        message = str(caught.value)
        assert message.startswith(f"robot.yaml: unknown setting {key!r}; known: ")
        suggested = re.split(", ", message.split("known: ")[1])
        assert near in suggested
        assert len(suggested) <= 3


@pytest.mark.parametrize("key", ["", "net", "zzzzzzz", "net.backend.name", "net\nbackend", "."])
def test_a_key_like_none_of_them_is_answered_in_one_line(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config().replaced({key: 1}, "robot.yaml")
    assert "\n" not in str(caught.value)
    assert "net.backend" in str(caught.value)


def test_nested_and_dotted_keys_may_be_mixed() -> None:
    config = Config().replaced(
        {"geometric.corners": 200, "geometric": {"seed": 3, "levels": 2}, "geometric.seed": 4}
    )
    assert config.geometric == dataclasses.replace(
        Config().geometric, corners=200, seed=4, levels=2
    )
    assert config.track == Config().track


def test_replacing_leaves_the_original_and_the_rest_alone() -> None:
    base = Config().replaced({"track.max_gap_s": 3.0, "geometric.corners": 100})
    changed = base.replaced({"geometric": {"seed": 7}})
    assert base.geometric.seed == 0
    assert (changed.geometric.seed, changed.geometric.corners) == (7, 100)
    assert changed.track == base.track
    assert base.replaced({}) == base
    assert base.replaced({"track": {}}) == base


def test_the_tree_as_a_dictionary_builds_the_same_tree() -> None:
    config = Config().replaced({"replay.topic": "/a", "net.backend": "geometric"})
    tree = config.as_dict()
    assert tree["replay"]["topic"] == "/a"
    assert {f"{section}.{name}" for section, leaves in tree.items() for name in leaves} == set(
        SETTINGS
    )
    assert Config().replaced(tree) == config
