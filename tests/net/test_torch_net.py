"""The reference backend: which weights it takes, and which it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from network_cases import pixel_rays, save_weights, stream
from safetensors.torch import save_file

from vo_stream.config import NetConfig
from vo_stream.errors import NetError
from vo_stream.net.model import OdometryNet
from vo_stream.net.proof import DT_S, made_up_footage
from vo_stream.net.recurrent import CORES
from vo_stream.net.sidecar import sidecar_of
from vo_stream.net.torch_net import TorchNet, core_of, load_network, rates_of


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
