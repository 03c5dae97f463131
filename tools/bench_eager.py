"""The process of bench_net.py in which torch runs on a GPU call by call, without CUDA graphs."""

from __future__ import annotations

import torch

from vo_stream.config import Config
from vo_stream.errors import NetError
from vo_stream.net import torch_net
from vo_stream.net.stepnet import StepNet
from vo_stream.replay.bench_worker import serve


class EagerBuffers(torch_net.TorchBuffers):
    """Buffers whose steps are never captured."""

    def _captured(self) -> list[torch.cuda.CUDAGraph]:
        return []


def open_eager(config: Config) -> StepNet:
    """Open torch on the GPU; raises NetError where it sees none."""
    if not torch_net.sees_gpu():
        raise NetError("torch sees no NVIDIA GPU")
    vars(torch_net)["TorchBuffers"] = EagerBuffers
    return torch_net.TorchNet(config.net)


if __name__ == "__main__":
    serve(open_eager)
