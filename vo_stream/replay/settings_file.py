"""Parameter files: the YAML that a ROS node takes, or the bare tree of settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vo_stream.config import Config
from vo_stream.errors import ConfigError
from vo_stream.replay.plain_yaml import load_yaml

ROS_KEY = "ros__parameters"


def read_settings(path: Path, base: Config | None = None) -> Config:
    """Read a YAML file over `base` (the defaults); raises ConfigError naming file and key.

    A ROS parameter file (`NODE: ros__parameters: ...`, one node) serves as it is.
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
    if len(tree) == 1:
        node = next(iter(tree.values()))
        if isinstance(node, Mapping) and isinstance(node.get(ROS_KEY), Mapping):
            tree = node[ROS_KEY]
    return (base or Config()).replaced(tree, str(path))
