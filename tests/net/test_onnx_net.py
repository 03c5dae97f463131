"""The backend on ONNX Runtime: the same as the reference, with buffers that never mix."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from network_cases import SIZE, pixel_rays, stream

from vo_stream.config import Config, NetConfig
from vo_stream.errors import NetError
from vo_stream.net import learned_net, onnx_net
from vo_stream.net.backends import open_backend
from vo_stream.net.learned_net import LearnedState
from vo_stream.net.onnx_net import OnnxBuffers, OnnxNet
from vo_stream.net.ping_pong import Slot
from vo_stream.net.proof import DT_S
from vo_stream.net.sidecar import sidecar_of
from vo_stream.net.torch_net import TorchNet
from vo_stream.values import Motion

RAYS = pixel_rays()
State = LearnedState[Slot[OnnxBuffers]]


@pytest.fixture(scope="module")
def net(network_file: Path) -> Iterator[OnnxNet]:
    net = OnnxNet(NetConfig(model_file=str(network_file), threads=1))
    yield net
    net.close()


@pytest.fixture
def copied(network_file: Path, tmp_path: Path) -> Path:
    """A copy of the network's files, to be damaged."""
    for path in (network_file, sidecar_of(network_file)):
        shutil.copy(path, tmp_path)
    return tmp_path / network_file.name


def begun(net: OnnxNet, frames: int = 2, size: tuple[int, int] = SIZE) -> State:
    state = net.start()
    for index, image in enumerate(stream(frames, size=size)):
        _, state = net.step(image, pixel_rays(size), DT_S if index else 0.0, state)
    return state


def tensors(state: State) -> dict[str, np.ndarray]:
    """Return copies of what a state remembers."""
    assert state.memory is not None
    held = state.memory.stream.buffers.states[state.memory.index]
    return {name: array.copy() for name, array in held.items()}


def same(motion: Motion | None, other: Motion | None) -> bool:
    assert motion is not None
    assert other is not None
    poses = np.array_equal(motion.prev_from_curr.wxyz_xyz, other.prev_from_curr.wxyz_xyz)
    return poses and np.array_equal(motion.std, other.std)


def test_it_says_what_torch_says(net: OnnxNet, network_file: Path) -> None:
    reference = TorchNet(NetConfig(model_file=str(network_file)), "cpu")
    state, memory = net.start(), reference.start()
    for index, image in enumerate(stream(30)):
        dt_s = DT_S if index else 0.0
        motion, state = net.step(image, RAYS, dt_s, state)
        expected, memory = reference.step(image, RAYS, dt_s, memory)
        if index == 0:
            assert motion is None
            assert expected is None
            continue
        assert motion is not None
        assert expected is not None
        error = expected.prev_from_curr.inverse() @ motion.prev_from_curr
        assert np.abs(error.log()).max() < 1e-3
        np.testing.assert_allclose(motion.std, expected.std, rtol=1e-2)
    assert memory.memory is not None
    for name, array in tensors(state).items():
        held = memory.memory.stream.buffers.states[memory.memory.index]
        expected_state = held[name].numpy()
        norm = float(np.linalg.norm(expected_state))
        assert np.linalg.norm(array - expected_state) < 1e-2 * norm, name


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step count whatever the network says of made-up images."""
    monkeypatch.setattr(learned_net, "MIN_TRUST", -1.0)
    monkeypatch.setattr(learned_net, "MAX_STD_RAD", np.inf)


@pytest.mark.usefixtures("trusting")
def test_a_state_is_not_spent_before_its_successor_is(net: OnnxNet) -> None:
    state = begun(net)
    image, other = stream(2, seed=3)
    first, _ = net.step(image, RAYS, DT_S, state)
    again, following = net.step(image, RAYS, DT_S, state)
    assert same(first, again)
    net.step(other, RAYS, DT_S, following)
    with pytest.raises(NetError, match="stepped from already"):
        net.step(image, RAYS, DT_S, state)


def test_a_refused_step_leaves_the_stream_as_it_was(net: OnnxNet) -> None:
    images = stream(5)
    expected = net.step(images[3], RAYS, DT_S, begun(net, 3))[0]
    old = begun(net, 2)
    _, state = net.step(images[2], RAYS, DT_S, old)
    net.step(images[3], RAYS, DT_S, state)
    with pytest.raises(NetError):
        net.step(images[4], RAYS, DT_S, old)
    assert same(net.step(images[3], RAYS, DT_S, state)[0], expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_frame_of_nan_leaves_the_state_as_it_was(net: OnnxNet, value: float) -> None:
    images = stream(4)
    state = begun(net, 3)
    before = tensors(state)
    bad = np.full_like(RAYS, value)
    motion, after = net.step(images[3], bad, 0.0, state)
    assert motion is not None
    assert not motion.observed
    assert motion.is_finite
    for name, array in tensors(after).items():
        np.testing.assert_array_equal(array, before[name])
    recovered, _ = net.step(images[3], RAYS, DT_S, after)
    expected, _ = net.step(images[3], RAYS, DT_S, begun(net, 3))
    assert same(recovered, expected)


def test_a_run_that_fails_has_not_spent_the_state(
    net: OnnxNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = stream(4)[3]
    expected, _ = net.step(image, RAYS, DT_S, begun(net, 3))
    state = begun(net, 3)
    assert state.memory is not None
    other_set = state.memory.stream.buffers.states[1 - state.memory.index]

    class Failing:
        def run_with_iobinding(self, binding: object) -> None:
            for array in other_set.values():
                array[:] = np.nan
            raise RuntimeError("bad\nallocation")

    with monkeypatch.context() as patch:
        patch.setattr(state.memory.stream.buffers, "_session", Failing())
        with pytest.raises(NetError, match="cannot be run: bad allocation"):
            net.step(image, RAYS, DT_S, state)
    assert same(net.step(image, RAYS, DT_S, state)[0], expected)


def test_streams_of_several_sizes_go_side_by_side(net: OnnxNet) -> None:
    small = (96, 64)
    alone = net.step(stream(3, size=small)[2], pixel_rays(small), DT_S, begun(net, 2, small))[0]
    state, other = begun(net, 2, small), begun(net, 2)
    net.step(stream(3)[2], RAYS, DT_S, other)
    together, _ = net.step(stream(3, size=small)[2], pixel_rays(small), DT_S, state)
    assert same(alone, together)


@pytest.mark.usefixtures("trusting")
def test_the_state_stays_where_it_is(net: OnnxNet) -> None:
    """Two sets of buffers, read and written in turn: nothing is copied from frame to frame."""
    state = begun(net)
    assert state.memory is not None
    addresses = []
    for image in stream(4, seed=3):
        _, state = net.step(image, RAYS, DT_S, state)
        assert state.memory is not None
        addresses.append(
            [a.ctypes.data for a in state.memory.stream.buffers.states[state.memory.index].values()]
        )
    assert addresses[0] == addresses[2] != addresses[1] == addresses[3]


def test_settings_reach_the_session(network_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    seen: list[Any] = []
    opened = onnxruntime.InferenceSession

    def open_session(*args: object, sess_options: object, **others: object) -> object:
        seen.append(sess_options)
        return opened(*args, sess_options=sess_options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    for spinning in (True, False):
        config = NetConfig(model_file=str(network_file), threads=3, spinning=spinning)
        OnnxNet(config).close()
        key = "session.intra_op.allow_spinning"
        assert seen[-1].get_session_config_entry(key) == str(int(spinning))
        assert seen[-1].intra_op_num_threads == 3


def refused(path: Path) -> str:
    with pytest.raises(NetError) as caught:
        OnnxNet(NetConfig(model_file=str(path)))
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def resign(path: Path) -> None:
    """Let the sidecar know the file as it is now."""
    content = json.loads(sidecar_of(path).read_text(encoding="utf-8"))
    content["sha256"][".onnx"] = hashlib.sha256(path.read_bytes()).hexdigest()
    sidecar_of(path).write_text(json.dumps(content), encoding="utf-8")


def test_a_file_that_is_missing_or_changed_is_refused(copied: Path) -> None:
    with copied.open("ab") as file:
        file.write(b"\0")
    assert "sha256 differs" in refused(copied)
    copied.unlink()
    assert "no such file" in refused(copied)


def test_a_file_that_is_no_graph_is_refused(copied: Path) -> None:
    copied.write_bytes(b"no graph")
    resign(copied)
    assert "ONNX Runtime cannot load it" in refused(copied)


@pytest.mark.parametrize("what", ["input", "output"])
def test_a_graph_with_other_names_is_refused(copied: Path, what: str) -> None:
    model = onnx.load(copied)
    values = getattr(model.graph, what)
    first, second = values[-1].name, values[-2].name
    for value in values:
        value.name = {first: second, second: first}.get(value.name, value.name)
    copied.write_bytes(model.SerializeToString())
    resign(copied)
    refused(copied)


def test_a_sidecar_with_other_shapes_is_refused(copied: Path) -> None:
    content = json.loads(sidecar_of(copied).read_text(encoding="utf-8"))
    content["states"]["half"]["channels"] = [99]
    sidecar_of(copied).write_text(json.dumps(content), encoding="utf-8")
    refused(copied)


def test_without_onnxruntime_it_says_what_to_install(
    network_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NetError, match="pip install onnxruntime"):
        onnx_net.open_session(network_file, NetConfig())


def test_it_runs_without_torch(network_file: Path) -> None:
    code = f"""
        import sys
        sys.modules["torch"] = None
        from vo_stream.config import Config
        from vo_stream.net.backends import open_backend
        net = open_backend(Config().replaced({{"net.model_file": {str(network_file)!r}}}))
        print(net.spec.name, *{{name.partition(".")[0] for name in sys.modules}} & {{"onnx"}})
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "onnxruntime\n"


def test_auto_takes_it_where_there_is_no_gpu(
    network_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vo_stream.net.backends.cuda_devices", lambda: 0)
    with caplog.at_level(logging.INFO, "vo_stream"):
        net = open_backend(Config().replaced({"net.model_file": str(network_file)}))
    assert net.spec.name == "onnxruntime"
    assert net.spec.metric
    *others, last = (record.getMessage() for record in caplog.records)
    assert others == [
        "backend tensorrt cannot run here: there is no NVIDIA GPU",
        "backend torch cannot run here: without an NVIDIA GPU onnxruntime is faster",
    ]
    assert last.startswith("backend onnxruntime: the first of")
    net.close()
