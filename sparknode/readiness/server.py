"""`sparknode readiness serve`: a small resident program that answers GET /ready and GET /metrics.

It knows no credentials and asks nobody but systemd and the engine's port, a few times a second however many ask it.
Where its program or its settings become others, it goes on as the new ones: ended and started again on all hosts at
once, each would call itself draining, and a balancer would have nobody left.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

from sparknode.base.files import read_text
from sparknode.base.http import Request
from sparknode.base.paths import Paths
from sparknode.base.system import Host
from sparknode.errors import Refused
from sparknode.host import node_status, units
from sparknode.readiness import switch
from sparknode.readiness.answer import DRAINING, HUNG, NOT_SERVING, READY, Answer, Standing, decide
from sparknode.state import journal, orders
from sparknode.state.journal import Record
from sparknode.state.releases import load_linked

# An answer is as old as this at most: half of what a balancer that asks each half second takes for news.
FRESH_S = 0.25
HEALTH_S = 1.0
POLL_S = 0.25
# A client that says nothing for so long, and how many may be connected at once.
CLIENT_S, CLIENTS = 5.0, 32


class Story:
    """The last line of the journal's activations, read on from where it ended."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._offset = journal.tail_offset(paths, 0)
        self._last: Record | None = next(reversed(journal.read(paths)), None)

    def last(self) -> Record | None:
        more, self._offset = journal.read_from(self._paths, self._offset)
        self._last = more[-1] if more else self._last
        return self._last


def standing(host: Host, last: Record | None) -> Standing:
    """What stands on this host now; `last` is the last line of an activation."""
    paths, release = host.paths, load_linked(host.paths, "current")
    state = units.serve_state(host.system)
    asked = Request(release.serve.port, "GET", "/health", HEALTH_S) if release else None
    return Standing(
        current=release.id if release else None,
        verified=paths.linked("verified"),
        activation=activation(host.paths, last),
        out_of_rotation=paths.out_of_rotation.exists(),
        unit=state.active if state else None,
        hung=hung(host),
        healthy=asked is not None and host.system.http(asked).status == 200,
    )


def activation(paths: Paths, last: Record | None) -> str | None:
    """The state of the newest activation; an order stands before its first line does."""
    order = orders.pending(paths)
    state = str(last["state"]) if last else None
    return journal.LEASED if order and (last is None or last["activation"] != order.activation) else state


def hung(host: Host) -> str | None:
    """What the watchdog found last, where it means that the engine makes no token."""
    look = node_status.last_look(host) or {}
    found = look.get("findings")
    if look.get("release") != host.paths.linked("current") or not isinstance(found, dict):
        return None
    told = next((f"{name}: {found[name]}" for name in HUNG if name in found), None)
    # The journal is read whole for it, and it is rare.
    ended = journal.last_ended(node_status.history(host.paths)[0]) if told else None
    return told if told and node_status.look_since(ended, look) else None


class Watcher:
    """The answer of the last moment, for as many as ask."""

    def __init__(self, host: Host) -> None:
        self._host, self._lock, self._story = host, threading.Lock(), Story(host.paths)
        self._at, self._last = float("-inf"), Answer(NOT_SERVING, "nothing was looked at yet")
        # Why requests must not come any more, once this program is told to end.
        self.leaving: str | None = None

    def answer(self) -> Answer:
        with self._lock:
            now = self._host.system.monotonic()
            if now - self._at >= FRESH_S:
                self._last = self._look()
                self._at = self._host.system.monotonic()
            found = self._last
        return Answer(DRAINING, self.leaving) if self.leaving and found.status == READY else found

    def _look(self) -> Answer:
        # Whatever goes wrong here, what cannot be told is no.
        try:
            return decide(standing(self._host, self._story.last()))
        except Exception as problem:
            return Answer(NOT_SERVING, f"how this host stands can't be told ({type(problem).__name__}: {problem})")

    def metrics(self) -> str:
        """The watchdog's figures of its last look, and the answer."""
        answer = self.answer()
        own = {"ready": answer.status == READY, "draining": answer.status == DRAINING}
        lines = [
            line
            for name, value in own.items()
            for line in (f"# TYPE sparkfleet_{name} gauge", f"sparkfleet_{name} {int(value)}")
        ]
        return (read_text(self._host.paths.metrics) or "") + "\n".join(lines) + "\n"


class Replaced(Exception):
    """The program or its settings are others now."""


class Stamps:
    """Which program and which settings these are; a file that is gone for a moment is no other one."""

    def __init__(self, paths: Paths) -> None:
        self._files = (paths.program, paths.readiness)
        self._began = [self._of(path) for path in self._files]

    @staticmethod
    def _of(path: Path) -> tuple[int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def changed(self) -> bool:
        now = [self._of(path) for path in self._files]
        return any(found not in (None, began) for found, began in zip(now, self._began, strict=True))


class Server(ThreadingHTTPServer):
    """A thread for each client, of whom only so many are let in."""

    daemon_threads = True
    request_queue_size = CLIENTS

    def __init__(self, address: str, port: int, watcher: Watcher, changed: Callable[[], bool] = lambda: False) -> None:
        self.watcher, self._changed = watcher, changed
        self._room = threading.BoundedSemaphore(CLIENTS)
        super().__init__((address, port), Handler)

    def service_actions(self) -> None:
        """What the loop does between two clients, or each POLL_S."""
        if not self.watcher.leaving and self._changed():
            raise Replaced

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            # No thread was to be had, and none gives the place back.
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no event."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_S
    server: Server
    server_version = "sparknode"
    sys_version = ""

    def do_GET(self) -> None:  # the name is the library's
        path = self.path.partition("?")[0]
        if path == "/ready":
            answer = self.server.watcher.answer()
            self._send(answer.status, "text/plain; charset=utf-8", f"{answer.text}\n")
        elif path == "/metrics":
            self._send(200, "text/plain; version=0.0.4; charset=utf-8", self.server.watcher.metrics())
        else:
            # Not 404, which a balancer that asks the wrong path would take for a host that drains.
            self._send(400, "text/plain; charset=utf-8", "GET /ready or GET /metrics\n")

    do_HEAD = do_GET  # the name is the library's

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # the name is the library's
        """Two lines a second are no news."""


def serve(host: Host, ready: Callable[[], None]) -> int:
    """Answer until SIGTERM; then say for as long as a balancer takes to notice that this host drains, and end."""
    chosen, stamps = node_status.readiness(host.paths), Stamps(host.paths)
    if chosen is None:
        raise Refused("readiness is off here; set readiness_port in the inventory and deploy")
    watcher = Watcher(host)
    with Server(switch.address(host, chosen.network), chosen.port, watcher, stamps.changed) as server:

        def told(_number: int, _frame: FrameType | None) -> None:
            watcher.leaving = "this program is being stopped, as before the host goes down"
            threading.Timer(chosen.notice_s, server.shutdown).start()

        signal.signal(signal.SIGTERM, told)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        ready()
        try:
            server.serve_forever(POLL_S)
            return 0
        except Replaced:
            # One that comes from here on waits for the handler of the new program.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if not watcher.leaving:
        os.execv(host.paths.program, [str(host.paths.program), *sys.argv[1:]])
    return 0
