"""Choosing a motion backend: the best that runs, or the one that was named."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vo_stream.config import Config, NetConfig
from vo_stream.errors import NetError
from vo_stream.net import backends, cuda, torch_net, trt_net
from vo_stream.net.backends import BACKENDS, open_backend, why_not
from vo_stream.net.stepnet import NetSpec, NetState, StepNet
from vo_stream.values import Motion

AUTO = Config()


class StubNet:
    """A backend that says nothing and counts how often it is closed."""

    def __init__(self, name: str) -> None:
        self.spec = NetSpec(name, metric=True, max_pixels=1000)
        self.closed = 0

    def start(self, after: NetState | None = None) -> NetState:
        return object()

    def step(
        self,
        image: npt.NDArray[np.uint8],
        rays: npt.NDArray[np.float32],
        dt_s: float,
        state: NetState,
    ) -> tuple[Motion | None, NetState]:
        return None, state

    def close(self) -> None:
        self.closed += 1


def broken(config: Config) -> StepNet:
    raise NetError("the driver is older than the engine; update it")


def offer(monkeypatch: pytest.MonkeyPatch, offered: dict[str, Callable[[Config], StepNet]]) -> None:
    monkeypatch.setattr(backends, "BACKENDS", offered)


def named(name: str) -> Config:
    """Return settings that name a backend, known to the settings or not."""
    return Config(net=NetConfig(backend=name))


def test_auto_opens_the_first_that_runs_and_logs_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backends, "cuda_devices", lambda: 0)
    on_cpu = [name for name in BACKENDS if name not in ("tensorrt", "torch")]
    expected = next(name for name in on_cpu if not why_not(name))
    with caplog.at_level(logging.INFO, "vo_stream"):
        net = open_backend(AUTO)
    assert net.spec.name == expected
    assert f"backend {expected}: the first of" in caplog.text
    net.close()


@pytest.mark.parametrize(
    ("name", "module", "reason"),
    [
        ("tensorrt", "vo_stream.net.trt_net", "there is no NVIDIA GPU"),
        ("torch", "vo_stream.net.torch_net", "without an NVIDIA GPU onnxruntime is faster"),
    ],
)
def test_auto_loads_what_needs_a_gpu_only_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    module: str,
    reason: str,
) -> None:
    monkeypatch.setattr(backends, "cuda_devices", lambda: 0)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with caplog.at_level(logging.INFO, "vo_stream"):
        open_backend(AUTO).close()
    assert module not in sys.modules
    assert f"backend {name} cannot run here: {reason}" in caplog.text


def test_auto_passes_over_a_torch_that_does_not_see_the_gpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_tensorrt() -> None:
        raise NetError("tensorrt is not installed")

    monkeypatch.setattr(backends, "cuda_devices", lambda: 1)
    monkeypatch.setattr(trt_net, "find_library", no_tensorrt)
    monkeypatch.setattr(torch_net, "sees_gpu", lambda: False)
    with caplog.at_level(logging.INFO, "vo_stream"):
        net = open_backend(AUTO)
    assert net.spec.name == "onnxruntime"
    first, second, third = (record.getMessage() for record in caplog.records)
    assert first == "backend tensorrt cannot run here: tensorrt is not installed"
    assert second.startswith("backend torch cannot run here: this torch does not see the")
    assert third.startswith("backend onnxruntime: the first of tensorrt, torch, onnxruntime, ")
    net.close()


@pytest.mark.skipif(cuda.cuda_devices() > 0, reason="there is an NVIDIA GPU")
def test_tensorrt_that_is_named_and_cannot_run_says_why_in_one_line() -> None:
    with pytest.raises(NetError) as caught:
        open_backend(named("tensorrt"))
    assert str(caught.value) == why_not("tensorrt")
    assert "\n" not in str(caught.value)


def test_the_best_backend_is_tried_first() -> None:
    assert list(BACKENDS) == ["tensorrt", "torch", "onnxruntime", "geometric"]


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert "pip install" in why_not("torch")


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "DRIVER", "libno_such_driver.so.1")
    assert cuda.cuda_devices() == 0


@pytest.mark.parametrize("name", BACKENDS)
def test_a_named_backend_carries_its_name(name: str) -> None:
    if why_not(name):
        pytest.skip(why_not(name))
    net = open_backend(Config().replaced({"net.backend": name}))
    assert net.spec.name == name
    net.close()


def test_auto_passes_over_what_cannot_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good, spare = StubNet("good"), StubNet("spare")
    offer(monkeypatch, {"broken": broken, "good": lambda _: good, "spare": lambda _: spare})
    with caplog.at_level(logging.INFO, "vo_stream"):
        assert open_backend(AUTO) is good
    first, second = (record.getMessage() for record in caplog.records)
    assert first == (
        "backend broken cannot run here: the driver is older than the engine; update it"
    )
    assert second.startswith("backend good: ")
    assert good.closed == spare.closed == 0


def test_a_named_backend_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, {"good": lambda _: StubNet("good"), "broken": broken})
    with pytest.raises(NetError, match="the driver is older"):
        open_backend(named("broken"))


def test_where_nothing_runs_auto_says_whom_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, {"broken": broken, "worse": broken})
    with pytest.raises(NetError, match="vo-stream doctor"):
        open_backend(AUTO)


def test_a_bug_in_a_backend_is_not_hidden_by_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(config: Config) -> StepNet:
        raise KeyError("weights")

    offer(monkeypatch, {"buggy": buggy, "good": lambda _: StubNet("good")})
    with pytest.raises(KeyError):
        open_backend(AUTO)


def test_a_backend_gets_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Config] = []

    def opener(config: Config) -> StepNet:
        seen.append(config)
        return StubNet("good")

    offer(monkeypatch, {"good": opener})
    config = named("good")
    open_backend(config)
    assert seen == [config]


def test_why_not_tells_the_reason_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    good = StubNet("good")
    offer(monkeypatch, {"good": lambda _: good, "broken": broken})
    assert why_not("good") == ""
    assert good.closed == 1
    assert why_not("broken") == "the driver is older than the engine; update it"


@pytest.mark.parametrize(
    ("camera", "multiple", "expected"),
    [
        ((640, 480), 1, (640, 480)),
        ((1280, 960), 1, (640, 480)),
        ((320, 240), 1, (320, 240)),
        ((1280, 960), 32, (640, 480)),
        ((1241, 376), 32, (992, 320)),
        ((10, 10), 32, (32, 32)),
    ],
)
def test_the_input_size_follows_the_cameras(
    camera: tuple[int, int], multiple: int, expected: tuple[int, int]
) -> None:
    spec = NetSpec("any", metric=False, max_pixels=640 * 480, multiple=multiple)
    assert spec.input_size(camera) == expected


@pytest.mark.parametrize("content", [None, b"not a network"])
def test_auto_never_replaces_a_network_that_was_named(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "mine.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NetError, match=r"mine\.(onnx|json): "):
        open_backend(Config(net=NetConfig(model_file=str(path))))


def test_auto_takes_a_backend_without_a_network_only_where_none_was_named(
    network_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, {"broken": broken, "geometric": lambda _: StubNet("geometric")})
    assert open_backend(AUTO).spec.name == "geometric"
    with pytest.raises(NetError, match="no motion backend runs here"):
        open_backend(Config(net=NetConfig(model_file=str(network_file))))
