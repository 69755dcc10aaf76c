"""The namespaces: one bridge, a leg for each host with a rate up and a rate down, and one for the Hub behind a WAN.

Everything has a fixed name, so that whatever a crash left is found and removed before the next start. Run as
`python -m tests.lab.spread.net` it only removes.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import gevent

from sparkfleet.node.remote import Answer, ConnectionLost
from tests.lab.config import ROOT

BRIDGE, PREFIX, NETWORK = "sfspread0", "sfs", "10.84.0"
LOCK = Path("/run/lock/sparkfleet-spread.lock")
MBIT = 1_000_000 / 8


def ip(*arguments: str, check: bool = True) -> str:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True, timeout=20).stdout


@dataclass
class Light:
    """One light host; it is a `sparkfleet.artefacts.spread.Peer`."""

    number: int
    root: Path
    off: bool = False
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{PREFIX}{self.number}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number + 10}"

    def argv(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def call(self, arguments: Sequence[str], stdin: str | None = None, timeout_s: int | None = None) -> Answer:
        if self.off:
            raise ConnectionLost("the host is off")
        try:
            # In a thread: the hub of greenlets must go on meanwhile.
            said = gevent.get_hub().threadpool.apply(self._ask, (list(arguments), stdin or "", timeout_s))
            code, out, err = json.loads(said)
        except (OSError, ValueError) as error:
            raise ConnectionLost(f"no answer: {error}") from None
        return Answer(code == 0, out, err)

    def _ask(self, arguments: list[str], stdin: str, timeout_s: int | None) -> bytes:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(timeout_s)
            line.connect(str(self.root / "door"))
            line.sendall(json.dumps([["--root", str(self.root), *arguments], stdin]).encode())
            line.shutdown(socket.SHUT_WR)
            said = b""
            while part := line.recv(65536):
                said += part
            return said

    def boot(self) -> None:
        """Start what answers calls there."""
        command = self.argv(sys.executable, "-m", "tests.lab.spread.door", str(self.root / "door"))
        process = subprocess.Popen(command, cwd=ROOT)
        self.running[process.pid] = process
        until = time.monotonic() + 20
        while not (self.root / "door").exists():
            assert time.monotonic() < until, f"{self.name} did not start"
            time.sleep(0.02)
        self.off = False

    def pids(self) -> list[int]:
        return [int(pid) for pid in ip("netns", "pids", self.name, check=False).split()]

    def power_off(self) -> None:
        """Everything on it ends at once, and it answers nobody."""
        self.off = True
        self.kill()
        (self.root / "door").unlink(missing_ok=True)

    def kill(self) -> None:
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def listening(self) -> list[str]:
        """What listens on it, but for what its own loopback has."""
        return subprocess.run(
            self.argv("ss", "-Hltnu"), capture_output=True, text=True, check=True, timeout=10
        ).stdout.splitlines()

    def received(self) -> int:
        """Bytes that came over its link."""
        rows = json.loads(ip("-n", self.name, "-s", "-json", "link", "show", "eth0"))
        return int(rows[0]["stats64"]["rx"]["bytes"])


@dataclass
class Net:
    hosts: list[Light]
    hub: Light

    def serve_hub(self, store: Path, folder: Path) -> str:
        """Start the Hub stand-in behind the WAN; its URL."""
        command = self.hub.argv(
            sys.executable, "-m", "tests.lab.hub", self.hub.address, "8060", str(store), str(folder)
        )
        process: subprocess.Popen[bytes] = subprocess.Popen(command, cwd=ROOT)
        self.hub.running[process.pid] = process
        probe = f"import socket; socket.create_connection(('{self.hub.address}', 8060), 1)"
        until = time.monotonic() + 10
        while subprocess.run(
            self.hub.argv(sys.executable, "-c", probe), capture_output=True, check=False, timeout=10
        ).returncode:
            assert time.monotonic() < until, "the Hub stand-in did not start"
        return f"http://{self.hub.address}:8060"


def remove() -> None:
    """End and remove whatever of this network is there."""
    for row in json.loads(ip("-json", "netns", "list") or "[]"):
        if not str(row["name"]).removeprefix(PREFIX).isdigit():
            continue
        light = Light(int(row["name"].removeprefix(PREFIX)), Path("/nowhere"))
        light.kill()
        # By its own name: the kernel takes its time to clear a namespace, and its cables stand until then.
        ip("link", "delete", f"{light.name}v", check=False)
        ip("netns", "delete", light.name, check=False)
    if Path("/sys/class/net", BRIDGE).exists():
        ip("link", "delete", BRIDGE)


@contextmanager
def network(folder: Path, count: int, lan_mbit: float, wan_mbit: float | None = None) -> Iterator[Net]:
    """So many hosts with this rate each way, and a Hub whose link is the WAN."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        _wait_for(lock)
        remove()
        gevent.get_hub().threadpool.maxsize = 8 * (count + 1)
        try:
            ip("link", "add", BRIDGE, "type", "bridge")
            ip("address", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
            ip("link", "set", BRIDGE, "up")
            lights = [Light(number, folder / f"{PREFIX}{number}") for number in range(count + 1)]
            for light in lights:
                _attach(light, wan_mbit if light.number == 0 and wan_mbit else lan_mbit)
            for light in lights[1:]:
                light.boot()
            yield Net(lights[1:], lights[0])
        finally:
            remove()
            for light in lights:
                for process in light.running.values():
                    process.wait(timeout=10)


def _wait_for(lock: IO[str]) -> None:
    until = time.monotonic() + 600
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            assert time.monotonic() < until, f"{LOCK} is held by another run"
            time.sleep(0.5)


def _attach(light: Light, mbit: float) -> None:
    shutil.rmtree(light.root, ignore_errors=True)
    light.root.mkdir(parents=True)
    ip("netns", "add", light.name)
    ip("-n", light.name, "link", "set", "lo", "up")
    outside = f"{light.name}v"
    ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", light.name)
    ip("link", "set", outside, "master", BRIDGE, "up")
    ip("-n", light.name, "address", "add", f"{light.address}/24", "dev", "eth0")
    ip("-n", light.name, "link", "set", "eth0", "up")
    rate = ["rate", f"{mbit}mbit", "burst", "256kb", "latency", "50ms"]
    for device, inside in ((outside, []), ("eth0", ["ip", "netns", "exec", light.name])):
        command = [*inside, "tc", "qdisc", "replace", "dev", device, "root", "tbf", *rate]
        subprocess.run(command, check=True, capture_output=True, timeout=10)


def document(folder: Path, repo: str, commit: str) -> dict[str, Any]:
    """The manifest of a folder."""
    import hashlib

    rows = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        row = {"path": str(path.relative_to(folder)), "size": path.stat().st_size, "sha256": digest}
        rows.append({**row, "git_blob_sha1": None})
    return {"repo": repo, "commit": commit, "files": rows}


if __name__ == "__main__":
    remove()
