"""Parameter files: the YAML that a ROS node takes, or the bare tree of settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from vo_stream.config import Config
from vo_stream.errors import ConfigError
from vo_stream.replay.plain_yaml import load_yaml

ROS_KEY = "ros__parameters"

NODE_NAME = "vo_stream"
"""The node whose settings count in a file for several."""

OURS = (NODE_NAME, "*", "**")
"""How the name of a section ends that the node may take."""

ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides")
"""Parameters of every node, which a replay has no use for."""


def read_settings(path: Path, base: Config | None = None) -> Config:
    """Read a YAML file over `base` (the defaults); raises ConfigError naming file and key.

    A ROS parameter file serves as it is: of the nodes in it, those sections count that a node
    called vo_stream takes, in any namespace. As in ROS, what comes later wins.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        tree = load_yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "") or error
        raise ConfigError(f"{path}: cannot be read ({why})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{path}: is not valid YAML ({line})") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, Mapping) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"{path}: must be a mapping of settings, not {type(tree).__name__}")
    config = base or Config()
    for section in _sections(path, tree):
        config = config.replaced(section, str(path))
    return config


def _sections(path: Path, tree: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the trees of settings in a file, in its order: one, or those of a ROS file."""
    nodes: list[tuple[str, object]] = []
    outside: list[str] = []
    for key, value in tree.items():
        found = list(_nodes({key: value}))
        nodes += found
        outside += [] if found else [key]
    if not nodes:
        return [tree]
    if outside:
        raise ConfigError(f"{path}: {outside[0]!r} stands outside of {ROS_KEY}; put it below")
    ours = [(name, values) for name, values in nodes if name.rpartition("/")[2] in OURS]
    if not ours:
        names = ", ".join(dict.fromkeys(repr(name) for name, _ in nodes))
        raise ConfigError(
            f"{path}: has no settings for a node called {NODE_NAME}, only for {names}"
        )
    named = dict.fromkeys(repr(name) for name, _ in ours if "*" not in name)
    if len(named) > 1:
        raise ConfigError(f"{path}: has settings for {' and '.join(named)}; leave one of them")
    return [_settings_of(path, name, values) for name, values in ours]


def _nodes(tree: Mapping[str, object], namespace: str = "") -> Iterator[tuple[str, object]]:
    """Yield the full name and the parameters of each node; namespaces may stand above it."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            name = f"{namespace}/{str(key).strip('/')}"
            if ROS_KEY in value:
                yield name, value[ROS_KEY]
            else:
                yield from _nodes(value, name)


def _settings_of(path: Path, node: str, values: object) -> Mapping[str, object]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path}: {ROS_KEY} of {node!r} must be a mapping of settings")
    return {
        key: value for key, value in values.items() if str(key).partition(".")[0] not in ROS_OWN
    }
