"""Train the network on rendered worlds; interrupt it at any time and go on with --resume.

python tools/train.py --minutes N --out DIR [--resume] [--device cpu|cuda] [--size 320x96 ...]

DIR/last.safetensors is where a training goes on from, DIR/best.safetensors holds the weights that
validated best. DIR/train.csv, DIR/validation.csv and DIR/tensorboard tell how it went. Without a
GPU, worlds are rendered by a process beside the training, into DIR/worlds.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from vo_stream.errors import VoStreamError
from vo_stream.net.recurrent import CORES
from vo_stream.training.clip_store import ClipFolder, Recipe, RenderedClips, held_out, rendering
from vo_stream.training.data import Clips, Size, Variety, windows
from vo_stream.training.loop import LAST, MODELS, LoopSettings, Training
from vo_stream.training.objectives import OBJECTIVES
from vo_stream.training.render import KINDS
from vo_stream.training.schedule import OPTIMIZERS
from vo_stream.training.validate import validate

MULTIPLE = 32
"""Width and height of images are multiples of this."""

SEEDS_OF_A_RUN = 1_000_000
"""So far apart are the seeds of the worlds of trainings with one --seed and the next."""


def size(text: str) -> Size:
    """Return (width, height) of WIDTHxHEIGHT."""
    width, _, height = text.partition("x")
    wanted = int(width), int(height)
    if min(wanted) < MULTIPLE or any(side % MULTIPLE for side in wanted):
        raise argparse.ArgumentTypeError(f"{text}: both must be multiples of {MULTIPLE}")
    return wanted


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the network on rendered worlds.")
    parser.add_argument("--minutes", type=float, required=True, help="the whole schedule takes")
    parser.add_argument(
        "--stop-after",
        type=float,
        default=math.inf,
        metavar="MINUTES",
        help="end this run after so long; --resume goes on",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from DIR/last.safetensors")
    start.add_argument("--init", type=Path, metavar="FILE", help="start with these weights")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the training, on the CPU")
    parser.add_argument(
        "--size",
        type=size,
        action="append",
        metavar="WIDTHxHEIGHT",
        help="of images; may be given again, sizes then take turns",
    )
    parser.add_argument("--batch", type=int, default=4, help="clips of the smallest size at once")
    parser.add_argument("--window", type=int, default=4, help="frames to back-propagate through")
    parser.add_argument("--model", choices=MODELS, default="odometry")
    parser.add_argument("--core", choices=CORES, default="lstm")
    parser.add_argument("--loss", choices=OBJECTIVES, default="default")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--lr", type=float, default=5e-4, help="highest learning rate")
    parser.add_argument("--small", action="store_true", help="halve DIR/last.safetensors")
    parser.add_argument("--seed", type=int, default=0)
    worlds = parser.add_argument_group("worlds")
    worlds.add_argument("--worlds", type=Path, metavar="DIR", help="clips here (OUT/worlds)")
    worlds.add_argument("--no-render", action="store_true", help="use the clips that are there")
    worlds.add_argument("--clips", type=int, default=400, help="to keep, of each size")
    worlds.add_argument(
        "--kinds",
        nargs="+",
        choices=KINDS,
        default=KINDS,
        help="of worlds; what is named again comes oftener",
    )
    worlds.add_argument("--frames", type=int, default=24, help="of a clip")
    worlds.add_argument("--held-out", type=int, default=12, help="clips of each size to judge by")
    worlds.add_argument("--held-out-frames", type=int, default=16, help="of each of them")
    return parser.parse_args()  # fmt: skip


def train(args: argparse.Namespace) -> None:
    """Train as the command line says."""
    if args.model == "deepvo" and args.loss == "view_synthesis":
        raise VoStreamError("--loss view_synthesis: needs a depth, which --model deepvo has not")
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    sizes: list[Size] = args.size or [(320, 96), (224, 160)]
    args.out.mkdir(parents=True, exist_ok=True)
    settings = LoopSettings(
        minutes=args.minutes,
        stop_after=args.stop_after,
        model=args.model,
        core=args.core,
        loss=args.loss,
        optimizer=args.optimizer,
        rate=args.lr,
        small=args.small,
        seed=args.seed,
    )
    training = Training(settings, args.out, device)
    if args.resume:
        training.resume()
    elif (args.out / LAST).exists():
        raise VoStreamError(f"{args.out / LAST}: is there; --resume, or another --out")
    elif args.init is not None:
        training.begin_from(args.init)
    seed = args.seed * SEEDS_OF_A_RUN
    recipe = Recipe(args.frames, tuple(args.kinds))
    judging = Recipe(args.held_out_frames)
    clips: Clips
    if args.device == "cpu":
        clips = ClipFolder(args.worlds or args.out / "worlds", args.clips)
        fill: AbstractContextManager[None] = rendering(clips, sizes, recipe, seed, args.batch)
    else:
        clips = RenderedClips(recipe, device, seed + training.position.steps)
        fill = nullcontext()
    with nullcontext() if args.no_render else fill:
        judged = held_out(args.out, sizes, args.held_out, judging, device)
        stream = windows(
            clips, sizes, args.batch, args.window, Variety(), device,
            seed + training.position.steps,
        )  # fmt: skip
        training.run(stream, lambda model: validate(model, judged))


def main() -> int:
    """Run the command; return its exit code."""
    args = arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        train(args)
    except (VoStreamError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
