"""The engine's line to the lab: knobs come in while it lives, pretended memory is held as long as the line stands."""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.lab.engine import logs
from tests.lab.engine.knobs import Knobs, checked, merged

ADDRESS_VARIABLE = "SPARKFLEET_LAB_CONTROL"
KNOBS_VARIABLE = "SPARKFLEET_LAB_KNOBS"
ANSWER_S = 10.0


@dataclass(frozen=True)
class Grant:
    """The lab's answer to a wish for memory, in KiB."""

    granted: bool
    total_kib: int
    available_kib: int
    needed_kib: int


class Link:
    """With no lab to talk to, the knobs come from an environment variable and memory is never short."""

    def __init__(self, tag: str) -> None:
        self._base = checked(json.loads(os.environ.get(KNOBS_VARIABLE, "{}")))
        self.knobs = merged(self._base)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._connection = self._connect(tag)
        if self._connection is not None:
            # The first message is the knobs; nothing may happen before they are known.
            self._lines = self._connection.makefile("r", encoding="utf-8")
            self._skip_greeting()
            self._take(json.loads(self._lines.readline()))
            threading.Thread(target=self._listen, name="lab-link", daemon=True).start()

    def _connect(self, tag: str) -> socket.socket | None:
        address = urlsplit(os.environ.get(ADDRESS_VARIABLE, ""))
        if not address.hostname:
            return None
        try:
            connection = socket.create_connection((address.hostname, address.port or 80), timeout=ANSWER_S)
        except OSError as error:
            logs.warning("lab.py:1", f"The lab's control server does not answer ({error}); using the defaults")
            return None
        greeting = (
            "GET /engine HTTP/1.1",
            "Host: lab",
            "Connection: Upgrade",
            "Upgrade: sparkfleet-lab",
            f"X-Tag: {tag}",
        )
        connection.sendall("\r\n".join([*greeting, "", ""]).encode())
        return connection

    def _skip_greeting(self) -> None:
        while self._lines.readline().strip():
            pass

    def _listen(self) -> None:
        if self._connection is not None:
            self._connection.settimeout(None)
        try:
            for line in self._lines:
                self._take(json.loads(line))
        except OSError:
            pass
        logs.warning("lab.py:1", "The line to the lab's control server is gone; the knobs stay as they are")

    def _take(self, message: dict[str, Any]) -> None:
        if "knobs" in message:
            self.knobs = merged(self._base, message["knobs"])
            self._send({"ack": message["seq"]})
        else:
            self._answers.put(message)

    def _send(self, message: dict[str, Any]) -> None:
        if self._connection is None:
            return
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self._connection = None

    def current(self) -> Knobs:
        return self.knobs

    def close(self) -> None:
        if self._connection is not None:
            self._connection.shutdown(socket.SHUT_RDWR)

    def tell(self, phase: str) -> None:
        self._send({"phase": phase})

    def hold(self, utilization: float) -> Grant | None:
        """Ask for the share of the host's memory that the engine would take; None where nobody keeps count."""
        if self._connection is None:
            return None
        self._send({"hold": utilization})
        try:
            return Grant(**self._answers.get(timeout=ANSWER_S))
        except queue.Empty:
            return None
