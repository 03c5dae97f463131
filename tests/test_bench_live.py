"""The measurement of the live loop runs, on a short recording; no figure of time is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vo_stream.demo.world import render_demo
from vo_stream.replay.writers import write_folder

TOOL = Path(__file__).resolve().parents[1] / "tools" / "bench_live.py"
FRAMES = 30


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "room"
    write_folder(folder, render_demo("room", seconds=FRAMES / 20, fps=20.0, size=(320, 240)))
    return folder


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, TOOL, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_both_ways_are_timed_and_every_frame_accounted_for(recording: Path) -> None:
    done = bench(recording, "--rounds", "2", "--rate", "50", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["ways"]) == {"odometer alone", "with adjuster"}
    for way in result["ways"].values():
        times = way["ms"]
        assert 0.0 < times["p50"] <= times["p95"] <= times["p99"] <= times["max"]
    assert result["frames"] == FRAMES
    assert result["sent"] == 2 * FRAMES
    assert result["dropped"] < result["sent"]
    assert result["refinements"] > 0
    assert len(result["p99_ratio_of_rounds"]) == 2


def test_the_table_shows_what_matters(recording: Path) -> None:
    done = bench(recording, "--rounds", "1", "--rate", "50", "--limit", "12")
    assert done.returncode == 0, done.stderr
    for what in ("p99", "odometer alone", "with adjuster", "refinements", "dropped"):
        assert what in done.stdout


def test_what_is_no_recording_is_said_in_one_line(tmp_path: Path) -> None:
    done = bench(tmp_path / "nowhere")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
