"""tools/train.py from the outside: what it leaves, what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from training_cases import rendered

from vo_stream.training.checkpoint import read_tensors
from vo_stream.training.clip_store import ClipFolder
from vo_stream.training.log import CsvLog

ROOT = Path(__file__).parent.parent.parent
TOOL = ROOT / "tools" / "train.py"
SMALL = [
    "--minutes",
    "9",
    "--stop-after",
    "0.001",
    "--size",
    "128x96",
    "--batch",
    "2",
    "--held-out",
    "1",
]
SMALL += ["--held-out-frames", "2", "--kinds", "room", "--no-render", "--small"]


def train(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), "--out", str(out), *SMALL, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_it_trains_resumes_and_refuses_to_begin_again(tmp_path: Path) -> None:
    clips = ClipFolder(tmp_path / "worlds", keep=3)
    for seed in range(3):
        clips.add(rendered().select(slice(seed, seed + 1)), seed)
    assert train(tmp_path).returncode == 0
    _, header = read_tensors(tmp_path / "last.safetensors")
    assert header["position"]["steps"] >= 1
    assert (tmp_path / "last.safetensors").stat().st_size < 16e6
    resumed = train(tmp_path, "--resume")
    assert f"at step {header['position']['steps']}" in resumed.stderr
    assert resumed.returncode == 0
    assert read_tensors(tmp_path / "last.safetensors")[1]["position"]["epochs"] == 2
    lines = (tmp_path / "validation.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0].isalpha() for line in lines] == [True, False, False]
    again = train(tmp_path)
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith(f"{tmp_path / 'last.safetensors'}: is there")


def test_no_step_is_made_from_weights_that_do_not_fit(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"12345678 is no header")
    refused = train(tmp_path, "--init", str(other))
    assert refused.returncode == 2
    assert "not a checkpoint" in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "last.safetensors").exists()


def test_a_log_that_goes_on_repeats_no_header(tmp_path: Path) -> None:
    for row in ({"steps": 1, "loss": 2.0}, {"steps": 2, "loss": 1.5}, {"steps": 3, "score": 1.0}):
        CsvLog(tmp_path / "log.csv").add(row)
    lines = (tmp_path / "log.csv").read_text(encoding="utf-8").splitlines()
    assert lines == ["steps,loss", "1,2", "2,1.5", "steps,score", "3,1"]
