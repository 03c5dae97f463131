"""Start the node on a camera's topics.

ros2 launch vo_stream vo_stream.launch.py [params_file:=FILE] [namespace:=NAME] [image:=TOPIC]
    [camera_info:=TOPIC] [use_sim_time:=BOOL] [autostart:=true] [adjust:=BOOL] [drop_stale:=BOOL]
    [mount:=tf_static|forward] [dds_profile:=FILE] [log_level:=info]

--show-args says what each of them does.
"""

from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

PACKAGE = "vo_stream"
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"

PARAMETERS = {
    "use_sim_time": "use_sim_time",
    "autostart": "node.autostart",
    "adjust": "adjust.enabled",
    "drop_stale": "input.drop_stale",
    "mount": "frames.mount",
}
"""Arguments that are parameters of the node; an empty one leaves its parameter alone."""

TRUTH = {"true": True, "false": False}
BOOLEAN, BOOLEAN_OR_EMPTY = [*TRUTH], [*TRUTH, ""]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch: one lifecycle node."""
    config = Path(get_package_share_directory(PACKAGE), "config")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=str(config / "vo_stream.yaml"),
                description="File of settings.",
            ),
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of the node and its topics."
            ),
            DeclareLaunchArgument("image", default_value="image", description="Images."),
            DeclareLaunchArgument(
                "camera_info",
                default_value="",
                description="Calibration; empty: camera_info beside the images.",
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="",
                choices=BOOLEAN_OR_EMPTY,
                description="Take the time from /clock; empty: as params_file says.",
            ),
            DeclareLaunchArgument(
                "autostart",
                default_value="true",
                choices=BOOLEAN,
                description="Configure and activate at once; false: leave that to others.",
            ),
            DeclareLaunchArgument(
                "adjust",
                default_value="",
                choices=BOOLEAN_OR_EMPTY,
                description="With the background adjuster; empty: as params_file says.",
            ),
            DeclareLaunchArgument(
                "drop_stale",
                default_value="",
                choices=BOOLEAN_OR_EMPTY,
                description="Drop images that came too fast; empty: as params_file says.",
            ),
            DeclareLaunchArgument(
                "mount",
                default_value="",
                choices=["tf_static", "forward", ""],
                description="How the camera sits on the robot; empty: as params_file says.",
            ),
            DeclareLaunchArgument(
                "dds_profile",
                default_value=str(config / "fastdds_shm.xml"),
                description="Fast DDS profile for large images, which the camera's driver needs "
                f"too; {PROFILE_VARIABLE} goes before it. Empty: none.",
            ),
            DeclareLaunchArgument(
                "log_level", default_value="info", description="debug, info, warn, error or fatal."
            ),
            OpaqueFunction(function=_node),
        ]
    )


def _node(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the node, and what is to be in its environment."""

    def given(argument: str) -> str:
        return str(LaunchConfiguration(argument).perform(context))

    image = given("image")
    camera_info = given("camera_info") or "".join(image.rpartition("/")[:2]) + "camera_info"
    node = LifecycleNode(
        executable=_command("vo_stream_node"),
        name="vo_stream",
        namespace=given("namespace"),
        parameters=[
            given("params_file"),
            {
                key: TRUTH.get(given(name), given(name))
                for name, key in PARAMETERS.items()
                if given(name)
            },
        ],
        remappings=[("image", image), ("camera_info", camera_info)],
        ros_arguments=["--log-level", f"vo_stream:={given('log_level')}"],
        output="screen",
    )
    profile = given("dds_profile")
    if not profile or PROFILE_VARIABLE in context.environment:
        return [node]
    return [SetEnvironmentVariable(PROFILE_VARIABLE, profile), node]


def _command(name: str) -> str:
    """Return the path of a command: colcon puts it into lib/vo_stream, pip into bin."""
    prefix = Path(get_package_prefix(PACKAGE))
    places = [prefix / "lib" / PACKAGE / name, prefix / "bin" / name]
    for place in places:
        if place.is_file():
            return str(place)
    raise FileNotFoundError(f"{name} is at none of: {', '.join(map(str, places))}")
