"""Static int8 quantization of a network's convolutions, for processors with int8 instructions.

Only the wide 3 x 3 convolutions are quantized: they are most of the arithmetic. The first one and
all that the geometry reads from (the features that are matched, flow, depth, weights) stay in
float: a pixel's hundredth is below what 8 bits resolve. Weights are symmetric with a scale for each
channel, activations asymmetric with one scale for each tensor, from their least and greatest
values on calibration footage (Jacob et al., "Quantization and training of neural networks for
efficient integer-arithmetic-only inference", 2018). In the graph these are pairs of QuantizeLinear
and DequantizeLinear (QDQ), which ONNX Runtime and OpenVINO fuse into integer convolutions.
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from vo_stream.errors import NetError
from vo_stream.net.learned_net import CELL
from vo_stream.net.onnx_net import open_graph
from vo_stream.net.proof import Arrays, carried
from vo_stream.net.sidecar import INPUTS, PREVIOUS, StatePart

OPERATORS = {"QuantizeLinear", "DequantizeLinear"}
"""What a quantized graph has besides those that it was made from."""

LEAST_CHANNELS = 16
"""In and out, of a convolution that is quantized: with fewer the casts cost more than is won."""

KERNEL = [3, 3]
"""Of a convolution that is quantized. Those of one pixel are heads, and cheap."""

WEIGHT_STEPS = 63
"""Greatest weight as an integer: 7 bits. With 8 the sums of two products overflow 16 bits on x86
processors before VNNI, which then saturate without a word."""

ACTIVATION_STEPS = 255
"""Greatest activation as an integer."""

CLIPS_OF_A_SIZE = 4
"""Rendered clips to calibrate on, of each size of images."""

EVERY = 3
"""Of so many frames of a stream one is looked at."""

LEAST_SCALE = 1e-12
"""Of a channel whose weights are all zero, or a tensor that is."""

DAMAGED = (OSError, EOFError, ValueError, TypeError, LookupError, zipfile.BadZipFile, zlib.error)
"""What a file that is no archive of arrays, or not of these arrays, leads to."""


@dataclass(frozen=True)
class _Layer:
    """A convolution to quantize: `source` goes in, `result` comes out, after its ReLU if any."""

    conv: NodeProto
    source: str
    result: str


def quantized(
    model_file: Path, states: Mapping[str, StatePart], streams: Iterable[Iterable[Arrays]]
) -> bytes:
    """Return the graph of an fp32 ONNX file with int8 convolutions.

    `states`: as in the sidecar. `streams`: footage to calibrate on, of the kind that the network
    will see; each gives image, rays and dt of one frame after another, from the first of a stream
    on, all of one size. Raises NetError where there is no footage, or where none of its
    convolutions can be quantized.
    """
    model = onnx.load(model_file)
    layers = list(_layers(model))
    if not layers:
        raise NetError(f"{model_file}: has no convolution that could be quantized")
    tensors = sorted({name for layer in layers for name in (layer.source, layer.result)})
    _insert(model, layers, _ranges(model, tensors, states, streams))
    return bytes(model.SerializeToString())


def clip_streams(folder: Path) -> Iterator[Iterator[Arrays]]:
    """Return streams of rendered clips, as training leaves them in its folder `worlds`: files
    `<width>x<height>_<seed>.npz`, of each size the same number, evenly chosen.

    Raises NetError where there are none, at once, or one cannot be read, when it is its turn.
    """
    by_size: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*x*_*.npz")):
        by_size.setdefault(path.name.partition("_")[0], []).append(path)
    if not by_size:
        raise NetError(f"{folder}: has no rendered clips (<width>x<height>_<seed>.npz)")
    return (
        _frames_of(paths[index * len(paths) // count])
        for paths in by_size.values()
        for count in [min(CLIPS_OF_A_SIZE, len(paths))]
        for index in range(count)
    )


def _frames_of(path: Path) -> Iterator[Arrays]:
    """Yield the frames of the first film in a file of clips; raises NetError."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            images, stamps = np.uint8(file["images"][0]), np.float64(file["stamps"][0])
            fx, fy, cx, cy = np.float64(file["intrinsics"][0])
        if images.ndim != 3 or not len(images) == len(stamps) > 0:
            raise ValueError(f"{images.shape} images at {stamps.shape} times")
    except DAMAGED as error:
        raise NetError(f"{path}: not a rendered clip ({type(error).__name__})") from None
    rows, columns = (side // CELL for side in images.shape[1:])
    u, v = np.meshgrid(np.arange(columns), np.arange(rows))
    centre = (CELL - 1) / 2
    rays = np.stack([(CELL * u + centre - cx) / fx, (CELL * v + centre - cy) / fy])
    for image, dt in zip(images, np.diff(stamps, prepend=stamps[0]), strict=True):
        values = (image[None, None] / 255.0, rays[None], np.full((1, 1), dt))
        yield {name: np.float32(value) for name, value in zip(INPUTS, values, strict=True)}


def _layers(model: ModelProto) -> Iterator[_Layer]:
    """Yield the convolutions to quantize."""
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = {output.name for output in model.graph.output}
    for node in model.graph.node:
        if node.op_type != "Conv" or any(name not in shapes for name in node.input[1:]):
            continue
        outputs, inputs, *kernel = shapes[node.input[1]]
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        if kernel != KERNEL or min(outputs, inputs) < LEAST_CHANNELS or groups != 1:
            continue
        after = readers.get(node.output[0], [])
        rectified = [n.op_type for n in after] == ["Relu"] and node.output[0] not in kept
        result = after[0].output[0] if rectified else node.output[0]
        if result not in kept:
            yield _Layer(node, node.input[0], result)


def _ranges(
    model: ModelProto,
    tensors: list[str],
    states: Mapping[str, StatePart],
    streams: Iterable[Iterable[Arrays]],
) -> dict[str, tuple[float, float]]:
    """Return the least and greatest value of each tensor, 0 included, over the footage."""
    watched = ModelProto()
    watched.CopyFrom(model)
    ends = {name: (f"{name}/least", f"{name}/greatest") for name in tensors}
    for name, (least, greatest) in ends.items():
        for kind, end in (("ReduceMin", least), ("ReduceMax", greatest)):
            watched.graph.node.append(helper.make_node(kind, [name], [end], keepdims=0))
            value = helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [])
            watched.graph.output.append(value)
    found = dict.fromkeys(tensors, (0.0, 0.0))
    looked_at = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "watched.onnx")
        onnx.save(watched, path)
        run = open_graph(path)
    for stream in streams:
        state: Arrays = {}
        for index, frame in enumerate(stream):
            height, width = frame["image"].shape[2:]
            state = state or _clean(states, width, height)
            outputs = run(frame | state)
            state = carried(outputs)
            if index % EVERY != 1:  # the first of a stream is matched with nothing
                continue
            looked_at += 1
            for name, (least, greatest) in ends.items():
                low, high = found[name]
                here = float(outputs[least]), float(outputs[greatest])
                found[name] = min(low, here[0]), max(high, here[1])
    if not looked_at:
        raise NetError("there is no footage to calibrate on")
    return found


def _clean(states: Mapping[str, StatePart], width: int, height: int) -> Arrays:
    return {
        PREVIOUS + name: np.zeros(part.shape(width, height), np.float32)
        for name, part in states.items()
    }


def _insert(
    model: ModelProto, layers: list[_Layer], ranges: Mapping[str, tuple[float, float]]
) -> None:
    """Write the pairs of QuantizeLinear and DequantizeLinear into a graph.

    What a quantized convolution says is read as integers by all, what it is told only by quantized
    convolutions: other readers of the same tensor see it as it was.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantized_outputs = {layer.result for layer in layers}
    convolutions = {layer.conv.output[0]: layer for layer in layers}
    pairs = {name: list(_pair(model, name, *bounds)) for name, bounds in ranges.items()}
    nodes: list[NodeProto] = []
    for tensor in [value.name for value in graph.input]:
        nodes += pairs.get(tensor, [])
    for node in graph.node:
        mine = convolutions.get(node.output[0])
        for i, name in enumerate(node.input):
            if name in pairs and (mine or name in quantized_outputs):
                node.input[i] = pairs[name][1].output[0]
        if mine:
            nodes += _constant_inputs(model, mine, constants, ranges[mine.source])
        nodes.append(node)
        for name in node.output:
            nodes += pairs.get(name, [])
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    used |= {value.name for value in graph.output}  # which may be constants
    left = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)


def _pair(model: ModelProto, name: str, low: float, high: float) -> Iterator[NodeProto]:
    """Yield what makes a tensor 8 bits wide and a float again."""
    scale, zero = _scale(low, high)
    steps = _constant(model, f"{name}/scale", np.float32(scale))
    middle = _constant(model, f"{name}/zero", np.uint8(zero))
    whole, real = f"{name}/quantized", f"{name}/dequantized"
    yield helper.make_node("QuantizeLinear", [name, steps, middle], [whole], name=whole)
    yield helper.make_node("DequantizeLinear", [whole, steps, middle], [real], name=real)


def _scale(low: float, high: float) -> tuple[float, int]:
    """Return the step and the integer of 0.0 for activations between two values, 0 included."""
    scale = max((high - low) / ACTIVATION_STEPS, LEAST_SCALE)
    return scale, round(-low / scale)


def _constant_inputs(
    model: ModelProto,
    layer: _Layer,
    constants: Mapping[str, npt.NDArray[Any]],
    bounds: tuple[float, float],
) -> Iterator[NodeProto]:
    """Quantize weights and bias of a convolution; yield what makes floats of them again."""
    conv, own = layer.conv, layer.conv.output[0]
    weights = constants[conv.input[1]]
    scales = np.maximum(np.abs(weights).max(axis=(1, 2, 3)) / WEIGHT_STEPS, LEAST_SCALE)
    whole = np.rint(weights / scales[:, None, None, None]).astype(np.int8)
    yield _dequantized(model, conv, 1, f"{own}/weights", whole, scales)
    if len(conv.input) > 2:  # in steps of the products, as they are summed
        steps = np.float64(scales) * np.float32(_scale(*bounds)[0])
        limits = np.iinfo(np.int32)
        rounded = np.rint(constants[conv.input[2]] / steps).clip(limits.min, limits.max)
        yield _dequantized(model, conv, 2, f"{own}/bias", rounded.astype(np.int32), steps)


def _dequantized(
    model: ModelProto,
    conv: NodeProto,
    place: int,
    name: str,
    values: npt.NDArray[Any],
    scales: npt.NDArray[Any],
) -> NodeProto:
    """Let a convolution read integers with a scale for each channel; return the node between."""
    inputs = [
        _constant(model, name, values),
        _constant(model, f"{name}/scale", scales.astype(np.float32)),
        _constant(model, f"{name}/zero", np.zeros(len(scales), values.dtype)),
    ]
    conv.input[place] = f"{name}/dequantized"
    return helper.make_node("DequantizeLinear", inputs, [conv.input[place]], name=name, axis=0)


def _constant(model: ModelProto, name: str, value: Any) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name
