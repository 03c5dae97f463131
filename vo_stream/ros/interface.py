"""What the node offers on the ROS graph. The node makes it from this table, the docs show it."""

from __future__ import annotations

from typing import NamedTuple

NODE_NAME = "vo_stream"


class Topic(NamedTuple):
    """One topic. `name` as the node asks for it: relative, `~/` its own, or `/` for everyone.

    `type`: package/msg/Name. `qos`: the name of a profile in `ros/qos.py`. `rate`: when a message
    comes, for people. `help`: what it says, for people.
    """

    name: str
    type: str
    qos: str
    rate: str
    help: str


class Service(NamedTuple):
    """One service, all of type std_srvs/srv/Trigger."""

    name: str
    help: str


IMAGE = Topic("image", "sensor_msgs/msg/Image", "sensor", "", "Images, if input.transport is raw.")
COMPRESSED = Topic(
    "image/compressed",
    "sensor_msgs/msg/CompressedImage",
    "sensor",
    "",
    "JPEG or PNG images, if input.transport is compressed. Follows a remapping of image.",
)
CAMERA_INFO = Topic(
    "camera_info",
    "sensor_msgs/msg/CameraInfo",
    "sensor",
    "",
    "The calibration. The latest holds for the images that come after it.",
)
TF_STATIC = Topic(
    "/tf_static",
    "tf2_msgs/msg/TFMessage",
    "tf_static",
    "",
    "Where the camera sits on the robot, if frames.mount is tf_static.",
)
WHEEL_ODOMETRY = Topic(
    "wheel/odometry",
    "nav_msgs/msg/Odometry",
    "sensor",
    "",
    "The robot's speed, if scale.source is wheel. Only the twist is used.",
)
WHEEL_TWIST = Topic(
    "wheel/twist", "geometry_msgs/msg/TwistStamped", "sensor", "", "The same, as a twist."
)
SUBSCRIBED = (IMAGE, COMPRESSED, CAMERA_INFO, TF_STATIC, WHEEL_ODOMETRY, WHEEL_TWIST)

ODOMETRY = Topic(
    "~/odometry",
    "nav_msgs/msg/Odometry",
    "reliable",
    "each image that is used",
    "Pose of base_link in odom and its twist, both with full 6x6 covariances. The stamp is the "
    "image's.",
)
TF = Topic(
    "/tf",
    "tf2_msgs/msg/TFMessage",
    "tf",
    "each image that is used",
    "odom -> base_link and map -> odom, with the image's stamp.",
)
PATH = Topic(
    "~/refined_path",
    "nav_msgs/msg/Path",
    "latched",
    "each keyframe",
    "The keyframes as the adjuster sees them, as poses of base_link in map.",
)
LANDMARKS = Topic(
    "~/landmarks",
    "sensor_msgs/msg/PointCloud2",
    "latched",
    "each keyframe",
    "The window's landmarks in map: x, y, z, and std, the standard deviation of their distance "
    "as a part of it.",
)
DIAGNOSTICS = Topic(
    "/diagnostics",
    "diagnostic_msgs/msg/DiagnosticArray",
    "reliable",
    "1 Hz",
    "Status, rate, latency, drops, scale, adjuster, and what is missing.",
)
PUBLISHED = (ODOMETRY, TF, PATH, LANDMARKS, DIAGNOSTICS)

RESET = Service("~/reset", "Start a new session: the next image is the origin of odom.")
PAUSE = Service("~/pause", "Leave images alone until resumed; nothing is published.")
RESUME = Service("~/resume", "Go on after a pause, from the pose held.")
SAVE_TRAJECTORY = Service(
    "~/save_trajectory",
    "Write the session's poses of the camera to node.trajectory_file, in TUM format.",
)
SERVICES = (RESET, PAUSE, RESUME, SAVE_TRAJECTORY)
