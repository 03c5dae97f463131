"""Engines built before they are needed, so that a robot need not wait for one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vo_stream.errors import NetError
from vo_stream.net.cuda import Gpu
from vo_stream.net.sidecar import read_sidecar_for_gpu
from vo_stream.net.tensorrt_build import OnProgress
from vo_stream.net.tensorrt_engine import EngineOptions, cached_engine
from vo_stream.net.tensorrt_library import find_library, require_gpu
from vo_stream.net.trt_net import NAME, TrtNet, camera_size
from vo_stream.net_config import NetConfig

DEFAULT_SIZE = "640x192"


class Ahead(NamedTuple):
    """The file of an engine, and in one line what is known of it."""

    path: Path
    remark: str


def build_ahead(
    model_file: Path,
    size: str | None,
    precision: str | None,
    folder: Path | None,
    on_progress: OnProgress | None = None,
) -> Ahead:
    """Build the engine of an ONNX file unless it is in the cache, and run it once on the GPU.

    `size`: "WIDTHxHEIGHT" of the camera's images; None takes that of the file, else
    `DEFAULT_SIZE`. `precision`: which the file must have, None where any will do. `folder`: None
    takes the default. Without a GPU that TensorRT-RTX supports its engine is built all the same,
    and not run. Raises NetError, in one line, where it cannot be built or does not run.
    """
    sidecar = read_sidecar_for_gpu(model_file)
    if precision not in (None, sidecar.precision):
        raise NetError(f"{model_file}: of precision {sidecar.precision}, not {precision}")
    camera = camera_size(size or DEFAULT_SIZE)
    library = find_library()
    gpu: Gpu | None = None
    remark = ""
    try:
        gpu = require_gpu(library)
    except NetError as reason:
        if not library.portable:
            raise
        remark = f"built by {library} and not run: {reason}"
    net_size = sidecar.spec(NAME).input_size(camera)
    options = EngineOptions()
    path = cached_engine(library, gpu, model_file, sidecar, net_size, options, folder, on_progress)
    if gpu is not None:
        _run_once(model_file, camera, folder)
        remark = f"built by {library}, runs on {gpu}"
    return Ahead(path, remark)


def _run_once(model_file: Path, camera: tuple[int, int], folder: Path | None) -> None:
    """Load the engine and take its first steps; raises NetError."""
    size = "x".join(map(str, camera))
    named = str(folder) if folder is not None else ""
    TrtNet(NetConfig(model_file=str(model_file), engine_folder=named, engine_size=size)).close()
