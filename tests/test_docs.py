"""What the documents name exists: flags, settings, topics, launch arguments, files, log lines."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from vo_stream.cli import main
from vo_stream.config import settings
from vo_stream.ros import interface

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vo_stream"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
TROUBLES = ROOT / "docs" / "troubleshooting.md"

KEYS = {setting.key for setting in settings()}
SECTIONS = {key.partition(".")[0] for key in KEYS}
TOPICS = {topic.name for topic in (*interface.SUBSCRIBED, *interface.PUBLISHED)}
OWN = {
    name
    for name in (*TOPICS, *(service.name for service in interface.SERVICES))
    if name.startswith("~/")
}
"""Names below the node's own."""

FOREIGN = {
    "ROS": "--ros-args --params-file --show-args",
    "colcon": "--packages-select --verbose",
    "rosdep": "--from-paths --ignore-src",
    "pip and venv": "--extra-index-url --system-site-packages",
    "static_transform_publisher": "--x --z --roll --yaw --frame-id --child-frame-id",
}
"""Flags of other people's commands."""

FOLDERS = ("config", "docs", "launch", "tests", "tools", "vo_stream")
FILE_ENDINGS = (".json", ".md", ".py", ".rviz", ".xml", ".yaml")

WILDCARD = "…"
SHORTEST_PART = 5
"""Characters of a quoted log line that mean something."""


def code_of(text: str) -> list[str]:
    """Return the code in a document: lines of blocks, joined where they go on, and spans."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    blocks = [body for kind, body in fence.findall(text) if kind != "text"]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`([^`]+)`", fence.sub("", text))
    return [*lines, *(" ".join(span.split()) for span in spans)]


def faults(text: str, document: Path = ROOT / "README.md") -> list[str]:
    """Return what a document of that text and place names that does not exist."""
    found = [f"link to {link}" for link in links_of(text) if not leads_somewhere(link, document)]
    for code in code_of(text):
        found += [f"flag {flag}" for flag in flags_of(code) if flag not in known_flags()]
        found += [f"setting {key}" for key in keys_of(code) if not is_key(key)]
        found += [f"topic or service {name}" for name in own_names_of(code) if name not in OWN]
        found += [f"file {name}" for name in files_of(code) if not is_file(name)]
        found += [f"make {goal}" for goal in goals_of(code) if goal not in goals()]
        found += [f"argument {name}" for name in arguments_of(code) if not is_argument(name, code)]
        found += command_faults(code)
    return found


def links_of(text: str) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def leads_somewhere(link: str, document: Path) -> bool:
    name, _, anchor = link.partition("#")
    target = document.parent / name if name else document
    if not anchor or not target.is_file():
        return target.exists()
    return anchor in anchors(target.read_text(encoding="utf-8"))


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def flags_of(code: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][\w.-]*", code)


@cache
def known_flags() -> set[str]:
    """Return the flags of every command here, and those of other people's."""
    known = {"--help", "--version"}
    for command in main.commands.values():
        known |= {flag for parameter in command.params for flag in parameter.opts}
    for path in (*PACKAGE.rglob("*.py"), *ROOT.glob("tools/*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("add_argument"):
                known |= {str(a.value) for a in call.args if isinstance(a, ast.Constant)}
    return known.union(*(flags.split() for flags in FOREIGN.values()))


def words_of(code: str) -> list[str]:
    """Return the words of code, each without the punctuation around it."""
    return [word.strip(".,;:") for word in re.split(r"[^\w.~/:-]+|:=", code)]


def keys_of(code: str) -> list[str]:
    """Return what is written like a setting: a section, a dot, a name."""
    return [
        word.lstrip("-")
        for word in words_of(code)
        if re.fullmatch(rf"(--)?({'|'.join(SECTIONS)})\.\w+", word)
        and not word.endswith(FILE_ENDINGS)
    ]


def is_key(name: str) -> bool:
    """Whether it is a setting, or a module of the package."""
    return name in KEYS or (PACKAGE / f"{name.replace('.', '/')}.py").is_file()


def own_names_of(code: str) -> list[str]:
    return [
        re.sub(r"^.*/vo_stream/", "~/", word)
        for word in words_of(code)
        if re.fullmatch(r"~/[a-z_]+|(/\w+)?/vo_stream/[a-z_]+", word)
    ]


def files_of(code: str) -> list[str]:
    """Return what is written like a file of the repository."""
    rooms = [path.name for path in PACKAGE.iterdir() if path.is_dir()]
    folders = "|".join((*FOLDERS, *rooms))
    return [
        word
        for word in words_of(code)
        if (re.match(rf"({folders})/", word) and word.endswith(FILE_ENDINGS))
        or word.endswith(".launch.py")
    ]


def is_file(name: str) -> bool:
    return any((folder / name).is_file() for folder in (ROOT, PACKAGE, ROOT / "launch"))


def goals_of(code: str) -> list[str]:
    return re.findall(r"^make ([a-z]+)", code)


@cache
def goals() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


def arguments_of(code: str) -> list[str]:
    return re.findall(r"([\w./~]+):=", code)


def is_argument(name: str, code: str) -> bool:
    """Whether a name in NAME:=VALUE is of a launch file, a parameter or a topic.

    In a command that launches a file it must be that file's.
    """
    launched = re.search(r"ros2 launch vo_stream (\S+)", code)
    if launched:
        return name in declared(launched[1])
    files = [path.name for path in ROOT.glob("launch/*.launch.py")]
    return name in KEYS | TOPICS or any(name in declared(file) for file in files)


@cache
def declared(file: str) -> frozenset[str]:
    """Return the arguments of a launch file and of those that it includes."""
    path = ROOT / "launch" / file
    if not path.is_file():
        return frozenset()
    source = path.read_text(encoding="utf-8")
    names = set(re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', source))
    for other in re.findall(r'"(\w+\.launch\.py)"', source):
        names |= declared(other)
    return frozenset(names)


def command_faults(code: str) -> Iterator[str]:
    """Parse a whole `vo-stream` command line as the command itself would."""
    name, *words = shlex.split(code, comments=True) if code.startswith("vo-stream ") else [""]
    if not words:
        return
    command = main.commands.get(words[0])
    if command is None:
        yield f"command {code}"
    elif len(words) > 1:
        try:
            command.make_context(name, words[1:])
        except (click.exceptions.Exit, click.MissingParameter):  # --help; a part of a command
            pass
        except click.UsageError as error:
            yield f"command {code}: {error.format_message()}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_exists(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8"), path) == []


@pytest.mark.parametrize(
    "text",
    [
        "[a](docs/nowhere.md)",
        "[a](README.md#nowhere)",
        "`--no-such-flag`",
        "`ros2 run x --no-such-flag`",
        "`track.no_such_key`",
        "`vo-stream replay X --track.no_such_key 1`",
        "`~/no_such_topic`",
        "`/left/vo_stream/no_such_topic`",
        "`config/no_such.yaml`",
        "`replay/no_such.py`",
        "`no_such.launch.py`",
        "`make nothing`",
        "`nothing:=true`",
        "`-p track.no_such_key:=1`",
        "`ros2 launch vo_stream vo_stream.launch.py bag:=x`",
        "`vo-stream nothing`",
        "`vo-stream play BAG --net geometric`",
        "`vo-stream play BAG --rate fast`",
        "```\nvo-stream play BAG \\\n    --net geometric\n```",
        "a span `over two\nlines --no-such-flag`",
    ],
)
def test_what_does_not_exist_is_found(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    [
        "[a](docs/design.md) and [b](https://example.org/nowhere.md)",
        "`vo-stream replay X --track.max_gap_s 2 --no-adjust`",
        "`track.max_gap_s` `net.stepnet` `replay.launch.py` `track/scale.py`",
        "`~/reset` `/left/vo_stream/odometry` `/camera/image_raw`",
        "`-p frames.mount:=forward -r image:=/a/b` `drop_stale:=false` `make test`",
        "`ros2 launch vo_stream replay.launch.py bag:=x mount:=forward`",
    ],
)
def test_what_exists_is_left_alone(text: str) -> None:
    assert faults(text) == []


def quoted_lines() -> list[str]:
    blocks = re.findall(
        r"^```text\n(.*?)^```$",
        TROUBLES.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return [line for block in blocks for line in block.splitlines()]


@cache
def texts_in_the_code() -> str:
    """Return every text in the package's code, those of f-strings in their parts."""
    texts = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def unsaid(line: str) -> list[str]:
    """Return the parts of a quoted log line that the code does not say."""
    return [part for part in parts_of(line) if not is_said(part)]


def parts_of(line: str) -> list[str]:
    parts = [part.strip(" :(),;") for part in line.split(WILDCARD)]
    return [part for part in parts if len(part) >= SHORTEST_PART]


def is_said(part: str) -> bool:
    """Whether the code holds a text, or two that make it up, as where one is a reason."""
    said = texts_in_the_code()
    cuts = range(SHORTEST_PART, len(part) - SHORTEST_PART + 1)
    return part in said or any(part[:cut] in said and part[cut:] in said for cut in cuts)


def test_log_lines_are_quoted() -> None:
    assert len(quoted_lines()) > 20


@pytest.mark.parametrize("line", quoted_lines())
def test_the_node_says_what_is_quoted(line: str) -> None:
    assert parts_of(line)
    assert unsaid(line) == []


def test_a_line_that_nobody_says_is_found() -> None:
    assert unsaid("nobody publishes …, and nobody ever will") == ["and nobody ever will"]


def test_the_table_of_diagnostics_is_whole() -> None:
    table = (ROOT / "docs" / "ros.md").read_text(encoding="utf-8").partition("\n| key |")[2]
    rows = table.partition("\n\n")[0].splitlines()[2:]
    documented = [key for row in rows for key in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert sorted(key.replace("REASON", "") for key in documented) == sorted(diagnostics_keys())


def diagnostics_keys() -> set[str]:
    """Return the keys that the node's diagnostics have; of one that is made, how it begins."""
    tree = ast.parse((PACKAGE / "ros" / "diagnostics.py").read_text(encoding="utf-8"))
    keys: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            keys.append(node.value.elts[0])
        elif isinstance(node, ast.Dict):
            keys += node.keys
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "values":
            keys.append(node.slice)
    parts = [key.values[0] if isinstance(key, ast.JoinedStr) else key for key in keys]
    texts = {part.value for part in parts if isinstance(part, ast.Constant)}
    return {text for text in texts if isinstance(text, str)}
