"""Settings of what estimates the motion between frames; the tree is in `config.py`."""

from __future__ import annotations

from dataclasses import dataclass

from vo_stream.setting import setting


@dataclass(frozen=True, slots=True)
class NetConfig:
    """Which backend estimates the motion between frames."""

    backend: str = setting(
        "auto",
        "Motion backend. auto takes the best one that runs here and logs why; a named one that "
        "cannot run is an error.",
        choices=("auto", "tensorrt", "torch", "onnxruntime", "geometric"),
    )
    model_file: str = setting(
        "",
        "ONNX file of the network, as vo-stream export writes it. Empty: the released one.",
    )
    precision: str = setting(
        "int8",
        "Of the released network's convolutions in ONNX Runtime; int8 takes less time.",
        choices=("int8", "fp32"),
    )
    threads: int = setting(0, "CPU threads of the network; 0: one a core.", within=(0, 256))
    spinning: bool = setting(
        False,
        "Keep cores busy while threads wait for each other: faster, but not beside other work.",
    )
    engine_folder: str = setting(
        "", "Folder of TensorRT's engines, which are built once for a GPU. Empty: the user's cache."
    )
    engine_size: str = setting(
        "",
        "Size of the camera's images, WIDTHxHEIGHT, for which TensorRT's engine is loaded, and "
        "built where there is none, before images come. Empty: when the first one comes.",
    )


@dataclass(frozen=True, slots=True)
class GeometricConfig:
    """The classical backend: tracked corners, the essential matrix, landmarks that carry scale."""

    max_pixels: int = setting(
        480_000,
        "Images with more pixels are scaled down to about this many before corners are tracked.",
        unit="px",
        within=(10_000, 4_000_000),
    )
    corners: int = setting(500, "Corners tracked from frame to frame, at most.", within=(50, 2000))
    window_px: int = setting(
        15, "Side of the window that the corner tracker compares.", unit="px", within=(7, 41)
    )
    levels: int = setting(
        4, "Pyramid levels of the corner tracker; more follow faster motion.", within=(1, 6)
    )
    forward_backward_px: float = setting(
        0.5,
        "A corner is dropped when tracking it there and back misses its start by more.",
        unit="px",
        within=(0.05, 5.0),
    )
    epipolar_px: float = setting(
        1.0,
        "Largest distance from its epipolar line at which a corner still supports a motion.",
        unit="px",
        within=(0.1, 5.0),
    )
    solver: str = setting(
        "five_point",
        "Minimal solver of the essential matrix (five_point: Nister 2004; eight_point: Hartley "
        "1997, degenerate on planes).",
        choices=("five_point", "eight_point"),
    )
    seed: int = setting(
        0, "Seed of the random sampling; equal seeds give equal results.", within=(0, 2**31 - 1)
    )
