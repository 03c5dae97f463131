"""Replay a recording through the odometry.

ros2 launch vo_stream offline.launch.py source:=BAG_OR_DATASET [out:=DIR] [params_file:=FILE]
"""

from pathlib import Path

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

PACKAGE = "vo_stream"


def generate_launch_description() -> LaunchDescription:
    """Describe the launch: one process that ends with the recording."""
    params_file = Path(get_package_share_directory(PACKAGE), "config", "vo_stream.yaml")
    return LaunchDescription(
        [
            DeclareLaunchArgument("source", description="Bag or dataset to replay."),
            DeclareLaunchArgument("out", default_value="out", description="Folder for results."),
            DeclareLaunchArgument(
                "params_file", default_value=str(params_file), description="File of settings."
            ),
            ExecuteProcess(
                cmd=[
                    _command(),
                    "replay",
                    LaunchConfiguration("source"),
                    "--out",
                    LaunchConfiguration("out"),
                    "--config",
                    LaunchConfiguration("params_file"),
                ],
                name="vo_stream_replay",
                output="screen",
            ),
        ]
    )


def _command() -> str:
    """Return the path of the command: colcon puts it into lib/vo_stream, pip into bin."""
    prefix = Path(get_package_prefix(PACKAGE))
    places = [prefix / "lib" / PACKAGE / "vo-stream", prefix / "bin" / "vo-stream"]
    for place in places:
        if place.is_file():
            return str(place)
    raise FileNotFoundError(f"vo-stream is at none of: {', '.join(map(str, places))}")
