"""Engine processes that outlived their container.

An engine core whose server was killed holds some 100 GB of the GPU's memory until somebody ends it (minefield trap
123). Ours is what still runs in the control group of our unit or of our container; what looks like an engine anywhere
else belongs to somebody else, and is only named.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from sparknode.base.files import read_text
from sparknode.base.paths import SERVE_UNIT
from sparknode.base.system import Host

GONE_S, POLL_S = 10.0, 0.5
LISTENERS_S = 10.0
_PID = re.compile(r"pid=(\d+)")
_ENGINE = re.compile(r"VLLM::|(?:^|/)vllm(?: |$)|(?:^| )vllm\.entrypoints")


@dataclass(frozen=True)
class Process:
    pid: int
    name: str
    cgroup: str

    def __str__(self) -> str:
        return f"{self.name[:60]} (pid {self.pid})"


def _processes(proc: Path) -> Iterator[Process]:
    for folder in proc.glob("[0-9]*"):
        name = (read_text(folder / "cmdline") or "").replace("\0", " ").strip()
        cgroup = read_text(folder / "cgroup")
        # A kernel thread has no command line, and a process that ended meanwhile has nothing at all.
        if name and cgroup and folder.name.isdigit():
            yield Process(int(folder.name), name, cgroup)


def find(host: Host, containers: Collection[str]) -> tuple[list[Process], list[Process]]:
    """Our processes that still run, and strangers that look like an engine."""
    groups = {SERVE_UNIT, *(container for container in containers if container)}
    ours, strangers = [], []
    for process in sorted(_processes(host.paths.root / "proc"), key=lambda process: process.pid):
        if any(group in process.cgroup for group in groups):
            ours.append(process)
        elif _ENGINE.search(process.name):
            strangers.append(process)
    return ours, strangers


def on_port(host: Host, port: int, containers: Collection[str]) -> list[Process]:
    """Who listens on a port and is not ours: vLLM before 0.25 shares a port, so that its owner alone proves nothing."""
    listening = host.system.run(["ss", "-H", "-ltnp", f"sport = :{port}"], LISTENERS_S)
    pids = {int(pid) for pid in _PID.findall(listening.stdout)}
    ours, _ = find(host, containers)
    known = {process.pid for process in ours}
    return [process for process in _processes(host.paths.root / "proc") if process.pid in pids - known]


def end(host: Host, containers: Collection[str]) -> str | None:
    """End what we left behind; what to say about it, or None when there was nothing."""
    ours, strangers = find(host, containers)
    for process in ours:
        host.system.kill(process.pid)
    left, until = ours, host.system.monotonic() + GONE_S
    while left and host.system.monotonic() < until:
        host.system.sleep(POLL_S)
        left, _ = find(host, containers)
    said = []
    if ours:
        said.append(f"ended {len(ours)} orphaned processes: {', '.join(map(str, ours[:5]))}")
    if left:
        said.append(f"{len(left)} of them do not end: {', '.join(map(str, left[:5]))}; a reboot would")
    if strangers:
        said.append(f"left alone, as it is not ours: {', '.join(map(str, strangers[:5]))}")
    return "; ".join(said) or None
