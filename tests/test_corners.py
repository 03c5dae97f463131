"""Corners in images that the tests draw themselves, so that the truth is known."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vo_stream.corners import CornerTracker, Image, Pixels, detect, same_exposure

SIZE = (320, 240)
BORDER = 10
NONE_TAKEN = np.empty((0, 2), dtype=np.float32)


def textured(shift: tuple[float, float] = (0.0, 0.0), contrast: float = 1.0) -> Image:
    """Return a sum of waves; content moves by `shift` pixels (x, y), exactly."""
    rng = np.random.default_rng(4)
    v, u = np.indices((SIZE[1], SIZE[0]), dtype=np.float64)
    grey = np.zeros_like(u)
    for _ in range(40):
        frequency = rng.uniform(-0.35, 0.35, 2)
        phase = rng.uniform(0.0, 6.3)
        grey += np.sin(frequency[0] * (u - shift[0]) + frequency[1] * (v - shift[1]) + phase)
    return np.asarray(np.clip(np.rint(120 + 11 * contrast * grey), 0, 255), dtype=np.uint8)


def noisy(image: Image, seed: int, sigma: float = 1.5) -> Image:
    noise = np.random.default_rng(seed).normal(0.0, sigma, image.shape)
    return np.asarray(np.clip(np.rint(image + noise), 0, 255), dtype=np.uint8)


def chessboard(cell: int = 20) -> Image:
    v, u = np.indices((SIZE[1], SIZE[0]))
    return np.asarray(np.where((u // cell + v // cell) % 2, 200, 50), dtype=np.uint8)


def cells_of(pixels: Pixels, count: int) -> list[tuple[int, int]]:
    cell = max(8, round((SIZE[0] * SIZE[1] / count) ** 0.5))
    return [(int(x - BORDER) // cell, int(y - BORDER) // cell) for x, y in pixels]


@pytest.mark.parametrize("count", [50, 200, 500])
def test_each_cell_gives_one_corner(count: int) -> None:
    pixels = detect(textured(), count, NONE_TAKEN, BORDER)
    assert pixels.dtype == np.float32
    assert 0.6 * count < len(pixels) <= 1.1 * count
    cells = cells_of(pixels, count)
    assert len(set(cells)) == len(cells)


def test_corners_keep_away_from_the_rim() -> None:
    for border in (0, 3, 31):
        pixels = detect(textured(), 300, NONE_TAKEN, border)
        assert len(pixels) > 50
        assert (pixels >= border).all()
        assert (pixels <= np.array(SIZE) - 1 - border).all()


def test_cells_that_have_a_corner_get_no_other() -> None:
    count = 200
    everything = detect(textured(), count, NONE_TAKEN, BORDER)
    taken = everything[::2]
    rest = detect(textured(), count, taken, BORDER)
    np.testing.assert_array_equal(rest, everything[1::2])
    assert len(detect(textured(), count, everything, BORDER)) == 0


def test_corners_taken_outside_the_grid_are_no_matter() -> None:
    taken = np.array([[0, 0], [319, 239], [-50, 10], [1e6, 1e6]], dtype=np.float32)
    everything = detect(textured(), 100, NONE_TAKEN, BORDER)
    np.testing.assert_array_equal(detect(textured(), 100, taken, BORDER), everything)


def test_corners_are_where_the_corners_are() -> None:
    pixels = detect(chessboard(20), 192, NONE_TAKEN, BORDER)
    miss = (pixels + 0.5) - 20 * np.round((pixels + 0.5) / 20)
    assert len(pixels) > 100
    assert np.abs(miss).max() <= 2.0


def test_a_flat_or_noisy_image_has_no_corner() -> None:
    flat = np.full((SIZE[1], SIZE[0]), 120, dtype=np.uint8)
    assert len(detect(flat, 200, NONE_TAKEN, BORDER)) == 0
    assert len(detect(noisy(flat, 0), 200, NONE_TAKEN, BORDER)) == 0
    ramp = np.tile(np.arange(SIZE[0]) * 255 // SIZE[0], (SIZE[1], 1)).astype(np.uint8)
    assert len(detect(ramp, 200, NONE_TAKEN, BORDER)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (20, 20), (24, 27)])
def test_an_image_too_small_for_a_cell_has_no_corner(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    pixels = detect(image, 500, NONE_TAKEN, BORDER)
    assert pixels.shape == (0, 2)
    assert pixels.dtype == np.float32


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -0.62), (4.25, 2.5), (-11.4, 7.7)])
def test_a_shift_is_found_to_a_fraction_of_a_pixel(shift: tuple[float, float]) -> None:
    before, after = noisy(textured(), 1), noisy(textured(shift), 2)
    pixels = detect(before, 200, NONE_TAKEN, 25)
    found, trusted, std = CornerTracker().track(before, after, pixels)
    assert found.shape == pixels.shape
    assert trusted.mean() > 0.95
    error = (found - pixels - np.array(shift))[trusted]
    assert np.abs(np.median(error, axis=0)).max() < 0.02
    assert np.percentile(np.linalg.norm(error, axis=1), 95) < 0.1
    assert (std > 0.0).all()


def test_a_guess_helps_where_the_motion_is_large() -> None:
    shift = np.array([38.6, -21.3], dtype=np.float32)
    before, after = textured(), textured((38.6, -21.3))
    pixels = detect(before, 150, NONE_TAKEN, 50)
    tracker = CornerTracker(levels=1)
    found, trusted, _ = tracker.track(before, after, pixels, pixels + shift + np.float32(1.0))
    assert trusted.mean() > 0.95
    assert np.abs(found - pixels - shift)[trusted].max() < 0.1
    _, blind, _ = tracker.track(before, after, pixels)
    assert blind.mean() < 0.5


def test_arguments_are_not_written_to() -> None:
    before, after = textured(), textured((1.0, 1.0))
    pixels = detect(before, 50, NONE_TAKEN, BORDER)
    guess = pixels + np.float32(1.0)
    copies = [a.copy() for a in (before, after, pixels, guess)]
    CornerTracker().track(before, after, pixels, guess)
    for array, copy in zip((before, after, pixels, guess), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_corners_that_are_covered_or_leave_are_not_trusted() -> None:
    before, after = textured(), textured((6.0, 0.0))
    cover = np.random.default_rng(9).integers(0, 255, (110, 120), dtype=np.uint8)
    after[60:170, 100:220] = cv2.GaussianBlur(cover, (0, 0), 2.0)
    pixels = detect(before, 300, NONE_TAKEN, 2)
    found, trusted, _ = CornerTracker().track(before, after, pixels)
    truth = pixels + np.array([6.0, 0.0])
    depth = np.minimum(truth - [100, 60], [220, 170] - truth).min(axis=1)
    hidden, clear = depth > 8, (depth < -16) & (truth[:, 0] < SIZE[0] - 10)
    assert hidden.sum() > 20
    assert trusted[hidden].mean() < 0.1
    assert trusted[clear & (pixels > 8).all(axis=1)].mean() > 0.9
    assert not trusted[truth[:, 0] > SIZE[0] + 1].any()
    assert (found[trusted] >= 0).all()
    assert (found[trusted] <= np.array(SIZE) - 1).all()


def test_a_blank_image_gives_no_track() -> None:
    pixels = detect(textured(), 100, NONE_TAKEN, BORDER)
    for grey in (0, 128, 255):
        blank = np.full((SIZE[1], SIZE[0]), grey, dtype=np.uint8)
        _, trusted, _ = CornerTracker().track(textured(), blank, pixels)
        assert not trusted.any()


@pytest.mark.parametrize(("gain", "offset"), [(1.3, 10.0), (0.75, -5.0), (1.0, 25.0)])
def test_a_change_of_exposure_is_followed(gain: float, offset: float) -> None:
    before = textured(contrast=0.5)
    dark = textured((2.3, -1.6), contrast=0.5).astype(np.float64)
    after = np.clip(np.rint(gain * dark + offset), 0, 255).astype(np.uint8)
    pixels = detect(before, 200, NONE_TAKEN, 25)
    found, trusted, _ = CornerTracker().track(before, after, pixels)
    assert trusted.mean() > 0.9
    error = np.linalg.norm(found - pixels - [2.3, -1.6], axis=1)[trusted]
    assert np.percentile(error, 95) < 0.1


def test_no_corners_give_no_tracks() -> None:
    found, trusted, std = CornerTracker().track(textured(), textured(), NONE_TAKEN)
    assert found.shape == (0, 2)
    assert trusted.shape == std.shape == (0,)
    assert trusted.dtype == np.bool_


def test_stronger_texture_is_known_better() -> None:
    pixels = detect(textured(), 100, NONE_TAKEN, BORDER)
    stds = []
    for contrast in (0.25, 0.5, 1.0):
        image = textured(contrast=contrast)
        stds.append(CornerTracker().track(image, image, pixels)[2])
    weak, middle, strong = stds
    assert (strong < middle).all()
    assert (middle < weak).all()
    # The error of a least-squares match goes with one over the gradient.
    np.testing.assert_allclose(np.median(weak / strong), 4.0, rtol=0.15)
    wide = CornerTracker(window_px=31).track(textured(), textured(), pixels)[2]
    assert np.median(wide) < np.median(strong)


def test_the_stated_noise_is_that_of_the_error() -> None:
    # Two images, noise of 4 / sqrt(2) each: the difference has the documented 4 grey levels.
    sigma = 4.0 / 2.0**0.5
    before = textured()
    pixels = detect(before, 200, NONE_TAKEN, 25)
    errors: list[npt.NDArray[np.float64]] = []
    for seed in range(4):
        after = noisy(textured((0.4, 0.3)), 2 * seed, sigma)
        found, trusted, std = CornerTracker().track(
            noisy(before, 2 * seed + 1, sigma), after, pixels
        )
        errors.append(((found - pixels - [0.4, 0.3]) / std[:, None])[trusted])
    assert 0.3 < float(np.std(np.concatenate(errors))) < 1.5


def test_exposure_is_only_touched_where_it_differs() -> None:
    image = textured()
    assert same_exposure(image, image) is image
    brighter = np.clip(image.astype(int) + 20, 0, 255).astype(np.uint8)
    matched = same_exposure(image, brighter)
    assert abs(float(matched.mean()) - float(brighter.mean())) < 1.0
    black = np.zeros_like(image)
    assert same_exposure(black, image) is black
