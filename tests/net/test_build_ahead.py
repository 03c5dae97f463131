"""Engines built before they are needed, and the command for it, on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from driver_double import DriverDouble
from driver_double import driver as driver
from engine_cases import small_network

from vo_stream.cli import main
from vo_stream.net import build_ahead
from vo_stream.net.sidecar import read_sidecar
from vo_stream.net.tensorrt_engine import EngineOptions, cached_engine
from vo_stream.net.tensorrt_library import Library

rtx = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)

LIBRARY = Library(rtx, "tensorrt_rtx", rtx.__version__)
FULL = LIBRARY._replace(name="tensorrt")
"""Not TensorRT: the same API under that name, as far as only names matter."""


@pytest.fixture
def model_file(tmp_path: Path, driver: DriverDouble, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network's file, where there is TensorRT-RTX and no driver for a GPU."""
    monkeypatch.setattr(build_ahead, "find_library", lambda: LIBRARY)
    return small_network(tmp_path)


def export(model_file: Path, *flags: str) -> Result:
    folder = model_file.parent / "engines"
    arguments = ["--net", str(model_file), "--engine", "--net.engine_folder", str(folder), *flags]
    return CliRunner().invoke(main, ["export", *arguments])


def test_an_engine_is_built_where_the_backend_will_look(model_file: Path) -> None:
    """For the size that images of the camera's size are scaled to."""
    result = export(model_file, "--size", "1241x376")
    assert result.exit_code == 0, result.stderr
    path = Path(result.stdout.strip())
    assert path.is_file()
    sidecar = read_sidecar(model_file)
    size = sidecar.spec("tensorrt").input_size((1241, 376))
    assert "x".join(map(str, size)) in path.name
    written = path.stat().st_ino
    found = cached_engine(LIBRARY, None, model_file, sidecar, size, EngineOptions(), path.parent)
    assert found == path
    assert found.stat().st_ino == written


def test_it_is_said_that_the_engine_was_not_run(model_file: Path) -> None:
    result = export(model_file, "--size", "96x64")
    (line,) = (line for line in result.stderr.splitlines() if "TensorRT-RTX" in line)
    assert "and not run" in line
    assert "driver is missing" in line


def test_tensorrt_itself_needs_the_gpu(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_ahead, "find_library", lambda: FULL)
    result = export(model_file)
    assert result.exit_code == 2
    assert "driver is missing" in result.stderr
    assert not (model_file.parent / "engines").exists()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [(("--precision", "fp16"), "of precision fp32, not fp16"), (("--size", "big"), "WIDTHxHEIGHT")],
)
def test_what_cannot_be_built_is_said(
    model_file: Path, flags: tuple[str, ...], reason: str
) -> None:
    result = export(model_file, *flags)
    assert result.exit_code == 2
    assert reason in result.stderr
