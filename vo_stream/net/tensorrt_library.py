"""TensorRT, or else TensorRT-RTX: which is here, what it needs, what it says.

Both have the same API as far as it is used here, what TensorRT 10.3 to 11.4 and TensorRT-RTX 1.7
have in common. Neither is ever a requirement: they are loaded on demand.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vo_stream.errors import NetError
from vo_stream.net.cuda import Gpu, dotted, find_gpu, newest_cuda

logger = logging.getLogger(__name__)

OLDEST = {"tensorrt": (10, 3), "tensorrt_rtx": (1, 0)}
"""Versions that have all that is used here."""

LOWEST_CAPABILITY = {"tensorrt": (7, 5), "tensorrt_rtx": (8, 0)}
"""Compute capability of the oldest GPUs: Turing, for TensorRT-RTX Ampere. Its engines for Turing
have no matrix products in single precision, which the network's geometry needs."""

INDEX = "https://pypi.nvidia.com"
"""Where pip finds TensorRT's libraries; PyPI has stubs only."""

JETSON = Path("/etc/nv_tegra_release")
"""A file that JetPack brings."""

ERRORS_KEPT = 3
"""Of what a library says, the last ones, for the message when something fails."""


class Library(NamedTuple):
    """A library that builds and runs engines.

    `module`: tensorrt or tensorrt_rtx. `name`: of the module. `version`: in full.
    """

    module: Any
    name: str
    version: str

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.portable else 'TensorRT'} {self.version}"

    @property
    def portable(self) -> bool:
        """Whether its engines run on any GPU that it supports and are built without one.

        An engine of TensorRT-RTX is compiled for the GPU when it is loaded there; one of TensorRT
        is fitted to the GPU on which it is built.
        """
        return self.name == "tensorrt_rtx"


def find_library() -> Library:
    """Return TensorRT, where it does not load TensorRT-RTX.

    Raises NetError, in one line that says what is missing and how to get it.
    """
    reasons = []
    for opener in (_tensorrt, _tensorrt_rtx):
        try:
            return opener()
        except NetError as error:
            reasons.append(str(error))
    raise NetError(f"{'; '.join(reasons)}: {_remedy()}")


def require_gpu(library: Library) -> Gpu:
    """Return the GPU on which a library's engines run here.

    Raises NetError, in one line, where there is no driver, no GPU, or none that the library
    supports. The library itself is not touched: without a GPU its Runtime may crash the process.
    """
    gpu = find_gpu()
    lowest = LOWEST_CAPABILITY[library.name]
    listed = [c for c in _listed_capabilities(library) if c >= lowest] or [lowest]
    newer = gpu.capability > listed[-1]  # which runs engines for older ones, too
    if not newer and gpu.capability not in listed:
        only = ", ".join(map(dotted, listed))
        other = f"; {_remedy()}" if library.portable else ""
        raise NetError(f"{library} does not support {gpu}, only {only} and newer{other}")
    return gpu


@cache
def log_of(module: Any) -> Any:
    """Return the ILogger of a module: what the library says goes to our log at level debug.

    One for all of a process, since the library takes the first that it is given. Its `told()`
    returns the last errors, each once, as " (error; error)", and "" where there were none.
    """

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=ERRORS_KEPT)

        def log(self, severity: Any, message: str) -> None:
            line = " ".join(message.split())
            if int(severity) <= int(module.ILogger.Severity.ERROR):
                self._errors.append(line)
            logger.debug("%s: %s", module.__name__, line)

        def told(self) -> str:
            errors = "; ".join(self._errors)
            self._errors.clear()
            return f" ({errors})" if errors else ""

    return Log()


def _tensorrt() -> Library:
    def load() -> Any:
        import tensorrt

        return tensorrt

    return _opened("tensorrt", load)


def _tensorrt_rtx() -> Library:
    def load() -> Any:
        import tensorrt_rtx

        return tensorrt_rtx

    return _opened("tensorrt_rtx", load)


def _opened(name: str, load: Callable[[], Any]) -> Library:
    """Load a library; raises NetError where it is missing, broken or too old."""
    try:
        module = load()
        version = str(module.__version__)
        module.OnnxParser, module.Builder  # noqa: B018  # not in a folder that is only called so
    except ModuleNotFoundError as error:
        missing = "" if error.name == name else f" in full: {error}"
        raise NetError(f"{name} is not installed{missing}") from None
    except (ImportError, OSError, AttributeError) as error:  # of its shared libraries, for one
        reason = str(error).partition("\n")[0]
        raise NetError(f"{name} is installed and cannot be loaded ({reason})") from None
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST[name]:
        raise NetError(f"{name} {version} is too old, {dotted(OLDEST[name])} is needed")
    return Library(module, name, version)


def _listed_capabilities(library: Library) -> list[tuple[int, int]]:
    """Return the compute capabilities that TensorRT-RTX names, sorted; TensorRT names none."""
    members = getattr(library.module, "ComputeCapability", None) if library.portable else None
    names = getattr(members, "__members__", {})
    numbers = [int(name[2:]) for name in names if re.fullmatch(r"SM\d+", name)]
    return sorted((number // 10, number % 10) for number in numbers)


def _remedy() -> str:
    """Say how to get TensorRT on this machine."""
    if JETSON.exists():
        return (
            "JetPack brings TensorRT (6: 10.3, 7: 10.13 or newer), sudo apt install "
            "nvidia-jetpack; a virtual environment sees it with --system-site-packages"
        )
    cuda = newest_cuda()
    package = "tensorrt-cu12" if cuda is not None and cuda[0] == 12 else "tensorrt-cu13"
    return f"pip install {package} --extra-index-url {INDEX}"
