from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from vo_stream.doctor import MIDDLEWARE, MIDDLEWARES, examine


def test_this_machine_is_sound() -> None:
    findings = {f.what: f for f in examine()}
    assert all(f.ok for f in findings.values() if f.required)
    assert findings["backend geometric"].ok
    for library in ("numpy", "numba", "zmq"):
        assert findings[library].detail[0].isdigit()
    for way in ("adjuster here", "adjuster elsewhere"):
        assert findings[way].ok


@pytest.mark.parametrize(
    ("library", "line"),
    [("cv2", "backends"), ("numba", "adjuster's solver"), ("zmq", "adjuster's link")],
)
def test_a_library_that_does_not_load_is_found_not_raised(library: str, line: str) -> None:
    """With one that cannot be imported the doctor still answers, and says so."""
    answer = doctor_after(f"import sys; sys.modules[{library!r}] = None")
    assert f"--  {line}" in answer
    assert library in answer


def test_it_says_where_the_solver_is_kept(tmp_path: Path) -> None:
    answer = doctor_after("", NUMBA_CACHE_DIR=str(tmp_path))
    (line,) = (line for line in answer.splitlines() if "adjuster's solver" in line)
    assert line.startswith("ok")
    assert str(tmp_path) in line


def test_it_says_where_no_folder_can_keep_the_solver() -> None:
    code = """
        import numba
        njit_without_cache = numba.njit
        def njit(**options):
            if options.pop("cache", False):
                raise RuntimeError("cannot cache function: no locator available")
            return njit_without_cache(**options)
        numba.njit = njit
    """
    answer = doctor_after(textwrap.dedent(code))
    assert "--  adjuster's solver" in answer
    assert "NUMBA_CACHE_DIR" in answer


def test_it_says_that_the_compiler_is_switched_off() -> None:
    answer = doctor_after("", NUMBA_DISABLE_JIT="1")
    assert "unset NUMBA_DISABLE_JIT" in answer


@pytest.mark.parametrize("package", ["rclpy", "tf2_msgs"])
def test_a_package_of_ros_that_is_missing_is_named_with_its_remedy(package: str) -> None:
    line = line_of(package, doctor_after(f"import sys; sys.modules[{package!r}] = None"))
    assert line.startswith("--")
    assert "make ros" in line


def test_an_rclpy_for_another_python_is_told_from_one_that_runs(tmp_path: Path) -> None:
    package = tmp_path / "rclpy"
    package.mkdir()
    (package / "__init__.py").touch()
    extension = package / "_rclpy_pybind11.cpython-27-x86_64-linux-gnu.so"
    extension.touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    assert "not for Python 3" in line_of("rclpy", doctor_after(code))
    extension.rename(package / f"_rclpy_pybind11{EXTENSION_SUFFIXES[0]}")
    assert line_of("rclpy", doctor_after(code)).startswith("ok")


def test_it_says_which_middleware_ros_would_use(tmp_path: Path) -> None:
    index = tmp_path / MIDDLEWARES
    index.mkdir(parents=True)
    (index / "rmw_zenoh_cpp").touch()
    sourced = {"AMENT_PREFIX_PATH": str(tmp_path)}
    answer = doctor_after("", **sourced, RMW_IMPLEMENTATION="")
    assert "rmw_zenoh_cpp" in line_of(MIDDLEWARE, answer)
    answer = doctor_after("", **sourced, RMW_IMPLEMENTATION="rmw_zenoh_cpp")
    assert line_of(MIDDLEWARE, answer).startswith("ok")
    answer = doctor_after("", **sourced, RMW_IMPLEMENTATION="rmw_connextdds")
    assert "asks for rmw_connextdds" in line_of(MIDDLEWARE, answer)


def test_it_says_that_there_is_no_driver_for_a_gpu() -> None:
    code = "from vo_stream.net import cuda; cuda.DRIVER = 'libcuda_that_is_missing.so.1'"
    answer = doctor_after(code)
    assert line_of("NVIDIA GPU", answer).startswith("--")
    assert "driver is missing" in line_of("NVIDIA GPU", answer)
    assert line_of("backend tensorrt", answer).startswith("--")


def test_it_says_how_to_get_tensorrt() -> None:
    code = "import sys; sys.modules.update(tensorrt=None, tensorrt_rtx=None)"
    line = line_of("TensorRT", doctor_after(code))
    assert line.startswith("--")
    assert "tensorrt is not installed" in line
    assert "pip install tensorrt-cu1" in line or "JetPack" in line


def test_it_tells_tensorrt_from_what_takes_its_place(tmp_path: Path) -> None:
    text = "__version__, OnnxParser, Builder = '{}', object, object"
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    (tmp_path / "tensorrt_rtx.py").write_text(text.format("1.7.1"))
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10')")
    assert "TensorRT-RTX 1.7.1, for want of" in line_of("TensorRT", doctor_after(code))
    (tmp_path / "tensorrt.py").write_text(text.format("10.3.0"))
    assert line_of("TensorRT", doctor_after(code)).split()[1:] == ["TensorRT", "TensorRT", "10.3.0"]


def test_it_says_where_engines_are_kept(tmp_path: Path) -> None:
    assert str(tmp_path) in line_of("engines", doctor_after("", XDG_CACHE_HOME=str(tmp_path)))


def line_of(what: str, answer: str) -> str:
    (line,) = (line for line in answer.splitlines() if line[4:].startswith(f"{what} "))
    return line


def doctor_after(code: str, **environment: str) -> str:
    """Return what the doctor prints in a process that runs some code first."""
    code += "\nfrom vo_stream.cli import main\nmain(['doctor'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.stdout
