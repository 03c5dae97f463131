"""The comparison of a network's files runs, on few frames; no figure of time is asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from vo_stream.demo.world import render_demo
from vo_stream.net.sidecar import RELEASED, RELEASED_INT8
from vo_stream.replay.writers import write_folder

TOOL = Path(__file__).resolve().parents[1] / "tools" / "compare_precisions.py"
FRAMES = 8
RATE_HZ = 20.0
BOTH = ("--net", RELEASED, "--net", RELEASED_INT8)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "room"
    write_folder(path, render_demo("room", seconds=FRAMES / RATE_HZ, fps=RATE_HZ, size=(160, 128)))
    return path


def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), "--threads", "1", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def refused(*arguments: object) -> str:
    done = tool(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr.splitlines()[-1]


def test_both_precisions_see_the_same_frames_of_each_recording(room: Path) -> None:
    done = tool(room, room, *BOTH, "--frames", 6, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    names = [RELEASED.name, RELEASED_INT8.name]
    assert [row["net"] for row in rows] == names * 2
    assert {row["recording"] for row in rows} == {"room"}
    assert {row["frames"] for row in rows} == {6}
    for row in rows:
        assert 0.0 < row["p50_ms"] <= row["p95_ms"]
        assert row["path_m"] > 0.0
        assert all(math.isfinite(row[key]) for key in ("ate_m", "off_reference_m"))
    full, integer, again, _ = rows
    assert full["off_reference_m"] < 1e-9 < integer["off_reference_m"] < 0.1 * full["path_m"]
    assert again["ate_m"] == full["ate_m"], "a recording begins with a clean state"


def test_the_table_has_a_row_for_each_net(room: Path) -> None:
    done = tool(room, *BOTH)
    assert done.returncode == 0, done.stderr
    head, full, integer = done.stdout.splitlines()
    assert head.split()[:3] == ["recording", "net", "frames"]
    assert full.split()[:3] == ["room", RELEASED.name, str(FRAMES)]
    assert full.split()[5:8:2] == ["1.00", "+0.0%"]
    assert integer.split()[:2] == ["room", RELEASED_INT8.name]


def test_what_cannot_be_compared_is_said_in_one_line(room: Path, tmp_path: Path) -> None:
    assert "no such file or folder" in refused(tmp_path / "nowhere")
    assert "no such file" in refused(room, "--net", tmp_path / "x.onnx")
    assert "no such runtime; there are onnxruntime" in refused(room, "--net", f"{RELEASED}@tpu")
    assert "the same one twice" in refused(room, "--net", RELEASED, "--net", RELEASED)
    for few in ("-1", "0", "3"):
        assert "--frames must be more than" in refused(room, f"--frames={few}")
    assert "net.threads: 1000 is not" in refused(room, "--threads", "1000")


def test_a_recording_without_ground_truth_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare"
    write_folder(path, render_demo("room", seconds=0.3, fps=RATE_HZ, size=(160, 128)))
    (path / "groundtruth.tum").unlink()
    assert "has no ground truth" in refused(path)


def test_a_recording_that_is_too_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short"
    write_folder(path, render_demo("room", seconds=0.15, fps=RATE_HZ, size=(160, 128)))
    assert "no more than the 3 frames" in refused(path)


@pytest.mark.skipif(find_spec("openvino") is not None, reason="there is OpenVINO here")
def test_without_openvino_it_says_what_to_install(room: Path) -> None:
    assert "pip install openvino" in refused(room, "--net", f"{RELEASED}@openvino-f32")
