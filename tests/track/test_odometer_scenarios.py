"""The broken worlds: one scenario each, and what the odometer makes of it.

The backend here is a real StepNet of the simplest kind, whose motion is known and whose memory is
a counter, so that only the odometer is judged. `test_odometer_footage.py` has the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from vo_stream.camera import CameraModel
from vo_stream.config import TrackConfig
from vo_stream.errors import NetError
from vo_stream.net.stepnet import NetSpec, NetState
from vo_stream.pose_error import Correlation
from vo_stream.se3 import SE3
from vo_stream.track.odometer import Odometer
from vo_stream.values import Estimate, Frame, Motion, Status

CAMERA = CameraModel(64, 48, 50.0, 50.0, 31.5, 23.5)
FRAME_NS = 100_000_000
STEP = SE3.exp([0.0, 0.0, 0.1, 0.0, 0.01, 0.0])
STD = np.full(6, 1e-3)


@dataclass(frozen=True)
class Count:
    """A memory that counts the frames it has seen."""

    frames: int = 0


@dataclass
class KnownNet:
    """A backend whose motion is `STEP`; `answer` may change what it says at a call."""

    spec: NetSpec = field(default_factory=lambda: NetSpec("known", True, 64 * 48))
    answer: Callable[[Motion], Motion] = lambda motion: motion
    counts: list[int] = field(default_factory=list)
    closed: bool = False

    def start(self, after: NetState | None = None) -> Count:
        return Count()

    def step(
        self,
        image: npt.NDArray[np.uint8],
        rays: npt.NDArray[np.float32],
        dt_s: float,
        state: NetState,
    ) -> tuple[Motion | None, Count]:
        assert isinstance(state, Count)
        assert image.shape == rays.shape[:2]
        self.counts.append(state.frames)
        following = Count(state.frames + 1)
        return (self.answer(Motion(STEP, STD)) if state.frames else None), following

    def close(self) -> None:
        self.closed = True


def noise_image(seed: int, shape: tuple[int, int] = (48, 64)) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(abs(seed)).integers(0, 256, shape, dtype=np.uint8)


def frame(i: float, seed: int | None = None, camera: CameraModel = CAMERA) -> Frame:
    shape = (camera.height, camera.width)
    return Frame(
        round(i * FRAME_NS), noise_image(round(i) if seed is None else seed, shape), camera
    )


@dataclass
class World:
    """An odometer that has taken in ten good frames."""

    net: KnownNet = field(default_factory=KnownNet)
    config: TrackConfig = field(default_factory=TrackConfig)

    def __post_init__(self) -> None:
        self.odometer = Odometer(self.net, self.config)
        for i in range(10):
            self.last = self.odometer.step(frame(i))
        assert self.last.status is Status.TRACKING

    def step(self, *frames: Frame) -> list[Estimate]:
        estimates = [self.odometer.step(f) for f in frames]
        for estimate in estimates:
            check(estimate)
        return estimates


def check(estimate: Estimate) -> None:
    """What every estimate must be, whatever came in."""
    assert estimate.odom_from_camera.is_finite
    assert np.isfinite(estimate.covariance).all()
    assert np.allclose(estimate.covariance, estimate.covariance.T, rtol=1e-12, atol=0.0)
    assert np.linalg.eigvalsh(estimate.covariance).min() > 0.0
    assert not estimate.covariance.flags.writeable


def moved(before: Estimate, after: Estimate) -> float:
    motion = before.odom_from_camera.inverse() @ after.odom_from_camera
    return float(np.linalg.norm(motion.translation))


def spread(estimate: Estimate) -> float:
    return float(np.trace(estimate.covariance))


class Broken(Enum):
    """One broken world each; the value says what is expected of it."""

    STAMP_REPEATED = "refused; pose and backend untouched; the next frame goes on"
    STAMP_LATE = "refused; pose and backend untouched; the next frame goes on"
    BAG_LOOPS = "a new session at the origin, once"
    CLOCK_IS_SET = "the first frame waits, the second confirms: a new session, once"
    ONE_WRONG_STAMP = "refused, an hour ahead or behind; the next frame goes on"
    LONG_PAUSE = "the first frame waits, the second confirms: pose kept, then tracking"
    GAP_BELOW_LIMIT = "an ordinary step with a longer dt"
    GAP_ABOVE_LIMIT = "pose kept, covariance grown, backend started anew, then tracking"
    WRONG_SIZE = "refused"
    WRONG_TYPE = "refused"
    CAMERA_CHANGES = "pose kept, backend started anew, then tracking"
    CAMERA_UNUSABLE = "refused"
    NET_SAYS_NAN = "not seen: coasts in place, backend started anew, pose finite for ever"
    NET_SAYS_NAN_STD = "not seen, as above"
    NET_TOO_FAST = "not seen, as above"
    NET_TURNS_TOO_FAST = "not seen, as above"
    NET_BLIND_FOR_A_MOMENT = "degraded: the backend's guess is taken, then tracking"
    NET_BLIND_FOR_LONG = "lost: the pose is held, the covariance grows, then tracking by itself"
    NET_RAISES = "the exception passes; the state is as before; the next frame goes on"
    STANDS_STILL = "not a millimetre of drift, although the backend moves"
    FIRST_FRAME_BAD = "refused, still initializing; the first good frame starts the stream"
    RESET = "a new session at the origin"
    EXTREME_STAMPS = "never more than a refusal or a new session"


@pytest.mark.parametrize("broken", list(Broken), ids=lambda b: b.name)
def test_broken_world(broken: Broken) -> None:
    SCENARIOS[broken]()


def refused_and_goes_on(world: World, bad: Frame, word: str) -> None:
    seen = len(world.net.counts)
    (answer,) = world.step(bad)
    assert answer.refused
    assert answer.motion is None
    assert word in answer.reason
    assert moved(world.last, answer) < 1e-12
    assert len(world.net.counts) == seen
    (after,) = world.step(frame(10))
    assert after.status is Status.TRACKING
    assert moved(world.last, after) == pytest.approx(moved(answer, after))
    assert moved(world.last, after) == pytest.approx(np.linalg.norm(STEP.translation))
    assert world.net.counts[-1] == 10


def stamp_repeated() -> None:
    refused_and_goes_on(World(), frame(9), "previous")


def stamp_late() -> None:
    refused_and_goes_on(World(), frame(8.5), "older")


def bag_loops() -> None:
    world = World()
    first, *others = world.step(*(frame(i - 50) for i in range(5)))
    assert first.status is Status.INITIALIZING
    assert first.session == world.last.session + 1
    assert np.abs(first.odom_from_camera.log()).max() == 0.0
    assert all(o.session == first.session and o.status is Status.TRACKING for o in others)


def clock_is_set() -> None:
    world = World()
    waits, first, *others = world.step(*(frame(i - 36_000) for i in range(5)))
    assert waits.refused
    assert "confirm" in waits.reason
    assert first.status is Status.INITIALIZING
    assert first.session == world.last.session + 1
    assert {o.session for o in others} == {first.session}
    assert {o.status for o in others} == {Status.TRACKING}


def one_wrong_stamp() -> None:
    refused_and_goes_on(World(), frame(36_000), "jumps")
    refused_and_goes_on(World(), frame(-36_000), "jumps")


def long_pause() -> None:
    world = World()
    waits, first, after = world.step(frame(600), frame(601), frame(602))
    assert waits.refused
    assert first.status is Status.INITIALIZING
    assert "gap" in first.reason
    assert first.session == world.last.session
    assert moved(world.last, first) < 1e-12
    assert after.status is Status.TRACKING


def gap_below_limit() -> None:
    world = World()
    (after,) = world.step(frame(18))
    assert after.status is Status.TRACKING
    assert world.net.counts[-1] == 10


def gap_above_limit() -> None:
    world = World()
    gap, after = world.step(frame(30), frame(31))
    assert gap.status is Status.INITIALIZING
    assert not gap.refused
    assert "gap" in gap.reason
    assert moved(world.last, gap) < 1e-12
    assert spread(gap) > spread(world.last) + 1.0
    assert gap.session == world.last.session
    assert world.net.counts[-2:] == [0, 1]
    assert after.status is Status.TRACKING


def wrong_size() -> None:
    bad = Frame(10 * FRAME_NS - 1, noise_image(3, (24, 32)), CAMERA)
    refused_and_goes_on(World(), bad, "32x24")


def wrong_type() -> None:
    colour = np.zeros((48, 64, 3), dtype=np.uint8)
    refused_and_goes_on(World(), Frame(10 * FRAME_NS - 1, colour, CAMERA), "uint8 grey")
    floats = np.full((48, 64), np.nan)
    bad = Frame(10 * FRAME_NS - 1, floats, CAMERA)
    refused_and_goes_on(World(), bad, "uint8 grey")


def camera_changes() -> None:
    world = World()
    other = replace(CAMERA, fx=60.0)
    changed, after = world.step(frame(10, camera=other), frame(11, camera=other))
    assert changed.status is Status.INITIALIZING
    assert "calibration" in changed.reason
    assert moved(world.last, changed) < 1e-12
    assert world.net.counts[-2:] == [0, 1]
    assert after.status is Status.TRACKING


def camera_unusable() -> None:
    folded = CameraModel(64, 48, 50.0, 50.0, 900.0, 23.5, "plumb_bob", (-5.0, 0.0, 0.0, 0.0))
    refused_and_goes_on(World(), frame(9.9, camera=folded), "calibration")


def net_says(answer: Callable[[Motion], Motion], word: str) -> None:
    world = World()
    world.net.answer = answer
    (bad,) = world.step(frame(10))
    assert bad.status is Status.DEGRADED
    assert word in bad.reason
    assert moved(world.last, bad) < 1e-12
    assert world.net.counts[-2:] == [10, 0]
    world.net.answer = lambda motion: motion
    (after,) = world.step(frame(11))
    assert after.status is Status.TRACKING
    assert moved(bad, after) == pytest.approx(np.linalg.norm(STEP.translation))


def net_says_nan() -> None:
    nan = SE3(np.full(7, np.nan))
    net_says(lambda motion: replace(motion, prev_from_curr=nan), "finite")


def net_says_nan_std() -> None:
    net_says(lambda motion: replace(motion, std=np.full(6, np.nan)), "finite")
    net_says(lambda motion: replace(motion, std=np.zeros(6)), "finite")


def net_too_fast() -> None:
    far = SE3.exp([0.0, 0.0, 1e3, 0.0, 0.0, 0.0])
    net_says(lambda motion: replace(motion, prev_from_curr=far), "fast")


def net_turns_too_fast() -> None:
    spin = SE3.exp([0.0, 0.0, 0.0, 0.0, 2.0, 0.0])
    net_says(lambda motion: replace(motion, prev_from_curr=spin), "fast")


def blind(motion: Motion) -> Motion:
    return replace(motion, observed=False, reason="it is dark")


def net_blind_for_a_moment() -> None:
    world = World()
    world.net.answer = blind
    dark = world.step(*(frame(i) for i in range(10, 14)))
    assert {e.status for e in dark} == {Status.DEGRADED}
    assert {e.reason for e in dark} == {"it is dark"}
    assert moved(world.last, dark[0]) == pytest.approx(np.linalg.norm(STEP.translation))
    world.net.answer = lambda motion: motion
    (after,) = world.step(frame(14))
    assert after.status is Status.TRACKING


def net_blind_for_long() -> None:
    world = World()
    world.net.answer = blind
    dark = world.step(*(frame(i) for i in range(10, 60)))
    assert [e.status for e in dark[:5]] == [Status.DEGRADED] * 5
    lost = dark[5:]
    assert {e.status for e in lost} == {Status.LOST}
    assert moved(lost[0], lost[-1]) < 1e-12
    spreads = [spread(e) for e in lost]
    assert all(a < b for a, b in pairwise(spreads))
    seconds = 0.1 * len(dark)
    expected = world.config.lost_speed_m_s * seconds
    assert np.sqrt(lost[-1].covariance[0, 0]) == pytest.approx(expected, rel=0.05)
    world.net.answer = lambda motion: motion
    (after,) = world.step(frame(60))
    assert after.status is Status.TRACKING
    assert moved(lost[-1], after) == pytest.approx(np.linalg.norm(STEP.translation))


def net_raises() -> None:
    world = World()

    def fails(_: Motion) -> Motion:
        raise NetError("out of memory")

    world.net.answer = fails
    before = world.odometer.state
    with pytest.raises(NetError):
        world.odometer.step(frame(10))
    assert world.odometer.state is before
    world.net.answer = lambda motion: motion
    (after,) = world.step(frame(11))
    assert after.status is Status.TRACKING
    assert world.net.counts[-1] == 10


def stands_still() -> None:
    world = World()
    still = world.step(*(frame(i, seed=99) for i in range(10, 40)))
    moving, resting = still[:7], still[7:]
    assert moved(moving[0], moving[3]) > 0.0  # a moment is not yet a rest
    assert moved(resting[0], resting[-1]) < 1e-12
    assert {e.status for e in resting} == {Status.TRACKING}
    assert {e.reason for e in resting} == {"at rest"}
    (after,) = world.step(frame(40))
    assert moved(resting[-1], after) == pytest.approx(np.linalg.norm(STEP.translation))


def first_frame_bad() -> None:
    odometer = Odometer(KnownNet(), TrackConfig())
    bad = odometer.step(Frame(0, noise_image(0, (5, 5)), CAMERA))
    check(bad)
    assert bad.refused
    assert bad.status is Status.INITIALIZING
    good = odometer.step(frame(1))
    assert good.status is Status.INITIALIZING
    assert not good.refused
    assert odometer.step(frame(2)).status is Status.TRACKING


def reset() -> None:
    world = World()
    world.odometer.reset()
    (first,) = world.step(frame(10))
    assert first.session == world.last.session + 1
    assert np.abs(first.odom_from_camera.log()).max() == 0.0


def extreme_stamps() -> None:
    world = World()
    stamps = [2**63 - 1, -(2**63), 0, -1, 2**63 - 1, 2**62, 10 * FRAME_NS]
    estimates = world.step(*(Frame(s, noise_image(1), CAMERA) for s in stamps))
    assert all(e.refused or e.status is Status.INITIALIZING for e in estimates[:-1])
    assert estimates[-1].status is Status.TRACKING  # the stream's own next stamp


SCENARIOS: dict[Broken, Callable[[], None]] = {
    broken: globals()[broken.name.lower()] for broken in Broken
}


def test_errors_that_last_add_up_and_rest_adds_none() -> None:
    """100 steps of a net whose errors stay the same, 10 s of rest, then a gap."""
    for_ever = Correlation((1.0,) * 6, (1e9,) * 6)
    net = KnownNet(answer=lambda _: Motion(SE3.exp([0.0, 0.0, 1.0, 0.0, 0.0, 0.0]), STD))
    net.spec = replace(net.spec, correlation=for_ever)
    odometer = Odometer(net, TrackConfig())
    for i in range(101):
        moved = odometer.step(frame(i))
    assert np.sqrt(moved.covariance[2, 2]) == pytest.approx(100 * STD[2], rel=1e-3)
    assert np.sqrt(moved.covariance_of_steps[2, 2]) == pytest.approx(10 * STD[2], rel=1e-2)
    still = frame(100).image
    resting = [odometer.step(replace(frame(i), image=still)) for i in range(101, 201)]
    assert {estimate.reason for estimate in resting[20:]} == {"at rest"}
    assert resting[-1].covariance[2, 2] == pytest.approx(resting[20].covariance[2, 2], rel=1e-3)
    error = odometer.state.error if odometer.state else None
    assert error is not None
    assert error.lasting[2, 2] == pytest.approx(np.sqrt(resting[-1].covariance[2, 2]), rel=1e-2)
    refused = odometer.step(replace(frame(200), image=still))
    assert refused.refused
    np.testing.assert_array_equal(refused.covariance_of_steps, resting[-1].covariance_of_steps)
    odometer.step(frame(1201))  # a jump, to be confirmed
    apart = odometer.step(frame(1202))
    error = odometer.state.error if odometer.state else None
    assert "a gap" in apart.reason
    assert error is not None
    assert not error.lasting.any()


def test_a_backend_that_starts_anew_errs_anew() -> None:
    """After a motion that is none, nothing lasts of the errors before, nor of the blind step."""
    spoiled = replace(Motion(STEP, STD), std=np.full(6, np.nan))
    net = KnownNet(answer=lambda motion: spoiled if len(net.counts) == 21 else motion)
    net.spec = replace(net.spec, correlation=Correlation((1.0,) * 6, (1e9,) * 6))
    odometer = Odometer(net, TrackConfig())
    for i in range(40):
        estimate = odometer.step(frame(i))
        error = odometer.state.error if odometer.state else None
        assert error is not None
        if estimate.motion is not None:
            assert error.lasting.any() == estimate.motion.observed
    assert 20 in net.counts
    assert net.counts.count(0) == 2


def test_covariance_follows_the_steps() -> None:
    """Pure translation of n steps: variances add up, heading errors swing the position."""
    net = KnownNet(answer=lambda _: Motion(SE3.exp([0.0, 0.0, 1.0, 0.0, 0.0, 0.0]), STD))
    odometer = Odometer(net, TrackConfig())
    for i in range(101):
        estimate = odometer.step(frame(i))
    variance = np.diag(estimate.covariance)
    first = 1e-6
    assert variance[2] == pytest.approx(first + 100 * 1e-6, rel=1e-6)
    assert variance[4] == pytest.approx(first + 100 * 1e-6, rel=1e-6)
    # A turn at step k moves the end sideways by 100 - k: the sum of the squares.
    sideways = 1e-6 * (100**2 + sum((100 - k) ** 2 for k in range(1, 101)))
    assert variance[0] == pytest.approx(first + 100 * 1e-6 + sideways, rel=1e-6)


def test_same_frames_same_bytes() -> None:
    runs = []
    for _ in range(2):
        odometer = Odometer(KnownNet(), TrackConfig())
        runs.append(
            b"".join(odometer.step(frame(i)).odom_from_camera.wxyz_xyz.tobytes() for i in range(20))
        )
    assert runs[0] == runs[1]
