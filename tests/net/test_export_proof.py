"""The proof of a graph: each thing it is to find, on a network of three lines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from network_cases import SIZE

from vo_stream.errors import NetError
from vo_stream.net.proof import Arrays, made_up_footage, prove
from vo_stream.net.sidecar import Sidecar, StatePart

STATES = {"seen": StatePart((1,)), "h": StatePart((4,))}
SIDECAR = Sidecar("toy", "0", "lstm", "fp32", 1, 32, None, None, STATES, {})
FRAMES = 12


def network(inputs: Arrays) -> Arrays:
    """The motion is what the image, the rays, dt and the memory make of it."""
    brightness = inputs["image"].mean() + inputs["rays"].std() + inputs["dt"][0, 0]
    hidden = 0.5 * inputs["prev_h"] + brightness * (1.0 + inputs["prev_seen"])
    return {
        "rotation": np.eye(3, dtype=np.float32)[None] + 0.01 * hidden[:, :3, None],
        "translation": hidden[:, :3],
        "next_seen": np.ones((1, 1), dtype=np.float32),
        "next_h": hidden,
    }


def but(**changes: Callable[[Arrays, Arrays], Arrays]) -> Callable[[Arrays], Arrays]:
    """Return the network with another `before` (its inputs) or `after` (its outputs)."""

    def run(inputs: Arrays) -> Arrays:
        if "before" in changes:
            inputs = changes["before"](inputs, inputs)
        outputs = network(inputs)
        return changes["after"](inputs, outputs) if "after" in changes else outputs

    return run


def refused(graph: Callable[[Arrays], Arrays], original: Callable[[Arrays], Arrays]) -> str:
    with pytest.raises(NetError) as caught:
        prove(graph, original, SIDECAR, SIZE, FRAMES)
    return str(caught.value)


def frozen(name: str) -> Callable[[Arrays], Arrays]:
    """Return the network without one of its inputs."""
    return but(before=lambda inputs, _: inputs | {name: np.full_like(inputs[name], 0.1)})


def test_a_graph_that_is_the_network_passes() -> None:
    prove(network, network, SIDECAR, SIZE, FRAMES)


def test_rounding_passes() -> None:
    noise = np.random.default_rng(0)

    def rounded(_: Arrays, outputs: Arrays) -> Arrays:
        exact = outputs["next_h"]
        noisy = exact * (1.0 + 1e-6 * noise.standard_normal(exact.shape))
        return outputs | {"translation": np.asarray(noisy[:, :3], dtype=np.float32)}

    seen: dict[bytes, Arrays] = {}

    def repeatable(inputs: Arrays) -> Arrays:
        key = b"".join(value.tobytes() for value in inputs.values())
        return seen.setdefault(key, but(after=rounded)(inputs))

    prove(repeatable, network, SIDECAR, SIZE, FRAMES)


@pytest.mark.parametrize("name", ["translation", "rotation"])
def test_an_output_that_is_off_is_named(name: str) -> None:
    off = but(after=lambda _, outputs: outputs | {name: np.float32(1.02) * outputs[name]})
    assert f"half of the frames of a stream {name} is off" in refused(off, network)


def test_one_frame_that_is_far_off_is_found() -> None:
    count = 0

    def once(_: Arrays, outputs: Arrays) -> Arrays:
        nonlocal count
        count += 1
        return outputs | {"translation": -outputs["translation"]} if count == 7 else outputs

    assert "one of the frames of a stream translation" in refused(but(after=once), network)


def test_nan_is_off() -> None:
    nan = but(after=lambda _, outputs: outputs | {"translation": np.nan * outputs["translation"]})
    assert "translation is off by nan" in refused(nan, network)


def test_another_shape_is_found() -> None:
    flat = but(after=lambda _, outputs: outputs | {"translation": outputs["translation"][0]})
    assert "translation has another shape" in refused(flat, network)


def test_a_state_that_a_graph_has_lost_is_found() -> None:
    assert "is off by" in refused(frozen("prev_h"), network)


@pytest.mark.parametrize("name", ["image", "rays", "dt", "prev_seen", "prev_h"])
def test_what_neither_graph_nor_network_looks_at_is_named(name: str) -> None:
    deaf = frozen(name)
    assert refused(deaf, deaf) == f"the graph does not look at its input {name}"


def test_a_graph_that_does_not_repeat_is_found() -> None:
    noise = np.random.default_rng(0)

    def restless(_: Arrays, outputs: Arrays) -> Arrays:
        jitter = np.float32(1.0 + 1e-6 * noise.random())
        return outputs | {"translation": jitter * outputs["translation"]}

    assert "translation differs from run to run" in refused(but(after=restless), network)


def test_the_made_up_camera_moves_and_sees_texture() -> None:
    images = [frame["image"] for frame in made_up_footage(SIZE, 3)]
    assert images[0].shape == (1, 1, SIZE[1], SIZE[0])
    assert images[0].std() > 0.1
    moved = np.abs(images[1] - images[0]).mean()
    assert 0.005 < moved < 0.5 * images[0].std()
