"""The TensorRT backend opened, loaded with engines and closed, on doubles of CUDA and TensorRT."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cuda_double import CudaDoubleError
from network_cases import SIZE, stream
from tensorrt_doubles import (
    RAYS,
    SMALL,
    Doubles,
    TensorrtDouble,
    begun,
    in_place_of_a_gpu,
    open_net,
)

from vo_stream.errors import NetError
from vo_stream.net import trt_net
from vo_stream.net.build_ahead import build_ahead
from vo_stream.net.packed import packed_size
from vo_stream.net.sidecar import RELEASED_INT8, read_sidecar
from vo_stream.net.tensorrt_library import Library
from vo_stream.net.trt_net import TrtNet, camera_size


@pytest.fixture
def doubles(tmp_path: Path) -> Iterator[Doubles]:
    with in_place_of_a_gpu(tmp_path) as doubles:
        yield doubles


@pytest.fixture
def net(doubles: Doubles, network_file: Path) -> Iterator[TrtNet]:
    net = open_net(network_file)
    yield net
    net.close()


def test_closing_gives_everything_back_but_once(doubles: Doubles, network_file: Path) -> None:
    net = open_net(network_file)
    states = begun(net), begun(net, 2, SMALL)  # still held when all of it is freed
    threads = threading.active_count()
    net.close()
    net.close()
    assert not doubles.cuda.memory
    assert not doubles.cuda.graphs
    assert not doubles.cuda.streams
    assert doubles.tensorrt.alive == 0
    assert threading.active_count() == threads - 1
    del states


def test_a_net_that_does_not_open_leaves_nothing(doubles: Doubles, network_file: Path) -> None:
    doubles.cuda.failing["cudaMallocHost"] = CudaDoubleError.cudaErrorMemoryAllocation
    threads = threading.active_count()
    with pytest.raises(NetError, match="cudaMallocHost failed: cudaErrorMemoryAllocation"):
        open_net(network_file, engine_size="160x96")
    gc.collect()
    assert not doubles.cuda.memory
    assert not doubles.cuda.streams
    assert doubles.tensorrt.alive == 0
    assert threading.active_count() == threads


def test_without_memory_a_stream_does_not_begin_and_the_next_one_may(
    net: TrtNet, doubles: Doubles
) -> None:
    image = stream(1)[0]
    for name in ("cudaMalloc", "cudaMallocHost", "cudaMemsetAsync"):
        doubles.cuda.failing = {name: CudaDoubleError.cudaErrorMemoryAllocation}
        with pytest.raises(NetError, match=f"{name} failed: cudaErrorMemoryAllocation"):
            net.step(image, RAYS[SIZE], 0.0, net.start())
        assert not doubles.cuda.memory
    doubles.cuda.failing = {}
    begun(net)


def test_an_engine_is_built_for_each_size_once(
    net: TrtNet, doubles: Doubles, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vo_stream"):
        for size in (SIZE, SMALL, SIZE):
            begun(net, 2, size)
    assert doubles.built == [SIZE, SMALL]
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == (
        "building the engine for images of 160x96, once for this GPU: Building the double, 50 %"
    )
    assert told[1].startswith("engine for images of 160x96: there after ")
    assert len(told) == 4


def test_an_engine_can_be_prepared_before_images_come(doubles: Doubles, network_file: Path) -> None:
    net = open_net(network_file, engine_size="1241x376")
    assert doubles.built == [(640, 192)] == [net.spec.input_size((1241, 376))]
    assert doubles.cuda.calls.count("cudaGraphInstantiate") == 2
    net._clean(640, 192)
    assert doubles.cuda.calls.count("cudaGraphInstantiate") == 2
    net.close()


@pytest.mark.parametrize("text", ["640", "640x", "0x192", "-640x192", "640x192x3", "640 x 192"])
def test_a_size_that_is_none_is_refused(doubles: Doubles, network_file: Path, text: str) -> None:
    with pytest.raises(NetError, match=r"net\.engine_size: .* is not WIDTHxHEIGHT"):
        open_net(network_file, engine_size=text)
    assert camera_size("640x480") == (640, 480)


@pytest.mark.parametrize("found", [b"", b"of another version"])
def test_a_file_that_cannot_be_loaded_is_built_anew(
    net: TrtNet, doubles: Doubles, caplog: pytest.LogCaptureFixture, found: bytes
) -> None:
    doubles.file(SIZE).write_bytes(found)
    begun(net)
    assert doubles.built == [SIZE]
    warning, *_ = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "cannot load the engine (magic tag does not match); it is built anew" in warning


def test_an_engine_that_never_fits_is_an_error_in_one_line(
    net: TrtNet, doubles: Doubles, network_file: Path
) -> None:
    doubles.lacks = "packed"
    with pytest.raises(NetError) as caught:
        begun(net)
    message = str(caught.value)
    assert message.startswith(str(doubles.file(SIZE)))
    size = packed_size(read_sidecar(network_file))
    assert message.endswith(f"of another network: packed is missing, not (1, {size})")
    assert "\n" not in message
    assert doubles.built == [SIZE, SIZE]
    assert not doubles.file(SIZE).exists()
    doubles.lacks = ""
    begun(net)


def test_an_engine_that_has_no_room_to_run_is_kept(net: TrtNet, doubles: Doubles) -> None:
    doubles.tensorrt.broken.add("create_execution_context")
    with pytest.raises(NetError, match="the engine cannot be run"):
        begun(net)
    assert doubles.file(SIZE).exists()


def test_a_library_that_refuses_to_run_is_told_of(net: TrtNet, doubles: Doubles) -> None:
    doubles.tensorrt.broken.add("execute_async_v3")
    with pytest.raises(NetError, match="the library cannot run the engine"):
        begun(net)


def test_without_a_gpu_no_runtime_is_made(
    doubles: Doubles, network_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_gpu(library: Library) -> None:
        raise NetError("there is no NVIDIA GPU")

    monkeypatch.setattr(trt_net, "require_gpu", no_gpu)
    with pytest.raises(NetError, match="there is no NVIDIA GPU"):
        open_net(network_file)
    assert doubles.cuda.calls == []
    assert isinstance(doubles.tensorrt, TensorrtDouble)
    assert doubles.tensorrt.alive == 0


def test_a_file_in_int8_is_refused_where_it_is_named(doubles: Doubles) -> None:
    for refused in (
        lambda: open_net(RELEASED_INT8),
        lambda: build_ahead(RELEASED_INT8, None, None, None),
    ):
        with pytest.raises(NetError, match=r"odometry_int8\.onnx: int8 is for the CPU"):
            refused()
    assert not doubles.built
