"""What the adjuster costs the live loop: frames at a steady rate, with and without it.

python tools/bench_live.py SOURCE [--rate 30] [--rounds 3] [--limit N] [--calib FILE] [--json]

A recording is read into memory and its frames handed out at a rate, as a camera would: through
Odometer.step alone, and with a link to the adjuster in a process of its own, which may drop frames
but never waits. Each round does both, every other round in the other order, for the machine is
faster at times. Timed is what the live thread does for a frame: step, send, poll until nothing
comes, and refine. The first frames of each run are not counted. A run begins when the adjuster is
ready; what its start takes is measured first and left out of its processor time. Nothing is
asserted about the figures: they depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vo_stream.adjust.solver import compile_solver
from vo_stream.config import Config
from vo_stream.errors import LinkError, VoStreamError
from vo_stream.link.channel import Link, LinkStatus, NoLink
from vo_stream.link.zmq_link import ZmqLink
from vo_stream.net.backends import open_backend
from vo_stream.replay.sources import open_source
from vo_stream.se3 import Array
from vo_stream.track.odometer import Odometer
from vo_stream.values import Frame

Row = dict[str, Any]

SETTLED = 10
"""Frames at the start of a run that are not counted: maps for rectification are made there."""

READY_S = 120.0
"""An adjuster is ready by then, or there is none."""

FINISH_S = 10.0
"""For what the adjuster still has to do after the last frame."""

ALONE, ADJUSTED = "odometer alone", "with adjuster"

PERCENTILES = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


@dataclass(frozen=True)
class Run:
    """One pass over the frames. Times are of each counted frame, in milliseconds.

    `whole`: all that the live thread did; `link`: what of it was not Odometer.step.
    `cpu_ms`: processor time of this process for each frame; `worker_s`: of the adjuster, its
    start included. `late`: frames whose turn came while the one before was still being worked on.
    """

    whole: Array
    link: Array
    cpu_ms: float
    worker_s: float
    late: int
    status: LinkStatus


def run(frames: Sequence[Frame], rate_hz: float, config: Config, adjust: bool) -> Run:
    """Hand out the frames at a rate, with or without the adjuster."""
    worker_before = _children_s()
    with closing(open_backend(config)) as backend:
        odometer = Odometer(backend, config.track, config.scale)
        with closing(ready_link(config) if adjust else NoLink()) as link:
            whole, steps, late, cpu_s = _paced(frames, rate_hz, odometer, link)
            link.finish(FINISH_S)
            status = link.status()
    counted = slice(min(SETTLED, len(frames) - 1), None)
    return Run(
        whole=1e3 * whole[counted],
        link=1e3 * (whole - steps)[counted],
        cpu_ms=1e3 * cpu_s / len(frames),
        worker_s=_children_s() - worker_before,
        late=late,
        status=status,
    )


def _paced(
    frames: Sequence[Frame], rate_hz: float, odometer: Odometer, link: Link
) -> tuple[Array, Array, int, float]:
    """Return seconds of each frame, those in Odometer.step, late frames and processor seconds."""
    whole, steps, late = np.empty(len(frames)), np.empty(len(frames)), 0
    cpu, start = time.process_time(), time.perf_counter()
    for i, frame in enumerate(frames):
        pause = start + i / rate_hz - time.perf_counter()
        if pause > 0.0:
            time.sleep(pause)
        elif i:
            late += 1
        began = time.perf_counter()
        estimate = odometer.step(frame)
        stepped = time.perf_counter()
        link.send(frame, estimate)
        while (refinement := link.poll()) is not None:
            odometer.refine(refinement)
        whole[i], steps[i] = time.perf_counter() - began, stepped - began
    return whole, steps, late, time.process_time() - cpu


def ready_link(config: Config) -> ZmqLink:
    """Return a link whose adjuster waits for frames; raises LinkError."""
    link = ZmqLink(config)
    deadline = time.monotonic() + READY_S
    while link.status().state != "ready":
        if time.monotonic() > deadline:
            link.close()
            raise LinkError(f"the adjuster is not ready after {READY_S:g} s")
        link.poll()
        time.sleep(0.01)
    return link


def start_cpu_s(config: Config) -> float:
    """Return the processor time that an adjuster takes until it is ready."""
    before = _children_s()
    ready_link(config).close()
    return _children_s() - before


def _children_s() -> float:
    """Return the processor time of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spread(times: Array) -> Row:
    """Return the percentiles of some times."""
    return {name: float(np.percentile(times, q)) for name, q in PERCENTILES.items()}


def summary(rounds: Sequence[dict[str, Run]], start_s: float) -> Row:
    """Return the figures of all rounds: those of each way, over all its frames, and the ratios."""
    ways: Row = {}
    for way in (ALONE, ADJUSTED):
        runs = [both[way] for both in rounds]
        ways[way] = {
            "ms": spread(np.concatenate([r.whole for r in runs])),
            "link_ms": spread(np.concatenate([r.link for r in runs])),
            "p99_of_rounds_ms": [spread(r.whole)["p99"] for r in runs],
            "cpu_ms_per_frame": float(np.mean([r.cpu_ms for r in runs])),
            "late": sum(r.late for r in runs),
        }
    status = [both[ADJUSTED].status for both in rounds]
    worked_off = sum(s.sent - s.dropped for s in status)
    worker_s = sum(both[ADJUSTED].worker_s - start_s for both in rounds)
    alone, adjusted = ways[ALONE], ways[ADJUSTED]
    pairs = zip(alone["p99_of_rounds_ms"], adjusted["p99_of_rounds_ms"], strict=True)
    return {
        "ways": ways,
        "p99_ratio": adjusted["ms"]["p99"] / alone["ms"]["p99"],
        "p99_ratio_of_rounds": [with_it / without for without, with_it in pairs],
        "worker_cpu_ms_per_frame": 1e3 * worker_s / max(1, worked_off),
        "worker_start_cpu_s": start_s,
        "sent": sum(s.sent for s in status),
        "dropped": sum(s.dropped for s in status),
        "refinements": sum(s.received for s in status),
        "restarts": sum(s.restarts for s in status),
    }


def text(result: Row) -> str:
    """Return the figures as a table and a few lines."""
    head = ["ms per frame", *PERCENTILES, "CPU ms", "late"]
    rows = [head]
    for way, figures in result["ways"].items():
        times = [f"{figures['ms'][p]:.2f}" for p in PERCENTILES]
        rows.append([way, *times, f"{figures['cpu_ms_per_frame']:.1f}", str(figures["late"])])
    link = result["ways"][ADJUSTED]["link_ms"]
    rows.append(["of it: send, poll", *(f"{link[p]:.2f}" for p in PERCENTILES), "", ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        " ".join(
            [row[0].ljust(widths[0]), *(f"{row[i]:>{widths[i]}}" for i in range(1, len(row)))]
        ).rstrip()
        for row in rows
    ]
    ratios = ", ".join(f"{ratio:.2f}" for ratio in result["p99_ratio_of_rounds"])
    return "\n".join(
        [
            f"{result['source']}: {result['frames']} frames at {result['rate_hz']:g} Hz, "
            f"{result['rounds']} rounds; {result['machine']}",
            *lines,
            f"p99 with the adjuster / without: {result['p99_ratio']:.2f}; round by round: {ratios}",
            f"adjuster: {result['worker_cpu_ms_per_frame']:.1f} ms of CPU a frame (start, not "
            f"counted: {result['worker_start_cpu_s']:.1f} s); {result['dropped']} of "
            f"{result['sent']} frames dropped, {result['refinements']} refinements, "
            f"{result['restarts']} restarts",
        ]
    )


def measure(args: argparse.Namespace) -> Row:
    """Run all rounds; raises VoStreamError."""
    config = Config()
    with open_source(args.source, topic=args.topic, calib=args.calib) as source:
        name, frames = source.name, list(islice(source.frames(), args.limit))
    if len(frames) < 2:
        raise VoStreamError(f"{args.source}: has fewer than two frames")
    compile_solver()  # the adjuster's process finds it compiled
    start_s = start_cpu_s(config)
    rounds = []
    for i in tqdm(range(args.rounds), unit=" rounds", leave=False, disable=None):
        order = (False, True) if i % 2 == 0 else (True, False)
        both = {
            ADJUSTED if adjust else ALONE: run(frames, args.rate, config, adjust)
            for adjust in order
        }
        rounds.append(both)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    about = {"source": name, "frames": len(frames), "rate_hz": args.rate, "rounds": args.rounds}
    return {**about, "machine": machine, **summary(rounds, start_s)}


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="What the adjuster costs the live loop.")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a recording, as for replay")
    parser.add_argument("--rate", type=float, default=30.0, help="frames in a second")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs")
    parser.add_argument("--limit", type=int, help="frames at most")
    parser.add_argument("--topic", default="", help="image topic of a bag")
    parser.add_argument("--calib", type=Path, help="calibration file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    try:
        result = measure(args)
    except VoStreamError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2) if args.json else text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
