"""One control group a host, in every hierarchy the machine has.

Without one of its own, each host's systemd would manage the same tree as its neighbours' and end their services.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from tests.lab import procs
from tests.lab.config import SUFFIX

PARENT = f"sparkfleet-lab{SUFFIX}"


def hierarchies() -> list[Path]:
    found = []
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, target, kind, options = line.split(" ")[:4]
        if kind in ("cgroup", "cgroup2") and target.startswith("/sys/fs/cgroup") and "rw" in options.split(","):
            found.append(Path(target))
    return found


def is_unified() -> bool:
    """Whether version 2 is the only layout here; systemd must be told so before it accepts the older ones."""
    return Path("/sys/fs/cgroup/cgroup.controllers").exists()


def create(name: str) -> tuple[Path, ...]:
    folders = []
    for root in hierarchies():
        _make(root / PARENT, name)
        folders.append(root / PARENT / name)
    return tuple(folders)


def _make(parent: Path, name: str) -> None:
    # Whoever removes another host's group takes an empty parent with it, at any moment.
    while True:
        try:
            for folder in (parent, parent / name):
                folder.mkdir(exist_ok=True)
                _inherit_cpuset(folder)
        except FileNotFoundError:
            continue
        return


def _inherit_cpuset(folder: Path) -> None:
    # A version 1 cpuset starts empty and takes no process until it is given processors and memory nodes.
    for key in ("cpuset.cpus", "cpuset.mems"):
        parent, own = folder.parent / key, folder / key
        if own.exists() and not own.read_text().strip() and parent.exists():
            own.write_text(parent.read_text())


def freeze(name: str, frozen: bool) -> bool:
    """Stop or resume every process of a host at once; False when this machine has no freezer."""
    for root in hierarchies():
        folder = root / PARENT / name
        if (folder / "freezer.state").exists():
            (folder / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
            return True
        if is_unified() and (folder / "cgroup.freeze").exists():
            (folder / "cgroup.freeze").write_text("1" if frozen else "0")
            return True
    return False


def names() -> list[str]:
    """The hosts that have a group, of whichever lab."""
    parents = [root / PARENT for root in hierarchies()]
    return sorted(
        {folder.name for parent in parents if parent.exists() for folder in parent.iterdir() if folder.is_dir()}
    )


def is_populated(name: str) -> bool:
    """Whether a process is in the host's group, also one of another PID namespace, which reads as 0."""
    return bool(_listed(name))


def remove(name: str) -> str | None:
    """Kill whatever runs in the group and remove it; returns what is still wrong."""
    freeze(name, False)
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        members = _members(name)
        for pid in members:
            procs.send(pid, signal.SIGKILL)
        if not members and _removed(name):
            return None
        time.sleep(0.02)
    return f"still holds processes {sorted(_members(name))} or cannot be removed after 10 s"


def _listed(name: str) -> set[int]:
    found: set[int] = set()
    for root in hierarchies():
        for folder, _, _ in os.walk(root / PARENT / name):
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in Path(folder, "cgroup.procs").read_text().split()}
    return found


def _members(name: str) -> set[int]:
    return {pid for pid in _listed(name) if pid > 0 and procs.look(pid) is not None}


def _removed(name: str) -> bool:
    for root in hierarchies():
        for folder, _, _ in os.walk(root / PARENT / name, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        with contextlib.suppress(OSError):
            (root / PARENT).rmdir()
    return not any((root / PARENT / name).exists() for root in hierarchies())
