"""Everything the lab made, noted before it was made, so that ``down`` can undo it after any crash."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab import cgroups, procs
from tests.lab.config import LAB_DIR

PATH = LAB_DIR / "ledger.jsonl"


def record(kind: str, what: str) -> None:
    """Note that ``what`` is about to be made; a second note of the same thing is not written again."""
    if (kind, what) in entries():
        return
    PATH.parent.mkdir(parents=True, exist_ok=True)
    with PATH.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": kind, "what": what}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def entries(path: Path | None = None) -> list[tuple[str, str]]:
    path = path or PATH
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        # A line cut short by a crash was written before its thing was made, so there is nothing to undo.
        with contextlib.suppress(json.JSONDecodeError):
            entry = json.loads(line)
            found.append((str(entry["kind"]), str(entry["what"])))
    return found


def undo(kind: str, what: str) -> str | None:
    """Undo one entry; returns what is still wrong, or None when nothing is left of it."""
    return UNDO[kind](what)


def undo_all(path: Path | None = None) -> list[str]:
    """Undo every entry of this checkout's ledger or of another, newest first; returns what could not be undone."""
    left = []
    for kind, what in reversed(entries(path)):
        wrong = undo(kind, what)
        if wrong:
            left.append(f"{kind} {what}: {wrong}")
    return left


def _undo_process(pidfile: str) -> str | None:
    path = Path(pidfile)
    if not procs.end(path, signal.SIGTERM, wait_s=2.0) and not procs.end(path, signal.SIGKILL, wait_s=5.0):
        return "still running 5 s after SIGKILL"
    path.unlink(missing_ok=True)
    return None


def _undo_guest(pidfile: str) -> str | None:
    path = Path(pidfile)
    if not procs.end(path, signal.SIGKILL, wait_s=5.0):
        return "still running 5 s after SIGKILL"
    path.unlink(missing_ok=True)
    return None


def _undo_mount(target: str) -> str | None:
    deadline = time.monotonic() + 5.0
    while is_mounted(target):
        # Processes that were just killed may hold the mount for a moment; past the deadline detach it lazily.
        lazy = ["--lazy"] if time.monotonic() > deadline else []
        result = subprocess.run(["umount", *lazy, target], capture_output=True, text=True, timeout=30, check=False)
        if result.returncode and lazy:
            return result.stderr.strip()
        if result.returncode:
            time.sleep(0.1)
    return None


def mounts() -> list[str]:
    """Every mount point, in the order in which they were mounted."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line.split(" ")[4].replace("\\040", " ") for line in lines]


def is_mounted(target: str) -> bool:
    return target in mounts()


def _undo_netns(name: str) -> str | None:
    if not Path("/run/netns", name).exists():
        return None
    return _ip("netns", "delete", name)


def _undo_link(name: str) -> str | None:
    if not Path("/sys/class/net", name).exists():
        return None
    wrong = _ip("link", "delete", name)
    # A veth vanishes with its peer's namespace, which the kernel tears down in its own time.
    return wrong if Path("/sys/class/net", name).exists() else None


def _ip(*arguments: str) -> str | None:
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=False)
    return result.stderr.strip() or f"ip exited {result.returncode}" if result.returncode else None


def _undo_path(path: str) -> str | None:
    target = Path(path)
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target, ignore_errors=True)
    else:
        target.unlink(missing_ok=True)
    return "could not be removed" if target.exists() else None


UNDO: dict[str, Callable[[str], str | None]] = {
    "process": _undo_process,
    "guest": _undo_guest,
    "cgroup": cgroups.remove,
    "mount": _undo_mount,
    "netns": _undo_netns,
    "link": _undo_link,
    "path": _undo_path,
}
