"""The developer's comparison runs, on few frames; what it counts is known by arithmetic."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from vo_stream.errors import NetError
from vo_stream.net.cuda import cuda_devices
from vo_stream.net.sidecar import RELEASED, RELEASED_INT8, read_sidecar

TOOLS = Path(__file__).resolve().parents[1] / "tools"
sys.path.append(str(TOOLS))
graph_cost: Any = importlib.import_module("graph_cost")
bench_long: Any = importlib.import_module("bench_long")

SMALL = ("--size", "160x96", "--threads", "1")


def tool(*arguments: str, name: str = "bench_net.py") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / name), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def graph(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, ...]],
    outputs: list[str],
    constants: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    arrays = {name: np.asarray(value) for name, value in (constants or {}).items()}
    floats = TensorProto.FLOAT
    made = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info(name, floats, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, floats, None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])


def test_arithmetic_and_bytes_of_a_small_graph() -> None:
    weight = np.zeros((8, 2, 3, 3), np.float32)  # 4 channels in, in 2 groups
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], group=2, strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Reshape", ["r", "rows"], ["flat"]),
        helper.make_node("MatMul", ["flat", "m"], ["y"]),
    ]
    constants = {
        "w": weight,
        "b": np.zeros(8, np.float32),
        "rows": np.array([8, -1]),
        "m": np.zeros((24, 5), np.float32),
    }
    cost = graph_cost.cost_of(graph(nodes, {"x": (1, 4, 8, 12)}, ["y"], constants))
    out = 8 * 4 * 6  # channels, height, width: half of 8 x 12
    conv = out * (2 * 2 * 9 + 1)  # two channels of a group, nine taps; the bias
    matmul = 2 * 8 * 24 * 5
    assert cost.by_operator == {"Conv": conv, "MatMul": matmul, "Relu": out}
    assert cost.operations == conv + matmul + out
    x, y, w, b, m = 4 * 8 * 12, 8 * 5, weight.size, 8, 24 * 5
    assert cost.io_bytes == 4 * (x + y)
    assert cost.weight_bytes == 4 * (w + b + m) + 2 * 8  # and the two whole numbers of the shape
    assert cost.node_bytes == 4 * ((x + w + b + out) + 2 * out + (out + m + y))


@pytest.mark.parametrize(
    ("node", "inputs", "operations"),
    [
        (helper.make_node("Gemm", ["a", "b"], ["y"], transA=1), {"a": (7, 3), "b": (7, 5)}, 210),
        (helper.make_node("Gemm", ["a", "b", "c"], ["y"]),
         {"a": (3, 7), "b": (7, 5), "c": (5,)}, 225),
        (helper.make_node("MatMul", ["a", "b"], ["y"]), {"a": (2, 3, 4), "b": (4, 6)}, 288),
        (helper.make_node("GridSample", ["a", "g"], ["y"]),
         {"a": (1, 3, 9, 9), "g": (1, 4, 5, 2)}, 8 * 3 * 4 * 5),
        (helper.make_node("GridSample", ["a", "g"], ["y"], mode="nearest"),
         {"a": (1, 3, 9, 9), "g": (1, 4, 5, 2)}, 0),
        (helper.make_node("AveragePool", ["a"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
         {"a": (1, 3, 8, 8)}, 3 * 4 * 4 * 4),
        (helper.make_node("ReduceMean", ["a"], ["y"]), {"a": (3, 8)}, 24),
        (helper.make_node("Softmax", ["a"], ["y"]), {"a": (3, 8)}, 5 * 24),
        (helper.make_node("Add", ["a", "b"], ["y"]), {"a": (3, 1), "b": (1, 8)}, 24),
        (helper.make_node("Transpose", ["a"], ["y"]), {"a": (3, 8)}, 0),
    ],
)  # fmt: skip
def test_operations_of_one_operator(
    node: onnx.NodeProto, inputs: dict[str, tuple[int, ...]], operations: int
) -> None:
    assert graph_cost.cost_of(graph([node], inputs, ["y"])).operations == operations


def test_sizes_that_follow_from_sizes_cost_nothing() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Mul", ["s", "s"], ["squared"]),
        helper.make_node("Expand", ["one", "squared"], ["y"]),
    ]
    cost = graph_cost.cost_of(graph(nodes, {"x": (2, 3)}, ["y"], {"one": np.ones(1, np.float32)}))
    assert cost.operations == 0


def test_an_operator_without_a_rule_is_no_free_one() -> None:
    node = helper.make_node("Einsum", ["a"], ["y"], equation="ij->ji")
    with pytest.raises(NetError, match="no rule for the operator Einsum"):
        graph_cost.cost_of(graph([node], {"a": (2, 3)}, ["y"]))
    node = helper.make_node("GridSample", ["a", "g"], ["y"], mode="cubic")
    with pytest.raises(NetError, match="no rule for GridSample with mode cubic"):
        graph_cost.cost_of(graph([node], {"a": (1, 3, 9, 9), "g": (1, 4, 5, 2)}, ["y"]))


def test_the_released_network_costs_by_the_pixel() -> None:
    sidecar = read_sidecar(RELEASED)
    small, large = (
        graph_cost.cost_of(graph_cost.fixed(RELEASED, sidecar, size))
        for size in ((320, 96), (640, 192))
    )
    assert large.by_operator["Conv"] / small.by_operator["Conv"] == pytest.approx(4.0, rel=0.02)
    assert large.weight_bytes == pytest.approx(small.weight_bytes, rel=0.1)
    assert large.node_bytes > large.io_bytes > 0


def test_the_graph_is_counted_at_the_size_that_the_network_is_fed() -> None:
    done = tool(str(RELEASED_INT8), "--size", "1241x376", "--json", name="graph_cost.py")
    assert done.returncode == 0, done.stderr
    fed = graph_cost.fixed(RELEASED_INT8, read_sidecar(RELEASED_INT8), (640, 192))
    assert json.loads(done.stdout) == vars(graph_cost.cost_of(fed))


def test_the_peak_of_floats_is_not_called_a_limit_of_integers() -> None:
    done = tool("--nets", "onnxruntime", "--model", str(RELEASED_INT8), "--frames", "1",
                "--rounds", "1", "--size", "150x90", "--threads", "1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fp32 is no limit of int8, whose peak is unknown" in done.stdout


def test_backends_stand_beside_the_roofline() -> None:
    done = tool("--nets", "onnxruntime", "geometric", "--frames", "3", "--rounds", "1", "--json",
                *SMALL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["name"] for row in result["backends"]] == ["onnxruntime", "geometric"]
    assert all(row["input_size"] == [160, 96] for row in result["backends"])
    assert (result["threads"], result["peaks"]["cpu"]["threads"]) == (1, 1)
    (row,) = result["roofline"]
    peak = result["peaks"]["cpu"]
    cost = result["cost"]
    assert (row["name"], row["arithmetic"]) == ("onnxruntime", "fp32")
    assert row["step_ms"] == result["backends"][0]["warm"]["step_ms"]["p50"]
    arithmetic = cost["operations"] / peak["operations_per_s"]["fp32"]
    moving = (cost["weight_bytes"] + cost["io_bytes"]) / peak["bytes_per_s"]
    assert row["limit_ms"] == pytest.approx(1e3 * max(arithmetic, moving))
    assert row["of_limit"] == pytest.approx(row["step_ms"] / row["limit_ms"])
    assert row["unfused_limit_ms"] >= row["limit_ms"]


def test_a_long_run_ends_where_the_reference_does() -> None:
    long = ("--nets", "onnxruntime", "geometric", "--reference", "onnxruntime", "--steps", "130")
    done = tool(*long, "--json", *SMALL)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["period"] == 60
    assert result["reference"]["steps"] == 130
    network, geometric = result["backends"]
    assert network["motion_within"] is True
    assert set(network["state_off"]) == set(read_sidecar(RELEASED).states)
    assert max(network["state_off"].values()) < 1e-4
    repeats = result["reference"]["repeats_within"]
    assert set(repeats) == {"translation", "rotation", "std"}
    assert all(0.0 < off["median"] <= off["max"] < 1.0 for off in repeats.values())
    assert len(network["memory"]) == 100
    assert network["memory"][-1]["step"] == 130
    for row in (network, geometric):
        last, settled = row["memory"][-1]["resident_mb"], row["memory"][10]["resident_mb"]
        assert row["resident_grown_mb"] == pytest.approx(last - settled)
    assert "motion_within" not in geometric


def test_a_reference_that_takes_fewer_steps_ends_at_the_same_image() -> None:
    done = tool("--nets", "onnxruntime", "--reference", "onnxruntime", "--steps", "125",
                "--reference-steps", "70", *SMALL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "reference onnxruntime, 65 steps: it is too short to tell" in done.stdout
    steps = [bench_long.last_part(1000, most, 60) for most in (1000, 999, 300, 100, 99, 1)]
    assert steps == [1000, 940, 280, 100, 100, 100]
    assert bench_long.last_part(50, 10, 60) == 50


def motions(shift: float) -> list[dict[str, Any]]:
    moved = np.eye(4)
    moved[0, 3] = 0.1 + shift
    return [{"motion": moved.tolist(), "std": [0.01] * 6} for _ in range(4)] + [
        {"motion": np.diag([-1.0, -1.0, 1.0, 1.0]).tolist(), "std": [0.01] * 6}
    ]


def test_a_stream_that_went_astray_is_not_within() -> None:
    true = {"motions": motions(0.0), "state": {"a": np.ones(4)}}
    same = bench_long.compared({**true, "state": {}}, true, "fp32")
    assert same["motion_within"] is True
    assert same["state_off"] == {}
    astray = {"motions": motions(0.01), "state": {"a": np.full(4, 1.5)}}
    found = bench_long.compared(astray, true, "fp32")
    assert found["motion_within"] is False
    assert found["motion_off"]["translation"]["median"] == pytest.approx(0.1)
    assert found["state_off"] == {"a": pytest.approx(0.5)}


def test_what_is_not_there_is_said_in_one_line() -> None:
    assert "invalid choice: 'nobody'" in tool("--nets", "nobody").stderr
    assert tool("--nets", "geometric", "--size", "wide").stderr.startswith("size wide: not WIDTH")
    assert "--threads must be positive" in tool("--threads", "0").stderr
    assert "--steps must be 2 at least" in tool("--steps", "1").stderr
    assert "must not be negative" in tool("--threads", "-1", name="device_peak.py").stderr
    missing = tool("--model", "/nowhere/x.onnx")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (2, 1)


@pytest.mark.skipif(cuda_devices() > 0, reason="there is a GPU here")
@pytest.mark.parametrize("name", ["tensorrt", "torch-cuda-eager", "torch-cuda-graph"])
def test_without_a_gpu_nothing_is_measured_in_its_place(name: str) -> None:
    done = tool("--nets", name, "--frames", "1", *SMALL)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{name}: there is no NVIDIA GPU\n"
