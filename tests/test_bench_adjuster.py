"""The comparison of solvers runs, on a small window and without the others; no figure of time."""

import json
import math
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[1] / "tools" / "bench_adjuster.py"
SIZES = {"seeds": 2, "window": 4, "tracks": 60, "keyframes": 8, "drives": 1}
SMALL = ["--solvers", "ours", *(f"--{name}={value}" for name, value in SIZES.items())]


def test_our_solver_lowers_the_cost_and_stays_on_the_road() -> None:
    command = [sys.executable, str(TOOL), *SMALL, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    assert set(result) == {"machine", "batch", "stream"}
    assert set(result["batch"]) == {"kept", "dropped"}
    for start, ours in result["batch"].values():
        assert ours["solver"] == "vo_stream"
        assert ours["cost"]["median"] < start["cost"]["median"]
        assert {"solve_ms", "build_ms", "stall_ms", "iterations"} <= set(ours)
        assert math.isfinite(ours["drift_percent"]["max"])
    (ours,) = result["stream"]
    assert {"solve_ms", "build_ms", "iterations", "ate_m"} <= set(ours)
    assert ours["drift_percent"]["max"] < 20.0


def test_table_says_what_was_the_same_for_all() -> None:
    command = [sys.executable, str(TOOL), *SMALL]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "vo_stream" in done.stdout
    assert "the same windows" in done.stdout
