"""One owner for each host's connection: no call on one that is not ready, and no hanging up on somebody else's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.util import CommandOutput, OutputLine

from sparkfleet.node import remote
from sparkfleet.node.remote import Answer, ConnectionLost, Line


class Transport:
    """paramiko's, as far as it is asked: active from the key exchange on, authenticated after the login."""

    def __init__(self, authenticated: bool = True) -> None:
        self.active, self.authenticated = True, authenticated
        self.ended = Event()

    def is_active(self) -> bool:
        return self.active

    def is_authenticated(self) -> bool:
        return self.authenticated


class Client:
    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def get_transport(self) -> Transport:
        return self.transport

    def close(self) -> None:
        self.transport.active = False
        self.transport.ended.set()


class Connector:
    """A connection whose login takes a moment, and whose commands end when they are told to or with it."""

    login_s = 0.05

    def __init__(self) -> None:
        self.client = Client(Transport())
        self.logins = 0
        self.fails = 0
        self.silent: set[Transport] = set()

    def connect(self) -> None:
        self.logins += 1
        if self.logins <= self.fails:
            raise ConnectError("no route to the host")
        self.client = Client(Transport(authenticated=False))
        gevent.sleep(self.login_s)
        self.client.transport.authenticated = True

    def disconnect(self) -> None:
        pass

    def run(self, command: Any, **_: Any) -> tuple[bool, CommandOutput]:
        transport = self.client.transport
        assert transport.authenticated, "a command on a connection in the middle of its login hangs for an hour"
        if transport in self.silent:
            transport.ended.wait()
        if "slow" in str(command):
            transport.ended.wait(0.3)
        gevent.sleep(0)
        return transport.active, CommandOutput([OutputLine("stdout", "done")])


class Host:
    def __init__(self) -> None:
        self.connector = Connector()
        self.connector_data: dict[str, Any] = {}
        self.run_shell_command: Callable[..., Any] = self.connector.run


@pytest.fixture
def host() -> Any:
    return Host()


def test_a_call_waits_for_a_login_that_is_under_way(host: Any) -> None:
    host.connector.client.close()
    connecting = gevent.spawn(remote.line(host).replace, host.connector.client.transport, 5)
    gevent.sleep(0.01)
    assert remote.call(host, ["status"], timeout_s=2).ok
    assert connecting.get()
    assert host.connector.logins == 1


def test_a_connection_in_the_middle_of_a_login_is_not_alive(host: Any) -> None:
    host.connector.client.transport.authenticated = False
    assert not remote.line(host).alive()
    with pytest.raises(ConnectionLost):
        remote.call(host, ["status"], timeout_s=1)


def test_who_lost_an_old_connection_leaves_the_new_one_alone(host: Any) -> None:
    old = host.connector.client.transport
    host.connector.silent.add(old)
    renewal = gevent.spawn(remote.ask, host, ["lease", "renew"], 1)
    gevent.sleep(0.01)
    # The activation finds out first, connects again, and is at work when the renewal's time is over.
    assert remote.line(host).replace(old, 5)
    working = gevent.spawn(remote.call, host, ["activate", "slow"])
    new = host.connector.client.transport
    assert renewal.get(timeout=5).ok
    assert working.get(timeout=5).ok
    assert host.connector.client.transport is new
    assert host.connector.logins == 1


def test_two_that_lost_the_same_connection_connect_once(host: Any) -> None:
    host.connector.client.close()
    answers = [gevent.spawn(remote.ask, host, ["status"], 5) for _ in range(5)]
    assert all(answer.get(timeout=5).ok for answer in answers)
    assert host.connector.logins == 1


def test_a_command_that_ended_with_its_connection_has_no_outcome(host: Any) -> None:
    old = host.connector.client.transport
    host.connector.silent.add(old)
    working = gevent.spawn(remote.call, host, ["activate", "x"])
    gevent.sleep(0.01)
    assert remote.line(host).replace(old, 5), "by whoever noticed first"
    with pytest.raises(ConnectionLost, match="closed while the command ran"):
        working.get(timeout=5)


def test_silence_has_a_bound(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PULSE_S", 0.05)
    monkeypatch.setattr(remote, "PULSE_ANSWER_S", 0.05)
    host.connector.silent.add(host.connector.client.transport)
    with gevent.Timeout(5), pytest.raises(ConnectionLost):
        remote.call(host, ["stage"])


def test_a_host_that_never_comes_back_is_given_up(host: Any) -> None:
    host.connector.fails = 99
    host.connector.client.close()
    assert not remote.line(host).replace(host.connector.client.transport, 0.2)
    with pytest.raises(ConnectionLost):
        remote.ask(host, ["status"], 1)


def test_a_connector_without_a_connection_of_its_own_is_never_hung_up_on(host: Any) -> None:
    del host.connector.client
    host.connector.disconnect = lambda: pytest.fail("a container's connector commits and removes it")
    assert Line(host).alive()
    assert Line(host).replace(None, 1)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (['{"token": 7}'], {"token": 7}),
        (["welcome", '{"token": 7}'], {"token": 7}),
        (["{ welcome }", '{"token": 7}', "logout"], {"token": 7}),
        (['{"old": 1}', '{"token": 7}'], {"token": 7}),
        (["welcome"], None),
        (["[1]", "7", ""], None),
        ([], None),
    ],
)
def test_an_answer_is_the_last_document(lines: list[str], found: dict[str, Any] | None) -> None:
    assert Answer(True, "\n".join(lines), "").document() == found


def test_what_a_node_refuses_a_lease_with_is_known_here() -> None:
    from sparkfleet.node.leases import HELD
    from sparknode.state import lease

    assert any(words in lease._said({"rollout": "abc", "operator": "ann@desk"}) for words in HELD)
    assert all(words in Path(lease.__file__).read_text() for words in HELD)
