"""Play a bag to the node, and end with the bag.

ros2 launch vo_stream replay.launch.py bag:=BAG [rate:=1.0] [loop:=false] [clock:=true] [delay:=5.0]
    [finish:=2.0] [ARGUMENT:=VALUE ...]

No image is dropped: a bag whose images are reliable waits for the node. The other arguments are
those of vo_stream.launch.py; --show-args says what each of them does.
"""

from pathlib import Path

from ament_index_python.packages import get_package_prefix
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity

PACKAGE = "vo_stream"

BOOLEAN = ["true", "false"]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch: the node, and a player that ends it."""
    node = Path(__file__).with_name("vo_stream.launch.py")
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="ROS 2 or ROS 1 bag to play."),
            DeclareLaunchArgument(
                "rate", default_value="1.0", description="Times the speed of the recording."
            ),
            DeclareLaunchArgument(
                "loop",
                default_value="false",
                choices=BOOLEAN,
                description="Start over at the end, until interrupted.",
            ),
            DeclareLaunchArgument(
                "clock",
                default_value="true",
                choices=BOOLEAN,
                description="Publish the time of the bag on /clock.",
            ),
            DeclareLaunchArgument(
                "delay",
                default_value="5.0",
                description="Seconds before the first message: node and player have to meet.",
            ),
            DeclareLaunchArgument(
                "finish",
                default_value="2.0",
                description="Seconds after the last message, for what is still being worked at.",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(node)),
                launch_arguments={"drop_stale": "false"}.items(),
            ),
            OpaqueFunction(function=_player),
        ]
    )


def _player(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the player, and the end that follows its own."""

    def given(argument: str) -> str:
        return str(LaunchConfiguration(argument).perform(context))

    flags = [f"--{name}" for name in ("loop", "clock") if given(name) == "true"]
    player = ExecuteProcess(
        cmd=[
            _command("vo-stream"),
            "play",
            given("bag"),
            "--rate",
            given("rate"),
            "--delay",
            given("delay"),
            *flags,
        ],
        name="vo_stream_play",
        output="screen",
    )
    return [
        RegisterEventHandler(OnProcessExit(target_action=player, on_exit=_on_player_exit)),
        player,
    ]


def _on_player_exit(_: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """End the rest a little later, unless SIGINT is what ended the player."""
    if context.is_shutdown:
        return []
    period_s = float(LaunchConfiguration("finish").perform(context))
    return [TimerAction(period=period_s, actions=[Shutdown(reason="the bag is at its end")])]


def _command(name: str) -> str:
    """Return the path of a command: colcon puts it into lib/vo_stream, pip into bin."""
    prefix = Path(get_package_prefix(PACKAGE))
    places = [prefix / "lib" / PACKAGE / name, prefix / "bin" / name]
    for place in places:
        if place.is_file():
            return str(place)
    raise FileNotFoundError(f"{name} is at none of: {', '.join(map(str, places))}")
