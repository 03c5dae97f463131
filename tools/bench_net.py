"""Every way to run the network, side by side, beside what the machine could do at most.

python tools/bench_net.py [--nets torch-cpu onnxruntime ...] [--size 640x192] [--frames 300]
    [--threads N] [--steps N] [--json]

Backends are measured as by `vo-stream bench`, all with the same number of CPU threads. The roofline
stands beside them: operations and bytes of a step, counted from the ONNX graph (graph_cost.py),
over what a matrix product and a copy reach on the same device in the same run (device_peak.py).

--steps measures nothing against each other. It lets each backend take so many steps, looks at its
memory on the way, and compares its last motions and its state with those of the reference. A
reference that is slow may take fewer (--reference-steps): the clip goes there and back without end,
so after a while the motions are those of a period before, and how well they repeat is told. Parts
of the state may count on, so then only the motions are to be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench_long import long_run, long_text
from graph_cost import Cost, cost_of, fixed

from vo_stream.config import Config
from vo_stream.demo.world import render_demo
from vo_stream.errors import NetError, VoStreamError
from vo_stream.net.cuda import cuda_devices
from vo_stream.net.sidecar import RELEASED, read_sidecar
from vo_stream.replay.bench import ROUNDS, Contender, measure, rendered_clip
from vo_stream.replay.bench_clip import size_of
from vo_stream.replay.bench_text import bench_text, table

Row = dict[str, Any]

TOOLS = Path(__file__).parent

EAGER = (sys.executable, str(TOOLS / "bench_eager.py"))

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""So torch runs on the CPU."""

THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM",
)  # fmt: skip

CPU, CUDA = "cpu", "cuda"

DEVICES = {
    "torch-cpu": CPU,
    "torch-cuda-eager": CUDA,
    "torch-cuda-graph": CUDA,
    "onnxruntime": CPU,
    "tensorrt": CUDA,
    "geometric": CPU,
}
"""What is compared, the first that runs with all others, and the device that it runs on."""

NO_NETWORK = "geometric"


def contenders(names: Sequence[str], config: Config, threads: int) -> list[Contender]:
    """Return what is compared; raises NetError for a GPU's where there is none."""
    environment = dict.fromkeys(THREADS, str(threads))
    found = []
    for name in dict.fromkeys(names):
        if DEVICES[name] == CUDA and cuda_devices() == 0:
            raise NetError(f"{name}: there is no NVIDIA GPU")
        backend = config.replaced({"net.backend": name.partition("-")[0], "net.threads": threads})
        contender = partial(Contender, name, backend)
        if name == "torch-cuda-eager":
            found.append(contender(environment, EAGER))
        else:
            found.append(contender(environment | (NO_GPU if DEVICES[name] == CPU else {})))
    return found


class Peaks:
    """The most that each device reached so far; `measure` adds one look at each."""

    def __init__(self, devices: Sequence[str], threads: int) -> None:
        self.found: dict[str, Row] = {}
        self._devices = devices
        self._threads = threads

    def measure(self) -> None:
        """Measure each device once, in a process of its own."""
        for device in self._devices:
            command = [sys.executable, str(TOOLS / "device_peak.py"), "--json"]
            command += ["--device", device, "--threads", str(self._threads)]
            environment = os.environ | dict.fromkeys(THREADS, str(self._threads))
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment
            )
            now = json.loads(done.stdout)
            best = self.found.setdefault(device, now)
            best["bytes_per_s"] = max(best["bytes_per_s"], now["bytes_per_s"])
            for precision, reached in now["operations_per_s"].items():
                known = best["operations_per_s"]
                known[precision] = max(known[precision], reached)


def roofline(rows: Sequence[Row], cost: Cost, precision: str, peaks: dict[str, Row]) -> list[Row]:
    """Return for each backend that runs the network how near its median step is to the limits.

    `limit_ms`: the longer of all arithmetic at the device's peak and of moving weights, inputs,
    outputs and state once. `arithmetic`: the precision of that peak; fp32 where none of the
    network's own was measured, which integers may surpass. `unfused_limit_ms`: the same if every
    node of the graph reads from memory and writes to it.
    """
    found = []
    for row in rows:
        if row["name"] == NO_NETWORK:
            continue
        device = DEVICES.get(row["name"], CUDA)
        reached = peaks[device]["operations_per_s"]
        known = precision if precision in reached else "fp32"
        arithmetic = cost.operations / reached[known]
        once, each = (
            1e3 * max(arithmetic, moved / peaks[device]["bytes_per_s"])
            for moved in (cost.weight_bytes + cost.io_bytes, cost.node_bytes)
        )
        step_ms = row["warm"]["step_ms"]["p50"]
        found.append(
            {
                "name": row["name"],
                "device": device,
                "arithmetic": known,
                "step_ms": step_ms,
                "operations_per_s": 1e3 * cost.operations / step_ms,
                "limit_ms": once,
                "of_limit": step_ms / once,
                "unfused_limit_ms": each,
                "of_unfused_limit": step_ms / each,
            }
        )
    return found


def roofline_text(result: Row) -> str:
    """Return the roofline as a table."""
    cost = result["cost"]
    lines = [
        f"a step: {cost['operations'] / 1e9:.3f} GFLOP in {cost['nodes']} nodes; weights "
        f"{cost['weight_bytes'] / 1e6:.1f} MB, inputs, outputs and state "
        f"{cost['io_bytes'] / 1e6:.1f} MB, every node by itself {cost['node_bytes'] / 1e6:.1f} MB",
    ]
    for device, peak in result["peaks"].items():
        reached = ", ".join(
            f"{1e-9 * operations:.0f} GFLOP/s {precision}"
            for precision, operations in peak["operations_per_s"].items()
        )
        lines.append(
            f"{device} at its best: {reached}; copy {1e-9 * peak['bytes_per_s']:.1f} GB/s "
            f"(torch {peak['torch']}, {peak['threads']} threads)"
        )
    if not result["roofline"]:
        return "\n".join([*lines, "none of these runs the network"])
    rows = [
        [
            "",
            "limit of",
            "step ms",
            "GFLOP/s",
            "limit ms",
            "step / limit",
            "unfused ms",
            "step / unfused",
        ]
    ]
    rows += [
        [
            row["name"],
            row["arithmetic"],
            f"{row['step_ms']:.3f}",
            f"{1e-9 * row['operations_per_s']:.1f}",
            f"{row['limit_ms']:.3f}",
            f"{row['of_limit']:.1f}",
            f"{row['unfused_limit_ms']:.3f}",
            f"{row['of_unfused_limit']:.1f}",
        ]
        for row in result["roofline"]
    ]
    others = {row["arithmetic"] for row in result["roofline"]} - {result["precision"]}
    told = [
        f"{known} is no limit of {result['precision']}, whose peak is unknown" for known in others
    ]
    return "\n".join([*lines, "", *table(rows, left=2), *told])


def say(what: str) -> None:
    """Tell a terminal what goes on."""
    if sys.stderr.isatty():
        print(what, file=sys.stderr)


def run(args: argparse.Namespace) -> tuple[Row, str]:
    """Return the result, and the same as text; raises VoStreamError."""
    config = Config().replaced({"net.model_file": str(args.model)}, "command line")
    names = args.nets or [n for n, d in DEVICES.items() if d == CPU or cuda_devices() > 0]
    compared = contenders(names, config, args.threads)
    sidecar = read_sidecar(args.model)
    size = size_of(args.size)
    clip = rendered_clip(render_demo, args.size, args.rate)
    if args.steps:
        (reference,) = contenders([args.reference], config, args.threads)
        few = args.reference_steps or args.steps
        result = long_run(
            compared, reference, clip, args.steps, few, sidecar.precision, NO_NETWORK, say
        )
        return result, long_text(result)
    cost = cost_of(fixed(args.model, sidecar, size))  # before it takes minutes
    peaks = Peaks(sorted({DEVICES[contender.name] for contender in compared}), args.threads)
    result = measure(
        compared, clip, args.frames, args.rate, args.rounds, say=say, beside=peaks.measure
    )
    result |= {
        "threads": args.threads,
        "precision": sidecar.precision,
        "cost": vars(cost),
        "peaks": peaks.found,
        "roofline": roofline(result["backends"], cost, sidecar.precision, peaks.found),
    }
    return result, f"{bench_text(result)}\n\n{roofline_text(result)}"


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Every way to run the network, side by side.")
    parser.add_argument("--nets", nargs="+", choices=DEVICES, help="default: all for this machine")
    parser.add_argument("--model", type=Path, default=RELEASED, help="ONNX file of the network")
    parser.add_argument("--size", default="640x192", help="of the images, in pixels")
    parser.add_argument("--frames", type=int, default=300, help="counted, warm as many as paced")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="in which they are shown")
    parser.add_argument("--rate", type=float, default=30.0, help="of a camera, in Hz")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU, for all")
    parser.add_argument("--steps", type=int, help="take so many steps and look at the memory")
    networks = [name for name in DEVICES if name != NO_NETWORK]
    parser.add_argument("--reference", choices=networks, default="torch-cpu", help="for --steps")
    parser.add_argument("--reference-steps", type=int, help="that it takes at most; default: all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    for name in ("frames", "rounds", "rate", "threads", "steps", "reference_steps"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    if args.steps == 1:
        parser.error("--steps must be 2 at least: the first frame has no motion")
    try:
        result, text = run(args)
    except VoStreamError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result) if args.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
