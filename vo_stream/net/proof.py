"""The proof that an exported graph is the network, by running both on the same made-up footage.

A graph can load, run and answer and still be wrong: a part of the state that is never read, an
input that was frozen while tracing. So outputs and state are compared over a long stream, in
which each goes on from its own state, and everything that goes in must show in what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from vo_stream.errors import NetError
from vo_stream.net.learned_net import CELL
from vo_stream.net.sidecar import INPUTS, NEXT, PREVIOUS, Sidecar

Arrays: TypeAlias = dict[str, npt.NDArray[np.float32]]
Run: TypeAlias = Callable[[Arrays], Arrays]
"""One step: the graph's inputs by name to its outputs by name."""

FRAMES = 100
"""Of the stream over which graph and network are compared."""

TOLERANCE = {"fp32": (3e-4, 0.2), "fp16": (1e-2, 0.5), "int8": (5e-2, 1.0)}
"""How much an output may be off, as a part of its largest norm in the stream: in the median frame
and in any. A robust solve jumps now and then, when rounding tips a cell over an edge."""

DT_S = 0.05
FOCAL_WIDTHS = 0.8
"""Of the made-up camera: time between frames, focal length in widths of the image."""

MAX_STEP_PX = 1.0
MAX_TURN_RAD = 0.002
"""Of the made-up footage from frame to frame: also a network that was never trained can follow."""


def prove(
    graph: Run,
    network: Run,
    sidecar: Sidecar,
    size: tuple[int, int],
    frames: int = FRAMES,
) -> None:
    """Compare a graph with the network it was made from, on images of (width, height).

    Raises NetError, in one line that says what differs.
    """
    footage = list(made_up_footage(size, frames))
    start = start_of(sidecar, size)
    _check_same(
        list(_streamed(graph, start, footage)),
        list(_streamed(network, start, footage)),
        TOLERANCE[sidecar.precision],
    )
    _check_start_repeats(graph, start, footage)
    _check_all_matters(graph, start, footage)


def start_of(sidecar: Sidecar, size: tuple[int, int]) -> Arrays:
    """Return the state of a stream that has seen nothing, by the names of the graph's inputs."""
    return {
        PREVIOUS + name: np.zeros(part.shape(*size), dtype=np.float32)
        for name, part in sidecar.states.items()
    }


def made_up_footage(size: tuple[int, int], frames: int, seed: int = 0) -> Iterator[Arrays]:
    """Yield image, rays and dt of a camera that wanders over a textured plane."""
    width, height = size
    rng = np.random.default_rng(seed)
    plane = np.zeros((2 * height, 2 * width), dtype=np.float32)
    for octave in range(6):
        coarse = rng.random((2 + (height >> octave), 2 + (width >> octave)), dtype=np.float32)
        plane += 2.0**octave * cv2.resize(coarse - 0.5, (2 * width, 2 * height))
    plane = 0.5 + 0.2 * plane / plane.std()
    focal = FOCAL_WIDTHS * width
    u, v = np.meshgrid(np.arange(width // CELL), np.arange(height // CELL))
    centre = (np.array(size) - CELL) / (2 * CELL)
    rays = np.stack([u - centre[0], v - centre[1]])[None] * (CELL / focal)
    corner, turn = np.array([width / 2, height / 2]), 0.0
    for index in range(frames):
        c, s = np.cos(turn), np.sin(turn)
        plane_from_image = np.array([[c, -s, corner[0]], [s, c, corner[1]]])
        image = cv2.warpAffine(
            plane,
            plane_from_image,
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        grey = np.round(np.clip(image, 0.0, 1.0) * 255.0) / 255.0
        values = (grey[None, None], rays, np.full((1, 1), DT_S if index else 0.0))
        yield {name: np.float32(value) for name, value in zip(INPUTS, values, strict=True)}
        corner = corner + rng.uniform(-MAX_STEP_PX, MAX_STEP_PX, 2)
        turn += rng.uniform(-MAX_TURN_RAD, MAX_TURN_RAD)


def carried(outputs: Arrays) -> Arrays:
    """Return the new state that a step gave, by the names of the next step's inputs."""
    return {
        PREVIOUS + name.removeprefix(NEXT): value
        for name, value in outputs.items()
        if name.startswith(NEXT)
    }


def _streamed(run: Run, state: Arrays, footage: list[Arrays]) -> Iterator[Arrays]:
    for frame in footage:
        outputs = run(frame | state)
        state = carried(outputs)
        yield outputs


def _check_same(found: list[Arrays], true: list[Arrays], tolerance: tuple[float, float]) -> None:
    """Compare two streams; the first frame's motion means nothing and is left out."""
    for name in true[0]:
        begin = 0 if name.startswith(NEXT) else 1
        offset = np.eye(3, dtype=np.float32) if name == "rotation" else np.float32(0.0)
        if any(a[name].shape != b[name].shape for a, b in zip(found, true, strict=True)):
            raise NetError(f"the graph is not the network: {name} has another shape")
        off = np.array(
            [np.linalg.norm(a[name] - b[name]) for a, b in zip(found, true, strict=True)]
        )
        largest = max(float(np.linalg.norm(frame[name] - offset)) for frame in true[begin:])
        for measured, allowed, where in zip(
            (np.median(off[begin:]), off[begin:].max()), tolerance, ("half", "one"), strict=True
        ):
            if not measured <= allowed * largest:
                raise NetError(
                    f"the graph is not the network: in {where} of the frames of a stream {name} is "
                    f"off by {measured:.2g}, with a norm of at most {largest:.2g}"
                )


def _check_start_repeats(graph: Run, start: Arrays, footage: list[Arrays]) -> None:
    """Two streams from the start must give the same bits."""
    once, again = (list(_streamed(graph, start, footage[:3])) for _ in range(2))
    for first, second in zip(once, again, strict=True):
        for name, value in first.items():
            if not np.array_equal(value, second[name]):
                raise NetError(f"the graph does not repeat: {name} differs from run to run")


def _check_all_matters(graph: Run, start: Arrays, footage: list[Arrays]) -> None:
    """What goes in must show in what comes out: each input, each part of the state."""
    *_, last = _streamed(graph, start, footage[:3])
    inputs = footage[3] | carried(last)
    usual = graph(inputs)
    others: Mapping[str, npt.NDArray[np.float32]] = {
        "image": footage[1]["image"],
        "rays": 1.5 * inputs["rays"],
        "dt": 2.0 * inputs["dt"],
        **start,
    }
    for name, other in others.items():
        outputs = graph(inputs | {name: other})
        if all(np.array_equal(outputs[key], usual[key]) for key in usual):
            raise NetError(f"the graph does not look at its input {name}")
