"""The tree of settings as ROS parameters: declared, read, and changed while the node runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from vo_stream.config import NOT_FOR_THE_NODE, Config, settings
from vo_stream.errors import ConfigError
from vo_stream.setting import AT_CONFIGURE, AT_ONCE, AT_START, Setting

SETTINGS = {setting.key: setting for setting in settings(but=NOT_FOR_THE_NODE)}
"""What the node has parameters for."""

FLOATS = frozenset(key for key, setting in SETTINGS.items() if setting.type is float)
"""Those that people write as whole numbers too, which rclpy holds to be another type."""

ALL_KEYS = tuple(setting.key for setting in settings())
"""What a parameter file may hold, settings of a replay too."""

QOS_OVERRIDES = "qos_overrides."
"""What parameters start with that rclpy declares when a topic is made."""

WHEN = {
    AT_ONCE: "A change is taken with the next image.",
    AT_CONFIGURE: "A change is taken when the node is configured.",
    AT_START: "Taken when the process starts, read-only after that.",
}


class Parameters:
    """The settings as parameters of a lifecycle node.

    What is not allowed is refused with the reason. While `is_configured()`, so are changes of
    settings that are taken when the node is configured; each other change is given to `changed`
    after it was made. Both are called by the executor. The constructor raises ConfigError like
    `declare`.
    """

    def __init__(
        self, node: Node, is_configured: Callable[[], bool], changed: Callable[[Config], None]
    ) -> None:
        self._node = node
        self._is_configured = is_configured
        self._changed = changed
        self._config: Config | None = None
        declare(node)
        node.add_pre_set_parameters_callback(_converted)
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._tell)

    def config(self) -> Config:
        """Return the settings as they are now, as `read` does."""
        self._config = self._config or read(self._node)
        return self._config

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            if reason := self._refusal(parameter):
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _refusal(self, parameter: Parameter) -> str:
        """Return why a parameter may not be set so, or nothing."""
        key = parameter.name
        setting = SETTINGS.get(key)
        if setting is None:
            return ""
        try:
            setting.parse(parameter.value, self._node.get_fully_qualified_name())
        except ConfigError as error:
            return str(error)
        if setting.taken == AT_ONCE or not self._is_configured():
            return ""
        # A file that is loaded anew may say what is so already.
        if parameter.value == self._node.get_parameter(key).value:
            return ""
        return f"{key} is taken when the node is configured: deactivate and clean up first"

    def _tell(self, parameters: list[Parameter]) -> None:
        self._config = None
        if any(p.name in SETTINGS for p in parameters) and self._is_configured():
            self._changed(self.config())


def declare(node: Node) -> None:
    """Declare every setting with the value given to the process, or its default.

    Raises ConfigError where a value is not allowed; warns of names that no setting has.
    """
    # rclpy refuses 1 for 1.0 and passes over unknown names in silence. It has no public way to
    # what was given.
    given = {name: p.value for name, p in node._parameter_overrides.items()}
    where = node.get_fully_qualified_name()
    values = {
        key: setting.parse(given[key], where) if key in given else setting.default
        for key, setting in SETTINGS.items()
    }
    node.declare_parameters(
        "",
        [(key, value, _descriptor(SETTINGS[key])) for key, value in values.items()],
        ignore_override=True,
    )
    # rclpy itself has declared use_sim_time and the like by now.
    _warn_of_unknown(node, (name for name in given if not node.has_parameter(name)))


def read(node: Node) -> Config:
    """Return the settings as a node's parameters have them.

    Each is allowed, but they may contradict one another: `config.check_adjuster` is for when the
    node is configured, so that they can be set one after the other, in any order.
    """
    values = {key: node.get_parameter(key).value for key in SETTINGS}
    return Config().replaced(values, node.get_fully_qualified_name())


def _descriptor(setting: Setting) -> ParameterDescriptor:
    unit = f" Unit: {setting.unit}." if setting.unit else ""
    descriptor = ParameterDescriptor(
        description=f"{setting.help}{unit} {WHEN[setting.taken]}",
        additional_constraints=setting.allowed if setting.choices else "",
        read_only=setting.taken == AT_START,
    )
    if setting.minimum is not None and setting.maximum is not None:
        low, high = setting.minimum, setting.maximum
        if setting.type is int:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            limits = FloatingPointRange(from_value=float(low), to_value=float(high))
            descriptor.floating_point_range = [limits]
    return descriptor


def _converted(parameters: list[Parameter]) -> list[Parameter]:
    """Return parameters with 1.0 for 1 where a setting is such a number."""
    return [
        Parameter(p.name, value=float(p.value))
        if p.type_ == Parameter.Type.INTEGER and p.name in FLOATS
        else p
        for p in parameters
    ]


def _warn_of_unknown(node: Node, names: Iterable[str]) -> None:
    for name in names:
        if name in ALL_KEYS or name.startswith(QOS_OVERRIDES):
            continue
        near = get_close_matches(name, ALL_KEYS, n=3, cutoff=0.5)
        hint = f"; near it: {', '.join(near)}" if near else ""
        node.get_logger().warning(f"no setting is called {name!r}, it is ignored{hint}")
