"""Replay recordings with ground truth and print the table of docs/benchmarks.md.

python tools/benchmark.py FOLDER ... [--seeds 3] [--runs 3] [--net geometric] [--no-adjust]
    [--write FILE]

--write replaces the table of that backend in a file, between its two marks. Every replay is a
process of its own, so that memory and processor time are its own. Where there is chance (the
sampling of the geometric backend) each seed is run, and the median is shown with the range; speed
is the median over all runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

import vo_stream

START, END = "<!-- table of {net} -->", "<!-- end of table -->"

Run = dict[str, Any]


def replay(folder: Path, net: str, seed: int, adjust: bool) -> Run:
    """Return the summary of one replay; raises CalledProcessError where it fails."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "vo_stream.cli", "replay", str(folder), "--out", out]
        command += ["--json", "--net", net, "--geometric.seed", str(seed)]
        command += [] if adjust else ["--no-adjust"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    summary: Run = json.loads(done.stdout)
    return summary


def spread(runs: Sequence[Run], figure: Callable[[Run], float | None], digits: int) -> str:
    """Return the median over the runs, with the range where they differ."""
    values = [value for run in runs if (value := figure(run)) is not None]
    if not values:
        return "-"
    shown = f"{median(values):.{digits}f}"
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return shown if low == high else f"{shown} ({low}..{high})"


def ate(run: Run, of: str, alignment: str = "sim3") -> float | None:
    """Return the absolute error of the path in metres; None where nothing was refined."""
    return None if run[of] is None else float(run[of]["ate_rmse_m"][alignment])


def in_metres(run: Run, what: str) -> float | None:
    """Return a length of the ground truth's path, or of the path as estimated."""
    value = run["metrics"]["path_length_m"][what]
    return None if value is None else float(value)


COLUMNS: dict[str, Callable[[Sequence[Run]], str]] = {
    "sequence": lambda runs: str(runs[0]["source"]),
    "frames": lambda runs: str(runs[0]["frames"]),
    "path m": lambda runs: spread(runs, lambda r: in_metres(r, "groundtruth"), 2),
    "ATE m": lambda runs: spread(runs, lambda r: ate(r, "metrics"), 3),
    "refined ATE m": lambda runs: spread(runs, lambda r: ate(r, "refined"), 3),
    "t_rel %": lambda runs: spread(runs, lambda r: r["metrics"]["t_rel_percent"]["scaled"], 1),
    "r_rel deg/100 m": lambda runs: spread(runs, lambda r: r["metrics"]["r_rel_deg_per_100m"], 1),
    "RPE 1 s m": lambda runs: spread(
        runs, lambda r: r["metrics"]["rpe_translation_rmse_m"]["scaled"], 3
    ),
    "RPE 1 s deg": lambda runs: spread(runs, lambda r: r["metrics"]["rpe_rotation_rmse_deg"], 2),
    "NEES": lambda runs: spread(runs, lambda r: r["metrics"]["nees"]["all"], 1),
    "degraded, lost, refused": lambda runs: ", ".join(
        str(max(r["conditions"].get(c, 0) for r in runs)) for c in ("degraded", "lost", "refused")
    ),
    "frames/s": lambda runs: f"{median(r['fps'] for r in runs):.0f}",
    "CPU ms": lambda runs: f"{median(r['cpu_ms_per_frame'] for r in runs):.1f}",
    "peak MB": lambda runs: f"{max(r['peak_memory_mb'] for r in runs):.0f}",
}


IN_METRES: dict[str, Callable[[Sequence[Run]], str]] = {
    "ATE none m": lambda runs: spread(runs, lambda r: ate(r, "metrics", "none"), 2),
    "ATE SE(3) m": lambda runs: spread(runs, lambda r: ate(r, "metrics", "se3"), 2),
    "scale to metres": lambda runs: spread(runs, lambda r: r["metrics"]["scale_sim3"], 2),
    "t_rel raw %": lambda runs: spread(runs, lambda r: r["metrics"]["t_rel_percent"]["raw"], 1),
    "refined t_rel raw %": lambda runs: spread(
        runs, lambda r: r["refined"] and r["refined"]["t_rel_percent"]["raw"], 1
    ),
}
"""Columns for a backend whose lengths are metres: errors without any alignment of the scale."""


def table(all_runs: Sequence[Sequence[Run]]) -> str:
    """Return the table in Markdown, with the conditions under it."""
    metric = any(runs[0]["metric"] for runs in all_runs)
    columns = COLUMNS | IN_METRES if metric else COLUMNS
    rows = [list(columns), ["---"] * len(columns)]
    rows += [[column(runs) for column in columns.values()] for runs in all_runs]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    first = all_runs[0][0]
    adjuster = "with the adjuster" if first["adjuster"] else "without the adjuster"
    conditions = (
        f"vo_stream {vo_stream.__version__}, backend {first['backend']}, {adjuster}, "
        f"{first['machine']}, "
        f"Python {platform.python_version()}, OpenCV {opencv_version()}; "
        f"{len(all_runs[0])} runs of each."
    )
    return "\n".join([*lines, "", conditions])


def opencv_version() -> str:
    """Return the version of the OpenCV that ran."""
    import cv2

    return str(cv2.__version__)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Table of errors and speed over recordings.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the random sampling")
    parser.add_argument("--runs", type=int, default=1, help="runs of each seed, for the speed")
    parser.add_argument("--net", default="geometric", help="motion backend")
    parser.add_argument("--no-adjust", action="store_true", help="live odometry alone")
    parser.add_argument("--write", type=Path, help="a file whose table is replaced")
    args = parser.parse_args()
    bar = tqdm(total=len(args.folders) * args.seeds * args.runs, unit=" runs", disable=None)
    all_runs = []
    for folder in args.folders:
        runs = []
        for seed in range(args.seeds):
            for _ in range(args.runs):
                bar.set_postfix_str(folder.name)
                try:
                    runs.append(replay(folder, args.net, seed, not args.no_adjust))
                except subprocess.CalledProcessError as error:
                    print(f"{folder}: {error.stderr.strip()}", file=sys.stderr)
                    return 2
                bar.update()
        if runs[0]["metrics"] is None:
            print(f"{folder}: has no ground truth to compare with", file=sys.stderr)
            return 2
        all_runs.append(runs)
    bar.close()
    text = table(all_runs)
    print(text)
    if args.write:
        page = args.write.read_text(encoding="utf-8")
        start = START.format(net=args.net)
        before, rest = page.split(start, 1)
        after = rest.split(END, 1)[1]
        args.write.write_text(f"{before}{start}\n{text}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
