"""The TensorRT backend: its bookkeeping on doubles of CUDA and TensorRT, itself on a GPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cuda_double import CudaDoubleError
from network_cases import SIZE, stream
from tensorrt_doubles import (
    RAYS,
    Doubles,
    State,
    begun,
    in_place_of_a_gpu,
    open_net,
    tensors,
)

from vo_stream.config import NetConfig
from vo_stream.errors import NetError
from vo_stream.net import learned_net
from vo_stream.net.backends import why_not
from vo_stream.net.onnx_net import OnnxNet
from vo_stream.net.proof import DT_S
from vo_stream.net.sidecar import NEXT, PREVIOUS, read_sidecar
from vo_stream.net.trt_net import TrtNet
from vo_stream.values import Motion


@pytest.fixture
def doubles(tmp_path: Path) -> Iterator[Doubles]:
    with in_place_of_a_gpu(tmp_path) as doubles:
        yield doubles


@pytest.fixture
def net(doubles: Doubles, network_file: Path) -> Iterator[TrtNet]:
    net = open_net(network_file)
    yield net
    net.close()


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step count whatever the network says of made-up images."""
    monkeypatch.setattr(learned_net, "MIN_TRUST", -1.0)
    monkeypatch.setattr(learned_net, "MAX_STD_RAD", np.inf)


def numbers(motion: Motion | None) -> list[float]:
    assert motion is not None
    return [*motion.prev_from_curr.wxyz_xyz, *motion.std]


def test_on_the_double_a_long_stream_is_that_of_onnxruntime(
    net: TrtNet, network_file: Path
) -> None:
    reference = OnnxNet(NetConfig(model_file=str(network_file), threads=1))
    state, expected_state = net.start(), reference.start()
    for index, image in enumerate(stream(100)):
        rays = RAYS[SIZE] if index < 50 else np.asarray(1.1 * RAYS[SIZE], dtype=np.float32)
        dt_s = DT_S if index else 0.0
        motion, state = net.step(image, rays, dt_s, state)
        expected, expected_state = reference.step(image, rays, dt_s, expected_state)
        if index:
            assert expected is not None
            assert expected.observed
            assert numbers(motion) == numbers(expected)
    reference.close()


@pytest.mark.usefixtures("trusting")
def test_each_run_reads_what_the_one_before_wrote(net: TrtNet, doubles: Doubles) -> None:
    begun(net, 6)
    states = read_sidecar(net._model_file).states
    ran = doubles.tensorrt.ran[-6:]
    for name in states:
        read = [run[PREVIOUS + name] for run in ran]
        written = [run[NEXT + name] for run in ran]
        assert read[1:] == written[:-1]
        assert read[0] == read[2] == read[4] != read[1] == read[3] == read[5]
    others = [{k: v for k, v in run.items() if not k.startswith((PREVIOUS, NEXT))} for run in ran]
    assert all(other == others[0] for other in others)


@pytest.mark.usefixtures("trusting")
def test_a_frame_is_one_graph_of_an_upload_a_run_and_a_download(
    net: TrtNet, doubles: Doubles
) -> None:
    state = begun(net, 3)
    for image in stream(4, seed=3):
        doubles.cuda.calls.clear()
        _, state = net.step(image, RAYS[SIZE], DT_S, state)
        assert doubles.cuda.calls == ["cudaGraphLaunch", "cudaStreamSynchronize"]


def test_no_trace_is_left_of_the_steps_before_capture(net: TrtNet, doubles: Doubles) -> None:
    memory = net._clean(*SIZE)
    warm_up = len(doubles.tensorrt.ran)
    assert warm_up == 2
    images = stream(2)
    rays = net._cells_of(RAYS[SIZE])
    first = doubles.tensorrt.ran[-2]
    doubles.cuda.streams[net._cuda.stream_handle].work_off()  # type: ignore[union-attr]
    inputs, _ = tensors(read_sidecar(net._model_file), SIZE)
    held = {name: doubles.cuda.floats(first[name], shape) for name, shape in inputs.items()}
    assert not any(array.any() for name, array in held.items() if name.startswith(PREVIOUS))
    answer, _ = net._run(images[0], rays, 0.0, memory)
    fresh, _ = net._run(images[0], rays, 0.0, net._clean(*SIZE))
    assert np.array_equal(answer.translation, fresh.translation)
    assert np.array_equal(answer.std, fresh.std)


def test_a_forgotten_streams_buffers_are_used_again_and_clean(
    net: TrtNet, doubles: Doubles
) -> None:
    images = stream(4)
    state, motions = net.start(), []
    for _ in range(3):
        del state
        state = net.start()
        for index, image in enumerate(images):
            motion, state = net.step(image, RAYS[SIZE], DT_S if index else 0.0, state)
        motions.append(numbers(motion))
    assert motions[0] == motions[1] == motions[2]
    assert len(net._spares.made) == 1
    assert doubles.cuda.calls.count("cudaGraphInstantiate") == 2


@pytest.mark.usefixtures("trusting")
def test_a_spent_state_is_refused_and_the_stream_goes_on(net: TrtNet) -> None:
    images = stream(5)
    expected = net.step(images[3], RAYS[SIZE], DT_S, begun(net, 3))[0]
    old = begun(net, 2)
    _, state = net.step(images[2], RAYS[SIZE], DT_S, old)
    net.step(images[3], RAYS[SIZE], DT_S, state)
    with pytest.raises(NetError, match="stepped from already"):
        net.step(images[4], RAYS[SIZE], DT_S, old)
    assert numbers(net.step(images[3], RAYS[SIZE], DT_S, state)[0]) == numbers(expected)


@pytest.mark.parametrize("name", ["cudaGraphLaunch", "cudaStreamSynchronize"])
def test_a_step_that_fails_has_not_spent_its_state(
    net: TrtNet, doubles: Doubles, name: str
) -> None:
    image = stream(4)[3]
    expected, _ = net.step(image, RAYS[SIZE], DT_S, begun(net, 3))
    state = begun(net, 3)
    doubles.cuda.failing[name] = CudaDoubleError.cudaErrorInvalidValue
    with pytest.raises(NetError) as caught:
        net.step(image, RAYS[SIZE], DT_S, state)
    assert f"cannot be run: {name} failed: cudaErrorInvalidValue" in str(caught.value)
    doubles.cuda.failing.clear()
    assert numbers(net.step(image, RAYS[SIZE], DT_S, state)[0]) == numbers(expected)


def test_rays_go_up_again_where_their_upload_failed(net: TrtNet, doubles: Doubles) -> None:
    image = stream(4)[3]
    other = np.asarray(1.5 * RAYS[SIZE], dtype=np.float32)
    expected, _ = net.step(image, other, DT_S, begun(net, 3))
    state = begun(net, 3)
    doubles.cuda.failing["cudaMemcpyAsync"] = CudaDoubleError.cudaErrorInvalidValue
    with pytest.raises(NetError, match="cudaMemcpyAsync"):
        net.step(image, other, DT_S, state)
    doubles.cuda.failing.clear()
    assert numbers(net.step(image, other, DT_S, state)[0]) == numbers(expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_told_by_its_sums(net: TrtNet, value: float) -> None:
    images = stream(4)
    expected, _ = net.step(images[3], RAYS[SIZE], DT_S, begun(net, 3))
    motion, after = net.step(images[3], np.full_like(RAYS[SIZE], value), 0.0, begun(net, 3))
    assert motion is not None
    assert not motion.observed
    assert numbers(net.step(images[3], RAYS[SIZE], DT_S, after)[0]) == numbers(expected)


@pytest.mark.parametrize("fault", ["the library", "cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_what_cannot_be_captured_is_run_call_by_call(
    doubles: Doubles, network_file: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    with_graphs = open_net(network_file)
    image = stream(4)[3]
    expected, _ = with_graphs.step(image, RAYS[SIZE], DT_S, begun(with_graphs, 3))
    with_graphs.close()
    if fault == "the library":
        doubles.tensorrt.broken.add("capture")
    else:
        doubles.cuda.failing[fault] = CudaDoubleError.cudaErrorStreamCaptureInvalidated
    net = open_net(network_file)
    motion, _ = net.step(image, RAYS[SIZE], DT_S, begun(net, 3))
    assert numbers(motion) == numbers(expected)
    assert doubles.cuda.calls[-2:] == ["cudaMemcpyAsync", "cudaStreamSynchronize"]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warning.startswith("steps go to the GPU call by call, without a CUDA graph")
    doubles.cuda.failing.clear()
    net.close()
    assert not doubles.cuda.graphs


def test_cuda_is_touched_by_one_thread_alone(net: TrtNet, doubles: Doubles) -> None:
    state = begun(net)
    caught: list[State] = []
    image = stream(3)[2]
    other = threading.Thread(
        target=lambda: caught.append(net.step(image, RAYS[SIZE], DT_S, state)[1])
    )
    other.start()
    other.join()
    net.close()
    assert caught
    (owner,) = doubles.cuda.threads
    assert owner not in (threading.get_ident(), other.ident)


GPU = pytest.mark.skipif(bool(why_not("tensorrt")), reason=why_not("tensorrt") or "it runs here")


@GPU
def test_on_a_gpu_a_long_stream_is_that_of_onnxruntime(network_file: Path, tmp_path: Path) -> None:
    reference = OnnxNet(NetConfig(model_file=str(network_file)))
    net = TrtNet(NetConfig(model_file=str(network_file), engine_folder=str(tmp_path)))
    state, expected_state = net.start(), reference.start()
    errors = []
    for index, image in enumerate(stream(100)):
        dt_s = DT_S if index else 0.0
        motion, state = net.step(image, RAYS[SIZE], dt_s, state)
        expected, expected_state = reference.step(image, RAYS[SIZE], dt_s, expected_state)
        if motion is not None and expected is not None:
            error = expected.prev_from_curr.inverse() @ motion.prev_from_curr
            errors.append(float(np.abs(error.log()).max()))
    assert np.median(errors) < 1e-3
    assert max(errors) < 1e-2
    net.close()
    reference.close()


@GPU
def test_on_a_gpu_steps_are_captured(
    network_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = TrtNet(NetConfig(model_file=str(network_file), engine_folder=str(tmp_path)))
    begun(net)
    assert "without a CUDA graph" not in caplog.text
    net.close()
