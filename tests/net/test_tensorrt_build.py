"""What is built: the released network at both precisions, by TensorRT-RTX, which needs no GPU.

That a graph is read and built says nothing of what it computes; that takes a GPU.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from engine_cases import SIZE, save, small_network
from onnx import helper

from vo_stream.errors import NetError
from vo_stream.net.packed import PACKED, packed_size
from vo_stream.net.sidecar import NEXT, OUTPUTS, read_sidecar, sidecar_of
from vo_stream.net.tensorrt_build import (
    EngineOptions,
    build_engine,
    config_of,
    input_shapes,
    keep_timings,
    read_network,
    use_timings,
)
from vo_stream.net.tensorrt_library import Library

rtx = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)

LIBRARY = Library(rtx, "tensorrt_rtx", rtx.__version__)
SIZES = [(640, 192), (384, 288)]

pytestmark = pytest.mark.timeout(1200)
"""Seconds: to export and to build takes minutes where other tests share the cores."""


@pytest.fixture(scope="session")
def half_network_file(network_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released network with convolutions in half precision; made here, and not proven."""
    pytest.importorskip("torch")
    from vo_stream.net.export import check_graph, folded_for, traced
    from vo_stream.net.torch_net import load_network

    network, _ = load_network(network_file.with_suffix(".safetensors"))
    path = tmp_path_factory.mktemp("half") / "odometry_fp16.onnx"
    path.write_bytes(traced(folded_for(network, "fp16"), None))
    check_graph(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sidecar = replace(read_sidecar(network_file), precision="fp16", sha256={".onnx": digest})
    sidecar_of(path).write_text(sidecar.text(), encoding="utf-8")
    return path


@pytest.fixture(scope="session", params=["fp32", "fp16"])
def released(request: pytest.FixtureRequest, network_file: Path) -> Path:
    """The released network's file at each precision."""
    if request.param == "fp32":
        return network_file
    path = request.getfixturevalue("half_network_file")
    assert isinstance(path, Path)
    return path


def build(model_file: Path, size: tuple[int, int] = SIZE, **changed: object) -> bytes:
    sidecar = replace(read_sidecar(model_file), **changed)  # type: ignore[arg-type]
    return build_engine(LIBRARY, model_file, sidecar, size, EngineOptions())


def refused(model_file: Path, size: tuple[int, int] = SIZE, **changed: object) -> str:
    with pytest.raises(NetError) as caught:
        build(model_file, size, **changed)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("size", SIZES)
def test_the_parser_reads_the_network_with_fixed_shapes(
    released: Path, size: tuple[int, int]
) -> None:
    sidecar = read_sidecar(released)
    source = read_network(LIBRARY, released, sidecar, size)
    network = source.network
    inputs = {t.name: t for t in map(network.get_input, range(network.num_inputs))}
    outputs = {t.name: t for t in map(network.get_output, range(network.num_outputs))}
    assert {name: tuple(t.shape) for name, t in inputs.items()} == input_shapes(sidecar, size)
    assert set(outputs) == {*OUTPUTS, *(NEXT + name for name in sidecar.states), PACKED}
    shapes = {name: tuple(tensor.shape) for name, tensor in outputs.items()}
    for name, part in sidecar.states.items():
        assert shapes[NEXT + name] == part.shape(*size)
    assert shapes["rotation"] == (1, 3, 3)
    assert shapes["flow"] == (1, 2, size[1] // 8, size[0] // 8)
    assert shapes[PACKED] == (1, packed_size(sidecar))
    assert {t.dtype for t in (*inputs.values(), *outputs.values())} == {rtx.DataType.FLOAT}
    types = {network.get_layer(index).type for index in range(network.num_layers)}
    assert rtx.LayerType.CONVOLUTION in types
    loops = ("LOOP_OUTPUT", "RECURRENCE", "ITERATOR", "TRIP_LIMIT", "CONDITION", "PLUGIN_V3")
    assert not types & {getattr(rtx.LayerType, name) for name in loops}


def test_convolutions_have_the_precision_of_the_file(
    network_file: Path, half_network_file: Path
) -> None:
    """But for those that sum over the windows of the alignment: that is geometry."""
    shares = []
    for path in (network_file, half_network_file):
        source = read_network(LIBRARY, path, read_sidecar(path), SIZES[0])
        layers = map(source.network.get_layer, range(source.network.num_layers))
        convolutions = [c for c in layers if c.type == rtx.LayerType.CONVOLUTION]
        halves = [c for c in convolutions if c.get_output(0).dtype == rtx.DataType.HALF]
        shares.append(len(halves) / len(convolutions))
    assert shares[0] == 0.0
    assert 0.8 < shares[1] <= 1.0


@pytest.mark.parametrize("size", SIZES)
def test_an_engine_of_the_network_is_built(
    released: Path, size: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    """With the progress told on the way, and all weights inside."""
    caplog.set_level(logging.INFO)
    told: list[tuple[str, float]] = []
    engine = build_engine(
        LIBRARY, released, read_sidecar(released), size, EngineOptions(),
        lambda phase, part: told.append((phase, part)),
    )  # fmt: skip
    assert len(engine) > released.stat().st_size / 2
    parts = [part for _, part in told]
    assert parts == sorted(parts)
    assert 0.5 < parts[-2] <= 1.0
    assert told[-1] == ("built", 1.0)
    assert len(parts) > 20
    assert all(phase for phase, _ in told)
    (line,) = (r.getMessage() for r in caplog.records if "layers, before" in r.getMessage())
    assert int(line.split(": ")[1].split()[0]) > 100


def test_single_precision_stays_single_precision() -> None:
    builder = rtx.Builder(rtx.Logger())
    assert builder.create_builder_config().get_flag(rtx.BuilderFlag.TF32)
    options = EngineOptions(workspace_bytes=1 << 20, optimization_level=5)
    config = config_of(LIBRARY, builder, options)
    assert not config.get_flag(rtx.BuilderFlag.TF32)
    assert config.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE) == 1 << 20
    assert config.builder_optimization_level == 5


class StopError(Exception):
    """What a listener raises."""


@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt])
def test_what_a_listener_raises_ends_the_build(tmp_path: Path, error: type[BaseException]) -> None:
    model_file = small_network(tmp_path)
    sidecar = read_sidecar(model_file)
    calls = []

    def listener(phase: str, part: float) -> None:
        calls.append(phase)
        raise error

    with pytest.raises(error):
        build_engine(LIBRARY, model_file, sidecar, SIZE, EngineOptions(), listener)
    assert len(calls) == 1
    assert build(model_file)  # and the library is as good as before


def test_a_file_that_is_no_graph_is_said_in_one_line(tmp_path: Path) -> None:
    model_file = small_network(tmp_path)
    noise = model_file.with_name("noise.onnx")
    noise.write_bytes(b"noise")
    with pytest.raises(NetError, match=r"noise.onnx: TensorRT-RTX .* cannot read it"):
        read_network(LIBRARY, noise, read_sidecar(model_file), SIZE)
    with pytest.raises(NetError, match=r"missing.onnx: no such file"):
        read_network(LIBRARY, noise.with_name("missing.onnx"), read_sidecar(model_file), SIZE)


def test_an_operator_that_the_library_lacks_is_named(tmp_path: Path) -> None:
    model = onnx.load(small_network(tmp_path))
    (node,) = (node for node in model.graph.node if node.op_type == "Sigmoid")
    node.CopyFrom(helper.make_node("Bernoulli", node.input, node.output))
    assert "Bernoulli" in refused(save(model, tmp_path / "random.onnx"))


def test_a_graph_that_is_not_what_its_sidecar_says_is_refused(tmp_path: Path) -> None:
    model_file = small_network(tmp_path)
    states = dict(read_sidecar(model_file).states)
    other = {"mean": replace(states["mean"], divisor=2)}
    assert "its inputs are not those" in refused(model_file, states={})
    assert "of the shapes does not fit" in refused(model_file, states=other)
    model = onnx.load(model_file)
    model.graph.output.pop()
    changed = save(model, tmp_path / "changed.onnx")
    assert "its outputs are not those" in refused(changed)


def test_a_size_that_the_network_does_not_take_is_refused(tmp_path: Path) -> None:
    model_file = small_network(tmp_path)
    assert "multiples of 32" in refused(model_file, (100, 64))
    sidecar = replace(read_sidecar(model_file), size=(64, 64))
    with pytest.raises(NetError, match="takes images of 64x64 only"):
        read_network(LIBRARY, model_file, sidecar, SIZE)


def test_what_was_measured_is_kept_for_the_next_build(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the functions that TensorRT has; in TensorRT-RTX they do nothing."""
    builder = rtx.Builder(rtx.Logger(rtx.Logger.INTERNAL_ERROR))
    file = tmp_path / "cache.timings"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for before in (None, b"", b"noise"):
            if before is not None:
                file.write_bytes(before)
            config = builder.create_builder_config()
            use_timings(config, file)
            assert config.get_timing_cache() is not None
            keep_timings(config, file)
            assert len(file.read_bytes()) > len(b"noise")
        file.unlink()
        file.mkdir()
        use_timings(config, file)
        keep_timings(config, file)
    assert "not kept" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
