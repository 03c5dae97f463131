"""Files of a network and runtimes on the CPU against each other: speed, and what it costs.

python tools/compare_precisions.py RECORDING ... --net FILE[@RUNTIME] ...
    [--threads 2] [--frames N] [--json]

Every net sees every frame of every recording, one after another in an order that moves on from
frame to frame, so that all are timed on the same pictures beside the same other work of the
machine. The first net is the reference. RUNTIME is onnxruntime (the default, as the package runs
it), openvino-f32 or openvino-bf16 (pip install openvino). Shown are the median and the 95th
percentile of a step of the network, from image to motion, and its share of the reference's median;
the ATE after Sim(3) against ground truth, and its change; and the ATE after SE(3) against the
reference's path, which has no other error in it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vo_stream.config import Config
from vo_stream.errors import NetError, VoStreamError
from vo_stream.net.learned_net import Answer, Floats, Image, LearnedNet
from vo_stream.net.onnx_net import OnnxNet
from vo_stream.net.proof import Arrays, Run, carried, start_of
from vo_stream.net.sidecar import INPUTS, RELEASED, read_sidecar
from vo_stream.net.stepnet import StepNet
from vo_stream.replay.bench_text import table
from vo_stream.replay.metrics import evaluate
from vo_stream.replay.result import trajectory_of
from vo_stream.replay.sources import open_source, prefetch
from vo_stream.replay.trajectory import Trajectory
from vo_stream.track.odometer import Odometer
from vo_stream.values import Estimate

WARM_UP = 3
"""Frames of each recording that are not timed: the first of a size allocates."""

COLUMNS = (
    "recording", "net", "frames", "p50 ms", "p95 ms", "share", "ATE m", "change", "off ref m",
    "path m",
)  # fmt: skip

Row = dict[str, Any]


class OpenVinoNet(LearnedNet[Arrays]):
    """StepNet of an ONNX file by OpenVINO; `precision`: f32 or bf16, of the whole graph.

    The graph is compiled anew for each size of images. Raises NetError.
    """

    def __init__(self, path: Path, threads: int, precision: str) -> None:
        try:
            self._openvino: Any = importlib.import_module("openvino")
        except ImportError:
            raise NetError("openvino is not installed: pip install openvino") from None
        self._sidecar = read_sidecar(path)
        super().__init__(self._sidecar.spec("openvino"))
        self._path = path
        self._settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._graphs: dict[tuple[int, int], Run] = {}

    def _clean(self, width: int, height: int) -> Arrays:
        return start_of(self._sidecar, (width, height))

    def _run(
        self, image: Image, rays: Floats, dt_s: float, memory: Arrays
    ) -> tuple[Answer, Arrays]:
        values = (
            image[None, None] * np.float32(1.0 / 255.0),
            rays[None],
            np.full((1, 1), dt_s, np.float32),
        )
        inputs = dict(zip(INPUTS, values, strict=True)) | memory
        height, width = image.shape
        if (width, height) not in self._graphs:
            self._graphs[width, height] = self._compiled(inputs)
        outputs = self._graphs[width, height](inputs)
        after = carried(outputs)
        said = {name: outputs[name][0] for name in ("rotation", "translation", "std")}
        trust = float(outputs["weight"].mean())
        sound = all(bool(np.isfinite(part.sum())) for part in after.values())
        return Answer(**said, trust=trust, sound=sound), after

    def _compiled(self, inputs: Arrays) -> Run:
        """Return the graph for the shapes of these inputs, as a function."""
        model = self._openvino.Core().read_model(str(self._path))
        model.reshape({name: list(value.shape) for name, value in inputs.items()})
        compiled = self._openvino.Core().compile_model(model, "CPU", self._settings)
        names = [output.get_any_name() for output in compiled.outputs]
        request = compiled.create_infer_request()

        def run(inputs: Arrays) -> Arrays:
            found = request.infer(inputs, share_inputs=True)
            return {name: np.array(found[i]) for i, name in enumerate(names)}

        return run


def _onnxruntime(path: Path, threads: int) -> StepNet:
    settings = {"net.model_file": str(path), "net.threads": threads}
    return OnnxNet(Config().replaced(settings, "command line").net)


RUNTIMES: Mapping[str, Callable[[Path, int], StepNet]] = {
    "onnxruntime": _onnxruntime,
    "openvino-f32": lambda path, threads: OpenVinoNet(path, threads, "f32"),
    "openvino-bf16": lambda path, threads: OpenVinoNet(path, threads, "bf16"),
}


@dataclass
class Runner:
    """One net on one recording. `ms`: of each timed step."""

    name: str
    odometer: Odometer
    estimates: list[Estimate] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)


def opened(text: str, threads: int) -> StepNet:
    """Open FILE[@RUNTIME]; raises NetError."""
    file, at, runtime = text.rpartition("@")
    if not at:
        file, runtime = text, "onnxruntime"
    if runtime not in RUNTIMES:
        raise NetError(f"{text}: no such runtime; there are {', '.join(RUNTIMES)}")
    return RUNTIMES[runtime](Path(file), threads)


def compared(folder: Path, nets: Mapping[str, StepNet], frames: int | None) -> list[Row]:
    """Show a recording to all nets, frame by frame; return a row for each.

    Raises VoStreamError where the recording cannot be read or has no ground truth.
    """
    config = Config()
    runners = [Runner(n, Odometer(net, config.track, config.scale)) for n, net in nets.items()]
    turns = deque(runners)
    with open_source(folder) as source:
        if source.groundtruth is None:
            raise VoStreamError(f"{folder}: has no ground truth to compare with")
        with prefetch(islice(source.frames(), frames)) as shown:
            for index, frame in enumerate(shown):
                for runner in turns:
                    runner.estimates.append(runner.odometer.step(frame))
                    if index >= WARM_UP:
                        runner.ms.append(runner.odometer.times.net)
                turns.rotate(1)
    if not runners[0].ms:
        raise VoStreamError(f"{folder}: has no more than the {WARM_UP} frames that are not timed")
    reference, _ = trajectory_of(runners[0].estimates)
    return [_row(source.name, runner, source.groundtruth, reference) for runner in runners]


def _row(recording: str, runner: Runner, truth: Trajectory, reference: Trajectory) -> Row:
    path, _ = trajectory_of(runner.estimates)
    against_truth, against_reference = evaluate(path, truth), evaluate(path, reference)
    return {
        "recording": recording,
        "net": runner.name,
        "frames": len(runner.estimates),
        "p50_ms": float(np.percentile(runner.ms, 50)),
        "p95_ms": float(np.percentile(runner.ms, 95)),
        "ate_m": against_truth.ate_rmse_m["sim3"],
        "off_reference_m": against_reference.ate_rmse_m["se3"],
        "path_m": against_truth.path_length_m["groundtruth"],
    }


def text_of(rows: Sequence[Row]) -> str:
    """Return the rows as a table; each is compared with the first of its recording."""
    cells = [list(COLUMNS)]
    first = rows[0]
    for row in rows:
        if row["recording"] != first["recording"]:
            first = row
        change = row["ate_m"] / first["ate_m"] - 1.0 if first["ate_m"] else float("nan")
        cells.append(
            [row["recording"], row["net"], str(row["frames"])]
            + [f"{row[key]:.1f}" for key in ("p50_ms", "p95_ms")]
            + [f"{row['p50_ms'] / first['p50_ms']:.2f}", f"{row['ate_m']:.4f}", f"{change:+.1%}"]
            + [f"{row['off_reference_m']:.4f}", f"{row['path_m']:.2f}"]
        )
    return "\n".join(table(cells, left=2))


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Speed and accuracy of nets on the CPU.")
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING")
    parser.add_argument(
        "--net",
        action="append",
        metavar="FILE[@RUNTIME]",
        help="once for each; the first is the reference. Default: the released network.",
    )
    parser.add_argument("--threads", type=int, default=2, help="of each net (default 2)")
    parser.add_argument("--frames", type=int, help="of each recording, at most")
    parser.add_argument("--json", action="store_true", help="print JSON, nothing else")
    args = parser.parse_args()
    texts = args.net or [str(RELEASED)]
    if len(set(texts)) < len(texts):
        parser.error("--net: the same one twice")
    if args.frames is not None and args.frames <= WARM_UP:
        parser.error(f"--frames must be more than the {WARM_UP} that are not timed")
    if args.threads < 0:
        parser.error("--threads must not be negative")
    try:
        nets = {text: opened(text, args.threads) for text in texts}
        rows = [row for path in args.recordings for row in compared(path, nets, args.frames)]
    except VoStreamError as error:
        print(error, file=sys.stderr)
        return 2
    short = {text: Path(text).name for text in texts}
    if len(set(short.values())) == len(short):
        rows = [row | {"net": short[row["net"]]} for row in rows]
    print(json.dumps(rows, indent=2) if args.json else text_of(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
