"""Cameras against OpenCV's own projection, and the Rectifier against what its rays say."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vo_stream.camera import MAX_HALF_FOV_RAD, MAX_SIDE_PX, CameraModel, Rectifier, reduced_size
from vo_stream.errors import ConfigError
from vo_stream.se3 import Array

SIZE = (640, 480)
INTRINSICS = (410.0, 415.0, 322.0, 236.0)
RADIAL = (-0.28, 0.09, 6e-4, -4e-4)
CAMERAS = {
    "none": CameraModel(*SIZE, *INTRINSICS),
    "plumb_bob4": CameraModel(*SIZE, *INTRINSICS, "plumb_bob", RADIAL),
    "plumb_bob5": CameraModel(*SIZE, *INTRINSICS, "plumb_bob", (*RADIAL, 0.01)),
    "rational": CameraModel(
        *SIZE, *INTRINSICS, "rational_polynomial", (*RADIAL, 0.01, 0.06, -0.03, 0.004)
    ),
    "equidistant": CameraModel(
        *SIZE, 300.0, 302.0, 322.0, 236.0, "equidistant", (-0.02, 0.01, -0.008, 0.002)
    ),
    "ideal equidistant": CameraModel(
        *SIZE, 300.0, 302.0, 322.0, 236.0, "equidistant", (0.0, 0.0, 0.0, 0.0)
    ),
}
every_camera = pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
FOLDED = CameraModel(*SIZE, 300.0, 300.0, 319.5, 239.5, "plumb_bob", (-0.2, 0.0, 0.0, 0.0))
"""Its distortion turns back 258 px from the centre, well inside the image."""


def pixel_grid(size: tuple[int, int]) -> Array:
    u, v = np.meshgrid(np.linspace(-0.5, size[0] - 0.5, 17), np.linspace(-0.5, size[1] - 0.5, 13))
    return np.stack([u, v], axis=-1)


@every_camera
def test_rays_of_the_whole_image_come_back_to_their_pixels(camera: CameraModel) -> None:
    pixels = pixel_grid(camera.size)
    rays = camera.back_project(pixels)
    assert rays.shape == (13, 17, 3)
    assert (rays[..., 2] == 1.0).all()
    np.testing.assert_allclose(camera.project(rays), pixels, atol=1e-6)
    assert (np.sign(rays[..., 0]) == np.sign(pixels[..., 0] - camera.cx)).all()


@every_camera
@settings(deadline=None, derandomize=True, max_examples=25)
@given(u=st.floats(-0.5, 639.5), v=st.floats(-0.5, 479.5), depth=st.floats(1e-3, 1e6))
def test_any_pixel_any_depth(camera: CameraModel, u: float, v: float, depth: float) -> None:
    ray = camera.back_project([u, v])
    np.testing.assert_allclose(camera.project(depth * ray), [u, v], atol=1e-6)


@every_camera
def test_projection_is_opencvs(camera: CameraModel) -> None:
    rng = np.random.default_rng(2)
    points = np.column_stack([rng.uniform(-0.9, 0.9, (200, 2)), np.ones(200)])
    points *= rng.uniform(0.5, 20.0, (200, 1))
    k = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    zero = np.zeros(3)
    if camera is CAMERAS["ideal equidistant"] or camera.distortion_model == "equidistant":
        d = np.array(camera.distortion or [0.0] * 4)
        expected, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, k, d)
    else:
        expected, _ = cv2.projectPoints(points, zero, zero, k, np.array(camera.distortion))
    np.testing.assert_allclose(camera.project(points), expected[:, 0], atol=1e-8)


@every_camera
def test_the_principal_point_looks_straight_ahead(camera: CameraModel) -> None:
    np.testing.assert_allclose(camera.project([0.0, 0.0, 2.0]), [camera.cx, camera.cy])
    np.testing.assert_allclose(camera.back_project([camera.cx, camera.cy]), [0.0, 0.0, 1.0])


@every_camera
@pytest.mark.parametrize("z", [0.0, -1.0, math.nan])
def test_points_not_in_front_have_no_pixel(camera: CameraModel, z: float) -> None:
    points = np.array([[0.1, 0.2, z], [0.1, 0.2, 1.0], [0.0, 0.0, z]])
    assert np.isnan(camera.project(points)).all(axis=1).tolist() == [True, False, True]


def test_pixels_beyond_the_lens_have_no_ray() -> None:
    fisheye = CAMERAS["equidistant"]
    far = [[fisheye.cx + 2.0 * fisheye.fx, fisheye.cy], [fisheye.cx, fisheye.cy]]
    assert np.isnan(fisheye.back_project(far)[:, 0]).tolist() == [True, False]


def test_pixels_beyond_a_fold_have_no_ray() -> None:
    v = np.arange(0.0, 480.0, 20.0)
    for u in (0.0, 639.0):
        rays = FOLDED.back_project(np.stack([np.full_like(v, u), v], axis=-1))
        assert np.isnan(rays[:, :2]).all()
    assert np.isfinite(FOLDED.back_project([[319.5, 239.5], [100.0, 239.5]])).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distortion_model": "barrel", "distortion": (0.1,)}, "use one of: none, plumb_bob"),
        ({"distortion_model": "plumb_bob", "distortion": (0.1,) * 3}, "takes 4 or 5 coefficients"),
        ({"distortion_model": "equidistant", "distortion": (0.1,) * 5}, "takes 4 coefficients"),
        ({"distortion_model": "rational_polynomial", "distortion": (0.1,) * 14}, "takes 8"),
        ({"distortion_model": "none", "distortion": (0.1,)}, "takes 0 coefficients, not 1"),
        ({"distortion_model": "plumb_bob", "distortion": (math.nan,) * 4}, "not finite"),
        ({"cx": math.inf}, "not finite"),
        ({"fx": math.nan}, "not finite"),
        ({"fx": 0.0, "fy": 0.0, "cx": 0.0, "cy": 0.0}, "not calibrated"),
        ({"fy": -400.0}, "must be positive"),
        ({"width": 0}, "an image of 0x480 pixels is not possible"),
        ({"height": -1}, "not possible"),
        ({"width": MAX_SIDE_PX + 1}, "not possible"),
    ],
)
def test_numbers_that_are_no_cameras_are_refused(change: dict[str, object], message: str) -> None:
    numbers: dict[str, object] = dict(width=640, height=480, fx=1.0, fy=1.0, cx=1.0, cy=1.0)
    with pytest.raises(ConfigError) as caught:
        CameraModel(**(numbers | change))  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("alias", "model"),
    [
        ("radtan", "plumb_bob"),
        ("radial-tangential", "plumb_bob"),
        ("fisheye", "equidistant"),
        ("kannala_brandt4", "equidistant"),
    ],
)
def test_models_have_other_names_too(alias: str, model: str) -> None:
    camera = CameraModel(*SIZE, *INTRINSICS, alias, RADIAL)
    assert camera == CameraModel(*SIZE, *INTRINSICS, model, RADIAL)
    assert camera.distortion_model == model


@pytest.mark.parametrize("model", ["", "none", "pinhole", "plumb_bob", "radtan", "strange"])
def test_no_distortion_is_none_whatever_it_is_called(model: str) -> None:
    plain = CameraModel(*SIZE, *INTRINSICS)
    assert CameraModel(*SIZE, *INTRINSICS, model, (0.0,) * 5) == plain
    assert CameraModel(*SIZE, *INTRINSICS, model) == plain


def test_equal_cameras_are_equal_and_hash_alike() -> None:
    a = CameraModel(*SIZE, *INTRINSICS, "plumb_bob", RADIAL)
    b = CameraModel(*SIZE, *INTRINSICS, "radtan", tuple(np.array(RADIAL)))
    assert a == b
    assert len({a, b, CAMERAS["none"]}) == 2
    assert a != CameraModel(*SIZE, *INTRINSICS, "plumb_bob", (*RADIAL[:3], -5e-4))


K = [401.0, 0.0, 302.0, 0.0, 403.0, 204.0, 0.0, 0.0, 1.0]
P = [391.0, 0.0, 312.0, 7.0, 0.0, 393.0, 214.0, 8.0, 0.0, 0.0, 1.0, 9.0]


def from_info(**change: object) -> CameraModel:
    fields: dict[str, object] = dict(
        width=640, height=480, distortion_model="plumb_bob", d=[0.1, 0.2, 0.3, 0.4, 0.5], k=K, p=P
    )
    return CameraModel.from_camera_info(**(fields | change))  # type: ignore[arg-type]


def test_camera_info_as_it_is() -> None:
    raw = CameraModel(640, 480, 401.0, 403.0, 302.0, 204.0, "plumb_bob", (0.1, 0.2, 0.3, 0.4, 0.5))
    assert from_info() == raw
    assert from_info(binning=(1, 1), roi=(0, 0, 640, 480)) == raw


def test_camera_info_of_rectified_images() -> None:
    assert from_info(rectified=True) == CameraModel(640, 480, 391.0, 393.0, 312.0, 214.0)


def test_camera_info_with_binning_and_roi() -> None:
    d = (0.1, 0.2, 0.3, 0.4, 0.5)
    assert from_info(binning=(2, 4), roi=(20, 12, 400, 320)) == CameraModel(
        200, 80, 200.5, 100.75, (302.0 - 20.0) / 2, (204.0 - 12.0) / 4, "plumb_bob", d
    )
    assert from_info(binning=(2, 3), rectified=True) == CameraModel(
        320, 160, 195.5, 131.0, 156.0, 214.0 / 3
    )


def test_camera_info_that_was_never_calibrated() -> None:
    with pytest.raises(ConfigError, match="not calibrated"):
        from_info(k=[0.0] * 9)


def pattern(x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> Array:
    """Return smooth grey levels by the direction of the ray."""
    across, down = np.arctan(x.astype(np.float64)), np.arctan(y.astype(np.float64))
    return np.asarray(128.0 + 55.0 * np.sin(6.0 * across + 1.0) + 50.0 * np.cos(7.0 * down - 0.4))


def filmed(camera: CameraModel) -> npt.NDArray[np.uint8]:
    v, u = np.indices((camera.height, camera.width), dtype=np.float64)
    rays = camera.back_project(np.stack([u, v], axis=-1))
    grey = np.nan_to_num(pattern(rays[..., 0], rays[..., 1]), nan=0.0)
    return np.asarray(np.rint(grey), dtype=np.uint8)


HALF_TURN = CameraModel(800, 400, 255.0, 255.0, 399.5, 199.5, "equidistant", (1e-4, 0.0, 0.0, 0.0))
"""Its image is 180 degrees wide."""
WIDER = CameraModel(800, 400, 210.0, 210.0, 399.5, 199.5, "equidistant", (1e-4, 0.0, 0.0, 0.0))
"""Its image is 218 degrees wide: no ray in front of the camera reaches its sides."""


@pytest.mark.parametrize(
    ("source", "size"),
    [
        *((camera, SIZE) for camera in CAMERAS.values()),
        (CAMERAS["none"], (320, 240)),
        (CAMERAS["plumb_bob5"], (400, 300)),
        (CAMERAS["equidistant"], (512, 256)),
        (HALF_TURN, (640, 320)),
        (WIDER, (640, 320)),
    ],
)
def test_each_pixel_shows_what_its_ray_sees(source: CameraModel, size: tuple[int, int]) -> None:
    rectifier = Rectifier(source, size)
    image = rectifier(filmed(source))
    assert image.shape == rectifier.rays.shape[:2] == (size[1], size[0])
    assert image.dtype == np.uint8
    expected = pattern(rectifier.rays[..., 0], rectifier.rays[..., 1])
    assert np.abs(image - expected).max() < 2.0  # rounded twice, and read between two pixels


@every_camera
def test_no_ray_leaves_the_source_image(camera: CameraModel) -> None:
    for size in (SIZE, (320, 200)):
        rays = Rectifier(camera, size).rays.astype(np.float64)
        pixels = camera.project(np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1))
        assert (pixels >= -0.5 - 1e-3).all()
        assert (pixels <= np.array(camera.size) - 0.5 + 1e-3).all()


def test_rays_belong_to_the_cameras_pixels() -> None:
    rectifier = Rectifier(CAMERAS["plumb_bob5"], (400, 300))
    assert rectifier.camera.size == (400, 300)
    assert rectifier.camera.distortion_model == "none"
    np.testing.assert_allclose(
        rectifier.rays[17, 31], rectifier.camera.back_project([31.0, 17.0])[:2], rtol=1e-6
    )
    with pytest.raises(ValueError, match="read-only"):
        rectifier.rays[0, 0, 0] = 1.0


def test_an_image_that_is_right_already_is_passed_through() -> None:
    rectifier = Rectifier(CAMERAS["none"], SIZE)
    image = filmed(CAMERAS["none"])
    assert rectifier(image) is image
    assert rectifier.camera is CAMERAS["none"]


def test_resizing_keeps_the_edges_where_they_are() -> None:
    camera = Rectifier(CAMERAS["none"], (320, 160)).camera
    assert camera.fx == pytest.approx(INTRINSICS[0] / 2)
    assert camera.fy == pytest.approx(INTRINSICS[1] / 3)
    assert camera.cx == pytest.approx((INTRINSICS[2] + 0.5) / 2 - 0.5)
    assert camera.cy == pytest.approx((INTRINSICS[3] + 0.5) / 3 - 0.5)


def test_a_folded_distortion_leaves_no_view() -> None:
    # The centre could be used, but a lens that shows what its calibration denies is miscalibrated.
    for k1 in (-0.2, -0.5, -2.0):
        folded = CameraModel(*SIZE, 300.0, 300.0, 319.5, 239.5, "plumb_bob", (k1, 0.0, 0.0, 0.0))
        with pytest.raises(ConfigError, match="check the calibration"):
            Rectifier(folded, SIZE)


@pytest.mark.parametrize("lens", [HALF_TURN, WIDER])
def test_a_very_wide_lens_is_cut_to_a_usable_view(lens: CameraModel) -> None:
    rays = Rectifier(lens, (640, 320)).rays
    half_pixel = 0.5 * (rays[0, 1, 0] - rays[0, 0, 0])
    edge = math.atan(float(rays[..., 0].max() + half_pixel))
    assert edge == pytest.approx(MAX_HALF_FOV_RAD, abs=1e-5)
    assert math.atan(float(-rays[..., 0].min() + half_pixel)) == pytest.approx(edge, abs=1e-5)


@pytest.mark.parametrize(
    ("size", "max_pixels", "multiple", "expected"),
    [
        ((640, 480), 310_000, 1, (640, 480)),  # never up
        ((1280, 960), 307_200, 1, (640, 480)),
        ((1241, 376), 116_654, 1, (620, 188)),
        ((1280, 960), 307_200, 32, (640, 480)),
        ((1241, 376), 480_000, 32, (1248, 384)),  # to the nearest multiple
        ((1, 16_000), 10, 1, (1, 400)),
        ((3, 2), 100, 8, (8, 8)),
    ],
)
def test_reduced_size(
    size: tuple[int, int], max_pixels: int, multiple: int, expected: tuple[int, int]
) -> None:
    assert reduced_size(size, max_pixels, multiple) == expected
