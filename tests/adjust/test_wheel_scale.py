"""The map's unit by the distance that the wheels report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from vo_stream.adjust.metric_scale import LEAST_ANSWERED
from vo_stream.adjust.wheel_scale import (
    FEWEST_COMPARED,
    LEVER_STD_M,
    TIMING_STD_S,
    wheel_scale,
)
from vo_stream.adjust.window import WindowKeyframe
from vo_stream.se3 import SE3, Array
from vo_stream.values import NANOSECONDS

UNIT_M = 2.5
WAY = 0.3
PERIOD_S = 0.4
WHEEL_STD = 0.02


def driven(count: int = 12, way: float = WAY, turn_rad: float = 0.0) -> list[WindowKeyframe]:
    """A drive forward, each keyframe `way` further in the map, whose unit is `UNIT_M`."""
    none = np.empty(0)
    step, pose, keyframes = SE3.exp([0.0, 0.0, way, 0.0, turn_rad, 0.0]), SE3.identity(), []
    for i in range(count):
        keyframes.append(
            WindowKeyframe(
                stamp_ns=round(i * PERIOD_S * NANOSECONDS),
                map_from_camera=pose,
                odom_from_camera=pose,
                motion=step,
                information=np.eye(6),
                scale_variance=0.0,
                log_scale=0.0,
                ids=np.empty(0, dtype=np.int64),
                plane=np.empty((0, 2)),
                variances=none,
                travelled_m=7.0 + i * UNIT_M * way,
            )
        )
        pose = pose @ step
    return keyframes


def ahead(keyframes: Sequence[WindowKeyframe], depth: float = 4.0) -> Array:
    """Landmarks that far from the newest keyframe."""
    local = np.random.default_rng(0).normal([0.0, 0.0, depth], [1.0, 1.0, 0.3], (200, 3))
    return keyframes[-1].map_from_camera.apply(local)


def told(
    keyframes: Sequence[WindowKeyframe], readings: Array | Sequence[float]
) -> list[WindowKeyframe]:
    pairs = zip(keyframes, readings, strict=True)
    return [replace(keyframe, travelled_m=float(metres)) for keyframe, metres in pairs]


def readings_of(keyframes: Sequence[WindowKeyframe]) -> Array:
    return np.array([k.travelled_m for k in keyframes])


def measured(keyframes: Sequence[WindowKeyframe], depth: float = 4.0) -> tuple[float, float] | None:
    return wheel_scale(keyframes, ahead(keyframes, depth), WHEEL_STD)


@pytest.mark.parametrize("count", [2, 3, 16])
def test_metres_over_the_maps_unit(count: int) -> None:
    answer = measured(driven(count))
    assert answer is not None
    assert answer[0] == pytest.approx(math.log(UNIT_M))
    assert WHEEL_STD < answer[1] < 0.05


def test_only_the_newest_way_is_measured() -> None:
    keyframes = driven()
    readings = readings_of(keyframes)
    readings[-1] += 0.04 * UNIT_M * WAY
    answer = measured(told(keyframes, readings))
    assert answer is not None
    assert answer[0] == pytest.approx(math.log(1.04 * UNIT_M))


def test_keyframes_without_a_reading_are_passed_over() -> None:
    keyframes = driven()
    readings = readings_of(keyframes)
    readings[[3, 9, 10]] = math.nan
    answer = measured(told(keyframes, readings))
    assert answer is not None
    assert answer[0] == pytest.approx(math.log(UNIT_M))
    alone = measured(driven())
    assert alone is not None
    assert answer[1] < alone[1]  # the longer way says more


@pytest.mark.parametrize("unread", [[-1], [*range(11)], [*range(12)]])
def test_without_readings_nothing_is_measured(unread: list[int]) -> None:
    keyframes = driven()
    readings = readings_of(keyframes)
    readings[unread] = math.nan
    assert measured(told(keyframes, readings)) is None


def test_without_landmarks_nothing_is_measured() -> None:
    assert wheel_scale(driven(), np.empty((0, 3)), WHEEL_STD) is None


@pytest.mark.parametrize("jump_m", [-0.8, -1e5, -1e12, -math.inf])
def test_over_a_new_stretch_nothing_is_measured_and_after_it_again(jump_m: float) -> None:
    keyframes = driven()
    at_the_end, before = readings_of(keyframes), readings_of(keyframes)
    at_the_end[-1:] += jump_m
    assert measured(told(keyframes, at_the_end)) is None
    if math.isfinite(jump_m):
        before[5:] += jump_m
        answer = measured(told(keyframes, before))
        assert answer is not None
        assert answer[0] == pytest.approx(math.log(UNIT_M), abs=1e-3)


@pytest.mark.parametrize("count", [2, 12])
def test_wheels_that_say_there_was_no_way_measure_nothing(count: int) -> None:
    keyframes = driven(count)
    assert measured(told(keyframes, [7.0] * count)) is None
    readings = readings_of(keyframes)
    readings[-1] = readings[-2]
    assert measured(told(keyframes, readings)) is None


def test_standing_keyframes_measure_nothing() -> None:
    assert measured(driven(way=0.0)) is None
    assert measured(driven(way=1e-4)) is None


def test_the_nearer_the_keyframes_for_the_scene_the_less_is_known() -> None:
    near, far = measured(driven(), 2.0), measured(driven(), 10.0)
    assert near is not None
    assert far is not None
    assert near[1] < far[1]
    assert measured(driven(), 100.0) is None


def test_a_turn_makes_unsure_by_what_is_not_known_of_the_mount() -> None:
    straight, curved = measured(driven()), measured(driven(turn_rad=0.3))
    assert straight is not None
    assert curved is not None
    lever = LEVER_STD_M * 0.3 / (UNIT_M * WAY)
    assert math.hypot(straight[1], lever) == pytest.approx(curved[1], rel=0.05)
    assert measured(driven(way=0.05, turn_rad=0.3), 0.5) is None


def test_one_slip_in_the_window_does_no_harm() -> None:
    keyframes = driven()
    readings = readings_of(keyframes)
    readings[6:] -= 0.9 * UNIT_M * WAY
    answer = measured(told(keyframes, readings))
    assert answer is not None
    assert answer[0] == pytest.approx(math.log(UNIT_M))


def test_a_map_that_drifts_is_measured_all_the_same() -> None:
    keyframes = driven()
    growing = np.exp(0.05 * np.arange(len(keyframes)))
    answer = measured(told(keyframes, np.cumsum(UNIT_M * WAY * growing)))
    assert answer is not None
    assert answer[0] == pytest.approx(math.log(UNIT_M) + 0.55)


def test_wheels_that_disagree_with_themselves_measure_nothing() -> None:
    keyframes, answers = driven(16), []
    for seed in range(50):
        rolling = np.random.default_rng(seed).binomial(20, 0.7, 16) / 20.0  # of 20 samples each
        answers.append(measured(told(keyframes, np.cumsum(UNIT_M * WAY * rolling))))
    assert np.mean([answer is not None for answer in answers]) < 0.6 * LEAST_ANSWERED


def test_healthy_wheels_are_hardly_ever_mistrusted_and_the_deviation_is_honest() -> None:
    rng, off, none = np.random.default_rng(0), [], 0
    for _ in range(500):
        keyframes = driven(FEWEST_COMPARED + 8)
        late_m = rng.normal(0.0, TIMING_STD_S / math.sqrt(2.0), len(keyframes))
        late_m *= UNIT_M * WAY / PERIOD_S
        ways = UNIT_M * WAY * rng.normal(1.0, WHEEL_STD, len(keyframes))
        answer = measured(told(keyframes, np.cumsum(ways) + late_m), 0.1)
        if answer is None:
            none += 1
            continue
        off.append((answer[0] - math.log(UNIT_M)) / answer[1])
    assert none <= 20
    assert 0.8 < np.std(off) < 1.2
