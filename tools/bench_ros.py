"""What the node costs on a robot: images over DDS in, odometry over DDS out; what leaks.

python tools/bench_ros.py [--only NAME] [--transport NAME] [--reliability NAME] [--seconds 10]
    [--no-adjust] [--images DIR] [--json]
python tools/bench_ros.py cycles N [--no-adjust] [--json]

The first form runs a camera, the node and a listener as processes of their own, for each size and
rate of image, with the default transport of DDS and the large one of config/fastdds_shm.xml, best
effort and reliable. Latency is from the stamp, which the camera gives just before it publishes, to
where the listener has the odometry of that stamp. Images that were sent before the first odometry
came are left out of the counts, and the first ones after it out of the latencies. For the largest
images it also tells what a Python subscriber pays to take one and turn it grey.

The second form takes the node N times through configure, activate, deactivate and cleanup while
images come, and shows what it holds; then it ends the active node by SIGINT.

Images are of a rendered room or of a recording, scaled and shown to and fro. The graph is a
domain of its own, on this computer only. Nothing is asserted about the figures: they depend on what
else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench_ros_cycles import LIFE_S, cycles, cycles_text
from bench_ros_footage import film, write_footage
from bench_ros_process import NODE_PARAMETERS, Graph, cpu_s, descendants, new_graph, table
from tqdm import tqdm

from vo_stream.errors import VoStreamError

Row = dict[str, Any]

SETTLED = 15
"""Odometries at the start that are not counted: maps for rectification are made there."""

START_S = 60.0
"""Hard limit of a run beside its images: for starting, and for ending."""

TAKE_GOAL_MS = 1.5
"""What taking an image of 1280x720 may cost."""

PERCENTILES = {"p50": 50, "p95": 95, "p99": 99, "max": 100}

EXECUTOR_BUSY = "executor busy max (ms)"
"""As the node's diagnostics call it."""


class Scenario(NamedTuple):
    """Images of one camera: (width, height) in pixels, encoding, rate in Hz."""

    size: tuple[int, int]
    encoding: str
    rate: float

    def __str__(self) -> str:
        return f"{self.size[0]}x{self.size[1]} {self.encoding} {self.rate:g} Hz"

    def options(self) -> list[str]:
        """Return what the camera has to be told of it."""
        size = f"{self.size[0]}x{self.size[1]}"
        return ["--size", size, "--encoding", self.encoding, "--rate", str(self.rate)]


class Run(NamedTuple):
    """How a scenario is run: its footage (a file), for how long, and in which way."""

    footage: Path
    seconds: float
    reliable: bool
    adjust: bool

    @property
    def quality(self) -> list[str]:
        """What camera and taker have to be told of reliability."""
        return ["--reliable"] if self.reliable else []

    def camera_options(self, scenario: Scenario) -> list[str]:
        """Return all that the camera has to be told."""
        footage = ["--footage", str(self.footage), "--seconds", str(self.seconds)]
        return [*footage, *scenario.options(), *self.quality]


SCENARIOS = {
    "vga": Scenario((640, 480), "mono8", 30.0),
    "wide": Scenario((1241, 376), "mono8", 10.0),
    "hd": Scenario((1280, 720), "rgb8", 30.0),
}
TAKEN = "hd"
"""The scenario in which the cost of taking images is measured."""

TRANSPORTS = {
    "default": None,
    "large": Path(__file__).resolve().parents[1] / "config" / "fastdds_shm.xml",
}

RELIABILITY = {"best-effort": False, "reliable": True}

RELIABLE_PARAMETERS = {"qos_overrides./image.subscription.reliability": "reliable"}


def measure(graph: Graph, scenario: Scenario, run: Run) -> Row:
    """Run camera, node and listener, and return the figures."""
    parameters = {**NODE_PARAMETERS, "adjust.enabled": run.adjust}
    if run.reliable:
        parameters |= RELIABLE_PARAMETERS
    node = graph.start_node(parameters)
    listener = graph.start_role("listen")
    try:
        listener.line()
    except RuntimeError as error:
        raise RuntimeError(f"{error}\nThe node's last words:\n{node.said()}") from None
    camera = graph.start_role("publish", *run.camera_options(scenario))
    camera.line()
    pids = {"node": [node.pid], "adjuster": descendants(node.pid)}
    before = {name: sum(map(cpu_s, some)) for name, some in pids.items()}
    sent = json.loads(camera.line())
    used = {name: sum(map(cpu_s, some)) - before[name] for name, some in pids.items()}
    end_s = node.end()
    heard = listener.result()
    return _figures(sent, heard) | {
        "cpu_percent": {name: 100.0 * s / run.seconds for name, s in used.items()},
        "sigint_to_exit_s": end_s,
    }


def _figures(sent: Row, heard: Row) -> Row:
    """Return latencies and counts of a run; raises RuntimeError where no odometry came."""
    received = dict(zip(heard["stamps_ns"], heard["received_ns"], strict=True))
    if not received:
        raise RuntimeError(f"no odometry came; the node says: {heard['diagnostics']}")
    counted = [stamp for stamp in sent["stamps_ns"] if stamp >= min(received)]
    arrived = [stamp for stamp in counted if stamp in received]
    latencies = [(received[stamp] - stamp) / 1e6 for stamp in arrived[SETTLED:] or arrived]
    return {
        "latency_ms": spread(latencies),
        "sent": len(counted),
        "received": len(arrived),
        "dropped": len(counted) - len(arrived),
        "before_first": len(sent["stamps_ns"]) - len(counted),
        "publish_ms": spread(sent["publish_ms"]),
        "late": sent["late"],
        "executor_busy_max_ms": heard["largest"].get(EXECUTOR_BUSY, float("nan")),
        "diagnostics": heard["diagnostics"],
    }


def taking(graph: Graph, scenario: Scenario, run: Run) -> Row:
    """Run camera and a subscriber of its images, and return what taking one costs."""
    taker = graph.start_role("take", *run.quality)
    taker.line()
    camera = graph.start_role("publish", *run.camera_options(scenario))
    camera.line()
    sent = json.loads(camera.line())
    taken = taker.result()
    parts = {name: spread(taken[name]) for name in ("deserialise_ms", "grey_ms", "both_ms")}
    return parts | {
        "cpu_ms_per_image": taken["cpu_ms_per_image"],
        "sent": len(sent["stamps_ns"]),
        "received": len(taken["both_ms"]),
    }


def spread(times: Sequence[float]) -> Row:
    """Return the percentiles of some times; nan where there are none."""
    if not times:
        return dict.fromkeys(PERCENTILES, float("nan"))
    return {name: float(np.percentile(times, q)) for name, q in PERCENTILES.items()}


def all_runs(args: argparse.Namespace) -> Row:
    """Measure every scenario that is asked for, in every way."""
    result: Row = {"machine": machine(), "seconds": args.seconds, "adjust": args.adjust}
    result |= {"runs": [], "taking": []}
    with tempfile.TemporaryDirectory() as name:
        footage = Path(name, "footage.npz")
        write_footage(footage, film(args.images))
        limit_s = args.seconds + START_S
        ways = product(
            args.only or SCENARIOS, args.transport or TRANSPORTS, args.reliability or RELIABILITY
        )
        for scenario, transport, reliability in tqdm(list(ways), unit="run", disable=None):
            run = Run(footage, args.seconds, RELIABILITY[reliability], args.adjust)
            row = {"scenario": str(SCENARIOS[scenario]), "transport": transport}
            row["reliability"] = reliability
            with new_graph(Path(name), TRANSPORTS[transport], limit_s) as graph:
                result["runs"].append(row | measure(graph, SCENARIOS[scenario], run))
            if scenario == TAKEN:
                with new_graph(Path(name), TRANSPORTS[transport], limit_s) as graph:
                    result["taking"].append(row | taking(graph, SCENARIOS[scenario], run))
    return result


def machine() -> str:
    """Return what the figures were measured on, and how busy that is."""
    return (
        f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before, "
        f"Python {platform.python_version()}"
    )


def text(result: Row) -> str:
    """Return the figures as tables."""
    head = ["images", "transport", "reliability", *PERCENTILES, "sent", "dropped", "executor ms"]
    rows = [[*head, "node CPU %", "adjuster CPU %"]]
    for run in result["runs"]:
        cpu = run["cpu_percent"]
        rows.append(
            [
                *(run[key] for key in ("scenario", "transport", "reliability")),
                *(f"{run['latency_ms'][p]:.1f}" for p in PERCENTILES),
                str(run["sent"]),
                str(run["dropped"]),
                f"{run['executor_busy_max_ms']:.2f}",
                f"{cpu['node']:.0f}",
                f"{cpu['adjuster']:.0f}",
            ]
        )
    adjuster = "with" if result["adjust"] else "without"
    lines = [
        f"latency from image stamp to odometry in ms, {adjuster} the adjuster, "
        f"{result['seconds']:g} s each; {result['machine']}",
        *table(rows),
    ]
    for taking in result["taking"]:
        both = taking["both_ms"]
        lines.append(
            f"taking {taking['scenario']}, {taking['transport']}, {taking['reliability']}: "
            f"p50 {both['p50']:.2f} ms, p99 {both['p99']:.2f} ms to deserialise and turn grey "
            f"(goal {TAKE_GOAL_MS:g} ms), {taking['cpu_ms_per_image']:.2f} ms of CPU in all; "
            f"{taking['received']} of {taking['sent']} came"
        )
    return "\n".join(lines)


def all_cycles(args: argparse.Namespace) -> Row:
    """Take the node through its life."""
    with tempfile.TemporaryDirectory() as name:
        footage = Path(name, "footage.npz")
        write_footage(footage, film(args.images))
        with new_graph(Path(name), TRANSPORTS["large"], LIFE_S) as graph:
            return {"machine": machine()} | cycles(graph, footage, args.count, args.adjust)


def main() -> int:
    """Run the command; return its exit code."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--images", type=Path, metavar="DIR", help="recording to show")
    common.add_argument("--adjust", action=argparse.BooleanOptionalAction, default=True)
    common.add_argument("--json", action="store_true", help="print JSON")
    parser = argparse.ArgumentParser(description="Measure the node over DDS.", parents=[common])
    parser.add_argument("--seconds", type=float, default=10.0, help="of images, for each run")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="one scenario")
    parser.add_argument("--transport", action="append", choices=TRANSPORTS, help="one of them")
    parser.add_argument("--reliability", action="append", choices=RELIABILITY, help="one of them")
    kinds = parser.add_subparsers(dest="kind")
    lives = kinds.add_parser("cycles", help="what the node holds over its life", parents=[common])
    lives.add_argument("count", type=int, metavar="N")
    args = parser.parse_args()
    measured, told = (all_cycles, cycles_text) if args.kind else (all_runs, text)
    try:
        result = measured(args)
    except (VoStreamError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2) if args.json else told(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
