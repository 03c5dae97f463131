"""What is read after each step, packed into one vector: one copy brings it from a GPU.

It holds the motion, how far it can be trusted, and a sum over each part of the new state, by which
a state that is not finite is told without reading it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vo_stream.net.learned_net import Answer, Floats
from vo_stream.net.sidecar import NEXT, Sidecar

PACKED = "packed"
"""Name of the vector, where it is an output of an engine."""

MOTION = {"rotation": 9, "translation": 3, "std": 6}
"""Outputs that are packed whole, in this order, and how many numbers each has; after them come
the mean of `weight` and the sum of each part of the state."""

_SPLITS = np.cumsum([*MOTION.values(), 1])


def packed_size(sidecar: Sidecar) -> int:
    """Return how many numbers are packed."""
    return int(_SPLITS[-1]) + len(sidecar.states)


def unpacked(numbers: Floats) -> Answer:
    """Return what a packed vector says; a state is sound if its sums are, unless they overflow."""
    rotation, translation, std, trust, sums = np.split(np.array(numbers), _SPLITS)
    sound = bool(np.isfinite(sums).all())
    return Answer(rotation.reshape(3, 3), translation, std, float(trust[0]), sound)


def add_packed(library: Any, network: Any, sidecar: Sidecar) -> None:
    """Add the packed vector to the outputs of a network that TensorRT's parser has read.

    `library`: the module tensorrt or tensorrt_rtx. `network`: its INetworkDefinition with all
    shapes fixed. The vector is (1, `packed_size`) in single precision.
    """
    found = [network.get_output(index) for index in range(network.num_outputs)]
    outputs = {tensor.name: tensor for tensor in found}

    def row(name: str) -> Any:
        layer = network.add_shuffle(outputs[name])
        layer.reshape_dims = (1, -1)
        return layer.get_output(0)

    def reduced(name: str, operation: Any) -> Any:
        columns = 1 << 1  # TensorRT takes axes as bits
        return network.add_reduce(row(name), operation, columns, True).get_output(0)

    rows = [
        *(row(name) for name in MOTION),
        reduced("weight", library.ReduceOperation.AVG),
        *(reduced(NEXT + name, library.ReduceOperation.SUM) for name in sidecar.states),
    ]
    together = network.add_concatenation(rows)
    together.axis = 1
    packed = together.get_output(0)
    packed.name = PACKED
    network.mark_output(packed)
