"""Render the demo worlds to recordings with ground truth: folder, KITTI odometry, ROS 2 bag.

python tools/make_demo.py OUT [--seconds S] [--worlds street room] [--formats folder kitti bag]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from vo_stream.demo.world import WORLDS, render_demo
from vo_stream.errors import VoStreamError
from vo_stream.replay.writers import PosedFrames, write_folder, write_kitti, write_ros2_bag

WRITERS: dict[str, Callable[[Path, str, PosedFrames], int]] = {
    "folder": lambda out, name, frames: write_folder(out / name, frames),
    "kitti": lambda out, name, frames: write_kitti(out / "kitti", name, frames),
    "bag": lambda out, name, frames: write_ros2_bag(out / f"{name}_bag", frames),
}


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Render the demo worlds with exact poses.")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to write to")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--formats", nargs="+", choices=WRITERS, default=["folder"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--fps", type=float, default=20.0, help="frames in a second")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        for world in args.worlds:
            for name in args.formats:
                frames = render_demo(world, args.seconds, args.fps, args.seed)
                total = round(args.seconds * args.fps)
                bar = tqdm(
                    frames, desc=f"{world} ({name})", total=total, unit="frame", disable=None
                )
                WRITERS[name](args.out, world, bar)
    except VoStreamError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
