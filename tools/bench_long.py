"""Very many steps of each backend: whether memory grows, and whether the end is right."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vo_stream.net.proof import TOLERANCE
from vo_stream.replay.bench import Contender, machine, opened
from vo_stream.replay.bench_clip import Clip
from vo_stream.replay.bench_text import table
from vo_stream.se3 import SE3

Row = dict[str, Any]
Floats = npt.NDArray[np.float64]

SAMPLES = 100
"""Looks at the memory on the way."""

SETTLED_PART = 0.1
"""Of the looks: growth is counted from there on. Buffers and caches are filled by then."""


def long_run(
    contenders: Sequence[Contender],
    reference: Contender,
    clip: Clip,
    steps: int,
    reference_steps: int,
    precision: str,
    incomparable: str,
    say: Callable[[str], None],
) -> Row:
    """Let each backend take so many steps from a clean state, one after the other.

    `reference_steps`: that the reference takes at most. `precision`: of the network, which says
    how much may be off. `incomparable`: name of the one that is no network. Raises NetError where
    one cannot run.
    """
    period = clip.period
    few = last_part(steps, reference_steps, period)
    with tempfile.TemporaryDirectory(prefix="vo_stream_bench_") as folder:
        about_machine = machine()
        true = _streamed(reference, clip, few, 2 * period, Path(folder), say)
        rows = []
        for contender in contenders:
            own = _streamed(contender, clip, steps, period, Path(folder), say)
            row: Row = {"name": own["name"], "versions": own["versions"]}
            row |= {"step_ms": own["step_ms"], "memory": own["memory"]}
            row |= {f"{kind}_grown_mb": _grown(own["memory"], kind) for kind in MEMORY}
            if contender.name != incomparable:
                row |= compared(own, true, precision)
            rows.append(row)
    last, before = true["motions"][-period:], true["motions"][: -period or None]
    repeats = motions_off(before, last) if len(before) == len(last) else None
    return {
        "machine": about_machine,
        "steps": steps,
        "period": period,
        "precision": precision,
        "reference": {
            "name": true["name"],
            "steps": few,
            "versions": true["versions"],
            "repeats_within": repeats,
        },
        "backends": rows,
    }


def last_part(steps: int, most: int, period: int) -> int:
    """Return the steps of a stream that ends at the same image; at most `most`, or a period."""
    left_out = -(-max(0, steps - most) // period) * period
    return max(steps - left_out, min(steps, steps % period + period))


MEMORY = ("resident", "device")


def _streamed(
    contender: Contender,
    clip: Clip,
    steps: int,
    keep: int,
    folder: Path,
    say: Callable[[str], None],
) -> Row:
    """Return what a worker tells of so many steps, with its state in "state"."""
    with opened([contender], clip, say) as (running, _):
        ((name, (worker, about)),) = running.items()
        say(f"{contender.name}: {steps} steps")
        file = folder / f"{contender.name}.npz"
        told = worker.ask(
            "stream",
            steps=steps,
            samples=min(SAMPLES, steps),
            keep=min(keep, steps - 1),
            state_file=str(file),
        )
    with np.load(file) as state:
        return {**told, "name": name, "versions": about["versions"], "state": dict(state)}


def _grown(memory: Sequence[Row], kind: str) -> float | None:
    """Return by how many MB memory grew once it had settled; None where there is none."""
    sizes = [look[f"{kind}_mb"] for look in memory]
    if sizes[-1] is None:
        return None
    return float(sizes[-1] - sizes[round(SETTLED_PART * len(sizes))])


def compared(own: Row, true: Row, precision: str) -> Row:
    """Return how much the last motions and the state are off, and whether that is within bounds.

    Of the motions: the median and the greatest over the last period, as parts of the longest
    motion; `net.proof` has the bounds. Of the state: each part, relative to its norm.
    """
    off = motions_off(own["motions"], true["motions"][-len(own["motions"]) :])
    median, greatest = TOLERANCE[precision]
    within = all(off[what]["median"] <= median and off[what]["max"] <= greatest for what in MOTION)
    state = {
        name: _relative(own["state"][name], array)
        for name, array in true["state"].items()
        if name in own["state"]
    }
    return {"motion_off": off, "motion_within": within, "state_off": state}


MOTION = ("translation", "rotation", "std")


def motions_off(own: Sequence[Row], true: Sequence[Row]) -> dict[str, Row]:
    """Return the median and greatest difference of two streams' motions, over the largest one."""
    found = {}
    for what in MOTION:
        pairs = [(_numbers(a, what), _numbers(b, what)) for a, b in zip(own, true, strict=True)]
        off = np.array([float(np.linalg.norm(a - b)) for a, b in pairs])
        largest = max(float(np.linalg.norm(b)) for _, b in pairs)
        relative = off / largest
        found[what] = {"median": float(np.median(relative)), "max": float(relative.max())}
    return found


def _numbers(told: Row, what: str) -> Floats:
    """Return metres, radians or standard deviations of a motion."""
    if what == "std":
        return np.asarray(told["std"], dtype=np.float64)
    twist = SE3.from_matrix(told["motion"]).log()
    return np.asarray(twist[:3] if what == "translation" else twist[3:], dtype=np.float64)


def _relative(own: npt.NDArray[Any], true: npt.NDArray[Any]) -> float:
    norm = float(np.linalg.norm(true))
    off = float(np.linalg.norm(own - true))
    return off / norm if norm > 0.0 else off


def long_text(result: Row) -> str:
    """Return a long run's result as tables."""
    reference = result["reference"]
    repeats, told = reference["repeats_within"], "it is too short to tell whether it repeats"
    if repeats is not None:
        median, most = (max(off[w] for off in repeats.values()) for w in ("median", "max"))
        told = f"its last two periods differ by {median:.1e} in the median, {most:.1e} at most"
    head = ["", "step p50 ms", "p99 ms", "MB", "grown MB", "GPU MB", "grown MB"]
    rows = [[*head, "motion off", "greatest", "state off", "within"]]
    for row in result["backends"]:
        last = row["memory"][-1]
        figures = [last["resident_mb"], row["resident_grown_mb"]]
        figures += [last["device_mb"], row["device_grown_mb"]]
        off = row.get("motion_off", {}).values()
        state = row.get("state_off", {}).values()
        rows.append(
            [
                row["name"],
                *(f"{row['step_ms'][p]:.3f}" for p in ("p50", "p99")),
                *("-" if figure is None else f"{figure:.1f}" for figure in figures),
                f"{max(o['median'] for o in off):.1e}" if off else "-",
                f"{max(o['max'] for o in off):.1e}" if off else "-",
                f"{max(state):.1e}" if state else "-",
                str(row.get("motion_within", "-")),
            ]
        )
    return "\n".join(
        [
            f"{result['steps']} steps of a clip of period {result['period']}; "
            f"{result['machine']['processor']}, {result['machine']['cpus']} CPUs",
            f"reference {reference['name']}, {reference['steps']} steps: {told}",
            "",
            *table(rows, left=1),
            "",
            *(
                f"{row['name']}: " + ", ".join(f"{n} {v}" for n, v in row["versions"].items())
                for row in result["backends"]
            ),
            "",
            "grown: after the first tenth of the steps. Off: of the last period, as parts of the",
            "largest motion (metres, radians, standard deviations; the worst of these), and of the",
            "state's norm, the worst part, where it can be read; within: motions, by the bounds of",
            "an export. A state means something only where the reference took as many steps.",
        ]
    )
