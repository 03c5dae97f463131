"""A network that was never trained and yet follows a camera, and footage for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vo_stream.net.model import OdometryNet
from vo_stream.net.proof import FOCAL_WIDTHS, made_up_footage
from vo_stream.net.torch_net import HEADER
from vo_stream.pose_error import AXES, Correlation

Image = npt.NDArray[np.uint8]
Rays = npt.NDArray[np.float32]

WIDTH, HEIGHT = SIZE = (160, 96)
SHARPNESS = (3.9, 3.0)
"""Logarithm of what scores are multiplied by: random features differ little."""


def settled_network(core: str = "lstm", seed: int = 0) -> OdometryNet:
    """Return a network of random weights that is as steady as a trained one.

    Normalisation has seen images, the features that are matched have no common part, and no head
    is zero, so that everything that goes in shows in what comes out.
    """
    torch.manual_seed(seed)
    network = OdometryNet(core)
    encoder = network.encoder
    images = torch.cat([torch.from_numpy(f["image"]) for f in made_up_footage(SIZE, 4, seed=1)])
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1 and not parameter.any():
                nn.init.normal_(parameter, std=0.002)
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the plain mean of what it sees
        encoder.train()(images)
        network.eval()
        layers = (encoder.to_coarse, encoder.to_cells, encoder.to_quarter)
        hooks = [layer.register_forward_hook(_centre) for layer in layers]
        encoder(images)
        for hook in hooks:
            hook.remove()
        network.sharpness.copy_(torch.tensor(SHARPNESS))
    return network


def _centre(layer: nn.Module, inputs: object, output: Tensor) -> None:
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    layer.bias -= output.mean((0, 2, 3))


ALIKE = Correlation((0.9, 0.8, 0.9, 0.5, 0.5, 0.4), (2.0, 3.0, 6.0, 1.0, 0.5, 0.3))
"""What the weights of `save_weights` tell of their errors."""


def save_weights(network: OdometryNet, path: Path, core: str = "lstm") -> Path:
    """Write a file of weights as a training does."""
    calibration = {
        key: dict(zip(AXES, values, strict=True))
        for key, values in (("error_share", ALIKE.share), ("error_time_s", ALIKE.time_s))
    }
    about = {"settings": {"core": core}, "rate_hz": [5.0, 30.0], "calibration": calibration}
    save_file(network.state_dict(), path, metadata={HEADER: json.dumps(about)})
    return path


def stream(frames: int, seed: int = 0, size: tuple[int, int] = SIZE) -> list[Image]:
    """Return images (height, width) of a camera that wanders over a textured plane."""
    footage = made_up_footage(size, frames, seed)
    return [np.asarray(np.round(255.0 * f["image"][0, 0]), dtype=np.uint8) for f in footage]


def pixel_rays(size: tuple[int, int] = SIZE) -> Rays:
    """Return the rays (height, width, 2) of that camera's pixels."""
    width, height = size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([u - (width - 1) / 2, v - (height - 1) / 2], axis=-1)
    return np.asarray(rays / (FOCAL_WIDTHS * width), dtype=np.float32)
