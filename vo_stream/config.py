"""The one tree of settings.

Parameter files, command-line flags, the reference table in docs/parameters.md and (with the ROS
node) ROS parameters all derive from the dataclasses below: nothing is written twice. This module
reads no file; whoever reads one passes its name on as `where` for the messages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple, get_type_hints

from vo_stream.errors import ConfigError


class Setting(NamedTuple):
    """One leaf of the tree: dotted `key`, python `type`, and what `_setting` was told."""

    key: str
    type: type
    default: object
    help: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]

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


def _setting(
    default: object,
    help: str,  # noqa: A002 - the field's word for it
    *,
    unit: str = "",
    within: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    low, high = within or (None, None)
    return field(
        default=default,
        metadata={"help": help, "unit": unit, "low": low, "high": high, "choices": choices},
    )


@dataclass(frozen=True, slots=True)
class NetConfig:
    """Which backend estimates the motion between frames."""

    backend: str = _setting(
        "auto",
        "Motion backend. auto takes the best one that runs here and logs why; a named one that "
        "cannot run is an error.",
        choices=("auto", "geometric"),
    )


@dataclass(frozen=True, slots=True)
class GeometricConfig:
    """The classical backend: tracked corners, the essential matrix, landmarks that carry scale."""

    max_pixels: int = _setting(
        480_000,
        "Images with more pixels are scaled down to about this many before corners are tracked.",
        unit="px",
        within=(10_000, 4_000_000),
    )
    corners: int = _setting(500, "Corners tracked from frame to frame, at most.", within=(50, 2000))
    window_px: int = _setting(
        15, "Side of the window that the corner tracker compares.", unit="px", within=(7, 41)
    )
    levels: int = _setting(
        4, "Pyramid levels of the corner tracker; more follow faster motion.", within=(1, 6)
    )
    forward_backward_px: float = _setting(
        0.5,
        "A corner is dropped when tracking it there and back misses its start by more.",
        unit="px",
        within=(0.05, 5.0),
    )
    epipolar_px: float = _setting(
        1.0,
        "Largest distance from its epipolar line at which a corner still supports a motion.",
        unit="px",
        within=(0.1, 5.0),
    )
    solver: str = _setting(
        "five_point",
        "Minimal solver of the essential matrix (five_point: Nister 2004; eight_point: Hartley "
        "1997, degenerate on planes).",
        choices=("five_point", "eight_point"),
    )
    seed: int = _setting(
        0, "Seed of the random sampling; equal seeds give equal results.", within=(0, 2**31 - 1)
    )


@dataclass(frozen=True, slots=True)
class TrackConfig:
    """The odometer: what it refuses, when it waits, when it gives up."""

    max_gap_s: float = _setting(
        1.0,
        "A longer pause between frames restarts the backend; the pose is kept, its covariance "
        "grows by what the camera may have moved.",
        unit="s",
        within=(0.05, 60.0),
    )
    max_backwards_s: float = _setting(
        1.0,
        "A stamp that goes back by less is refused; by more it starts a new session (a bag that "
        "loops, a clock that was set).",
        unit="s",
        within=(0.0, 3600.0),
    )
    max_coast_s: float = _setting(
        0.5,
        "How long the pose goes on at the last speed while the images show no motion; then it is "
        "LOST and held.",
        unit="s",
        within=(0.3, 5.0),
    )
    max_speed_m_s: float = _setting(
        100.0,
        "A faster motion is an error of the backend and taken as not seen.",
        unit="m/s",
        within=(0.1, 1000.0),
    )
    max_turn_rate_rad_s: float = _setting(
        10.0,
        "A faster turn is an error of the backend and taken as not seen.",
        unit="rad/s",
        within=(0.1, 100.0),
    )
    lost_speed_m_s: float = _setting(
        2.0,
        "Speed at which the position's standard deviation grows while nothing is seen of the "
        "motion (LOST, gaps).",
        unit="m/s",
        within=(0.01, 100.0),
    )
    lost_turn_rate_rad_s: float = _setting(
        0.5,
        "Rate at which the heading's standard deviation grows meanwhile.",
        unit="rad/s",
        within=(0.01, 10.0),
    )
    zero_motion_px: float = _setting(
        0.3,
        "The camera stands still while the picture stays within this distance of where it was "
        "when it came to rest; 0 switches the gate off.",
        unit="px",
        within=(0.0, 5.0),
    )


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """How recordings are read."""

    topic: str = _setting(
        "", "Image topic of a bag; empty takes the only one there is, or asks for a choice."
    )
    camera_info_topic: str = _setting(
        "", "CameraInfo topic of a bag; empty takes the one beside the image topic."
    )
    groundtruth_topic: str = _setting(
        "",
        "Topic of a bag with the true poses of the camera's optical frame (PoseStamped or "
        "Odometry); empty: none.",
    )
    rectified: bool = _setting(
        False,
        "The images are rectified already: the projection matrix P of CameraInfo holds and there "
        "is no distortion. Topics whose name ends in image_rect are taken so anyway.",
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of vo_stream."""

    net: NetConfig = field(default_factory=NetConfig)
    geometric: GeometricConfig = field(default_factory=GeometricConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)

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


def settings() -> Iterator[Setting]:
    """Yield every setting in the tree's order."""
    for section in dataclasses.fields(Config):
        section_type = get_type_hints(Config)[section.name]
        types = get_type_hints(section_type)
        for leaf in dataclasses.fields(section_type):
            about = leaf.metadata
            yield Setting(
                key=f"{section.name}.{leaf.name}",
                type=types[leaf.name],
                default=leaf.default,
                help=about["help"],
                unit=about["unit"],
                minimum=about["low"],
                maximum=about["high"],
                choices=about["choices"],
            )


def _plain(number: float | None) -> str:
    """Return a number without an exponent."""
    return f"{number:.15g}"


def _flat(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, path + ".")
        else:
            yield path, value


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
