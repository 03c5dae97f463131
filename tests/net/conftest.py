"""A network's files for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from vo_stream.net.sidecar import RELEASED


@pytest.fixture(scope="session")
def network_file() -> Path:
    """The released network."""
    return RELEASED
