"""The lab's side of the knobs: keeps them, hands them to engines, and keeps the books of pretended memory.

An engine opens ``GET /engine`` and the connection then carries JSON lines both ways for as long as the engine
lives. Its source address names the host, because serving shares the host's network.
"""

from __future__ import annotations

import itertools
import json
import math
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.lab import meminfo
from tests.lab.config import LAB_DIR, MAX_HOSTS, Host
from tests.lab.control import ALL
from tests.lab.engine.knobs import Knobs, document, merged

ACK_S = 2.0
# What a GPU draws whose engine hangs with requests under way (16 to 27 W were seen).
WEDGED_W = 21.4


@dataclass
class EngineLine:
    """One engine's connection."""

    connection: socket.socket
    host: str
    tag: str
    phase: str = "started"
    held_kib: int = 0
    acknowledged: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def send(self, message: dict[str, Any]) -> None:
        try:
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            # The reading side notices the end and tidies up.
            return

    def acknowledge(self, sequence: int) -> None:
        with self.changed:
            self.acknowledged = max(self.acknowledged, sequence)
            self.changed.notify_all()

    def wait(self, sequence: int) -> None:
        # A frozen host answers late or never; the knob is set all the same.
        with self.changed:
            self.changed.wait_for(lambda: self.acknowledged >= sequence, ACK_S)


class Books:
    def __init__(self, store: Path, hosts: dict[str, Host]) -> None:
        self._store = store
        self._hosts = hosts
        self._lock = threading.RLock()
        self._sequence = itertools.count(1)
        self._set: dict[str, dict[str, Any]] = json.loads(store.read_text()) if store.exists() else {}
        self._lines: list[EngineLine] = []
        # (host, KiB, when): memory of engines that ended, on its way back.
        self._returning: list[tuple[str, int, float]] = []
        self._shown: dict[str, tuple[Any, ...]] = {}

    def knobs(self, host: str, tag: str | None = None) -> Knobs:
        names = [ALL, f"{ALL}/{tag}", host, f"{host}/{tag}"]
        with self._lock:
            return merged(*(self._set.get(name, {}) for name in names))

    def listed(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            return {name: dict(values) for name, values in self._set.items()}

    def change(self, host: str | None, tag: str | None, settings: dict[str, Any] | None) -> None:
        with self._lock:
            name = f"{host}/{tag}" if tag else str(host)
            if settings is not None:
                self._set.setdefault(name, {}).update(settings)
            elif host is None:
                self._set.clear()
            else:
                for key in [key for key in self._set if key == name or (not tag and key.startswith(f"{host}/"))]:
                    del self._set[key]
            temporary = self._store.with_suffix(".part")
            temporary.write_text(json.dumps(self._set, indent=2))
            temporary.replace(self._store)
            sent = [(line, self.greet(line)) for line in self._lines]
            self.show()
        for line, sequence in sent:
            line.wait(sequence)

    def greet(self, line: EngineLine) -> int:
        with self._lock:
            sequence = next(self._sequence)
            line.send({"knobs": document(self.knobs(line.host, line.tag)), "seq": sequence})
        return sequence

    def join(self, line: EngineLine) -> None:
        with self._lock:
            self._lines.append(line)

    def leave(self, line: EngineLine) -> None:
        """The engine ended: its memory comes back, after as long as the knob says."""
        with self._lock:
            self._lines.remove(line)
            if line.held_kib:
                delay = self.knobs(line.host, line.tag).memory_return_s
                self._returning.append((line.host, line.held_kib, time.monotonic() + delay))
            self.show()

    def hold(self, line: EngineLine, utilization: float) -> None:
        with self._lock:
            needed, available = math.ceil(meminfo.TOTAL_KIB * utilization), self.available(line.host)
            granted = available >= needed
            if granted:
                line.held_kib = needed
                self.show()
        figures = {"total_kib": meminfo.TOTAL_KIB, "available_kib": available, "needed_kib": needed}
        line.send({"granted": granted, **figures})

    def available(self, host: str) -> int:
        idle = self.knobs(host).mem_available_kib
        base = meminfo.IDLE_AVAILABLE_KIB if idle is None else idle
        taken = sum(line.held_kib for line in self._lines if line.host == host)
        taken += sum(kib for name, kib, _ in self._returning if name == host)
        return max(base - taken, 0)

    def show(self) -> None:
        """Write what the hosts shall see, where it changed."""
        with self._lock:
            now = time.monotonic()
            self._returning = [entry for entry in self._returning if entry[2] > now]
            for name, host in self._hosts.items():
                knobs = self.knobs(name)
                lines = [line for line in self._lines if line.host == name]
                held = sum(line.held_kib for line in lines)
                wedged = any(self.knobs(name, line.tag).hang_with_health_200 for line in lines)
                power = WEDGED_W if wedged and knobs.gpu_power_w is None else knobs.gpu_power_w
                gpu = {
                    "mode": knobs.gpu_mode,
                    "exit_code": knobs.gpu_exit_code,
                    "serving_mib": held // 1024,
                    "power_w": power,
                    **({"driver_version": knobs.gpu_driver} if knobs.gpu_driver else {}),
                }
                shown = (self.available(name), gpu)
                folder = host.folder / "lab"
                if shown != self._shown.get(name) and folder.exists():
                    meminfo.write(host, shown[0])
                    temporary = folder / "gpu.json.part"
                    temporary.write_text(json.dumps(gpu))
                    temporary.replace(folder / "gpu.json")
                    self._shown[name] = shown

    def state(self) -> dict[str, Any]:
        with self._lock:
            return {
                name: {
                    "total_kib": meminfo.TOTAL_KIB,
                    "available_kib": self.available(name),
                    "engines": [
                        {"tag": line.tag, "phase": line.phase, "held_kib": line.held_kib}
                        for line in self._lines
                        if line.host == name
                    ],
                }
                for name in self._hosts
            }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ControlServer

    def do_GET(self) -> None:
        if self.path == "/engine":
            self._serve_engine()
        elif self.path == "/knobs":
            self._json(200, self.server.books.listed())
        elif self.path == "/state":
            self._json(200, {"hosts": self.server.books.state()})
        else:
            self._json(404, {"error": "there are /knobs, /state and /engine"})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if self.path != "/knobs":
            self._json(404, {"error": "only /knobs takes a POST"})
            return
        settings = None if request.get("clear") else request["set"]
        self.server.books.change(request.get("host"), request.get("tag"), settings)
        self._json(200, self.server.books.listed())

    def _serve_engine(self) -> None:
        self.send_response(101)
        self.send_header("Upgrade", "sparkfleet-lab")
        self.end_headers()
        self.close_connection = True
        books = self.server.books
        host = host_at(self.client_address[0])
        line = EngineLine(self.connection, host, self.headers.get("X-Tag", ""))
        books.join(line)
        try:
            books.greet(line)
            for text in self.rfile:
                self._take(books, line, json.loads(text))
        except OSError:
            pass
        finally:
            books.leave(line)

    @staticmethod
    def _take(books: Books, line: EngineLine, message: dict[str, Any]) -> None:
        if "ack" in message:
            line.acknowledge(int(message["ack"]))
        elif "hold" in message:
            books.hold(line, float(message["hold"]))
        elif "phase" in message:
            line.phase = str(message["phase"])

    def _json(self, status: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


class ControlServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], books: Books) -> None:
        super().__init__(address, Handler)
        self.books = books


def host_at(address: str) -> str:
    """The host with this address on either network; anything else is somebody trying an engine by hand."""
    for number in range(1, MAX_HOSTS + 1):
        host = Host(number)
        if address in (host.address, host.control_address):
            return host.name
    return "elsewhere"


def main(port: int, addresses: list[str]) -> None:
    hosts = {Host(number).name: Host(number) for number in range(1, MAX_HOSTS + 1)}
    books = Books(LAB_DIR / "knobs.json", hosts)
    for address in addresses:
        server = ControlServer((address, port), books)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        books.show()
        time.sleep(0.05)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
