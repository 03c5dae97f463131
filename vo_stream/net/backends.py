"""The motion backends by name."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from vo_stream.config import Config, NetConfig
from vo_stream.errors import NetError
from vo_stream.net.cuda import cuda_devices
from vo_stream.net.sidecar import read_sidecar
from vo_stream.net.stepnet import StepNet

logger = logging.getLogger(__name__)


def _tensorrt(config: Config) -> StepNet:
    if config.net.backend == "auto" and cuda_devices() == 0:  # told without loading a library
        raise NetError("there is no NVIDIA GPU")
    from vo_stream.net.trt_net import TrtNet

    return TrtNet(config.net)


def _torch(config: Config) -> StepNet:
    if find_spec("torch") is None or find_spec("safetensors") is None:
        raise NetError("torch or safetensors is not installed: pip install 'vo_stream[train]'")
    if config.net.backend == "auto" and cuda_devices() == 0:  # told without loading torch
        raise NetError("without an NVIDIA GPU onnxruntime is faster")
    from vo_stream.net.torch_net import TorchNet, sees_gpu

    if config.net.backend == "auto" and not sees_gpu():
        raise NetError("this torch does not see the NVIDIA GPU, and onnxruntime is faster")
    return TorchNet(config.net)


def _onnxruntime(config: Config) -> StepNet:
    from vo_stream.net.onnx_net import OnnxNet

    return OnnxNet(config.net)


def _geometric(config: Config) -> StepNet:
    from vo_stream.net.geometric_net import GeometricNet

    return GeometricNet(config.geometric)


BACKENDS: dict[str, Callable[[Config], StepNet]] = {
    "tensorrt": _tensorrt,
    "torch": _torch,
    "onnxruntime": _onnxruntime,
    "geometric": _geometric,
}
"""What opens each backend, best first. An opener raises NetError, in one line, where its backend
cannot run here; it imports what it needs itself."""


def open_backend(config: Config) -> StepNet:
    """Open the backend that net.backend names; `auto` takes the first that runs and logs why.

    Raises NetError: a named backend that cannot run is never replaced by another, nor a named
    network's file by a backend that needs none.
    """
    name = config.net.backend
    if name != "auto":
        return BACKENDS[name](config)
    openers = dict(BACKENDS)
    if config.net.model_file:
        read_sidecar(Path(config.net.model_file))
        del openers["geometric"]
    for name, opener in openers.items():
        try:
            net = opener(config)
        except NetError as error:
            logger.info("backend %s cannot run here: %s", name, error)
            continue
        logger.info("backend %s: the first of %s that runs here", name, ", ".join(openers))
        return net
    raise NetError("no motion backend runs here; see vo-stream doctor")


def why_not(name: str) -> str:
    """Return why a backend cannot run here with default settings; empty where it can."""
    named = dataclasses.replace(Config(), net=NetConfig(backend=name))
    try:
        BACKENDS[name](named).close()
    except NetError as error:
        return str(error)
    return ""
