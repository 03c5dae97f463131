from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from graph import Graph

pytest.importorskip("rclpy", reason="needs ROS 2")


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    """A ROS graph on a domain that nobody else uses."""
    from graph import Graph, quiet_domain

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    with quiet_domain() as domain:
        graph = Graph(domain, tmp_path)
        try:
            yield graph
        finally:
            graph.close()
        assert "Traceback" not in graph.said()
    assert os.environ["ROS_LOG_DIR"] == str(tmp_path)
