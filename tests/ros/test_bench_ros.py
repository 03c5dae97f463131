"""The measurement of the node runs, briefly; no figure of time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vo_stream.demo.world import render_demo
from vo_stream.replay.writers import write_folder

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench_ros.py"
LIMIT_S = 200


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "room"
    write_folder(folder, render_demo("room", seconds=1.0, fps=30.0, size=(320, 240)))
    return folder


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, TOOL, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S)


def test_every_image_is_accounted_for(recording: Path) -> None:
    way = ["--only", "hd", "--transport", "large", "--reliability", "best-effort"]
    done = bench(*way, "--seconds", "2", "--no-adjust", "--images", recording, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (run,) = result["runs"]
    assert run["sent"] + run["before_first"] == 60
    assert 0 < run["received"] == run["sent"] - run["dropped"]
    latency = run["latency_ms"]
    assert 0.0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert run["cpu_percent"]["node"] > 0.0
    assert run["cpu_percent"]["adjuster"] == 0.0
    assert int(run["diagnostics"]["odometry messages"]) >= 0
    assert run["executor_busy_max_ms"] > 0.0
    (taking,) = result["taking"]
    assert 0 < taking["received"] <= taking["sent"] == 60
    assert 0.0 < taking["grey_ms"]["p50"] < taking["both_ms"]["p50"]


def test_cycles_show_what_the_node_holds_and_that_it_ends(recording: Path) -> None:
    done = bench("cycles", "2", "--images", recording, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["held"]) == ["start", "first cycle", "end", "active again"]
    for held in result["held"].values():
        assert held["rss_mb"] > 0.0
        assert held["threads"] > 0
        assert 0 <= held["sockets"] <= held["handles"]
    assert result["held"]["end"]["children"] == 0
    assert result["held"]["active again"]["children"] > 0
    assert result["exit_code"] == 0
    assert result["sigint_to_exit_s"] > 0.0


def test_what_is_no_recording_is_said_in_one_line(tmp_path: Path) -> None:
    done = bench("--images", tmp_path / "nowhere")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
