"""The encoder: one CNN over one frame, from fine features for alignment to wide ones for depth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

CONTEXT = 64
"""Channels of `Features.context`."""

POOLED = 128
"""Channels of `Features.pooled`."""

HALF, QUARTER, CELLS, COARSE = 4, 8, 32, 64
"""Channels of the features that are matched, at 1/2, 1/4, 1/8 and 1/16."""

CONTRAST_WINDOW = 15
"""Side, in pixels at 1/2, of the window whose mean and contrast are taken out of the image."""

LEAST_CONTRAST = 0.02
"""Added to the contrast, as a part of full brightness: about the noise of a camera."""


class Features(NamedTuple):
    """What one frame says. The first four are matched with the other frame's and are the state.

    `half`: (batch, 4, H/2, W/2). `quarter`: (batch, 8, H/4, W/4). `cells`: (batch, 32, H/8, W/8)
    and `coarse`: (batch, 64, H/16, W/16), of unit length. `context`: (batch, 64, H/8, W/8), which
    sees most of the image. `pooled`: (batch, 128), the whole image.
    """

    half: Tensor
    quarter: Tensor
    cells: Tensor
    coarse: Tensor
    context: Tensor
    pooled: Tensor


def conv(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    """A convolution, batch normalisation (folded into it at export) and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two convolutions beside a short cut (He et al., 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return functional.relu(x + self.second(self.first(x)))


def local_contrast(image: Tensor) -> Tensor:
    """Return an image (batch, 1, H, W) at half size without its local mean and contrast.

    Exposure, gain and shading drop out; what remains has a spread of about 1.
    """
    small = functional.avg_pool2d(image, 2)
    side, around = CONTRAST_WINDOW, CONTRAST_WINDOW // 2
    mean = functional.avg_pool2d(small, side, 1, around, count_include_pad=False)
    centred = small - mean
    power = functional.avg_pool2d(centred * centred, side, 1, around, count_include_pad=False)
    return centred / (power.clamp(min=0.0).sqrt() + LEAST_CONTRAST)


class Encoder(nn.Module):
    """A small residual network down to 1/32, with a way back up to 1/8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(2, 24, 1)
        self.to_half = nn.Conv2d(24, HALF - 1, 1)
        self.down4 = nn.Sequential(conv(24, 32, 2), Residual(32))
        self.to_quarter = nn.Conv2d(32, QUARTER, 1)
        self.down8 = nn.Sequential(conv(32, 64, 2), Residual(64), Residual(64))
        self.to_cells = nn.Conv2d(64, CELLS, 1)
        self.down16 = nn.Sequential(conv(64, 96, 2), Residual(96), Residual(96))
        self.to_coarse = nn.Conv2d(96, COARSE, 1)
        self.down32 = nn.Sequential(conv(96, POOLED, 2), Residual(POOLED))
        self.up32 = nn.Conv2d(POOLED, 96, 1)
        self.up16 = nn.Sequential(conv(96, 96), nn.Conv2d(96, CONTEXT, 1))
        self.up8 = conv(64, CONTEXT)

    def forward(self, image: Tensor) -> Features:
        """Encode an image (batch, 1, H, W), 0..1."""
        contrast = local_contrast(image)
        brightness = 2.0 * functional.avg_pool2d(image, 2) - 1.0
        x = torch.cat([contrast, brightness], dim=1).to(self.to_half.weight.dtype)
        x2 = self.stem(x)
        half = torch.cat([contrast, self.to_half(x2).float()], dim=1)
        x4 = self.down4(x2)
        x8 = self.down8(x4)
        x16 = self.down16(x8)
        x32 = self.down32(x16)
        wide = functional.relu(x16 + functional.interpolate(self.up32(x32), scale_factor=2.0))
        up = functional.interpolate(self.up16(wide), scale_factor=2.0, mode="bilinear")
        coarse = functional.normalize(self.to_coarse(x16).float(), dim=1)
        return Features(
            half,
            self.to_quarter(x4).float(),
            functional.normalize(self.to_cells(x8).float(), dim=1),
            coarse,
            self.up8(functional.relu(x8 + up)),
            x32.float().mean((2, 3)),
        )
