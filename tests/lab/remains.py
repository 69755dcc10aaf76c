"""What a dead lab of another checkout left: found by the lab's own names, removed only if nothing lives in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tests.lab import cgroups, ledger
from tests.lab.config import (
    BRIDGE,
    CONTROL_BRIDGE,
    CONTROL_GATEWAY,
    CONTROL_LINK,
    GATEWAY,
    HOSTS_DIR,
    LAB_DIR,
    LINK,
    NETNS,
    LabError,
)

HOST_MOUNT = re.compile(rf"(?P<folder>/.+)/{HOSTS_DIR.name}/spark-\d+/(root|data)")
LINKS = re.compile(rf"{BRIDGE}|{CONTROL_BRIDGE}|({LINK}|{CONTROL_LINK})\d+")
NAMESPACES = re.compile(rf"{NETNS}\d+")
LISTEN = "0A"


def clear() -> list[Path]:
    """Remove what a dead lab left; returns its folders, as far as they can still be known.

    Raises LabError when that lab lives, since two would answer for the same addresses, or when a part of it stays.
    """
    if not Path("/sys/class/net", BRIDGE).exists() or ("link", BRIDGE) in ledger.entries():
        return []
    folders = folders_of(ledger.mounts())
    where = " and ".join(str(folder.parent) for folder in folders) or "another checkout"
    alive = signs_of_life()
    if alive:
        raise LabError(
            f"a lab of {where} runs on this machine ({alive}), and two would answer for the same addresses: "
            "run `make lab-down` there, or wait for what runs in it to end"
        )
    left = [line for folder in folders for line in ledger.undo_all(folder / ledger.PATH.name)]
    for kind, what in standing():
        wrong = ledger.undo(kind, what)
        left += [f"{kind} {what}: {wrong}"] if wrong else []
    if left:
        raise LabError(f"a dead lab of {where} left what could not be removed: {'; '.join(left)}")
    for folder in folders:
        # Its own `down` would otherwise undo the same names once more, which are this lab's by then.
        (folder / ledger.PATH.name).unlink(missing_ok=True)
    return folders


def folders_of(mounts: Iterable[str]) -> list[Path]:
    """The labs, other than this checkout's, whose hosts have something mounted."""
    found = {Path(match["folder"]) for target in mounts if (match := HOST_MOUNT.fullmatch(target))}
    return sorted(found - {LAB_DIR})


def signs_of_life() -> str | None:
    """What says that the lab which stands is in use: its services listen, or its hosts have processes."""
    listeners = listening(Path("/proc/net/tcp").read_text(encoding="utf-8"))
    for address in (GATEWAY, CONTROL_GATEWAY):
        if address in listeners:
            return f"something listens on {address}"
    hosts = [name for name in cgroups.names() if cgroups.is_populated(name)]
    return f"{', '.join(hosts)} have processes" if hosts else None


def listening(table: str) -> set[str]:
    """The addresses with a listener, from ``/proc/net/tcp``, where they are little-endian hexadecimal."""
    rows = [line.split() for line in table.splitlines()[1:]]
    words = [row[1].partition(":")[0] for row in rows if row[3] == LISTEN]
    return {".".join(str(byte) for byte in reversed(bytes.fromhex(word))) for word in words}


def standing() -> list[tuple[str, str]]:
    """Entries for all that has one of the lab's names, in the order to undo them."""
    spaces = Path("/run/netns")
    mounts = [target for target in ledger.mounts() if HOST_MOUNT.fullmatch(target)]
    return [
        *(("cgroup", name) for name in cgroups.names()),
        *(("mount", target) for target in reversed(mounts)),
        *(("netns", path.name) for path in _named(spaces, NAMESPACES)),
        *(("link", path.name) for path in _named(Path("/sys/class/net"), LINKS)),
    ]


def _named(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name)) if folder.exists() else []
