"""What runs on this machine, and what to install for the rest."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

import vo_stream
from vo_stream.net.backends import BACKENDS, why_not

LIBRARIES = {
    "numpy": "",
    "cv2": "",
    "transforms3d": "",
    "rosbags": "",
}
"""Modules that must be there."""

OPTIONAL = {
    "rclpy": "comes with a ROS 2 installation",
}
"""Modules that switch something on, and how to get them."""

_DISTRIBUTIONS = {"cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: `what`, whether it is `ok`, and its version or what to do."""

    what: str
    ok: bool
    detail: str


def examine() -> list[Finding]:
    """Look at what is installed; imports nothing heavy and starts nothing."""
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
        findings.append(Finding(module, bool(version), version or remedy))
    for module, remedy in OPTIONAL.items():
        version = _version(module)
        findings.append(Finding(module, bool(version), version or f"not installed: {remedy}"))
    for name in BACKENDS:
        reason = why_not(name)
        findings.append(Finding(f"backend {name}", not reason, reason or "runs here"))
    return findings


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
