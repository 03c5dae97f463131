"""The benchmark runs for real, on few frames; no figure of time is asserted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from vo_stream.cli import main
from vo_stream.config import Config
from vo_stream.demo.world import render_demo
from vo_stream.errors import NetError
from vo_stream.net.backends import BACKENDS
from vo_stream.replay.bench import (
    WORKER,
    Contender,
    Worker,
    contenders_of,
    machine,
    measure,
    recorded_clip,
)
from vo_stream.replay.bench_clip import Clip
from vo_stream.replay.bench_text import bench_text
from vo_stream.replay.writers import write_folder

FRAMES = 8
RATE_HZ = 20.0
SIZE = (160, 120)
PERCENTILES = ["p50", "p95", "p99", "max"]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "room"
    write_folder(path, render_demo("room", seconds=FRAMES / RATE_HZ, fps=RATE_HZ, size=SIZE))
    return path


@pytest.fixture(scope="module")
def clip(room: Path) -> Clip:
    return recorded_clip(room, Config())


def contender(name: str, *command: str, **settings: object) -> Contender:
    config = Config().replaced({"net.backend": name, "net.threads": 1, **settings})
    return Contender(name, config, command=command) if command else Contender(name, config)


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["bench", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("vo-stream: ")
    return line.removeprefix("vo-stream: ")


def check_latencies(figures: dict[str, Any]) -> None:
    """What is timed holds what was timed before it, so its percentiles are no smaller."""
    stages = [figures[stage] for stage in ("step_ms", "preprocess_step_ms", "odometer_ms")]
    for spread in stages:
        assert list(spread) == PERCENTILES
        values = list(spread.values())
        assert values[0] > 0.0
        assert values == sorted(values)
    for inner, outer in pairwise(stages):
        assert all(inner[p] <= outer[p] for p in PERCENTILES)


def test_json_holds_the_figures_of_the_named_backend(room: Path) -> None:
    command = [sys.executable, "-m", "vo_stream.cli", "bench", "--net", "geometric", "--json"]
    command += [
        "--footage",
        str(room),
        "--frames",
        "7",
        "--rate",
        "40",
        "--geometric.corners",
        "99",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    result = json.loads(done.stdout)
    assert result["clip"] == {"name": "room", "size": list(SIZE), "images": FRAMES}
    assert (result["frames"], result["rate_hz"], result["base"]) == (7, 40.0, "geometric")
    assert result["left_out"] == []
    assert result["machine"]["cpus"] >= 1
    (row,) = result["backends"]
    assert row["name"] == row["backend"] == "geometric"
    assert row["input_size"] == list(SIZE)
    assert set(row["versions"]) == {"python", "numpy", "cv2"}
    assert row["memory_peak_mb"] >= row["memory_before_mb"] > 10.0
    assert row["load_ms"] > 0.0
    assert row["first_frame_ms"] > 0.0
    assert row["speed_up"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    for way in ("warm", "paced"):
        check_latencies(row[way])
        assert sum(row[way]["statuses"].values()) == 7
        assert row[way]["statuses"].get("tracking", 0) > 0
        assert row[way]["cpu_ms_per_frame"] > 0.0
    assert row["warm"]["late"] == 0


def test_backends_are_compared_and_those_that_cannot_run_are_named(clip: Clip) -> None:
    missing = contender("onnxruntime", **{"net.model_file": "/nowhere/x.onnx"})
    nobody = Contender("nobody", missing.config)
    said: list[str] = []
    rounds: list[str] = []
    result = measure(
        [nobody, contender("geometric"), contender("onnxruntime")],
        clip,
        frames=5,
        rate_hz=100.0,
        rounds=2,
        say=said.append,
        beside=lambda: rounds.append(said[-1]),
    )
    assert [row["name"] for row in result["backends"]] == ["geometric", "onnxruntime"]
    assert result["left_out"] == [
        {"name": "nobody", "reason": "/nowhere/x.json: no such file"}
    ] or (
        result["left_out"][0]["name"] == "nobody"
        and "/nowhere/x" in result["left_out"][0]["reason"]
    )
    turns = [line for line in said if line.startswith("round")]
    assert turns == [
        "round 1 of 2: geometric",
        "round 1 of 2: onnxruntime",
        "round 2 of 2: onnxruntime",
        "round 2 of 2: geometric",
    ]
    assert rounds == ["round 1 of 2: onnxruntime", "round 2 of 2: geometric"]
    network = result["backends"][1]
    assert "onnxruntime" in network["versions"]
    assert network["speed_up"]["min"] <= network["speed_up"]["median"]
    assert network["speed_up"]["median"] <= network["speed_up"]["max"]
    text = bench_text(result)
    for what in (*PERCENTILES, "warm", "paced", "Odometer.step", "peak MB", "left out", "5 of 5"):
        assert what in text
    json.dumps(result, allow_nan=False)


def test_frames_come_no_faster_than_the_rate(clip: Clip) -> None:
    result = measure([contender("geometric")], clip, frames=4, rate_hz=20.0, rounds=1)
    (row,) = result["backends"]
    assert row["paced"]["frames_per_s"] <= 20.0 * 4 / 3
    hurried = measure([contender("geometric")], clip, frames=4, rate_hz=1e6, rounds=1)
    assert hurried["backends"][0]["paced"]["late"] == 4  # the first of them too


def test_all_backends_are_asked_where_none_is_named() -> None:
    assert [c.name for c in contenders_of(Config())] == list(BACKENDS)
    named = Config().replaced({"net.backend": "geometric"})
    assert [c.name for c in contenders_of(named)] == ["geometric"]


@pytest.mark.parametrize(
    "size", ["640", "640x", "x480", "640x480x3", "-640x480", "16x16", "9999x9"]
)
def test_a_bad_size_is_said_in_one_line(size: str) -> None:
    assert refused(f"--size={size}").startswith(f"size {size}: not WIDTHxHEIGHT of 64 to 4096")


def test_what_cannot_be_measured_is_said_in_one_line(room: Path, tmp_path: Path) -> None:
    assert "net.backend: 'nobody' is not one of" in refused("--net", "nobody")
    assert "leave out --size" in refused("--footage", room, "--size", "640x480")
    assert "no such file" in refused("--footage", tmp_path / "nowhere")
    assert "--frames" in refused("--frames", 0)
    assert "--rate" in refused("--rate", 0)
    file = ("--net", "onnxruntime", "--net.model_file", tmp_path / "x.onnx", "--footage", room)
    assert "no such file" in refused(*file)


def test_a_process_that_dies_is_told_by_its_end(clip: Clip) -> None:
    died = (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(NetError, match="geometric: its process ended, by SIGKILL"):
        measure([contender("geometric", *died)], clip, 2, 30.0)
    left = (sys.executable, "-c", "raise SystemExit(3)")
    with pytest.raises(NetError, match="exit code 3"):
        measure([contender("geometric", *left)], clip, 2, 30.0)
    with pytest.raises(NetError, match=r"geometric: .*SIGKILL; onnxruntime: .*exit code 3"):
        measure([contender("geometric", *died), contender("onnxruntime", *left)], clip, 2, 30.0)


def test_a_process_that_dies_in_the_middle_of_an_answer_is_told_by_its_end() -> None:
    died = (sys.executable, "-c", "import os; os.write(1, b'{\"a\": 1'); os.kill(os.getpid(), 9)")
    with (
        Worker(contender("geometric", *died)) as worker,
        pytest.raises(NetError, match="geometric: its process ended, by SIGKILL"),
    ):
        worker.ask("end")


def test_an_error_does_not_wait_for_the_others_work() -> None:
    busy = (sys.executable, "-c", "import signal; signal.pause()")
    worker = Worker(contender("geometric", *busy))
    worker.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert worker._process.returncode == -signal.SIGKILL


def test_a_process_whose_asker_is_gone_ends_without_a_word() -> None:
    process = subprocess.Popen(
        WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdout.close()
        config = contender("geometric").config.as_dict()
        ask = {"do": "open", "config": {**config, "net.backend": "nobody"}, "clip": "nowhere"}
        process.stdin.write(json.dumps(ask).encode() + b"\n")
        process.stdin.flush()
        assert process.wait(60.0) == 1
        assert process.stderr.read() == b""


def test_the_frames_are_on_the_disk_only_until_all_have_read_them(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left: list[list[Path]] = []

    def look() -> None:
        left.append(list(tmp_path.iterdir()))

    measure([contender("geometric")], clip, 1, 100.0, rounds=1, beside=look)
    assert left == [[]]


def test_what_a_library_prints_does_not_spoil_the_answers(clip: Clip) -> None:
    code = (
        "import os\n"
        "from vo_stream.net.backends import open_backend\n"
        "from vo_stream.replay.bench_worker import serve\n"
        "def noisy(config):\n"
        "    os.write(1, b'a banner\\n')\n"
        "    return open_backend(config)\n"
        "serve(noisy)\n"
    )
    noisy = contender("geometric", sys.executable, "-c", code)
    (row,) = measure([noisy], clip, 2, 100.0, rounds=1)["backends"]
    assert row["backend"] == "geometric"


def test_the_network_streams_alone_and_its_state_comes_back(clip: Clip, tmp_path: Path) -> None:
    clip.save(tmp_path / "clip.npz")
    steps = 2 * clip.period
    ends = []
    for name in ("first", "second"):
        with Worker(contender("onnxruntime")) as worker:
            config = contender("onnxruntime").config.as_dict()
            worker.ask("open", config=config, clip=str(tmp_path / "clip.npz"))
            file = tmp_path / f"{name}.npz"
            told = worker.ask("stream", steps=steps, samples=4, keep=5, state_file=str(file))
            ends.append((told["motions"], dict(np.load(file))))
    assert [look["step"] for look in told["memory"]] == [7, 14, 21, 28]
    assert all(look["resident_mb"] > 10.0 for look in told["memory"])
    assert list(told["step_ms"]) == PERCENTILES
    assert np.array(told["motions"][-1]["motion"]).shape == (4, 4)
    (motions, state), (again, same) = ends
    assert motions == again
    assert len(motions) == 5
    assert any(np.any(array != 0.0) for array in state.values())
    assert all(np.array_equal(same[name], array) for name, array in state.items())


def test_the_machine_says_what_it_is() -> None:
    about = machine()
    assert about["cpus"] >= 1
    assert about["architecture"]
    assert about["load_before"] >= 0.0
