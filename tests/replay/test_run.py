"""A replay as a whole: what comes back, what is written, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from refinements import EchoLink

from vo_stream.adjust.adjuster import Adjuster
from vo_stream.config import Config
from vo_stream.demo.world import render_demo
from vo_stream.errors import SourceError
from vo_stream.link.channel import InlineLink, Link, NoLink
from vo_stream.net.geometric_net import GeometricNet
from vo_stream.replay.atomic import write_atomically
from vo_stream.replay.files import prepare_folder, summary, write_results
from vo_stream.replay.result import RunResult
from vo_stream.replay.run import replay
from vo_stream.replay.sources import Source
from vo_stream.replay.text import run_text
from vo_stream.replay.trajectory import Trajectory, read_tum
from vo_stream.track.odometer import Odometer
from vo_stream.values import Frame


@dataclass
class Footage:
    """A source of frames that are in memory."""

    recorded: list[Frame]
    groundtruth: Trajectory | None = None
    name: str = "footage"
    kind: str = "folder"
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.length: int | None = len(self.recorded)

    def frames(self) -> Iterator[Frame]:
        yield from self.recorded

    def close(self) -> None:
        pass

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def footage() -> Footage:
    posed = list(render_demo("room", seconds=1.0, size=(320, 240)))
    stamps = np.array([f.stamp_ns for f, _ in posed])
    return Footage([f for f, _ in posed], Trajectory(stamps, tuple(p for _, p in posed)))


def run(footage: Footage, limit: int | None = None, link: Link | None = None) -> RunResult:
    config = Config()
    net = GeometricNet(config.geometric)
    odometer = Odometer(net, config.track, config.scale)
    return replay(footage, odometer, net.spec, config, link or NoLink(), limit)


def test_every_frame_is_answered_and_timed(footage: Footage) -> None:
    result = run(footage)
    assert len(result.estimates) == len(footage.recorded)
    assert [e.stamp_ns for e in result.estimates] == [f.stamp_ns for f in footage.recorded]
    assert {len(ms) for ms in result.latencies_ms.values()} == {footage.length}
    figures = summary(result)
    assert figures["frames"] == footage.length
    assert figures["refused"] == {}
    assert json.loads(json.dumps(figures, allow_nan=False))["metrics"]["matched"] == 20


def test_limit(footage: Footage) -> None:
    assert len(run(footage, 5).estimates) == 5


def test_what_is_not_metric_is_shown_scaled_only(footage: Footage) -> None:
    text = run_text(run(footage))
    assert "not metric" in text
    assert "se3" not in text
    assert "raw" not in text


def test_too_short_for_ground_truth_is_said(footage: Footage) -> None:
    result = run(footage, 2)
    assert result.metrics is None
    assert "only 2 of 2" in result.unjudged
    assert "only 2 of 2" in run_text(result)
    assert "no ground truth" in run(replace(footage, groundtruth=None)).unjudged


def test_a_calibration_of_another_size_is_an_error(footage: Footage) -> None:
    wrong = replace(footage.recorded[0].camera, width=640, height=480)
    frames = [Frame(f.stamp_ns, f.image, wrong) for f in footage.recorded]
    with pytest.raises(SourceError, match=r"every frame was refused.*320x240.*640x480"):
        run(replace(footage, recorded=frames))


def test_no_usable_frame_is_an_error() -> None:
    empty = Footage([], skipped=Counter({"truncated image": 3}))
    with pytest.raises(SourceError, match=r"no frame could be used .3 x truncated image"):
        run(empty)


def test_repeated_and_late_stamps_are_counted_by_reason(footage: Footage) -> None:
    frames = footage.recorded
    shuffled = [*frames[:10], frames[9], *frames[7:9], *frames[10:]]
    refused = summary(run(replace(footage, recorded=shuffled)))["refused"]
    assert refused == {
        "the stamp is the previous one's": 1,
        "the stamp is older than the previous one's": 2,
    }


def test_each_session_has_its_file_and_old_ones_go(footage: Footage, tmp_path: Path) -> None:
    long_footage = replace(
        footage,
        recorded=[
            Frame(f.stamp_ns + i * 2_000_000_000, f.image, f.camera)
            for i in range(2)
            for f in footage.recorded
        ],
    )
    twice = replace(footage, recorded=long_footage.recorded + footage.recorded)
    result = run(twice)
    assert summary(result)["sessions"] == 2
    write_results(tmp_path, result)
    assert len(read_tum(tmp_path / "live.tum")) == 40
    assert len(read_tum(tmp_path / "live.session2.tum")) == 20
    write_results(tmp_path, run(footage))
    assert len(read_tum(tmp_path / "live.tum")) == 20
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "live.tum",
        "report.html",
        "summary.json",
    ]
    assert (tmp_path / "live.tum").read_text().startswith("# timestamp")
    assert "metric: False" in (tmp_path / "live.tum").read_text().splitlines()[0]


def test_without_an_adjuster_there_is_no_word_of_one(footage: Footage, tmp_path: Path) -> None:
    result = run(footage)
    assert result.adjuster is None
    assert result.judged_refined is None
    figures = summary(result)
    assert (figures["adjuster"], figures["refined"], figures["keyframes"]) == (None, None, 0)
    assert "adjuster" not in run_text(result)
    (tmp_path / "refined.tum").write_text("of an earlier run")
    (tmp_path / "refined.session4.tum").write_text("of an earlier run")
    (tmp_path / "refined.txt").write_text("mine")
    write_results(tmp_path, result)
    assert [p.name for p in tmp_path.glob("refined*")] == ["refined.txt"]


def test_every_frame_goes_to_the_adjuster_and_the_link_is_closed(footage: Footage) -> None:
    link = EchoLink()
    result = run(footage, link=link)
    assert [w for w in link.said if w != "poll"] == [
        *["send"] * len(footage.recorded), "finish", "close", "status",
    ]  # fmt: skip
    assert result.adjuster is not None
    assert result.adjuster.refinements == 10
    assert len(result.latencies_ms["adjust"]) == footage.length
    refined = result.judged_refined
    assert refined is not None
    assert len(refined.keyframes) == 10
    assert refined.trajectory.stamps_ns.tolist() == [f.stamp_ns for f in footage.recorded]
    figures = json.loads(json.dumps(summary(result), allow_nan=False))
    assert figures["adjuster"] == {
        "sent": 20, "dropped": 1, "faults": 0, "restarts": 2, "refinements": 10,
        "unsolved": {},
    }  # fmt: skip
    assert figures["keyframes"] == 10
    assert set(figures["refined"]) == set(figures["metrics"])
    assert figures["refined"]["ate_rmse_m"]["sim3"] < 0.05


def test_the_link_is_closed_when_the_replay_fails() -> None:
    link = EchoLink()
    with pytest.raises(SourceError, match="no frame could be used"):
        run(Footage([]), link=link)
    assert link.said.count("close") == 1


def test_a_scale_found_on_the_way(footage: Footage, tmp_path: Path) -> None:
    """The map is in metres, the live estimates from the first refinement on."""
    link = EchoLink(scale=0.25, metric=True)
    result = run(footage, link=link)
    (first,) = {
        e.metric: i for i, e in reversed([*enumerate(result.estimates)]) if e.metric
    }.values()
    assert result.metric
    assert result.metric_since == f"metres from frame {first} on"
    assert result.judged_refined is not None
    assert result.judged_refined.metric
    text = run_text(result)
    assert f"(metric; metres from frame {first} on)" in text
    assert "refined" in text
    write_results(tmp_path, result)
    live = (tmp_path / "live.tum").read_text().splitlines()[0]
    assert live.endswith(f"odom_from_camera; metric: True (metres from frame {first} on)")
    refined = (tmp_path / "refined.tum").read_text().splitlines()[0]
    assert refined == "# timestamp tx ty tz qx qy qz qw, map_from_camera; metric: True"
    assert len(read_tum(tmp_path / "refined.tum")) == len(footage.recorded)
    report = (tmp_path / "report.html").read_text()
    assert f"metres from frame {first} on" in report
    late = replace(
        result,
        estimates=tuple(replace(e, metric=i > 15) for i, e in enumerate(result.estimates)),
        metric=False,
    )
    assert "(not metric; metres from frame 16 on)" in run_text(late)
    assert "live, scaled" in run_text(late)


def test_each_session_is_refined_in_a_file_of_its_own(footage: Footage, tmp_path: Path) -> None:
    later = [Frame(f.stamp_ns + 2_000_000_000, f.image, f.camera) for f in footage.recorded]
    twice = replace(footage, recorded=[*later, *footage.recorded[:7]])
    result = run(twice, link=EchoLink())
    assert list(result.refined) == [1, 2]
    write_results(tmp_path, result)
    assert len(read_tum(tmp_path / "refined.tum")) == 20
    assert len(read_tum(tmp_path / "refined.session2.tum")) == 7
    assert len(read_tum(tmp_path / "live.session2.tum")) == 7


def test_the_real_adjuster(footage: Footage) -> None:
    result = run(footage, link=InlineLink(Adjuster(Config())))
    refined = result.judged_refined
    assert refined is not None
    assert len(refined.keyframes) >= 3
    assert len(refined.landmarks) > 30
    assert result.refined_metrics is not None
    errors = result.refined_metrics["ate_rmse_m"]
    assert isinstance(errors, dict)
    assert errors["sim3"] < 0.03


def test_unwritable_folders(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(SourceError, match="cannot be written"):
        prepare_folder(file)
    with pytest.raises(SourceError, match="cannot be written"):
        prepare_folder(file / "below")
    assert file.read_text() == "mine"


def test_atomic_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="there"):
        write_atomically(tmp_path / "there", "text")
    write_atomically(tmp_path / "new", "text")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "there"]
