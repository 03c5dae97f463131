"""Calibration: what the temperatures are of errors that are known, and where they end up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from training_cases import rendered

from vo_stream.errors import VoStreamError
from vo_stream.net.model import OdometryNet
from vo_stream.net.torch_net import load_network, rates_of
from vo_stream.pose_error import INDEPENDENT, Correlation
from vo_stream.se3 import SE3, Array
from vo_stream.training.calibrate import (
    Stream,
    chi2_band,
    correlation_of,
    fold,
    halves,
    increments,
    nees,
    rates,
    streams,
    temperatures,
)
from vo_stream.training.data import steps_of

ROOT = Path(__file__).parent.parent.parent
STD = np.array([0.02, 0.01, 0.03, 0.002, 0.001, 0.004])
FACTORS = np.array([2.0, 0.5, 1.0, 5.0, 0.1, 1.5])
STEP = SE3.exp([0.1, -0.05, 0.5, 0.01, -0.05, 0.02])
RATE_HZ = 10.0


def made_up(
    clips: int, steps: int, factors: Array, lost: float = 0.0, seed: int = 0
) -> list[Stream]:
    """Return streams whose errors are so many times what they are said to be; `lost`: a share of
    the steps whose errors are a hundred times larger still."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(clips):
        std = STD * random.uniform(0.3, 1.0, (steps, 1))
        errors = factors * std * random.standard_normal((steps, 6))
        errors *= np.where(random.random((steps, 1)) < lost, 100.0, 1.0)
        true = [STEP @ SE3.exp(error) for error in errors]
        found.append(Stream([STEP] * steps, true, std, np.arange(steps + 1) / RATE_HZ))
    return found


def test_the_temperature_is_how_far_off_the_std_was() -> None:
    found = temperatures(made_up(40, 25, FACTORS))
    np.testing.assert_allclose(found, FACTORS, rtol=0.08)


def test_steps_that_are_lost_hardly_count() -> None:
    few = temperatures(made_up(40, 25, FACTORS, lost=0.01))
    np.testing.assert_allclose(few, FACTORS, rtol=0.2)
    assert (few > temperatures(made_up(40, 25, FACTORS))).all()


def test_nothing_to_calibrate_on_is_told() -> None:
    with pytest.raises(VoStreamError, match="no clips"):
        temperatures([])
    with pytest.raises(VoStreamError, match="not finite"):
        temperatures(made_up(1, 3, FACTORS * np.nan))


@pytest.mark.parametrize("window_s", [0.0, 1.0])
def test_honest_deviations_have_a_nees_of_one(window_s: float) -> None:
    found = made_up(100, 20, FACTORS, seed=1)
    after = nees(found, window_s, FACTORS)
    before = nees(found, window_s)
    assert after is not None
    assert before is not None
    assert (after.clips, after.increments) == (100, 2000 if window_s == 0.0 else 200)
    assert after.all == pytest.approx(1.0, abs=0.05 if window_s == 0.0 else 0.1)
    assert after.all_band[0] < after.all < after.all_band[1]
    assert after.inside == pytest.approx(0.95, abs=0.015 if window_s == 0.0 else 0.04)
    for axis, value in after.axes.items():
        assert after.axes_band[0] < value < after.axes_band[1], axis
        assert after.axes_inside[axis] == pytest.approx(0.95, abs=0.04), axis
    assert before.all > before.all_band[1]
    assert before.inside < 0.7


def lasting(clips: int, steps: int, alike: Correlation, seed: int = 0) -> list[Stream]:
    """Return streams whose errors are as large as said and as alike."""
    random = np.random.default_rng(seed)
    share, fading = np.array(alike.share), np.exp(-1.0 / RATE_HZ / np.array(alike.time_s))
    found = []
    for _ in range(clips):
        process, true = random.standard_normal(6), []
        for _ in range(steps):
            process = fading * process + np.sqrt(1.0 - fading**2) * random.standard_normal(6)
            white = np.sqrt(1.0 - share) * random.standard_normal(6)
            true.append(STEP @ SE3.exp(STD * (np.sqrt(share) * process + white)))
        std = np.broadcast_to(STD, (steps, 6))
        found.append(Stream([STEP] * steps, true, std, np.arange(steps + 1) / RATE_HZ))
    return found


def test_how_alike_errors_are_is_found() -> None:
    alike = Correlation((0.9, 0.8, 0.6, 0.5, 0.9, 0.7), (2.0, 0.5, 5.0, 1.0, 0.3, 1.0))
    found = correlation_of(lasting(150, 60, alike), np.ones(6))
    np.testing.assert_allclose(found.share, alike.share, atol=0.12)
    np.testing.assert_allclose(found.time_s, alike.time_s, rtol=0.4)
    judged = lasting(150, 60, alike, seed=1)
    for window_s in (0.0, 1.0, 3.0):
        known = nees(judged, window_s, 1.0, found)
        assert known is not None
        assert known.all == pytest.approx(1.0, abs=0.1)
    taken_for_independent = nees(judged, 1.0)
    assert taken_for_independent is not None
    assert taken_for_independent.all > 3.0


def test_independent_errors_are_found_to_be() -> None:
    found = correlation_of(made_up(60, 30, np.ones(6)), np.ones(6))
    lasts = np.array(found.share) * np.exp(-1.0 / RATE_HZ / np.array(found.time_s))
    assert (lasts < 0.1).all()
    assert correlation_of(made_up(3, 1, np.ones(6)), np.ones(6)) is INDEPENDENT


def test_covariances_are_carried_on_as_the_odometer_does() -> None:
    (stream,) = made_up(1, 25, np.ones(6))
    first, second = increments(stream, 1.0)
    pose, covariance = SE3.identity(), np.zeros((6, 6))
    for std in stream.std[:10]:
        pose = pose @ STEP
        covariance = STEP.inverse().transport(covariance) + np.diag(std**2)
    np.testing.assert_allclose(first[1], covariance)
    true = stream.true[0]
    for step in stream.true[1:10]:
        true = true @ step
    np.testing.assert_allclose(first[0], (pose.inverse() @ true).log())
    assert not np.allclose(second[1], first[1])
    double = increments(stream, 1.0, 2.0)[0][1]
    np.testing.assert_allclose(double, 4.0 * covariance)
    assert nees([stream], 60.0) is None


@pytest.mark.parametrize(
    ("freedom", "low", "high"),
    [(6, 1.237, 14.449), (10, 3.247, 20.483), (100, 74.222, 129.561)],
)
def test_the_band_is_that_of_chi_square(freedom: int, low: float, high: float) -> None:
    found = chi2_band(freedom)
    assert found == pytest.approx((low / freedom, high / freedom), rel=0.03)


def test_folded_it_says_other_deviations_and_nothing_else() -> None:
    torch.manual_seed(0)
    net = OdometryNet()
    torch.nn.init.normal_(net.judge.verdict.weight, std=0.1)
    clip = rendered().frames(slice(0, 3))
    (before, *_) = streams(net, [clip])
    fold(net, FACTORS)
    (after, *_) = streams(net, [clip])
    np.testing.assert_allclose(after.std, FACTORS * before.std, rtol=1e-4)
    for one, other in zip(before.estimated, after.estimated, strict=True):
        np.testing.assert_array_equal(one.wxyz_xyz, other.wxyz_xyz)


def test_streams_know_the_truth_of_their_clip() -> None:
    clip = rendered().frames(slice(0, 3))
    found = streams(OdometryNet(), [clip])
    assert len(found) == 3
    for i, stream in enumerate(found):
        assert stream.std.shape == (2, 6)
        np.testing.assert_array_equal(stream.stamps, clip.stamps[i].numpy())
        for true, step in zip(stream.true, list(steps_of(clip))[1:], strict=True):
            np.testing.assert_allclose(true.rotation, step.truth.rotation[i], atol=1e-5)
            np.testing.assert_allclose(true.translation, step.truth.translation[i])


def test_no_world_is_on_both_sides() -> None:
    clip = rendered()
    even, odd = halves([clip, clip, clip.select(slice(0, 1))])
    assert [len(c.images) for c in even] == [2, 2, 1]
    assert [len(c.images) for c in odd] == [1, 1]
    assert torch.equal(even[0].images, clip.images[::2])
    assert torch.equal(odd[0].images, clip.images[1:2])


def test_the_rates_are_those_of_the_slowest_and_the_fastest_clip() -> None:
    stamps = np.arange(5) / np.array([[8.0], [25.0], [12.0]])
    assert rates([stamps[:2], stamps[2:]]) == (8.0, 25.0)


def test_the_tool_writes_weights_that_tell_of_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = OdometryNet("gru")
    weights, out = tmp_path / "weights.safetensors", tmp_path / "out.safetensors"
    about = '{"settings": {"core": "gru"}, "figures": {"score": 1.0}}'
    save_file(net.state_dict(), weights, metadata={"vo_stream": about})
    worlds = tmp_path / "worlds"
    worlds.mkdir()
    rendered().frames(slice(0, 4)).save(worlds / "held_out_128x96.npz")

    def calibrated(source: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "tools" / "calibrate.py"), str(source)]
        command += ["--worlds", str(worlds), "--out", str(out)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    done = calibrated(weights)
    assert done.returncode == 0, done.stderr
    assert "temperature" in done.stdout
    found, header = load_network(out)
    assert header["figures"] == {"score": 1.0}
    assert header["calibration"]["clips"] == [2, 1]
    assert header["calibration"]["nees"]["second"] == {"before": None, "after": None}
    temperature = torch.tensor([*header["calibration"]["temperature"].values()])
    torch.testing.assert_close(found.judge.verdict.bias[-6:].exp(), temperature)
    low, high = rates_of(header) or (0.0, 0.0)
    assert 7.0 < low <= high < 32.0
    again = calibrated(out)
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith(f"{out}: calibrated already")
