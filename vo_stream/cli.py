"""The command `vo-stream`."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import vo_stream
from vo_stream.cli_base import Commands, FilePath, config_of, printable, tell, with_settings
from vo_stream.cli_export import export
from vo_stream.config import Config, check_adjuster
from vo_stream.errors import ConfigError, VoStreamError

if TYPE_CHECKING:
    from vo_stream.link.channel import Link


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(vo_stream.__version__, prog_name="vo-stream")
def main() -> None:
    """Streaming visual odometry for robots with one camera."""
    logging.basicConfig(format="vo-stream: %(levelname)s: %(message)s", level=logging.WARNING)


@main.command()
@click.argument("source", type=FilePath)
@click.option(
    "--out", type=FilePath, default=Path("out"), show_default=True, help="Folder for the results."
)
@click.option("--net", metavar="NAME", help="Motion backend; short for --net.backend.")
@click.option("--topic", help="Image topic of a bag; short for --replay.topic.")
@click.option("--calib", metavar="FILE", help="Short for --camera.calibration_file.")
@click.option("--limit", type=click.IntRange(min=1), help="Frames at most.")
@click.option("--no-adjust", is_flag=True, help="Short for --adjust.enabled false.")
@click.option(
    "--async",
    "in_background",
    is_flag=True,
    help="Run the adjuster in a process of its own, as on a robot: faster, but each time a little "
    "different.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, nothing else.")
@with_settings
def replay(
    source: Path,
    out: Path,
    net: str | None,
    topic: str | None,
    calib: str | None,
    limit: int | None,
    no_adjust: bool,
    in_background: bool,
    as_json: bool,
    config_file: Path | None,
    **flags: Any,
) -> None:
    """Run the odometry over a recording.

    SOURCE is recognised by what it holds: a folder with images/ calib.json times.txt, KITTI
    odometry, TUM RGB-D, EuRoC ASL, a video with --calib, a ROS 1 bag or a ROS 2 bag.
    """
    from vo_stream.net.backends import open_backend
    from vo_stream.replay.files import prepare_folder, summary, write_results
    from vo_stream.replay.progress import Progress
    from vo_stream.replay.run import replay as run_replay
    from vo_stream.replay.sources import open_source
    from vo_stream.track.odometer import Odometer

    shorthands = {
        "net__backend": net,
        "replay__topic": topic,
        "camera__calibration_file": calib,
        "adjust__enabled": False if no_adjust else None,
    }
    config = config_of(config_file, flags | {k: v for k, v in shorthands.items() if v is not None})
    check_adjuster(config)
    if config.scale.source == "wheel" and not config.replay.wheel_topic:
        raise ConfigError("scale.source: wheel needs the wheels' speed; give replay.wheel_topic")
    if in_background and not config.adjust.enabled:
        raise ConfigError("command line: --async has no adjuster to run: adjust.enabled is false")
    with open_source(
        source,
        topic=config.replay.topic,
        camera_info_topic=config.replay.camera_info_topic,
        rectified=config.camera.rectified,
        calib=Path(config.camera.calibration_file) if config.camera.calibration_file else None,
        groundtruth_topic=config.replay.groundtruth_topic,
        wheel_topic=config.replay.wheel_topic,
    ) as recording:
        prepare_folder(out)
        length = min(recording.length or sys.maxsize, limit or sys.maxsize)
        total = None if length == sys.maxsize else length
        with (
            closing(open_backend(config)) as backend,
            Progress(printable(recording.name), total, shown=not as_json) as progress,
        ):
            odometer = Odometer(backend, config.track, config.scale)
            link = _open_link(config, in_background, progress.say)
            run = run_replay(recording, odometer, backend.spec, config, link, limit, progress)
    files = write_results(out, run)
    if as_json:
        click.echo(json.dumps(summary(run)))
        return
    from vo_stream.replay.text import run_text

    click.echo("\n".join(map(printable, run_text(run).splitlines())))
    click.echo(f"report: {files['report.html'].resolve()}")


def _open_link(config: Config, in_background: bool, say: Callable[[str], None]) -> Link:
    """Return the way to the adjuster, its solver compiled; `say` is told what takes time."""
    if not config.adjust.enabled:
        from vo_stream.link.channel import NoLink

        return NoLink()
    from vo_stream.adjust.adjuster import Adjuster, compile_adjuster

    compile_adjuster(say)  # in the background too: the other process finds it compiled
    if in_background:
        from vo_stream.link.zmq_link import ZmqLink

        return ZmqLink(config, lossless=True)
    from vo_stream.link.channel import InlineLink

    return InlineLink(Adjuster(config))


def _finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter("must be a finite number.")
    return value


@main.command()
@click.argument("bag", type=FilePath)
@click.option(
    "--rate",
    type=click.FloatRange(1e-6, 1e6),
    callback=_finite,
    default=1.0,
    metavar="R",
    help="Times the speed of the recording.",
)
@click.option("--loop", is_flag=True, help="Start over at the end; time goes back then.")
@click.option("--clock", is_flag=True, help="Publish the time of the bag on /clock, at 100 Hz.")
@click.option("--topic", "topics", multiple=True, help="Only this topic; may be repeated.")
@click.option(
    "--delay",
    type=click.FloatRange(0.0, 1e9),
    callback=_finite,
    default=0.0,
    metavar="S",
    help="Wait so many seconds before the first message.",
)
@click.option(
    "--start",
    type=click.FloatRange(0.0, 1e9),
    callback=_finite,
    default=0.0,
    metavar="S",
    help="Leave out the first seconds of the bag, but for what latched topics say.",
)
@click.option(
    "--duration",
    type=click.FloatRange(0.0, 1e9, min_open=True),
    callback=_finite,
    metavar="S",
    help="Play so many seconds of the bag.",
)
def play(
    bag: Path,
    rate: float,
    loop: bool,
    clock: bool,
    topics: tuple[str, ...],
    delay: float,
    start: float,
    duration: float | None,
) -> None:
    """Publish a bag on the ROS graph, for machines without rosbag2.

    BAG is a ROS 2 bag or a ROS 1 bag. Messages and quality of service are those recorded.
    """
    from vo_stream.replay.progress import BagTime

    try:
        from vo_stream.ros.player import PlayOptions
        from vo_stream.ros.player import play as play_bag
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        raise VoStreamError(f"play needs ROS 2: make ros ({reason})") from None
    options = PlayOptions(rate, loop, clock, topics, delay, start, duration)
    with BagTime(printable(bag.name)) as show:
        played = play_bag(bag, options, show)
    click.echo(played.text)


@main.command()
@click.argument("estimate", type=FilePath)
@click.argument("groundtruth", type=FilePath)
@click.option(
    "--align",
    type=click.Choice(["none", "se3", "sim3"]),
    help="Show the errors after this alignment only.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, nothing else.")
def evaluate(estimate: Path, groundtruth: Path, align: str | None, as_json: bool) -> None:
    """Compare two trajectories in TUM format (timestamp tx ty tz qx qy qz qw)."""
    from vo_stream.replay.metrics import evaluate as judge
    from vo_stream.replay.text import metrics_text, only_alignment
    from vo_stream.replay.trajectory import read_tum

    metrics = judge(read_tum(estimate), read_tum(groundtruth)).as_dict()
    if align:
        metrics = only_alignment(metrics, align)
    click.echo(json.dumps(metrics) if as_json else metrics_text(metrics))


main.add_command(export)


@main.command()
@click.option("--net", metavar="NAME", help="Short for --net.backend; auto: all that run here.")
@click.option("--size", metavar="WxH", help="Of the camera's images.  [default: 1241x376]")
@click.option(
    "--frames",
    type=click.IntRange(1, 1_000_000),
    default=300,
    show_default=True,
    help="Counted for each backend, as many back to back as at the rate.",
)
@click.option(
    "--rate",
    type=click.FloatRange(1.0, 1000.0),
    callback=_finite,
    default=30.0,
    show_default=True,
    metavar="HZ",
    help="Frames in a second, as a camera gives them.",
)
@click.option("--footage", type=FilePath, help="A recording to take frames from, as for replay.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, nothing else.")
@with_settings
def bench(
    net: str | None,
    size: str | None,
    frames: int,
    rate: float,
    footage: Path | None,
    as_json: bool,
    config_file: Path | None,
    **flags: Any,
) -> None:
    """Measure how fast the backends are on this machine.

    Frames come from a rendered street, or from a recording. Each backend runs in a process of its
    own; those that are compared take turns.
    """
    from vo_stream.demo.world import render_demo
    from vo_stream.replay.bench import contenders_of, measure, recorded_clip, rendered_clip
    from vo_stream.replay.bench_text import bench_text

    config = config_of(config_file, flags if net is None else flags | {"net__backend": net})
    if footage is not None and size is not None:
        raise ConfigError("command line: --footage has a size of its own; leave out --size")
    if footage is not None:
        clip = recorded_clip(footage, config)
    else:
        tell("rendering a street")
        clip = rendered_clip(render_demo, size, rate)
    result = measure(contenders_of(config), clip, frames, rate, say=tell)
    click.echo(json.dumps(result) if as_json else bench_text(result))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, nothing else.")
def doctor(as_json: bool) -> None:
    """Say what runs on this machine, and what to install for the rest."""
    from vo_stream.doctor import examine

    findings = examine()
    if as_json:
        rows = [{"what": f.what, "ok": f.ok, "detail": f.detail} for f in findings]
        click.echo(json.dumps(rows))
    else:
        for finding in findings:
            click.echo(f"{'ok' if finding.ok else '--'}  {finding.what:<20} {finding.detail}")
    if any(f.required and not f.ok for f in findings):
        sys.exit(1)


if __name__ == "__main__":
    main()
