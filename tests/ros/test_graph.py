"""No test meets who was left on a graph, and the node leaves it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import rclpy
from graph import NODE, Graph, quiet_domain
from lifecycle_msgs.srv import GetState
from rclpy.context import Context

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
