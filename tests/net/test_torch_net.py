"""The reference backend: which weights it takes, and which it refuses."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_cases import SIZE, pixel_rays, save_weights, settled_network, stream
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vo_stream.config import NetConfig
from vo_stream.errors import NetError
from vo_stream.net.learned_net import rays_of_cells
from vo_stream.net.model import OdometryNet
from vo_stream.net.proof import DT_S, made_up_footage
from vo_stream.net.recurrent import CORES
from vo_stream.net.sidecar import sidecar_of
from vo_stream.net.torch_net import (
    TorchBuffers,
    TorchNet,
    core_of,
    load_network,
    rates_of,
    sees_gpu,
)


def refused(path: Path) -> str:
    with pytest.raises(NetError) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("core", CORES)
def test_weights_come_back_as_they_were_saved(tmp_path: Path, core: str) -> None:
    network = OdometryNet(core)
    path = save_weights(network, tmp_path / "a.safetensors", core)
    loaded, about = load_network(path)
    assert (core_of(about), rates_of(about)) == (core, (5.0, 30.0))
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_weights_that_tell_nothing_are_of_the_usual_core(tmp_path: Path) -> None:
    save_file(OdometryNet().state_dict(), tmp_path / "a.safetensors")
    _, about = load_network(tmp_path / "a.safetensors")
    assert (core_of(about), rates_of(about)) == ("lstm", None)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert "no such file" in refused(path)
    path.write_bytes(b"not weights at all")
    assert "unreadable" in refused(path)
    path.unlink()
    path.mkdir()
    refused(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    weights = OdometryNet().state_dict()
    save_file({**weights, "extra": torch.zeros(1)}, path)
    assert "not weights of this version's network" in refused(path)
    save_weights(OdometryNet("gru"), path, core="lstm")
    refused(path)
    save_weights(OdometryNet(), path, core="magic")
    refused(path)


def test_weights_that_the_sidecar_does_not_mean_are_refused(
    network_file: Path, tmp_path: Path
) -> None:
    shutil.copy(sidecar_of(network_file), tmp_path)
    save_weights(OdometryNet(), tmp_path / network_file.with_suffix(".safetensors").name)
    with pytest.raises(NetError, match="sha256 differs"):
        TorchNet(NetConfig(model_file=str(tmp_path / network_file.name)))


def test_it_says_what_the_network_says(network_file: Path) -> None:
    net = TorchNet(NetConfig(model_file=str(network_file)), "cpu")
    network, _ = load_network(network_file.with_suffix(".safetensors"))
    state, memory = net.start(), network.start(1, 96, 160)
    footage = made_up_footage((160, 96), 4)
    for index, (image, frame) in enumerate(zip(stream(4), footage, strict=True)):
        motion, state = net.step(image, pixel_rays(), DT_S if index else 0.0, state)
        with torch.no_grad():
            tensors = (torch.from_numpy(frame[name]) for name in ("image", "rays", "dt"))
            output, memory = network(*tensors, memory)
        if index:
            assert motion is not None
            found = motion.prev_from_curr.translation
            np.testing.assert_allclose(found, output.translation[0], rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(motion.std, output.std[0], rtol=1e-3)


def test_the_state_stays_where_it_is(network_file: Path) -> None:
    """Two sets of buffers, read and written in turn; those of a forgotten stream come back."""
    net = TorchNet(NetConfig(model_file=str(network_file)), "cpu")
    seen = []
    for _ in range(2):
        state = net.start()
        for index, image in enumerate(stream(4)):
            _, state = net.step(image, pixel_rays(), DT_S if index else 0.0, state)
            assert state.memory is not None
            held = state.memory.stream.buffers.states[state.memory.index]
            seen.append([part.data_ptr() for part in held.values()])
        del held, state
    assert seen[0] == seen[2] == seen[4] == seen[6] != seen[1] == seen[3] == seen[5] == seen[7]


class HostTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is computed with tensors of the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        for value in tree_leaves((args, kwargs or {})):
            if isinstance(value, Tensor) and value.device.type == "cpu":
                self.found.append(f"{func} {tuple(value.shape)}")
        return func(*args, **(kwargs or {}))


def test_a_step_takes_nothing_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it cannot be captured as a CUDA graph. On torch's device without data, as on a GPU."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    device = torch.device("meta")
    network = settled_network().to(device)
    with torch.no_grad():
        buffers = TorchBuffers(network, *SIZE, device)
        with HostTensors() as host:
            buffers.run(0)
    assert host.found == []


def test_without_a_graph_steps_are_taken_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    network = settled_network()
    with torch.inference_mode():
        buffers = TorchBuffers(network, *SIZE, torch.device("cpu"))
        if not sees_gpu():  # where nothing can be captured, as on a GPU with too little memory
            assert buffers._captured() == []
            (record,) = caplog.records
            assert record.levelno == logging.WARNING
            assert record.getMessage().startswith("steps go to the GPU call by call, without a")
            assert "\n" not in record.getMessage()
        buffers.clear()
        buffers.feed(stream(1)[0], rays_of_cells(pixel_rays()), 0.0)
        buffers.run(0)
        assert np.isfinite(buffers.packed()).all()


GPU = pytest.mark.skipif(not sees_gpu(), reason="torch sees no NVIDIA GPU")


@GPU
def test_on_a_gpu_graphs_are_captured_and_say_what_the_cpu_says(
    network_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nets = [TorchNet(NetConfig(model_file=str(network_file)), device) for device in ("cuda", "cpu")]
    states = [net.start() for net in nets]
    for index, image in enumerate(stream(30)):
        motions = []
        for which, net in enumerate(nets):
            dt_s = DT_S if index else 0.0
            motion, states[which] = net.step(image, pixel_rays(), dt_s, states[which])
            motions.append(motion)
        if index:
            found, true = motions
            assert found is not None
            assert true is not None
            error = true.prev_from_curr.inverse() @ found.prev_from_curr
            assert np.abs(error.log()).max() < 1e-3
    assert states[0].memory is not None
    assert len(states[0].memory.stream.buffers._graphs) == 2
    assert "without a CUDA graph" not in caplog.text
