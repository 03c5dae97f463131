"""The lifecycle node: puts the parts together, and takes them apart again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import LoggingSeverity
from rclpy.task import Future
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from vo_stream.config import Config, check_adjuster
from vo_stream.errors import VoStreamError
from vo_stream.link.channel import Link
from vo_stream.link.zmq_link import open_background_link
from vo_stream.net.backends import open_backend
from vo_stream.ros import interface
from vo_stream.ros.diagnostics import Diagnostics, Parts
from vo_stream.ros.inbox import Inbox
from vo_stream.ros.inputs import Inputs
from vo_stream.ros.log import RosLog
from vo_stream.ros.mount import Mount, check_frames
from vo_stream.ros.params import Parameters
from vo_stream.ros.publishers import Publishers
from vo_stream.ros.qos import profile
from vo_stream.ros.saving import save
from vo_stream.ros.stream import Arrival, Stream
from vo_stream.ros.tf_watch import ParentWatch
from vo_stream.ros.transforms import TransformListener
from vo_stream.ros.transitions import refuse_wrong_transitions
from vo_stream.ros.wheel import WheelDistance
from vo_stream.track.odometer import Odometer
from vo_stream.values import NANOSECONDS

logger = logging.getLogger(__name__)

LOOK_AFTER_S = 0.25
"""How often the node looks whether publishers came that ask for another QoS."""

WATCH_S = 5.0
"""For so long after it was activated the node looks who else publishes its transforms."""

DIAGNOSTICS_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Configured:
    """What is there from configure to clean up. `free`: closes it all."""

    config: Config
    backend: str
    odometer: Odometer
    link: Link
    mount: Mount
    watch: ParentWatch
    publishers: Publishers
    transforms: TransformListener
    free: ExitStack


class VoStreamNode(LifecycleNode):  # type: ignore[misc]
    """Live odometry on a ROS graph; topics, services and parameters are in docs/ros.md.

    Callbacks run in the executor's thread and only pass on; images are processed in the thread of
    `Stream`, which exists while the node is active.
    """

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; raises ConfigError where one given is not allowed."""
        super().__init__(interface.NODE_NAME, **options)
        refuse_wrong_transitions(self)
        self._configured: Configured | None = None
        self._parts: Parts | None = None
        self._overridden: dict[str, dict[str, Any]] = {}
        self._said = ""
        self._diagnostics = Diagnostics(self.get_fully_qualified_name().strip("/"))
        self._settings = Parameters(self, lambda: self._configured is not None, self._changed)
        self._log = RosLog(self.get_logger())
        debugging = self.get_logger().get_effective_level() <= LoggingSeverity.DEBUG
        self._log.attach(logging.DEBUG if debugging else logging.INFO)
        self._diagnostics_publisher = self.create_publisher(
            DiagnosticArray, interface.DIAGNOSTICS.name, profile(interface.DIAGNOSTICS.qos)
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a bag that stands still stops ROS time
        self.create_timer(DIAGNOSTICS_S, self._diagnose, clock=steady)
        self.create_timer(LOOK_AFTER_S, self._look_after, clock=steady)
        for service, callback in (
            (interface.RESET, self._on_reset),
            (interface.PAUSE, self._on_pause),
            (interface.RESUME, self._on_resume),
        ):
            self.create_service(Trigger, service.name, callback)
        self.create_service(
            Trigger,
            interface.SAVE_TRAJECTORY.name,
            self._on_save,
            callback_group=ReentrantCallbackGroup(),  # it waits, and must not keep others waiting
        )
        backwards = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
        )
        self._jump_handle = self.get_clock().create_jump_callback(
            backwards, post_callback=self._on_clock_jump
        )

    def destroy_node(self) -> None:
        """Free everything; the node cannot be used after that."""
        self._free()
        self._jump_handle.unregister()
        self._log.detach()
        super().destroy_node()
        # rclpy forgets it (seen in Jazzy, 7.1). It would hold the services, that nobody answers any
        # more, and all of DDS, until the garbage is collected.
        self._state_machine.destroy_when_not_in_use()

    # Lifecycle. What a transition raises would be lost in rclpy, so `_tried` says it.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the backend, start the adjuster, offer the topics."""
        return self._tried("configure", self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the worker."""
        return self._tried("activate", self._start)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop the worker; the pose is kept."""
        return self._tried("deactivate", self._stop)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close backend and adjuster."""
        return self._tried("clean up", self._clean_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and close whatever is there."""
        return self._tried("shut down", self._free)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and close whatever is there, to be configured anew."""
        return self._tried("recover", self._free)

    def _tried(self, what: str, step: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except VoStreamError as error:
            logger.error("cannot %s: %s", what, error)
            return TransitionCallbackReturn.FAILURE
        except Exception:
            logger.exception("cannot %s", what)
            raise
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        config = self._settings.config()
        check_adjuster(config)
        check_frames(config.frames)
        with ExitStack() as stack:
            net = open_backend(config)
            stack.callback(net.close)
            link = open_background_link(config)
            stack.callback(link.close)
            watch, mount = ParentWatch(config.frames), Mount(config.frames)
            publishers = Publishers(self, config, watch)
            stack.callback(publishers.close)
            transforms = TransformListener(self, mount, watch)
            stack.callback(transforms.close)
            self._configured = Configured(
                config=config,
                backend=net.spec.name,
                odometer=Odometer(net, config.track, config.scale),
                link=link,
                mount=mount,
                watch=watch,
                publishers=publishers,
                transforms=transforms,
                free=stack.pop_all(),
            )
        logger.info("configured: backend %s, scale source %s", net.spec.name, config.scale.source)

    def _start(self) -> None:
        there, config = self._there(), self._settings.config()
        keep_all = not config.input.drop_stale
        inbox = Inbox[Arrival](
            config.input.queue if keep_all else 1,
            drop_stale=not keep_all,
            on_room=self._wake_executor,
        )
        wheel = WheelDistance()
        most_waiting = config.link.queue if keep_all else None
        stream = Stream(there.odometer, there.link, inbox, there.publishers, wheel.at, most_waiting)
        with ExitStack() as stack:
            stack.callback(there.transforms.watch_moving, False)
            stream.start()
            stack.callback(stream.stop)
            inputs = Inputs(self, config, inbox, there.mount, wheel, self._overridden)
            stack.callback(inputs.close)
            self._parts = Parts(inbox, inputs, stream, stack.pop_all())
        logger.info("active: waiting for images on %s", inputs.topic)

    def _stop(self) -> None:
        parts, self._parts = self._parts, None
        if parts is not None:
            parts.free.close()

    def _clean_up(self) -> None:
        there, self._configured = self._configured, None
        if there is not None:
            there.free.close()

    def _free(self) -> None:
        try:
            self._stop()
        finally:
            self._clean_up()

    def _wake_executor(self) -> None:
        if (executor := self.executor) is not None:
            executor.wake()

    def _there(self) -> Configured:
        assert self._configured is not None
        return self._configured

    # What comes in beside images.

    def _changed(self, config: Config) -> None:
        """Let settings be taken that may change at once."""
        there = self._there()
        there.publishers.shown = config.publish
        self._between_images(lambda: there.odometer.reconfigure(config.track))

    def _between_images(self, request: Callable[[], None]) -> None:
        """Have something done that touches what belongs to the worker."""
        if self._parts is None:
            request()
        else:
            self._parts.stream.ask(request)

    def _on_clock_jump(self, jump: TimeJump) -> None:
        """Begin a new session where ROS time went back, unless the images did so before."""
        if self._configured is not None:
            logger.info("the clock went back by %.3f s", -jump.delta.nanoseconds / NANOSECONDS)
            self._between_images(self._configured.odometer.clock_went_back)

    def _on_reset(self, request: Any, response: Any) -> Any:
        if self._configured is None:
            return _answered(response, False, "the node is not configured")
        self._configured.mount.forget()
        self._between_images(self._configured.odometer.reset)
        return _answered(response, True, "a new session begins with the next image")

    def _on_pause(self, request: Any, response: Any) -> Any:
        return self._paused(response, True, "paused")

    def _on_resume(self, request: Any, response: Any) -> Any:
        return self._paused(response, False, "resumed")

    def _paused(self, response: Any, paused: bool, said: str) -> Any:
        if self._parts is None:
            return _answered(response, False, "the node is not active")
        self._parts.inputs.paused = paused
        if paused:
            self._parts.inbox.clear()
        return _answered(response, True, said)

    async def _on_save(self, request: Any, response: Any) -> Any:
        if self._configured is None:
            return _answered(response, False, "the node is not configured")
        publishers, done = self._configured.publishers, Future(executor=self.executor)
        path = Path(self._settings.config().node.trajectory_file)
        self._between_images(lambda: save(publishers.kept(), path, done))
        return _answered(response, *await done)

    # What goes out beside results.

    def _look_after(self) -> None:
        """See to what publishers of images offer, and to the mount that the node publishes."""
        if self._parts is None:
            return
        there = self._there()
        self._parts.inputs.look_after()
        there.transforms.watch_moving(self._parts.age_s < WATCH_S)
        if there.config.frames.mount == "forward" and (frame := there.mount.camera_frame):
            self._parts.stream.ask(lambda: there.publishers.publish_mount(frame))
        if there.publishers.has_new_reader():
            self._parts.stream.ask(there.publishers.publish_path)

    def _diagnose(self) -> None:
        there, config = self._configured, self._settings.config()
        missing = conflict = ""
        if there is not None and self._parts is not None:
            missing = self._parts.inputs.missing(config.node.wait_s)
            conflict = there.watch.conflict(config.publish)
            if not conflict and self._parts.age_s > config.node.wait_s:
                conflict = self._parts.inputs.wheels_silent()
        fault, before = missing or conflict, self._said
        if fault and fault != before:  # one line for as long as it lasts
            logger.warning("%s", fault)
        elif before and not fault and self._parts is not None:
            logger.info("no longer: %s", before)
        self._said = fault
        now = self.get_clock().now()
        backend = there.backend if there else ""
        status = self._diagnostics.status(
            self._lifecycle(), backend, self._parts, missing, conflict, now.nanoseconds
        )
        self._diagnostics_publisher.publish(
            DiagnosticArray(header=Header(stamp=now.to_msg()), status=[status])
        )

    def _lifecycle(self) -> str:
        if self._parts is not None:
            return "active"
        return "unconfigured" if self._configured is None else "inactive"


def _answered(response: Any, success: bool, message: str) -> Any:
    response.success, response.message = success, message
    return response
