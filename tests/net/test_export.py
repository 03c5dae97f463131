"""From weights to a file: what is folded, what is written, and that it is written whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from network_cases import ALIKE, SIZE, save_weights, settled_network
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from vo_stream.cli import main
from vo_stream.errors import NetError
from vo_stream.net import ego_motion, export, proof
from vo_stream.net.export import (
    as_graph,
    check_graph,
    export_network,
    folded_for,
    parsed_size,
    state_parts,
)
from vo_stream.net.model import OdometryNet
from vo_stream.net.onnx_net import open_graph
from vo_stream.net.proof import Arrays, made_up_footage, start_of
from vo_stream.net.recurrent import CORES
from vo_stream.net.sidecar import Sidecar, read_sidecar
from vo_stream.net.torch_net import load_network

OTHER_SIZE = (96, 128)


def first_steps(network: OdometryNet, size: tuple[int, int], frames: int = 3) -> list[Arrays]:
    """Return the inputs of a network's first steps, each with the state of those before."""
    run, state, inputs = as_graph(network), start_of(described(network), size), []
    for frame in made_up_footage(size, frames):
        inputs.append(frame | state)
        state = proof.carried(run(inputs[-1]))
    return inputs


def described(network: OdometryNet) -> Sidecar:
    states = state_parts(network)
    return Sidecar("", "", "", "fp32", 1, network.multiple, None, None, states, {})


def network_of(model_file: Path) -> OdometryNet:
    return load_network(model_file.with_suffix(".safetensors"))[0]


def off(found: Arrays, true: Arrays) -> dict[str, float]:
    """Return by how much outputs differ, as a part of their size."""
    return {
        name: float(np.linalg.norm(found[name] - true[name]) / (np.linalg.norm(true[name]) + 1e-9))
        for name in true
    }


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, network_file: Path) -> None:
    """Let an export give the graph that there is already, and prove it on few frames."""
    monkeypatch.setattr(export, "traced", lambda network, size: network_file.read_bytes())
    monkeypatch.setattr(export, "PROVEN_SIZE", SIZE)
    monkeypatch.setattr(proof, "FRAMES", 6)


@pytest.fixture
def weights(network_file: Path, tmp_path: Path) -> Path:
    """The weights that the graph there is was made from."""
    (tmp_path / "weights").mkdir()
    source = network_file.with_suffix(".safetensors")
    return shutil.copyfile(source, tmp_path / "weights" / "mine.safetensors")


@pytest.mark.parametrize("core", CORES)
def test_the_shapes_of_the_state_are_those_of_the_network(core: str) -> None:
    network = OdometryNet(core)
    for width, height in (SIZE, OTHER_SIZE):
        shapes = {name: (1, *shape) for name, shape in network.state_shapes(height, width).items()}
        parts = state_parts(network)
        assert {name: part.shape(width, height) for name, part in parts.items()} == shapes
        assert list(parts) == list(shapes)


def test_folding_normalisation_changes_nothing() -> None:
    network = settled_network()
    folded = folded_for(network, "fp32")
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for inputs in first_steps(network, SIZE):
        differences = off(as_graph(folded)(inputs), as_graph(network)(inputs))
        assert max(differences.values()) < 1e-3


def test_half_precision_is_for_convolutions_alone() -> None:
    network = settled_network()
    folded = folded_for(network, "fp16")
    halves = {type(m) for m in folded.modules() if any(p.dtype == torch.float16
              for p in m.parameters(recurse=False))}  # fmt: skip
    assert halves == {nn.Conv2d}
    inputs = first_steps(network, SIZE)[-1]
    outputs = as_graph(folded)(inputs)
    assert {value.dtype for value in outputs.values()} == {np.dtype(np.float32)}
    assert off(outputs, as_graph(network)(inputs))["translation"] < 0.1


def test_one_graph_takes_images_of_any_size(network_file: Path) -> None:
    """At sizes other than those at which it was traced and proven."""
    graph, network = open_graph(network_file), network_of(network_file)
    for size in (OTHER_SIZE, (64, 64)):
        for inputs in first_steps(network, size):
            found, true = graph(inputs), as_graph(network)(inputs)
            assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in true.items()}
            assert off(found, true)["next_half"] < 1e-4
        assert off(found, true)["translation"] < 1e-2


def test_what_is_written_is_whole(quick: None, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "some" / "out"
    model_file = export_network(weights, out)
    assert model_file == out / "mine.onnx"
    assert {path.name for path in out.iterdir()} == {"mine.onnx", "mine.json", "mine.safetensors"}
    sidecar = read_sidecar(model_file)
    assert sidecar == read_sidecar(out / "mine.safetensors")
    assert (sidecar.name, sidecar.core, sidecar.precision) == ("mine", "lstm", "fp32")
    assert (sidecar.size, sidecar.multiple) == (None, 32)
    assert sidecar.states == state_parts(OdometryNet())


def test_weights_may_lie_where_the_files_go(quick: None, weights: Path) -> None:
    assert export_network(weights, weights.parent) == weights.with_suffix(".onnx")
    read_sidecar(weights)


def test_a_graph_that_computes_something_else_is_not_written(
    quick: None,
    weights: Path,
    network_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = onnx.load(network_file)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    changed = 1.1 * numpy_helper.to_array(largest)
    largest.CopyFrom(numpy_helper.from_array(changed.astype(np.float32), largest.name))
    monkeypatch.setattr(export, "traced", lambda network, size: model.SerializeToString())
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.onnx").write_bytes(b"from before")
    with pytest.raises(NetError, match="the graph is not the network"):
        export_network(weights, out)
    assert [path.name for path in out.iterdir()] == ["mine.onnx"]
    assert (out / "mine.onnx").read_bytes() == b"from before"


def test_a_folder_that_cannot_be_is_named(quick: None, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NetError, match="file"):
        export_network(weights, tmp_path / "file" / "out")


@pytest.mark.parametrize("text", ["640", "640x", "x192", "640x192x3", "640x190", "32x32", "-64x64"])
def test_a_size_that_the_network_cannot_take_is_refused(text: str) -> None:
    with pytest.raises(NetError, match="such as 640x192"):
        parsed_size(text, 32)


def test_a_size_is_width_then_height() -> None:
    assert parsed_size("640x192", 32) == (640, 192)


def test_the_command_writes_a_graph_of_one_size_in_half_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "FRAMES", 6)
    monkeypatch.setattr(ego_motion, "FROM_NOTHING", (1e12, 9.0))  # fewer steps are traced sooner
    monkeypatch.setattr(ego_motion, "REFINING", (9.0, 9.0))
    weights = save_weights(settled_network(), tmp_path / "mine.safetensors")
    words = [
        "export",
        "--net",
        weights,
        "--size",
        "96x64",
        "--precision",
        "fp16",
        "--out",
        tmp_path,
    ]
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 0, result.output
    model_file = tmp_path / "mine_fp16_96x64.onnx"
    assert result.output == f"{model_file}\n"
    sidecar = read_sidecar(model_file)
    assert (sidecar.precision, sidecar.size, sidecar.rate_hz) == ("fp16", (96, 64), (5.0, 30.0))
    assert sidecar.spec("onnxruntime").correlation == ALIKE
    graph = onnx.load(model_file).graph
    assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == [1, 1, 64, 96]
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kernels = [types[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    layers = [m for m in settled_network().modules() if isinstance(m, nn.Conv2d)]
    assert kernels.count(TensorProto.FLOAT16) >= len(layers)
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {
        TensorProto.FLOAT
    }


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    result = CliRunner().invoke(main, ["export", "--net", str(missing), "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert f"{missing}: no such file" in result.output


def graph_of(tmp_path: Path, operator: str, domain: str = "") -> Path:
    """Write an ONNX file of one operator."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy"]
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid(name, 18 if not name else 1) for name in {"", domain}]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    path = tmp_path / "g.onnx"
    onnx.save(model, path)
    return path


def test_the_operators_of_a_graph_are_few(tmp_path: Path) -> None:
    check_graph(graph_of(tmp_path, "Relu"))
    with pytest.raises(NetError, match="operators that may not run: Elu"):
        check_graph(graph_of(tmp_path, "Elu"))
    with pytest.raises(NetError, match=r"operators that may not run: com\.example\.Relu"):
        check_graph(graph_of(tmp_path, "Relu", "com.example"))


def test_a_graph_that_is_not_valid_is_refused(tmp_path: Path) -> None:
    path = graph_of(tmp_path, "Relu")
    model = onnx.load(path)
    model.graph.node[0].input[0] = "nobody"
    onnx.save(model, path)
    with pytest.raises(NetError, match="the graph is not valid") as caught:
        check_graph(path)
    assert "\n" not in str(caught.value)
