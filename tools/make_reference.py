"""Write config/vo_stream.yaml and docs/parameters.md from the tree of settings.

python tools/make_reference.py [--check]
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from itertools import groupby
from pathlib import Path

import yaml

from vo_stream.config import Config, settings
from vo_stream.setting import Setting

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100

YAML_HEAD = """\
# All settings of vo_stream with their defaults: for vo-stream replay --config FILE and as a ROS 2
# parameter file. What you leave out keeps its default.
# Written by tools/make_reference.py from vo_stream/config.py: change it there.
/**:
  ros__parameters:
"""

TABLE_HEAD = """\
# Settings

Every setting, with its default. Set it in a file (`vo-stream replay SOURCE --config FILE`; take
[config/vo_stream.yaml](../config/vo_stream.yaml) or the part of it that differs) or with a flag,
which goes before the file: `vo-stream replay SOURCE --net.backend geometric`. A key that does not
exist or a value that is not allowed is an error.

Written by `tools/make_reference.py` from `vo_stream/config.py`: change it there.
"""


def parameter_file() -> str:
    """Return the text of config/vo_stream.yaml."""
    lines = [YAML_HEAD]
    for section, group in _sections():
        lines.append(_comment(_about(section), 4))
        lines.append(f"    {section}:\n")
        for setting in group:
            lines.append(_comment(setting.help, 6) + _comment(f"Allowed: {_allowed(setting)}.", 6))
            lines.append(f"      {setting.key.split('.')[1]}: {_value(setting)}\n")
    return "".join(lines)


def table() -> str:
    """Return the text of docs/parameters.md."""
    lines = [TABLE_HEAD]
    for section, group in _sections():
        lines.append(f"\n## {section}\n\n{_about(section)}\n\n")
        lines.append("| setting | default | allowed | what it does |\n| --- | --- | --- | --- |\n")
        for setting in group:
            cells = [f"`{setting.key}`", f"`{_value(setting)}`", _allowed(setting), setting.help]
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n")
    return "".join(lines)


FILES = {"config/vo_stream.yaml": parameter_file, "docs/parameters.md": table}


def _sections() -> list[tuple[str, list[Setting]]]:
    by_section = groupby(settings(), key=lambda setting: setting.key.split(".")[0])
    return [(section, list(group)) for section, group in by_section]


def _about(section: str) -> str:
    return " ".join((getattr(Config(), section).__doc__ or "").split())


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
