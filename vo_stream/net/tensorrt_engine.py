"""Engines are built once and kept: the cache, and what makes a file in it the right one.

Beside `NAME.engine` lies `NAME.json`: for what the engine was built, and its hash. An engine is
taken only if both say what is asked for, so one that is damaged, cut short, of another library or
of another GPU is built anew. It is code that will run: folders that others may write to are
refused.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vo_stream.errors import NetError
from vo_stream.net.cuda import Gpu
from vo_stream.net.sidecar import Sidecar
from vo_stream.net.tensorrt_build import EngineOptions as EngineOptions
from vo_stream.net.tensorrt_build import OnProgress
from vo_stream.net.tensorrt_build import build_engine as build_engine
from vo_stream.net.tensorrt_library import Library

logger = logging.getLogger(__name__)

SCHEMA = 1
"""Of engines and of what is written beside them; raised when `build_engine` builds another one."""

ENGINE, ABOUT, TIMINGS, PARTIAL = ".engine", ".json", ".timings", ".partial"
"""Endings of the files in the cache; the last is of those that are not whole yet."""

KEPT = 8
"""Engines in a folder, those used last: each is some 100 MB, and an update leaves one behind."""

KEY_DIGITS = 12
"""Of the hash in a file's name. The whole of what it stands for is in the file beside it."""

ANY_GPU = "any"
"""In the place of the GPU for engines that are not made for one."""

Key = dict[str, Any]


def default_folder() -> Path:
    """Return where engines are kept if no folder is named; raises NetError without a home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        base = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        raise NetError("no home directory for TensorRT's engines: set net.engine_folder") from None
    return base / "vo_stream" / "engines"


def cached_engine(
    library: Library,
    gpu: Gpu | None,
    model_file: Path,
    sidecar: Sidecar,
    size: tuple[int, int],
    options: EngineOptions,
    folder: Path | None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Return the file of an engine for images of (width, height), built unless it is there.

    `gpu`: on which it is to run, as `require_gpu` says; None where there is none, which only a
    library with portable engines can do without. `folder`: None takes `default_folder`. One
    process builds at a time; others wait and find the engine. Raises NetError, in one line, as
    `build_engine` does and where the folder cannot be used.
    """
    if gpu is None and not library.portable:
        raise NetError(f"{library} builds engines only on the GPU that they are for")
    folder = folder or default_folder()
    key = key_of(library, gpu, model_file, size, options)
    path = folder / _name(key, model_file)
    with _errors_named(folder):
        if _is_sound(path, key):
            return path
        _prepare(folder)
    with _locked(folder, on_progress):
        with _errors_named(folder):
            if _is_sound(path, key):  # built while this process waited
                return path
            forget_engine(path)
            _sweep(folder, KEPT - 1)
        begun = time.monotonic()
        timings = None if library.portable else path.with_name(_timings_name(key))
        content = build_engine(library, model_file, sidecar, size, options, on_progress, timings)
        logger.info("%s: built by %s in %.0f s", path, library, time.monotonic() - begun)
        with _errors_named(folder):
            _write(path, content)
            about = {**key, "sha256": hashlib.sha256(content).hexdigest()}
            _write(path.with_suffix(ABOUT), json.dumps(about, indent=2).encode())
    return path


def forget_engine(path: Path) -> None:
    """Delete an engine that could not be loaded, so that it is built once more."""
    with _errors_named(path):
        path.with_suffix(ABOUT).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def key_of(
    library: Library,
    gpu: Gpu | None,
    model_file: Path,
    size: tuple[int, int],
    options: EngineOptions,
) -> Key:
    """Return all that an engine depends on, as it comes back from JSON.

    Portable engines are the same for every GPU: one that was built before there was a GPU is found
    when there is.
    """
    with _errors_named(model_file):
        network = hashlib.sha256(model_file.read_bytes()).hexdigest()
    return {
        "schema": SCHEMA,
        "network": network,
        "library": [library.name, library.version],
        "gpu": ANY_GPU if library.portable or gpu is None else [gpu.name, *gpu.capability],
        "size": list(size),
        "options": asdict(options),
    }


def _name(key: Key, model_file: Path) -> str:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    width, height = key["size"]
    return f"{model_file.stem}_{width}x{height}_{digest[:KEY_DIGITS]}{ENGINE}"


def _timings_name(key: Key) -> str:
    """Return a name for what one library measured on one GPU, whichever network it was for."""
    parts = [*key["library"], *key["gpu"]]
    return re.sub(r"[^\w.]+", "-", "_".join(map(str, parts))) + TIMINGS


def _is_sound(path: Path, key: Key) -> bool:
    """Return whether an engine is there, whole and built for that; notes that it was used."""
    try:
        about = json.loads(path.with_suffix(ABOUT).read_bytes())
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    except ValueError:
        about, content = None, b""
    if about != {**key, "sha256": hashlib.sha256(content).hexdigest()}:
        logger.warning("%s: damaged, or built for something else; it is built anew", path)
        return False
    _check_owner(path)
    try:
        os.utime(path)
    except OSError:  # a cache that is only read is as good
        logger.debug("%s: cannot note that it was used", path)
    return True


def _prepare(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(folder)


def _check_owner(path: Path) -> None:
    """Refuse what anybody may have put there."""
    about = path.stat()
    if about.st_uid not in (os.getuid(), 0) or about.st_mode & stat.S_IWOTH:
        raise NetError(f"{path}: others may write to it, and engines are code; choose another one")


def _sweep(folder: Path, kept: int) -> None:
    """Delete what nobody will ask for: files that were never finished, engines not used lately."""
    for unfinished in folder.glob(f"*{PARTIAL}"):
        unfinished.unlink(missing_ok=True)
    engines = sorted(folder.glob(f"*{ENGINE}"), key=lambda path: path.stat().st_mtime_ns)
    for engine in engines[: max(len(engines) - kept, 0)]:
        forget_engine(engine)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; only the holder of the lock does."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path, on_progress: OnProgress | None) -> Iterator[None]:
    """Let one process at a time build; the system takes the lock from one that dies."""
    with _errors_named(folder):
        file = (folder / "lock").open("wb")
    with file:
        with _errors_named(folder):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("%s: another process builds an engine; waiting for it", folder)
                if on_progress is not None:
                    on_progress("waiting for another process that builds an engine", 0.0)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise NetError(f"{where}: {(error.strerror or str(error)).lower()}") from None
