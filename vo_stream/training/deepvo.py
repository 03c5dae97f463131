"""The baseline to beat: regression of the motion from two stacked frames and a recurrent core.

After DeepVO (Wang et al., 2017), with FlowNet's encoder (Dosovitskiy et al., 2015) made narrow
enough to cost what the network costs: no matching, no geometry, no depth. It is told the camera,
too, and is streamed and trained in the same way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vo_stream.net.alignment import CELL
from vo_stream.net.encoder import conv
from vo_stream.net.model import StepOutput
from vo_stream.net.recurrent import CORES, State
from vo_stream.net.rigid import rotation_from

MEMORY = 256
"""Size of the recurrent core."""

POOLED = 512
"""Channels of the last convolution."""

TRANSLATION_UNIT_M = 0.3
ROTATION_UNIT_RAD = 0.02
"""What the head says in: about the motions of a step."""

LOG_STD_RANGE = (-8.0, 4.0)
"""Natural logarithm, of the units above."""


class DeepVO(nn.Module):
    """Monocular odometry without geometry. Width and height are multiples of 32."""

    multiple = 32

    def __init__(self, core: str = "lstm") -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            conv(4, 24, 2, 7),
            conv(24, 48, 2, 5),
            conv(48, 96, 2, 5),
            conv(96, 96),
            conv(96, 192, 2),
            conv(192, 192),
            conv(192, 256, 2),
            conv(256, POOLED),
        )
        self.digest = nn.Linear(POOLED + 1, MEMORY)
        self.core = CORES[core](MEMORY)
        self.head = nn.Linear(MEMORY, 12)
        with torch.no_grad():  # no motion at first, with a wide deviation
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()

    def state_shapes(self, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Return the shape, without the batch, of each part of the state for an image's size."""
        return {"image": (1, height, width), "seen": (1,), **self.core.shapes}

    def start(
        self, batch: int, height: int, width: int, device: torch.device | str | None = None
    ) -> State:
        """Return the state of a stream that has seen nothing: zeros."""
        shapes = self.state_shapes(height, width)
        return {name: torch.zeros(batch, *s, device=device) for name, s in shapes.items()}

    def forward(
        self, image: Tensor, rays: Tensor, dt: Tensor, state: State
    ) -> tuple[StepOutput, State]:
        """Take in a frame; see OdometryNet. There is no flow, no depth and no trust: zeros."""
        centred = image - 0.5
        camera = functional.interpolate(rays, scale_factor=float(CELL), mode="bilinear")
        seen = self.encoder(torch.cat([state["image"], centred, camera], dim=1))
        with torch.autocast(image.device.type, enabled=False):
            told = torch.cat([seen.float().mean((2, 3)), 10.0 * dt.clamp(max=1.0)], dim=1)
            said, memory = self.core(functional.relu(self.digest(told)), state)
            twist, log_std = self.head(said).chunk(2, dim=1)
            units = twist.new_tensor([TRANSLATION_UNIT_M] * 3 + [ROTATION_UNIT_RAD] * 3)
            translation, turn = (twist * units).chunk(2, dim=1)
            rotation = rotation_from(turn)
        std = log_std.clamp(*LOG_STD_RANGE).exp() * units
        nothing = torch.zeros_like(rays[:, :1])
        flow = torch.zeros_like(rays)
        output = StepOutput(rotation, translation, std, flow, nothing, nothing, {})
        return output, {"image": centred, "seen": torch.ones_like(state["seen"]), **memory}
