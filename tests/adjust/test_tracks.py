"""Tracks on images that the tests draw or render themselves, so that the truth is known."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from vo_stream.adjust.tracks import Tracks, plane_of
from vo_stream.camera import CameraModel
from vo_stream.corners import Image, Pixels
from vo_stream.demo.render import Rendering
from vo_stream.demo.world import ROOM_CAMERA, room, scaled
from vo_stream.se3 import SE3, Array, rotation_from_vector

CAMERA = CameraModel(320, 240, 230.0, 230.0, 159.5, 119.5)
STILL = SE3.identity()
SURE = np.full(6, 1e-5)
UNSURE = np.full(6, np.inf)


def waves(pixels: Array) -> Array:
    """Return the grey level of an endless smooth picture at (..., 2) pixels."""
    rng = np.random.default_rng(4)
    grey = np.zeros(pixels.shape[:-1])
    for _ in range(40):
        frequency, phase = rng.uniform(-0.35, 0.35, 2), rng.uniform(0.0, 6.3)
        grey += np.sin(pixels @ frequency + phase)
    return np.asarray(120.0 + 11.0 * grey)


def grid(camera: CameraModel = CAMERA) -> Array:
    v, u = np.indices((camera.height, camera.width), dtype=np.float64)
    return np.stack([u, v], axis=-1)


def drawn(source: Callable[[Array], Array] = lambda pixels: pixels, seed: int = 0) -> Image:
    """Return the picture whose pixels show what `source` says, with sensor noise."""
    grey = waves(source(grid())) + np.random.default_rng(seed).normal(0.0, 1.5, (240, 320))
    return np.asarray(np.clip(np.rint(grey), 0, 255), dtype=np.uint8)


def shifted(x: float, y: float, seed: int = 1) -> Image:
    return drawn(lambda pixels: pixels - [x, y], seed)


def started(image: Image, count: int = 200) -> Tracks:
    tracks = Tracks(count)
    tracks.follow(image, CAMERA, STILL, UNSURE, np.empty(0))
    tracks.start_keyframe()
    return tracks


def followed(
    tracks: Tracks,
    image: Image,
    motion: SE3 = STILL,
    std: Array = UNSURE,
    inverse_depths: Array | None = None,
) -> tuple[Pixels, Pixels]:
    """Follow into the next image; return where the corners left were, and where they are."""
    ids, before = tracks.ids, tracks.pixels
    unknown = np.full(len(ids), np.nan)
    tracks.follow(image, CAMERA, motion, std, unknown if inverse_depths is None else inverse_depths)
    assert len(tracks.ids) == len(tracks.pixels) == len(tracks.noise_px)
    assert np.isin(tracks.ids, ids).all()
    return before[np.isin(ids, tracks.ids)], tracks.pixels


def test_a_rendered_frame_gives_about_as_many_tracks_as_asked() -> None:
    image = cv2.convertScaleAbs(room().render(0.0).image)
    tracks = Tracks(300)
    tracks.follow(image, ROOM_CAMERA, STILL, UNSURE, np.empty(0))
    assert len(tracks.ids) == 0  # corners are only sought at a keyframe
    tracks.start_keyframe()
    assert 200 < len(tracks.ids) <= 330
    assert tracks.pixels.dtype == np.float32
    assert tracks.image is image
    np.testing.assert_array_equal(tracks.ids, np.arange(len(tracks.ids)))


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.4, -0.7), (5.3, 2.6), (-11.4, 7.7)])
def test_a_shift_is_found_to_a_fraction_of_a_pixel(shift: tuple[float, float]) -> None:
    tracks = started(drawn())
    many = len(tracks.ids)
    before, after = followed(tracks, shifted(*shift))
    assert len(after) > 0.8 * many
    error = after - before - shift
    assert np.abs(np.median(error, axis=0)).max() < 0.02
    assert np.percentile(np.linalg.norm(error, axis=1), 95) < 0.15
    assert (tracks.noise_px > 0.0).all()


def test_a_turn_is_found_although_it_is_far_too_large_to_search_for() -> None:
    """The live rotation alone says where to look: 55 pixels aside, and rolled."""
    turn = rotation_from_vector([0.02, 0.235, 0.05])
    motion = SE3.from_rotation_translation(turn, [0.0, 0.0, 0.0])

    def before_turn(pixels: Array) -> Array:
        return CAMERA.project(CAMERA.back_project(pixels) @ turn.T)

    after_image = drawn(before_turn, 1)
    blind, guided = started(drawn()), started(drawn())
    expected = CAMERA.project(CAMERA.back_project(guided.pixels) @ turn)
    inside = (expected > 12).all(axis=1) & (expected < [307, 227]).all(axis=1)
    _, found = followed(guided, after_image, motion)
    error = np.linalg.norm(found - expected[guided.ids], axis=1)
    assert (error < 1.5).sum() > 0.9 * inside.sum()  # a turned patch is a little off
    assert abs(np.median(found - expected[guided.ids])) < 0.1
    _, found = followed(blind, after_image)
    error = np.linalg.norm(found - expected[blind.ids], axis=1)
    assert (error < 1.5).sum() < 0.2 * inside.sum()


NEAR_ROW = 120
"""From this row on the picture is near: 0.5 away, above it 10."""


def two_layers(moved: float) -> Image:
    """Return what a camera sees that has moved to the right by `moved`."""

    def source(pixels: Array) -> Array:
        depth = np.where(pixels[..., 1] >= NEAR_ROW, 0.5, 10.0)
        aside = np.stack([CAMERA.fx * moved / depth, np.zeros_like(depth)], axis=-1)
        return np.asarray(pixels + aside)

    return drawn(source, 3)


def near_and_far_found(tracks: Tracks, pixels: Pixels, moved: float) -> tuple[float, float]:
    """Return the parts of the near and the far corners that were found where they are."""
    near = pixels[:, 1] > NEAR_ROW + 10
    far = pixels[:, 1] < NEAR_ROW - 10
    expected = pixels - np.outer(CAMERA.fx * moved * np.where(near, 2.0, 0.1), [1.0, 0.0])
    error = np.full(len(pixels), np.inf)
    error[tracks.ids] = np.linalg.norm(tracks.pixels - expected[tracks.ids], axis=1)
    inside = expected[:, 0] > 10.0
    return (error < 0.3)[near & inside].mean(), (error < 0.3)[far & inside].mean()


def test_known_depths_find_the_near_corners_that_a_turn_alone_loses() -> None:
    moved = 0.15
    motion = SE3.exp([moved, 0.0, 0.0, 0.0, 0.0, 0.0])
    guided, blind = started(drawn()), started(drawn())
    start = guided.pixels
    depths = np.where(start[:, 1] >= NEAR_ROW, 2.0, 0.1)
    depths[np.random.default_rng(0).random(len(depths)) < 0.7] = np.nan  # neighbours tell
    followed(guided, two_layers(moved), motion, SURE, depths)
    near, far = near_and_far_found(guided, start, moved)
    assert near > 0.85
    assert far > 0.85
    followed(blind, two_layers(moved), motion, SURE)
    near, far = near_and_far_found(blind, start, moved)
    assert near < 0.4
    assert far > 0.85


def test_far_corners_are_found_although_all_known_ones_are_near() -> None:
    moved = 0.15
    tracks = started(drawn())
    start = tracks.pixels
    depths = np.where(start[:, 1] >= NEAR_ROW, 2.0, np.nan)
    followed(tracks, two_layers(moved), SE3.exp([moved, 0.0, 0.0, 0.0, 0.0, 0.0]), SURE, depths)
    near, far = near_and_far_found(tracks, start, moved)
    assert near > 0.85
    assert far > 0.85


def with_an_intruder(drop_px: float) -> Image:
    """Return the picture moved 6 px to the left, but a block of it also `drop_px` down."""

    def source(pixels: Array) -> Array:
        block = (np.abs(pixels - [160.0, 120.0]) < [80.0, 70.0]).all(axis=-1)
        down = np.where(block, drop_px, 0.0)
        return np.asarray(pixels - np.stack([np.full_like(down, -6.0), down], axis=-1))

    return drawn(source, 5)


def inside_the_block(pixels: Pixels) -> int:
    return int((np.abs(pixels - [157.0, 120.0]) < [62.0, 52.0]).all(axis=1).sum())


def test_corners_that_move_against_the_motion_are_dropped_if_the_motion_is_sure() -> None:
    sideways = SE3.exp([6.0 / 230.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    sure, unsure, along = started(drawn()), started(drawn()), started(drawn())
    many, total = inside_the_block(sure.pixels), len(sure.ids)
    assert many > 15
    before, _ = followed(sure, with_an_intruder(8.0), sideways, np.full(6, 1e-4))
    assert inside_the_block(before) == 0
    assert len(before) > 0.5 * total
    # Where the live motion does not know its own direction nothing is judged by it.
    std = np.repeat([6.0 / 230.0, 1e-4], 3)
    before, _ = followed(unsure, with_an_intruder(8.0), sideways, std)
    assert inside_the_block(before) > 0.7 * many
    # Nor can be what moves as a standing thing at some depth would.
    before, _ = followed(along, with_an_intruder(0.0), sideways, np.full(6, 1e-4))
    assert inside_the_block(before) > 0.9 * many


def test_an_unsure_turn_widens_the_gate() -> None:
    sideways = SE3.exp([6.0 / 230.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    tracks = started(drawn())
    many = inside_the_block(tracks.pixels)
    std = np.repeat([1e-4, 8.0 / 230.0], 3)
    before, _ = followed(tracks, with_an_intruder(8.0), sideways, std)
    assert inside_the_block(before) > 0.7 * many


FRAMES = 30


@pytest.fixture(scope="module")
def slow() -> list[tuple[Rendering, SE3]]:
    """A camera that has all but stopped: patches change little, noise is what is left."""
    camera, world = scaled(ROOM_CAMERA, (320, 240)), room()
    instants = 5.5 + np.arange(FRAMES + 1) / 60.0
    return [(world.render(float(t), camera), world.pose(float(t))) for t in instants]


def slip_px(slow: list[tuple[Rendering, SE3]], polished: bool) -> Array:
    """Follow corners through all frames; return how far from the truth each is at the end."""
    camera, rng = scaled(ROOM_CAMERA, (320, 240)), np.random.default_rng(0)
    tracks = Tracks(300)
    begin = last = slow[0][1]
    for i, (rendering, pose) in enumerate(slow):
        noise = rng.normal(0.0, 1.5, rendering.image.shape).astype(np.float32)
        image = cv2.convertScaleAbs(rendering.image + noise)
        unknown = np.full(len(tracks.ids), np.nan)
        tracks.follow(image, camera, last.inverse() @ pose, SURE if i else UNSURE, unknown)
        if i == 0:
            tracks.start_keyframe()
            start = tracks.pixels
        elif polished and i % 10 == 0:
            tracks.polish()
            tracks.start_keyframe()
        last = pose
    column, row = start.astype(int).T
    exact = slow[0][0].surface[row, column] >= 0
    inverse_depth = np.where(exact, slow[0][0].inverse_depth[row, column], 1.0)
    points = camera.back_project(start) / inverse_depth[:, None]
    expected = camera.project((last.inverse() @ begin).apply(points))
    original = np.isin(tracks.ids, np.flatnonzero(exact))
    error = tracks.pixels[original] - expected[tracks.ids[original]]
    return np.asarray(np.linalg.norm(error, axis=1))


def test_polishing_takes_back_what_following_let_slip(
    slow: list[tuple[Rendering, SE3]],
) -> None:
    slipped, polished = slip_px(slow, False), slip_px(slow, True)
    assert len(polished) > 0.95 * len(slipped)
    assert len(polished) > 150
    assert np.median(polished) < 0.75 * np.median(slipped)
    assert np.percentile(polished, 90) < 0.75 * np.percentile(slipped, 90)
    assert np.median(polished) < 0.1


def test_what_is_no_longer_where_its_keyframe_had_it_is_lost_when_polished() -> None:
    tracks = started(drawn())
    many = len(tracks.ids)
    wrong = np.arange(0, many, 3)
    followed(tracks, drawn(seed=1))
    assert np.isin(wrong, tracks.ids).mean() > 0.9
    tracks.pixels[np.isin(tracks.ids, wrong)] += np.float32(3.0)
    tracks.polish()
    left = np.isin(wrong, tracks.ids)
    assert left.mean() < 0.1
    assert len(tracks.ids) > 0.6 * many


def test_polishing_writes_to_nothing_that_was_handed_out() -> None:
    tracks = started(drawn())
    followed(tracks, shifted(2.3, 1.4, 1))
    followed(tracks, shifted(4.6, 2.8, 2))
    kept, copy = tracks.pixels, tracks.pixels.copy()
    tracks.polish()
    np.testing.assert_array_equal(kept, copy)
    assert not np.array_equal(tracks.pixels[:20], kept[:20])


def test_polishing_before_any_image_or_keyframe_does_nothing() -> None:
    tracks = Tracks(100)
    tracks.polish()
    tracks.follow(drawn(), CAMERA, STILL, UNSURE, np.empty(0))
    tracks.polish()
    assert len(tracks.ids) == 0


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_blank_image_loses_every_track_and_gives_none(grey: int) -> None:
    tracks = started(drawn())
    many = len(tracks.ids)
    blank = np.full((240, 320), grey, dtype=np.uint8)
    followed(tracks, blank)
    assert len(tracks.ids) == 0
    tracks.polish()
    tracks.start_keyframe()
    assert len(tracks.ids) == 0
    followed(tracks, drawn())  # the picture is back, its old tracks are not
    assert len(tracks.ids) == 0
    tracks.start_keyframe()
    assert len(tracks.ids) > 0.9 * many
    assert tracks.ids.min() >= many


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (20, 20), (24, 27)])
def test_tiny_images_do_no_harm(shape: tuple[int, int]) -> None:
    height, width = shape
    camera, rng = CameraModel(width, height, 50.0, 50.0, 0.0, 0.0), np.random.default_rng(0)
    tracks = Tracks(300)
    for _ in range(4):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        tracks.follow(image, camera, STILL, SURE, np.full(len(tracks.ids), np.nan))
        tracks.polish()
        tracks.start_keyframe()
        assert (tracks.pixels >= 0.0).all()
        assert (tracks.pixels <= [width - 1, height - 1]).all()


def test_an_identity_is_for_life_and_given_once() -> None:
    tracks, rng = Tracks(150), np.random.default_rng(0)
    given: set[int] = set()
    for i in range(12):
        unknown = np.full(len(tracks.ids), np.nan)
        tracks.follow(shifted(6.0 * i, 0.0, i), CAMERA, STILL, UNSURE, unknown)
        assert (np.diff(tracks.ids) > 0).all()
        assert set(tracks.ids.tolist()) <= given
        if i % 3 == 0:
            held = set(tracks.ids.tolist())
            tracks.start_keyframe()
            fresh = set(tracks.ids.tolist()) - held
            assert fresh
            assert not fresh & given
            assert held <= set(tracks.ids.tolist())
            given |= fresh
        dropped = tracks.ids[rng.random(len(tracks.ids)) < 0.3]
        tracks.drop(dropped)
        assert not np.isin(dropped, tracks.ids).any()
        assert len(tracks.ids) == len(tracks.pixels) == len(tracks.noise_px)
        assert (np.diff(tracks.ids) > 0).all()
    assert len(tracks.ids) > 20


def test_a_track_stays_with_its_corner() -> None:
    tracks = started(drawn())
    start = tracks.pixels
    for i in range(1, 9):
        followed(tracks, shifted(4.0 * i, -2.5 * i, i))
        if i == 4:
            tracks.start_keyframe()
    old = tracks.ids < len(start)
    assert old.sum() > 0.6 * len(start)
    assert (~old).sum() > 0
    error = tracks.pixels[old] - start[tracks.ids[old]] - [32.0, -20.0]
    assert np.percentile(np.linalg.norm(error, axis=1), 95) < 0.4


def test_the_plane_is_that_of_the_camera() -> None:
    pixels = np.array([[0.0, 0.0], [159.5, 119.5], [319.0, 10.0]], dtype=np.float32)
    np.testing.assert_allclose(plane_of(pixels, CAMERA), CAMERA.back_project(pixels)[:, :2])
