"""int8 convolutions: which ones, from what footage, and that ONNX Runtime computes in integers."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from vo_stream.errors import NetError
from vo_stream.net import quantize
from vo_stream.net.onnx_net import open_graph
from vo_stream.net.proof import Arrays, carried
from vo_stream.net.quantize import clip_streams, quantized
from vo_stream.net.sidecar import StatePart
from vo_stream.training.clip import Clip

SIDE = 32
WIDE = 16
STATES = {"sum": StatePart((1,), 1), "seen": StatePart((1,))}
SEEN = "next_seen"


def small_graph(folder: Path, channels: int = WIDE) -> Path:
    """Write a graph with a state: a stem, a residual block of two wide convolutions, a head.

    `next_sum` is `prev_sum` plus the image; the stem reads both.
    """
    rng = np.random.default_rng(0)

    def random(*shape: int) -> npt.NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    uneven = 1 + np.arange(channels)
    constants = {
        "stem.w": random(channels, 2, 3, 3),
        "first.w": random(channels, channels, 3, 3) * uneven[:, None, None, None],
        "first.b": random(channels),
        "second.w": random(channels, channels, 3, 3),
        "second.b": random(channels),
        "head.w": random(1, channels, 1, 1),
        SEEN: np.ones((1, 1)),
    }
    same = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Add", ["image", "prev_sum"], ["next_sum"]),
        helper.make_node("Concat", ["image", "prev_sum"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "stem.w"], ["stem"], name="stem", pads=same),
        helper.make_node("Relu", ["stem"], ["x"]),
        helper.make_node("Conv", ["x", "first.w", "first.b"], ["a"], name="first", pads=same),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second.w", "second.b"], ["c"], name="second", pads=same),
        helper.make_node("Add", ["x", "c"], ["d"]),
        helper.make_node("Conv", ["d", "head.w"], ["weight"], name="head"),
    ]
    maps: list[str | int] = [1, 1, "h", "w"]

    def value(name: str, shape: list[str | int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "small",
        [value("image", maps), value("rays", [1, 2, "i", "j"]), value("dt", [1, 1])]
        + [value("prev_sum", maps), value("prev_seen", [1, 1])],
        [value("weight", maps), value("next_sum", maps), value(SEEN, [1, 1])],
        [numpy_helper.from_array(np.float32(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = folder / "small.onnx"
    onnx.save(model, path)
    return path


def footage(frames: int, seed: int = 0) -> list[Arrays]:
    rng = np.random.default_rng(seed)
    cells = SIDE // 8
    rays, dt = np.zeros((1, 2, cells, cells), np.float32), np.full((1, 1), 0.1, np.float32)
    images = rng.random((frames, 1, 1, SIDE, SIDE), dtype=np.float32)
    return [{"image": image, "rays": rays, "dt": dt} for image in images]


def clean() -> Arrays:
    image = np.zeros((1, 1, SIDE, SIDE), np.float32)
    return {"prev_sum": image, "prev_seen": np.zeros((1, 1), np.float32)}


def int8_of(path: Path, frames: int = 5) -> onnx.ModelProto:
    return onnx.load_from_string(quantized(path, STATES, [footage(frames)]))


def constants_of(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_it_quantizes_the_wide_convolutions_alone(tmp_path: Path) -> None:
    model = int8_of(small_graph(tmp_path))
    onnx.checker.check_model(model, full_check=True)
    dequantized = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    convolutions = {n.name: n for n in model.graph.node if n.op_type == "Conv"}
    integer = {name for name, node in convolutions.items() if set(node.input) <= dequantized}
    untouched = {name for name, node in convolutions.items() if not set(node.input) & dequantized}
    assert integer == {"first", "second"}
    assert untouched == {"stem", "head"}


def test_what_others_read_of_a_convolutions_input_stays_as_it_was(tmp_path: Path) -> None:
    model = int8_of(small_graph(tmp_path))
    (shortcut,) = (n for n in model.graph.node if n.op_type == "Add" and n.output[0] == "d")
    assert shortcut.input[0] == "x"
    assert shortcut.input[1] != "c"


def test_onnx_runtime_computes_it_in_integers(tmp_path: Path) -> None:
    path, written = tmp_path / "int8.onnx", tmp_path / "optimised.onnx"
    onnx.save(int8_of(small_graph(tmp_path)), path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(written)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(written).graph.node)
    assert kinds["QLinearConv"] == 2
    assert kinds["Relu"] <= 1, "the one between the integer convolutions is a part of them"


def test_it_says_nearly_the_same_over_a_stream(tmp_path: Path) -> None:
    path, other = small_graph(tmp_path), tmp_path / "int8.onnx"
    onnx.save(int8_of(path), other)
    true, found = open_graph(path), open_graph(other)
    memory, own = clean(), clean()
    for frame in footage(5, seed=1):
        expected, outputs = true(frame | memory), found(frame | own)
        memory, own = carried(expected), carried(outputs)
        off = np.linalg.norm(outputs["weight"] - expected["weight"])
        assert 0.0 < off < 0.1 * np.linalg.norm(expected["weight"])
        assert np.array_equal(outputs["next_sum"], expected["next_sum"])
        assert np.array_equal(outputs[SEEN], expected[SEEN])


def test_ranges_are_those_of_streams_with_their_state(tmp_path: Path) -> None:
    path = small_graph(tmp_path)
    frames = footage(3 * quantize.EVERY)
    watched = onnx.load(path)
    watched.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, None))
    onnx.save(watched, tmp_path / "watched.onnx")
    run, memory, greatest = open_graph(tmp_path / "watched.onnx"), clean(), 0.0
    for index, frame in enumerate(frames):
        outputs = run(frame | memory)
        memory = carried(outputs)
        if index % quantize.EVERY == 1:
            greatest = max(greatest, float(outputs["x"].max()))
    model = onnx.load_from_string(quantized(path, STATES, [frames]))
    constants = constants_of(model)
    assert constants["x/scale"] == pytest.approx(greatest / 255, rel=1e-5)
    assert constants["x/zero"] == 0
    assert "c/scale" in constants
    assert 0 < constants["c/zero"] < 255, "what has both signs has its zero within"


def test_weights_have_seven_bits_and_a_scale_for_each_channel(tmp_path: Path) -> None:
    path = small_graph(tmp_path)
    model = int8_of(path)
    constants, true = constants_of(model), constants_of(onnx.load(path))["first.w"]
    whole, scales = constants["a/weights"], constants["a/weights/scale"]
    assert whole.dtype == np.int8
    assert np.array_equal(np.abs(whole).max(axis=(1, 2, 3)), np.full(WIDE, 63))
    assert np.abs(whole * scales[:, None, None, None] - true).max() <= 0.501 * scales.max()
    assert len(np.unique(scales)) == WIDE
    assert "first.w" not in constants, "the floats are gone from the file"


def test_a_bias_is_kept_to_a_step_of_the_products(tmp_path: Path) -> None:
    path = small_graph(tmp_path)
    constants, true = constants_of(int8_of(path)), constants_of(onnx.load(path))["first.b"]
    steps = constants["a/bias/scale"]
    assert constants["a/bias"].dtype == np.int32
    assert np.array_equal(steps, np.float32(constants["a/weights/scale"] * constants["x/scale"]))
    assert (np.abs(constants["a/bias"] * steps - true) <= 0.501 * steps).all()


def test_without_footage_or_convolutions_it_says_so(tmp_path: Path) -> None:
    path = small_graph(tmp_path)
    with pytest.raises(NetError, match="no footage"):
        quantized(path, STATES, [])
    with pytest.raises(NetError, match="no convolution"):
        quantized(small_graph(tmp_path, channels=WIDE - 1), STATES, [footage(2)])


def rendered(frames: int, size: tuple[int, int]) -> Clip:
    """A clip that was not rendered, of the form of one that was."""
    width, height = size
    generator = torch.Generator().manual_seed(frames)
    cells = (1, frames, height // 8, width // 8)
    return Clip(
        images=torch.randint(0, 256, (1, frames, height, width), generator=generator).byte(),
        inverse_depth=torch.ones(cells),
        velocity=torch.zeros(*cells, 3),
        rotation=torch.eye(3).expand(1, frames, 3, 3),
        position=torch.zeros(1, frames, 3),
        intrinsics=torch.tensor([[50.0, 60.0, 31.0, 17.0]]),
        stamps=torch.arange(frames, dtype=torch.float64)[None] * 0.05 + 7.0,
    )


def test_rendered_clips_are_streams(tmp_path: Path) -> None:
    clip = rendered(4, (64, 32))
    clip.save(tmp_path / "64x32_0000000001.npz")
    (stream,) = clip_streams(tmp_path)
    frames = list(stream)
    assert [float(frame["dt"][0, 0]) for frame in frames] == pytest.approx([0.0, 0.05, 0.05, 0.05])
    for index, frame in enumerate(frames):
        assert {value.dtype for value in frame.values()} == {np.dtype(np.float32)}
        assert np.allclose(frame["rays"], clip.rays().numpy(), atol=1e-6)
        assert np.allclose(255.0 * frame["image"], clip.images[:, index, None].numpy(), atol=1e-4)


def test_each_size_of_clips_counts_alike(tmp_path: Path) -> None:
    for seed in range(11):
        rendered(2, (64, 32)).save(tmp_path / f"64x32_{seed:010d}.npz")
    rendered(2, (32, 64)).save(tmp_path / "32x64_0000000099.npz")
    widths = Counter(next(iter(stream))["image"].shape[3] for stream in clip_streams(tmp_path))
    assert widths == {64: quantize.CLIPS_OF_A_SIZE, 32: 1}


def archive(**changed: npt.NDArray[np.float64]) -> bytes:
    arrays = {
        "images": np.zeros((1, 2, 32, 64)),
        "stamps": np.array([[0.0, 0.1]]),
        "intrinsics": np.ones((1, 4)),
    }
    file = BytesIO()
    np.savez(file, **{**arrays, **changed})  # type: ignore[arg-type]
    return file.getvalue()


def single() -> bytes:
    file = BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 and no more",
        archive()[:-10],
        archive().replace(b"\0" * 64, b"\1" * 64),
        single(),
        archive(images=np.zeros((32, 64))),
        archive(images=np.zeros((1, 0, 32, 64)), stamps=np.zeros((1, 0))),
        archive(stamps=np.zeros((1, 3))),
        archive(intrinsics=np.zeros(4)),
    ],
    ids=["empty", "zip", "cut", "changed", "npy", "one image", "none", "stamps", "intrinsics"],
)
def test_a_damaged_clip_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "64x32_0000000001.npz").write_bytes(content)
    with pytest.raises(NetError, match="not a rendered clip") as refused:
        [list(stream) for stream in clip_streams(tmp_path)]
    assert "\n" not in str(refused.value)


def test_a_clip_of_a_size_that_the_graph_does_not_take_is_refused(tmp_path: Path) -> None:
    path = small_graph(tmp_path)
    frames = footage(2)
    frames[1]["image"] = frames[1]["image"][:, :, 1:]
    with pytest.raises(NetError, match="cannot be run"):
        quantized(path, STATES, [frames])


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="no rendered clips"):
        clip_streams(tmp_path)
    (tmp_path / "64x32_0000000001.npz").write_bytes(b"no archive")
    with pytest.raises(NetError, match="not a rendered clip"):
        [list(stream) for stream in clip_streams(tmp_path)]
