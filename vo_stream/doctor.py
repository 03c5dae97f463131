"""What runs on this machine, and what to install for the rest."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import vo_stream
from vo_stream.errors import NetError

LIBRARIES = (
    "numpy", "cv2", "transforms3d", "rosbags", "click", "tqdm", "yaml", "numba", "zmq",
    "onnxruntime",
)  # fmt: skip
"""Modules that must be there."""

ROS_REMEDY = "make ros, or source an installation of ROS 2"
"""How to get what the node needs."""

CUDA_BINDINGS = "pip install 'vo_stream[tensorrt]', and 'cuda-bindings<13' for CUDA 12"
"""How to get what TensorRT's backend needs beside the library."""

MIDDLEWARES = "share/ament_index/resource_index/rmw_typesupport"
"""Where ROS lists its middlewares, below an installation's prefix."""

_DISTRIBUTIONS = {
    "yaml": ("pyyaml",),
    "zmq": ("pyzmq",),
    "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
}


SOLVER = "adjuster's solver"
MIDDLEWARE = "ROS middleware"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: `what`, whether it is `ok`, and its version or what to do.

    `required`: without it nothing runs.
    """

    what: str
    ok: bool
    detail: str
    required: bool = False


def examine() -> list[Finding]:
    """Look at what is installed, open each backend once, load what the adjuster needs."""
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    findings = [
        Finding("vo_stream", True, vo_stream.__version__),
        Finding("python", True, platform.python_version()),
        Finding("system", True, system),
    ]
    for module in LIBRARIES:
        version = _version(module)
        package = _DISTRIBUTIONS.get(module, (module,))[0]
        remedy = f"missing: pip install {package}"
        findings.append(Finding(module, bool(version), version or remedy, required=True))
    return [*findings, *_ros(), *_gpu(), *_backends(), _solver(), *_ways_to_the_adjuster()]


def _ros() -> list[Finding]:
    """Say what of ROS 2 the node finds; load nothing of it."""
    rclpy, tf2_msgs = _version("rclpy"), _version("tf2_msgs")
    remedy = f"not installed, and the node needs it: {ROS_REMEDY}"
    if rclpy and not _runs_on_this_python("rclpy", "_rclpy_pybind11"):
        rclpy, remedy = "", f"not for Python {platform.python_version()}: use the one ROS 2 is for"
    return [
        Finding("rclpy", bool(rclpy), rclpy or remedy),
        Finding(
            "tf2_msgs", bool(tf2_msgs), tf2_msgs or f"not installed, and /tf needs it: {ROS_REMEDY}"
        ),
        _middleware(),
    ]


def _runs_on_this_python(package: str, extension: str) -> bool:
    """Return whether a package's extension module is compiled for this Python."""
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    return any(
        Path(folder, extension + suffix).is_file()
        for folder in folders or ()
        for suffix in EXTENSION_SUFFIXES
    )


def _middleware() -> Finding:
    """Say which DDS or other middleware ROS would use: the chosen one, else one that is there."""
    sourced = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    prefixes = [Path(prefix) for prefix in (*sourced, sys.prefix) if prefix]
    listed = {path.name for prefix in prefixes for path in prefix.glob(f"{MIDDLEWARES}/*")}
    found = sorted(listed - {"rmw_implementation"})  # which loads one of the others
    chosen = os.environ.get("RMW_IMPLEMENTATION")
    if chosen and chosen not in found:
        remedy = f"RMW_IMPLEMENTATION asks for {chosen}; there is {', '.join(found) or 'none'}"
        return Finding(MIDDLEWARE, False, remedy)
    if not found:
        return Finding(MIDDLEWARE, False, f"none found: {ROS_REMEDY}")
    return Finding(MIDDLEWARE, True, chosen or ", ".join(found))


def _gpu() -> list[Finding]:
    """Say what of NVIDIA's there is; whether all of it fits is the backend's to say."""
    try:
        from vo_stream.net.cuda import dotted, find_gpu, newest_cuda
        from vo_stream.net.tensorrt_engine import default_folder
        from vo_stream.net.tensorrt_library import find_library
    except ImportError as error:  # of the ground, which is reported as missing already
        return [Finding("NVIDIA GPU", False, f"cannot be looked for: {error}")]

    def gpu() -> str:
        found, cuda = find_gpu(), newest_cuda()
        return f"{found}, driver for CUDA {dotted(cuda)}" if cuda else str(found)

    def library() -> str:
        found = find_library()
        return f"{found}, for want of TensorRT" if found.portable else str(found)

    def bindings() -> str:
        try:
            return metadata.version("cuda-bindings")
        except metadata.PackageNotFoundError:
            raise NetError(f"not installed, and TensorRT needs it: {CUDA_BINDINGS}") from None

    def engines() -> str:
        return f"kept in {default_folder()}"

    findings = []
    lines = {"NVIDIA GPU": gpu, "TensorRT": library, "cuda-bindings": bindings, "engines": engines}
    for what, detail in lines.items():
        try:
            findings.append(Finding(what, True, detail()))
        except NetError as reason:
            findings.append(Finding(what, False, str(reason)))
    return findings


def _backends() -> list[Finding]:
    try:
        from vo_stream.net.backends import BACKENDS, why_not

        reasons = {name: why_not(name) for name in BACKENDS}
    except ImportError as error:  # a library that is missing or broken
        return [Finding("backends", False, f"cannot be loaded: {error}")]
    return [Finding(f"backend {n}", not why, why or "runs here") for n, why in reasons.items()]


def _solver() -> Finding:
    """Say where the adjuster's solver is kept once it is compiled; compile nothing."""
    try:
        from vo_stream.adjust.solver import solver_kept_in
    except (ImportError, OSError) as error:  # of numba: a numpy too new, no LLVM for this machine
        return Finding(SOLVER, False, f"cannot be loaded: {error}")
    folder = solver_kept_in()
    if folder is None:
        return Finding(SOLVER, False, "runs uncompiled, far too slow: unset NUMBA_DISABLE_JIT")
    if not folder:
        remedy = "let NUMBA_CACHE_DIR name a folder that can be written"
        return Finding(SOLVER, False, f"compiled anew at each start, some 10 s: {remedy}")
    return Finding(SOLVER, True, f"compiled once, kept in {folder}")


def _ways_to_the_adjuster() -> list[Finding]:
    """Say what the sockets to the adjuster can do here."""
    try:
        from vo_stream.link.sockets import can
    except ImportError as error:
        return [Finding("adjuster's link", False, f"cannot be loaded: {error}")]
    remedy = "not in this libzmq: pip install pyzmq brings one that has it"
    return [
        Finding(what, can(ability), found if can(ability) else f"{ability} {remedy}")
        for what, ability, found in (
            ("adjuster here", "ipc", "a process of its own, over ipc"),
            ("adjuster elsewhere", "curve", "over tcp, with CURVE keys"),
        )
    ]


def _version(module: str) -> str:
    """Return the version of an installed module without importing it; empty where missing."""
    if find_spec(module) is None:
        return ""
    for distribution in _DISTRIBUTIONS.get(module, (module,)):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "installed"
