"""The socket below SSH: asked of the kernel, since that is what acts when a host vanishes."""

from __future__ import annotations

import socket

import paramiko
import pytest

from sparkfleet.node.transport import attentive


def test_a_host_that_vanishes_is_noticed_within_a_minute() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        attentive(sock).close()
        asked = {
            name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT", "TCP_NODELAY")
        }
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert asked["TCP_NODELAY"] == 1
    assert asked["TCP_KEEPIDLE"] + asked["TCP_KEEPINTVL"] * asked["TCP_KEEPCNT"] <= 60
    assert asked["TCP_USER_TIMEOUT"] == 60_000


def test_what_a_jump_host_gives_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr("sparkfleet.node.transport.Transport", lambda sock, **options: taken.append((sock, options)))
    channel = paramiko.Channel(0)
    attentive(channel, gss_kex=False)
    assert taken == [(channel, {"gss_kex": False})]
