"""No test meets who was left on a graph, no lost answer fails one, and the node leaves at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import rclpy
from graph import ACTIVATE, NODE, Graph, quiet_domain
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.task import Future

from vo_stream.ros.node import VoStreamNode


@contextmanager
def apart(domain: int) -> Iterator[Context]:
    """Yield a context of its own on a domain."""
    context = Context()
    rclpy.init(args=[], context=context, domain_id=domain)
    try:
        yield context
    finally:
        rclpy.shutdown(context=context)


def test_a_domain_that_somebody_is_on_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with quiet_domain() as domain:
        context = Context()
        rclpy.init(args=[], context=context, domain_id=domain)
        somebody = rclpy.create_node("somebody", context=context)
    try:
        with quiet_domain() as another:
            assert another != domain
    finally:
        somebody.destroy_node()
        rclpy.shutdown(context=context)


def test_a_destroyed_node_is_gone_before_it_is_collected(graph: Graph) -> None:
    client = graph.node.create_client(GetState, f"{NODE}/get_state")
    with apart(graph.domain) as context:
        node = VoStreamNode(context=context)
        graph.spin_until(client.service_is_ready)
        node.destroy_node()
        graph.spin_until(lambda: not client.service_is_ready())
        graph.spin_until(lambda: graph.node.count_publishers("/diagnostics") == 0)


class Silent:
    """Stands for a lifecycle node: from `state` a request leads `to` the other, unanswered."""

    def __init__(self, graph: Graph, state: str, to: str) -> None:
        self.state, self.to = state, to
        self.requests: list[Any] = []
        group = ReentrantCallbackGroup()  # an answer that never comes keeps no other one waiting
        serve = graph.node.create_service
        serve(GetState, f"{NODE}/get_state", self.tell, callback_group=group)
        serve(ChangeState, f"{NODE}/change_state", self.change, callback_group=group)

    async def tell(self, request: Any, response: Any) -> Any:
        self.requests.append(request)
        if len(self.requests) == 1:
            await Future()
        response.current_state.label = self.state
        return response

    async def change(self, request: Any, response: Any) -> Any:
        self.state = self.to
        await Future()


def test_what_is_not_answered_is_asked_again(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.ANSWER_S", 0.3)
    silent = Silent(graph, "inactive", "inactive")
    assert graph.state() == "inactive"
    assert len(silent.requests) == 2


@pytest.mark.parametrize(("to", "succeeds"), [("active", True), ("inactive", False)])
def test_the_state_tells_what_a_lost_answer_would_have(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, to: str, succeeds: bool
) -> None:
    monkeypatch.setattr("graph.ANSWER_S", 0.3)
    Silent(graph, "inactive", to)
    assert graph.change_state(ACTIVATE) is succeeds
