"""One setting: a leaf of the tree in `config.py`, with its type, unit and range."""

from __future__ import annotations

from dataclasses import field
from typing import Any, NamedTuple

from vo_stream.errors import ConfigError

AT_ONCE, AT_CONFIGURE, AT_START = "at once", "at configure", "at start"
"""When a running node takes a changed setting: with the next frame, the next time it is configured,
or only when its process starts."""


class Setting(NamedTuple):
    """One leaf of the tree: dotted `key`, python `type`, and what `setting` was told.

    `taken`: when a running node takes a new value.
    """

    key: str
    type: type
    default: object
    help: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    taken: str = AT_CONFIGURE

    @property
    def allowed(self) -> str:
        """The allowed values, for a person."""
        if self.type is bool:
            return "true or false"
        if self.choices:
            return "one of " + ", ".join(self.choices)
        kind = {int: "a whole number", float: "a number", str: "a text"}[self.type]
        unit = f" {self.unit}" if self.unit else ""
        if self.minimum is None:
            return kind
        return f"{kind} from {_plain(self.minimum)} to {_plain(self.maximum)}{unit}"

    def parse(self, value: object, where: str) -> object:
        """Return `value` as this setting's type; raise ConfigError where it is not allowed.

        Texts are read as numbers and booleans too, since that is what a command line gives.
        """
        parsed = _converted(value, self.type)
        ok = parsed is not None
        if ok and self.choices:
            ok = parsed in self.choices
        if ok and isinstance(parsed, (int, float)) and self.minimum is not None:
            assert self.maximum is not None
            ok = self.minimum <= parsed <= self.maximum  # nan is neither
        if not ok:
            raise ConfigError(f"{where}: {self.key}: {value!r} is not {self.allowed}")
        return parsed


def setting(
    default: object,
    help: str,  # noqa: A002 - the field's word for it
    *,
    unit: str = "",
    within: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    taken: str = AT_CONFIGURE,
) -> Any:
    """Return a dataclass field that says all there is to say of a setting.

    `within`: lowest and highest value allowed. `choices`: the only ones. `taken`: when a running
    node takes a new value, `AT_ONCE`, `AT_CONFIGURE` or `AT_START`.
    """
    low, high = within or (None, None)
    about = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata={**about, "taken": taken})


def _plain(number: float | None) -> str:
    """Return a number without an exponent."""
    return f"{number:.15g}"


def _converted(value: object, to: type) -> object | None:
    """Return `value` as `to`, or None where that would bend it."""
    if to is bool:
        if isinstance(value, str):
            return {"true": True, "false": False}.get(value.lower())
        return value if isinstance(value, bool) else None
    if to is str:
        return value if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return int(value) if to is int and not isinstance(value, float) else _number(value, to)
    except (ValueError, OverflowError):
        return None


def _number(value: int | float | str, to: type) -> object | None:
    number = float(value)
    if to is float:
        return number
    return int(number) if number.is_integer() else None
