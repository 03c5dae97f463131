"""Build tf2_msgs, which PyPI lacks, into the environment of the Python that runs this.

python tools/build_tf2_msgs.py [--again]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "tf2_msgs"

WITHOUT = "tf2_msgs is not built, and the ROS node needs it for /tf"
"""What is said where something is missing."""

TAIL_LINES = 40
"""How much is shown of what a failed build said, in lines."""


def folder_of(package: str) -> Path | None:
    """Return where a package is installed, None if it is not; `tf2_msgs` beside this is none."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def missing() -> str:
    """Return what must be installed before it can be built; empty where nothing."""
    if any(folder_of(name) is None for name in ("rclpy", "rosidl_generator_py", "catkin_pkg")):
        return "ROS 2: pip install '.[ros]', or an installation of ROS 2 that is sourced"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers: apt install python3-dev"
    for variable, usual in (("CC", "cc"), ("CXX", "c++")):
        if shutil.which(os.environ.get(variable, usual)) is None:
            return "a C and a C++ compiler: apt install build-essential"
    if shutil.which("make") is None:
        return "make: apt install build-essential"
    return ""


def build(prefix: Path) -> str:
    """Build and install; return what the command said that failed, empty if none did."""
    beside = Path(sys.executable).with_name("cmake")
    cmake = str(beside) if beside.is_file() else "cmake"
    with tempfile.TemporaryDirectory() as folder:
        configure = [
            *(cmake, "-S", str(SOURCE), "-B", folder, "-G", "Unix Makefiles"),
            f"-DCMAKE_PREFIX_PATH={prefix}",
            f"-DCMAKE_INSTALL_PREFIX={prefix}",
            f"-DPython3_EXECUTABLE={sys.executable}",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DBUILD_TESTING=OFF",
        ]
        install = [cmake, "--build", folder, "--target", "install"]
        for command in (configure, install):
            done = subprocess.run(
                command,
                env={**os.environ, "AMENT_PREFIX_PATH": str(prefix)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                return done.stdout
    return ""


def main() -> int:
    """Run the command; return its exit code: 0 too where something is missing."""
    parser = argparse.ArgumentParser(description="Build tf2_msgs into this environment.")
    parser.add_argument("--again", action="store_true", help="even where it was built before")
    again = parser.parse_args().again
    prefix = Path(sys.prefix)
    there = folder_of("tf2_msgs")
    if there is not None and not (again and there.is_relative_to(prefix)):
        return 0
    if lack := missing():
        print(f"{WITHOUT}. Needed: {lack}")
        return 0
    if said := build(prefix):
        print(*said.splitlines()[-TAIL_LINES:], WITHOUT, sep="\n")
        return 1
    print(f"tf2_msgs is built, in {prefix}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
