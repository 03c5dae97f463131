"""An open bag of either ROS version: its topics, and its messages as they were recorded."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vo_stream.errors import SourceError

if TYPE_CHECKING:
    from rosbags import rosbag1, rosbag2
    from rosbags.interfaces import Connection, TopicInfo

    Reader: TypeAlias = rosbag1.Reader | rosbag2.Reader

BAG_SUFFIXES = (".bag", ".mcap", ".db3")

MAGIC_BY_KIND = {
    b"#ROSBAG V": "rosbag1",
    b"\x89MCAP0\r\n": "rosbag2",
    b"SQLite format 3\0": "rosbag2",
}
"""What the files begin with."""

_MENDERS = {"rosbag1": "rosbag reindex", "rosbag2": "ros2 bag reindex or mcap recover"}

_LIBRARY_ERRORS = (
    ("apsw", "Error"),
    ("sqlite3", "Error"),
    ("compression.zstd", "ZstdError"),
    ("backports.zstd", "ZstdError"),
    ("zstandard", "ZstdError"),
    ("ruamel.yaml.error", "YAMLError"),
)
"""Exceptions of libraries that rosbags uses, which ones depends on its version and Python's."""


class BrokenBagError(Exception):
    """Reading has come to where the bag is broken; says why."""


class BagReader:
    """A bag of a kind that `MAGIC_BY_KIND` names. Raises SourceError where it cannot be opened.

    `errors`: what rosbags raises on damaged bags, here and while messages are decoded.
    """

    def __init__(self, path: Path, kind: str) -> None:
        from rosbags import rosbag1, rosbag2

        self.path = path
        self.kind = kind
        self.errors = _reading_errors()
        self._reader: Reader
        try:
            self._reader = rosbag1.Reader(path) if kind == "rosbag1" else rosbag2.Reader(path)
            self._reader.open()
        except self.errors as error:
            raise SourceError(
                f"{path}: cannot be read as a bag ({why(error)}); one that was cut short "
                f"can often be mended with {_MENDERS[kind]}"
            ) from None

    @property
    def topics(self) -> dict[str, TopicInfo]:
        """The topics by name; raises SourceError."""
        try:
            return self._reader.topics
        except self.errors as error:
            raise SourceError(f"{self.path}: its list of topics is broken ({why(error)})") from None

    @property
    def start_ns(self) -> int:
        """When the first message was recorded."""
        return self._reader.start_time

    def messages(
        self,
        connections: Collection[Connection],
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield connection, time of recording and content from `start_ns` to before `stop_ns`.

        Raises BrokenBagError.
        """
        if not connections:  # which rosbags takes for all
            return
        messages = iter(self._reader.messages(connections, start_ns, stop_ns))
        while True:
            try:
                message = next(messages)
            except StopIteration:
                return
            except self.errors as error:
                raise BrokenBagError(f"cannot be read any further ({why(error)})") from None
            yield message

    def close(self) -> None:
        """Close the bag."""
        with suppress(*self.errors):  # it may be closed already, or not know how after damage
            self._reader.close()


def why(error: BaseException) -> str:
    """Return an exception in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _reading_errors() -> tuple[type[Exception], ...]:
    """Return what rosbags and the libraries below it raise on damaged files, found by trying."""
    from rosbags import rosbag1, rosbag2
    from rosbags.serde import SerdeError
    from rosbags.typesys import TypesysError

    errors: list[type[Exception]] = [
        rosbag1.ReaderError,
        rosbag2.ReaderError,
        SerdeError,
        TypesysError,
        struct.error,
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ]
    for module, name in _LIBRARY_ERRORS:
        with suppress(ImportError):
            errors.append(getattr(importlib.import_module(module), name))
    return tuple(errors)
