"""Lifecycle transitions that cannot be made: refused, where rclpy would end the node."""

from __future__ import annotations

import logging
from typing import Any

from rclpy._rclpy_pybind11 import RCLError

logger = logging.getLogger(__name__)


def refuse_wrong_transitions(node: Any) -> None:
    """Have a lifecycle node's change_state service answer that a transition is not possible.

    rclpy raises in the executor instead (seen in Jazzy, 7.1). It has no public way to the service.
    """
    service = node._service_change_state
    change_state = service.callback

    def answered(request: Any, response: Any) -> Any:
        try:
            return change_state(request, response)
        except RCLError:
            transition = request.transition
            logger.warning("no transition %s from here", transition.label or transition.id)
            response.success = False
            return response

    service.callback = answered
