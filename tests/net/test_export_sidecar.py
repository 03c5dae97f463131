"""What is written beside a network's file, and every way to find it wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vo_stream.errors import NetError
from vo_stream.net.sidecar import SCHEMA, Sidecar, StatePart, read_sidecar, sidecar_of

CONTENT = b"a graph"
SIDECAR = Sidecar(
    name="odometry",
    version="0.1.0",
    core="lstm",
    precision="fp32",
    max_pixels=640 * 192,
    multiple=32,
    size=None,
    rate_hz=(5.0, 30.0),
    states={"half": StatePart((4,), 2), "history": StatePart((16, 128))},
    sha256={".onnx": hashlib.sha256(CONTENT).hexdigest()},
)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "odometry.onnx"
    path.write_bytes(CONTENT)
    sidecar_of(path).write_text(SIDECAR.text(), encoding="utf-8")
    return path


def edit(model_file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = sidecar_of(model_file)
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def refused(model_file: Path) -> str:
    with pytest.raises(NetError) as caught:
        read_sidecar(model_file)
    message = str(caught.value)
    assert "\n" not in message
    assert str(model_file.parent) in message
    return message


def test_what_is_written_is_read(model_file: Path) -> None:
    assert read_sidecar(model_file) == SIDECAR


def test_states_have_the_shape_of_the_image() -> None:
    assert SIDECAR.states["half"].shape(160, 96) == (1, 4, 48, 80)
    assert SIDECAR.states["history"].shape(160, 96) == (1, 16, 128)


def test_the_size_of_images_follows_the_camera_or_is_fixed(model_file: Path) -> None:
    spec = SIDECAR.spec("onnxruntime")
    assert (spec.name, spec.metric) == ("onnxruntime", True)
    assert spec.input_size((1241, 376)) == (640, 192)
    assert spec.input_size((640, 480)) == (416, 288)
    edit(model_file, lambda content: content.update(size=[320, 96]))
    assert read_sidecar(model_file).spec("onnxruntime").input_size((640, 480)) == (320, 96)


def test_a_file_that_was_changed_is_refused(model_file: Path) -> None:
    model_file.write_bytes(CONTENT + b".")
    assert "not the file that odometry.json describes" in refused(model_file)


def test_a_file_that_the_sidecar_does_not_know_is_refused(model_file: Path) -> None:
    weights = model_file.with_suffix(".safetensors")
    weights.write_bytes(CONTENT)
    assert "sha256 differs" in refused(weights)


def test_files_that_are_missing_are_named(model_file: Path) -> None:
    sidecar_of(model_file).unlink()
    assert "odometry.json: no such file" in refused(model_file)
    model_file.unlink()
    assert "odometry.onnx: no such file" in refused(model_file)


def test_another_schema_is_named(model_file: Path) -> None:
    edit(model_file, lambda content: content.update(schema=SCHEMA + 1))
    assert f"of schema {SCHEMA + 1}, and this version reads {SCHEMA} only" in refused(model_file)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"schema"', "{}", "\ud7ff\x00"])
def test_what_is_no_sidecar_is_refused(model_file: Path, text: str) -> None:
    sidecar_of(model_file).write_text(text, encoding="utf-8")
    assert "not the description of a network" in refused(model_file)


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "states missing": lambda content: content.pop("states"),
    "states a list": lambda content: content.update(states=[]),
    "a part a number": lambda content: content["states"].update(half=3),
    "channels negative": lambda content: content["states"]["half"].update(channels=[-4]),
    "channels a text": lambda content: content["states"]["half"].update(channels="4"),
    "divisor a text": lambda content: content["states"]["half"].update(divisor="2"),
    "multiple zero": lambda content: content.update(multiple=0),
    "max_pixels a fraction": lambda content: content.update(max_pixels=1.5),
    "one side": lambda content: content.update(size=[640]),
    "a rate of none": lambda content: content.update(rate_hz=[]),
    "hashes a text": lambda content: content.update(sha256="00"),
    "no correlation": lambda content: content.pop("correlation"),
    "five shares": lambda content: content["correlation"].update(share=[0.5] * 5),
    "a share above one": lambda content: content["correlation"].update(share=[1.5] * 6),
    "errors that last no time": lambda content: content["correlation"].update(time_s=[0.0] * 6),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_refused(model_file: Path, damage: Callable[[dict[str, Any]], object]) -> None:
    edit(model_file, damage)
    assert "odometry.json: damaged" in refused(model_file)
