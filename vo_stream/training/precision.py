"""The precision that the network is computed in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that computes convolutions in bfloat16 where the hardware does.

    What needs more the network itself computes in float32.
    """
    if device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
