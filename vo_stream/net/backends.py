"""The motion backends by name."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vo_stream.config import Config
from vo_stream.errors import NetError
from vo_stream.net.stepnet import StepNet

logger = logging.getLogger(__name__)


def _geometric(config: Config) -> StepNet:
    from vo_stream.net.geometric_net import GeometricNet

    return GeometricNet(config.geometric)


BACKENDS: dict[str, Callable[[Config], StepNet]] = {"geometric": _geometric}
"""What opens each backend, best first. An opener raises NetError, in one line, where its backend
cannot run here; it imports what it needs itself."""


def open_backend(config: Config) -> StepNet:
    """Open the backend that net.backend names; `auto` takes the first that runs and logs why.

    Raises NetError: a named backend that cannot run is never replaced by another.
    """
    name = config.net.backend
    if name != "auto":
        return BACKENDS[name](config)
    for name, opener in BACKENDS.items():
        try:
            net = opener(config)
        except NetError as error:
            logger.info("backend %s cannot run here: %s", name, error)
            continue
        logger.info("backend %s: the first of %s that runs here", name, ", ".join(BACKENDS))
        return net
    raise NetError("no motion backend runs here; see vo-stream doctor")


def why_not(name: str) -> str:
    """Return why a backend cannot run here with default settings; empty where it can."""
    try:
        BACKENDS[name](Config()).close()
    except NetError as error:
        return str(error)
    return ""
