"""An adjuster on another computer: keys, and nothing without them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import zmq.auth
from link_cases import COUNTING, LIMIT_S, await_state, config_of, drain, make_frame

from vo_stream.errors import LinkError
from vo_stream.link.zmq_link import ZmqLink

pytestmark = pytest.mark.timeout(120)

NOTHING_S = 1.0
"""So long a link without the right key is watched."""


class Keys:
    """Two pairs of keys for clients, one of which the adjuster knows, and one for the adjuster."""

    def __init__(self, folder: Path) -> None:
        self.clients = folder / "clients"
        self.clients.mkdir()
        self.robot_public, self.robot = self._make(folder, "robot")
        self.stranger_public, self.stranger = self._make(folder, "stranger")
        self.adjuster_public, self.adjuster = self._make(folder, "adjuster")
        Path(self.robot_public).rename(self.clients / "robot.key")

    @staticmethod
    def _make(folder: Path, name: str) -> tuple[str, str]:
        public, secret = zmq.auth.create_certificates(folder, name)
        return str(public), str(secret)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def adjuster(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the command vo_adjuster with the stand-in; yield (endpoint, process)."""
    endpoint = free_endpoint()
    with subprocess.Popen(
        [*COUNTING, "--listen", endpoint, *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield endpoint, process
        finally:
            process.kill()


def assert_works(link: ZmqLink) -> None:
    await_state(link, "ready")
    for i in range(3):
        assert link.send(*make_frame(i))
    assert link.finish(LIMIT_S)
    assert drain(link)[-1].scale_source.startswith("3 frames")


def test_keys_open_the_way_and_others_get_nothing(keys: Keys) -> None:
    with adjuster("--key", keys.adjuster, "--clients", str(keys.clients)) as (endpoint, _):
        wrong: list[dict[str, str]] = [
            {"client_key": keys.stranger, "server_key": keys.adjuster_public},
            {"client_key": keys.robot, "server_key": keys.stranger_public},
            {},
        ]
        right = {"client_key": keys.robot, "server_key": keys.adjuster_public}
        with closing(ZmqLink(config_of(endpoint=endpoint, **right))) as link:
            assert_works(link)
        for files in wrong:
            with closing(ZmqLink(config_of(endpoint=endpoint, **files))) as link:
                link.send(*make_frame(0))
                assert not link.finish(NOTHING_S)
                assert link.status().state == "starting"
                assert link.status().received == 0
        with closing(ZmqLink(config_of(endpoint=endpoint, **right))) as link:
            assert_works(link)


def test_this_computers_own_address_needs_no_keys() -> None:
    with (
        adjuster() as (endpoint, process),
        closing(ZmqLink(config_of(endpoint=endpoint))) as link,
    ):
        assert_works(link)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
        assert "Traceback" not in errors


def test_a_link_waits_for_an_adjuster_that_comes_later_or_again() -> None:
    endpoint = free_endpoint()
    with closing(ZmqLink(config_of(endpoint=endpoint, hang_s=1.0))) as link:
        for _ in range(2):
            with subprocess.Popen([*COUNTING, "--listen", endpoint]) as process:
                received = link.status().received
                for i in range(1000):
                    link.send(*make_frame(i))
                    link.finish(0.1)
                    if drain(link):
                        break
                process.kill()
            assert link.status().received > received


@pytest.mark.parametrize("endpoint", ["tcp://192.0.2.1:5555", "tcp://robot:5555", "tcp://[::2]:1"])
def test_a_network_without_keys_is_refused(endpoint: str) -> None:
    with pytest.raises(LinkError, match=r"needs keys.*link\.server_key"):
        ZmqLink(config_of(endpoint=endpoint))


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:5555", "udp://127.0.0.1:1", "tcp://127.0.0.1", "tcp://:5", "tcp://a:70000", "x"],
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(LinkError, match="tcp://host:port"):
        ZmqLink(config_of(endpoint=endpoint))


def test_key_files_that_are_none_are_refused(keys: Keys, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.key"
    damaged.write_text('public-key = "abc"\nsecret-key = "abc"\n')
    binary = tmp_path / "binary.key"
    binary.write_bytes(b"\xff\x00\n")
    for server, client, said in (
        (keys.adjuster_public, "", "belong together"),
        ("", keys.robot, "belong together"),
        ("/there/is/none", keys.robot, "cannot be read"),
        (keys.adjuster_public, str(keys.clients / "robot.key"), "no secret key"),
        (str(damaged), keys.robot, "damaged"),
        (str(binary), keys.robot, "cannot be read"),
    ):
        with pytest.raises(LinkError, match=said):
            ZmqLink(config_of(endpoint="tcp://127.0.0.1:1", server_key=server, client_key=client))


def said_by(arguments: Sequence[str]) -> str:
    """Return the one line with which vo_adjuster ends at once."""
    ran = subprocess.run(
        [*COUNTING, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    return line


def test_the_command_refuses_what_is_open_to_all(keys: Keys, tmp_path: Path) -> None:
    network = ["--listen", "tcp://0.0.0.0:5555"]
    assert "needs keys" in said_by(network)
    assert "belong together" in said_by([*network, "--key", keys.adjuster])
    with_key = [*network, "--key", keys.adjuster, "--clients"]
    assert "no client's public key" in said_by([*with_key, str(tmp_path)])
    (tmp_path / "broken.key").write_text("nothing")
    assert "cannot be read" in said_by([*with_key, str(tmp_path)])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        assert "cannot listen" in said_by(["--listen", endpoint])


def test_the_command_has_help() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "vo_stream.link.worker", "--help"],
        capture_output=True, text=True, timeout=LIMIT_S, check=True,
    )  # fmt: skip
    assert "--clients" in ran.stdout
    assert "--child" not in ran.stdout
