"""What every backend owes the odometer, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from network_cases import SIZE, Image, pixel_rays, stream
from tensorrt_doubles import in_place_of_a_gpu

from vo_stream.config import Config
from vo_stream.errors import NetError
from vo_stream.net.backends import BACKENDS
from vo_stream.net.learned_net import Answer, Floats, LearnedNet
from vo_stream.net.onnx_net import open_graph
from vo_stream.net.packed import MOTION
from vo_stream.net.proof import DT_S, TOLERANCE, Arrays, carried, start_of
from vo_stream.net.sidecar import RELEASED_INT8, read_sidecar
from vo_stream.net.stepnet import NetState, StepNet
from vo_stream.values import Motion

RAYS = pixel_rays()

ON_DOUBLES = "tensorrt on doubles of a GPU and its libraries"
IN_INT8 = "onnxruntime with convolutions of 8 bits"
EVERYWHERE = ("torch", "onnxruntime", "geometric", ON_DOUBLES, IN_INT8)
"""What must run on any machine; others are skipped where they cannot."""
SHORT, LONG = 200, 2000
"""Frames after which memory no longer grows."""

MAX_GROWTH = 4e6
"""Bytes, over all those frames: less than two images each."""


@pytest.fixture(scope="module", params=[*BACKENDS, ON_DOUBLES, IN_INT8])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model_file(name: str, network_file: Path) -> Path:
    return RELEASED_INT8 if name == IN_INT8 else network_file


@pytest.fixture(scope="module")
def net(name: str, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepNet]:
    backend = name.partition(" ")[0]
    folder = tmp_path_factory.mktemp("engines")
    settings = {"backend": backend, "model_file": str(model_file), "threads": 1}
    config = Config().replaced({"net": settings | {"engine_folder": str(folder)}})
    if name == ON_DOUBLES:
        with in_place_of_a_gpu(folder):
            net = BACKENDS[backend](config)
            yield net
            net.close()
        return
    try:
        net = BACKENDS[backend](config)
    except NetError as error:
        if name in EVERYWHERE:
            raise
        pytest.skip(str(error))
    yield net
    net.close()


class ReferenceNet(LearnedNet[Arrays]):
    """The network run step by step, with a state that is handed on as new arrays."""

    def __init__(self, model_file: Path) -> None:
        self.sidecar = read_sidecar(model_file)
        super().__init__(self.sidecar.spec("reference"))
        self._graph = open_graph(model_file)

    def _clean(self, width: int, height: int) -> Arrays:
        return start_of(self.sidecar, (width, height))

    def _run(
        self, image: Image, rays: Floats, dt_s: float, memory: Arrays
    ) -> tuple[Answer, Arrays]:
        grey = np.multiply(image, np.float32(1.0 / 255.0))[None, None]
        dt = np.full((1, 1), dt_s, dtype=np.float32)
        outputs = self._graph({"image": grey, "rays": rays[None], "dt": dt} | memory)
        after = carried(outputs)
        sound = all(bool(np.isfinite(part).all()) for part in after.values())
        rotation, translation, std = (outputs[name][0] for name in MOTION)
        return Answer(rotation, translation, std, float(outputs["weight"].mean()), sound), after


def run(
    net: StepNet, images: list[Image], state: NetState | None = None
) -> tuple[list[Motion | None], NetState]:
    """Return the motion of each frame and the last state."""
    begun, motions = state is not None, []
    state = state if begun else net.start()
    for image in images:
        motion, state = net.step(image, RAYS, DT_S if begun else 0.0, state)
        motions.append(motion)
        begun = True
    return motions, state


def numbers(motion: Motion | None) -> list[float]:
    assert motion is not None
    return [*motion.prev_from_curr.wxyz_xyz, *motion.std]


def test_it_takes_the_size_that_it_asks_for(net: StepNet, name: str) -> None:
    assert net.spec.name == name.partition(" ")[0]
    assert net.spec.input_size(SIZE) == SIZE


def test_the_first_frame_has_no_motion_and_the_others_have(net: StepNet) -> None:
    first, *others = run(net, stream(6))[0]
    assert first is None
    for motion in others:
        assert motion is not None
        assert motion.observed, motion.reason
        assert motion.is_finite


def test_a_stream_starts_the_same_each_time(net: StepNet) -> None:
    images = stream(6)
    once, again = run(net, images)[0], run(net, images)[0]
    assert [numbers(m) for m in once[1:]] == [numbers(m) for m in again[1:]]


def test_a_stream_is_that_of_the_reference(net: StepNet, name: str, model_file: Path) -> None:
    if name == "geometric":
        pytest.skip("it does not run the network")
    reference = ReferenceNet(model_file)
    images = stream(60)
    found, expected = (run(which, images)[0][1:] for which in (net, reference))
    errors = []
    for motion, true in zip(found, expected, strict=True):
        assert motion is not None
        assert true is not None
        assert motion.observed
        assert true.observed
        error = true.prev_from_curr.inverse() @ motion.prev_from_curr
        errors.append(np.abs(error.log()) / true.std)
    half, any_one = TOLERANCE[reference.sidecar.precision]
    assert np.median(errors) < half
    assert np.max(errors) < any_one


def test_two_streams_do_not_know_of_each_other(net: StepNet) -> None:
    left, right = stream(6), stream(6, seed=7)
    alone = run(net, left)[0]
    states = [net.start(), net.start()]
    together = []
    for index, images in enumerate(zip(left, right, strict=True)):
        for which, image in enumerate(images):
            motion, states[which] = net.step(image, RAYS, DT_S if index else 0.0, states[which])
            if which == 0:
                together.append(motion)
    assert [numbers(m) for m in together[1:]] == [numbers(m) for m in alone[1:]]


def test_it_remembers_more_than_the_last_image(net: StepNet) -> None:
    images = stream(6)
    remembered = run(net, images)[0][-1]
    fresh = run(net, images[-2:])[0][-1]
    assert numbers(remembered) != numbers(fresh)


def test_it_looks_at_the_image(net: StepNet) -> None:
    images = stream(4)
    seen = run(net, images)[0][-1]
    other = run(net, [*images[:3], images[1]])[0][-1]
    assert numbers(seen) != numbers(other)


def test_it_looks_at_the_rays(net: StepNet) -> None:
    images, motions = stream(2), []
    for rays in (RAYS, np.asarray(1.5 * RAYS, dtype=np.float32)):
        _, state = net.step(images[0], rays, 0.0, net.start())
        motions.append(net.step(images[1], rays, DT_S, state)[0])
    assert numbers(motions[0]) != numbers(motions[1])


def test_it_never_writes_to_what_it_is_given(net: StepNet) -> None:
    images, rays = [image.copy() for image in stream(4)], RAYS.copy()
    state = net.start()
    for index, image in enumerate(images):
        image.flags.writeable = False
        rays.flags.writeable = False
        _, state = net.step(image, rays, DT_S if index else 0.0, state)
    for image, before in zip(images, stream(4), strict=True):
        np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(rays, RAYS)


@pytest.mark.parametrize("seen", [0, 1, 3])
def test_a_step_that_raises_has_not_spent_its_state(net: StepNet, seen: int) -> None:
    images = stream(seen + 2)
    expected = run(net, images)[0]
    state = net.start()
    for index, image in enumerate(images):
        dt_s = DT_S if index else 0.0
        if index == seen:
            with pytest.raises((AttributeError, TypeError, AssertionError, ValueError, NetError)):
                net.step(image, None, dt_s, state)  # type: ignore[arg-type]
        motion, state = net.step(image, RAYS, dt_s, state)
        if index:
            assert numbers(motion) == numbers(expected[index])


def test_a_dark_moment_is_bridged(net: StepNet) -> None:
    images = stream(5)
    motions, _ = run(net, [*images[:3], np.zeros_like(images[3]), images[4]])
    assert [motion is not None and motion.observed for motion in motions[2:]] == [True, False, True]
    assert motions[3] is not None
    assert motions[3].reason


def test_darkness_is_never_a_motion_that_was_seen(net: StepNet) -> None:
    images = stream(3)
    dark = np.zeros_like(images[0])
    motions, state = run(net, [*images, *[dark] * 12])
    for motion in motions[3:]:
        assert motion is not None
        assert not motion.observed
        assert motion.is_finite
    again = [m for m in run(net, stream(4), state)[0] if m]
    assert again[-1].observed


def test_it_starts_in_the_dark(net: StepNet) -> None:
    dark = np.zeros(SIZE[::-1], dtype=np.uint8)
    motions, _ = run(net, [dark, dark, *stream(12)])
    assert motions[0] is None
    assert motions[1] is not None
    assert not motions[1].observed
    assert motions[-1] is not None
    assert motions[-1].observed


def test_memory_does_not_grow(net: StepNet, name: str) -> None:
    images = stream(20)
    frames = LONG if name == "onnxruntime" else SHORT
    _, state = run(net, images * 2)
    before = resident()
    for _ in range(frames // len(images)):
        _, state = run(net, images, state)
    assert resident() - before < MAX_GROWTH


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return 4096 * int(pages)
