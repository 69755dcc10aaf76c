"""The figures that a host's /proc/meminfo shows: those of a GB10, moved by the engine's pretended memory."""

from __future__ import annotations

import os

from tests.lab.config import Host

TOTAL_KIB = 127535224
IDLE_AVAILABLE_KIB = 118 * 1024 * 1024
# What an idle Spark keeps as cache: available without being free.
CACHE_KIB = 14 * 1024 * 1024
FIELDS = {
    "Buffers": 77328,
    "Cached": CACHE_KIB,
    "SwapCached": 0,
    "Shmem": 755460,
    "SReclaimable": 231480,
    "SwapTotal": 16777212,
    "SwapFree": 16723228,
    "CmaTotal": 131072,
    "CmaFree": 126976,
}


def text(available_kib: int) -> str:
    figures = {
        "MemTotal": TOTAL_KIB,
        "MemFree": max(available_kib - CACHE_KIB, available_kib // 8),
        "MemAvailable": available_kib,
        **FIELDS,
    }
    lines = [f"{name + ':':<16}{value:>10} kB" for name, value in figures.items()]
    for name, value in (("HugePages_Total", 0), ("HugePages_Free", 0)):
        lines.append(f"{name + ':':<16}{value:>10}")
    lines.append(f"{'Hugepagesize:':<16}{2048:>10} kB")
    return "\n".join(lines) + "\n"


def write(host: Host, available_kib: int) -> None:
    """Show ``available_kib``; one write in place, because the host sees this very file and not its name."""
    content = text(min(max(available_kib, 0), TOTAL_KIB)).encode()
    path = host.folder / "lab/meminfo"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, content, 0)
    finally:
        os.close(descriptor)
