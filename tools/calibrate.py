"""Calibrate the standard deviations of trained weights on held-out worlds.

python tools/calibrate.py WEIGHTS --worlds DIR --out FILE [--render N --size 640x192 ...]

DIR holds clips that were never trained on, such as a training's held_out_*.npz; one half sets one
temperature for each axis and how alike the errors of neighbouring steps are, the other judges. FILE
gets the weights with the temperatures folded in; its header tells all that WEIGHTS' told, what was
found, the NEES before and after, and the lowest and highest frame rate trained on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from train import size

from vo_stream.errors import VoStreamError
from vo_stream.net.torch_net import load_network
from vo_stream.pose_error import AXES
from vo_stream.training.calibrate import calibrate, rates, stamps_in
from vo_stream.training.checkpoint import write_tensors
from vo_stream.training.clip import Clip, concatenate
from vo_stream.training.clip_store import HELD_OUT_SEED, ClipFolder, Recipe
from vo_stream.training.data import Size

FIRST_SEED = HELD_OUT_SEED + 1_000_000
"""Of the worlds rendered here; far from those that a training is validated by."""

AT_ONCE = 4
"""Clips of one size that are streamed together; even, so that both halves are as large."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Calibrate standard deviations.")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="a .safetensors file")
    parser.add_argument("--worlds", type=Path, required=True, metavar="DIR", help="held-out clips")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--render", type=int, default=0, metavar="N", help="first, until DIR has N of each --size"
    )
    parser.add_argument("--size", type=size, action="append", metavar="WIDTHxHEIGHT")
    parser.add_argument("--frames", type=int, default=36, help="of a rendered clip")
    parser.add_argument(
        "--trained-on", type=Path, metavar="DIR", help="clips to tell the frame rates by (--worlds)"
    )
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def render(folder: Path, sizes: list[Size], count: int, recipe: Recipe) -> None:
    """Render held-out worlds until there are `count` files of each size, a world in each."""
    clips = ClipFolder(folder, keep=count)
    for wanted in sizes:
        while len(clips.files(wanted)) < count:
            seed = clips.next_seed(FIRST_SEED)
            clips.add(recipe.render(wanted, 1, seed), seed)


def held_out_clips(folder: Path) -> Iterator[Clip]:
    """Yield batches of the clips in a folder: files of one clip together, others as they are."""
    single: list[Clip] = []
    for path in sorted(folder.glob("*.npz")):
        clip = Clip.load(path)
        if len(clip.images) == 1:
            single.append(clip)
        else:
            yield clip
    for _, alike in groupby(single, lambda clip: clip.images.shape):
        batch = list(alike)
        for begin in range(0, len(batch), AT_ONCE):
            yield concatenate(batch[begin : begin + AT_ONCE])


def run(args: argparse.Namespace) -> None:
    """Calibrate as the command line says."""
    torch.set_num_threads(args.threads)
    network, about = load_network(args.weights)
    if "calibration" in about:
        raise VoStreamError(f"{args.weights}: calibrated already; take what the training left")
    if args.render:
        sizes = args.size or [(640, 192), (416, 288)]
        render(args.worlds, sizes, args.render, Recipe(args.frames))
    stamps = stamps_in(args.trained_on or args.worlds)
    if not stamps:
        raise VoStreamError(f"{args.trained_on or args.worlds}: no clips there; --render some")
    report = calibrate(network, held_out_clips(args.worlds))
    header = {**about, "rate_hz": rates(stamps), "calibration": report}
    write_tensors(args.out, network.state_dict(), header)
    print(table(report))


def table(report: dict[str, Any]) -> str:
    """Return the temperatures and the NEES as a table in Markdown."""
    lines = ["| | " + " | ".join(AXES) + " | all | inside | 95 % of one axis, of all |"]
    lines.append("|---" * (len(AXES) + 4) + "|")
    for key, what in (
        ("temperature", "temperature"),
        ("error_share", "share that lasts"),
        ("error_time_s", "for seconds"),
    ):
        numbers = " | ".join(f"{report[key][axis]:.3g}" for axis in AXES)
        lines.append(f"| {what} | {numbers} | | | |")
    for window, both in report["nees"].items():
        for when, found in both.items():
            if found is None:
                continue
            axes = " | ".join(f"{found['axes'][axis]:.2f}" for axis in AXES)
            bands = ", ".join(
                "{:.2f} to {:.2f}".format(*found[band]) for band in ("axes_band", "all_band")
            )
            lines.append(
                f"| NEES of a {window}, {when} ({found['increments']} of {found['clips']} clips) "
                f"| {axes} | {found['all']:.2f} | {100 * found['inside']:.0f} % | {bands} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Run the command; return its exit code."""
    args = arguments()
    try:
        run(args)
    except (VoStreamError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
