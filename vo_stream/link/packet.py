"""A message as parts: a short header and raw arrays, checked in every respect when it is read.

The first part is the magic, the version and a JSON object: `kind`, `stream`, `arrays` (name to
[type, shape], in the order of the parts that follow) and the kind's own fields. Nothing here can
run code of the sender, and nothing is allocated by what a header says: an array is a view of a part
that has come already.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

MAGIC = b"VOSL"
VERSION = 2
_PREFIX = struct.Struct(">4sH")

MAX_HEADER_BYTES = 16 * 1024
MAX_PART_BYTES = 64 * 1024 * 1024
"""Also the largest image: 8192 x 8192 pixels."""
MAX_PARTS = 8
MAX_TEXT = 400
"""Characters; a longer text of ours is cut, one that comes is refused."""
MAX_DIGITS = 20
"""Of a whole number: those of 64 bits."""

INT64 = 2**63
UINT64 = 2**64

MAX_MESSAGE_BYTES = MAX_PART_BYTES + (1 << 20)
"""An image and all that goes with it."""
_LENGTH = struct.Struct(">Q")

Part: TypeAlias = "bytes | memoryview"

_TYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in ("|u1", "<f4", "<f8", "<i8")}
"""Types that travel; the bytes are little-endian on every machine."""


class WireError(ValueError):
    """A message that cannot be used; whoever gets one ignores it and counts it."""


def pack(
    kind: str, stream: int, fields: Mapping[str, object], arrays: Mapping[str, npt.NDArray[Any]]
) -> list[Part]:
    """Return the parts of a message; raises WireError where it would not be accepted.

    An array is not copied where its numbers lie in memory one after the other: its part is a view.
    """
    described: dict[str, object] = {}
    parts: list[Part] = []
    for name, array in arrays.items():
        sent = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        if sent.dtype.str not in _TYPES or sent.nbytes > MAX_PART_BYTES:
            raise WireError(f"{name}: {array.dtype} {array.shape} is too large or of no type here")
        described[name] = [sent.dtype.str, list(array.shape)]
        parts.append(sent.reshape(-1).view(np.uint8).data)
    tree = {"kind": kind, "stream": stream, "arrays": described, **fields}
    try:
        header = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise WireError(f"the header cannot be written: {error}") from None
    parts.insert(0, _PREFIX.pack(MAGIC, VERSION) + header)
    size = sum(memoryview(part).nbytes for part in parts) + _LENGTH.size * (1 + len(parts))
    if len(parts[0]) > MAX_HEADER_BYTES or size > MAX_MESSAGE_BYTES:
        raise WireError(f"{kind}: {size} bytes are too large to be sent")
    return parts


def joined(parts: Sequence[Part]) -> bytes:
    """Return the parts of a message in one piece: their number, their lengths, then they."""
    sizes = [len(parts), *(memoryview(part).nbytes for part in parts)]
    return b"".join([*map(_LENGTH.pack, sizes), *parts])


def split(message: Part) -> list[Part]:
    """Return views of the parts of `joined`; none where it is no such message."""
    data = memoryview(message)
    if data.nbytes < _LENGTH.size:
        return []
    (count,) = _LENGTH.unpack_from(data)
    at = _LENGTH.size * (1 + count)
    if count > 1 + MAX_PARTS or at > data.nbytes:
        return []
    sizes = [_LENGTH.unpack_from(data, _LENGTH.size * (1 + i))[0] for i in range(count)]
    if at + sum(sizes) != data.nbytes:
        return []
    ends = [*accumulate(sizes, initial=at)]
    return [data[begin:end] for begin, end in pairwise(ends)]


class Packet:
    """A message that has come: its fields, each checked when it is asked for.

    All that reads raises WireError: the constructor where the parts are no message at all, the
    methods where a field is missing, of another type or out of its range.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        if not 1 <= len(parts) <= 1 + MAX_PARTS:
            raise WireError(f"a message of {len(parts)} parts")
        self._fields = _header(parts[0])
        self.kind = self.text("kind")
        self.stream = self.integer("stream", 0, UINT64 - 1)
        self._arrays = self._described(parts[1:])

    def integer(self, name: str, low: int = -INT64, high: int = INT64 - 1) -> int:
        """Return a whole number from `low` to `high`."""
        value = self._fields.get(name)
        if type(value) is not int or not low <= value <= high:
            self._refuse(name)
        return value

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self._fields.get(name)
        if not isinstance(value, bool):
            self._refuse(name)
        return value

    def text(self, name: str, longest: int = MAX_TEXT) -> str:
        """Return a text of at most `longest` characters that can be written down again."""
        value = self._fields.get(name)
        if not isinstance(value, str) or len(value) > longest or _has_lone_surrogates(value):
            self._refuse(name)
        return value

    def numbers(self, name: str, most: int) -> list[float]:
        """Return a list of at most `most` finite numbers."""
        values = self._fields.get(name)
        if not isinstance(values, list) or len(values) > most:
            self._refuse(name)
        if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
            self._refuse(name)
        return [float(value) for value in values]

    def has_array(self, name: str) -> bool:
        """Say whether the message has an array of that name."""
        return name in self._arrays

    def array(self, name: str, kind: str, *shape: int | None) -> npt.NDArray[Any]:
        """Return an array of that type (a numpy type string) and shape; None: any length.

        One of bytes is a view of the message. Others are copied, since they may lie unaligned.
        """
        array = self._arrays.get(name)
        if array is None or array.dtype != _TYPES[kind] or array.ndim != len(shape):
            raise WireError(f"{self.kind}: {name} is missing or of another type")
        due = zip(array.shape, shape, strict=True)
        if any(length != expected for length, expected in due if expected is not None):
            raise WireError(f"{self.kind}: {name} has the shape {array.shape}")
        native = array.dtype.newbyteorder("=")
        return array if array.dtype.itemsize == 1 else np.array(array, dtype=native)

    def finite(self, name: str, *shape: int | None, largest: float) -> npt.NDArray[np.float64]:
        """Return an array of float64 within plus and minus `largest`."""
        array = self.array(name, "<f8", *shape)
        if not (np.abs(array) <= largest).all():  # nan is not
            raise WireError(f"{self.kind}: {name} has a number that is not finite or too large")
        return array

    def _described(self, parts: Sequence[Part]) -> dict[str, npt.NDArray[Any]]:
        """Return the parts as the arrays that the header describes."""
        described = self._fields.get("arrays")
        if not isinstance(described, dict) or len(described) != len(parts):
            raise WireError(f"{self.kind}: {len(parts)} arrays, the header describes others")
        pairs = zip(described.items(), parts, strict=True)
        return {name: _as_array(about, part) for (name, about), part in pairs}

    def _refuse(self, name: str) -> NoReturn:
        value = repr(self._fields.get(name))
        raise WireError(f"{name}: {value[:40]} is missing, out of range or of a wrong type")


def _header(part: Part) -> dict[str, Any]:
    data = memoryview(part)
    if not _PREFIX.size < data.nbytes <= MAX_HEADER_BYTES:
        raise WireError(f"a header of {data.nbytes} bytes")
    magic, version = _PREFIX.unpack(data[: _PREFIX.size])
    if magic != MAGIC:
        raise WireError("not a message of vo_stream")
    if version != VERSION:
        raise WireError(
            f"a message of version {version}, this is {VERSION}: install the same vo_stream "
            "on both computers"
        )
    fields = parse_json(bytes(data[_PREFIX.size :]))
    if not isinstance(fields, dict):
        raise WireError("the header is no object")
    return fields


def parse_json(text: bytes | str) -> Any:
    """Parse strict JSON: no NaN, no infinity, no number of more than 64 bits."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_int=_short_int)
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {type(error).__name__}") from None


def _no_constant(name: str) -> NoReturn:
    raise WireError(f"{name} is no number")


def _short_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise WireError(f"a number of {len(digits)} digits")
    return int(digits)


def _as_array(about: object, part: Part) -> npt.NDArray[Any]:
    """Return a read-only view of a part as `about`, [type, shape], describes it."""
    if not isinstance(about, list) or len(about) != 2 or str(about[0]) not in _TYPES:
        raise WireError("an array of unknown type")
    dtype, shape = _TYPES[str(about[0])], about[1]
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2:
        raise WireError("an array whose shape is no shape")
    if not all(type(length) is int and 0 <= length <= MAX_PART_BYTES for length in shape):
        raise WireError("an array whose shape is no shape")
    size = memoryview(part).nbytes
    if size > MAX_PART_BYTES or math.prod(shape) * dtype.itemsize != size:
        raise WireError(f"an array of {size} bytes, its header says {shape} of {dtype}")
    array = np.frombuffer(part, dtype).reshape(shape)
    array.flags.writeable = False
    return array


def _has_lone_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
