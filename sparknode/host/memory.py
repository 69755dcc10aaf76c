"""The start gate on memory.

On GB10 the engine compares `MemAvailable` with its share of the total and refuses to start below it, and a stopped
container's memory comes back minutes later (gpu-memory-utilization, vllm/v1/worker/utils.py `request_memory`).
So the gate measures the same figure, and waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparknode.base import parse
from sparknode.base.files import read_text
from sparknode.base.paths import Paths
from sparknode.base.system import Host
from sparknode.errors import Refused

POLL_S = 2.0
REFUSED = "memory-gate: refused"
KIB_PER_GIB = 1 << 20


@dataclass(frozen=True)
class Memory:
    total_kib: int
    available_kib: int
    utilization: float

    @property
    def need_kib(self) -> int:
        return math.ceil(self.total_kib * self.utilization)

    @property
    def enough(self) -> bool:
        return self.available_kib >= self.need_kib

    def __str__(self) -> str:
        available, need, total = (kib / KIB_PER_GIB for kib in (self.available_kib, self.need_kib, self.total_kib))
        return f"{available:.1f} GiB available, {need:.1f} GiB needed ({self.utilization:.2f} of {total:.1f} GiB)"


def measure(paths: Paths, utilization: float) -> Memory | None:
    """Memory now, or None when /proc/meminfo can't be read."""
    keys = parse.meminfo(read_text(paths.meminfo) or "")
    if "MemTotal" not in keys or "MemAvailable" not in keys:
        return None
    return Memory(keys["MemTotal"], keys["MemAvailable"], utilization)


def available_gib(paths: Paths) -> float | None:
    """MemAvailable, or None when /proc/meminfo can't be read."""
    found = parse.meminfo(read_text(paths.meminfo) or "").get("MemAvailable")
    return None if found is None else round(found / KIB_PER_GIB, 2)


def wait(host: Host, utilization: float, longest_s: float, tell: Callable[[str], None]) -> tuple[bool, str]:
    """Wait until enough memory is free; whether it came, and the figures as a sentence."""
    started = host.system.monotonic()
    told = started
    while True:
        memory = measure(host.paths, utilization)
        waited = host.system.monotonic() - started
        figures = str(memory) if memory else f"{host.paths.meminfo} names no MemTotal and MemAvailable"
        if memory and memory.enough:
            return True, f"{figures}, after {waited:.0f} s"
        if waited >= longest_s:
            return False, f"{figures}, after {waited:.0f} s of at most {longest_s:.0f} s{holders(host)}"
        if host.system.monotonic() - told >= 10.0:
            told = host.system.monotonic()
            tell(figures)
        host.system.sleep(POLL_S)


def holders(host: Host) -> str:
    """Who holds GPU memory, for a message; nothing when that can't be told."""
    done = host.system.run(parse.TENANTS_ARGV, 10.0)
    found = parse.gpu_processes(done.stdout) if done.ok else []
    names = ", ".join(f"{one['name']} (pid {one['pid']}, {one['memory']})" for one in found[:5])
    return f"; held by {names}" if names else "; no process is named as the holder"


def gate(host: Host, path: Path, say: Callable[[str], None]) -> int:
    """ExecStartPre of the serving unit: the exit code decides whether the engine is started."""
    from sparknode.base.shape import parse as read
    from sparknode.state import releases

    text = read_text(path)
    if text is None:
        raise Refused(f"{path}: can't be read; expected a release.json")
    release = releases.from_node(read(text, str(path)))
    if release.utilization is None:
        say("memory-gate: this release has none")
        return 0
    longest = release.timing.memory_wait_s
    came, figures = wait(host, release.utilization, longest, lambda now: say(f"memory-gate: waiting, {now}"))
    say(f"memory-gate: {figures}" if came else f"{REFUSED}: {figures}; stop what holds the memory")
    return 0 if came else 1
