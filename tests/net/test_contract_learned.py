"""What is done around the network, with a network that says what it is told to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from network_cases import SIZE, pixel_rays, stream

from vo_stream.camera import CameraModel, Rectifier
from vo_stream.errors import NetError
from vo_stream.net.learned_net import (
    BLIND_STD_M,
    BLIND_STD_RAD,
    CELL,
    KEEP_IMAGE_S,
    LONGEST_PREDICTION,
    Answer,
    Floats,
    Image,
    LearnedNet,
    is_blank,
    rays_of_cells,
)
from vo_stream.net.stepnet import NetSpec, NetState
from vo_stream.se3 import SE3
from vo_stream.values import Motion

DT_S = 0.05
RAYS = pixel_rays()
BRIGHT = stream(1)[0]
DARK = np.zeros_like(BRIGHT)
FORWARD = SE3.exp([0.01, 0.0, 0.2, 0.0, 0.03, 0.0])


def answer(motion: SE3 = FORWARD) -> Answer:
    return Answer(
        np.asarray(motion.rotation, dtype=np.float32),
        np.asarray(motion.translation, dtype=np.float32),
        np.full(6, 0.01, dtype=np.float32),
        trust=0.5,
        sound=True,
    )


@dataclass
class ToldNet(LearnedNet[int]):
    """Its memory is the number of frames in it; `says` is its next answer; `runs` what it got."""

    says: Answer = field(default_factory=answer)
    fails: bool = False
    runs: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(NetSpec("told", True, 1000))

    def _clean(self, width: int, height: int) -> int:
        assert (width, height) == SIZE
        return 0

    def _run(self, image: Image, rays: Floats, dt_s: float, memory: int) -> tuple[Answer, int]:
        if self.fails:
            raise NetError("out of memory")
        self.runs.append((dt_s, memory))
        return self.says, memory + 1


def begun(net: ToldNet, frames: int = 2) -> NetState:
    """Return the state after some good frames, and forget how it came about."""
    state: NetState = net.start()
    for index in range(frames):
        _, state = net.step(BRIGHT, RAYS, DT_S if index else 0.0, state)
    net.runs.clear()
    return state


def close_to(motion: SE3, other: SE3) -> bool:
    return bool(np.abs((motion.inverse() @ other).log()).max() < 1e-6)


def step(net: ToldNet, image: Image, state: NetState) -> tuple[Motion, NetState]:
    motion, state = net.step(image, RAYS, DT_S, state)
    assert motion is not None
    return motion, state


def test_each_frame_enters_the_memory_once() -> None:
    net = ToldNet()
    state: NetState = net.start()
    for index in range(3):
        _, state = net.step(BRIGHT, RAYS, DT_S if index else 0.0, state)
    assert net.runs == [(0.0, 0), (DT_S, 1), (DT_S, 2)]


def test_what_the_network_says_is_the_motion() -> None:
    net = ToldNet()
    motion, _ = step(net, BRIGHT, begun(net))
    assert motion.observed
    assert close_to(motion.prev_from_curr, FORWARD)
    np.testing.assert_allclose(motion.std, 0.01)


def test_a_dark_frame_is_guessed_and_stays_out_of_the_memory() -> None:
    net = ToldNet()
    guess, state = step(net, DARK, begun(net))
    assert net.runs == []
    assert not guess.observed
    assert guess.reason == "the image is dark or blank"
    assert close_to(guess.prev_from_curr, FORWARD)
    length, angle = np.linalg.norm(FORWARD.translation), FORWARD.angle
    np.testing.assert_allclose(guess.std, [length + BLIND_STD_M] * 3 + [angle + BLIND_STD_RAD] * 3)
    step(net, BRIGHT, state)
    assert net.runs == [(2 * DT_S, 2)]


def test_guesses_and_the_next_seen_motion_lead_to_where_the_network_says() -> None:
    net = ToldNet()
    state, led_to = begun(net), SE3.identity()
    for image in (DARK, DARK, BRIGHT):
        net.says = answer(SE3.exp([0.3, 0.1, 0.5, 0.1, -0.1, 0.2]))
        motion, state = step(net, image, state)
        led_to = led_to @ motion.prev_from_curr
    assert motion.observed
    assert close_to(led_to, SE3.exp([0.3, 0.1, 0.5, 0.1, -0.1, 0.2]))
    motion, _ = step(net, BRIGHT, state)
    assert close_to(motion.prev_from_curr, SE3.exp([0.3, 0.1, 0.5, 0.1, -0.1, 0.2]))


def test_a_longer_wait_is_guessed_further_but_not_without_end() -> None:
    net = ToldNet()
    for steps, expected in ((2.0, 2.0), (50.0, LONGEST_PREDICTION)):
        motion, _ = net.step(DARK, RAYS, steps * DT_S, begun(net))
        assert motion is not None
        assert close_to(motion.prev_from_curr, SE3.exp(expected * FORWARD.log()))


def test_after_a_long_darkness_it_begins_anew() -> None:
    net = ToldNet()
    state = begun(net)
    for _ in range(math.ceil(KEEP_IMAGE_S / DT_S) + 1):
        motion, state = step(net, DARK, state)
        assert not motion.observed
    motion, state = step(net, BRIGHT, state)
    assert (motion.observed, motion.reason) == (False, "there is no good image before this one")
    motion, state = step(net, BRIGHT, state)
    assert motion.observed
    assert close_to(motion.prev_from_curr, FORWARD)
    assert net.runs == [(0.0, 0), (DT_S, 1)]


def test_where_nothing_is_seen_for_long_the_newest_image_is_the_one_to_match() -> None:
    net = ToldNet()
    state, good = begun(net), net.says
    net.says = replace(good, trust=0.0)
    for _ in range(math.ceil(KEEP_IMAGE_S / DT_S) + 1):
        motion, state = step(net, BRIGHT, state)
        assert not motion.observed
    assert net.runs[-1] == (0.0, 0)
    net.says = good
    motion, _ = step(net, BRIGHT, state)
    assert motion.observed
    assert net.runs[-1] == (DT_S, 1)


SPOILED = {
    "nothing matched": replace(answer(), trust=0.0),
    "trust is nan": replace(answer(), trust=math.nan),
    "turn unknown": replace(answer(), std=np.full(6, 3.0, dtype=np.float32)),
    "no deviation": replace(answer(), std=np.zeros(6, dtype=np.float32)),
    "rotation is nan": replace(answer(), rotation=np.full((3, 3), np.nan, dtype=np.float32)),
    "infinitely far": replace(answer(), translation=np.full(3, np.inf, dtype=np.float32)),
    "state is nan": replace(answer(), sound=False),
}


@pytest.mark.parametrize("spoiled", SPOILED.values(), ids=SPOILED)
def test_an_answer_that_cannot_be_used_leaves_the_memory_as_it_was(spoiled: Answer) -> None:
    net = ToldNet()
    state, good = begun(net), net.says
    net.says = spoiled
    motion, state = step(net, BRIGHT, state)
    assert not motion.observed
    assert motion.is_finite
    assert motion.reason
    net.says = good
    step(net, BRIGHT, state)
    assert net.runs == [(DT_S, 2), (2 * DT_S, 2)]


def test_a_first_frame_that_spoils_the_memory_does_not_stay() -> None:
    net = ToldNet(says=replace(answer(), sound=False))
    nothing, begun_badly = net.step(BRIGHT, RAYS, 0.0, net.start())
    assert nothing is None
    net.says = answer()
    motion, state = step(net, BRIGHT, begun_badly)
    assert not motion.observed
    motion, state = step(net, BRIGHT, state)
    assert motion.observed
    assert net.runs == [(0.0, 0), (0.0, 0), (DT_S, 1)]


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_a_failure_has_not_spent_the_state(frames: int) -> None:
    net = ToldNet()
    state = begun(net, frames)
    net.fails = True
    with pytest.raises(NetError, match="out of memory"):
        net.step(BRIGHT, RAYS, DT_S, state)
    net.fails = False
    net.step(BRIGHT, RAYS, DT_S, state)
    assert net.runs == [(DT_S if frames else 0.0, frames)]


def test_nothing_outlives_an_interruption() -> None:
    net = ToldNet()
    motion, _ = net.step(BRIGHT, RAYS, 0.0, net.start(begun(net)))
    assert motion is None
    assert net.runs == [(0.0, 0)]


def test_blank_is_what_has_only_noise() -> None:
    noise = np.random.default_rng(0).normal(0.0, 1.0, BRIGHT.shape)
    for level in (0, 30, 255):
        assert is_blank(np.clip(level + noise, 0, 255).astype(np.uint8))
    assert not is_blank(BRIGHT)
    assert not is_blank((BRIGHT // 8).astype(np.uint8))


def test_a_cells_ray_is_that_of_its_centre() -> None:
    camera = CameraModel(*SIZE, 130.0, 128.0, 81.5, 44.0)
    rectifier = Rectifier(camera, SIZE)
    rays = rays_of_cells(rectifier.rays)
    assert rays.shape == (2, SIZE[1] // CELL, SIZE[0] // CELL)
    assert rays.flags.c_contiguous
    for i, j in ((0, 0), (2, 5), (11, 19)):
        expected = camera.back_project(np.array([[CELL * j + 3.5, CELL * i + 3.5]]))[0, :2]
        np.testing.assert_allclose(rays[:, i, j], expected, atol=1e-6)


def test_the_rays_of_one_camera_are_averaged_once() -> None:
    net = ToldNet()
    cells = net._cells_of(RAYS)
    assert net._cells_of(RAYS) is cells
    assert net._cells_of(RAYS.copy()) is not cells
