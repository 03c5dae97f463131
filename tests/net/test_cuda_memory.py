"""Memory, stream and graphs: on a double of CUDA, and the names in the real bindings."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

import numpy as np
import pytest
from cuda_double import CudaDouble, CudaDoubleError

from vo_stream.errors import NetError
from vo_stream.net import cuda_memory
from vo_stream.net.cuda import cuda_devices
from vo_stream.net.cuda_memory import ALIGNMENT, Cuda, DeviceBlock, MirroredBlock, load_runtime

SHAPES = {"a": (1, 3), "b": (2, 100), "c": (1,)}


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    double = CudaDouble()
    monkeypatch.setattr(cuda_memory, "load_runtime", lambda: double)
    return double


def test_tensors_of_a_block_lie_apart_and_aligned(double: CudaDouble) -> None:
    block = DeviceBlock(Cuda(), SHAPES)
    offsets = [block.addresses[name] - block.address for name in SHAPES]
    assert offsets == [0, ALIGNMENT, ALIGNMENT + 1024]
    assert block.size == 2 * ALIGNMENT + 1024
    for address, shape in zip(block.addresses.values(), SHAPES.values(), strict=True):
        double.floats(address, shape)[:] = 1.0


def test_what_goes_up_comes_down(double: CudaDouble) -> None:
    cuda = Cuda()
    block = MirroredBlock(cuda, SHAPES)
    assert {name: array.shape for name, array in block.arrays.items()} == SHAPES
    for number, array in enumerate(block.arrays.values()):
        array[:] = number + 1
    block.upload()
    cuda.synchronize()
    for array in block.arrays.values():
        array[:] = 0.0
    block.download()
    assert not any(array.any() for array in block.arrays.values()), "a copy waits for its turn"
    cuda.synchronize()
    assert [set(array.ravel()) for array in block.arrays.values()] == [{1.0}, {2.0}, {3.0}]


def test_a_block_is_zeroed_whole(double: CudaDouble) -> None:
    cuda = Cuda()
    block = DeviceBlock(cuda, SHAPES)
    block.zero()
    cuda.synchronize()
    assert not double.within(block.address, block.size, "device").any()


def test_captured_work_is_done_when_it_is_launched_and_each_time(double: CudaDouble) -> None:
    cuda = Cuda()
    block = MirroredBlock(cuda, {"a": (4,)})
    graph = cuda.captured(block.upload)
    cuda.synchronize()
    on_device = double.floats(block.device.address, (4,))
    assert np.isnan(on_device).all()
    for value in (1.0, 2.0):
        block.arrays["a"][:] = value
        graph.launch()
        cuda.synchronize()
        assert (on_device == value).all()
    graph.close()
    assert not double.graphs


def test_a_capture_that_fails_leaves_the_stream_as_it_was(double: CudaDouble) -> None:
    cuda = Cuda()

    def allocate() -> None:  # which a stream that is captured does not allow
        DeviceBlock(cuda, SHAPES)

    with pytest.raises(NetError, match="cudaMalloc failed: cudaErrorStreamCaptureUnsupported"):
        cuda.captured(allocate)
    assert not double.graphs
    assert not double.capturing
    block = MirroredBlock(cuda, SHAPES)
    cuda.captured(block.upload).launch()
    cuda.synchronize()


def test_what_fails_is_told_by_its_name_and_cleared(double: CudaDouble) -> None:
    cuda = Cuda()
    double.failing["cudaMalloc"] = CudaDoubleError.cudaErrorMemoryAllocation
    with pytest.raises(NetError, match=r"^cudaMalloc failed: cudaErrorMemoryAllocation$"):
        DeviceBlock(cuda, SHAPES)
    assert double.calls[-2:] == ["cudaMalloc", "cudaGetLastError"]


def test_half_of_a_mirrored_block_is_not_left_behind(double: CudaDouble) -> None:
    cuda = Cuda()
    double.failing["cudaMallocHost"] = CudaDoubleError.cudaErrorMemoryAllocation
    with pytest.raises(NetError, match="cudaMallocHost"):
        MirroredBlock(cuda, SHAPES)
    assert not double.memory


def test_giving_back_never_fails(double: CudaDouble, caplog: pytest.LogCaptureFixture) -> None:
    cuda = Cuda()
    block = MirroredBlock(cuda, SHAPES)
    double.failing = {
        name: CudaDoubleError.cudaErrorInvalidValue for name in ("cudaFree", "cudaStreamDestroy")
    }
    block.close()
    cuda.close()
    assert double.calls.count("cudaFreeHost") == 1
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"{name} failed: cudaErrorInvalidValue" for name in double.failing]


def test_without_cuda_bindings_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(NetError, match="pip install 'cuda-bindings") as caught:
        load_runtime()
    assert "\n" not in str(caught.value)


def bindings() -> Any:
    """Return the real bindings: they can be loaded without a GPU."""
    try:
        return load_runtime()
    except NetError as error:
        pytest.skip(str(error))


def test_the_real_bindings_have_what_the_double_has() -> None:
    """The same functions with as many arguments, the same names of modes and errors."""
    api = bindings()
    functions = {
        name[1:]: function
        for name, function in inspect.getmembers(CudaDouble, inspect.isfunction)
        if name.startswith("_cuda")
    }
    assert len(functions) > 10
    for name, function in functions.items():
        real = re.match(rf"{name}\((.*?)\)", getattr(api, name).__doc__)
        assert real is not None, name
        count = len([argument for argument in real[1].split(",") if argument])
        assert count == len(inspect.signature(function).parameters) - 1, name
    assert api.cudaStreamNonBlocking == CudaDouble.cudaStreamNonBlocking
    assert api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal is not None
    assert int(api.cudaMemcpyKind.cudaMemcpyHostToDevice) == 1
    assert int(api.cudaMemcpyKind.cudaMemcpyDeviceToHost) == 2
    for error in CudaDoubleError:
        assert getattr(api.cudaError_t, error.name) == int(error)


@pytest.mark.skipif(cuda_devices() > 0, reason="there is a GPU")
def test_the_real_runtime_says_by_name_that_there_is_no_gpu() -> None:
    bindings()
    with pytest.raises(NetError, match=r"^cudaSetDevice failed: cudaError(Insuff|NoDevice|System)"):
        Cuda()


@pytest.mark.skipif(cuda_devices() == 0, reason="there is no NVIDIA GPU")
def test_on_a_gpu_captured_copies_bring_back_what_went_up() -> None:
    bindings()
    cuda = Cuda()
    block = MirroredBlock(cuda, SHAPES)
    up, down = cuda.captured(block.upload), cuda.captured(block.download)
    for array in block.arrays.values():
        array[:] = 3.0
    up.launch()
    cuda.synchronize()
    for array in block.arrays.values():
        array[:] = 0.0
    down.launch()
    cuda.synchronize()
    assert all((array == 3.0).all() for array in block.arrays.values())
    for thing in (up, down, block, cuda):
        thing.close()
