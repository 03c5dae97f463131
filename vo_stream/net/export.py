"""From weights to the ONNX file that robots run, proven to compute the same before it is written.

The graph is one step of `OdometryNet`: image, rays, dt and each part of the state in, the motion,
what it was found from and each part of the new state out. Sizes are dynamic, so that one file
serves every camera. ONNX Runtime and TensorRT's parser read it.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx_ir.passes import common
from onnxscript import optimizer
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_conv_bn_eval

import vo_stream
from vo_stream.errors import NetError
from vo_stream.net import quantize
from vo_stream.net.model import OdometryNet
from vo_stream.net.onnx_net import open_graph
from vo_stream.net.proof import Arrays, Run, prove
from vo_stream.net.sidecar import (
    INPUTS,
    NEXT,
    OUTPUTS,
    PREVIOUS,
    RELEASED,
    Sidecar,
    StatePart,
    sidecar_of,
)
from vo_stream.net.torch_net import core_of, correlation_of, load_network, rates_of

OPSET = 18
"""Read by ONNX Runtime from 1.14 and TensorRT from 8.6 on."""

MAX_PIXELS = 640 * 192
"""Of the images that the network is fed."""

PRECISIONS = ("fp32", "fp16", "int8")

TRACED_SIZE = (160, 128)
"""(width, height) at which the graph is traced; another one than the size it is proven at."""

PROVEN_SIZE = (320, 96)
"""(width, height) of the proof, where the graph takes any."""

LARGEST_SIDE = 64
"""Of an image, in multiples of the network's."""


OPERATORS = {
    "Abs", "Add", "And", "AveragePool", "Cast", "Clip", "Concat", "ConstantOfShape", "Conv",
    "Cos", "Div", "Equal", "Exp", "Expand", "Floor", "Gather", "GatherElements", "GatherND", "Gemm",
    "GlobalAveragePool", "Greater", "GreaterOrEqual", "Identity", "Less",
    "LessOrEqual", "Log", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Not", "Or", "Pad",
    "Pow", "Range", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
    "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Sin", "Slice", "Softmax", "Softplus",
    "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
}  # fmt: skip
"""What a graph may consist of: no loops, no recurrent operators, no sizes that depend on data,
nothing outside ONNX's own set. ONNX Runtime and TensorRT have all of these."""


class Step(nn.Module):
    """One step of the network with the state as a tuple, the way a graph has inputs and outputs."""

    def __init__(self, network: OdometryNet) -> None:
        super().__init__()
        self.network = network
        self.names = tuple(network.state_shapes(64, 64))
        self.input_names = [*INPUTS, *(PREVIOUS + name for name in self.names)]
        self.output_names = [*OUTPUTS, *(NEXT + name for name in self.names)]

    def forward(
        self, image: Tensor, rays: Tensor, dt: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Return the outputs and the new state, by `output_names`."""
        before = dict(zip(self.names, state, strict=True))
        output, after = self.network(image, rays, dt, before)
        said = (getattr(output, name) for name in OUTPUTS)
        return (*said, *(after[name] for name in self.names))


def export_network(
    weights: Path | None,
    out: Path,
    precision: str = "fp32",
    size: str | None = None,
    clips: Path | None = None,
) -> Path:
    """Write the ONNX file of a safetensors file, its sidecar and a copy of the weights into `out`.

    `weights`: None takes the released ones. `size`: "WIDTHxHEIGHT" of the only images that the
    graph takes; None lets it take any. `clips`: folder of rendered clips that "int8" is calibrated
    on. Returns the ONNX file. Raises NetError where the weights cannot be used or the graph does
    not compute the same; nothing is written then.
    """
    if precision == "int8" and clips is None:
        raise NetError("int8 needs rendered clips to calibrate on: --clips FOLDER")
    source = weights or RELEASED.with_suffix(".safetensors")
    network, about = load_network(source)
    fixed = parsed_size(size, network.multiple) if size else None
    streams = quantize.clip_streams(clips) if precision == "int8" and clips is not None else None
    folded = folded_for(network, precision)
    stem = source.stem + ("" if precision == "fp32" else f"_{precision}")
    stem += f"_{size}" if size else ""
    with _folder_beside(out) as folder:
        model_file = folder / f"{stem}.onnx"
        model_file.write_bytes(traced(folded, fixed))
        if streams is not None:
            model_file.write_bytes(quantize.quantized(model_file, state_parts(network), streams))
        weights_file = model_file.with_suffix(".safetensors")
        shutil.copyfile(source, weights_file)
        sidecar = Sidecar(
            name=stem,
            version=vo_stream.__version__,
            core=core_of(about),
            precision=precision,
            max_pixels=fixed[0] * fixed[1] if fixed else MAX_PIXELS,
            multiple=network.multiple,
            size=fixed,
            rate_hz=rates_of(about),
            states=state_parts(network),
            sha256={path.suffix: _sha256(path) for path in (model_file, weights_file)},
            correlation=correlation_of(about),
        )
        sidecar_of(model_file).write_text(sidecar.text(), encoding="utf-8")
        check_graph(model_file, precision)
        prove(open_graph(model_file), as_graph(network), sidecar, fixed or PROVEN_SIZE)
        for path in (weights_file, model_file, sidecar_of(model_file)):
            path.replace(out / path.name)
    return out / model_file.name


def parsed_size(text: str, multiple: int) -> tuple[int, int]:
    """Return (width, height) from "WIDTHxHEIGHT"; NetError where the network has no such size."""
    sides = [int(side) if side.isdecimal() else 0 for side in text.split("x")]
    if len(sides) != 2 or min(sides) < 2 * multiple or any(side % multiple for side in sides):
        raise NetError(
            f"size {text}: not WIDTHxHEIGHT in multiples of {multiple} from {2 * multiple} on, "
            "such as 640x192"
        )
    return sides[0], sides[1]


def folded_for(network: OdometryNet, precision: str) -> OdometryNet:
    """Return a copy for inference: normalisation folded into the convolutions before it.

    With "fp16" the convolutions are in half precision; rays, state, the recurrent core and the
    geometry stay in single precision, the network casts between them.
    """
    network = copy.deepcopy(network).eval()
    for block in network.modules():
        if isinstance(block, nn.Sequential):
            for i in range(len(block) - 1):
                first, second = block[i], block[i + 1]
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    block[i], block[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    if precision == "fp16":
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.half()
    return network


def as_graph(network: OdometryNet) -> Run:
    """Return a network's step as a function of arrays by the names of the graph's inputs."""
    step = Step(network)

    @torch.inference_mode()
    def run(inputs: Arrays) -> Arrays:
        image, rays, dt = (torch.from_numpy(inputs[name]) for name in INPUTS)
        state = tuple(torch.from_numpy(inputs[PREVIOUS + name]) for name in step.names)
        outputs = step(image, rays, dt, state)
        return {n: t.numpy() for n, t in zip(step.output_names, outputs, strict=True)}

    return run


def state_parts(network: OdometryNet) -> dict[str, StatePart]:
    """Return how the shapes of the state depend on the size of the image."""
    side = 64
    parts = {}
    for name, shape in network.state_shapes(side, side).items():
        if network.state_shapes(2 * side, 2 * side)[name] == shape:
            parts[name] = StatePart(shape)
        else:
            parts[name] = StatePart(shape[:-2], side // shape[-1])
    return parts


def traced(network: OdometryNet, size: tuple[int, int] | None) -> bytes:
    """Return the graph of a network's step, for images of one (width, height) or of any."""
    step = Step(network)
    width, height = size or TRACED_SIZE
    arguments = (
        torch.rand(1, 1, height, width),
        torch.rand(1, 2, height // 8, width // 8),
        torch.full((1, 1), 0.05),
        tuple(network.start(1, height, width).values()),
    )
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            step,
            arguments,
            dynamo=True,
            opset_version=OPSET,
            input_names=step.input_names,
            output_names=step.output_names,
            dynamic_shapes=None if size else _dynamic_shapes(network),
            optimize=False,
            verbose=False,
        )
        assert program is not None
        _simplify(program.model)
        return bytes(program.model_proto.SerializeToString())


def _dynamic_shapes(network: OdometryNet) -> dict[str, Any]:
    """Name the sides of the inputs, in multiples of what the network needs."""
    across = Dim("width", min=2, max=LARGEST_SIDE)
    down = Dim("height", min=2, max=LARGEST_SIDE)

    def sides(divisor: int) -> dict[int, Any] | None:
        share = network.multiple // divisor if divisor else 0
        return {2: share * down, 3: share * across} if divisor else None

    states = tuple(sides(part.divisor) for part in state_parts(network).values())
    return {"image": sides(1), "rays": sides(8), "dt": None, "state": states}


def _simplify(model: Any) -> None:
    """Fold constants and merge what is computed twice.

    The exporter's own optimizer takes minutes for a graph of this size, and ONNX Runtime fuses
    the rest as it loads it.
    """
    optimizer.fold_constants(
        model,
        onnx_shape_inference=False,
        should_fold=lambda node: True if node.op_type == "ConstantOfShape" else None,
    )
    for change in (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.IdentityEliminationPass(),
        common.OutputFixPass(),
        common.ClearMetadataAndDocStringPass(),  # a third of the file: whence each node came
        common.NameFixPass(),
    ):
        change(model)


def check_graph(path: Path, precision: str = "fp32") -> None:
    """Check an ONNX file by itself: valid, and made of `OPERATORS`; raises NetError."""
    allowed = OPERATORS | (quantize.OPERATORS if precision == "int8" else set())
    model = onnx.load(path)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise NetError(f"the graph is not valid: {' '.join(str(error).split())}") from None
    names = {".".join(filter(None, (node.domain, node.op_type))) for node in model.graph.node}
    if others := names - allowed:
        raise NetError(f"the graph has operators that may not run: {', '.join(sorted(others))}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks about itself from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """Give a new folder on the same disk as `out`, for files that are moved there when whole."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export.", dir=out) as folder:
            yield Path(folder)
    except OSError as error:
        raise NetError(f"{out}: {error.strerror or error}") from None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
