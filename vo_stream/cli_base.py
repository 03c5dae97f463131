"""What the commands of `vo-stream` share: errors in one line, and a flag for each setting."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from vo_stream.config import ONLY_FOR_THE_NODE, Config, settings
from vo_stream.errors import VoStreamError
from vo_stream.setting import Setting

FilePath = click.Path(path_type=Path)


def printable(text: str) -> str:
    """Return a line of text that can do a terminal no harm."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


class Commands(click.Group):
    """Turns the package's errors into one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except VoStreamError as error:
            _fail(str(error))
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "vo-stream"
            _fail(f"{error.format_message()} See {command} --help.")


def _fail(message: str) -> NoReturn:
    click.echo(f"vo-stream: {printable(' '.join(message.split()))}", err=True)
    sys.exit(2)


def tell(what: str) -> None:
    """Say on a terminal what goes on; where there is none nobody waits."""
    if sys.stderr.isatty():
        click.echo(f"vo-stream: {printable(what)}", err=True)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one flag for each setting of the tree, and --config for a file of them."""
    for setting in reversed(settings(but=ONLY_FOR_THE_NODE)):
        option = click.option(
            f"--{setting.key}",
            _parameter(setting),
            metavar=_metavar(setting),
            help=f"{setting.help} [default: {setting.default!r}; {setting.allowed}]",
        )
        command = option(command)
    help_text = "YAML file of settings, as for the ROS node; flags override it."
    return click.option("--config", "config_file", type=FilePath, help=help_text)(command)


def _parameter(setting: Setting) -> str:
    return setting.key.replace(".", "__")


def _metavar(setting: Setting) -> str:
    return "|".join(setting.choices) or setting.unit or setting.type.__name__.upper()


def config_of(config_file: Path | None, flags: dict[str, Any]) -> Config:
    """Return the settings of a file and of flags, None where they were not given.

    Raises ConfigError where one is not allowed, SourceError where the file cannot be read.
    """
    from vo_stream.replay.settings_file import read_settings

    config = read_settings(config_file) if config_file else Config()
    for setting in settings(but=ONLY_FOR_THE_NODE):
        value = flags.get(_parameter(setting))
        if value is not None:
            config = config.replaced({setting.key: value}, "command line")
    return config
