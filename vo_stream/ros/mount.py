"""Where the camera sits on the robot."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from vo_stream.errors import ConfigError
from vo_stream.io_config import FramesConfig
from vo_stream.ros.frames import FORWARD
from vo_stream.ros.static_tf import StaticTree, plain_name
from vo_stream.se3 import SE3

logger = logging.getLogger(__name__)


def check_frames(config: FramesConfig) -> None:
    """Raise ConfigError where two frames share a name, or one has none."""
    names = {key: plain_name(getattr(config, key)) for key in ("map", "odom", "base")}
    for key, name in names.items():
        if not name:
            raise ConfigError(f"frames.{key}: a frame needs a name")
    if len(set(names.values())) < len(names):
        raise ConfigError(f"frames: each needs a name of its own, not {', '.join(names.values())}")


class Mount:
    """Finds base_from_camera, and keeps to it until it is told to `forget`.

    A mount that changed under way would make the odometry jump, so a later word of /tf_static waits
    for the next session.
    """

    def __init__(self, config: FramesConfig) -> None:
        self._config = config
        self._tree = StaticTree()
        self._camera_frame = plain_name(config.camera)
        self._base_from_camera: SE3 | None = None

    @property
    def camera_frame(self) -> str:
        """The camera's optical frame; empty where no image has named it yet."""
        return self._camera_frame

    def heard(self, transforms: Iterable[Any]) -> None:
        """Take in the transforms of a message on /tf_static."""
        changed, known = self._tree.add(transforms), self._base_from_camera
        if not changed or known is None or self._config.mount != "tf_static":
            return
        if not _same(self._tree.lookup(self._config.base, self._camera_frame), known):
            logger.warning("the camera's mount has changed: ~/reset takes it over")

    def base_from_camera(self, image_frame: str) -> SE3 | None:
        """Return the mount of the camera that took an image; None where it is not known yet."""
        if self._base_from_camera is None:
            self._camera_frame = plain_name(self._config.camera or image_frame)
            if self._config.mount == "forward":
                self._base_from_camera = FORWARD
            elif self._camera_frame:
                self._base_from_camera = self._tree.lookup(self._config.base, self._camera_frame)
        return self._base_from_camera

    def forget(self) -> None:
        """Look again with the next image."""
        self._base_from_camera = None

    def why_not(self) -> str:
        """Return, in one line, why the mount is not known."""
        if not self._camera_frame:
            return "the images name no frame: set frames.camera, or frames.mount: forward"
        missing = self._tree.why_not(self._config.base, self._camera_frame)
        return f"{missing}; publish it, or set frames.mount: forward"


def _same(mount: SE3 | None, other: SE3) -> bool:
    return mount is not None and bool((mount.wxyz_xyz == other.wxyz_xyz).all())
