"""YAML without its traps: no aliases, no key twice, no objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml


def load_yaml(text: str) -> Any:
    """Read YAML of plain values; raises yaml.YAMLError or ValueError, RecursionError if too deep.

    Keys given twice, of which YAML drops the first in silence, are refused; so are aliases: a few
    lines of them unfold into more than memory holds.
    """
    import yaml

    _check(yaml.compose(text, Loader=yaml.SafeLoader), set())
    return yaml.safe_load(text)


def _check(node: yaml.Node | None, seen: set[int]) -> None:
    if node is None or not isinstance(node.value, list):
        return
    if id(node) in seen:
        raise ValueError(f"line {node.start_mark.line + 1}: YAML aliases are not allowed")
    seen.add(id(node))
    keys: set[object] = set()
    for child in node.value:
        key, value = child if isinstance(child, tuple) else (None, child)
        if key is not None and not isinstance(key.value, list):
            if key.value in keys:
                raise ValueError(f"line {key.start_mark.line + 1}: {key.value!r} is given twice")
            keys.add(key.value)
        _check(value, seen)
