"""What a device can do at most, measured: a large matrix product and a large copy, by torch.

python tools/device_peak.py [--device cpu] [--threads N] [--json]

The roofline (Williams, Waterman, Patterson 2009) of a step has these two as its sides. Best of
some repetitions, after a warm-up. The copy is of memory that no cache holds; it counts what is
read and what is written. Half precision is measured on GPUs only, single precision without TF32.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

REPETITIONS = 5

SIDE = {"cpu": 1536, "cuda": 8192}
"""Of the square matrices."""

COPIED_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}


def peaks(device: str) -> dict[str, Any]:
    """Return operations a second by precision, and bytes a second, of "cpu" or "cuda"."""
    torch.backends.cuda.matmul.allow_tf32 = False
    precisions = {"fp32": torch.float32}
    if device == "cuda":
        precisions["fp16"] = torch.float16
    operations = {}
    for name, dtype in precisions.items():
        a, b = (torch.rand(SIDE[device], SIDE[device], device=device).to(dtype) for _ in range(2))
        seconds = best(device, partial(torch.mm, a, b, out=torch.empty_like(a)))
        operations[name] = 2 * SIDE[device] ** 3 / seconds
    source = torch.ones(COPIED_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = best(device, partial(target.copy_, source))
    return {"operations_per_s": operations, "bytes_per_s": 2 * COPIED_BYTES[device] / seconds}


def best(device: str, work: Callable[[], object]) -> float:
    """Return the shortest time, in seconds, that some work takes on a device."""

    def timed() -> float:
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    timed()
    return min(timed() for _ in range(REPETITIONS))


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="What a device can do at most.")
    parser.add_argument("--device", choices=SIDE, default="cpu", help="what is measured")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: as torch likes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    if args.threads < 0:
        parser.error("--threads must not be negative")
    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU", file=sys.stderr)
        return 2
    if args.threads:
        torch.set_num_threads(args.threads)
    with torch.inference_mode():
        found = peaks(args.device)
    found |= {"device": args.device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    if args.json:
        print(json.dumps(found))
        return 0
    for name, operations in found["operations_per_s"].items():
        print(f"{name}: {operations / 1e9:.1f} GFLOP/s")
    print(f"copy: {found['bytes_per_s'] / 1e9:.1f} GB/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
