"""The adjuster from end to end, on rendered worlds whose poses are known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vo_stream.adjust.adjuster import HELD, LOOSE_SCALE, Adjuster
from vo_stream.adjust.ground_plane import GroundPlane
from vo_stream.adjust.keyframes import FEWEST_SHARED
from vo_stream.adjust.live_motion import at_scale
from vo_stream.adjust.metric_scale import ENOUGH
from vo_stream.adjust.solver import Problem, Solution, State, solve
from vo_stream.camera import CameraModel, Rectifier
from vo_stream.config import Config, GeometricConfig, ScaleConfig, TrackConfig
from vo_stream.demo.paths import CAMERA_HEIGHT_M, street_pose
from vo_stream.demo.world import render_demo
from vo_stream.net.geometric_net import GeometricNet
from vo_stream.net.stepnet import NetSpec, NetState
from vo_stream.se3 import SE3, Array
from vo_stream.track.odometer import Odometer
from vo_stream.travelled import TravelledDistance
from vo_stream.values import Estimate, Frame, Motion, Refinement, Status

Posed = Sequence[tuple[Frame, SE3]]

ROUGH = np.repeat([0.01, 0.003], 3)
FINE = np.repeat([0.002, 0.001], 3)
WINDOW = Config().adjust.window
MOVING, PIVOT, AFTER = slice(0, 75), slice(85, 105), slice(85, 128)
"""Frames of the room: the camera moves; it only turns; it turns, then moves."""


@cache
def room() -> Posed:
    return tuple(render_demo("room", seconds=8.55, fps=15.0, size=(320, 240)))


@cache
def street() -> Posed:
    return tuple(render_demo("street", seconds=3.4, fps=10.0, size=(620, 188)))


def lived(
    posed: Posed,
    std: Array,
    seed: int = 0,
    lengths: Callable[[int], float] = lambda i: 1.0,
    scale: float = 1.0,
    metric: bool = False,
    session: int = 1,
) -> list[Estimate]:
    """Return what an odometer says whose backend errs by `std` a step, as it claims.

    `lengths`: what the backend makes of a true length, by frame.
    """
    rng, pose, covariance = np.random.default_rng(seed), SE3.identity(), 1e-6 * np.eye(6)
    estimates: list[Estimate] = []
    motion: Motion | None = None
    for i, (frame, world_from_camera) in enumerate(posed):
        if i > 0:
            true = at_scale(posed[i - 1][1].inverse() @ world_from_camera, lengths(i))
            moved = at_scale(true @ SE3.exp(rng.normal(0.0, std)), scale)
            pose, covariance = pose @ moved, moved.inverse().transport(covariance)
            motion = Motion(moved, std * np.repeat([scale, 1.0], 3))
            covariance = covariance + np.diag(motion.std**2)
        estimates.append(
            Estimate(
                frame.stamp_ns, Status.TRACKING, pose, covariance, metric, motion, session, scale
            )
        )
    return estimates


def refined(
    frames: Iterable[Frame],
    estimates: Iterable[Estimate],
    config: Config | None = None,
    adjuster: Adjuster | None = None,
) -> list[Refinement]:
    adjuster = adjuster or Adjuster(config or Config())
    refinements = []
    for frame, estimate in zip(frames, estimates, strict=True):
        adjuster.add(frame, estimate)
        refinement = adjuster.solve()
        if refinement is not None:
            check(refinement)
            refinements.append(refinement)
        assert adjuster.solve() is None  # nothing new
    return refinements


def check(refinement: Refinement) -> None:
    """What every refinement must be, whatever came in."""
    assert refinement.map_from_odom.is_finite
    assert all(k.map_from_camera.is_finite for k in refinement.keyframes)
    assert 1 <= len(refinement.keyframes) <= WINDOW + HELD
    stamps = [k.stamp_ns for k in refinement.keyframes]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] == refinement.stamp_ns
    assert math.isfinite(refinement.scale)
    assert refinement.scale > 0.0
    assert refinement.scale_std > 0.0
    assert np.isfinite(refinement.landmarks).all()
    assert refinement.landmarks.dtype == refinement.landmark_stds.dtype == np.float32
    assert refinement.landmarks.shape == (len(refinement.landmark_stds), 3)
    assert (refinement.landmark_stds > 0.0).all()
    assert not refinement.landmarks.flags.writeable
    assert bool(refinement.scale_source) == refinement.metric
    if refinement.reason:
        assert math.isinf(refinement.scale_std)


def images(posed: Posed) -> list[Frame]:
    return [frame for frame, _ in posed]


def newest(refinements: Iterable[Refinement]) -> dict[int, SE3]:
    """Return the newest word on each keyframe, by stamp."""
    return {k.stamp_ns: k.map_from_camera for r in refinements for k in r.keyframes}


def aligned(found: Array, true: Array) -> tuple[float, float]:
    """Return the error that is left when (n, 3) positions are laid on the truth, and the scale.

    Umeyama, "Least-squares estimation of transformation parameters" (1991).
    """
    a, b = found - found.mean(axis=0), true - true.mean(axis=0)
    u, singular, v = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    scale = float((singular * signs).sum() / (a * a).sum())
    off = scale * a @ (u * signs @ v).T - b
    return float(np.sqrt((off * off).sum(axis=1).mean())), scale


def errors(
    posed: Posed, estimates: Sequence[Estimate], refinements: Iterable[Refinement]
) -> tuple[float, float, float]:
    """Return the error of keyframes, refined and live, and true lengths over the map's."""
    poses, true = newest(refinements), {f.stamp_ns: p.translation for f, p in posed}
    live = {e.stamp_ns: e.odom_from_camera.translation for e in estimates}
    truth = np.array([true[stamp] for stamp in poses])
    error, scale = aligned(np.array([p.translation for p in poses.values()]), truth)
    return error, aligned(np.array([live[stamp] for stamp in poses]), truth)[0], scale


def told(refinement: Refinement) -> bytes:
    """Return all of a refinement, bit for bit."""
    poses = [refinement.map_from_odom, *(k.map_from_camera for k in refinement.keyframes)]
    numbers = [refinement.scale, refinement.scale_std, float(refinement.metric)]
    stamps = [refinement.session, *(k.stamp_ns for k in refinement.keyframes)]
    return b"".join(
        [
            np.array(stamps).tobytes(),
            *(p.wxyz_xyz.tobytes() for p in poses),
            np.array(numbers).tobytes(),
            refinement.landmarks.tobytes(),
            refinement.landmark_stds.tobytes(),
            refinement.reason.encode(),
        ]
    )


def all_told(refinements: Iterable[Refinement]) -> list[bytes]:
    return [told(r) for r in refinements]


def apart(a: SE3, b: SE3) -> float:
    return float(np.abs((a.inverse() @ b).log()).max())


@pytest.mark.parametrize("seed", [0, 1])
def test_refined_keyframes_are_much_nearer_to_the_truth(seed: int) -> None:
    posed = room()[MOVING]
    estimates = lived(posed, ROUGH, seed)
    refinements = refined(images(posed), estimates)
    assert len(refinements) > 8
    assert [bool(r.reason) for r in refinements] == [True] + [False] * (len(refinements) - 1)
    error, live, _ = errors(posed, estimates, refinements)
    assert live > 0.03  # of a path of 1.4 m
    assert error < live / 5.0
    last = refinements[-1]
    assert len(last.landmarks) > 100
    assert not last.metric


def test_landmarks_lie_where_the_walls_are() -> None:
    posed = room()[MOVING]
    refinements = refined(images(posed), lived(posed, FINE))
    *_, scale = errors(posed, lived(posed, FINE), refinements)
    last = refinements[-1]
    camera = last.keyframes[-1].map_from_camera
    depths = camera.inverse().apply(last.landmarks)[:, 2] * scale
    # The room is 6.4 x 5.4 x 2.7 m.
    assert np.percentile(depths, 2) > 0.2
    assert np.percentile(depths, 98) < 6.5
    world = posed[[f.stamp_ns for f in images(posed)].index(last.stamp_ns)][1]
    local = camera.inverse().apply(last.landmarks) * scale
    x, y, z = np.abs(world.apply(local) - [0.0, 0.0, 1.35]).T
    inside = (x < 3.4) & (y < 2.9) & (z < 1.5)
    assert inside.mean() > 0.95


def test_the_first_keyframe_is_where_odometry_has_it() -> None:
    posed = room()[MOVING]
    estimates = [
        replace(e, odom_from_camera=SE3.exp([1.0, 2.0, 3.0, 0.5, 0.1, 0.0]) @ e.odom_from_camera)
        for e in lived(posed, FINE, scale=2.5)
    ]
    refinements = refined(images(posed), estimates)
    first = refinements[0]
    assert {r.map_stamp_ns for r in refinements} == {estimates[0].stamp_ns}
    assert first.reason
    assert len(first.keyframes) == 1
    assert first.scale == pytest.approx(2.5)
    assert apart(first.keyframes[0].map_from_camera, estimates[0].odom_from_camera) == 0.0
    assert apart(first.map_from_odom, SE3.identity()) < 1e-12
    assert len(first.landmarks) == 0
    for refinement in refinements[: HELD - 1]:
        assert told(refinement)
        assert apart(refinement.keyframes[0].map_from_camera, estimates[0].odom_from_camera) == 0.0
    by_stamp = {e.stamp_ns: e.odom_from_camera for e in estimates}
    for refinement in refinements:
        here = refinement.map_from_odom @ by_stamp[refinement.stamp_ns]
        assert apart(here, refinement.keyframes[-1].map_from_camera) < 1e-9


def behind_a_lens(posed: Posed, bend: float) -> Posed:
    """Return the footage through a lens whose distortion the calibration does not know."""
    camera = posed[0][0].camera
    lens = replace(camera, distortion_model="plumb_bob", distortion=(bend, 0.0, 0.0, 0.0))
    v, u = np.indices((camera.height, camera.width), dtype=np.float64)
    x, y = np.moveaxis(camera.project(lens.back_project(np.stack([u, v], axis=-1))), -1, 0)
    maps = x.astype(np.float32), y.astype(np.float32)

    def bent(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        warped = cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(warped, dtype=np.uint8)

    return [(Frame(f.stamp_ns, bent(f.image), camera), pose) for f, pose in posed]


@pytest.mark.parametrize("bend", [0.02, -0.02])
def test_a_wrong_lens_is_found(bend: float) -> None:
    posed = behind_a_lens(room()[MOVING], bend)
    estimates = lived(posed, ROUGH)
    adjuster = Adjuster(Config())
    refinements = refined(images(posed), estimates, adjuster=adjuster)
    found = adjuster._bend
    assert found.std < 0.003
    assert abs(found.value - bend) < 3.0 * found.std
    error, live, _ = errors(posed, estimates, refinements)
    assert error < live / 5.0


@pytest.mark.parametrize("factor", [1.2, 0.8])
def test_lengths_that_are_wrong_from_some_frame_on_are_told_of(factor: float) -> None:
    posed = room()[MOVING]
    estimates = lived(posed, FINE, lengths=lambda i: factor if i >= 30 else 1.0)
    refinements = refined(images(posed), estimates)
    before = [r for r in refinements if r.stamp_ns < posed[30][0].stamp_ns]
    assert len(before) > 2
    assert all(r.scale == pytest.approx(1.0, abs=0.02) for r in before)
    last = refinements[-1]
    assert last.scale == pytest.approx(1.0 / factor, rel=0.06)
    assert last.scale_std < 0.06
    assert abs(math.log(last.scale * factor)) < 3.0 * last.scale_std
    _, _, scale = errors(posed, estimates, refinements)
    assert scale == pytest.approx(1.0, abs=0.04)  # the map did not follow


def test_the_same_input_gives_the_same_bytes() -> None:
    posed = room()[:40]
    estimates = lived(posed, ROUGH)
    runs = [all_told(refined(images(posed), estimates)) for _ in range(2)]
    assert len(runs[0]) > 4
    assert runs[0] == runs[1]


def test_without_a_solve_for_a_while_the_next_one_makes_up_for_it() -> None:
    posed = room()[MOVING]
    estimates = lived(posed, ROUGH)
    adjuster = Adjuster(Config())
    for frame, estimate in zip(images(posed), estimates, strict=True):
        adjuster.add(frame, estimate)
    refinement = adjuster.solve()
    assert refinement is not None
    assert not refinement.reason
    check(refinement)
    error, live, _ = errors(posed, estimates, [refinement])
    assert error < live


def test_nothing_to_solve_before_the_first_frame() -> None:
    assert Adjuster(Config()).solve() is None


# What can go wrong with the footage.


def test_a_camera_that_only_turns_is_followed_by_the_live_motion_and_sees_depth_later() -> None:
    posed = room()[AFTER]
    estimates = lived(posed, np.repeat([1e-4, 1e-4], 3))
    refinements = refined(images(posed), estimates)
    end = room()[PIVOT][-1][0].stamp_ns
    turning = [r for r in refinements if r.stamp_ns <= end]
    assert len(turning) > 1
    live = {e.stamp_ns: e.odom_from_camera for e in estimates}
    for refinement in turning:
        assert len(refinement.landmarks) < 10  # of what noise makes of no depth
        assert refinement.scale_std > 0.15  # nobody takes that
        for keyframe in refinement.keyframes:
            assert apart(keyframe.map_from_camera, live[keyframe.stamp_ns]) < 0.01
    assert not refinements[-1].reason
    assert len(refinements[-1].landmarks) > 50
    error, *_ = errors(posed, estimates, refinements)
    assert error < 0.005


def test_where_all_is_far_away_nothing_is_refined_and_that_is_said() -> None:
    """Footage of a turn, with poses that move: what is seen must be at infinity."""
    aside = [
        (f, SE3.exp([0.1 * i, 0.0, 0.0, 0.0, 0.0, 0.0]) @ p)
        for i, (f, p) in enumerate(room()[PIVOT])
    ]
    estimates = lived(aside, np.repeat([1e-3, 1e-4], 3))
    few = Config().replaced({"adjust.tracks": 120})  # of many some pass by chance
    first, *others = refined(images(aside), estimates, few)
    live = {e.stamp_ns: e.odom_from_camera for e in estimates}
    assert len(others) > 0
    for refinement in others:
        assert refinement.reason
        assert refinement.reason != first.reason
        assert len(refinement.landmarks) == 0
        for keyframe in refinement.keyframes:
            assert apart(keyframe.map_from_camera, live[keyframe.stamp_ns]) < 1e-9


def stamped(frame: Frame, stamp_ns: int, image: npt.NDArray[np.uint8]) -> Frame:
    return Frame(stamp_ns, image, frame.camera)


def test_a_camera_that_stands_for_a_minute_has_one_keyframe() -> None:
    world = next(iter(render_demo("room", 0.1, 10.0, size=(160, 120))))[0]
    rng = np.random.default_rng(0)
    frames = []
    for i in range(600):
        noisy = world.image + rng.normal(0.0, 3.0, world.image.shape)
        frames.append(
            stamped(world, i * 100_000_000, np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        )
    estimates = [
        Estimate(
            f.stamp_ns, Status.TRACKING, SE3.identity(), (1e-6 + i * 1e-8) * np.eye(6), False,
            None, 1,
        )
        for i, f in enumerate(frames)
    ]  # fmt: skip
    (only,) = refined(frames, estimates)
    assert only.stamp_ns == 0
    assert only.reason


def covered(posed: Posed, dark: slice, grey: int = 0) -> list[Frame]:
    frames = images(posed)
    for i in range(*dark.indices(len(frames))):
        blank = np.full_like(frames[i].image, grey)
        frames[i] = stamped(frames[i], frames[i].stamp_ns, blank)
    return frames


@pytest.mark.parametrize("dark", [slice(30, 31), slice(30, 45)])
def test_after_the_dark_it_goes_on_where_the_live_motion_led(dark: slice) -> None:
    posed = room()[MOVING]
    estimates = lived(posed, FINE)
    refinements = refined(covered(posed, dark), estimates)
    after = [r for r in refinements if r.stamp_ns > posed[dark.stop][0].stamp_ns]
    assert len(after) > 3
    assert not any(r.reason for r in after)
    seen_dark = {f.stamp_ns for f, _ in posed[dark]} & newest(refinements).keys()
    assert len(seen_dark) <= 1  # what shows nothing fills no window
    error, _, scale = errors(posed, estimates, refinements)
    assert error < 0.02
    assert scale == pytest.approx(1.0, abs=0.1)
    assert len(after[-1].landmarks) > 100


def test_a_stream_that_begins_in_the_dark_finds_its_way() -> None:
    posed = room()[MOVING]
    estimates = lived(posed, ROUGH)
    refinements = refined(covered(posed, slice(0, 10)), estimates)
    assert refinements[0].reason
    assert len(refinements) > 5
    assert not any(r.reason for r in refinements[4:])
    light = [k for k in newest(refinements) if k >= posed[10][0].stamp_ns]
    true = {f.stamp_ns: p.translation for f, p in posed}
    found = newest(refinements)
    error, _ = aligned(
        np.array([found[s].translation for s in light]), np.array([true[s] for s in light])
    )
    assert error < 0.01


def test_in_the_dark_forever_there_is_no_more_than_a_first_keyframe() -> None:
    posed = room()[:30]
    refinements = refined(covered(posed, slice(0, 30), 128), lived(posed, FINE))
    assert len(refinements) <= 1


def unrelated(posed: Posed, wild: slice) -> list[Frame]:
    """Replace frames by pictures that have nothing to do with each other, and dark between them."""
    frames, rng = covered(posed, wild), np.random.default_rng(5)
    for i in range(wild.start, wild.stop, 2):
        coarse = rng.integers(0, 256, (30, 40), dtype=np.uint8)
        image = cv2.resize(coarse, frames[i].camera.size, interpolation=cv2.INTER_CUBIC)
        frames[i] = stamped(frames[i], frames[i].stamp_ns, np.asarray(image, dtype=np.uint8))
    return frames


def test_where_nothing_is_shared_the_last_good_poses_are_carried_on_and_it_recovers() -> None:
    posed, config = room()[:100], Config().replaced({"adjust.window": 3})
    wild = slice(36, 36 + 2 * (3 + HELD + 3))
    estimates = lived(posed, FINE)
    refinements = refined(unrelated(posed, wild), estimates, config)
    begin, end = posed[wild.start][0].stamp_ns, posed[wild.stop][0].stamp_ns
    assert not any(r.reason for r in refinements[1:] if r.stamp_ns < begin)
    lost = [r for r in refinements if begin <= r.stamp_ns < end]
    assert len(lost) == 3 + HELD + 3
    live = {e.stamp_ns: e.odom_from_camera for e in estimates}
    for before, after in pairwise(lost):
        known = newest([before])
        last, new = after.keyframes[-2:]
        carried = live[last.stamp_ns].inverse() @ live[new.stamp_ns]
        moved = last.map_from_camera.inverse() @ new.map_from_camera
        assert apart(moved, at_scale(carried, after.scale)) < 0.01
        if after.reason:
            assert apart(moved, at_scale(carried, after.scale)) < 1e-9
            for keyframe in after.keyframes[:-1]:
                assert apart(keyframe.map_from_camera, known[keyframe.stamp_ns]) < 1e-12
    assert sum(bool(r.reason) for r in lost) > 3
    assert lost[-1].reason
    assert not refinements[-1].reason
    assert len(refinements[-1].landmarks) > 100
    error, *_ = errors(posed, estimates, refinements)
    assert error < 0.02


def loose(solution: Solution) -> Solution:
    state = solution.state
    state = state._replace(log_scales=state.log_scales + 1.5 * LOOSE_SCALE)
    return solution._replace(state=state)


def far(solution: Solution) -> Solution:
    stds = np.where(np.arange(len(solution.depth_stds)) % 6 == 0, solution.depth_stds, 9.0)
    return solution._replace(depth_stds=stds)


def astray(solution: Solution) -> Solution:
    errors = np.where(np.arange(len(solution.errors)) % 5 < 3, np.inf, solution.errors)
    return solution._replace(errors=errors)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (loose, "nothing holds the scale"),
        (far, "too little parallax"),
        (astray, "the corners agree on no motion"),
    ],
)
def test_a_solution_that_says_nothing_is_not_taken(
    change: Callable[[Solution], Solution], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(problem: Problem, start: State) -> Solution:
        return change(solve(problem, start))

    posed = room()[:60]
    adjuster, estimates = Adjuster(Config()), lived(posed, 0.25 * FINE)
    good = refined(images(posed)[:45], estimates[:45], adjuster=adjuster)
    assert good[1:]
    assert not any(r.reason for r in good[1:])
    monkeypatch.setattr("vo_stream.adjust.adjuster.solve", bad)
    others = refined(images(posed)[45:], estimates[45:], adjuster=adjuster)
    assert others
    for before, after in pairwise([good[-1], *others]):
        assert after.reason == reason
        assert after.scale == before.scale
        known = newest([before])
        for keyframe in after.keyframes[:-1]:
            assert apart(keyframe.map_from_camera, known[keyframe.stamp_ns]) < 1e-12


# What can go wrong with the stream.


def test_a_new_session_begins_a_new_map_and_nothing_of_the_old_is_left() -> None:
    one, two = room()[:30], room()[30:70]
    old, new = lived(one, FINE), lived(two, FINE, seed=1, session=2)
    adjuster = Adjuster(Config())
    refined(images(one), old, adjuster=adjuster)
    after = refined(images(two), new, adjuster=adjuster)
    assert {r.session for r in after} == {2}
    assert len(after) > 4
    assert all_told(after) == all_told(refined(images(two), new))


def test_another_camera_begins_a_new_map() -> None:
    posed = room()[:70]
    estimates = lived(posed, FINE)
    other = CameraModel(320, 240, 231.0, 231.0, 159.5, 119.5)
    changed = [replace(f, camera=other) for f in images(posed)]
    adjuster = Adjuster(Config())
    refined(images(posed)[:30], estimates[:30], adjuster=adjuster)
    after = refined(changed[30:], estimates[30:], adjuster=adjuster)
    assert len(after) > 4
    assert all_told(after) == all_told(refined(changed[30:], estimates[30:]))
    first = after[0].keyframes[0]
    assert apart(first.map_from_camera, estimates[30].odom_from_camera) == 0.0
    assert {r.map_stamp_ns for r in after} == {estimates[30].stamp_ns}


def disturbances(frame: Frame, good: Estimate) -> dict[str, tuple[Frame, Estimate]]:
    """Return what may come right after a good frame and must change nothing."""
    later = frame.stamp_ns + 1000
    wild = SE3.exp([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])
    bad = replace(good, stamp_ns=later, odom_from_camera=wild)
    here = replace(frame, stamp_ns=later)
    folded = CameraModel(320, 240, 50.0, 50.0, 900.0, 23.5, "plumb_bob", (-5.0, 0.0, 0.0, 0.0))
    nan = SE3(np.full(7, np.nan))
    hole = good.covariance.copy()
    hole[2, 3] = np.nan
    return {
        "refused": (here, replace(bad, refused=True, session=7)),
        "the same stamp": (frame, replace(bad, stamp_ns=frame.stamp_ns)),
        "an older stamp": (replace(frame, stamp_ns=0), replace(bad, stamp_ns=0)),
        "a nan pose": (here, replace(bad, odom_from_camera=nan)),
        "an infinite covariance": (here, replace(bad, covariance=np.full((6, 6), np.inf))),
        "a nan in the covariance": (here, replace(bad, covariance=hole)),
        "an unusable camera": (replace(here, camera=folded), bad),
    }


KINDS = list(disturbances(Frame(1, np.zeros((240, 320), np.uint8), CameraModel(
    320, 240, 230.0, 230.0, 159.5, 119.5)), Estimate(1, Status.TRACKING, SE3.identity(),
    np.eye(6), False, None, 1)))  # fmt: skip


@cache
def undisturbed() -> list[bytes]:
    posed = room()[:35]
    return all_told(refined(images(posed), lived(posed, FINE)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_used_changes_nothing(kind: str) -> None:
    posed = room()[:35]
    frames, estimates = [], []
    for frame, estimate in zip(images(posed), lived(posed, FINE), strict=True):
        bad_frame, bad_estimate = disturbances(frame, estimate)[kind]
        frames += [frame, bad_frame]
        estimates += [estimate, bad_estimate]
    assert all_told(refined(frames, estimates)) == undisturbed()


def test_nothing_usable_has_no_keyframe() -> None:
    posed = room()[:3]
    nan = [replace(e, odom_from_camera=SE3(np.full(7, np.nan))) for e in lived(posed, FINE)]
    assert refined(images(posed), nan) == []


# Where metres come from.


def scale_config(**scale: object) -> Config:
    return Config().replaced({"scale": scale})


def test_a_backend_that_knows_metres_holds_the_map_to_them() -> None:
    """Odometry had a scale of 1.4 when the map began; the backend's lengths are right, but rough.

    The window alone keeps what it began with.
    """
    posed = room()[MOVING]
    rough = np.random.default_rng(3).lognormal(0.0, 0.15, len(posed))
    std = np.repeat([0.005, 0.001], 3)
    estimates = lived(posed, std, 0, lambda i: float(rough[i]), 1.4, True)
    free = refined(images(posed), estimates, scale_config(source="none"))
    held = refined(images(posed), estimates, scale_config(source="network"))
    assert not any(r.metric or r.scale_source for r in free)
    assert errors(posed, estimates, free)[2] < 0.88
    assert all(r.metric for r in held)
    assert {r.scale_source for r in held} == {"network"}
    error, live, scale = errors(posed, estimates, held)
    assert scale == pytest.approx(1.0, abs=0.05)
    assert error < live
    assert held[-1].scale_std > free[-1].scale_std  # how well metres are known is part of it


def test_a_backend_that_knows_no_metres_makes_none() -> None:
    posed = room()[:40]
    refinements = refined(images(posed), lived(posed, FINE), scale_config(source="network"))
    assert len(refinements) > 4
    assert not any(r.metric for r in refinements)


def test_a_fixed_factor_makes_metres() -> None:
    """The backend's lengths are half a metre's; the map is begun with what odometry had."""
    posed = room()[:60]
    for begun, off in ((2.0, 0.03), (1.7, 0.06)):
        estimates = lived(posed, 0.2 * FINE, 0, lambda i: 0.5, begun, True)
        refinements = refined(images(posed), estimates, scale_config(source="fixed", factor=2.0))
        assert refinements[-1].metric
        assert refinements[-1].scale_source == "fixed"
        last = refinements[-1]
        assert last.scale == pytest.approx(2.0, rel=off)
        assert abs(math.log(last.scale / 2.0)) < 2.0 * last.scale_std
        assert errors(posed, estimates, refinements)[2] == pytest.approx(1.0, abs=off)


def test_a_camera_of_known_height_makes_metres() -> None:
    """The backend's lengths are a fifth of a metre's."""
    posed = street()
    estimates = lived(posed, np.repeat([0.01, 0.001], 3), lengths=lambda i: 0.2)
    config = scale_config(source="camera_height", camera_height_m=CAMERA_HEIGHT_M)
    refinements = refined(images(posed), estimates, config)
    assert len(refinements) > 6
    assert all(r.metric for r in refinements[ENOUGH:])
    assert {r.scale_source for r in refinements[ENOUGH:]} == {"camera_height"}
    assert not any(r.metric for r in refinements[:ENOUGH])  # the first can measure nothing
    error, live, scale = errors(posed, estimates, refinements)
    assert scale == pytest.approx(1.0, abs=0.05)
    assert error < live
    taller = scale_config(source="camera_height", camera_height_m=2.0 * CAMERA_HEIGHT_M)
    doubled = refined(images(posed), estimates, taller)
    assert errors(posed, estimates, doubled)[2] == pytest.approx(0.5, abs=0.025)


@cache
def drive() -> Posed:
    """The street with its stop: the car brakes, stands and drives on."""
    return tuple(render_demo("street", seconds=9.0, fps=10.0, size=(414, 125)))


WHEELS_HZ = 50
WHEEL_FACTOR = 1.02


def wheeled(
    posed: Posed,
    speed: Callable[[float, float], float | None] = lambda seconds, speed_m_s: speed_m_s,
) -> Posed:
    """Return footage with what wheels of 2 % too large a size say, with noise.

    `speed`: what becomes of a true speed at a time; None: no sample. A sample takes 10 ms to come.
    """
    rng, distance, told = np.random.default_rng(4), TravelledDistance(), []
    i, start_ns = -WHEELS_HZ, posed[0][0].stamp_ns
    for frame, world_from_camera in posed:
        while (seconds := i / WHEELS_HZ) < (frame.stamp_ns - start_ns) / 1e9 - 0.01:
            i += 1
            # Before the footage the car came as it went on.
            before, after = (street_pose(abs(seconds) + h).translation for h in (0.0, 1e-3))
            said = speed(seconds, float(np.linalg.norm(after - before)) / 1e-3)
            if said is not None:
                distance.add(
                    start_ns + round(seconds * 1e9), WHEEL_FACTOR * said * rng.normal(1.0, 0.02)
                )
        travelled_m = distance.at(frame.stamp_ns)
        told.append((replace(frame, travelled_m=travelled_m), world_from_camera))
    return told


def driven(posed: Posed) -> list[Refinement]:
    estimates = lived(posed, np.repeat([0.01, 0.001], 3), lengths=lambda i: 0.2)
    return refined(images(posed), estimates, scale_config(source="wheel"))


def test_wheels_make_metres() -> None:
    """The backend's lengths are a fifth of a metre's."""
    posed = wheeled(drive())
    refinements = driven(posed)
    assert not any(r.metric for r in refinements[:ENOUGH])
    assert all(r.metric for r in refinements[ENOUGH:])
    assert {r.scale_source for r in refinements[ENOUGH:]} == {"wheel"}
    estimates = lived(posed, np.repeat([0.01, 0.001], 3))
    error, _, scale = errors(posed, estimates, refinements)
    assert scale * WHEEL_FACTOR == pytest.approx(1.0, abs=0.03)
    assert error < 0.5
    assert refinements[-1].scale == pytest.approx(5.0 * WHEEL_FACTOR, rel=0.05)
    assert refinements[-1].scale_std < 0.1  # the odometer takes it


def test_odometry_takes_its_metres_from_the_wheels() -> None:
    posed, config = wheeled(drive()), scale_config(source="wheel")
    net = TrueNet(posed, lambda i: 0.2, metric=False)
    estimates, refinements = fed_back(posed, Odometer(net, TrackConfig(), config.scale), config)
    begin = next(r.stamp_ns for r in refinements if r.metric)
    assert [e.metric for e in estimates] == [e.stamp_ns > begin for e in estimates]
    steps = [
        (estimate.motion.prev_from_curr.translation, (before.inverse() @ here).translation)
        for estimate, ((_, before), (_, here)) in zip(estimates[1:], pairwise(posed), strict=True)
        if estimate.motion and estimate.metric
    ]
    found, true = (
        sum(float(np.linalg.norm(step)) for step in ways) for ways in zip(*steps, strict=True)
    )
    assert true > 20.0
    assert found / true == pytest.approx(WHEEL_FACTOR, abs=0.03)


def is_slipping(seconds: float) -> bool:
    return np.random.default_rng(round(1e3 * (seconds + 10.0))).random() < 0.3


@pytest.mark.parametrize(
    "speed",
    [
        lambda seconds, speed_m_s: None,
        lambda seconds, speed_m_s: math.nan,
        lambda seconds, speed_m_s: 0.0,
        lambda seconds, speed_m_s: 0.0 if is_slipping(seconds) else speed_m_s,
        lambda seconds, speed_m_s: 20.0 * abs(math.sin(1e4 * seconds)),
        lambda seconds, speed_m_s: speed_m_s if seconds < 0.5 else None,
    ],
    ids=["silence", "nan", "nought", "slip", "nonsense", "soon silent"],
)
def test_wheels_that_cannot_be_trusted_make_no_metres(
    speed: Callable[[float, float], float | None],
) -> None:
    refinements = driven(wheeled(drive(), speed))
    assert len(refinements) > 10
    assert not any(r.reason for r in refinements[1:])
    assert not any(r.metric for r in refinements)
    assert refinements[-1].scale == pytest.approx(1.0, abs=0.1)  # the map's unit is as it was


@pytest.mark.parametrize("left_m_s", [None, 0.0, math.nan], ids=str)
def test_wheels_that_fall_silent_leave_the_scale_as_it_was_and_are_forgotten(
    left_m_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vo_stream.adjust.metric_scale.MEMORY", 8)
    posed = wheeled(drive(), lambda seconds, speed_m_s: speed_m_s if seconds < 2.5 else left_m_s)
    refinements = driven(posed)
    assert any(r.metric for r in refinements)
    assert not refinements[-1].metric
    assert not refinements[-1].scale_source
    estimates = lived(posed, np.repeat([0.01, 0.001], 3))
    *_, scale = errors(posed, estimates, refinements)
    assert scale * WHEEL_FACTOR == pytest.approx(1.0, abs=0.06)


def test_frames_without_a_reading_and_a_jump_back_do_no_harm() -> None:
    posed = [
        (replace(f, travelled_m=math.nan if i % 4 == 1 else f.travelled_m - 1e5 * (i > 30)), pose)
        for i, (f, pose) in enumerate(wheeled(drive()))
    ]
    refinements = driven(posed)
    assert refinements[-1].metric
    *_, scale = errors(posed, lived(posed, FINE), refinements)
    assert scale * WHEEL_FACTOR == pytest.approx(1.0, abs=0.03)


def test_other_sources_do_not_ask_the_wheels() -> None:
    posed = drive()[:30]
    estimates = lived(posed, np.repeat([0.01, 0.001], 3))
    without = all_told(refined(images(posed), estimates))
    assert all_told(refined(images(wheeled(posed)), estimates)) == without


def test_a_map_that_begins_in_metres_has_them_from_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An adjuster that is replaced goes on from live lengths that are metres already."""
    posed = room()[:60]
    ground = GroundPlane(np.array([0.0, 1.0, 0.0]), 1.5, 0.03, 0.9, 3)
    monkeypatch.setattr("vo_stream.adjust.adjuster.height_above_ground", lambda *_: ground)
    config = scale_config(source="camera_height", camera_height_m=1.5)
    refinements = refined(images(posed), lived(posed, FINE), config)
    assert [r.metric for r in refinements] == [i >= ENOUGH for i in range(len(refinements))]
    assert refinements[-1].metric
    begun = refined(images(posed), lived(posed, FINE, metric=True), config)
    assert all(r.metric for r in begun)


# With the odometry it refines.


class TrueNet:
    """A backend that knows the true motions, its own unit of length apart."""

    def __init__(self, posed: Posed, lengths: Callable[[int], float], metric: bool) -> None:
        self.spec = NetSpec("true", metric, 320 * 240)
        self._posed, self._lengths = posed, lengths

    def start(self, after: NetState | None = None) -> TrueState:
        return TrueState(0)

    def step(
        self,
        image: npt.NDArray[np.uint8],
        rays: npt.NDArray[np.float32],
        dt_s: float,
        state: NetState,
    ) -> tuple[Motion | None, TrueState]:
        assert isinstance(state, TrueState)
        i = state.frames
        following = TrueState(i + 1)
        if i == 0:
            return None, following
        true = self._posed[i - 1][1].inverse() @ self._posed[i][1]
        return Motion(at_scale(true, self._lengths(i)), 0.25 * FINE), following

    def close(self) -> None: ...


class TrueState:
    """The memory of a `TrueNet`: how many frames it has seen."""

    def __init__(self, frames: int) -> None:
        self.frames = frames


def fed_back(
    posed: Posed, odometer: Odometer, config: Config
) -> tuple[list[Estimate], list[Refinement]]:
    """Run odometry and adjuster together; check that odometry stays continuous (REP-105)."""
    adjuster, published = Adjuster(config), []
    estimates: list[Estimate] = []
    refinements: list[Refinement] = []
    for frame, _ in posed:
        estimate = odometer.step(frame)
        if estimate.motion is not None:
            expected = estimates[-1].odom_from_camera @ estimate.motion.prev_from_curr
            np.testing.assert_array_equal(estimate.odom_from_camera.wxyz_xyz, expected.wxyz_xyz)
        estimates.append(estimate)
        published.append(estimate.odom_from_camera.wxyz_xyz.copy())
        adjuster.add(frame, estimate)
        refinement = adjuster.solve()
        if refinement is not None:
            check(refinement)
            odometer.refine(refinement)
            refinements.append(refinement)
    for estimate, pose in zip(estimates, published, strict=True):
        np.testing.assert_array_equal(estimate.odom_from_camera.wxyz_xyz, pose)
    return estimates, refinements


def test_with_the_real_odometry() -> None:
    posed = room()[:60]
    odometer = Odometer(GeometricNet(GeometricConfig()), TrackConfig(), ScaleConfig())
    estimates, refinements = fed_back(posed, odometer, Config())
    assert len(refinements) > 5
    assert not any(r.reason for r in refinements[2:])
    assert len({e.scale for e in estimates}) > 3  # what was said was taken
    error, live, _ = errors(posed, estimates, refinements)
    assert error < 0.01
    assert live < 0.02
    assert error < 1.3 * live  # here the live poses are good already


def test_odometry_whose_lengths_change_is_set_right() -> None:
    """Not at once: a scale that walks slowly is all that the adjuster expects."""
    posed = room()[MOVING]
    net = TrueNet(posed, lambda i: 1.25 if i >= 15 else 1.0, metric=False)
    estimates, refinements = fed_back(posed, Odometer(net, TrackConfig(), ScaleConfig()), Config())
    (*_, a, b), (true_a, true_b) = estimates, [p for _, p in posed[-2:]]
    ratio = np.linalg.norm((a.odom_from_camera.inverse() @ b.odom_from_camera).translation)
    ratio /= np.linalg.norm((true_a.inverse() @ true_b).translation)
    assert ratio == pytest.approx(1.0, abs=0.1)
    assert all(a.scale < b.scale + 0.01 for b, a in pairwise(refinements[2:]))
    assert abs(math.log(1.25 * refinements[-1].scale)) < 3.0 * refinements[-1].scale_std
    assert not any(e.metric for e in estimates)


def test_odometry_in_metres_stays_in_metres_and_so_does_the_map() -> None:
    posed = room()[:60]
    net = TrueNet(posed, lambda i: 1.0, metric=True)
    estimates, refinements = fed_back(posed, Odometer(net, TrackConfig(), ScaleConfig()), Config())
    assert all(e.metric for e in estimates)
    assert all(r.metric for r in refinements)
    assert estimates[-1].scale == pytest.approx(1.0, abs=0.05)


def test_metres_that_were_lost_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend's metres jump: map and odometry have none for a while, and must not wait for
    each other.
    """
    monkeypatch.setattr("vo_stream.adjust.metric_scale.PATIENCE", 1)
    posed = room()[MOVING]
    net = TrueNet(posed, lambda i: 0.5 if i >= 8 else 1.0, metric=True)
    estimates, refinements = fed_back(posed, Odometer(net, TrackConfig(), ScaleConfig()), Config())
    assert not all(r.metric for r in refinements)
    assert not all(e.metric for e in estimates)
    assert refinements[-1].metric
    assert refinements[-1].scale == pytest.approx(1.0, abs=0.1)  # metres are what the backend says


def test_images_are_scaled_down_to_what_the_settings_allow() -> None:
    posed = room()[:25]
    config = Config().replaced({"adjust.max_pixels": 30_000})
    adjuster = Adjuster(config)
    refinements = refined(images(posed), lived(posed, FINE), adjuster=adjuster)
    assert isinstance(adjuster._rectifier, Rectifier)
    assert adjuster._rectifier.camera.size == (200, 150)
    assert not refinements[-1].reason


def test_a_keyframe_has_corners_unless_it_is_the_first() -> None:
    posed = room()[MOVING]
    adjuster = Adjuster(Config())
    refined(covered(posed, slice(20, 26)), lived(posed, FINE), adjuster=adjuster)
    assert all(len(k.ids) >= FEWEST_SHARED for k in adjuster._keyframes)
