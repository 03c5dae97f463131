"""A network with the interface of a real one, so small that an engine takes no time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vo_stream.net.sidecar import Sidecar, StatePart, sidecar_of

SIZE = (96, 64)


def small_network(folder: Path, name: str = "small", gain: float = 0.5) -> Path:
    """Write an ONNX file for images of any size and its sidecar; returns the ONNX file.

    Its state is a running mean of the images, `gain` times the newest. It estimates nothing.
    """
    nodes = [
        helper.make_node("Sub", ["image", "prev_mean"], ["news"]),
        helper.make_node("Mul", ["news", "gain"], ["change"]),
        helper.make_node("Add", ["prev_mean", "change"], ["next_mean"]),
        helper.make_node("AveragePool", ["next_mean"], ["inverse_depth"],
                         kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Sigmoid", ["inverse_depth"], ["weight"]),
        helper.make_node("Mul", ["rays", "weight"], ["flow"]),
        helper.make_node("ReduceMean", ["flow", "sides"], ["pair"], keepdims=0),
        helper.make_node("Concat", ["pair", "dt"], ["translation"], axis=1),
        helper.make_node("Concat", ["translation", "translation"], ["std"], axis=1),
        helper.make_node("Mul", ["translation", "eye"], ["rotation"]),
    ]  # fmt: skip
    constants = {
        "gain": np.float32(gain),
        "sides": np.array([2, 3]),
        "eye": np.eye(3, dtype=np.float32)[None],
    }
    shapes = {
        "image": (1, 1, "height", "width"),
        "rays": (1, 2, "down", "across"),
        "dt": (1, 1),
        "prev_mean": (1, 1, "height", "width"),
        "rotation": (1, 3, 3),
        "translation": (1, 3),
        "std": (1, 6),
        "flow": (1, 2, "down", "across"),
        "inverse_depth": (1, 1, "down", "across"),
        "weight": (1, 1, "down", "across"),
        "next_mean": (1, 1, "height", "width"),
    }
    tensors = {
        tensor: helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape)
        for tensor, shape in shapes.items()
    }
    inputs = [tensors.pop(tensor) for tensor in ("image", "rays", "dt", "prev_mean")]
    graph = helper.make_graph(
        nodes,
        name,
        inputs,
        list(tensors.values()),
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return save(model, folder / f"{name}.onnx")


def save(model: onnx.ModelProto, model_file: Path) -> Path:
    """Write an ONNX file and a sidecar that belongs to it."""
    content = model.SerializeToString()
    model_file.write_bytes(content)
    sidecar = Sidecar(
        name=model_file.stem,
        version="0",
        core="lstm",
        precision="fp32",
        max_pixels=640 * 192,
        multiple=32,
        size=None,
        rate_hz=None,
        states={"mean": StatePart((1,), 1)},
        sha256={".onnx": hashlib.sha256(content).hexdigest()},
    )
    sidecar_of(model_file).write_text(sidecar.text(), encoding="utf-8")
    return model_file
