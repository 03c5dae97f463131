"""Reading a camera's calibration from the files people have.

Understood: this package's calib.json (fx, fy, cx, cy, width, height, distortion_model,
distortion), a ROS camera_info YAML, OpenCV's own YAML, the sensor.yaml of EuRoC, and Kalibr's
camchain (its cam0).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vo_stream.camera import CameraModel
from vo_stream.errors import ConfigError, SourceError
from vo_stream.replay.plain_yaml import load_yaml

_MODEL_BY_COUNT = {0: "none", 4: "plumb_bob", 5: "plumb_bob", 8: "rational_polynomial"}
"""OpenCV's YAML names no distortion model: the number of coefficients tells it."""

_NONSENSE_ERRORS = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What PyYAML's constructors and json raise on nonsense, beside their own errors."""


def read_calibration(path: Path, *, rectified: bool = False) -> CameraModel:
    """Read a camera model; raises SourceError naming the file and what it lacks.

    `rectified`: the images went through rectification already, so of a ROS file the projection
    matrix holds; a file without one must then have no distortion.
    """
    tree = read_tree(path)
    for key, reader in _READERS.items():
        if key in tree:
            try:
                return reader(tree, rectified)
            except KeyError as error:
                raise SourceError(f"{path}: the calibration lacks {error.args[0]!r}") from None
            except (ConfigError, ValueError, TypeError, OverflowError) as error:
                raise SourceError(f"{path}: {error}") from None
    raise SourceError(
        f"{path}: no calibration that is known here: expected one of the keys {', '.join(_READERS)}"
    )


def read_tree(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML file whose top level is a mapping; raises SourceError."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            tree = json.loads(text)
        else:
            # OpenCV writes its version as if it were YAML's, and a tag that only it knows.
            lines = [line for line in text.splitlines() if not line.startswith("%YAML")]
            tree = load_yaml("\n".join(lines).replace("!!opencv-matrix", ""))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, *_NONSENSE_ERRORS) as error:
        why = " ".join(str(error).split())
        raise SourceError(f"{path}: cannot be read as a calibration ({why})") from None
    if not isinstance(tree, dict):
        raise SourceError(f"{path}: cannot be read as a calibration (its top level has no keys)")
    return tree


def _from_own(tree: Mapping[str, Any], rectified: bool) -> CameraModel:
    camera = CameraModel(
        width=_whole(tree["width"]),
        height=_whole(tree["height"]),
        fx=_number(tree["fx"]),
        fy=_number(tree["fy"]),
        cx=_number(tree["cx"]),
        cy=_number(tree["cy"]),
        distortion_model=str(tree.get("distortion_model", "none")),
        distortion=_numbers(tree.get("distortion", [])),
    )
    return _refuse_distortion(camera) if rectified else camera


def _from_ros(tree: Mapping[str, Any], rectified: bool) -> CameraModel:
    k = _numbers(_mapping(tree, "camera_matrix")["data"], 9)
    d = _numbers(_mapping(tree, "distortion_coefficients")["data"])
    model = tree.get("distortion_model", _MODEL_BY_COUNT.get(len(d), "unknown"))
    p = _numbers(_mapping(tree, "projection_matrix")["data"], 12) if rectified else ()
    width, height = _whole(tree["image_width"]), _whole(tree["image_height"])
    return CameraModel.from_camera_info(width, height, str(model), d, k, p, rectified=rectified)


def _from_kalibr(tree: Mapping[str, Any], rectified: bool) -> CameraModel:
    kind = tree.get("camera_model", "pinhole")
    if kind != "pinhole":
        raise ValueError(f"camera_model {kind!r} is not supported; calibrate as pinhole")
    fx, fy, cx, cy = _numbers(tree["intrinsics"], 4)
    width, height = (_whole(n) for n in _numbers(tree["resolution"], 2))
    # EuRoC writes one name, Kalibr the other.
    d = tree["distortion_coeffs" if "distortion_coeffs" in tree else "distortion_coefficients"]
    model = str(tree.get("distortion_model", "none"))
    camera = CameraModel(width, height, fx, fy, cx, cy, model, _numbers(d))
    return _refuse_distortion(camera) if rectified else camera


def _from_camchain(tree: Mapping[str, Any], rectified: bool) -> CameraModel:
    return _from_kalibr(_mapping(tree, "cam0"), rectified)


_READERS: Mapping[str, Callable[[Mapping[str, Any], bool], CameraModel]] = {
    "fx": _from_own,
    "camera_matrix": _from_ros,
    "intrinsics": _from_kalibr,
    "cam0": _from_camchain,
}
"""The key that tells a kind of file, and what reads it."""


def _refuse_distortion(camera: CameraModel) -> CameraModel:
    if camera.distortion:
        raise ValueError(
            "describes distorted images, but these are rectified: give the calibration after "
            "rectification, or a ROS one with its projection_matrix"
        )
    return camera


def _mapping(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = tree[key]
    if not isinstance(value, Mapping):
        raise ValueError(f"{key} must hold keys of its own, not {str(value)[:60]!r}")
    return value


def _whole(value: Any) -> int:
    number = _number(value)
    if not number.is_integer():
        raise ValueError(f"{value!r} is no whole number of pixels")
    return int(number)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r} is no number")
    return float(value)  # PyYAML takes 1e-05, which has no point, for a text


def _numbers(values: Any, count: int | None = None) -> tuple[float, ...]:
    if not isinstance(values, list) or count not in (None, len(values)):
        raise ValueError(f"expected a list of {count or 'some'} numbers, got {str(values)[:60]!r}")
    return tuple(_number(v) for v in values)
