"""What every backend owes the odometer, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from network_cases import SIZE, Image, pixel_rays, stream

from vo_stream.config import Config
from vo_stream.errors import NetError
from vo_stream.net.backends import BACKENDS
from vo_stream.net.proof import DT_S
from vo_stream.net.stepnet import NetState, StepNet
from vo_stream.values import Motion

RAYS = pixel_rays()
SHORT, LONG = 200, 2000
"""Frames after which memory no longer grows."""

MAX_GROWTH = 4e6
"""Bytes, over all those frames: less than two images each."""


@pytest.fixture(scope="module", params=BACKENDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def net(name: str, network_file: Path) -> Iterator[StepNet]:
    settings = {"net.backend": name, "net.model_file": str(network_file), "net.threads": 1}
    net = BACKENDS[name](Config().replaced(settings))
    yield net
    net.close()


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
    assert net.spec.name == name
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
