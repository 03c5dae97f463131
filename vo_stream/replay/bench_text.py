"""A benchmark's result as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vo_stream.replay.bench import PACED, WARM
from vo_stream.replay.bench_worker import PERCENTILES, PREPROCESSED, STEP, WHOLE, Row

STAGES = {
    STEP: "step",
    PREPROCESSED: "preprocess + step",
    WHOLE: "Odometer.step",
}

EXPLAINED = """\
warm: frames back to back; paced: at the rate of a camera, idle between them. late: frames whose
turn came while the one before was worked on. CPU: of all threads. before, peak: memory of the
backend's process in RAM with the frames loaded, and at its highest with the backend, its runtime
and weights. speed-up: of a median step, warm; in brackets the rounds' least and greatest."""


def bench_text(result: Row) -> str:
    """Return what `bench.measure` measured, as tables."""
    clip, host = result["clip"], result["machine"]
    lines = [
        f"{clip['name']}: {_size(clip['size'])}, {clip['images']} images there and back; "
        f"{result['frames']} frames each way in {result['rounds']} rounds; paced at "
        f"{result['rate_hz']:g} Hz",
        f"{host['processor'] or host['architecture']}, {host['cpus']} CPUs, {host['system']}, "
        f"load before {host['load_before']:.2f}; vo_stream {result['vo_stream']}",
        *([f"GPU: {host['gpu']}"] if host["gpu"] else []),
        "",
        *table([["ms", "", "", *PERCENTILES], *_latencies(result)], left=3),
        "",
        *table(_throughputs(result), left=2),
        "",
        *table(_processes(result), left=2),
        "",
        *(f"{row['name']}: {_versions(row)}" for row in result["backends"]),
        *(f"{other['name']}: left out, {other['reason']}" for other in result["left_out"]),
        "",
        EXPLAINED,
    ]
    return "\n".join(lines)


def table(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return rows of cells as aligned lines, the first `left` columns to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _latencies(result: Row) -> Iterator[list[str]]:
    for row in result["backends"]:
        for mode in (WARM, PACED):
            for stage, title in STAGES.items():
                figures = row[mode][stage]
                first = stage == STEP
                name, way = row["name"] if first and mode == WARM else "", mode if first else ""
                yield [name, way, title, *(f"{figures[p]:.2f}" for p in PERCENTILES)]


def _throughputs(result: Row) -> list[list[str]]:
    rows = [["", "", "frames/s", "CPU ms/frame", "late", "tracking"]]
    for row in result["backends"]:
        for mode in (WARM, PACED):
            figures = row[mode]
            rows.append(
                [
                    row["name"] if mode == WARM else "",
                    mode,
                    f"{figures['frames_per_s']:.1f}",
                    f"{figures['cpu_ms_per_frame']:.1f}",
                    str(figures["late"]),
                    f"{figures['statuses'].get('tracking', 0)} of {result['frames']}",
                ]
            )
    return rows


def _processes(result: Row) -> list[list[str]]:
    head = ["", "input", "load ms", "first frame ms", "before MB", "peak MB", "GPU MB"]
    rows = [[*head, f"speed-up over {result['base']}"]]
    for row in result["backends"]:
        ratio, device = row["speed_up"], row["device_mb"]
        rows.append(
            [
                row["name"],
                _size(row["input_size"]),
                f"{row['load_ms']:.0f}",
                f"{row['first_frame_ms']:.0f}",
                f"{row['memory_before_mb']:.0f}",
                f"{row['memory_peak_mb']:.0f}",
                "-" if device is None else f"{device:.0f}",
                f"{ratio['median']:.2f} ({ratio['min']:.2f}..{ratio['max']:.2f})",
            ]
        )
    return rows


def _versions(row: Row) -> str:
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())


def _size(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
