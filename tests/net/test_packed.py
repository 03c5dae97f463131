"""What is read after each step: as a vector, and as an output of a network in TensorRT."""

from __future__ import annotations

import numpy as np
import pytest

from vo_stream.errors import NetError
from vo_stream.net.packed import PACKED, add_packed, packed_size, unpacked
from vo_stream.net.sidecar import INPUTS, PREVIOUS, RELEASED, read_sidecar
from vo_stream.net.tensorrt_library import Library, find_library, log_of

SIDECAR = read_sidecar(RELEASED)
ROW = np.arange(packed_size(SIDECAR), dtype=np.float32)


def test_a_row_comes_apart_into_an_answer_of_its_own() -> None:
    row = ROW.copy()
    answer = unpacked(row)
    row[:] = np.nan  # as the next step writes over it
    np.testing.assert_array_equal(answer.rotation, ROW[:9].reshape(3, 3))
    np.testing.assert_array_equal(answer.translation, ROW[9:12])
    np.testing.assert_array_equal(answer.std, ROW[12:18])
    assert answer.trust == 18.0
    assert answer.sound


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", range(len(SIDECAR.states)))
def test_a_sum_that_is_not_finite_tells_of_a_state_that_is_not(index: int, value: float) -> None:
    row = ROW.copy()
    row[19 + index] = value
    assert not unpacked(row).sound


def library() -> Library:
    """Return TensorRT or TensorRT-RTX: their parsers need no GPU."""
    try:
        return find_library()
    except NetError as error:
        pytest.skip(str(error))


def test_a_parsed_network_gets_the_row_as_one_more_output() -> None:
    trt = library().module
    log = log_of(trt)
    builder = trt.Builder(log)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    assert parser.parse(RELEASED.read_bytes())
    shapes = dict(zip(INPUTS, [(1, 1, 96, 160), (1, 2, 12, 20), (1, 1)], strict=True))
    shapes |= {PREVIOUS + name: part.shape(160, 96) for name, part in SIDECAR.states.items()}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        tensor.shape = shapes[tensor.name]
    before = network.num_outputs
    add_packed(trt, network, SIDECAR)
    assert network.num_outputs == before + 1
    packed = network.get_output(before)
    assert (packed.name, tuple(packed.shape)) == (PACKED, (1, packed_size(SIDECAR)))
    assert packed.dtype == trt.DataType.FLOAT
