"""Arithmetic and memory traffic of one step of a network, counted from its ONNX graph.

python tools/graph_cost.py [MODEL.onnx] [--size 640x192] [--json]

Shapes are those of ONNX's shape inference once the sizes of the inputs are fixed and what follows
from sizes alone is folded into constants. A multiply-add is two operations; any other operation
on a number is one, whatever it costs a processor (an exponential as well as an addition). Moving
numbers and comparing them for a mask is none.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
from onnx import shape_inference
from onnxscript.optimizer import fold_constants

from vo_stream.errors import NetError, VoStreamError
from vo_stream.net.learned_net import CELL
from vo_stream.net.sidecar import INPUTS, PREVIOUS, RELEASED, Sidecar, read_sidecar
from vo_stream.replay.bench_clip import size_of

Shape = tuple[int, ...]
Shapes = Sequence[Shape]
Rule = Callable[[onnx.NodeProto, Shapes, Shapes], int]
"""Operations of a node by the shapes of its inputs and outputs; an input left out is ()."""

BILINEAR = 8
"""Operations for a number between four others: four multiply-adds."""

SOFTMAX = 5
"""Operations for a number: greatest, difference, exponential, sum, quotient."""

MOVING = {
    "Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Gather", "GatherElements",
    "GatherND", "Identity", "Pad", "Range", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Trilu", "Unsqueeze", "Where", "And", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Not", "Or",
}  # fmt: skip
"""Operators without arithmetic."""

VIEWS = {"Constant", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"}
"""Operators that need not touch the numbers."""

PER_OUTPUT = {
    "Abs", "Add", "Clip", "Cos", "DequantizeLinear", "Div", "Exp", "Floor", "Log", "Max", "Min",
    "Mul", "Neg", "Pow", "QuantizeLinear", "Reciprocal", "Relu", "Sigmoid", "Sin", "Softplus",
    "Sqrt", "Sub", "Tanh",
}  # fmt: skip
"""Operators that take one operation for each number that comes out."""

PER_INPUT = {
    "GlobalAveragePool", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
}  # fmt: skip
"""Operators that take one operation for each number that goes in."""


@dataclass(frozen=True)
class Cost:
    """Of one step.

    `operations`: in floating point, `by_operator` those of each operator. `weight_bytes`,
    `io_bytes`: of constants, and of inputs and outputs, state included: each must be moved once,
    however well the rest is fused. `node_bytes`: what is moved where every node reads its inputs
    from memory and writes its outputs there. `nodes`: what is left of the graph when constants are
    folded.
    """

    operations: int
    by_operator: Mapping[str, int]
    weight_bytes: int
    io_bytes: int
    node_bytes: int
    nodes: int


def cost_of(model: onnx.ModelProto) -> Cost:
    """Count a graph whose inputs have fixed shapes.

    Raises NetError for an operator without a rule, or a shape that stays unknown.
    """
    graph = _folded(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    shapes = {value.name: _shape(value) for value in values}
    item = {value.name: _item_size(value.type.tensor_type.elem_type) for value in values}
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    for constant in graph.initializer:
        shapes[constant.name] = tuple(constant.dims)
        item[constant.name] = _item_size(constant.data_type)
        kinds[constant.name] = constant.data_type

    def size(name: str) -> int:
        return math.prod(shapes[name]) * item[name]

    by_operator: Counter[str] = Counter()
    node_bytes = 0
    for node in graph.node:
        rule = RULES.get(node.op_type)
        if rule is None or node.domain not in ("", "ai.onnx"):
            raise NetError(f"no rule for the operator {node.domain}{node.op_type}")
        touched = [name for name in (*node.input, *node.output) if name]
        unknown = [name for name in touched if name not in shapes or -1 in shapes[name]]
        if unknown:
            raise NetError(f"{node.op_type} {node.name}: the shape of {unknown[0]} is unknown")
        if kinds[node.output[0]] in FLOATS:
            inputs = [shapes[name] if name else () for name in node.input]
            by_operator[node.op_type] += rule(node, inputs, [shapes[n] for n in node.output if n])
        if node.op_type not in VIEWS:
            node_bytes += sum(map(size, touched))
    used = {name for node in graph.node for name in node.input}
    constants = {c.name for c in graph.initializer}
    ends = [value.name for value in (*graph.input, *graph.output)]
    return Cost(
        operations=sum(by_operator.values()),
        by_operator={name: n for name, n in by_operator.most_common() if n},
        weight_bytes=sum(map(size, used & constants)),
        io_bytes=sum(size(name) for name in ends if name not in constants),
        node_bytes=node_bytes,
        nodes=len(graph.node),
    )


FLOATS = (
    onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
)  # fmt: skip
"""Element types whose arithmetic counts; sizes and indices are whole numbers."""


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with all shapes, and what is constant at this size folded."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.value_info[:]
    for value in plain.graph.output:
        value.type.tensor_type.ClearField("shape")
    known = onnx_ir.from_proto(shape_inference.infer_shapes(plain, data_prop=True))
    fold_constants(known, onnx_shape_inference=False)
    folded = onnx_ir.to_proto(known)
    del folded.graph.value_info[:]
    return shape_inference.infer_shapes(folded, strict_mode=True, data_prop=True)


def _shape(value: onnx.ValueInfoProto) -> Shape:
    """Return a shape, -1 where a side is not known."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return (-1,)
    return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)


def _item_size(kind: int) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    found = [onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else default


def _conv(node: onnx.NodeProto, inputs: Shapes, outputs: Shapes) -> int:
    weight, out = inputs[1], math.prod(outputs[0])  # weight: (out, in / groups, ...)
    bias = out if len(inputs) > 2 and inputs[2] else 0
    return 2 * out * math.prod(weight[1:]) + bias


def _matmul(node: onnx.NodeProto, inputs: Shapes, outputs: Shapes) -> int:
    return 2 * math.prod(outputs[0]) * inputs[0][-1]


def _gemm(node: onnx.NodeProto, inputs: Shapes, outputs: Shapes) -> int:
    transposed = bool(_attribute(node, "transA", 0))
    out, inner = math.prod(outputs[0]), inputs[0][0 if transposed else 1]
    return 2 * out * inner + (out if len(inputs) > 2 and inputs[2] else 0)


def _pool(node: onnx.NodeProto, inputs: Shapes, outputs: Shapes) -> int:
    kernel: Shape = tuple(_attribute(node, "kernel_shape", ()))
    return math.prod(outputs[0]) * math.prod(kernel)


def _interpolated(node: onnx.NodeProto, inputs: Shapes, outputs: Shapes) -> int:
    default = b"nearest" if node.op_type == "Resize" else b"linear"
    mode = bytes(_attribute(node, "mode", default))
    if mode == b"nearest":
        return 0
    if mode not in (b"linear", b"bilinear"):
        raise NetError(f"no rule for {node.op_type} with mode {mode.decode()}")
    return BILINEAR * math.prod(outputs[0])


def _per_output(operations: int) -> Rule:
    def rule(_: onnx.NodeProto, __: Shapes, outputs: Shapes) -> int:
        return operations * math.prod(outputs[0])

    return rule


def _per_input(_: onnx.NodeProto, inputs: Shapes, __: Shapes) -> int:
    return math.prod(inputs[0])


RULES: dict[str, Rule] = {
    **dict.fromkeys(MOVING, _per_output(0)),
    **dict.fromkeys(PER_OUTPUT, _per_output(1)),
    **dict.fromkeys(PER_INPUT, _per_input),
    **dict.fromkeys(("GridSample", "Resize"), _interpolated),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    "Softmax": _per_output(SOFTMAX),
    "Conv": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
}


def fixed(model_file: Path, sidecar: Sidecar, size: tuple[int, int]) -> onnx.ModelProto:
    """Return a network's graph for a camera whose images have one (width, height)."""
    width, height = size = sidecar.spec("").input_size(size)
    shapes: dict[str, Shape] = dict(
        zip(
            INPUTS,
            ((1, 1, height, width), (1, 2, height // CELL, width // CELL), (1, 1)),
            strict=True,
        )
    )
    shapes |= {PREVIOUS + name: part.shape(*size) for name, part in sidecar.states.items()}
    model = onnx.load(model_file)
    for value in model.graph.input:
        for side, length in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            side.Clear()
            side.dim_value = length
    return model


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Arithmetic and traffic of one step.")
    parser.add_argument("model", nargs="?", type=Path, default=RELEASED, help="ONNX file")
    parser.add_argument("--size", default="640x192", help="of the camera's images, in pixels")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    try:
        cost = cost_of(fixed(args.model, read_sidecar(args.model), size_of(args.size)))
    except VoStreamError as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(vars(cost)))
        return 0
    print(f"{cost.operations / 1e9:.3f} GFLOP in {cost.nodes} nodes")
    for name, operations in cost.by_operator.items():
        print(f"  {name:<18} {operations / 1e6:10.2f} MFLOP")
    print(f"weights {cost.weight_bytes / 1e6:.2f} MB, inputs, outputs and state once", end=" ")
    print(f"{cost.io_bytes / 1e6:.2f} MB; every node by itself {cost.node_bytes / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
