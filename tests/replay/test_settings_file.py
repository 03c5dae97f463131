"""Parameter files: both forms, and what a broken one is answered with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vo_stream.config import Config, settings
from vo_stream.errors import ConfigError
from vo_stream.replay.settings_file import NODE_NAME, read_settings
from vo_stream.ros import interface

HOSTILE_SECONDS = 10
"""An answer is due in less; the files below would take years if they were taken at their word."""


def written(folder: Path, text: str) -> Path:
    path = folder / "robot.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


BARE = """
net:
  backend: geometric
geometric: {corners: 200, epipolar_px: 2}
track.max_gap_s: 0.5
"""
EXPECTED = Config().replaced(
    {
        "net.backend": "geometric",
        "geometric.corners": 200,
        "geometric.epipolar_px": 2.0,
        "track.max_gap_s": 0.5,
    }
)


SECTIONS = ["vo_stream", "/vo_stream", "/**", "/*", "/robot/vo_stream", "/**/vo_stream", "/robot/*"]


@pytest.mark.parametrize("node", SECTIONS)
def test_a_bare_tree_and_a_ros_parameter_file_say_the_same(node: str, tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, BARE)) == EXPECTED
    indented = BARE.replace("\n", "\n    ")
    ros = f"{node}:\n  ros__parameters:{indented}"
    assert read_settings(written(tmp_path, ros)) == EXPECTED


def test_the_name_of_the_node_is_that_of_the_node() -> None:
    assert NODE_NAME == interface.NODE_NAME


SEVERAL = """
/**:
  ros__parameters:
    use_sim_time: true
    geometric: {corners: 100, seed: 1}
camera_driver:
  ros__parameters: {frame_rate: 30, geometric: {levels: 2}}
{vo_stream}:
  ros__parameters:
    geometric: {corners: 200}
    track.max_gap_s: 0.5
    qos_overrides: {/image: {subscription: {reliability: reliable}}}
    qos_overrides./image.subscription.depth: 2
    start_type_description_service: false
/robot:
  ekf: {ros__parameters: {frequency: 50.0}}
"""
OF_SEVERAL = {"geometric.corners": 200, "geometric.seed": 1, "track.max_gap_s": 0.5}


@pytest.mark.parametrize("node", ["vo_stream", "/robot1/vo_stream", "/**/vo_stream"])
def test_of_a_file_for_several_nodes_the_settings_of_ours_are_taken(
    node: str, tmp_path: Path
) -> None:
    path = written(tmp_path, SEVERAL.replace("{vo_stream}", node))
    assert read_settings(path) == Config().replaced(OF_SEVERAL)


def test_a_namespace_may_stand_above_the_node(tmp_path: Path) -> None:
    text = "/robot:\n  vo_stream:\n    ros__parameters: {geometric: {corners: 200}}\n"
    assert read_settings(written(tmp_path, text)).geometric.corners == 200


@pytest.mark.parametrize(
    ("first", "second"), [("/**", "vo_stream"), ("vo_stream", "/**"), ("/vo_stream", "vo_stream")]
)
def test_the_later_section_wins(first: str, second: str, tmp_path: Path) -> None:
    text = (
        f"{first}: {{ros__parameters: {{geometric: {{corners: 100, seed: 1}}}}}}\n"
        f"{second}: {{ros__parameters: {{geometric.corners: 200}}}}\n"
    )
    config = read_settings(written(tmp_path, text))
    assert (config.geometric.corners, config.geometric.seed) == (200, 1)


def test_the_settings_of_two_robots_are_refused(tmp_path: Path) -> None:
    text = "".join(
        f"{name}: {{ros__parameters: {{}}}}\n" for name in ("/**", "/a/vo_stream", "b/vo_stream")
    )
    message = refused(written(tmp_path, text))
    assert message.endswith("has settings for '/a/vo_stream' and '/b/vo_stream'; leave one of them")


def test_every_default_survives_a_file(tmp_path: Path) -> None:
    for tree in (Config().as_dict(), {s.key: s.default for s in settings()}):
        assert read_settings(written(tmp_path, yaml.safe_dump(tree))) == Config()


def test_what_a_file_does_not_say_stays_as_it_was(tmp_path: Path) -> None:
    base = Config().replaced({"geometric.seed": 5, "geometric.corners": 100})
    config = read_settings(written(tmp_path, "geometric: {corners: 300}"), base)
    assert (config.geometric.seed, config.geometric.corners) == (5, 300)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "{}", "\ufeffnet: {}", "net: {}"])
def test_a_file_that_sets_nothing_changes_nothing(text: str, tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, text)) == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("geometric: {corners: 20}", "geometric.corners: 20 is not a whole number from 50 to 2000"),
        ("geometric: {corners: many}", "geometric.corners: 'many' is not a whole number"),
        ("geometric: {corners: [200]}", "geometric.corners: [200] is not a whole number"),
        ("geometric: {corners: 2020-01-01}", "geometric.corners: "),
        ("geometric: {corners: !!binary aGk=}", "geometric.corners: b'hi' is not"),
        ("geometric: {corners: }", "geometric.corners: None is not"),
        ("geometric: {solver: six}", "geometric.solver: 'six' is not one of five_point, eight_p"),
        ("track: {max_gap_s: .nan}", "track.max_gap_s: nan is not a number from 0.05 to 60 s"),
        ("net: geometric", "unknown setting 'net'; known: net.backend"),
        ("net: {1: x}", "unknown setting 'net.1'"),
        ("geometrc: {corners: 200}", "unknown setting 'geometrc.corners'; known: geometric.corn"),
        ("/**: {ros__parameters: {net: {backend: x}}}", "net.backend: 'x' is not one of auto, ten"),
        (
            "/**: {ros__parameters: {net: {backed: x}}}",
            "unknown setting 'net.backed'; known: net.b",
        ),
        ("/**: {ros__parameters: }", "ros__parameters of '/**' must be a mapping of settings"),
        ("/**: {ros__parameters: 3}", "ros__parameters of '/**' must be a mapping of settings"),
        ("/**: {ros__parameters: {use_sim: true}}", "unknown setting 'use_sim'"),
        (
            "ekf: {ros__parameters: {}}",
            "has no settings for a node called vo_stream, only for '/ekf'",
        ),
        (
            "a\\nb: {ros__parameters: {}}\n/c: {d: {ros__parameters: {}}}",
            "only for '/a\\\\nb', '/c/d'",
        ),
        ("net: {}\n/**: {ros__parameters: {}}", "'net' stands outside of ros__parameters"),
        ("ros__parameters: {net: {a: 1}}", "unknown setting 'ros__parameters.net.a'"),
        ("- net", "must be a mapping of settings, not list"),
        ("geometric", "must be a mapping of settings, not str"),
        ("1: 2", "must be a mapping of settings"),
        ("net: [", "is not valid YAML"),
        ("net: {}\n---\nnet: {}", "is not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("net: \x00", "is not valid YAML"),
        ("? [a]\n: b", "is not valid YAML"),
        ("\tnet: {}", "is not valid YAML"),
        ("net: *backend", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_answered_in_one_line(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in refused(written(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "nothing.yaml")
    assert "cannot be read" in refused(tmp_path)
    binary = tmp_path / "image.yaml"
    binary.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    assert "cannot be read" in refused(binary)


@pytest.mark.parametrize(
    "text",
    [
        "geometric: {seed: 3}\nnet: {}\ngeometric: {corners: 200}",
        "net: {backend: a, backend: auto}",
    ],
)
def test_a_section_or_key_given_twice_is_refused(text: str, tmp_path: Path) -> None:
    # Plain YAML keeps the last and drops the first without a word: geometric.seed above.
    message = refused(written(tmp_path, text))
    assert "twice" in message


LEVELS = range(1, 31)
TENFOLD = ", ".join(["*l{0}"] * 10)
MAPPED = "{{" + ", ".join(f"k{i}: *l{{0}}" for i in range(10)) + "}}"
HOSTILE = {
    "lists": "geometric: {corners: [&l0 [x], "
    + ", ".join(f"&l{n} [{TENFOLD.format(n - 1)}]" for n in LEVELS)
    + "]}",
    "mappings": "net: {}\nl0: &l0 {}\n"
    + "".join(f"l{n}: &l{n} {MAPPED.format(n - 1)}\n" for n in LEVELS),
    "merges": "l0: &l0 {x: 1}\n"
    + "".join(f"l{n}: &l{n} {{<<: [{TENFOLD.format(n - 1)}]}}\n" for n in LEVELS),
    "itself": "net: &net {net: *net}",
    "deep lists": "net: " + "[" * 2000,
    "deep mappings": "net: " + "{a: " * 3000 + "1" + "}" * 3000,
    "a long number": "geometric: {corners: " + "9" * 5000 + "}",
    "a large number": "track: {max_gap_s: 1" + "0" * 400 + "}",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_soon_in_one_line(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, HOSTILE[kind])
    code = (
        "import resource, sys; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "from vo_stream.errors import ConfigError\n"
        "from vo_stream.replay.settings_file import read_settings\n"
        "try: read_settings(Path(sys.argv[1]))\n"
        "except ConfigError as error: print(error)\n"
    )
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True,
            text=True,
            timeout=HOSTILE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.fail("no answer")
    assert answer.stderr == ""
    (line,) = answer.stdout.splitlines()
    assert line.startswith(f"{path}: ")
    assert len(line) < 1000
