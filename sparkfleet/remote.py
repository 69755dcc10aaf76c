"""Calls of the node's program over pyinfra's open connections, and a new connection where one died.

paramiko does not connect again by itself, and pyinfra's own `host.disconnect` would announce the end of the run: so a
dead connection is replaced at the connector.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from paramiko import SSHException
from pyinfra.api import Host, QuoteString, StringCommand
from pyinfra.api.exceptions import ConnectError

from sparkfleet.nodeprogram import INSTALL_PATH

# A host that lost its power needs a few minutes until it answers again.
RECONNECT_S = 300.0
ASK_S = 30
_PAUSES_S = (0.5, 1, 2, 5, 10)


class ConnectionLost(Exception):
    """The connection died, or the host did not answer in time; what runs on the node goes on."""


@dataclass(frozen=True)
class Answer:
    ok: bool
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        lines = [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return lines[-1] if lines else ""


def call(
    host: Host,
    arguments: Sequence[str],
    *,
    stdin: str | None = None,
    show: bool = False,
    timeout_s: int | None = None,
) -> Answer:
    """Run the node's program as root.

    Raises ConnectionLost when the answer cannot be known.
    """
    if not _alive(host):
        raise ConnectionLost("the connection is closed")
    command = StringCommand(INSTALL_PATH, *(QuoteString(argument) for argument in arguments))
    lines = stdin.splitlines() if stdin else None
    try:
        # pyinfra's own _timeout begins when the command runs; to start one on a dead connection takes paramiko an hour.
        with gevent.Timeout(timeout_s, exception=TimeoutError):
            ok, output = host.run_shell_command(command, _sudo=True, _stdin=lines, print_output=show)
    except TimeoutError:
        raise ConnectionLost(f"no answer to `sparknode {arguments[0]}` within {timeout_s} s") from None
    except (OSError, EOFError, SSHException) as error:
        raise ConnectionLost(str(error) or type(error).__name__) from None
    if not ok and not _alive(host):
        raise ConnectionLost("the connection was closed while the command ran")
    return Answer(bool(ok), output.stdout, output.stderr)


def ask(host: Host, arguments: Sequence[str], timeout_s: int = ASK_S) -> Answer:
    """Call what may as well be called twice: a connection that does not carry is replaced once.

    Raises ConnectionLost when the host does not answer on a new connection either.
    """
    try:
        return call(host, arguments, timeout_s=timeout_s)
    except ConnectionLost:
        # A peer that vanished sends nothing that would end other commands which wait on it; this does.
        hang_up(host)
        if not reconnect(host, patience_s=timeout_s):
            raise
        return call(host, arguments, timeout_s=timeout_s)


def status(host: Host) -> dict[str, Any] | None:
    """Return how the node stands now, or None when its answer cannot be read.

    Raises ConnectionLost when it does not answer.
    """
    answer = ask(host, ["status"])
    try:
        document = json.loads(answer.stdout) if answer.ok else None
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def reconnect(host: Host, patience_s: float = RECONNECT_S) -> bool:
    """Connect again where the connection is dead; return whether there is one in the end."""
    until = time.monotonic() + patience_s
    pauses = iter(_PAUSES_S)
    pause = 0.0
    # Whoever finds a dead connection first replaces it for all.
    with host.connector_data.setdefault("sparkfleet_reconnect", BoundedSemaphore()):
        while not _alive(host):
            hang_up(host)
            try:
                host.connector.connect()
            except ConnectError:
                pause = next(pauses, pause)
                if time.monotonic() + pause > until:
                    return False
                gevent.sleep(pause)
    return True


def hang_up(host: Host) -> None:
    """Close a connection that does not carry any more, so that whoever waits on it is told."""
    client = getattr(host.connector, "client", None)
    if client is not None:
        client.close()
    disconnect = getattr(host.connector, "disconnect", None)
    if disconnect:
        disconnect()


def local_address(host: Host) -> str:
    """Return the address that the node sees us under, as far as it is known here."""
    transport = _transport(host)
    try:
        return str(transport.sock.getsockname()[0]) if transport else "this computer"
    except (OSError, AttributeError, TypeError, IndexError):
        return "unknown"


def peer_address(host: Host) -> str | None:
    """Return the address under which we reached the node; None where the connector does not say."""
    transport = _transport(host)
    try:
        return str(transport.getpeername()[0]) if transport else None
    except (OSError, AttributeError, TypeError, IndexError):
        return None


def _transport(host: Host) -> Any:
    client = getattr(host.connector, "client", None)
    return client.get_transport() if client else None


def _alive(host: Host) -> bool:
    """Say whether the connection carries commands; connectors without one of their own always do."""
    if not hasattr(host.connector, "client"):
        return True
    transport = _transport(host)
    return transport is not None and bool(transport.is_active())
