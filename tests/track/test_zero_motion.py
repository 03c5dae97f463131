from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vo_stream.track.zero_motion import Rest

THRESHOLD_PX = 0.3


def texture(seed: int = 0, size: tuple[int, int] = (240, 320)) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.asarray(128.0 + 40.0 * smooth / smooth.std(), dtype=np.float32)


def grey(image: npt.NDArray[np.float32], seed: int = 1) -> npt.NDArray[np.uint8]:
    noisy = image + np.random.default_rng(seed).normal(0.0, 2.0, image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def shifted(image: npt.NDArray[np.float32], dx: float, dy: float = 0.0) -> npt.NDArray[np.float32]:
    matrix = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
    moved = cv2.warpAffine(
        image, matrix, image.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(moved, dtype=np.float32)


def test_noise_and_brightness_are_no_motion() -> None:
    rest = Rest.at(0, grey(texture()))
    for seed in range(2, 12):
        assert rest.holds(grey(texture() + seed, seed), THRESHOLD_PX)


@pytest.mark.parametrize(
    ("dx", "dy"), [(0.6, 0.0), (0.0, -0.6), (0.5, 0.5), (3.0, 1.0), (40.0, 0.0)]
)
def test_motion_ends_the_rest(dx: float, dy: float) -> None:
    rest = Rest.at(0, grey(texture()))
    assert not rest.holds(grey(shifted(texture(), dx, dy), 5), THRESHOLD_PX)


def test_slow_motion_adds_up() -> None:
    rest = Rest.at(0, grey(texture()))
    still = [rest.holds(grey(shifted(texture(), 0.05 * i), i), THRESHOLD_PX) for i in range(20)]
    assert still[:4] == [True] * 4
    assert not any(still[10:])


def test_the_displacement_is_measured() -> None:
    image = texture()
    rest = Rest.at(0, grey(image))
    for dx in (0.1, 0.2, 0.25):
        assert rest.holds(grey(shifted(image, dx)), dx + 0.08)
        assert not rest.holds(grey(shifted(image, dx)), dx - 0.08)


def test_something_that_passes_by_is_no_motion_but_a_moving_scene_is() -> None:
    rest = Rest.at(0, grey(texture()))
    passing = texture()
    passing[:, :60] = texture(9)[:, :60]
    assert rest.holds(grey(passing, 3), THRESHOLD_PX)
    passing[:, :160] = texture(9)[:, :160]
    assert not rest.holds(grey(passing, 3), THRESHOLD_PX)


def test_without_texture_nothing_is_said() -> None:
    blank = np.full((240, 320), 100, dtype=np.uint8)
    assert not Rest.at(0, blank).holds(blank, THRESHOLD_PX)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (12, 12), (13, 13), (13, 400)])
def test_tiny_images(size: tuple[int, int]) -> None:
    image = grey(np.full(size, 90.0, dtype=np.float32))
    assert not Rest.at(0, image).holds(image, THRESHOLD_PX)
