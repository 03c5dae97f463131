"""Which library and which GPU there is, and what is said where one is missing."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from driver_double import DriverDouble
from driver_double import driver as driver

from vo_stream.errors import NetError
from vo_stream.net import tensorrt_library
from vo_stream.net.cuda import Gpu, cuda_devices, first_gpu, newest_cuda
from vo_stream.net.tensorrt_library import Library, find_library, log_of, require_gpu

TENSORRT = Library(SimpleNamespace(), "tensorrt", "10.3.0")
"""Only names matter here; the module is a double with nothing in it."""

NAMES = ("tensorrt", "tensorrt_rtx")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that are found before all others; neither library is loaded."""
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def module_double(folder: Path, name: str, version: str = "10.3.0", first: str = "") -> None:
    text = f"{first}\n__version__ = {version!r}\nBuilder = OnnxParser = object\n"
    (folder / f"{name}.py").write_text(text)


def reason_of(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(NetError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.usefixtures("driver")
def test_without_a_driver_there_is_no_gpu() -> None:
    assert cuda_devices() == 0
    assert first_gpu() is None
    assert newest_cuda() is None
    assert "driver is missing" in reason_of(require_gpu, TENSORRT)


def test_a_driver_without_a_gpu_is_told_from_none(driver: DriverDouble) -> None:
    for init in (0, 100):
        driver.install(init=init)
        assert cuda_devices() == 0
        assert first_gpu() is None
        assert "sees no GPU" in reason_of(require_gpu, TENSORRT)


def test_a_driver_that_does_not_work_is_told_by_its_own_words(driver: DriverDouble) -> None:
    driver.install("Orin", 87, init=803)
    assert cuda_devices() == 0
    assert "CUDA error 803 (as told)" in reason_of(require_gpu, TENSORRT)


def test_the_gpu_is_known_by_name_and_capability(driver: DriverDouble) -> None:
    driver.install("Orin", 87, version=12060)
    assert cuda_devices() == 1
    assert first_gpu() == require_gpu(TENSORRT) == Gpu("Orin", (8, 7))
    assert newest_cuda() == (12, 6)


def test_a_gpu_too_old_for_the_library_is_refused(driver: DriverDouble) -> None:
    driver.install("GTX 1080", 61)
    assert reason_of(require_gpu, TENSORRT) == (
        "TensorRT 10.3.0 does not support GTX 1080 (compute capability 6.1), only 7.5 and newer"
    )


@pytest.mark.parametrize(
    ("capability", "runs"), [(75, False), (80, True), (86, True), (90, False), (120, True),
                             (129, True)]
)  # fmt: skip
def test_tensorrt_rtx_says_itself_which_gpus_it_supports(
    driver: DriverDouble, capability: int, runs: bool
) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    library = Library(rtx, "tensorrt_rtx", rtx.__version__)
    driver.install("Some GPU", capability)
    if runs:
        assert require_gpu(library).name == "Some GPU"
        return
    message = reason_of(require_gpu, library)
    assert "only 8.0, 8.6, 8.9, 12.0" in message
    assert "pip install tensorrt-cu13" in message


def test_what_is_installed_here_is_found() -> None:
    if not any(map(find_spec, NAMES)):
        pytest.skip("neither TensorRT nor TensorRT-RTX is installed")
    library = find_library()
    assert library.name in NAMES
    assert library.version[0].isdigit()
    assert hasattr(library.module, "OnnxParser")


def test_tensorrt_comes_before_tensorrt_rtx(modules: Path) -> None:
    module_double(modules, "tensorrt_rtx", "1.7")
    module_double(modules, "tensorrt")
    assert find_library().name == "tensorrt"


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("raise ImportError('libnvinfer.so.10: cannot open')", "libnvinfer.so.10: cannot open"),
        ("raise OSError('libnvinfer.so.10: wrong ELF class')", "wrong ELF class"),
        ("import tensorrt_bindings_double", "No module named 'tensorrt_bindings_double'"),
    ],
)
def test_tensorrt_that_does_not_load_is_passed_over(modules: Path, first: str, reason: str) -> None:
    module_double(modules, "tensorrt", first=first)
    module_double(modules, "tensorrt_rtx", "1.7")
    assert find_library().name == "tensorrt_rtx"
    module_double(modules, "tensorrt_rtx", first="raise ImportError")
    sys.modules.pop("tensorrt_rtx")
    assert reason in reason_of(find_library)


@pytest.mark.parametrize("version", ["8.5.2.2", "10.2.0", "unknown"])
def test_tensorrt_that_is_too_old_is_passed_over(modules: Path, version: str) -> None:
    module_double(modules, "tensorrt", version)
    module_double(modules, "tensorrt_rtx", first="raise ImportError")
    assert f"tensorrt {version} is too old, 10.3 is needed" in reason_of(find_library)


def test_a_folder_that_is_only_called_so_is_not_the_library(modules: Path) -> None:
    for name in NAMES:
        (modules / name).mkdir()
        (modules / name / "__init__.py").touch()
    assert "tensorrt is installed and cannot be loaded" in reason_of(find_library)


def test_the_remedy_is_for_this_machine(
    modules: Path, driver: DriverDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.setitem(sys.modules, name, None)
    message = reason_of(find_library)
    assert "tensorrt is not installed" in message
    assert "pip install tensorrt-cu13 --extra-index-url https://pypi.nvidia.com" in message
    driver.install("Some GPU", 89, version=12080)
    assert "pip install tensorrt-cu12 " in reason_of(find_library)
    jetson = modules / "nv_tegra_release"
    jetson.touch()
    monkeypatch.setattr(tensorrt_library, "JETSON", jetson)
    message = reason_of(find_library)
    assert "JetPack" in message
    assert "pip" not in message


def test_what_the_library_says_is_kept_once(caplog: pytest.LogCaptureFixture) -> None:
    rtx = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    log = log_of(rtx)
    assert log_of(rtx) is log
    log.told()
    caplog.set_level(logging.DEBUG, tensorrt_library.__name__)
    log.log(rtx.ILogger.Severity.WARNING, "a warning")
    assert log.told() == ""
    for number in range(5):
        log.log(rtx.ILogger.Severity.ERROR, f"error\n{number}")
    assert log.told() == " (error 2; error 3; error 4)"
    assert log.told() == ""
    assert "tensorrt_rtx: a warning" in caplog.text
