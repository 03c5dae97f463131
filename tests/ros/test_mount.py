"""The mount is found, kept for a session, and taken anew when it is told to."""

from __future__ import annotations

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped

from vo_stream.errors import ConfigError
from vo_stream.io_config import FramesConfig
from vo_stream.ros.frames import FORWARD
from vo_stream.ros.mount import Mount, check_frames
from vo_stream.ros.outgoing import transform_message
from vo_stream.se3 import SE3

A = SE3.exp([0.3, -0.1, 0.5, 0.2, 1.1, -0.4])
B = SE3.exp([-1.0, 0.2, 0.1, 0.4, -0.3, 0.1])

CHANGED = "the camera's mount has changed: ~/reset takes it over"


def transform(mount: SE3, parent: str = "base_link", child: str = "camera") -> TransformStamped:
    return transform_message(0, parent, child, mount)


def same(one: SE3 | None, other: SE3) -> bool:
    return one is not None and np.allclose(one.as_matrix(), other.as_matrix(), atol=1e-9)


def test_it_is_what_tf_static_says() -> None:
    mount = Mount(FramesConfig())
    assert mount.base_from_camera("camera") is None
    mount.heard([transform(A, child="mast")])
    assert mount.base_from_camera("camera") is None
    mount.heard([transform(B, "mast", "camera")])
    assert same(mount.base_from_camera("camera"), A @ B)


@pytest.mark.parametrize("image_frame", ["camera", "/camera"])
@pytest.mark.parametrize("named", ["", "camera", "/camera"])
def test_the_camera_has_the_frame_that_is_set_or_that_the_images_name(
    named: str, image_frame: str
) -> None:
    mount = Mount(FramesConfig(camera=named))
    mount.heard([transform(A)])
    assert same(mount.base_from_camera(image_frame), A)
    assert mount.camera_frame == "camera"


def test_the_setting_outdoes_the_images() -> None:
    mount = Mount(FramesConfig(camera="left"))
    mount.heard([transform(A), transform(B, child="left")])
    assert same(mount.base_from_camera("camera"), B)


def test_it_stays_for_a_session(caplog: pytest.LogCaptureFixture) -> None:
    mount = Mount(FramesConfig())
    mount.heard([transform(A)])
    assert same(mount.base_from_camera("camera"), A)
    mount.heard([transform(A)])
    mount.heard([transform(B, child="lidar")])
    assert not caplog.messages
    mount.heard([transform(B)])
    assert caplog.messages == [CHANGED]
    assert same(mount.base_from_camera("camera"), A)
    assert same(mount.base_from_camera("another"), A)
    mount.forget()
    assert same(mount.base_from_camera("camera"), B)


def test_a_camera_that_is_torn_off_has_changed(caplog: pytest.LogCaptureFixture) -> None:
    mount = Mount(FramesConfig())
    mount.heard([transform(A)])
    assert same(mount.base_from_camera("camera"), A)
    mount.heard([transform(B, parent="elsewhere")])
    assert caplog.messages == [CHANGED]
    assert same(mount.base_from_camera("camera"), A)


@pytest.mark.parametrize("image_frame", ["", "camera"])
def test_forward_needs_nobody_to_say_so(image_frame: str, caplog: pytest.LogCaptureFixture) -> None:
    mount = Mount(FramesConfig(mount="forward"))
    assert mount.base_from_camera(image_frame) is FORWARD
    mount.heard([transform(A)])
    assert mount.base_from_camera(image_frame) is FORWARD
    assert mount.camera_frame == image_frame
    assert not caplog.messages


def test_why_it_is_not_known() -> None:
    mount = Mount(FramesConfig())
    mount.heard([transform(A, child="mast")])
    assert mount.base_from_camera("") is None
    assert mount.why_not() == (
        "the images name no frame: set frames.camera, or frames.mount: forward"
    )
    assert mount.base_from_camera("camera") is None
    assert mount.why_not() == (
        "no transform base_link -> camera: /tf_static has nothing of camera; it knows "
        "base_link -> mast; publish it, or set frames.mount: forward"
    )


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ({"base": "odom"}, "a name of its own"),
        ({"map": "/base_link"}, "a name of its own"),
        ({"odom": "/"}, "frames.odom: a frame needs a name"),
    ],
)
def test_frames_have_names_of_their_own(names: dict[str, str], why: str) -> None:
    check_frames(FramesConfig())
    with pytest.raises(ConfigError, match=why):
        check_frames(FramesConfig(**names))
