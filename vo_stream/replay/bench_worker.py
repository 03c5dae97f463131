"""The process in which one backend is measured: `python -m vo_stream.replay.bench_worker`.

It reads commands from standard input, one JSON object a line, and answers each with one. Between
commands it waits for the next and takes no processor time, so several such processes can take
turns. What libraries print to standard output goes to standard error. It ends with its input.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vo_stream.camera import Rectifier
from vo_stream.config import Config
from vo_stream.errors import VoStreamError
from vo_stream.net.backends import open_backend
from vo_stream.net.stepnet import StepNet
from vo_stream.replay.bench_clip import Clip
from vo_stream.replay.bench_memory import device_mb, peak_mb, resident_mb
from vo_stream.track.odometer import Odometer
from vo_stream.values import NANOSECONDS, Motion

Row = dict[str, Any]

STEP, PREPROCESSED, WHOLE = "step_ms", "preprocess_step_ms", "odometer_ms"
"""What is timed: StepNet.step; the Rectifier (undistorting and scaling down) and that step; all of
Odometer.step, which holds both."""

LIBRARIES = (
    "numpy", "cv2", "onnxruntime", "openvino", "torch", "tensorrt", "tensorrt_rtx", "cuda.bindings",
)  # fmt: skip
"""Modules whose version is told, where the backend has loaded them."""


class Bench:
    """One backend and an odometer that goes on through all rounds."""

    def __init__(self, open_net: Callable[[Config], StepNet]) -> None:
        self._open_net = open_net
        self._net: StepNet
        self._odometer: Odometer
        self._clip: Clip
        self._shown = 0

    def open(self, config: Row, clip: str) -> Row:
        """Open the backend and show it the first frame; raises NetError.

        `clip`: file of a `Clip`. Times are in milliseconds, memory in MB.
        """
        settings = Config().replaced(config, "bench")
        self._clip = Clip.load(Path(clip))
        before = resident_mb()
        began = time.perf_counter()
        self._net = self._open_net(settings)
        load_ms = _milliseconds_since(began)
        self._odometer = Odometer(self._net, settings.track, settings.scale)
        began = time.perf_counter()
        self._show()
        return {
            "backend": self._net.spec.name,
            "input_size": list(self._net.spec.input_size(self._clip.camera.size)),
            "load_ms": load_ms,
            "first_frame_ms": _milliseconds_since(began),
            "memory_before_mb": before,
            "versions": _versions(),
        }

    def round(self, settle: int, frames: int, rate_hz: float | None) -> Row:
        """Show `settle` frames that are not counted and then `frames` that are.

        `rate_hz`: of the frames; None: each as soon as the one before is done. Late is a frame
        whose turn came while the one before was worked on.
        """
        times: dict[str, list[float]] = {name: [] for name in (STEP, PREPROCESSED, WHOLE)}
        statuses: Counter[str] = Counter()
        late, counted_from, cpu_from = 0, 0.0, 0.0
        start = time.perf_counter()
        for i in range(settle + frames):
            if i == settle:
                counted_from, cpu_from = time.perf_counter(), time.process_time()
            if rate_hz is not None:
                pause = start + i / rate_hz - time.perf_counter()
                if pause > 0.0:
                    time.sleep(pause)
                elif i >= max(settle, 1):
                    late += 1
            whole_ms, status = self._show()
            if i >= settle:
                stages = self._odometer.times
                times[STEP].append(stages.net)
                times[PREPROCESSED].append(stages.rectify + stages.net)
                times[WHOLE].append(whole_ms)
                statuses[status] += 1
        return {
            **times,
            "wall_s": time.perf_counter() - counted_from,
            "cpu_s": time.process_time() - cpu_from,
            "late": late,
            "statuses": statuses,
        }

    def stream(self, steps: int, samples: int, keep: int, state_file: str) -> Row:
        """Take steps of the backend alone, from a clean state; raises NetError.

        Memory is looked at `samples` times, evenly. The motions of the last `keep` steps come
        back: (4, 4) prev_from_curr and its (6,) standard deviations, None where there was none.
        The state at the end is written to `state_file`, the part of it that can be read.
        """
        clip, net = self._clip, self._net
        rectify = Rectifier(clip.camera, net.spec.input_size(clip.camera.size))
        images = [rectify(image) for image in clip.images]
        times = np.empty(steps, dtype=np.float32)
        memory: list[Row] = []
        motions: list[Row | None] = []
        look = {round(steps * (i + 1) / samples) - 1 for i in range(samples)}
        state, before_ns = net.start(), clip.frame(0).stamp_ns
        for i in range(steps):
            stamp_ns = clip.frame(i).stamp_ns
            began = time.perf_counter()
            motion, state = net.step(
                images[clip.index(i)], rectify.rays, (stamp_ns - before_ns) / NANOSECONDS, state
            )
            times[i] = _milliseconds_since(began)
            before_ns = stamp_ns
            if i >= steps - keep:
                motions.append(_told(motion))
            if i in look:
                memory.append(
                    {"step": i + 1, "resident_mb": resident_mb(), "device_mb": device_mb()}
                )
        np.savez(state_file, **_arrays(getattr(state, "memory", None)))
        return {STEP: spread(times[1:]), "memory": memory, "motions": motions}

    def end(self) -> Row:
        """Close the backend; return what it took until then."""
        taken = {"memory_peak_mb": peak_mb(), "device_mb": device_mb(), "versions": _versions()}
        self._net.close()
        return taken

    def _show(self) -> tuple[float, str]:
        """Show the odometer the next frame; return the milliseconds and the status."""
        frame = self._clip.frame(self._shown)
        self._shown += 1
        began = time.perf_counter()
        estimate = self._odometer.step(frame)
        return _milliseconds_since(began), estimate.status.value


PERCENTILES = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


def spread(times: Any) -> dict[str, float]:
    """Return the percentiles of some times."""
    return {name: float(np.percentile(times, q)) for name, q in PERCENTILES.items()}


def _told(motion: Motion | None) -> Row | None:
    if motion is None:
        return None
    return {"motion": motion.prev_from_curr.as_matrix().tolist(), "std": motion.std.tolist()}


def _arrays(slot: Any) -> dict[str, Any]:
    """Return the tensors of a network's memory by name; none where they cannot be read here."""
    stream = getattr(slot, "stream", None)
    states = getattr(getattr(stream, "buffers", stream), "states", None)
    if not isinstance(states, list):
        return {}
    found = {}
    for name, tensor in states[slot.index].items():
        found[name] = np.asarray(tensor.cpu() if hasattr(tensor, "cpu") else tensor)
    return found


def _versions() -> dict[str, str]:
    """Return the versions of Python and of the `LIBRARIES` that are loaded."""
    loaded = {name: sys.modules[name] for name in LIBRARIES if name in sys.modules}
    told = {name: getattr(module, "__version__", "") for name, module in loaded.items()}
    return {"python": platform.python_version(), **{n: str(v) for n, v in told.items() if v}}


def _milliseconds_since(began: float) -> float:
    return 1e3 * (time.perf_counter() - began)


def serve(open_net: Callable[[Config], StepNet] = open_backend) -> None:
    """Answer commands until there are no more; what the user can mend is answered as an error.

    `open_net` opens the backend; raises NetError.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        bench = Bench(open_net)
        commands: dict[str, Callable[..., Row]] = {
            "open": bench.open,
            "round": bench.round,
            "stream": bench.stream,
            "end": bench.end,
        }
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                answer = commands[asked.pop("do")](**asked)
            except VoStreamError as error:
                answer = {"error": str(error)}
            try:
                answers.write(json.dumps(answer) + "\n")
                answers.flush()
            except BrokenPipeError:  # whoever asked is gone
                os._exit(1)


if __name__ == "__main__":
    serve()
