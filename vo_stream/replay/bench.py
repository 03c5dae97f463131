"""How fast backends are here: latency, throughput and memory, each in a process of its own.

All backends see the same frames. A round shows each of them some frames back to back and some at
the rate of a camera, one backend after the other; every other round in the other order, for a
machine is faster at times. Speeds are compared within a round.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

import vo_stream
from vo_stream.config import Config
from vo_stream.errors import NetError
from vo_stream.net.backends import BACKENDS
from vo_stream.net.cuda import first_gpu
from vo_stream.replay.bench_clip import Clip, camera_of, clip_of, saved
from vo_stream.replay.bench_worker import PREPROCESSED, STEP, WHOLE, Row, spread
from vo_stream.replay.sources import open_source
from vo_stream.se3 import SE3
from vo_stream.values import Frame

WORKER = (sys.executable, "-m", "vo_stream.replay.bench_worker")

CLIP_FRAMES = 31
"""Images of a rendered clip: what a camera sees within a second."""

FOOTAGE_FRAMES = 300
"""Images of a recording at most: they are held in memory."""

ROUNDS = 5
SETTLE = 10
"""Frames at the start of each turn that are not counted: other processes had the caches."""

END_S = 10.0
"""A process that has nothing to do any more ends within this time."""

RTX = "tensorrt_rtx"
"""The module of TensorRT-RTX, which may run the backend tensorrt."""

WARM, PACED = "warm", "paced"
"""Frames back to back; frames at the rate of a camera."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A backend to be measured.

    `environment`: variables that its process gets. `command`: of that process, which serves as
    `bench_worker` does.
    """

    name: str
    config: Config
    environment: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = WORKER


def contenders_of(config: Config) -> list[Contender]:
    """Return the backend that the settings name, or all of them where they say auto."""
    names = list(BACKENDS) if config.net.backend == "auto" else [config.net.backend]
    return [Contender(n, config.replaced({"net.backend": n}, "bench")) for n in names]


def rendered_clip(
    film: Callable[..., Iterable[tuple[Frame, SE3]]], size: str | None, rate_hz: float
) -> Clip:
    """Return a drive along a street, at that rate.

    `film`: `demo.world.render_demo`. `size`: "WIDTHxHEIGHT" of the camera's images in pixels; None
    takes those of the street's own camera. Raises ConfigError where there can be no such camera.
    """
    camera = None if size is None else camera_of(size)
    frames = film("street", CLIP_FRAMES / rate_hz, rate_hz, camera=camera)
    return clip_of((frame for frame, _ in frames), "street")


def recorded_clip(path: Path, config: Config) -> Clip:
    """Return the first `FOOTAGE_FRAMES` frames of a recording; raises SourceError, ConfigError."""
    calib = config.camera.calibration_file
    with open_source(
        path,
        topic=config.replay.topic,
        camera_info_topic=config.replay.camera_info_topic,
        rectified=config.camera.rectified,
        calib=Path(calib) if calib else None,
    ) as source:
        return clip_of(islice(source.frames(), FOOTAGE_FRAMES), source.name)


class Worker:
    """The process of one backend; use it in a `with`."""

    def __init__(self, contender: Contender) -> None:
        self.name = contender.name
        self._process = subprocess.Popen(
            contender.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | dict(contender.environment),
        )

    def ask(self, do: str, **arguments: object) -> Row:
        """Return the answer to a command; raises NetError, also where the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):  # nothing, or the part that it came to
            raise NetError(f"{self.name}: its process ended, {_ending(self._process.wait())}")
        answer: Row = json.loads(line)
        if "error" in answer:
            raise NetError(answer["error"])
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with self._process as process:
            assert process.stdin is not None
            if error is not None:  # it may be at work for minutes, and nobody waits for the answer
                process.kill()
            try:
                process.stdin.close()
                process.wait(END_S)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                process.kill()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"by {signal.Signals(-code).name}"


@contextmanager
def opened(
    contenders: Sequence[Contender], clip: Clip, say: Callable[[str], None]
) -> Iterator[tuple[dict[str, tuple[Worker, Row]], list[Row]]]:
    """Have each backend open in a process; yield those that run, by name, and the others.

    Each comes with what its worker answered to `open`; the others with name and reason. Raises
    NetError where none runs: the reason of the only one, or of all. Raises SourceError where the
    frames cannot be written for the processes.
    """
    running: dict[str, tuple[Worker, Row]] = {}
    left_out: list[Row] = []
    with ExitStack() as stack:
        with saved(clip) as file:  # until all have read it
            for contender in contenders:
                say(f"opening {contender.name}")
                worker = stack.enter_context(Worker(contender))
                try:
                    about = worker.ask("open", config=contender.config.as_dict(), clip=str(file))
                except NetError as error:
                    left_out.append({"name": contender.name, "reason": str(error)})
                else:
                    running[_named(contender, about)] = worker, about
        if not running:
            only = len(left_out) == 1
            reasons = [f"{o['name']}: {o['reason']}" for o in left_out]
            raise NetError(left_out[0]["reason"] if only else "; ".join(reasons))
        yield running, left_out


def _named(contender: Contender, about: Row) -> str:
    """Return the name that figures go by: TensorRT-RTX is not TensorRT."""
    is_rtx = about["backend"] == "tensorrt" and RTX in about["versions"]
    return RTX if is_rtx else contender.name


def measure(
    contenders: Sequence[Contender],
    clip: Clip,
    frames: int,
    rate_hz: float,
    rounds: int = ROUNDS,
    say: Callable[[str], None] = lambda _: None,
    beside: Callable[[], None] = lambda: None,
) -> Row:
    """Measure backends against each other on the frames of a clip.

    `frames`: counted for each backend, as many warm as paced, spread over at most so many rounds.
    `say` is told what begins; `beside` is called after each round. Returns the result as plain
    values, as docs/benchmarks.md explains it. Raises NetError where none of them runs, or one
    breaks.
    """
    rounds = min(rounds, frames)
    shares = [frames * (i + 1) // rounds - frames * i // rounds for i in range(rounds)]
    about_machine = machine()
    with opened(contenders, clip, say) as (running, left_out):
        turns: dict[str, dict[str, list[Row]]] = {n: {WARM: [], PACED: []} for n in running}
        for number, share in enumerate(shares):
            for name in list(running)[:: 1 if number % 2 == 0 else -1]:
                say(f"round {number + 1} of {rounds}: {name}")
                worker, _ = running[name]
                for mode, rate in ((WARM, None), (PACED, rate_hz)):
                    turns[name][mode].append(
                        worker.ask("round", settle=SETTLE, frames=share, rate_hz=rate)
                    )
            beside()
        base = next(iter(running))
        rows = [
            {
                "name": name,
                **about,
                **worker.ask("end"),
                **{mode: _figures(turns[name][mode]) for mode in (WARM, PACED)},
                "speed_up": _speed_up(turns[base][WARM], turns[name][WARM]),
            }
            for name, (worker, about) in running.items()
        ]
    return {
        "vo_stream": vo_stream.__version__,
        "machine": about_machine,
        "clip": {"name": clip.name, "size": list(clip.camera.size), "images": len(clip.images)},
        "frames": frames,
        "rounds": rounds,
        "rate_hz": rate_hz,
        "base": base,
        "backends": rows,
        "left_out": left_out,
    }


def _figures(turns: Sequence[Row]) -> Row:
    """Return the figures of one way of showing frames, over the turns of all rounds."""
    times = {n: np.concatenate([turn[n] for turn in turns]) for n in (STEP, PREPROCESSED, WHOLE)}
    frames = len(times[STEP])
    statuses: Counter[str] = Counter()
    for turn in turns:
        statuses.update(turn["statuses"])
    return {
        **{name: spread(all_of_them) for name, all_of_them in times.items()},
        "frames_per_s": frames / sum(turn["wall_s"] for turn in turns),
        "cpu_ms_per_frame": 1e3 * sum(turn["cpu_s"] for turn in turns) / frames,
        "late": sum(turn["late"] for turn in turns),
        "statuses": dict(statuses),
    }


def _speed_up(base: Sequence[Row], own: Sequence[Row]) -> dict[str, float]:
    """Return how many times faster a median step is than the base's, over the rounds."""
    pairs = zip(base, own, strict=True)
    ratios = [float(np.median(b[STEP]) / np.median(o[STEP])) for b, o in pairs]
    return {"median": float(np.median(ratios)), "min": min(ratios), "max": max(ratios)}


def machine() -> Row:
    """Return what it is that is measured on, and how busy it was before."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = first_gpu()
    return {
        "processor": _processor(),
        "gpu": None if gpu is None else str(gpu),
        "architecture": platform.machine(),
        "cpus": usable,
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    """Return the name of the processor; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
