"""The one tree of settings.

Parameter files, command-line flags, ROS parameters and the reference table in docs/parameters.md
all derive from the dataclasses below: nothing is written twice. This module reads no file; whoever
reads one passes its name on as `where` for the messages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import get_type_hints

from vo_stream.errors import ConfigError
from vo_stream.io_config import (
    CameraConfig,
    FramesConfig,
    InputConfig,
    NodeConfig,
    PublishConfig,
    ReplayConfig,
)
from vo_stream.net_config import GeometricConfig as GeometricConfig
from vo_stream.net_config import NetConfig as NetConfig
from vo_stream.setting import AT_ONCE, Setting, setting


@dataclass(frozen=True, slots=True)
class TrackConfig:
    """The odometer: what it refuses, when it waits, when it gives up."""

    max_gap_s: float = setting(
        1.0,
        "A longer pause between frames restarts the backend; the pose is kept, its covariance "
        "grows by what the camera may have moved.",
        unit="s",
        within=(0.05, 60.0),
        taken=AT_ONCE,
    )
    max_backwards_s: float = setting(
        1.0,
        "A stamp that goes back by less is refused; by more it starts a new session (a bag that "
        "loops, a clock that was set).",
        unit="s",
        within=(0.0, 3600.0),
        taken=AT_ONCE,
    )
    max_coast_s: float = setting(
        0.5,
        "How long the pose goes on at the last speed while the images show no motion; then it is "
        "LOST and held.",
        unit="s",
        within=(0.3, 5.0),
        taken=AT_ONCE,
    )
    max_speed_m_s: float = setting(
        100.0,
        "A faster motion is an error of the backend and taken as not seen.",
        unit="m/s",
        within=(0.1, 1000.0),
        taken=AT_ONCE,
    )
    max_turn_rate_rad_s: float = setting(
        10.0,
        "A faster turn is an error of the backend and taken as not seen.",
        unit="rad/s",
        within=(0.1, 100.0),
        taken=AT_ONCE,
    )
    lost_speed_m_s: float = setting(
        2.0,
        "Speed at which the position's standard deviation grows while nothing is seen of the "
        "motion (LOST, gaps).",
        unit="m/s",
        within=(0.01, 100.0),
        taken=AT_ONCE,
    )
    lost_turn_rate_rad_s: float = setting(
        0.5,
        "Rate at which the heading's standard deviation grows meanwhile.",
        unit="rad/s",
        within=(0.01, 10.0),
        taken=AT_ONCE,
    )
    zero_motion_px: float = setting(
        0.3,
        "The camera stands still while the picture stays within this distance of where it was "
        "when it came to rest; 0 switches the gate off.",
        unit="px",
        within=(0.0, 5.0),
        taken=AT_ONCE,
    )


@dataclass(frozen=True, slots=True)
class ScaleConfig:
    """Where metres come from. One camera alone does not see them."""

    source: str = setting(
        "network",
        "network: the backend's lengths, metres where it knows them. camera_height: the ground "
        "seen by a camera of known height. wheel: the distance that the robot's wheels report. "
        "fixed: the backend's lengths times scale.factor, taken as metres. none: lengths are never "
        "called metres.",
        choices=("network", "camera_height", "wheel", "fixed", "none"),
    )
    camera_height_m: float = setting(
        0.0,
        "Height of the camera above flat ground, for scale.source camera_height; needs the "
        "adjuster. 0: not known.",
        unit="m",
        within=(0.0, 100.0),
    )
    wheel_std: float = setting(
        0.02,
        "Standard deviation of the distance that the wheels report, as a part of it, for "
        "scale.source wheel; needs the adjuster.",
        within=(0.001, 0.5),
    )
    factor: float = setting(
        1.0,
        "What the backend's lengths are multiplied by, for scale.source fixed.",
        within=(1e-6, 1e6),
    )


@dataclass(frozen=True, slots=True)
class AdjustConfig:
    """The background adjuster: keyframes refined together, over a window."""

    enabled: bool = setting(True, "Refine keyframes in the background; false: live odometry alone.")
    max_pixels: int = setting(
        310_000,
        "Images with more pixels are scaled down to about this many before corners are tracked.",
        unit="px",
        within=(10_000, 4_000_000),
    )
    tracks: int = setting(
        300,
        "Cells of the grid in which corners are sought, one in each that has none; about as many "
        "are tracked.",
        within=(50, 2000),
    )
    window: int = setting(8, "Keyframes that are refined together.", within=(3, 30))


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """The way to the adjuster's process."""

    endpoint: str = setting(
        "",
        "Where an adjuster on another computer listens: tcp://host:port. Empty starts one here, "
        "in a process of its own.",
    )
    server_key: str = setting(
        "",
        "File with the public CURVE key of that adjuster. Without it only this computer's own "
        "addresses are used.",
    )
    client_key: str = setting("", "File with this computer's secret CURVE key.")
    queue: int = setting(
        8,
        "Frames that may wait for the adjuster; the oldest is dropped and counted.",
        within=(1, 1000),
    )
    hang_s: float = setting(
        5.0,
        "An adjuster that has not answered for this long is replaced.",
        unit="s",
        within=(0.5, 600.0),
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of vo_stream."""

    net: NetConfig = field(default_factory=NetConfig)
    geometric: GeometricConfig = field(default_factory=GeometricConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    adjust: AdjustConfig = field(default_factory=AdjustConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    input: InputConfig = field(default_factory=InputConfig)
    frames: FramesConfig = field(default_factory=FramesConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    node: NodeConfig = field(default_factory=NodeConfig)

    def replaced(self, tree: Mapping[str, object], where: str = "settings") -> Config:
        """Return a copy with the nested or dotted keys of `tree` set anew; raises ConfigError."""
        known = {s.key: s for s in settings()}
        changes: dict[str, dict[str, object]] = {}
        for key, value in _flat(tree):
            if key not in known:
                near = get_close_matches(key, known, n=3, cutoff=0.5) or list(known)
                raise ConfigError(f"{where}: unknown setting {key!r}; known: {', '.join(near)}")
            section, name = key.split(".")
            changes.setdefault(section, {})[name] = known[key].parse(value, where)
        sections = {
            name: dataclasses.replace(getattr(self, name), **values)
            for name, values in changes.items()
        }
        return dataclasses.replace(self, **sections)

    def as_dict(self) -> dict[str, dict[str, object]]:
        """Return the tree as nested dictionaries of plain values."""
        return dataclasses.asdict(self)


NOT_FOR_THE_NODE = ("replay",)
ONLY_FOR_THE_NODE = ("input", "frames", "publish", "node")
"""Sections. A parameter file may hold them all: the node and a replay can share it."""


@cache
def settings(but: tuple[str, ...] = ()) -> tuple[Setting, ...]:
    """Return every setting in the tree's order, `but` those of some sections."""
    found = []
    for section in dataclasses.fields(Config):
        if section.name in but:
            continue
        section_type = get_type_hints(Config)[section.name]
        types = get_type_hints(section_type)
        for leaf in dataclasses.fields(section_type):
            about = leaf.metadata
            found.append(
                Setting(
                    key=f"{section.name}.{leaf.name}",
                    type=types[leaf.name],
                    default=leaf.default,
                    help=about["help"],
                    unit=about["unit"],
                    minimum=about["low"],
                    maximum=about["high"],
                    choices=about["choices"],
                    taken=about["taken"],
                )
            )
    return tuple(found)


def check_adjuster(config: Config) -> None:
    """Raise ConfigError where the settings ask of the adjuster what cannot be."""
    source = config.scale.source
    if source in ("camera_height", "wheel") and not config.adjust.enabled:
        raise ConfigError(
            f"scale.source: {source} needs the adjuster; let adjust.enabled be true or take "
            "another source"
        )
    if source == "camera_height" and config.scale.camera_height_m == 0.0:
        raise ConfigError(
            "scale.source: camera_height needs to know the height; give scale.camera_height_m"
        )


def _flat(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, path + ".")
        else:
            yield path, value
