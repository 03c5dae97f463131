"""A network's files for the tests of this folder: exporting takes a while, so it is done once."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from network_cases import save_weights, settled_network

from vo_stream.net.export import export_network
from vo_stream.net.sidecar import sidecar_of


@pytest.fixture(scope="session")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file as vo-stream export writes it, shared by all of pytest-xdist's processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "network"
    folder.mkdir(exist_ok=True)
    model_file = folder / "odometry.onnx"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not sidecar_of(model_file).exists():
            (folder / "random").mkdir()
            weights = save_weights(settled_network(), folder / "random" / "odometry.safetensors")
            assert export_network(weights, folder) == model_file
    return model_file
