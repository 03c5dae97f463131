"""What is written beside a network's file: how to feed it, and whether it is the right one.

`odometry.onnx` has `odometry.json` beside it, and `odometry.safetensors` the weights that both
came from. Nothing in the graph has to be guessed: the rule for the size of images, the names and
shapes of the state, the hashes of the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vo_stream.errors import NetError
from vo_stream.net.stepnet import NetSpec
from vo_stream.pose_error import INDEPENDENT, Correlation

SCHEMA = 2
"""Of the sidecar; raised when a reader of the old one would misread the new one."""

RELEASED = Path(__file__).parent.parent / "weights" / "odometry.onnx"
"""The network that comes with the package."""

RELEASED_INT8 = RELEASED.with_name("odometry_int8.onnx")
"""The same with convolutions of 8 bits, for the CPU."""

PREVIOUS, NEXT = "prev_", "next_"
"""A part of the state called x is the graph's input prev_x and its output next_x."""

INPUTS = ("image", "rays", "dt")
OUTPUTS = ("rotation", "translation", "std", "flow", "inverse_depth", "weight")
"""The graph's other inputs and outputs, in this order; shapes and units as in `net.model`."""


@dataclass(frozen=True, slots=True)
class StatePart:
    """One tensor of the state, without the batch: `channels` then (H, W) over `divisor`.

    `divisor` 0: it has no place in the image, `channels` is its whole shape.
    """

    channels: tuple[int, ...]
    divisor: int = 0

    def shape(self, width: int, height: int) -> tuple[int, ...]:
        """Return the shape for images of that size, a batch of one included."""
        if not self.divisor:
            return (1, *self.channels)
        return (1, *self.channels, height // self.divisor, width // self.divisor)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """All that must be known of a network's file.

    `name`, `version`: of the network and of the vo_stream that wrote it. `core`: its recurrent
    core. `precision`: fp32, fp16 or int8. `max_pixels`, `multiple`: the size of images, as in
    `NetSpec`. `size`: (width, height) where the graph takes only one, else None. `rate_hz`: lowest
    and highest frame rate that it was trained on; None where the weights do not tell. `states`:
    the parts of the state in the graph's order. `sha256`: of the files beside this one, by suffix.
    `correlation`: how alike the errors of its steps are.
    """

    name: str
    version: str
    core: str
    precision: str
    max_pixels: int
    multiple: int
    size: tuple[int, int] | None
    rate_hz: tuple[float, float] | None
    states: Mapping[str, StatePart]
    sha256: Mapping[str, str]
    correlation: Correlation = INDEPENDENT

    def spec(self, backend: str) -> NetSpec:
        """Return what the odometer must know of a backend that runs this network."""
        common = (backend, True, self.max_pixels, self.multiple, self.correlation)
        return NetSpec(*common) if self.size is None else _OneSize(*common, self.size)

    def text(self) -> str:
        """Return the sidecar as it is written: one JSON object."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class _OneSize(NetSpec):
    """Of a graph that takes images of one (width, height) only, whatever the camera's."""

    size: tuple[int, int] = (0, 0)

    def input_size(self, camera_size: tuple[int, int]) -> tuple[int, int]:
        return self.size


def sidecar_of(model_file: Path) -> Path:
    """Return where the sidecar of a network's file lies."""
    return model_file.with_suffix(".json")


def read_sidecar(model_file: Path) -> Sidecar:
    """Read what lies beside a network's file and check the file's hash.

    Raises NetError, in one line, where either is missing, damaged or of another version.
    """
    path = sidecar_of(model_file)
    digest = hashlib.sha256(_bytes(model_file)).hexdigest()
    try:
        content = json.loads(_bytes(path))
        schema = content["schema"]
    except (ValueError, KeyError, TypeError):
        raise NetError(f"{path}: not the description of a network") from None
    if schema != SCHEMA:
        raise NetError(f"{path}: of schema {schema}, and this version reads {SCHEMA} only")
    try:
        sidecar = _parsed(content)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise NetError(f"{path}: damaged ({type(error).__name__}: {error})") from None
    if sidecar.sha256.get(model_file.suffix) != digest:
        raise NetError(f"{model_file}: not the file that {path.name} describes (sha256 differs)")
    return sidecar


def read_sidecar_for_gpu(model_file: Path) -> Sidecar:
    """Do what `read_sidecar` does for a file that TensorRT is to run; NetError for one in int8."""
    sidecar = read_sidecar(model_file)
    if sidecar.precision == "int8":
        raise NetError(f"{model_file}: int8 is for the CPU, TensorRT takes fp32 or fp16")
    return sidecar


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NetError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None


def _parsed(content: Mapping[str, Any]) -> Sidecar:
    """Return the sidecar in a JSON object; raises what a wrong one leads to."""
    states = {
        str(name): StatePart(tuple(map(_count, part["channels"])), _count(part["divisor"], least=0))
        for name, part in content["states"].items()
    }
    size, rate = content["size"], content["rate_hz"]
    return Sidecar(
        name=str(content["name"]),
        version=str(content["version"]),
        core=str(content["core"]),
        precision=str(content["precision"]),
        max_pixels=_count(content["max_pixels"]),
        multiple=_count(content["multiple"]),
        size=None if size is None else (_count(size[0]), _count(size[1])),
        rate_hz=None if rate is None else (float(rate[0]), float(rate[1])),
        states=states,
        sha256={str(name): str(digest) for name, digest in content["sha256"].items()},
        correlation=Correlation(
            *(tuple(map(float, content["correlation"][key])) for key in ("share", "time_s"))
        ),
    )


def _count(value: object, least: int = 1) -> int:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{value!r} is no count")
    return value
