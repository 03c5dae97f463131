"""The command `vo-stream export`: a network's file for robots, and the engine of one."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vo_stream.cli_base import FilePath, printable
from vo_stream.errors import VoStreamError


@click.command()
@click.option(
    "--net",
    type=FilePath,
    metavar="FILE",
    help="Weights (.safetensors), with --engine an ONNX file too; else those released.",
)
@click.option(
    "--size",
    metavar="WxH",
    help="Let the graph take images of this size only. With --engine: size of the camera's "
    "images, 640x192 if none is given.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="Of the convolutions; state and geometry are always fp32. int8 is for the CPU.  "
    "[default: fp32]",
)
@click.option(
    "--clips",
    type=FilePath,
    metavar="FOLDER",
    help="Rendered clips that int8 is calibrated on: the folder worlds of a training.",
)
@click.option(
    "--out", type=FilePath, default=Path("out"), show_default=True, help="Folder for the files."
)
@click.option(
    "--engine",
    is_flag=True,
    help="Build TensorRT's engine for this GPU and keep it where net.backend tensorrt looks.",
)
@click.option(
    "--net.engine_folder", "engine_folder", type=FilePath, help="Where; else the user's cache."
)
def export(
    net: Path | None,
    size: str | None,
    precision: str | None,
    clips: Path | None,
    out: Path,
    engine: bool,
    engine_folder: Path | None,
) -> None:
    """Write a network as ONNX, once it is proven to compute the same, or build its engine."""
    if not engine:
        click.echo(_exported(net, size, precision, clips, out))
        return
    from vo_stream.net.build_ahead import build_ahead
    from vo_stream.net.sidecar import RELEASED

    if precision == "int8":
        raise VoStreamError("int8 is for the CPU, TensorRT takes fp32 or fp16")
    given = net or RELEASED
    if (net is None and precision == "fp16") or given.suffix != ".onnx":
        given, precision = _exported(net, None, precision, None, out), None
    with click.progressbar(
        length=1000, label="engine", file=sys.stderr, show_eta=False, item_show_func=_phase
    ) as bar:
        built = build_ahead(
            given,
            size,
            precision,
            engine_folder,
            lambda phase, part: bar.update(round(1000 * part) - bar.pos, phase),
        )
    click.echo(f"vo-stream: {printable(built.remark)}", err=True)
    click.echo(built.path)


def _phase(phase: str | None) -> str:
    return phase or ""


def _exported(
    net: Path | None, size: str | None, precision: str | None, clips: Path | None, out: Path
) -> Path:
    try:
        from vo_stream.net.export import export_network
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        raise VoStreamError(f"export needs pip install 'vo_stream[train]' ({reason})") from None
    return export_network(net, out, precision or "fp32", size, clips)
