"""Write config/vo_stream.yaml, docs/parameters.md and docs/ros_interface.md from the code.

python tools/make_reference.py [--check]
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import yaml

from vo_stream.config import NOT_FOR_THE_NODE, ONLY_FOR_THE_NODE, Config, settings
from vo_stream.ros.interface import PUBLISHED, SERVICES, SUBSCRIBED
from vo_stream.setting import Setting

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100

YAML_HEAD = """\
# All settings of vo_stream with their defaults: for vo-stream replay --config FILE and for the
# ROS 2 node (ros2 run vo_stream vo_stream_node --ros-args --params-file FILE). What you leave out
# keeps its default. Taken says when the node takes a change: at once, when it is next configured or
# when its process starts.
# Written by tools/make_reference.py from vo_stream/config.py: change it there.
/**:
  ros__parameters:
"""

PARAMETERS_HEAD = """\
# Settings

Every setting, with its default. Set it in a file (`vo-stream replay SOURCE --config FILE`; take
[config/vo_stream.yaml](../config/vo_stream.yaml) or the part of it that differs) or with a flag,
which goes before the file: `vo-stream replay SOURCE --net.backend geometric`. A key that does not
exist or a value that is not allowed is an error.

The ROS node has them as parameters and takes the same files: `ros2 run vo_stream vo_stream_node
--ros-args --params-file FILE -p net.backend:=geometric`. A value that is not allowed is an error
there too; a name that does not exist is only warned of, since a file may be for several nodes.
`ros2 param describe` shows what is written here, and `ros2 param set` changes a running node. The
column *taken* says when the node takes a change:

- **at once**: with the next image;
- **at configure**: when the node is configured. While it is inactive or active the change is
  refused: deactivate and clean up first;
- **at start**: when the process starts. The parameter is read-only.

A file may hold the settings of the node and those of a replay: each passes over the other's. Of a
file for several nodes `vo-stream replay` takes what a node called vo_stream would.

Written by `tools/make_reference.py` from `vo_stream/config.py`: change it there.
"""

INTERFACE_HEAD = """\
# Topics and services

What the node `vo_stream` has on the ROS graph. Names without a slash are relative to its namespace,
names with `~/` are below the node's own, and all can be remapped. Its parameters are in
[parameters.md](parameters.md).

Written by `tools/make_reference.py` from `vo_stream/ros/interface.py`: change it there.
"""

QOS = {
    "sensor": "best effort",
    "reliable": "reliable",
    "tf": "reliable, with a long queue",
    "latched": "reliable and transient local: who comes late gets the last one",
    "tf_static": "reliable and transient local: who comes late gets them all",
}
"""The profiles of `vo_stream/ros/qos.py`, for people."""

QOS_TAIL = """
Images are asked for reliable, with no limit to the queue, where `input.drop_stale` is false;
`camera_info` is asked for latched where all its publishers are. Subscriptions to images,
calibration and wheels take less where a publisher offers less. Their history, depth and
reliability, and those of what is published (but `/diagnostics`), can be set by parameters with the
topic's full name: `qos_overrides./image.subscription.reliability`,
`qos_overrides./tf.publisher.depth`.

Beside these the node listens to `/tf` for 5 s after it was activated, to find out who else
publishes its transforms, and publishes `base_link` to camera on `/tf_static` once if `frames.mount`
is forward.
"""

SERVICES_HEAD = (
    "All are of type `std_srvs/srv/Trigger`; the message of the answer says what was done."
)


def parameter_file() -> str:
    """Return the text of config/vo_stream.yaml."""
    lines = [YAML_HEAD]
    for section, group in _sections():
        lines.append(_comment(_about(section), 4))
        lines.append(f"    {section}:\n")
        for setting in group:
            taken = _taken(section, setting)
            when = f" Taken {taken}." if taken else ""
            lines.append(_comment(setting.help, 6))
            lines.append(_comment(f"Allowed: {_allowed(setting)}.{when}", 6))
            lines.append(f"      {setting.key.split('.')[1]}: {_value(setting)}\n")
    return "".join(lines)


def parameters() -> str:
    """Return the text of docs/parameters.md."""
    lines = [PARAMETERS_HEAD]
    for section, group in _sections():
        lines.append(f"\n## {section}\n\n{_about(section)}\n\n")
        rows = [
            (f"`{s.key}`", f"`{_value(s)}`", _allowed(s), _taken(section, s), s.help) for s in group
        ]
        lines.append(_table(("setting", "default", "allowed", "taken", "what it does"), rows))
    return "".join(lines)


def interface() -> str:
    """Return the text of docs/ros_interface.md."""
    subscribed = [(f"`{t.name}`", f"`{t.type}`", t.qos, t.help) for t in SUBSCRIBED]
    published = [(f"`{t.name}`", f"`{t.type}`", t.qos, t.rate, t.help) for t in PUBLISHED]
    services = [(f"`{service.name}`", service.help) for service in SERVICES]
    profiles = dict.fromkeys(topic.qos for topic in (*SUBSCRIBED, *PUBLISHED))
    return "".join(
        [
            INTERFACE_HEAD,
            "\n## Subscribed\n\n",
            _table(("topic", "type", "QoS", "what it says"), subscribed),
            "\n## Published\n\n",
            _table(("topic", "type", "QoS", "when", "what it says"), published),
            "\n## QoS\n\n",
            *(f"- **{name}**: {QOS[name]}.\n" for name in profiles),
            QOS_TAIL,
            f"\n## Services\n\n{SERVICES_HEAD}\n\n",
            _table(("service", "what it does"), services),
        ]
    )


FILES = {
    "config/vo_stream.yaml": parameter_file,
    "docs/parameters.md": parameters,
    "docs/ros_interface.md": interface,
}


def _sections() -> list[tuple[str, list[Setting]]]:
    by_section = groupby(settings(), key=lambda setting: setting.key.split(".")[0])
    return [(section, list(group)) for section, group in by_section]


def _about(section: str) -> str:
    """Return what a section is about, and who reads it where that is not everyone."""
    about = " ".join((getattr(Config(), section).__doc__ or "").split())
    if section in NOT_FOR_THE_NODE:
        return f"{about} Only for vo-stream replay."
    if section in ONLY_FOR_THE_NODE:
        return f"{about} Only for the ROS node."
    return about


def _taken(section: str, setting: Setting) -> str:
    return "" if section in NOT_FOR_THE_NODE else setting.taken


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


def _allowed(setting: Setting) -> str:
    """Return the allowed values with the range in full digits."""
    if setting.choices:
        return ", ".join(setting.choices)
    if setting.minimum is None or setting.maximum is None:
        return setting.allowed
    kind = "whole number" if setting.type is int else "number"
    limits = f"{_number(setting.minimum)} to {_number(setting.maximum)}"
    return f"{kind} from {limits} {setting.unit}".rstrip()


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)


def _value(setting: Setting) -> str:
    """Return the default as YAML writes it."""
    return yaml.safe_dump(setting.default).removesuffix("...\n").strip()


def _comment(text: str, indent: int) -> str:
    prefix = " " * indent + "# "
    return textwrap.fill(text, WIDTH, initial_indent=prefix, subsequent_indent=prefix) + "\n"


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Write the files that list every setting.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if outdated")
    check = parser.parse_args().check
    outdated = 0
    for name, text in FILES.items():
        path, new = ROOT / name, text()
        if path.is_file() and path.read_text(encoding="utf-8") == new:
            continue
        if check:
            print(f"{name} is out of date: python tools/make_reference.py", file=sys.stderr)
            outdated = 1
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(new, encoding="utf-8")
            print(f"wrote {name}")
    return outdated


if __name__ == "__main__":
    sys.exit(main())
