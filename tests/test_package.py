"""The package as pip and colcon install it, and the files that derive from the settings."""

import ast
import email
import importlib
import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import vo_stream
from vo_stream.config import Config
from vo_stream.doctor import LIBRARIES
from vo_stream.replay.settings_file import ROS_KEY, read_settings

ROOT = Path(__file__).resolve().parent.parent
PARAMETER_FILE = ROOT / "config" / "vo_stream.yaml"
LAUNCH_FILE = ROOT / "launch" / "offline.launch.py"

PACKAGED = [
    "setup.py",
    "setup.cfg",
    "pyproject.toml",
    "package.xml",
    "README.md",
    "LICENSE",
    "resource",
    "config",
    "launch",
    "vo_stream",
]
"""What an installation is made from."""

SHARED = [
    "share/ament_index/resource_index/packages/vo_stream",
    "share/vo_stream/package.xml",
    *(f"share/vo_stream/{path.relative_to(ROOT)}" for path in sorted(ROOT.glob("config/*.*"))),
    *(f"share/vo_stream/{path.relative_to(ROOT)}" for path in sorted(ROOT.glob("launch/*.py"))),
]
"""What ROS looks for below an installation's prefix."""

COMMANDS = {
    "vo-stream": "vo_stream.cli:main",
    "vo_adjuster": "vo_stream.link.worker:main",
    "vo_stream_node": "vo_stream.ros.main:main",
}
"""What can be called, and the function that it calls."""

ROSDEP_KEYS = {
    "opencv-python-headless": "python3-opencv",
    "pyyaml": "python3-yaml",
    "pyzmq": "python3-zmq",
    "onnxruntime": "python3-onnxruntime-pip",
    "rosbags": "python3-rosbags-pip",
}
"""What rosdep calls a requirement, where that is not python3-NAME."""

NOT_FROM_PYPI = {"ament_index_python", "launch", "launch_ros", "ros2launch", "tf2_msgs"}
"""Packages of ROS that the extra `ros` leaves out: PyPI has no launch and no tf2_msgs."""

OF_TRAINING = {"onnx", "onnx_ir", "onnxscript", "safetensors", "tensorboardX", "torch"}
"""Modules of the extra `train`."""

OF_NVIDIA = {"tensorrt", "tensorrt_rtx"}
"""Modules that come from NVIDIA, or not at all."""

BEYOND_IMPORTS = {"ros2launch"}
"""Packages of ROS that are needed and never imported: the command ros2 launch."""


def package_xml() -> ET.Element:
    return ET.parse(ROOT / "package.xml").getroot()


def exec_depends() -> set[str]:
    return {str(node.text) for node in package_xml().iter("exec_depend")}


def ros_packages() -> set[str]:
    """The packages of ROS among what package.xml needs."""
    return {key for key in exec_depends() if not key.startswith("python3-")}


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its success; fail with what it said otherwise."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what is packaged: builds leave files beside setup.py."""
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in PACKAGED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def test_the_files_made_from_the_settings_are_up_to_date() -> None:
    run(sys.executable, "tools/make_reference.py", "--check", PYTHONPATH=str(ROOT))


def test_the_parameter_file_holds_every_default() -> None:
    tree = yaml.safe_load(PARAMETER_FILE.read_text(encoding="utf-8"))
    assert tree == {"/**": {ROS_KEY: Config().as_dict()}}
    assert read_settings(PARAMETER_FILE) == Config()


def test_package_xml_states_the_version_of_the_code() -> None:
    assert package_xml().findtext("version") == vo_stream.__version__


def test_the_wheel_holds_the_package_and_no_more(tree: Path, tmp_path: Path) -> None:
    if find_spec("setuptools") is None or _version("setuptools") < (70, 1):
        pytest.skip("builds wheels by itself from setuptools 70.1 on")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel"]
    run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, tree)
    (wheel,) = tmp_path.glob("vo_stream-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"vo_stream-{vo_stream.__version__}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    data = f"vo_stream-{vo_stream.__version__}.data/data"
    assert {f"{data}/{shared}" for shared in SHARED} <= names
    modules = {str(p.relative_to(ROOT)) for p in ROOT.glob("vo_stream/**/*.py")}
    assert {name for name in names if name.endswith(".py") and "/data/" not in name} == modules
    assert "vo_stream/py.typed" in names
    weights = {f"vo_stream/weights/odometry.{kind}" for kind in ("onnx", "json", "safetensors")}
    assert weights <= names
    assert {f"{name} = {function}" for name, function in COMMANDS.items()} <= set(
        entry_points.splitlines()
    )
    assert metadata["Version"] == vo_stream.__version__
    assert metadata["License-Expression"] or metadata["License"] == "Apache-2.0"
    assert any(name.endswith("/LICENSE") for name in names)
    assert _rosdep_keys(metadata) == {key for key in exec_depends() if key.startswith("python3-")}
    wheels = [line for line in metadata.get_all("Requires-Dist", []) if 'extra == "ros"' in line]
    asked = {re.split(r"[^\w-]", line)[0].removeprefix("ros-jazzy-") for line in wheels}
    assert ros_packages() - NOT_FROM_PYPI <= {name.replace("-", "_") for name in asked}


def test_package_xml_names_the_packages_of_ros_that_are_imported() -> None:
    files = [*ROOT.glob("vo_stream/**/*.py"), *ROOT.glob("launch/*.py")]
    imported = {name for path in files for name in _imports(path.read_text(encoding="utf-8"))}
    others = {*sys.stdlib_module_names, *LIBRARIES, *OF_TRAINING, *OF_NVIDIA, "vo_stream"}
    assert imported - others == ros_packages() - BEYOND_IMPORTS


@pytest.fixture
def installed(tree: Path, tmp_path: Path) -> Path:
    """The prefix into which colcon installed the package."""
    if find_spec("colcon_core") is None or find_spec("colcon_ros") is None:
        pytest.skip("needs colcon-common-extensions and colcon-ros")
    run(sys.executable, "-m", "colcon", "build", "--merge-install", cwd=tree.parent)
    return tmp_path / "install"


def test_colcon_installs_what_ros_looks_for(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [name for name in SHARED if not (installed / name).is_file()] == []
    assert {path.name for path in (installed / "lib" / "vo_stream").iterdir()} == set(COMMANDS)
    (module,) = installed.glob("**/vo_stream/cli.py")
    commands, site = installed / "lib" / "vo_stream", str(module.parent.parent)
    done = run(commands / "vo-stream", "--version", PYTHONPATH=site, cwd=installed)
    assert vo_stream.__version__ in done.stdout
    done = run(commands / "vo_adjuster", "--help", PYTHONPATH=site, cwd=installed)
    assert "--listen" in done.stdout
    where = "import vo_stream; print(vo_stream.__file__)"
    done = run(sys.executable, "-c", where, PYTHONPATH=site, cwd=installed)
    assert done.stdout.strip() == str(module.with_name("__init__.py"))

    if _has_ros_launch():
        monkeypatch.setenv("AMENT_PREFIX_PATH", str(installed))
        description = runpy.run_path(str(LAUNCH_FILE))["generate_launch_description"]()
        arguments = {argument.name for argument in description.get_launch_arguments()}
        assert arguments == {"source", "out", "params_file"}


TWO_TESTS = """
import vo_stream

def test_that_holds():
    assert vo_stream.__version__

def test_that_fails():
    assert not vo_stream.__version__
"""


def test_colcon_runs_pytest_and_knows_what_failed(tree: Path, installed: Path) -> None:
    (tree / "tests").mkdir()
    (tree / "tests" / "test_two.py").write_text(TWO_TESTS, encoding="utf-8")
    colcon = [sys.executable, "-m", "colcon"]
    workspace = installed.parent
    run(*colcon, "test", "--merge-install", "--packages-select", "vo_stream", cwd=workspace)
    results = subprocess.run(
        [*colcon, "test-result", "--verbose"],
        cwd=workspace,
        capture_output=True,
        text=True,
        check=False,
    )
    assert results.returncode == 1
    assert "2 tests, 0 errors, 1 failure, 0 skipped" in results.stdout
    assert "test_that_fails" in results.stdout


@pytest.mark.parametrize("path", sorted(ROOT.glob("launch/*.py")), ids=lambda path: path.name)
def test_the_launch_file_compiles(path: Path) -> None:
    compile(path.read_text(encoding="utf-8"), str(path), "exec")


def _has_ros_launch() -> bool:
    """Whether `launch` is ROS's, not the folder here nor another project of that name."""
    if find_spec("ament_index_python") is None or find_spec("launch") is None:
        return False
    return hasattr(importlib.import_module("launch"), "LaunchDescription")


def _imports(source: str) -> set[str]:
    """Return the packages that a module imports, in functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


def _version(distribution: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", importlib.metadata.version(distribution)))


def _rosdep_keys(metadata: "email.message.Message[str, str]") -> set[str]:
    """Return what rosdep calls the requirements of a wheel, those of extras left out."""
    lines = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    names = {re.split(r"[^\w.-]", line)[0].lower() for line in lines}
    return {ROSDEP_KEYS.get(name, f"python3-{name}") for name in names}
