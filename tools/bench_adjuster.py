"""Compare the adjuster's solver with GTSAM and Ceres, on the same windows of a made-up drive.

python tools/bench_adjuster.py [--seeds 20] [--keyframes 120] [--solvers ours gtsam ceres] [--json]

GTSAM and Ceres are no dependencies: what is not installed is left out. The figures depend on what
else the machine does; nothing is asserted about them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import numpy as np
from adjuster_rivals import (
    MAX_ITERATIONS,
    NAMES,
    RELATIVE_TOLERANCE,
    VAGUE_STD,
    Ours,
    Solver,
    available,
)
from adjuster_windows import (
    OUTLIERS,
    STEP,
    Answer,
    Drive,
    Estimates,
    Window,
    cost,
    drive,
    nearer,
    start_of,
    window_of,
    without_outliers,
)
from tqdm import tqdm

from vo_stream.adjust.factors import MOTION_HUBER
from vo_stream.adjust.solver import HUBER
from vo_stream.se3 import Array

Row = dict[str, Any]

SETTLED = 12
"""Keyframes driven before the window of the batch comparison, so that it holds old tracks."""

START = "start, idle"
"""Row of the start; its stall is that beside a sleeping thread."""

FAIRNESS = f"""\
All: the same windows, start and noise model, Huber's loss at {HUBER} standard deviations of a
sighting and {MOTION_HUBER:g} of a motion, one thread; the end is a relative change of the cost of
{RELATIVE_TOLERANCE:g}, or so many iterations: {MAX_ITERATIONS}. CPU: the thread's own time in
solving. Build: from the window to the solver's own objects, and from its answer back; C++ would
build the others' faster. One function says what an answer costs; more: than the first solver's;
finite: the same when landmarks beyond infinity, where only vo_stream's can go, are put there as
they are.
vo_stream: the scale of the motions is known to be 1 and the bend of the lens to be 0 (by an
   information so large that they stay), the prior on depths is off. It ends where a step promised
   so little a change, the others where one brought it; landmarks may take steps of their own within
   an iteration. A step that fails counts, as in Ceres, not in GTSAM.
GTSAM LM: Point3 landmarks, eliminated first; the held keyframe has a tight prior.
GTSAM fixed lag: marginalises what leaves the window, so that it knows more than the others, who
   hold the oldest keyframe; landmarks have a prior of {VAGUE_STD:g} m, the others none.
Ceres: Point3 landmarks, quaternions on their manifold, dense Schur, automatic derivatives. Its
   motion error is that of the inverse motion, the same to first order.
Batch: all keyframes but the newest, and their landmarks, start as our solver leaves them when run
   to the end; the newest as its measured motion, 3 % and 0.2 deg off, predicts it."""


def warm_window(seed: int, size: int, tracks: int, drop: bool) -> tuple[Drive, Window]:
    """Return a window as streaming meets it: converged, but for the newest keyframe.

    `drop`: whether the outliers of the converged keyframes are gone.
    """
    road = drive(seed, SETTLED + size, tracks, 0.2, OUTLIERS)
    known, ours, newest = Estimates.at_truth(road), Ours(), SETTLED + size - 1
    for _ in range(3):
        window = window_of(road, known, SETTLED, newest - 1)
        answer = ours.read(window, ours.run(ours.prepare(window)))
        known.take(window, answer)
        if drop:
            road = without_outliers(road, window, answer)
    known.predict(road, newest)
    return road, window_of(road, known, SETTLED, newest)


def timed(solver: Solver, window: Window) -> tuple[Answer, Row]:
    """Return a solver's answer, and the milliseconds it took to build and to solve."""
    began = time.perf_counter()
    job = solver.prepare(window)
    built, cpu = time.perf_counter(), time.thread_time()
    done = solver.run(job)
    solved, cpu_s = time.perf_counter(), time.thread_time() - cpu
    answer = solver.read(window, done)
    build_s = built - began + time.perf_counter() - solved
    figures = {"solve_ms": solved - built, "cpu_ms": cpu_s, "build_ms": build_s}
    return answer, {
        **{name: 1e3 * seconds for name, seconds in figures.items()},
        "iterations": answer.iterations,
    }


def longest_stall(work: Callable[[], object]) -> float:
    """Return the longest time, in ms, that a busy thread stood still while another did `work`."""
    finished: list[bool] = []

    def background() -> None:
        time.sleep(0.002)
        work()
        finished.append(True)

    thread = threading.Thread(target=background)
    thread.start()
    longest, last = 0.0, time.perf_counter()
    while not finished:
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    thread.join()
    return 1e3 * longest


def drift_percent(road: Drive, window: Window, answer: Answer) -> float:
    """Return how far off the newest position is, in percent of the way through the window."""
    truth = road.poses[window.number + len(answer.positions) - 1].translation
    way = STEP * (len(answer.positions) - 1)
    return float(100.0 * np.linalg.norm(answer.positions[-1] - truth) / way)


def batch(solvers: Sequence[Solver], seeds: int, size: int, tracks: int, drop: bool) -> list[Row]:
    """Solve one warm window of each seed by each solver; the first row is the start itself."""
    rows: dict[str, list[Row]] = {}
    for seed in tqdm(range(seeds), desc="windows", leave=False, disable=None):
        road, window = warm_window(seed, size, tracks, drop)
        start = start_of(window)
        figures: Row = {"sightings": len(window.plane), "cost": cost(window, start)}
        figures["drift_percent"] = drift_percent(road, window, start)
        figures["stall_ms"] = longest_stall(lambda: time.sleep(0.01))
        rows.setdefault(START, []).append(figures)
        first: Array | None = None
        for solver in solvers:
            if seed == 0:
                timed(solver, window)  # once, not counted
            answer, figures = timed(solver, window)
            costs = np.array([cost(window, answer), cost(window, nearer(window, answer))])
            first = costs if first is None else first
            more, finite = (100.0 * (costs / first - 1.0)).tolist()
            figures |= {"cost": costs[0], "more_percent": more, "finite_percent": finite}
            figures["drift_percent"] = drift_percent(road, window, answer)
            figures["stall_ms"] = longest_stall(partial(solver.run, solver.prepare(window)))
            rows.setdefault(solver.name, []).append(figures)
    return [{"solver": name, **summary(of)} for name, of in rows.items()]


def summary(figures: Sequence[Row]) -> Row:
    """Return median, 95th percentile, least and largest of each figure."""
    shares = {"median": 50, "p95": 95, "min": 0, "max": 100}
    return {
        name: {of: float(np.percentile([f[name] for f in figures], q)) for of, q in shares.items()}
        for name in figures[0]
    }


def stream(make: Callable[[], Solver], roads: Sequence[Drive], size: int) -> Row:
    """Send drives through a sliding window; times are of full windows, errors of whole drives."""
    times: list[Row] = []
    paths: list[Row] = []
    for road in roads:
        solver, known = make(), Estimates.at_truth(road)
        bar = tqdm(range(1, len(road.poses)), desc=solver.name, leave=False, disable=None)
        for k in bar:
            known.predict(road, k)
            window = window_of(road, known, max(0, k - size + 1), k)
            try:
                answer, figures = timed(solver, window)
            except RuntimeError as error:  # of GTSAM: a linear system without a solution
                return {"solver": solver.name, "failed": f"{k}: {' '.join(str(error).split())}"}
            known.take(window, answer)
            if k >= size - 1:
                times.append(figures)
        truth = np.array([pose.translation for pose in road.poses])
        errors = np.linalg.norm(known.positions - truth, axis=1)
        end = 100.0 * errors[-1] / (STEP * (len(errors) - 1))
        paths.append({"drift_percent": end, "ate_m": float(np.sqrt((errors**2).mean()))})
    return {"solver": solver.name, **summary(times), **summary(paths)}


Columns = dict[str, tuple[str, str, int]]

TIMES: Columns = {
    "solve ms": ("solve_ms", "median", 2),
    "p95": ("solve_ms", "p95", 2),
    "CPU ms": ("cpu_ms", "median", 2),
    "build ms": ("build_ms", "median", 2),
    "rounds": ("iterations", "median", 0),
}
BATCH: Columns = {
    **TIMES,
    "cost": ("cost", "median", 1),
    "more %": ("more_percent", "median", 2),
    "least": ("more_percent", "min", 2),
    "most": ("more_percent", "max", 2),
    "finite %": ("finite_percent", "median", 2),
    "least ": ("finite_percent", "min", 2),
    "drift %": ("drift_percent", "median", 2),
    "stall ms": ("stall_ms", "median", 2),
    "p95 ": ("stall_ms", "p95", 2),
}
STREAM: Columns = {
    **TIMES,
    "drift %": ("drift_percent", "median", 3),
    "most": ("drift_percent", "max", 3),
    "ATE m": ("ate_m", "median", 3),
    "most ": ("ate_m", "max", 3),
}


def table(rows: Sequence[Row], columns: Columns) -> str:
    """Return rows of figures as text."""
    lines = ["".join([f"{'':16}", *(f"{name:>9}" for name in columns)])]
    for row in rows:
        if "failed" in row:
            lines.append(f"{row['solver']:16} failed at keyframe {row['failed']:.60}")
            continue
        shown = [
            f"{row[name][of]:.{digits}f}" if name in row else "-"
            for name, of, digits in columns.values()
        ]
        lines.append("".join([f"{row['solver']:16}", *(f"{text:>9}" for text in shown)]))
    return "\n".join(lines)


def versions() -> str:
    """Return the machine and the versions of what ran."""
    names = []
    for name in ("numpy", "numba", "gtsam", "pyceres", "pycolmap"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            names.append(f"{name} {metadata.version(name)}")
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, " + (
        ", ".join(names)
    )


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="The adjuster's solver against GTSAM and Ceres.")
    parser.add_argument("--seeds", type=int, default=20, help="windows of the batch comparison")
    parser.add_argument("--window", type=int, default=8, help="keyframes in a window")
    parser.add_argument("--tracks", type=int, default=310, help="corners followed at a time")
    parser.add_argument("--keyframes", type=int, default=120, help="of a drive; 0: no streaming")
    parser.add_argument("--drives", type=int, default=3, help="drives of the streaming comparison")
    parser.add_argument("--outliers", type=float, default=0.0, help="share of them in the drives")
    parser.add_argument("--solvers", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    makers = available(args.solvers, args.window, lambda text: print(text, file=sys.stderr))
    alone = [solver for solver in (make() for make in makers) if solver.alone]
    batches = {
        name: batch(alone, args.seeds, args.window, args.tracks, name == "dropped")
        for name in ("kept", "dropped")
    }
    roads = [
        drive(seed, args.keyframes, args.tracks, 0.1, args.outliers)
        for seed in range(args.drives if args.keyframes > args.window else 0)
    ]
    streams = [stream(make, roads, args.window) for make in makers] if roads else []
    if args.json:
        print(json.dumps({"machine": versions(), "batch": batches, "stream": streams}, indent=2))
        return 0
    print(versions(), FAIRNESS, sep="\n")
    for name, rows in batches.items():
        count = rows[0]["sightings"]["median"]
        print(f"\nBatch: {args.seeds} windows of {args.window} keyframes, {count:.0f} sightings,")
        print(f"{100.0 * OUTLIERS:g} % outliers, {name} in the converged keyframes")
        print(table(rows, BATCH))
    if streams:
        print(f"\nStreaming: {args.drives} drives of {args.keyframes} keyframes,", end=" ")
        print(f"{100.0 * args.outliers:g} % outliers, none dropped")
        print(table(streams, STREAM))
    return 0


if __name__ == "__main__":
    sys.exit(main())
