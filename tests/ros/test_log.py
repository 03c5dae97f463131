"""The package's log comes out of the node's logger, each severity as itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.logging import LoggingSeverity, get_logger, set_logger_level

from vo_stream.ros.log import BURST, RosLog

LEVELS = [
    (logging.DEBUG, "DEBUG"),
    (logging.INFO, "INFO"),
    (logging.INFO + 5, "INFO"),
    (logging.WARNING, "WARN"),
    (logging.ERROR, "ERROR"),
    (logging.CRITICAL, "ERROR"),
]


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    rclpy.logging.initialize()
    set_logger_level("robot", LoggingSeverity.DEBUG)
    package_log, handler = logging.getLogger("vo_stream.any_room"), RosLog(get_logger("robot"))
    before = package_log.level
    package_log.addHandler(handler)
    package_log.setLevel(logging.DEBUG)
    yield package_log
    package_log.removeHandler(handler)
    package_log.setLevel(before)


def lines(capture: pytest.CaptureFixture[str]) -> list[str]:
    written = capture.readouterr()
    return [line for line in (written.err + written.out).splitlines() if "[robot]" in line]


def test_each_severity_in_any_order(log: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    for level, name in [*LEVELS, *reversed(LEVELS)]:
        log.log(level, "%d of %s", level, "a 100 % test")
        (line,) = lines(capfd)
        assert line.startswith(f"[{name}]")
        assert line.endswith(f"{level} of a 100 % test")


def test_an_exception_comes_with_its_traceback(
    log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        raise ValueError("a reason")
    except ValueError:
        log.exception("it broke")
    written = "".join(capfd.readouterr())
    assert "it broke" in written
    assert "ValueError: a reason" in written


def test_a_flood_is_counted_instead(
    log: logging.Logger, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flood(count: int) -> None:
        for number in range(count):
            log.warning("image %d is bad", number)

    flood(100)
    log.warning("something else")
    assert len(lines(capfd)) == BURST + 1
    monkeypatch.setattr("vo_stream.ros.log.PERIOD_S", 0.0)
    flood(1)
    assert lines(capfd)[0].endswith(f"image 0 is bad (and {100 - BURST} more like it)")


def test_it_leaves_the_packages_log_as_it_was() -> None:
    package = logging.getLogger("vo_stream")
    before = package.level, list(package.handlers)
    handler = RosLog(get_logger("robot"))
    handler.attach(logging.DEBUG)
    assert package.isEnabledFor(logging.DEBUG)
    handler.detach()
    assert (package.level, package.handlers) == before
