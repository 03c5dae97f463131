"""Compiling loops with numba, and keeping the machine code, wherever that may lie.

numba notices that the file of a function has changed, not that one of those which its helpers are
in has, and two processes that compile at once can mix up its files where a function is compiled for
several kinds of arguments. So only what is called from outside is kept, under a name that goes with
the text of all modules beside it that compile; helpers are compiled into it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

logger = logging.getLogger(__name__)

_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    # Liberties with rounding; none with NaN or infinity, which the solver looks for.
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
}


_DAMAGED = (OSError, EOFError, ImportError, AttributeError, ValueError, pickle.UnpicklingError)
"""What a damaged or foreign file in the cache raises; compiled code raises none of them."""


def compiled(function: _Function) -> _Function:
    """Compile a function of numbers and arrays at its first call; it runs without the GIL.

    The machine code is kept on disk: beside the source, or where that cannot be written, in the
    user's cache folder (NUMBA_CACHE_DIR chooses another). Where none can be written, or what lies
    there is damaged, the process compiles for itself. Call it with one kind of arguments only.
    """
    function.__qualname__ += f"_{_fingerprint(Path(function.__code__.co_filename).parent)}"
    try:
        kept = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        logger.info("%s is compiled anew by each process: no cache folder", function.__name__)
        return helper(function)  # type: ignore[no-any-return]

    @functools.wraps(kept)
    def call(*arguments: Any) -> Any:
        nonlocal kept
        try:
            return kept(*arguments)
        except _DAMAGED as error:
            logger.warning("%s is compiled anew, the cache fails: %s", function.__name__, error)
            kept = helper(function)
            return kept(*arguments)

    return call  # type: ignore[return-value]


def kept_in(function: Callable[..., Any]) -> str | None:
    """Return the folder of a compiled function's machine code, empty where it is not kept.

    None where it is not compiled at all (NUMBA_DISABLE_JIT).
    """
    inner = getattr(function, "__wrapped__", function)
    statistics = getattr(function, "stats", None) or getattr(inner, "stats", None)
    return None if statistics is None else statistics.cache_path or ""


def helper(function: Callable[..., Any]) -> Any:
    """Compile a function that compiled functions call; it becomes part of their machine code."""
    return numba.njit(**_OPTIONS)(function)


@functools.cache
def _fingerprint(folder: Path) -> str:
    """Return a name for the text of all modules in a folder that compile: those that name this one.

    What compiled code uses of other modules, constants too, goes unnoticed when it changes.
    """
    text = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        source = path.read_bytes()
        if path.name == Path(__file__).name or __name__.encode() in source:
            text.update(source)
    return text.hexdigest()[:12]
