"""The geometric backend on rendered footage, whose motion is known exactly."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from vo_stream.camera import Rectifier
from vo_stream.config import Config, GeometricConfig
from vo_stream.demo.world import render_demo
from vo_stream.net.geometric_net import GeometricNet, GeometricState
from vo_stream.se3 import SE3
from vo_stream.values import Frame, Motion

Posed = list[tuple[Frame, SE3]]
DT_S = 0.05


@pytest.fixture(scope="module")
def room() -> Posed:
    return list(render_demo("room", seconds=1.5, size=(320, 240)))


def run(frames: Iterable[Frame], config: GeometricConfig | None = None) -> list[Motion | None]:
    net = GeometricNet(config or GeometricConfig())
    state, motions = net.start(), []
    for i, frame in enumerate(frames):
        rectifier = Rectifier(frame.camera, net.spec.input_size(frame.camera.size))
        motion, state = net.step(rectifier(frame.image), rectifier.rays, DT_S if i else 0.0, state)
        motions.append(motion)
    return motions


def truth(posed: Posed) -> list[SE3]:
    return [a.inverse() @ b for (_, a), (_, b) in pairwise(posed)]


def ratios(motions: list[Motion | None], true: list[SE3]) -> npt.NDArray[np.float64]:
    """Return estimated step length / true step length."""
    found = [m.prev_from_curr.translation for m in motions if m is not None]
    lengths = [
        np.linalg.norm(f) / np.linalg.norm(t.translation) for f, t in zip(found, true, strict=True)
    ]
    return np.array(lengths)


@pytest.mark.parametrize("solver", ["five_point", "eight_point"])
def test_follows_a_known_path(room: Posed, solver: str) -> None:
    config = Config().replaced({"geometric.solver": solver}).geometric
    motions, true = run((f for f, _ in room), config), truth(room)
    assert motions[0] is None
    assert all(m is not None and m.observed and m.is_finite for m in motions[1:])
    turns = [
        (m.prev_from_curr.inverse() @ t).angle for m, t in zip(motions[1:], true, strict=True) if m
    ]
    assert np.degrees(np.median(turns)) < 0.05
    ratio = ratios(motions[1:], true)
    assert np.abs(ratio[3:] / np.median(ratio) - 1.0).max() < 0.2  # the scale is carried
    cosines = [
        m.prev_from_curr.translation
        @ t.translation
        / np.linalg.norm(m.prev_from_curr.translation)
        / np.linalg.norm(t.translation)
        for m, t in zip(motions[1:], true, strict=True)
        if m
    ]
    assert np.degrees(np.arccos(np.median(cosines))) < 5.0


def test_it_says_that_it_is_not_metric() -> None:
    assert not GeometricNet(GeometricConfig()).spec.metric


def test_the_same_frames_give_the_same_motions(room: Posed) -> None:
    first, second = (run(f for f, _ in room[:10]) for _ in range(2))
    for a, b in zip(first[1:], second[1:], strict=True):
        assert a is not None
        assert b is not None
        assert np.array_equal(a.prev_from_curr.wxyz_xyz, b.prev_from_curr.wxyz_xyz)
        assert np.array_equal(a.std, b.std)


def test_the_memory_is_alive(room: Posed) -> None:
    """Step 3 from the carried state knows a scale; from a fresh one it cannot."""
    net = GeometricNet(GeometricConfig())
    rectifier = Rectifier(room[0][0].camera, room[0][0].camera.size)
    images = [rectifier(f.image) for f, _ in room[:12]]
    carried = net.start()
    for image in images[:10]:
        _, carried = net.step(image, rectifier.rays, DT_S, carried)
    before = carried
    kept, _ = net.step(images[10], rectifier.rays, DT_S, carried)
    fresh = net.start()
    _, fresh = net.step(images[9], rectifier.rays, 0.0, fresh)
    anew, _ = net.step(images[10], rectifier.rays, DT_S, fresh)
    assert kept is not None
    assert anew is not None
    assert not np.allclose(kept.prev_from_curr.translation, anew.prev_from_curr.translation)
    again, _ = net.step(images[10], rectifier.rays, DT_S, before)  # stepping changes no state
    assert again is not None
    assert np.array_equal(again.prev_from_curr.wxyz_xyz, kept.prev_from_curr.wxyz_xyz)


def test_a_pure_turn_is_no_wild_translation() -> None:
    posed = list(render_demo("room", seconds=7.0, fps=20.0, size=(320, 240)))[112:140]
    true = truth(posed)
    pure = [np.linalg.norm(t.translation) < 1e-9 and t.angle > 1e-4 for t in true]
    assert sum(pure) > 20
    motions = run(f for f, _ in posed)[1:]
    for motion, t, still in zip(motions, true, pure, strict=True):
        assert motion is not None
        assert (motion.prev_from_curr.inverse() @ t).angle < np.radians(0.1)
        if still:  # the scene is about 10 units deep
            assert np.linalg.norm(motion.prev_from_curr.translation) < 0.05


def test_a_blank_frame_is_bridged(room: Posed) -> None:
    frames = [f for f, _ in room]
    healthy = run(frames)
    frames[15] = Frame(frames[15].stamp_ns, np.zeros_like(frames[15].image), frames[15].camera)
    motions = run(frames)
    assert motions[15] is not None
    assert not motions[15].observed
    assert motions[15].reason
    assert motions[16] is not None
    assert motions[16].observed

    def over_the_gap(all_motions: list[Motion | None]) -> SE3:
        pose = SE3.identity()
        for motion in all_motions[14:18]:
            assert motion is not None
            pose = pose @ motion.prev_from_curr
        return pose

    difference = over_the_gap(healthy).inverse() @ over_the_gap(motions)
    length = np.linalg.norm(over_the_gap(healthy).translation)
    assert np.linalg.norm(difference.translation) < 0.1 * length
    assert difference.angle < 2e-3


def test_a_flicker_of_exposure_is_followed(room: Posed) -> None:
    frames = [f for f, _ in room[:20]]
    for i in range(1, 20, 2):
        bright = np.clip(1.2 * frames[i].image.astype(float) + 15.0, 0, 255).astype(np.uint8)
        frames[i] = Frame(frames[i].stamp_ns, bright, frames[i].camera)
    motions = run(frames)
    assert all(m is not None and m.observed for m in motions[1:])


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_blank_images_forever_stay_finite(grey: int, room: Posed) -> None:
    camera = room[0][0].camera
    blank = np.full(room[0][0].image.shape, grey, dtype=np.uint8)
    motions = run(Frame(i, blank, camera) for i in range(12))
    assert all(m is not None and not m.observed and m.is_finite for m in motions[1:])


def test_memory_is_bounded(room: Posed) -> None:
    net = GeometricNet(GeometricConfig())
    rectifier = Rectifier(room[0][0].camera, room[0][0].camera.size)
    state: GeometricState = net.start()
    frames = [rectifier(f.image) for f, _ in room]
    for image in [*frames, *frames[::-1], *frames]:
        _, state = net.step(image, rectifier.rays, DT_S, state)
        assert len(state.landmarks) == len(state.pixels)
        assert len(state.landmarks) < 2 * GeometricConfig().corners
