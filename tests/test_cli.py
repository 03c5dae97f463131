"""The command as people use it: what it prints, what it writes, and how it says no."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import vo_stream
from vo_stream.cli import main
from vo_stream.config import ONLY_FOR_THE_NODE, settings
from vo_stream.demo.world import render_demo
from vo_stream.net.backends import BACKENDS
from vo_stream.replay.trajectory import read_tum
from vo_stream.replay.writers import write_folder

FRAMES = 10


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder recording of one second."""
    path = tmp_path_factory.mktemp("recordings") / "room"
    write_folder(path, render_demo("room", seconds=1.0, fps=FRAMES, size=(320, 240)))
    return path


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments: object) -> str:
    """Return the one line with which the command says no."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.strip()]
    line = lines[-1]
    assert line.startswith("vo-stream: ")
    assert [other for other in lines[:-1] if "frames/s" not in other and "it/s" not in other] == []
    return line.removeprefix("vo-stream: ")


def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vo_stream.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent,
    )


def test_replay_writes_its_files_and_tells_what_it_saw(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    result = run("replay", room, "--out", out)
    assert result.exit_code == 0
    files = ["live.tum", "refined.tum", "report.html", "summary.json"]
    assert sorted(p.name for p in out.iterdir()) == files
    assert f"room (folder): {FRAMES} frames, backend onnxruntime (metric)" in result.stdout
    assert result.stdout.splitlines()[-1] == f"report: {(out / 'report.html').resolve()}"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == FRAMES
    assert summary["statuses"]["tracking"] == FRAMES - 1
    assert summary["metrics"]["ate_rmse_m"]["sim3"] < 0.05
    trajectory = read_tum(out / "live.tum")
    truth = read_tum(room / "groundtruth.tum")
    assert trajectory.stamps_ns.tolist() == truth.stamps_ns.tolist()
    assert all(pose.is_finite for pose in trajectory.world_from_camera)
    assert (out / "report.html").read_text().lstrip().lower().startswith("<!doctype html>")


def test_json_is_one_document_and_nothing_else(room: Path, tmp_path: Path) -> None:
    answer = shell("replay", room, "--out", tmp_path, "--json")
    assert (answer.returncode, answer.stderr) == (0, "")
    printed: dict[str, Any] = json.loads(answer.stdout)
    assert len(answer.stdout.splitlines()) == 1
    assert printed == json.loads((tmp_path / "summary.json").read_text()) | {
        "peak_memory_mb": printed["peak_memory_mb"]
    }
    assert printed["vo_stream"] == vo_stream.__version__


def test_the_same_replay_gives_the_same_bytes(room: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert run("replay", room, "--out", tmp_path / name).exit_code == 0
    assert shell("replay", room, "--out", tmp_path / "third").returncode == 0
    for file in ("live.tum", "refined.tum"):
        first, second, third = (
            (tmp_path / name / file).read_bytes() for name in ("first", "second", "third")
        )
        assert first == second == third


def test_limit_takes_the_first_frames(room: Path, tmp_path: Path) -> None:
    run("replay", room, "--out", tmp_path / "all")
    run("replay", room, "--out", tmp_path / "some", "--limit", 4)
    everything, some = read_tum(tmp_path / "all/live.tum"), read_tum(tmp_path / "some/live.tum")
    assert len(some) == 4
    assert some.stamps_ns.tolist() == everything.stamps_ns[:4].tolist()
    assert run("replay", room, "--out", tmp_path / "one", "--limit", 1).exit_code == 0
    assert run("replay", room, "--out", tmp_path / "more", "--limit", 99).exit_code == 0
    assert run("replay", room, "--limit", 0).exit_code == 2


def test_without_the_adjuster(room: Path, tmp_path: Path) -> None:
    assert run("replay", room, "--out", tmp_path).exit_code == 0
    summary = json.loads(run("replay", room, "--out", tmp_path, "--json", "--no-adjust").stdout)
    assert summary["adjuster"] is None
    assert summary["refined"] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["live.tum", "report.html", "summary.json"]


def test_the_adjuster_in_a_process_of_its_own(room: Path, tmp_path: Path) -> None:
    answer = shell("replay", room, "--out", tmp_path, "--json", "--async")
    assert (answer.returncode, answer.stderr) == (0, "")
    summary = json.loads(answer.stdout)
    assert summary["adjuster"]["sent"] == FRAMES
    assert summary["adjuster"]["dropped"] == 0
    assert summary["keyframes"] >= 2
    assert len(read_tum(tmp_path / "refined.tum")) == FRAMES


def test_what_asks_for_the_adjuster_and_cannot_have_it(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    camera_height = ["replay", room, "--out", out, "--scale.source", "camera_height"]
    assert "needs the adjuster" in refused(*camera_height, "--no-adjust")
    assert "give scale.camera_height_m" in refused(*camera_height)
    wheel = ["replay", room, "--out", out, "--scale.source", "wheel"]
    assert "give replay.wheel_topic" in refused(*wheel)
    assert "no adjuster to run" in refused("replay", room, "--out", out, "--no-adjust", "--async")
    assert not out.exists()


def test_settings_come_from_file_and_flags_and_flags_win(room: Path, tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text("/**:\n  ros__parameters:\n    geometric: {corners: 100, seed: 3}\n")
    command = ["replay", room, "--out", tmp_path, "--json", "--config", file]
    summary = json.loads(run(*command, "--geometric.corners", 200).stdout)
    assert summary["config"]["geometric"]["corners"] == 200
    assert summary["config"]["geometric"]["seed"] == 3
    assert summary["config"]["geometric"]["levels"] == 4


def test_net_and_topic_are_short_for_their_settings(room: Path, tmp_path: Path) -> None:
    result = run("replay", room, "--out", tmp_path, "--json", "--net", "geometric", "--topic", "/a")
    config = json.loads(result.stdout)["config"]
    assert config["net"]["backend"] == "geometric"
    assert config["replay"]["topic"] == "/a"


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        (
            "--geometric.corners",
            20,
            "geometric.corners: '20' is not a whole number from 50 to 2000",
        ),
        ("--geometric.solver", "six", "'six' is not one of five_point, eight_point"),
        ("--camera.rectified", "maybe", "camera.rectified: 'maybe' is not true or false"),
        ("--track.max_gap_s", "soon", "track.max_gap_s: 'soon' is not a number from 0.05 to 60 s"),
        ("--track.max_gap_s", "nan", "track.max_gap_s: 'nan' is not a number from 0.05 to 60 s"),
        ("--geometric.seed", "1" + "0" * 400, "is not a whole number from 0 to"),
        ("--net", "magic", "net.backend: 'magic' is not one of auto, tensorrt, torch, onnxruntime"),
    ],
)
def test_a_bad_flag_is_answered_with_what_is_allowed(
    flag: str, value: object, message: str, room: Path, tmp_path: Path
) -> None:
    line = refused("replay", room, "--out", tmp_path / "out", flag, value)
    assert line.startswith("command line: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_bad_settings_file_is_named(room: Path, tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    assert refused("replay", room, "--config", file).startswith(f"{file}: cannot be read")
    file.write_text("geometric: {corner: 200}")
    assert "unknown setting 'geometric.corner'; known: geometric.corners" in refused(
        "replay", room, "--config", file
    )


def test_every_setting_is_a_flag_with_its_help() -> None:
    shown = " ".join(run("replay", "--help").stdout.split())
    for setting in settings(but=ONLY_FOR_THE_NODE):
        assert f"--{setting.key} " in shown
        # The help is wrapped at any blank or hyphen, so compare its first words.
        assert " ".join(setting.help.split()[:2]) in shown


def test_sources_that_cannot_be_replayed(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    missing = tmp_path / "nothing"
    assert refused("replay", missing, "--out", out).startswith(f"{missing}: ")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused("replay", empty, "--out", out).startswith(f"{empty}: ")
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    assert refused("replay", text, "--out", out).startswith(f"{text}: ")
    assert str(missing) in refused("replay", room, "--out", out, "--calib", missing)
    assert not out.exists()


def test_an_output_folder_that_cannot_be_written(room: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    for out in (file, file / "out"):
        line = refused("replay", room, "--out", out, "--json")
        assert line.startswith(f"{out}: cannot be written to")
    assert file.read_text() == "in the way"


@pytest.mark.parametrize("name", ["live.tum", "summary.json", "report.html"])
def test_no_file_is_left_half_written(name: str, room: Path, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    refused("replay", room, "--out", tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_trajectory_compared_with_itself_has_no_error(room: Path) -> None:
    truth = room / "groundtruth.tum"
    metrics = json.loads(run("evaluate", truth, truth, "--json").stdout)
    assert metrics["matched"] == FRAMES
    assert metrics["scale_sim3"] == pytest.approx(1.0)
    for figure in ("ate_rmse_m", "end_drift_percent"):
        for value in metrics[figure].values():
            assert value == pytest.approx(0.0, abs=1e-9)
    text = run("evaluate", truth, truth).stdout
    assert f"matched                      {FRAMES}" in text


@pytest.mark.parametrize(("how", "lengths"), [("none", "raw"), ("se3", "raw"), ("sim3", "scaled")])
def test_align_shows_one_alignment(how: str, lengths: str, room: Path, tmp_path: Path) -> None:
    run("replay", room, "--out", tmp_path)
    files = (tmp_path / "live.tum", room / "groundtruth.tum")
    everything = json.loads(run("evaluate", *files, "--json").stdout)
    one = json.loads(run("evaluate", *files, "--json", "--align", how).stdout)
    assert one["ate_rmse_m"] == everything["ate_rmse_m"][how]
    assert one["path_length_m"] == everything["path_length_m"][lengths]
    assert list(one) == list(everything)


def test_evaluate_says_no_in_one_line(room: Path, tmp_path: Path) -> None:
    truth, missing, other = room / "groundtruth.tum", tmp_path / "none.tum", tmp_path / "other.tum"
    assert refused("evaluate", missing, truth).startswith(f"{missing}: ")
    assert refused("evaluate", truth, missing).startswith(f"{missing}: ")
    other.write_text("1.0 0 0 0 0 0 0 1\n2.0 0 0 0 0 0 0 1\n")
    assert refused("evaluate", other, truth)
    other.write_text("1.0 0 0 0 0 0 0 0\n")
    assert refused("evaluate", other, truth).startswith(f"{other}:1: ")
    assert run("evaluate", truth, truth, "--align", "affine").exit_code == 2


def test_the_doctor_lists_what_is_here() -> None:
    lines = run("doctor").stdout.splitlines()
    assert all(line.startswith(("ok  ", "--  ")) for line in lines)
    rows = {row["what"]: row for row in json.loads(run("doctor", "--json").stdout)}
    assert len(rows) == len(lines)
    assert rows["vo_stream"]["detail"] == vo_stream.__version__
    for what in ("python", "numpy", "cv2", "transforms3d", "rosbags", "backend geometric"):
        assert rows[what]["ok"]
        assert rows[what]["detail"]
    assert {f"backend {name}" for name in BACKENDS} <= set(rows)


def test_the_doctor_knows_what_is_missing_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vo_stream.doctor.find_spec", lambda _: None)
    rows = {row["what"]: row for row in json.loads(run("doctor", "--json").stdout)}
    for what in ("numpy", "cv2", "rclpy"):
        assert not rows[what]["ok"]
        assert "install" in rows[what]["detail"]
    assert "opencv-python-headless" in rows["cv2"]["detail"], "cv2 is no package that pip knows"


def test_help_and_version() -> None:
    for command in ([], ["replay"], ["evaluate"], ["doctor"]):
        result = run(*command, "-h")
        assert result.exit_code == 0
        assert "Usage:" in result.stdout
    assert vo_stream.__version__ in run("--version").stdout


def test_a_refusal_from_the_shell(tmp_path: Path) -> None:
    answer = shell("replay", tmp_path / "nothing", "--out", tmp_path / "out")
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr == f"vo-stream: {tmp_path / 'nothing'}: there is no such file or folder\n"
