"""Settings of what comes in and what goes out; `config.py` puts them into the tree."""

from __future__ import annotations

from dataclasses import dataclass

from vo_stream.setting import AT_ONCE, AT_START, setting


@dataclass(frozen=True, slots=True)
class CameraConfig:
    """What is known of the camera beside what its messages or files say."""

    calibration_file: str = setting(
        "",
        "File with the camera's calibration (camera_info YAML, EuRoC or calib.json). Empty takes "
        "CameraInfo messages, or what the recording holds.",
    )
    rectified: bool = setting(
        False,
        "The images are rectified already: the projection matrix P of CameraInfo holds and there "
        "is no distortion. Topics whose last name begins with image_rect are taken so anyway.",
    )


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """How recordings are read."""

    topic: str = setting(
        "", "Image topic of a bag; empty takes the only one there is, or asks for a choice."
    )
    camera_info_topic: str = setting(
        "", "CameraInfo topic of a bag; empty takes the one beside the image topic."
    )
    groundtruth_topic: str = setting(
        "",
        "Topic of a bag with the true poses of the camera's optical frame (PoseStamped or "
        "Odometry); empty: none.",
    )
    wheel_topic: str = setting(
        "",
        "Topic of a bag with the robot's speed by its wheels (Odometry or TwistStamped), for "
        "scale.source wheel; empty: none.",
    )


@dataclass(frozen=True, slots=True)
class InputConfig:
    """How the node takes in images."""

    transport: str = setting(
        "raw",
        "raw: sensor_msgs/Image on image. compressed: sensor_msgs/CompressedImage on "
        "image/compressed.",
        choices=("raw", "compressed"),
    )
    drop_stale: bool = setting(
        True,
        "true: while an image is worked at the newest one waits, older ones are dropped and "
        "counted, as a robot wants it. false: none is dropped, and images wait with DDS until "
        "there is room, as a played bag wants it; their publisher must be reliable.",
    )
    queue: int = setting(
        10, "Images that are taken in ahead where drop_stale is false.", within=(1, 1000)
    )


@dataclass(frozen=True, slots=True)
class FramesConfig:
    """Names of the coordinate frames (REP-105), and how the camera sits on the robot."""

    map: str = setting("map", "Frame of the refined path; its transform to odom may jump.")
    odom: str = setting("odom", "Frame of the live odometry: base_link where a session begins.")
    base: str = setting("base_link", "Frame of the robot.")
    camera: str = setting(
        "", "Optical frame of the camera. Empty takes the one that the images name."
    )
    mount: str = setting(
        "tf_static",
        "Where the camera sits on the robot. tf_static: what /tf_static says. forward: base_link "
        "is at the camera and looks where it looks, x forward, z up; the node publishes that.",
        choices=("tf_static", "forward"),
    )


@dataclass(frozen=True, slots=True)
class PublishConfig:
    """What the node publishes beside ~/odometry and /diagnostics."""

    odom_tf: bool = setting(True, "The transform odom -> base_link on /tf.", taken=AT_ONCE)
    map_tf: bool = setting(True, "The transform map -> odom on /tf.", taken=AT_ONCE)
    path: bool = setting(True, "The refined keyframes on ~/refined_path.", taken=AT_ONCE)
    path_length: int = setting(
        1000, "Keyframes in that path; of more, the oldest are left out.", within=(10, 10_000)
    )
    landmarks: bool = setting(True, "The window's landmarks on ~/landmarks.", taken=AT_ONCE)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The ROS node itself."""

    autostart: bool = setting(
        False,
        "Configure and activate when the process starts, for those without a lifecycle manager.",
        taken=AT_START,
    )
    wait_s: float = setting(
        3.0,
        "How long the node waits for images, calibration or transform before it says what is "
        "missing.",
        unit="s",
        within=(0.5, 600.0),
        taken=AT_ONCE,
    )
    trajectory_file: str = setting(
        "trajectory.tum",
        "Where ~/save_trajectory writes (TUM format). The refined keyframes go beside it, as "
        "NAME.keyframes.tum.",
        taken=AT_ONCE,
    )
    trajectory_length: int = setting(
        1_000_000,
        "Poses kept for ~/save_trajectory, 64 bytes each; of more, the oldest are left out.",
        within=(1000, 100_000_000),
    )
