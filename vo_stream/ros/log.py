"""What the package logs, on the ROS side."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

PACKAGE = "vo_stream"
"""The logger that all of the package's own lie below."""

BURST = 5
PERIOD_S = 10.0
"""A line of the source may log so often in so long; what comes beyond is counted."""


@dataclass(slots=True)
class _Site:
    """One line of the source that logs: when its period began, and what came in it."""

    began_s: float
    logged: int = 0
    left_out: int = 0


class RosLog(logging.Handler):
    """Hands the package's log over to a node's logger, without floods.

    A fault of every image must not fill the disk, whatever the image brings with it.
    """

    def __init__(self, ros_logger: Any) -> None:
        super().__init__()
        self._ros_logger = ros_logger
        self._level_before = logging.NOTSET
        self._sites: dict[tuple[str, int, int], _Site] = {}

    def attach(self, level: int) -> None:
        """Take in what the package logs from `level` on, until `detach`."""
        package = logging.getLogger(PACKAGE)
        self._level_before = package.level
        package.setLevel(level)
        package.addHandler(self)

    def detach(self) -> None:
        """Leave the package's log as it was."""
        package = logging.getLogger(PACKAGE)
        package.removeHandler(self)
        package.setLevel(self._level_before)

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record; each severity from a line of its own, as rclpy requires."""
        more = self._left_out_before(record)
        if more is None:
            return
        text = f"{self.format(record)} (and {more} more like it)" if more else self.format(record)
        if record.levelno >= logging.ERROR:
            self._ros_logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._ros_logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._ros_logger.info(text)
        else:
            self._ros_logger.debug(text)

    def _left_out_before(self, record: logging.LogRecord) -> int | None:
        """Return how many were left out since the last of this kind; None: leave this out too."""
        now_s = time.monotonic()
        key = record.pathname, record.lineno, record.levelno
        site = self._sites.setdefault(key, _Site(now_s))
        left_out = 0
        if now_s - site.began_s > PERIOD_S:
            left_out = site.left_out
            site.began_s, site.logged, site.left_out = now_s, 0, 0
        if site.logged >= BURST:
            site.left_out += 1
            return None
        site.logged += 1
        return left_out
