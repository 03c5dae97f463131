"""Messages come out as they went in, and what is no message is refused."""

from __future__ import annotations

import json
import math
import random
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_cases import make_frame, make_refinement

from vo_stream.camera import CameraModel
from vo_stream.config import Config
from vo_stream.link.packet import (
    MAGIC,
    MAX_HEADER_BYTES,
    MAX_TEXT,
    VERSION,
    Part,
    WireError,
    joined,
    split,
)
from vo_stream.link.wire import (
    MAX_LENGTH,
    READY,
    AdjusterState,
    FrameMessage,
    Hello,
    decode,
    encode_frame,
    encode_hello,
    encode_refinement,
    encode_settings,
    encode_state,
)
from vo_stream.se3 import SE3
from vo_stream.values import Frame, Motion, Refinement, Status

STREAM = 2**64 - 1
SETTINGS = encode_settings(Config())
PREFIX = 6


def frame_parts(number: int = 3) -> list[Part]:
    return encode_frame(STREAM, number + 1, SETTINGS, *make_frame(number))


MESSAGES: dict[str, Callable[[], list[Part]]] = {
    "hello": lambda: encode_hello(STREAM),
    "frame": frame_parts,
    "first frame": lambda: frame_parts(0),
    "refinement": lambda: encode_refinement(STREAM, make_refinement()),
    "state": lambda: encode_state(STREAM, AdjusterState(READY, 7, 2)),
}


def same_pose(one: SE3, other: SE3) -> None:
    np.testing.assert_allclose(one.wxyz_xyz, other.wxyz_xyz, rtol=0.0, atol=1e-15)


def round_trip(frame: Frame, estimate: Any, settings: str = SETTINGS) -> FrameMessage:
    stream, message = decode(encode_frame(STREAM, 9, settings, frame, estimate))
    assert stream == STREAM
    assert isinstance(message, FrameMessage)
    return message


def test_the_adjuster_is_told_what_steps_are_worth() -> None:
    frame, estimate = make_frame(3)
    apart = replace(estimate, covariance=9.0 * np.eye(6), if_independent=np.eye(6))
    there = round_trip(frame, apart).estimate
    np.testing.assert_array_equal(there.covariance_of_steps, np.eye(6))


@pytest.mark.parametrize("number", [0, 3])
def test_a_frame_comes_out_as_it_went_in(number: int) -> None:
    frame, estimate = make_frame(number, session=4)
    message = round_trip(frame, estimate)
    assert message.serial == 9
    np.testing.assert_array_equal(message.frame.image, frame.image)
    assert math.isnan(message.frame.travelled_m)
    assert (message.frame.stamp_ns, message.frame.camera) == (frame.stamp_ns, frame.camera)
    there = message.estimate
    for name in ("stamp_ns", "status", "metric", "session", "scale", "reason", "refused"):
        assert getattr(there, name) == getattr(estimate, name), name
    same_pose(there.odom_from_camera, estimate.odom_from_camera)
    np.testing.assert_array_equal(there.covariance, estimate.covariance)
    assert (there.motion is None) == (estimate.motion is None)
    if there.motion and estimate.motion:
        same_pose(there.motion.prev_from_curr, estimate.motion.prev_from_curr)
        np.testing.assert_array_equal(there.motion.std, estimate.motion.std)


@given(
    stamp=st.integers(-(2**63), 2**63 - 1),
    status=st.sampled_from(Status),
    session=st.integers(0, 2**63 - 1),
    scale=st.floats(1e-12, 1e12),
    reason=st.text(max_size=2 * MAX_TEXT),
    twist=st.lists(st.floats(-3.0, 3.0), min_size=6, max_size=6),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_any_estimate_comes_out_as_it_went_in(
    stamp: int,
    status: Status,
    session: int,
    scale: float,
    reason: str,
    twist: list[float],
    flags: tuple[bool, bool, bool],
) -> None:
    frame, estimate = make_frame(0)
    motion = Motion(SE3.exp(twist), np.full(6, 0.5), observed=flags[0], reason=reason)
    estimate = replace(
        estimate,
        stamp_ns=stamp,
        status=status,
        session=session,
        scale=scale,
        reason=reason,
        motion=motion,
        metric=flags[1],
        refused=flags[2],
    )
    there = round_trip(replace(frame, stamp_ns=stamp), estimate).estimate
    assert there.motion is not None
    assert (there.stamp_ns, there.status, there.session) == (stamp, status, session)
    assert (there.motion.observed, there.metric, there.refused) == flags
    assert there.scale == scale
    assert there.reason == there.motion.reason == reason[:MAX_TEXT]
    same_pose(there.motion.prev_from_curr, motion.prev_from_curr)


@pytest.mark.parametrize(
    "camera",
    [
        CameraModel(4, 3, 5.0, 6.0, 1.5, 1.0, "plumb_bob", (0.1, -0.01, 1e-3, 1e-4, 0.0)),
        CameraModel(4, 3, 5.0, 6.0, 1.5, 1.0, "rational_polynomial", (0.1,) * 8),
        CameraModel(4, 3, 5.0, 6.0, 1.5, 1.0, "equidistant", (0.0,) * 4),
    ],
)
def test_cameras_travel(camera: CameraModel) -> None:
    frame = Frame(0, np.zeros((3, 4), np.uint8), camera)
    assert round_trip(frame, make_frame(1)[1]).frame.camera == camera


def test_settings_travel_with_each_frame() -> None:
    config = Config().replaced({"adjust.window": 5, "scale.source": "fixed", "scale.factor": 2.0})
    message = round_trip(*make_frame(1), encode_settings(config))
    assert message.config == config


def test_a_refinement_comes_out_as_it_went_in() -> None:
    refinement = make_refinement(2**62, session=3, scale_source="height")
    stream, there = decode(encode_refinement(STREAM, refinement))
    assert stream == STREAM
    assert isinstance(there, Refinement)
    names = ("session", "stamp_ns", "map_stamp_ns", "scale", "scale_std", "metric")
    for name in (*names, "scale_source", "reason"):
        assert getattr(there, name) == getattr(refinement, name), name
    same_pose(there.map_from_odom, refinement.map_from_odom)
    for one, other in zip(there.keyframes, refinement.keyframes, strict=True):
        assert one.stamp_ns == other.stamp_ns
        same_pose(one.map_from_camera, other.map_from_camera)
    for name in ("landmarks", "landmark_stds"):
        assert getattr(there, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(there, name), getattr(refinement, name))


def test_an_empty_refinement_travels() -> None:
    refinement = replace(make_refinement(landmarks=0), keyframes=())
    _, there = decode(encode_refinement(STREAM, refinement))
    assert isinstance(there, Refinement)
    assert there.keyframes == ()
    assert there.landmarks.shape == (0, 3)


def test_states_and_greetings_travel() -> None:
    state = AdjusterState(READY, done=2**40, faults=3)
    assert decode(encode_state(1, state)) == (1, state)
    assert decode(encode_hello(0)) == (0, Hello())


def test_the_image_is_copied_on_neither_side() -> None:
    frame, estimate = make_frame(1)
    parts = encode_frame(STREAM, 1, SETTINGS, frame, estimate)
    assert np.shares_memory(np.frombuffer(parts[1], np.uint8), frame.image)
    _, message = decode(parts)
    assert isinstance(message, FrameMessage)
    assert np.shares_memory(message.frame.image, frame.image)
    assert not message.frame.image.flags.writeable


def test_rows_that_lie_apart_travel() -> None:
    frame, estimate = make_frame(1)
    camera = replace(frame.camera, width=160)
    part = Frame(frame.stamp_ns, frame.image[:, 40:200], camera)
    np.testing.assert_array_equal(round_trip(part, estimate).frame.image, part.image)


@pytest.mark.parametrize(
    "change",
    [
        {"odom_from_camera": SE3.from_matrix(np.full((4, 4), np.nan))},
        {"covariance": np.full((6, 6), np.nan)},
        {"motion": Motion(SE3.identity(), np.zeros(6))},
        {"scale": float("nan")},
    ],
)
def test_an_estimate_that_is_not_finite_is_not_sent(change: dict[str, Any]) -> None:
    frame, estimate = make_frame(1)
    with pytest.raises(WireError):
        round_trip(frame, replace(estimate, **change))


@given(st.floats(-MAX_LENGTH, MAX_LENGTH) | st.just(math.nan))
def test_the_distance_travelled_comes_out_as_it_went_in(travelled_m: float) -> None:
    frame, estimate = make_frame(0)
    there = round_trip(replace(frame, travelled_m=travelled_m), estimate).frame.travelled_m
    assert there == travelled_m or (math.isnan(there) and math.isnan(travelled_m))


@pytest.mark.parametrize("travelled_m", [math.inf, -math.inf, 1e13])
def test_a_distance_that_is_none_is_refused_on_both_sides(travelled_m: float) -> None:
    frame, estimate = make_frame(1)
    with pytest.raises(WireError):
        round_trip(replace(frame, travelled_m=travelled_m), estimate)
    parts = frame_parts()
    i = 1 + list(fields_of(parts)["arrays"]).index("travelled")
    refused([*parts[:i], struct.pack("<d", travelled_m), *parts[i + 1 :]])


@pytest.mark.parametrize("image", [np.zeros((240, 319), np.uint8), np.zeros((240, 320), float)])
def test_an_image_that_is_not_the_cameras_is_not_sent(image: npt.NDArray[Any]) -> None:
    frame, estimate = make_frame(1)
    with pytest.raises(WireError):
        round_trip(replace(frame, image=image), estimate)


def test_a_text_that_cannot_be_written_down_is_mended() -> None:
    frame, estimate = make_frame(1)
    assert round_trip(frame, replace(estimate, reason="a\ud800b")).estimate.reason == "a?b"


# What follows is hostile.


def refused(parts: Sequence[Part]) -> None:
    with pytest.raises(WireError):
        decode(parts)


def fields_of(parts: Sequence[Part]) -> dict[str, Any]:
    fields = json.loads(bytes(parts[0])[PREFIX:])
    assert isinstance(fields, dict)
    return fields


def with_header(parts: Sequence[Part], header: bytes | str | dict[str, Any]) -> list[Part]:
    if isinstance(header, dict):
        header = json.dumps(header)
    text = header.encode() if isinstance(header, str) else header
    return [struct.pack(">4sH", MAGIC, VERSION) + text, *parts[1:]]


@pytest.mark.parametrize("name", MESSAGES)
def test_other_versions_and_strangers_are_refused(name: str) -> None:
    parts = MESSAGES[name]()
    head = bytes(parts[0])
    refused([MAGIC + struct.pack(">H", VERSION + 1) + head[PREFIX:], *parts[1:]])
    refused([b"HTTP" + head[4:], *parts[1:]])
    for kind in ("stop", "", "Frame", "refinement" if "frame" in name else "frame"):
        refused(with_header(parts, {**fields_of(parts), "kind": kind}))


@pytest.mark.parametrize("name", MESSAGES)
def test_missing_and_additional_parts_are_refused(name: str) -> None:
    parts = MESSAGES[name]()
    refused([])
    refused([*parts, b""])
    refused([*parts, *[b"x"] * 100])
    for i in range(len(parts)):
        refused(parts[:i])
        refused(parts[:i] + parts[i + 1 :])


@pytest.mark.parametrize("name", MESSAGES)
def test_every_truncation_is_refused(name: str) -> None:
    parts = MESSAGES[name]()
    for i, part in enumerate(parts):
        size = memoryview(part).nbytes
        for length in {*range(min(size, 700)), size - 1} - {size}:
            refused([*parts[:i], bytes(part)[:length], *parts[i + 1 :]])
        refused([*parts[:i], bytes(part) + b"x", *parts[i + 1 :]])


HOSTILE_VALUES: list[object] = [
    None, True, -1, 0, 2**63, 2**64, -(2**63) - 1, 1e308, -1.5, "", "x", "x" * 10_000, "\ud800",
    [], [[]], {}, {"a": []}, [None], [True], [2**70], ["1"], [1e308] * 5, [0] * 100,
]  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_hostile_fields_are_refused_or_harmless(name: str) -> None:
    parts = MESSAGES[name]()
    fields = fields_of(parts)
    for field in fields:
        gone = {key: value for key, value in fields.items() if key != field}
        refused(with_header(parts, gone))
        for value in HOSTILE_VALUES:
            decoded_or_refused(with_header(parts, {**fields, field: value}))
    for array, about in fields["arrays"].items():
        for value in HOSTILE_VALUES:
            for lie in (value, [value, about[1]], [about[0], value], [about[0], [value, value]]):
                arrays = {**fields["arrays"], array: lie}
                decoded_or_refused(with_header(parts, {**fields, "arrays": arrays}))


@pytest.mark.parametrize("shape", [[-240, -320], [0, 0], [2**31, 2**31], [240, 321], [2**70, 0]])
def test_shapes_that_lie_are_refused(shape: list[int]) -> None:
    fields = fields_of(frame_parts())
    fields["arrays"]["image"] = ["|u1", shape]
    refused(with_header(frame_parts(), fields))
    fields["arrays"]["image"] = ["|O", [240, 320]]
    refused(with_header(frame_parts(), fields))


@pytest.mark.parametrize(
    "header",
    [
        b"", b"null", b"[]", b"1", b"{", b"{}", b"\xff\xfe", b'{"kind":"hello","stream":NaN}',
        b'{"kind":"hello","stream":' + b"9" * 9000 + b"}", b"[" * 9000, b'{"a":' * 2000,
        b'{"kind":"hello","stream":1e999,"arrays":{}}', b'"' + b"x" * (MAX_HEADER_BYTES - 100),
        b'{"kind":"hello","stream":1,"arrays":{}}' + b" " * MAX_HEADER_BYTES,
    ],
)  # fmt: skip
def test_hostile_json_is_refused(header: bytes) -> None:
    refused(with_header([b""], header))


def settings_text(**sections: dict[str, object]) -> str:
    return json.dumps(sections)


@pytest.mark.parametrize(
    "settings",
    [
        "", "{}", "[]", "1" * 50, "[" * 900, settings_text(adjust={}),
        settings_text(adjust={}, x={}), settings_text(adjust={"window": 10**9}, scale={}),
        settings_text(adjust={"x": 1}, scale={}),
        settings_text(adjust={"window": {"a": 1}}, scale={}), '{"adjust": 1, "scale": {}}',
        settings_text(adjust={}, scale={"factor": "nan"}),
    ],
)  # fmt: skip
def test_hostile_settings_are_refused(settings: str) -> None:
    refused(with_header(frame_parts(), {**fields_of(frame_parts()), "settings": settings}))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize(
    ("name", "array"),
    [("frame", name) for name in ("pose", "covariance", "scale", "motion", "motion_std")]
    + [("refinement", name) for name in ("map_from_odom", "scale", "poses", "landmarks")],
)
def test_numbers_that_are_none_are_refused(name: str, array: str, bad: float) -> None:
    parts = MESSAGES[name]()
    arrays = fields_of(parts)["arrays"]
    i, dtype = 1 + list(arrays).index(array), arrays[array][0]
    for at in (0, -1):
        with np.errstate(over="ignore"):
            values = np.frombuffer(parts[i], dtype).copy()
            values[at] = bad
        refused([*parts[:i], values.tobytes(), *parts[i + 1 :]])


def test_standard_deviations_may_be_infinite_but_not_nan_or_negative() -> None:
    refinement = make_refinement()
    for bad in (np.nan, -1.0):
        refused(encode_refinement(STREAM, replace(refinement, scale_std=bad)))
        stds = np.full(5, bad, np.float32)
        refused(encode_refinement(STREAM, replace(refinement, landmark_stds=stds)))
    decode(encode_refinement(STREAM, replace(refinement, scale_std=np.inf)))


def decoded_or_refused(parts: Sequence[Part]) -> bool:
    try:
        decode(parts)
    except WireError:
        return False
    return True


@pytest.mark.parametrize("name", MESSAGES)
def test_thousands_of_damaged_messages_are_refused_or_harmless(name: str) -> None:
    rng = random.Random(5)
    # A small image, so that the damage is not all to pixels.
    frame, estimate = make_frame(3)
    small = Frame(0, frame.image[:3, :4], replace(frame.camera, width=4, height=3))
    parts = encode_frame(STREAM, 1, SETTINGS, small, estimate) if "frame" in name else None
    whole = [bytes(part) for part in parts or MESSAGES[name]()]
    tracemalloc.start()
    for _ in range(2000):
        damaged = [bytearray(part) for part in whole]
        for _ in range(rng.choice([1, 1, 2, 20])):
            part = rng.choice(damaged[: rng.choice([1, len(damaged)])])
            if rng.random() < 0.1 and part:
                del part[rng.randrange(len(part)) :]
            elif part and rng.random() < 0.5:
                part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)
            elif part:
                part[rng.randrange(len(part))] = rng.choice(b'0123456789-.eE[]{}",:\\ \x00\xff')
        decoded_or_refused([bytes(part) for part in damaged])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6


def test_random_bytes_are_refused() -> None:
    rng = random.Random(6)
    for _ in range(1000):
        refused([rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(4))])
        refused(with_header([], rng.randbytes(rng.randrange(200))))


@pytest.mark.parametrize("parts", [[], [b""], [b"a"], [b"head", b"", memoryview(b"body")]])
def test_a_message_travels_in_one_piece(parts: list[Part]) -> None:
    assert [bytes(part) for part in split(joined(parts))] == [bytes(part) for part in parts]


@given(st.binary(max_size=64))
def test_what_is_no_message_has_no_parts(data: bytes) -> None:
    assert split(data) == [] or joined(split(data)) == data


@pytest.mark.parametrize("wrong", [b"", b"1234567", joined([b"abc"])[:-1], joined([b"abc"]) + b"d"])
def test_a_piece_that_was_cut_or_grew_has_no_parts(wrong: bytes) -> None:
    assert split(wrong) == []
    assert split(struct.pack(">QQ", 2**63, 2**63) + wrong) == []
