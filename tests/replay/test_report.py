"""The report is one whole, well-formed file whatever the run was like."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from vo_stream.config import Config
from vo_stream.link.channel import LinkStatus
from vo_stream.replay.metrics import evaluate
from vo_stream.replay.refined import Refined
from vo_stream.replay.report import render_report, write_report
from vo_stream.replay.report_figures import MAX_SPANS
from vo_stream.replay.result import (
    AdjusterWork,
    RunResult,
    comparable,
    conditions,
    elapsed_s,
    trajectory_of,
)
from vo_stream.replay.svg import MAX_POINTS
from vo_stream.replay.svg_path import MAX_DOTS, MAX_MARKS
from vo_stream.replay.trajectory import Trajectory, read_tum
from vo_stream.se3 import SE3, Array
from vo_stream.values import Estimate, Motion, Status

FRAME_NS = 50_000_000
FORWARD = SE3.exp([0.0, 0.0, 0.1, 0.0, 0.02, 0.0])
STD = np.full(6, 0.01)
KITTI = Path(__file__).parents[3] / "shared/data/kitti00_first200/groundtruth.tum"


def estimate(
    i: int,
    pose: SE3,
    status: Status = Status.TRACKING,
    motion: Motion | None = None,
    session: int = 0,
    reason: str = "",
) -> Estimate:
    return Estimate(i * FRAME_NS, status, pose, np.eye(6), True, motion, session, reason=reason)


def drive(n: int, step: SE3 = FORWARD) -> tuple[Estimate, ...]:
    pose, estimates = SE3.identity(), []
    for i in range(n):
        status = Status.TRACKING if i else Status.INITIALIZING
        estimates.append(estimate(i, pose, status, Motion(step, STD) if i else None))
        pose = pose @ step
    return tuple(estimates)


def run(estimates: tuple[Estimate, ...], truth: Trajectory | None = None) -> RunResult:
    path, stds = trajectory_of(estimates)
    enough = truth is not None and len(path) >= 3
    rng = np.random.default_rng(0)
    return RunResult(
        name="a run",
        kind="folder",
        backend="geometric",
        metric=True,
        estimates=estimates,
        latencies_ms={k: rng.gamma(9.0, 1.0, len(estimates)) for k in ("rectify", "net", "step")},
        groundtruth=truth,
        unjudged="" if enough else "no ground truth to compare with",
        metrics=evaluate(path, truth, stds=stds).as_dict() if enough and truth else None,
        skipped={"no calibration yet": 2},
        seconds=1.5,
        cpu_seconds=2.5,
        config=Config().as_dict(),
    )


def parsed(page: str) -> ET.Element:
    """Parse the page, and check what holds of every report."""
    root = ET.fromstring(page.removeprefix("<!DOCTYPE html>"))
    for element in root.iter():
        assert element.tag not in {"script", "link", "img", "iframe", "object"}
        assert not {"src", "href", "style"} & set(element.attrib)
    assert "http" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert not re.search(r"\b(nan|inf|None)\b", page)
    return root


def test_a_run_with_ground_truth() -> None:
    estimates = drive(200)
    truth, _ = trajectory_of(drive(200, SE3.exp([0.0, 0.0, 0.11, 0.0, 0.021, 0.0])))
    page = render_report(run(estimates, truth))
    root = parsed(page)
    assert len(root.findall(".//svg")) == 5
    text = " ".join(root.itertext())
    for said in ("ATE RMSE", "SE(3)", "ground truth", "NEES", "p99", "no calibration yet", "step"):
        assert said in text
    assert "geometric.epipolar_px" in text


def test_what_is_not_metric_is_laid_over_with_sim3() -> None:
    estimates = drive(100)
    truth, _ = trajectory_of(estimates)
    page = render_report(dataclasses.replace(run(estimates, truth), metric=False))
    assert "live, aligned with Sim(3)" in " ".join(parsed(page).itertext())


def with_refined(result: RunResult, landmarks: Array, metric: bool = True) -> RunResult:
    """Return the run as if the adjuster had confirmed every fifth frame."""
    path, _ = trajectory_of(result.estimates)
    keyframes = Trajectory(path.stamps_ns[::5], path.world_from_camera[::5])
    truth = result.groundtruth
    return dataclasses.replace(
        result,
        adjuster=AdjusterWork(LinkStatus(True, "inline", sent=9), 7, {"too <few>": 2}),
        refined={0: Refined(path, keyframes, landmarks.astype(np.float32), metric)},
        refined_metrics=evaluate(path, truth).as_dict() if truth else None,
    )


def test_live_and_refined_stand_side_by_side() -> None:
    estimates = drive(200)
    truth, _ = trajectory_of(drive(200, SE3.exp([0.0, 0.0, 0.11, 0.0, 0.021, 0.0])))
    landmarks = np.random.default_rng(0).normal(0.0, 9.0, (500, 3))
    result = with_refined(run(estimates, truth), landmarks)
    root = parsed(render_report(result))
    text = " ".join(root.itertext())
    for said in (
        "live, aligned with SE(3)", "refined, aligned with SE(3)", "keyframes", "landmarks",
        "live, largest", "refined, largest", "not solved: too <few>", "frames sent",
    ):  # fmt: skip
        assert said in text
    heads = [[cell.text for cell in row.iter("th")] for row in root.iter("thead")]
    assert ["ATE RMSE (m)", "live", "refined"] in heads
    assert len(root.findall(".//polyline[@class='line c-refined']")) == 3
    mixed = dataclasses.replace(result, metric=False)
    text = " ".join(parsed(render_report(mixed)).itertext())
    assert "live, aligned with Sim(3)" in text
    assert "refined, aligned with SE(3)" in text
    assert "live after Sim(3), refined after SE(3) alignment" in text


def test_refined_without_ground_truth() -> None:
    result = with_refined(run(drive(50)), np.ones((9, 3)))
    text = " ".join(parsed(render_report(result)).itertext())
    assert "live" in text
    assert "refined" in text
    other_unit = with_refined(run(drive(50)), np.ones((9, 3)), metric=False)
    root = parsed(render_report(other_unit))
    assert "is left out" in " ".join(root.itertext())
    assert not root.findall(".//polyline[@class='line c-est']")


def test_landmarks_are_few_and_do_not_squeeze_the_path() -> None:
    rng = np.random.default_rng(0)
    near, far = rng.uniform(-3.0, 3.0, (15_000, 3)), rng.normal(0.0, 1e6, (500, 3))
    landmarks = np.concatenate([near, far, np.full((1, 3), 3e38)])
    bare = run(drive(200))
    page = render_report(with_refined(bare, landmarks))
    root = parsed(page)
    assert len(page) < 150_000
    clouds = {
        e.attrib["class"]: e.attrib["d"] for e in root.iter("path") if "dots" in e.attrib["class"]
    }
    assert 1000 < clouds["dots c-landmark"].count("M") <= MAX_DOTS
    assert 10 < clouds["dots c-keyframe"].count("M") <= MAX_MARKS

    def width(root: ET.Element, line: str) -> float:
        (path,) = root.findall(f".//polyline[@class='line {line}']")
        xs = [float(p.split(",")[0]) for p in path.attrib["points"].split()]
        return max(xs) - min(xs)

    alone = width(parsed(render_report(bare)), "c-est")
    assert width(root, "c-refined") > 0.5 * alone


def test_axes_are_those_of_the_largest_extent() -> None:
    z_up = SE3.exp([0.0, 0.0, 0.0, 1.2, 0.0, 0.0])
    path, _ = trajectory_of(drive(60))
    steps = [p.translation for p in path.world_from_camera]
    flat = [SE3.from_rotation_translation(z_up.rotation, [x, 2.0 * z, 0.0]) for x, _, z in steps]
    page = render_report(run(drive(60), Trajectory(path.stamps_ns, tuple(flat))))
    text = " ".join(parsed(page).itertext())
    assert "x (m)" in text
    assert "y (m)" in text
    assert "z (m)" not in text


STANDING = drive(20, SE3.identity())


@pytest.mark.parametrize("with_truth", [False, True])
@pytest.mark.parametrize("estimates", [(), drive(1), drive(2), drive(3), STANDING])
def test_small_and_still_runs(estimates: tuple[Estimate, ...], with_truth: bool) -> None:
    truth, _ = trajectory_of(estimates)
    parsed(render_report(run(estimates, truth if with_truth else None)))


def test_nothing_measured_at_all() -> None:
    bare = dataclasses.replace(run(()), latencies_ms={}, skipped={}, seconds=0.0, config={})
    parsed(render_report(bare))
    broken = dataclasses.replace(run(drive(5)), latencies_ms={"net": np.full(5, np.nan)})
    parsed(render_report(broken))


def test_ground_truth_of_another_time_is_said() -> None:
    truth, _ = trajectory_of(drive(10))
    late = Trajectory(truth.stamps_ns + 10**12, truth.world_from_camera)
    page = render_report(dataclasses.replace(run(drive(10)), groundtruth=late))
    assert "only 0 of 10 estimated poses have ground truth" in " ".join(parsed(page).itertext())


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "Küche & Flur 厨房", "a\"b'c", "bell\x07\x00", "bad\udcff"],
)
def test_every_text_is_escaped(name: str, tmp_path: Path) -> None:
    estimates = (*drive(3), estimate(3, SE3.identity(), Status.LOST, None, 0, name))
    result = run(estimates)
    odd = dataclasses.replace(
        result,
        name=name,
        kind=name,
        backend=name,
        skipped={name: 1},
        latencies_ms={name: np.ones(4)},
        config={"a": {name: name}},
    )
    path = tmp_path / "report.html"
    write_report(path, odd)
    root = parsed(path.read_text(encoding="utf-8"))
    title = root.findtext(".//h1") or ""
    assert title == re.sub(r"[\x00-\x1f\ud800-\udfff]", "\ufffd", name)


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bericht über.html"
    write_report(path, run(drive(4)))
    before = path.read_text(encoding="utf-8")

    def broken_replace(self: Path, target: Path) -> Path:
        raise OSError("the disk went away")

    monkeypatch.setattr(Path, "replace", broken_replace)
    with pytest.raises(OSError, match="went away"):
        write_report(path, run(drive(9)))
    assert path.read_text(encoding="utf-8") == before
    assert list(tmp_path.iterdir()) == [path]


def test_long_runs_make_small_reports() -> None:
    n = 100_000
    motion = Motion(FORWARD, STD)
    angle: Array = 1e-3 * np.arange(n, dtype=np.float64)
    poses = [SE3(np.array([1.0, 0, 0, 0, np.sin(a), 0, a])) for a in angle]
    kinds = [Status.TRACKING, Status.DEGRADED]
    estimates = tuple(
        estimate(i, poses[i], kinds[i % 7 == 0], motion, reason="dark") for i in range(n)
    )
    result = dataclasses.replace(run(()), estimates=estimates, latencies_ms={"step": angle})
    page = render_report(dataclasses.replace(result, groundtruth=trajectory_of(estimates)[0]))
    assert len(page) < 400_000
    root = parsed(page)
    for line in root.iter("polyline"):
        assert len(line.attrib["points"].split()) <= MAX_POINTS
    assert len(list(root.iter("rect"))) <= MAX_SPANS + 100


# what the report is made from


def test_conditions_of_frames() -> None:
    pose = SE3.identity()
    moved, still = Motion(FORWARD, STD), Motion(SE3.identity(), STD)
    frames = [
        estimate(0, pose, Status.INITIALIZING),
        estimate(1, pose, Status.TRACKING, moved),
        estimate(2, pose, Status.TRACKING, still),
        dataclasses.replace(estimate(3, pose, Status.TRACKING), refused=True),
        estimate(4, pose, Status.DEGRADED, moved),
        estimate(5, pose, Status.LOST, None),
    ]
    assert list(conditions(frames)) == [
        "initializing", "tracking", "standing", "refused", "degraded", "lost",
    ]  # fmt: skip
    assert comparable(frames).tolist() == [0, 1, 2, 4, 5]


def test_only_one_session_is_compared() -> None:
    pose, moved = SE3.identity(), Motion(FORWARD, STD)
    frames = [
        estimate(0, pose, Status.INITIALIZING),
        estimate(1, pose, motion=moved),
        estimate(0, pose, Status.INITIALIZING, session=1),
        estimate(1, pose, motion=moved, session=1),
        estimate(1, pose, motion=moved, session=1),
        estimate(2, pose, motion=moved, session=1),
    ]
    assert comparable(frames).tolist() == [2, 3, 5]
    path, stds = trajectory_of(frames)
    assert path.stamps_ns.tolist() == [0, FRAME_NS, 2 * FRAME_NS]
    assert np.isnan(stds[0]).all()
    np.testing.assert_array_equal(stds[1:], np.tile(STD, (2, 1)))
    np.testing.assert_allclose(elapsed_s(frames), [0.0, 0.05, 0.05, 0.1, 0.1, 0.15])


def test_elapsed_time_never_goes_back() -> None:
    frames = [estimate(i, SE3.identity()) for i in (0, 2, 1, 3)]
    np.testing.assert_allclose(elapsed_s(frames), [0.0, 0.1, 0.1, 0.15])


def test_a_recorded_path() -> None:
    if not KITTI.exists():
        pytest.skip("the recorded sequences are not beside this checkout")
    truth = read_tum(KITTI)
    estimates = tuple(
        Estimate(s, Status.TRACKING, p, np.eye(6), True, Motion(FORWARD, STD), 0)
        for s, p in zip(truth.stamps_ns.tolist(), truth.world_from_camera, strict=True)
    )
    result = run(estimates, truth)
    assert result.metrics is not None
    assert result.metrics["kitti_lengths_m"] == [10.0, 20.0, 30.0, 40.0, 50.0]
    parsed(render_report(result))


def test_the_latency_table_holds_numbers() -> None:
    page = render_report(run(drive(40)))
    table = page[page.index("Latency by stage") :]
    row = re.search(r'<tr><th scope="row">step</th>(.*?)</tr>', table)
    assert row is not None
    cells = re.findall(r"<td>(.*?)</td>", row.group(1))
    assert len(cells) == 4
    assert all(float(cell) > 0.0 for cell in cells)
