"""Calls of the node's program over pyinfra's open connections, and a new connection where one died.

paramiko does not connect again by itself, and pyinfra's own `host.disconnect` would announce the end of the run: so a
dead connection is replaced at the connector. Each host has one owner of its connection, its `Line`: only that replaces
it, and whoever found a connection dead replaces that one and no later one, on which others may be at work by then.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from paramiko import SSHException
from pyinfra.api import Host, QuoteString, StringCommand
from pyinfra.api.exceptions import ConnectError

from sparkfleet.node.nodeprogram import INSTALL_PATH, draining
from sparkfleet.report import console
from sparknode.errors import Refused
from sparknode.state.status import NodeStatus

# A host that lost its power needs a few minutes until it answers again.
RECONNECT_S = 300.0
ASK_S = 30
# How often a connection with commands on it is asked for a sign of life, and how long that may take on a loaded host.
# Behind a jump host no TCP option of ours reaches the node.
PULSE_S, PULSE_ANSWER_S = 60.0, 60.0
_PAUSES_S = (0.5, 1, 2, 5, 10)
_PULSE = StringCommand("true")


class ConnectionLost(Exception):
    """The connection died, or the host did not answer in time; what runs on the node goes on."""

    def __init__(self, why: str, transport: Any = None) -> None:
        super().__init__(why)
        # The connection that it was, so that nobody takes a newer one for it.
        self.transport = transport


@dataclass(frozen=True)
class Answer:
    ok: bool
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        lines = [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def document(self) -> dict[str, Any] | None:
        """Return the last line that is a JSON object: a login may print before it, and a logout after it."""
        return document_in(self.stdout.splitlines())


def document_in(lines: Sequence[str]) -> dict[str, Any] | None:
    """Return the last of these lines that is a JSON object."""
    for line in reversed(lines):
        if not line.lstrip().startswith("{"):
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


class Line:
    """The connection to one host, for everything in this process that uses it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._changing = BoundedSemaphore()
        self._busy = 0
        self._pulse: gevent.Greenlet[..., None] | None = None

    @property
    def owned(self) -> bool:
        """Whether the connector has a connection that stays; others always carry commands, or connect for each."""
        return hasattr(self.host.connector, "client")

    def transport(self) -> Any:
        client = getattr(self.host.connector, "client", None)
        return client.get_transport() if client else None

    def alive(self) -> bool:
        """Say whether the connection carries commands; in the middle of a login it does not yet."""
        if not self.owned:
            return True
        found = self.transport()
        return found is not None and bool(found.is_active()) and bool(found.is_authenticated())

    @contextmanager
    def in_use(self, wait_s: float | None) -> Iterator[Any]:
        """Wait while the connection is being replaced; yield the one that carries, watched as long as it is used."""
        if not self._changing.acquire(timeout=wait_s if wait_s is not None else RECONNECT_S):
            raise ConnectionLost("the connection is being made again")
        try:
            transport, alive = self.transport(), self.alive()
        finally:
            self._changing.release()
        if not alive:
            raise ConnectionLost("the connection is closed", transport)
        self._busy += 1
        if self.owned and self._pulse is None:
            self._pulse = gevent.spawn(self._watch)
        try:
            yield transport
        finally:
            self._busy -= 1

    def _watch(self) -> None:
        """Close a connection that gives no sign of life, so that whoever waits on it is told."""
        gevent.sleep(PULSE_S)
        while self._busy:
            transport = self.transport()
            try:
                with gevent.Timeout(PULSE_ANSWER_S, exception=TimeoutError):
                    self.host.run_shell_command(_PULSE)
            except (TimeoutError, OSError, EOFError, SSHException):
                self.hang_up(transport)
            gevent.sleep(PULSE_S)
        self._pulse = None

    def hang_up(self, transport: Any) -> None:
        """Close this connection, unless it was replaced already."""
        if self.owned and transport is not None and self.transport() is transport:
            self._close()

    def replace(self, dead: Any, patience_s: float) -> bool:
        """Connect again, unless somebody else did since; return whether there is a connection in the end."""
        until = time.monotonic() + patience_s
        pauses = iter(_PAUSES_S)
        pause = 0.0
        if not self._changing.acquire(timeout=patience_s):
            return False
        try:
            self.hang_up(dead)
            while not self.alive():
                self._forget()
                try:
                    with gevent.Timeout(max(1.0, patience_s), exception=TimeoutError):
                        self.host.connector.connect()
                except (ConnectError, TimeoutError, OSError, EOFError, SSHException):
                    pause = next(pauses, pause)
                    if time.monotonic() + pause > until:
                        return False
                    gevent.sleep(pause)
        finally:
            self._changing.release()
        return True

    def _close(self) -> None:
        client = getattr(self.host.connector, "client", None)
        if client is not None:
            client.close()

    def _forget(self) -> None:
        self._close()
        # SSH's forgets its file transfer; that of a container commits and removes it.
        forget = getattr(self.host.connector, "disconnect", None) if self.owned else None
        if forget:
            forget()


def line(host: Host) -> Line:
    found: Line = host.connector_data.setdefault("sparkfleet_line", Line(host))
    return found


def execute(
    host: Host,
    command: StringCommand,
    *,
    stdin: Sequence[str] | None = None,
    show: bool = False,
    timeout_s: float | None = None,
    sudo: bool = True,
) -> Answer:
    """Run a command, as root unless told otherwise. A host that falls silent for minutes counts as lost.

    Raises ConnectionLost when the answer cannot be known.
    """
    if stdin is not None:
        command = StringCommand(draining(command.get_raw_value()))
    owner = line(host)
    with owner.in_use(timeout_s) as transport:
        try:
            # pyinfra's own _timeout begins when the command runs; to start one on a dead connection takes an hour.
            with (
                console.following(host) if show else nullcontext(),
                gevent.Timeout(timeout_s, exception=TimeoutError),
            ):
                ok, output = host.run_shell_command(command, _sudo=sudo, _stdin=stdin, print_output=show)
        except TimeoutError:
            raise ConnectionLost(f"no answer within {timeout_s} s", transport) from None
        except (OSError, EOFError, SSHException) as error:
            raise ConnectionLost(str(error) or type(error).__name__, transport) from None
        # One that ended with its connection has no exit code, also when somebody has connected again since.
        if not ok and (not owner.alive() or owner.transport() is not transport):
            raise ConnectionLost("the connection was closed while the command ran", transport)
    return Answer(bool(ok), output.stdout, output.stderr)


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
    command = StringCommand(INSTALL_PATH, *(QuoteString(argument) for argument in arguments))
    lines = stdin.splitlines() if stdin else None
    return execute(host, command, stdin=lines, show=show, timeout_s=timeout_s)


def ask(host: Host, arguments: Sequence[str], timeout_s: int = ASK_S) -> Answer:
    """Call what may as well be called twice: a connection that does not carry is replaced once.

    Raises ConnectionLost when the host does not answer on a new connection either.
    """
    try:
        return call(host, arguments, timeout_s=timeout_s)
    except ConnectionLost as lost:
        # A peer that vanished sends nothing that would end other commands which wait on it; this does.
        if not line(host).replace(lost.transport, timeout_s):
            raise
        return call(host, arguments, timeout_s=timeout_s)


def status(host: Host) -> NodeStatus | None:
    """Return how the node stands now, or None when its answer cannot be read.

    Raises ConnectionLost when it does not answer.
    """
    answer = ask(host, ["status"])
    document = answer.document() if answer.ok else None
    with suppress(Refused):
        return NodeStatus.read(document) if document else None
    return None


def reconnect(host: Host, lost: ConnectionLost, patience_s: float = RECONNECT_S) -> bool:
    """Connect again after a call was lost; return whether there is a connection in the end."""
    return line(host).replace(lost.transport, patience_s)


def local_address(host: Host) -> str:
    """Return the address that the node sees us under, as far as it is known here."""
    sock = _socket(host)
    try:
        return str(sock.getsockname()[0]) if sock else "this computer"
    except OSError:
        return "unknown"


def peer_address(host: Host) -> str | None:
    """Return the address under which we reached the node; None where that is not its own, as behind a jump host."""
    sock = _socket(host)
    try:
        return str(sock.getpeername()[0]) if sock else None
    except OSError:
        return None


def _socket(host: Host) -> socket.socket | None:
    """Return the socket to the node itself: through a jump host or a proxy command there is none."""
    found = getattr(line(host).transport(), "sock", None)
    return found if isinstance(found, socket.socket) else None
