"""Damaged input of every kind, and what must hold whatever comes.

A case is a kind of `CASES` and a seed; the same two make the same case again. tests/test_fuzz.py
runs a few hundred of them, tools/fuzz.py as many as wanted.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import numpy.typing as npt
from click.testing import CliRunner

from vo_stream.camera import CameraModel
from vo_stream.cli import main
from vo_stream.config import Config, settings
from vo_stream.demo.world import render_demo
from vo_stream.errors import ConfigError
from vo_stream.net.backends import open_backend
from vo_stream.replay.writers import write_folder, write_kitti, write_ros2_bag
from vo_stream.se3 import SE3
from vo_stream.track.odometer import Odometer
from vo_stream.values import NANOSECONDS, Estimate, Frame, Status

Rng = random.Random
AnyImage = npt.NDArray[Any]

SIZE = (200, 150)
PERIOD_NS = 100_000_000
GOOD_FRAMES = 20
RECORDED_FRAMES = 6

STEP_LIMIT_S = 2.0
CASE_LIMIT_S = 20.0
RECOVERY_FRAMES = 6
"""So many good frames, 0.1 s apart, bring any stream back to TRACKING."""

INT64 = 2**63


class HangError(Exception):
    """A case took longer than `CASE_LIMIT_S`."""


@dataclass
class Bench:
    """Where the cases are laid out.

    `folder`: all files go below it. `external`: run the command in a process of its own.
    `damaged`: counts what was damaged, files and frames.
    """

    folder: Path
    external: bool = False
    damaged: int = field(default=0, init=False)

    @property
    def recordings(self) -> Path:
        """The undamaged recordings, made on first use."""
        path = self.folder / "recordings"
        if not path.exists():
            record(path)
        return path

    def fresh(self) -> Path:
        """Return an empty folder for a case."""
        path = self.folder / "case"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


def run_case(kind: str, seed: int, bench: Bench) -> str:
    """Run a case; return how it went in a word, raise where something did not hold."""
    with warnings.catch_warnings(), _time_limit(CASE_LIMIT_S):
        warnings.simplefilter("error")
        return CASES[kind](random.Random(f"{kind} {seed}"), bench)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise HangError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@cache
def good_frames() -> tuple[tuple[Frame, SE3], ...]:
    """Return a healthy stream with its true poses."""
    return tuple(render_demo("room", GOOD_FRAMES * PERIOD_NS / NANOSECONDS, 10.0, 0, SIZE))


# Frames -----------------------------------------------------------------------------------------


def stream_case(rng: Rng, bench: Bench) -> str:
    """Feed good and bad frames in turn; every answer must be sound, and the stream recover."""
    usual = rng.random() < 0.6
    config = Config() if usual else random_config(rng)
    watched = Watched(Odometer(open_backend(config), config.track))
    seen: list[AnyImage] = []
    for _ in range(rng.randint(2, 6)):
        for frame, _pose in good_frames()[: rng.randint(0, 5)]:
            watched.step(Frame(watched.following_ns(), frame.image, frame.camera))
        habit = rng.choice(["image", "stamp", "camera", "all"])
        for _ in range(rng.randint(1, 6)):
            good = rng.choice(good_frames())[0]
            camera = good.camera
            if habit == "camera" or (habit == "all" and rng.random() < 0.3):
                camera = random_camera(rng) or camera
            image: AnyImage = good.image
            if camera.size != SIZE and camera.width * camera.height <= 4_000_000:
                image = np.resize(good.image, camera.size[::-1])
            if habit in ("image", "all"):
                image = rng.choice(IMAGES)(rng, image)
            if seen and rng.random() < 0.2:
                image = rng.choice(seen)
            seen = [*seen[-3:], image]
            stamp = watched.following_ns()
            if habit in ("stamp", "all"):
                stamp = rng.choice(STAMPS)(rng, watched.newest_ns)
            watched.step(Frame(stamp, image, camera))
            bench.damaged += 1
    if rng.random() < 0.1:
        watched.odometer.reset()
    start = rng.randint(0, GOOD_FRAMES - RECOVERY_FRAMES)
    for frame, _pose in good_frames()[start : start + RECOVERY_FRAMES]:
        status = watched.step(Frame(watched.following_ns(), frame.image, frame.camera)).status
    assert not usual or status is Status.TRACKING, f"{status} after good frames"
    return status.value


@dataclass
class Watched:
    """An odometer whose every answer is checked."""

    odometer: Odometer
    newest_ns: int = 0
    last: Estimate | None = None

    def following_ns(self) -> int:
        """Return the stamp of a frame that comes in its time."""
        if self.newest_ns + PERIOD_NS >= INT64 - NANOSECONDS:
            self.newest_ns = 0  # the clock was set, and runs on from there
        else:
            self.newest_ns += PERIOD_NS
        return self.newest_ns

    def step(self, frame: Frame) -> Estimate:
        """Pass a frame on and check the answer."""
        began = time.perf_counter()
        estimate = self.odometer.step(frame)
        seconds = time.perf_counter() - began
        assert seconds < STEP_LIMIT_S, f"a step took {seconds:.1f} s"
        assert estimate.stamp_ns == frame.stamp_ns
        check_estimate(estimate)
        if self.last is not None:
            assert estimate.session >= self.last.session, "the session went back"
        if estimate.refused:
            assert estimate.reason, "refused without a reason"
            assert estimate.motion is None
            if self.last is not None:
                same = self.last.odom_from_camera.wxyz_xyz == estimate.odom_from_camera.wxyz_xyz
                assert same.all(), "a refused frame moved the pose"
                assert (self.last.covariance == estimate.covariance).all()
                assert self.last.session == estimate.session
                assert self.last.status is estimate.status
        else:
            self.newest_ns = frame.stamp_ns
        if self.last is not None or not estimate.refused:
            self.last = estimate
        return estimate


def check_estimate(estimate: Estimate) -> None:
    """Check that an estimate is one that a filter downstream can take."""
    pose, covariance = estimate.odom_from_camera, estimate.covariance
    assert estimate.status in Status
    assert pose.is_finite, "the pose is not finite"
    assert abs(np.linalg.norm(pose.wxyz_xyz[:4]) - 1.0) < 1e-9, "the quaternion is not unit"
    assert covariance.shape == (6, 6)
    assert np.isfinite(covariance).all(), "the covariance is not finite"
    assert np.allclose(covariance, covariance.T, rtol=1e-9, atol=0.0), "not symmetric"
    smallest = float(np.linalg.eigvalsh(covariance).min())
    assert smallest > 0.0, f"the covariance has the eigenvalue {smallest:.3g}"
    np.linalg.cholesky(covariance)
    if estimate.motion is not None:
        assert estimate.motion.is_finite, "the motion is not finite"


def random_config(rng: Rng) -> Config:
    """Return settings some of which are anywhere in their range."""
    config = Config()
    for setting in settings():
        if not setting.key.startswith(("geometric.", "track.")) or rng.random() < 0.5:
            continue
        value: object = rng.choice(setting.choices) if setting.choices else None
        if setting.minimum is not None and setting.maximum is not None:
            low, high = setting.minimum, min(setting.maximum, 1e5)
            number = rng.choice([low, high, rng.uniform(low, high)])
            value = round(number) if setting.type is int else number
        config = config.replaced({setting.key: value})
    return config


def random_camera(rng: Rng) -> CameraModel | None:
    """Return a camera that was calibrated badly, or is an odd one; None where it is refused."""
    width, height = rng.choice(
        [
            SIZE,
            SIZE,
            SIZE,
            SIZE,
            (1, 1),
            (2, 2),
            (15, 9),
            (16, 200),
            (4000, 3),
            (3, 4000),
            (640, 480),
        ]
    )
    model, count = rng.choice(
        [("none", 0), ("plumb_bob", 5), ("plumb_bob", 4), ("rational_polynomial", 8)]
        + [("equidistant", 4)]
    )
    strength = 10.0 ** rng.uniform(-4.0, rng.choice([0.0, 1.0, 9.0]))
    focal = rng.choice([144.0, 144.0, 1e-6, 1e9, 10.0 ** rng.uniform(-8.0, 12.0)])
    centre = rng.choice([0.5, 0.5, -1e3, 1e6, rng.uniform(-5.0, 5.0)])
    try:
        return CameraModel(
            width=width,
            height=height,
            fx=focal,
            fy=focal * rng.choice([1.0, 1.0, 1e-3, 1e3]),
            cx=centre * width,
            cy=rng.choice([0.5, centre]) * height,
            distortion_model=model,
            distortion=tuple(strength * rng.uniform(-1.0, 1.0) for _ in range(count)),
        )
    except ConfigError:
        return None


def _noise(rng: Rng, shape: tuple[int, ...]) -> AnyImage:
    return np.random.default_rng(rng.getrandbits(32)).integers(0, 256, shape, dtype=np.uint8)


def _checkerboard(rng: Rng, image: AnyImage) -> AnyImage:
    v, u = np.indices(image.shape)
    side = rng.choice([1, 2, 7, 20])
    return np.asarray(255 * ((u // side + v // side) % 2), dtype=np.uint8)


def _half_black(rng: Rng, image: AnyImage) -> AnyImage:
    dark = image.copy()
    dark[:, : image.shape[1] // 2] = 0
    return np.asarray(dark)


def _floats(rng: Rng, image: AnyImage) -> AnyImage:
    return np.where(image > 90, rng.choice([np.nan, np.inf, -1.0, 1e300]), image)


IMAGES: list[Callable[[Rng, AnyImage], AnyImage]] = [
    lambda rng, image: image,
    lambda rng, image: np.zeros_like(image),
    lambda rng, image: np.full_like(image, 255),
    lambda rng, image: np.full_like(image, rng.randrange(256)),
    lambda rng, image: _noise(rng, image.shape),
    lambda rng, image: _noise(rng, image.shape) // 64 + image // 2,
    lambda rng, image: np.asarray((image > 90) * 255, dtype=np.uint8),
    lambda rng, image: image[::-1],
    lambda rng, image: image[:, ::-1],
    lambda rng, image: np.roll(image, rng.randint(-50, 50), axis=1),
    lambda rng, image: 255 - image,
    lambda rng, image: image // 16,
    _checkerboard,
    _half_black,
    _floats,
    lambda rng, image: image.astype(np.uint16),
    lambda rng, image: image > 90,
    lambda rng, image: image.astype(object),
    lambda rng, image: np.stack([image] * 3, axis=-1),
    lambda rng, image: image[: rng.randint(0, 3)],
    lambda rng, image: image[:, : rng.randint(0, 3)],
    lambda rng, image: image.T,
    lambda rng, image: image.ravel(),
    lambda rng, image: np.array(7, dtype=np.uint8),
]

STAMPS: list[Callable[[Rng, int], int]] = [
    lambda rng, newest: newest,
    lambda rng, newest: newest + 1,
    lambda rng, newest: newest - 1,
    lambda rng, newest: newest + 1_000,
    lambda rng, newest: newest - 20_000_000,
    lambda rng, newest: newest - 3_600 * NANOSECONDS,
    lambda rng, newest: newest + 1_500_000_000,
    lambda rng, newest: newest + 3_600 * NANOSECONDS,
    lambda rng, newest: newest + rng.randint(-2 * NANOSECONDS, 2 * NANOSECONDS),
    lambda rng, newest: 0,
    lambda rng, newest: -1,
    lambda rng, newest: INT64 - 1,
    lambda rng, newest: -INT64,
    lambda rng, newest: rng.randrange(-INT64, INT64),
]


# Recordings -------------------------------------------------------------------------------------


def record(folder: Path) -> None:
    """Write the same recording in every format that is read."""
    frames = good_frames()[:RECORDED_FRAMES]
    camera, truth = frames[0][0].camera, ""
    write_folder(folder / "folder", frames)
    write_kitti(folder / "kitti", "07", frames)
    write_ros2_bag(folder / "mcap", frames)
    write_ros2_bag(folder / "compressed", frames, compressed=True)
    _convert(folder)

    tum, cam0 = folder / "tum_freiburg1", folder / "euroc" / "mav0" / "cam0"
    shutil.copytree(folder / "folder", tum)
    names = [f"images/{i:06d}.png" for i in range(len(frames))]
    times = (tum / "times.txt").read_text().split()
    (tum / "rgb.txt").write_text("".join(f"{t} {n}\n" for t, n in zip(times, names, strict=True)))
    (tum / "times.txt").unlink()
    (tum / "groundtruth.tum").rename(tum / "groundtruth.txt")

    shutil.copytree(folder / "folder" / "images", cam0 / "data")
    rows = [f"{frame.stamp_ns},{i:06d}.png" for i, (frame, _) in enumerate(frames)]
    (cam0 / "data.csv").write_text("#timestamp [ns],filename\n" + "\n".join(rows) + "\n")
    intrinsics = [camera.fx, camera.fy, camera.cx, camera.cy]
    (cam0 / "sensor.yaml").write_text(
        f"T_BS:\n  cols: 4\n  rows: 4\n  data: {np.eye(4).ravel().tolist()}\n"
        f"resolution: {list(SIZE)}\ncamera_model: pinhole\nintrinsics: {intrinsics}\n"
        "distortion_model: radial-tangential\n"
        "distortion_coefficients: [-0.1, 0.02, 1e-4, 1.0e-5]\n"
    )
    for frame, pose in frames:
        numbers = ",".join(map(str, [*pose.translation, *pose.wxyz_xyz[:4]]))
        truth += f"{frame.stamp_ns},{numbers}\n"
    poses = cam0.parent / "state_groundtruth_estimate0"
    poses.mkdir()
    (poses / "data.csv").write_text("#timestamp,p,q\n" + truth)

    video = cv2.VideoWriter(str(folder / "video.avi"), _MJPG, 10.0, SIZE, False)
    for frame, _pose in frames:
        video.write(frame.image)
    video.release()

    k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    (folder / "camera_info.yaml").write_text(
        f"image_width: {SIZE[0]}\nimage_height: {SIZE[1]}\ndistortion_model: plumb_bob\n"
        f"camera_matrix: {{rows: 3, cols: 3, data: {k}}}\n"
        "distortion_coefficients: {rows: 1, cols: 5, data: [-0.1, 0.02, 0.0, 0.0, 0.0]}\n"
    )
    (folder / "settings.yaml").write_text(
        "vo_stream:\n  ros__parameters:\n"
        "    geometric:\n      corners: 300\n      epipolar_px: 0.8\n      solver: five_point\n"
        "    track:\n      max_gap_s: 0.5\n    camera.rectified: false\n    replay.topic: ''\n"
    )


_MJPG = cv2.VideoWriter.fourcc(*"MJPG")


def _convert(folder: Path) -> None:
    """Write the mcap recording as a ROS 1 bag and as a ROS 2 bag in sqlite3."""
    from rosbags.convert.converter import convert
    from rosbags.typesys import Stores, get_typestore

    for name, version, store in (("run.bag", 1, Stores.ROS1_NOETIC), ("sqlite3", 9, None)):
        typestore = get_typestore(store) if store else None
        none: list[str] = []
        convert(
            [folder / "mcap"], folder / name, "sqlite3", version,
            None, "file", None, typestore, none, none, none, none,
        )  # fmt: skip


SOURCES = {
    "folder": "folder",
    "kitti": "kitti/sequences/07",
    "tum": "tum_freiburg1",
    "euroc": "euroc",
    "mcap": "mcap",
    "compressed": "compressed",
    "sqlite3": "sqlite3",
    "rosbag1": "run.bag",
    "video": "video.avi",
}
"""The undamaged recordings: what they are, and where below `Bench.recordings`."""


def recording_case(name: str) -> Callable[[Rng, Bench], str]:
    """Return the case that damages a recording, then replays it."""

    def run(rng: Rng, bench: Bench) -> str:
        case, source = bench.fresh(), SOURCES[name]
        top = source.split("/")[0]
        if (bench.recordings / top).is_dir():
            shutil.copytree(bench.recordings / top, case / top)
        else:
            shutil.copy(bench.recordings / top, case / top)
        files = sorted(f for f in (case / top, *case.rglob("*")) if f.is_file())
        telling = [f for f in files if f.suffix not in (".png", ".avi")]
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            damage(rng, rng.choice(telling if telling and rng.random() < 0.7 else files))
            bench.damaged += 1
        options = ["--calib", str(bench.recordings / "camera_info.yaml")] if name == "video" else []
        return check_replay(bench, case / source, case / "out", options)

    return run


def option_case(option: str, originals: list[str]) -> Callable[[Rng, Bench], str]:
    """Return the case that damages a file given beside a good recording."""

    def run(rng: Rng, bench: Bench) -> str:
        case, original = bench.fresh(), bench.recordings / rng.choice(originals)
        file = case / original.name
        shutil.copy(original, file)
        damage(rng, file)
        bench.damaged += 1
        source = bench.recordings / SOURCES[rng.choice(["folder", "mcap", "kitti"])]
        return check_replay(bench, source, case / "out", [option, str(file)])

    return run


def evaluate_case(rng: Rng, bench: Bench) -> str:
    """Compare damaged trajectories."""
    case = bench.fresh()
    files = case / "estimate.tum", case / "groundtruth.tum"
    original = bench.recordings / "folder" / "groundtruth.tum"
    for file in files:
        shutil.copy(original, file)
    for _ in range(rng.choice([1, 1, 2, 3])):
        damage(rng, rng.choice(files))
        bench.damaged += 1
    align = rng.choice([[], ["--align", "none"], ["--align", "se3"], ["--align", "sim3"]])
    as_json = rng.random() < 0.8
    code, stdout = check_command(
        bench, ["evaluate", *map(str, files), *align, *(["--json"] if as_json else [])]
    )
    if code == 0 and as_json:
        check_finite(strict_json(stdout))
    return "evaluated" if code == 0 else "refused"


CASES: dict[str, Callable[[Rng, Bench], str]] = {
    "stream": stream_case,
    **{name: recording_case(name) for name in SOURCES},
    "calibration": option_case(
        "--calib",
        ["camera_info.yaml", "folder/calib.json", "euroc/mav0/cam0/sensor.yaml"],
    ),
    "settings": option_case("--config", ["settings.yaml"]),
    "evaluate": evaluate_case,
}


def check_replay(bench: Bench, source: Path, out: Path, options: list[str]) -> str:
    """Replay; there must be either whole, finite results or one line that says why not."""
    arguments = ["replay", str(source), "--out", str(out), "--json", *options]
    code, stdout = check_command(bench, arguments)
    if code != 0:
        assert not list(out.glob("*")), "results in spite of an error"
        return "refused"
    summary = strict_json((out / "summary.json").read_text())
    check_finite(summary)
    assert strict_json(stdout).keys() == summary.keys()
    poses = [line.split() for line in (out / "live.tum").read_text().splitlines()[1:]]
    assert poses or summary["statuses"]["initializing"] == summary["frames"], "no pose"
    for words in poses:
        assert len(words) == 8
        assert all(math.isfinite(float(word)) for word in words), "live.tum is not finite"
    page = (out / "report.html").read_text()
    ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    lowered = page.lower()
    assert ">nan<" not in lowered
    assert '"nan' not in lowered
    return "tracked" if summary["statuses"]["tracking"] else "untracked"


def check_command(bench: Bench, arguments: list[str]) -> tuple[int, str]:
    """Run vo-stream; it succeeds, or says in one line on stderr why not and exits with 2."""
    if bench.external:
        command = [sys.executable, "-m", "vo_stream.cli", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CASE_LIMIT_S, check=False
        )
        code, stdout, stderr = done.returncode, done.stdout, done.stderr
    else:
        result = CliRunner(catch_exceptions=False).invoke(main, arguments)
        code, stdout, stderr = result.exit_code, result.stdout, result.stderr
    assert code in (0, 2), f"exit code {code}: {stderr[-500:]}"
    said = [
        line
        for line in stderr.splitlines()
        if line.startswith("vo-stream: ") and not line.startswith("vo-stream: WARNING: ")
    ]
    assert len(said) == (1 if code else 0), f"said {said}"
    assert "Traceback" not in stderr
    if code:
        assert stderr.splitlines()[-1] == said[0]
        assert said[0].isprintable(), f"unprintable: {said[0]!r}"
        assert len(said[0]) < 1000, "a very long line"
        assert not stdout, "an error, and output all the same"
    return code, stdout


def strict_json(text: str) -> Any:
    """Parse JSON that holds no NaN and no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"the JSON holds {constant}")

    return json.loads(text, parse_constant=refuse)


def check_finite(tree: object) -> None:
    """Check that no number in a tree overflows."""
    if isinstance(tree, dict):
        for value in tree.values():
            check_finite(value)
    elif isinstance(tree, list):
        for value in tree:
            check_finite(value)
    elif isinstance(tree, float):
        assert math.isfinite(tree), "a number in the JSON is not finite"


# Damage -----------------------------------------------------------------------------------------

NASTY = [
    "", "nan", "NaN", "-nan", "inf", "-inf", "1e300", "-1e300", "1e200", "1e30", "1e-320", "1e999",
    "-1", "0", "-0.0", "9.2e9", "1e18", "9" * 25, "9" * 5000, "1" * 400 + ".5", "0x10", "1_000",
    "\uff11\uff12", "\u0663", "1,5", "true", "null", "~", "[]", "{}", "[[[[", "abc", "\x00",
    "\x1b[31m", "\r", "\u2028", "é", "..", "../../../etc/hostname", "/dev/null", ".", "#", "%",
    "*a", "&a", "!!a/b", "2026-01-01", "1:30", "'", '"', ":", "- ", "<<",
    "9223372036854775807", "-9223372036854775808",
]  # fmt: skip


def damage(rng: Rng, file: Path) -> None:
    """Damage a file, one way or another."""
    if not file.is_file():
        return
    data = file.read_bytes()
    fate = rng.random()
    if fate < 0.04:
        file.unlink()
    elif fate < 0.07:
        file.write_bytes(b"")
    elif fate < 0.10:
        other = rng.choice([f for f in sorted(file.parent.rglob("*")) if f.is_file()])
        file.write_bytes(other.read_bytes())
    elif fate < 0.12:
        file.unlink()
        file.mkdir()
    elif b"\0" in data[:4096] or rng.random() < 0.2:
        file.write_bytes(damaged_bytes(rng, data))
    else:
        text = data.decode("utf-8", "surrogateescape")
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            text = damaged_text(rng, text)
        file.write_bytes(text.encode("utf-8", "surrogateescape"))


def damaged_bytes(rng: Rng, data: bytes) -> bytes:
    """Cut bytes short, flip, overwrite, insert or drop some."""
    new, n = bytearray(data), max(1, len(data))
    # Structure is at both ends of most formats.
    region = rng.choice([n, n, min(n, 64), min(n, 1024), min(n, 8192)])
    at = rng.randrange(region)
    if rng.random() < 0.4:
        at = n - 1 - at
    how = rng.randrange(7)
    if how == 0:
        return bytes(new[:at])
    if how == 1:
        return rng.randbytes(rng.choice([1, 10, 1000, n]))
    if how == 2:
        for _ in range(rng.choice([1, 3, 30])):
            flipped = min(len(new) - 1, max(0, at + rng.randint(-32, 32)))
            if new:
                new[flipped] ^= 1 << rng.randrange(8)
    elif how == 3:
        new[at : at + 4] = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**31]).to_bytes(4, "little")
    elif how == 4:
        new[at : at + 8] = rng.choice([0, 2**63 - 1, 2**64 - 1, 2**62]).to_bytes(8, "little")
    elif how == 5:
        length = rng.choice([1, 16, 500])
        new[at : at + length] = rng.randbytes(length)
    else:
        del new[at : at + rng.choice([1, 7, 500])]
    return bytes(new)


def damaged_text(rng: Rng, text: str) -> str:
    """Damage a line, a word or the whole of a text."""
    lines = text.splitlines(keepends=True) or [""]
    i = rng.randrange(len(lines))
    how = rng.randrange(10)
    if how == 0:
        del lines[i]
    elif how == 1:
        lines.insert(i, rng.choice(lines))
    elif how == 2:
        lines.insert(i, rng.choice(NASTY) + "\n")
    elif how == 3:
        rng.shuffle(lines)
    elif how == 4:
        return text[: rng.randrange(len(text) + 1)]
    elif how == 5:
        return rng.choice(["\ufeff" + text, text.replace("\n", "\r\n"), text.replace("\n", " ")])
    else:
        words = _words(lines[i])
        places = [k for k, word in enumerate(words) if word[0].isalnum() or word[0] == "-"]
        if places:
            k = rng.choice(places)
            words[k] = rng.choice(NASTY) if how < 9 else ""
        lines[i] = "".join(words)
    return "".join(lines)


def _words(line: str) -> list[str]:
    """Split a line into numbers and names, and what stands between them."""
    words = [""]
    for before, letter in zip(" " + line, line, strict=False):
        if (before.isalnum() or before in "+-._") != (letter.isalnum() or letter in "+-._"):
            words.append("")
        words[-1] += letter
    return [word for word in words if word]
