from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vo_stream.adjust.ground_plane import GroundPlane, NoGround, height_above_ground
from vo_stream.adjust.road_view import compile_ground, correlations, normal_equations
from vo_stream.camera import CameraModel
from vo_stream.corners import Image
from vo_stream.demo.world import STREET_CAMERA, scaled, street
from vo_stream.se3 import SE3, rotation_from_vector

CAMERA = CameraModel(620, 188, 350.0, 350.0, 309.5, 93.5)
HEIGHT = 1.65
RADIUS = 16.0
NO_POINTS = np.empty((0, 3), dtype=np.float32)
NO_STDS = np.empty(0, dtype=np.float32)

Drive = tuple[list[Image], list[SE3]]


@cache
def texture() -> npt.NDArray[np.float32]:
    """Blotches of several sizes, 40 px a metre; wraps around."""
    rng = np.random.default_rng(5)
    picture = np.full((1024, 1024), 110.0, dtype=np.float32)
    for size in (64, 256, 1024):
        coarse = rng.normal(0.0, 22.0, (size, size)).astype(np.float32)
        picture += cv2.resize(coarse, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    return picture


def looked_at(pose: SE3, wall_z: float | None = None, bank: float = 0.0) -> Image:
    """Render the ground y = 0, with banks beside a curve, or a wall; axes like the camera's."""
    v, u = np.indices((CAMERA.height, CAMERA.width), dtype=np.float64)
    rays = CAMERA.back_project(np.stack([u, v], axis=-1)) @ pose.rotation.T
    along = rays[..., 1] if wall_z is None else rays[..., 2]
    distance = -pose.translation[1] if wall_z is None else wall_z - pose.translation[2]
    depth = distance / np.where(along > 1e-3, along, np.inf)
    points = pose.translation + rays * depth[..., None]
    if bank:
        above = pose.translation + rays * (depth * (1.0 - bank / HEIGHT))[..., None]
        off_road = np.abs(np.hypot(above[..., 0] - RADIUS, above[..., 2]) - RADIUS) > 2.6
        points = np.where(off_road[..., None], above, points)
    s, t = points[..., 0], points[..., 2] if wall_z is None else points[..., 1]
    grey = cv2.remap(
        texture(),
        (40.0 * s % 1023.0).astype(np.float32),
        (40.0 * t % 1023.0).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    # The far ground is finer than the pixels: it averages out.
    contrast = np.clip(16.0 / np.maximum(depth, 1e-3) - 0.5, 0.0, 1.0)
    return np.asarray(np.clip(110.0 + contrast * (grey - 110.0), 0, 255), dtype=np.uint8)


def pose_at(z: float, yaw: float = 0.0, pitch: float = 0.0, x: float = 0.0) -> SE3:
    """Return world_from_camera, `HEIGHT` above the ground; pitch is downwards."""
    rotation = rotation_from_vector([0.0, yaw, 0.0]) @ rotation_from_vector([-pitch, 0.0, 0.0])
    return SE3.from_rotation_translation(rotation, [x, -HEIGHT, z])


@cache
def plain_drive(pitch: float = 0.0) -> Drive:
    poses = [pose_at(0.7 * i, pitch=pitch) for i in range(6)]
    return [looked_at(pose) for pose in poses], poses


@cache
def curved_drive(bank: float) -> Drive:
    """To the right, between banks."""
    angles = 0.7 / RADIUS * np.arange(-5, 1)
    poses = [pose_at(RADIUS * math.sin(a), yaw=a, x=RADIUS * (1.0 - math.cos(a))) for a in angles]
    return [looked_at(pose, bank=bank) for pose in poses], poses


@cache
def street_drive() -> tuple[CameraModel, list[Image], list[SE3]]:
    world, camera = street(4), scaled(STREET_CAMERA, (620, 188))
    instants = 8.0 + 0.12 * np.arange(6)
    images = [world.render(t, camera).image for t in instants]
    greys = [np.asarray(np.clip(i, 0, 255), dtype=np.uint8) for i in images]
    return camera, greys, [world.pose(t) for t in instants]


def measured(drive: Drive) -> GroundPlane | NoGround:
    return height_above_ground(CAMERA, *drive, NO_POINTS, NO_STDS)


def found(result: GroundPlane | NoGround) -> GroundPlane:
    assert isinstance(result, GroundPlane), result
    return result


def times(poses: list[SE3], factor: float) -> list[SE3]:
    return [SE3.from_rotation_translation(p.rotation, factor * p.translation) for p in poses]


def jolted(poses: list[SE3], length: float, angle: float) -> list[SE3]:
    rng = np.random.default_rng(1)
    stds = np.repeat([length, angle], 3)
    return [pose @ SE3.exp(rng.normal(0.0, stds)) for pose in poses]


@pytest.mark.parametrize("pitch", [0.0, 0.12])
def test_the_height_of_a_camera_over_a_plane(pitch: float) -> None:
    plane = found(measured(plain_drive(pitch)))
    assert plane.height == pytest.approx(HEIGHT, rel=0.02)
    assert plane.normal == pytest.approx([0.0, math.cos(pitch), math.sin(pitch)], abs=0.01)
    assert 0.01 < plane.log_std < 0.06
    assert plane.pairs >= 2
    assert 0.5 < plane.correlation < 1.0


def test_the_height_over_a_rendered_street_fits_its_deviation() -> None:
    camera, images, poses = street_drive()
    noisy = jolted(poses, 0.002, 2e-4)
    plane = found(height_above_ground(camera, images, noisy, NO_POINTS, NO_STDS))
    error = math.log(plane.height / poses[-1].translation[2])
    assert abs(error) < 0.05
    assert abs(error) < 3.0 * plane.log_std
    assert plane.log_std < 0.06


@pytest.mark.parametrize("bank", [0.15, 0.25])
def test_in_a_curve_the_verge_is_not_the_road(bank: float) -> None:
    assert found(measured(curved_drive(bank))).height == pytest.approx(HEIGHT, rel=0.03)


def test_compiling_beforehand_leaves_nothing_to_compile() -> None:
    compile_ground()
    found(measured(plain_drive()))
    loops: list[Any] = [correlations, normal_equations]
    assert all(len(getattr(f, "__wrapped__", f).signatures) == 1 for f in loops)


@pytest.mark.parametrize("factor", [1e-3, 0.3, 50.0])
def test_lengths_scale_with_the_map(factor: float) -> None:
    images, poses = plain_drive()
    one = found(measured((images, poses)))
    other = found(measured((images, times(poses, factor))))
    assert other.height == pytest.approx(factor * one.height, rel=1e-3)
    assert other.log_std == pytest.approx(one.log_std, rel=0.05)


def test_driving_backwards_is_not_answered_wrongly() -> None:
    images, poses = plain_drive()
    result = measured((images[::-1], poses[::-1]))
    assert isinstance(result, NoGround) or result.height == pytest.approx(HEIGHT, rel=0.05)


def test_the_place_of_the_map_does_not_matter() -> None:
    images, poses = plain_drive()
    away = SE3.exp([3.0, -20.0, 8.0, 0.4, -1.0, 2.0])
    other = found(measured((images, [away @ pose for pose in poses])))
    assert other.height == pytest.approx(found(measured((images, poses))).height, rel=1e-3)


def test_a_parked_car_does_not_raise_the_ground() -> None:
    images, poses = plain_drive()
    covered = [image.copy() for image in images]
    for i, image in enumerate(covered):  # something near, at the side, that grows
        cv2.rectangle(image, (390 + 8 * i, 110), (470 + 20 * i, 188), 30, -1)
        cv2.rectangle(image, (400 + 9 * i, 125), (440 + 15 * i, 150), 220, -1)
    assert found(measured((covered, poses))).height == pytest.approx(HEIGHT, rel=0.04)


def test_another_exposure_does_not_matter() -> None:
    images, poses = plain_drive()
    lit = [
        np.asarray(image * (0.7 + 0.08 * i) + 5, dtype=np.uint8) for i, image in enumerate(images)
    ]
    assert found(measured((lit, poses))).height == pytest.approx(HEIGHT, rel=0.02)


def wall() -> Drive:
    poses = [pose_at(0.7 * i) for i in range(6)]
    return [looked_at(pose, wall_z=12.0) for pose in poses], poses


def turn_on_the_spot() -> Drive:
    poses = [pose_at(0.0, yaw=0.03 * i) for i in range(6)]
    return [looked_at(pose) for pose in poses], jolted(poses, 0.004, 2e-4)


def standstill() -> Drive:
    poses = [pose_at(0.0)] * 6
    return [looked_at(poses[0])] * 6, poses


def trembling_standstill() -> Drive:
    images, poses = standstill()
    return images, jolted(poses, 0.004, 2e-4)


def rising() -> Drive:
    """A lift, not a vehicle."""
    level = [pose_at(0.0) for _ in range(6)]
    poses = [SE3.exp([0, -0.5 * i, 0, 0, 0, 0]) @ pose for i, pose in enumerate(level)]
    return [looked_at(pose) for pose in poses], poses


def frozen_picture() -> Drive:
    images, poses = plain_drive()
    return [images[0]] * len(images), poses


def bare_road() -> Drive:
    images, poses = plain_drive()
    return [np.full_like(image, 90) for image in images], poses


def noise_only() -> Drive:
    rng = np.random.default_rng(2)
    images, poses = plain_drive()
    return [rng.integers(0, 255, image.shape, dtype=np.uint8) for image in images], poses


def single() -> Drive:
    images, poses = plain_drive()
    return images[:1], poses[:1]


def poseless() -> Drive:
    return plain_drive()[0], [*plain_drive()[1][:-1], SE3(np.full(7, np.nan))]


def far_off_pose() -> Drive:
    images, poses = plain_drive()
    return images, [SE3.exp([0, 0, 1e200, 0, 0, 0]), *poses[1:]]


def wrong_size() -> Drive:
    images, poses = plain_drive()
    return [image[:-2] for image in images], poses


@pytest.mark.parametrize(
    "drive",
    [
        wall, turn_on_the_spot, standstill, trembling_standstill, rising, frozen_picture, bare_road,
        noise_only, single, poseless, far_off_pose, wrong_size,
    ],
)  # fmt: skip
def test_what_shows_no_ground_is_refused(drive: Callable[[], Drive]) -> None:
    result = measured(drive())
    assert isinstance(result, NoGround), result
    assert result.reason


def test_landmarks_below_the_plane_contradict_it() -> None:
    images, poses = plain_drive()
    rng = np.random.default_rng(3)
    ahead = rng.uniform([-1.5, 0.0, 6.0], [1.5, 0.0, 12.0], (40, 3))
    stds = np.full(40, 0.02, dtype=np.float32)
    on_road = poses[-1].apply(ahead + [0.0, HEIGHT, 0.0])
    below = poses[-1].apply(ahead + [0.0, 1.6 * HEIGHT, 0.0])
    found(height_above_ground(CAMERA, images, poses, on_road, stds))
    assert isinstance(height_above_ground(CAMERA, images, poses, below, stds), NoGround)
    found(height_above_ground(CAMERA, images, poses, below, 20.0 * stds))


def test_a_landmark_that_is_no_number_is_refused() -> None:
    images, poses = plain_drive()
    points = np.full((1, 3), np.nan, dtype=np.float32)
    assert isinstance(height_above_ground(CAMERA, images, poses, points, np.ones(1)), NoGround)


def test_landmarks_without_deviations_are_refused() -> None:
    points = np.zeros((3, 3), dtype=np.float32)
    assert isinstance(height_above_ground(CAMERA, *plain_drive(), points, NO_STDS), NoGround)


def test_a_distorted_camera_is_refused() -> None:
    images, poses = plain_drive()
    camera = CameraModel(620, 188, 350.0, 350.0, 309.5, 93.5, "plumb_bob", (0.1, 0.0, 0.0, 0.0))
    assert isinstance(height_above_ground(camera, images, poses, NO_POINTS, NO_STDS), NoGround)


def test_inputs_are_left_alone_and_the_answer_repeats() -> None:
    images, poses = plain_drive()
    points = poses[-1].apply(np.array([[0.0, HEIGHT, 8.0]])).astype(np.float32)
    stds = np.full(1, 0.1, dtype=np.float32)
    inputs: list[npt.NDArray[np.generic]] = [*images, points, stds]
    before = [array.copy() for array in inputs]
    for array in inputs:
        array.flags.writeable = False
    one = found(height_above_ground(CAMERA, images, poses, points, stds))
    two = found(height_above_ground(CAMERA, images, poses, points, stds))
    assert all(np.array_equal(a, b) for a, b in zip(before, inputs, strict=True))
    assert (one.height, one.log_std) == (two.height, two.log_std)
    assert not one.normal.flags.writeable
