"""Throw damaged frames, recordings, settings and trajectories at vo_stream, and see that it holds.

python tools/fuzz.py [--cases N] [--seed S] [--kinds stream mcap ...] [--external N]

Every failure is printed with the command that repeats it. Exit code 1 where there was one.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fuzz_cases import CASE_LIMIT_S, CASES, Bench, run_case

SHARES = {"stream": 4, "evaluate": 3, "calibration": 2, "settings": 2}
"""How many cases of a kind there are for each one of the others."""

MEMORY_BYTES = 8 * 2**30


def main() -> int:
    """Run the cases; return the exit code."""
    parser = argparse.ArgumentParser(description="Fuzz vo_stream.")
    parser.add_argument("--cases", type=int, default=2000, help="cases in this process")
    parser.add_argument("--external", type=int, default=0, help="more, each in its own process")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; then counted up")
    parser.add_argument("--kinds", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--verbose", action="store_true", help="show whole tracebacks")
    args = parser.parse_args()

    logging.getLogger().addHandler(logging.NullHandler())  # the command would log to the terminal
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    outcomes: Counter[tuple[str, str]] = Counter()
    failures: Counter[str] = Counter()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="vo_stream_fuzz_") as folder:
        bench = Bench(Path(folder))
        for count, external in ((args.cases, False), (args.external, True)):
            bench.external = external
            kinds = [k for k in args.kinds if not (external and k == "stream")]
            order = [kind for kind in kinds for _ in range(SHARES.get(kind, 1))]
            for i in range(count if order else 0):
                kind, seed = order[i % len(order)], args.seed + i
                faulthandler.dump_traceback_later(3 * CASE_LIMIT_S, exit=True)
                try:
                    outcomes[kind, run_case(kind, seed, bench)] += 1
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                    outcomes[kind, "FAILED"] += 1
                    key = _where(error)
                    failures[key] += 1
                    if failures[key] <= 3 or args.verbose:
                        how = "--cases 0 --external 1" if external else "--cases 1"
                        print(f"FAILED {key}\n  fuzz.py {how} --kinds {kind} --seed {seed}")
                    if args.verbose:
                        traceback.print_exception(error)
        faulthandler.cancel_dump_traceback_later()
        damaged = bench.damaged
    seconds = time.perf_counter() - began
    print(f"{outcomes.total()} cases, {damaged} damaged files and frames, {seconds:.0f} s")
    for (kind, outcome), n in sorted(outcomes.items()):
        print(f"  {kind:<12} {outcome:<12} {n}")
    for key, n in failures.most_common():
        print(f"  {n} x {key}")
    return 1 if failures else 0


def _where(error: BaseException) -> str:
    """Return an exception in one line, with the innermost line of the package that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "vo_stream" in Path(f.filename).parts] or frames
    message = " ".join(str(error).split())[:160]
    return f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}: {message}"


if __name__ == "__main__":
    sys.exit(main())
