from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from vo_stream.camera import CameraModel
from vo_stream.demo import paths
from vo_stream.demo.render import NO_SURFACE, Rendering
from vo_stream.demo.world import NOISE_GREY, WORLDS, World, render_demo, scaled
from vo_stream.errors import SourceError
from vo_stream.se3 import SE3, Array

SMALL = {"street": (620, 188), "room": (320, 240)}
STEP_S = 0.05


@pytest.fixture(scope="module", params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param](0)


def grey(rendering: Rendering) -> np.ndarray:
    return np.asarray(np.clip(np.rint(rendering.image), 0, 255), dtype=np.uint8)


def reprojected(
    camera: CameraModel, rendering: Rendering, pixels: np.ndarray, b_from_a: SE3
) -> Array:
    """Return where a second camera sees what the first sees at whole (n, 2) pixels."""
    inverse_depth = rendering.inverse_depth[pixels[:, 1], pixels[:, 0]]
    points = camera.back_project(pixels) / inverse_depth[:, None].astype(np.float64)
    return camera.project(b_from_a.apply(points))


def far_from_outlines(rendering: Rendering, margin: int) -> np.ndarray:
    """Return where only one rectangle is seen within a margin."""
    surface = rendering.surface.astype(np.float32)
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    uniform = cv2.erode(surface, kernel) == cv2.dilate(surface, kernel)
    return np.asarray(uniform & (surface != NO_SURFACE))


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_same_seed_same_bytes_other_seed_other_bytes(name: str) -> None:
    def film(seed: int) -> list[bytes]:
        frames = render_demo(name, seconds=0.1, seed=seed, size=(160, 64))
        return [frame.image.tobytes() for frame, _ in frames]

    first = film(3)
    assert len(first) == 2
    assert film(3) == first
    assert set(film(4)).isdisjoint(first)


@pytest.mark.parametrize("seconds", [0.3, 6.5, 8.6])
def test_corner_tracks_agree_with_the_true_motion(world: World, seconds: float) -> None:
    camera = world.camera
    first, second = world.render(seconds), world.render(seconds + STEP_S)
    clear = far_from_outlines(first, 7).astype(np.uint8)
    corners = cv2.goodFeaturesToTrack(grey(first), 400, 0.01, 7, mask=clear)
    motion = world.pose(seconds + STEP_S).inverse() @ world.pose(seconds)
    truth = reprojected(camera, first, corners[:, 0].astype(int), motion)
    inside = ((truth > 8) & (truth < np.array(camera.size) - 9)).all(axis=1)
    start = truth[inside, None].astype(np.float32)
    tracked, found, _ = cv2.calcOpticalFlowPyrLK(
        grey(first), grey(second), corners[inside], start.copy(),
        winSize=(15, 15), maxLevel=0, flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    error = np.linalg.norm((tracked - start)[found[:, 0] > 0, 0], axis=1)
    assert len(error) > 100
    assert np.median(error) < 0.1


def test_what_is_seen_twice_looks_the_same(world: World) -> None:
    camera = scaled(world.camera, SMALL[world.name])
    first, second = world.render(0.3, camera), world.render(0.3 + STEP_S, camera)
    v, u = np.nonzero(far_from_outlines(first, 2))
    pixels = np.random.default_rng(0).permutation(np.column_stack([u, v]))[:5000]
    target = reprojected(
        camera, first, pixels, world.pose(0.3 + STEP_S).inverse() @ world.pose(0.3)
    ).astype(np.float32)
    seen = cv2.remap(second.image, target[None, :, 0], target[None, :, 1], cv2.INTER_LINEAR)[0]
    nearest = np.rint(target).astype(int)
    inside = ((nearest >= 0) & (nearest < camera.size)).all(axis=1)
    pixels, nearest, seen = pixels[inside], nearest[inside], seen[inside]
    unoccluded = (
        second.surface[nearest[:, 1], nearest[:, 0]] == first.surface[pixels[:, 1], pixels[:, 0]]
    )
    difference = np.abs(seen - first.image[pixels[:, 1], pixels[:, 0]])[unoccluded]
    assert unoccluded.mean() > 0.9
    assert np.mean(difference < 16) > 0.95


def test_inverse_depth_lies_on_the_ground(world: World) -> None:
    camera, pose = world.camera, world.pose(0.0)
    rendering = world.render(0.0)
    v, u = np.nonzero(rendering.surface == rendering.surface[-1, camera.width // 2])
    points = camera.back_project(np.column_stack([u, v])) / rendering.inverse_depth[v, u][:, None]
    height = pose.apply(points)[:, 2]
    assert len(height) > 1000
    assert np.ptp(height) < 1e-3


def test_corners_are_everywhere(world: World) -> None:
    image = grey(world.render(0.3))
    corners = cv2.goodFeaturesToTrack(image, 2000, 0.003, 5)[:, 0]
    cells, _, _ = np.histogram2d(
        corners[:, 0], corners[:, 1], bins=(6, 4), range=[[0, image.shape[1]], [0, image.shape[0]]]
    )
    assert (cells >= 3).mean() > 0.9
    assert (cells[:, -1] >= 3).all()  # the ground


def test_the_car_stands_still() -> None:
    start, end = paths.STREET_STOP_S
    poses = [paths.street_pose(t).wxyz_xyz for t in np.linspace(start, end, 11)]
    assert all(np.array_equal(pose, poses[0]) for pose in poses)
    *_, before, after = render_demo("street", seconds=5.6, fps=1.25, size=(160, 48))
    assert before[1].wxyz_xyz.tobytes() == after[1].wxyz_xyz.tobytes()
    difference = after[0].image.astype(float) - before[0].image
    assert np.std(difference - np.median(difference)) < 2.5 * NOISE_GREY


def test_the_hand_only_turns() -> None:
    start, end = paths.ROOM_PIVOT_S
    first, last = paths.room_pose(start), paths.room_pose(end)
    assert np.array_equal(first.translation, last.translation)
    assert (first.inverse() @ last).angle > 0.1


@pytest.mark.parametrize("pose", [paths.street_pose, paths.room_pose])
def test_paths_are_smooth_for_as_long_as_asked(pose: object) -> None:
    assert callable(pose)
    poses = [pose(t) for t in np.arange(0.0, 60.0, 0.05)]
    steps = np.stack([(a.inverse() @ b).log() for a, b in pairwise(poses)])
    change = np.linalg.norm(np.diff(steps, axis=0), axis=1)
    assert change.max() < 0.04  # metres or radians in a twentieth of a second


def test_a_distorted_camera_sees_the_same_world(world: World) -> None:
    ideal = scaled(world.camera, (320, 160))
    lens = CameraModel(320, 160, ideal.fx, ideal.fy, ideal.cx, ideal.cy, "plumb_bob",
                       (-0.2, 0.05, 0.001, -0.002, 0.0))  # fmt: skip
    straight, bent = world.render(0.3, ideal), world.render(0.3, lens)
    v, u = np.indices((160, 320), dtype=np.float64)
    maps = lens.project(ideal.back_project(np.stack([u, v], axis=-1))).astype(np.float32)
    undone = cv2.remap(bent.image, maps, None, cv2.INTER_LINEAR)
    inner = np.s_[16:-16, 16:-16]
    blurred = [cv2.GaussianBlur(image, (0, 0), 2.0) for image in (undone, straight.image)]
    assert np.median(np.abs(blurred[0] - blurred[1])[inner]) < 1.0
    surface = cv2.remap(bent.surface, maps, None, cv2.INTER_NEAREST)
    same = (surface == straight.surface) & (surface != NO_SURFACE)
    depth = cv2.remap(bent.inverse_depth, maps, None, cv2.INTER_LINEAR)
    relative = np.abs(depth / np.maximum(straight.inverse_depth, 1e-6) - 1.0)
    assert same[inner].mean() > 0.8
    assert np.median(relative[inner][same[inner]]) < 1e-3


def test_motion_blur_softens_what_moves() -> None:
    (sharp, _), *_ = render_demo("room", 0.05, size=(160, 120))
    (soft, _), *_ = render_demo("room", 0.05, size=(160, 120), exposure_s=0.08)
    edges = [cv2.Laplacian(f.image, cv2.CV_32F).std() for f in (sharp, soft)]
    assert edges[1] < 0.8 * edges[0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("moon", {}),
        ("room", {"seconds": 0.0}),
        ("room", {"fps": -1.0}),
        ("room", {"size": (64, 48), "camera": CameraModel(64, 48, 50.0, 50.0, 32.0, 24.0)}),
    ],
)
def test_what_cannot_be_filmed_is_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(SourceError):
        render_demo(name, **options)  # type: ignore[arg-type]
