"""Processes that are found again by pid and start time, never by name."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

# The child writes its own pid file before it becomes the program: a driver that is killed between starting a
# process and noting it would otherwise leave one that nobody knows.
_LAUNCH = """
cat /proc/$$/stat >"$0.new" && mv "$0.new" "$0" || exit 125
exec "$@"
"""


@dataclass(frozen=True)
class Process:
    pid: int
    state: str
    parent: int
    session: int
    start: int


def parse_stat(text: str) -> Process:
    """Read one ``/proc/PID/stat``; the name in brackets may itself hold spaces and brackets."""
    pid = int(text.split(" ", 1)[0])
    fields = text.rsplit(")", 1)[1].split()
    return Process(pid, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def look(pid: int) -> Process | None:
    """The process with this pid, or None when there is none or only its zombie."""
    try:
        process = parse_stat(Path("/proc", str(pid), "stat").read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if process.state in "ZX" else process


def recorded(pidfile: Path) -> Process | None:
    """The process that a pid file names, if that very process still runs."""
    try:
        noted = parse_stat(pidfile.read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, IndexError, ValueError):
        return None
    now = look(noted.pid)
    return now if now is not None and now.start == noted.start else None


def note(pid: int, pidfile: Path) -> None:
    stat = Path("/proc", str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    temporary = pidfile.with_name(pidfile.name + ".new")
    temporary.write_text(stat, encoding="utf-8")
    temporary.replace(pidfile)


def spawn(
    argv: list[str],
    pidfile: Path,
    log: Path,
    *,
    environment: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a session of its own; note it in the ledger before calling this."""
    pidfile.unlink(missing_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", _LAUNCH, str(pidfile), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
        )


def end(pidfile: Path, signal_number: signal.Signals, wait_s: float) -> bool:
    """Signal a recorded process and its session; True when none of them is left."""
    try:
        noted = parse_stat(pidfile.read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, IndexError, ValueError):
        return True
    deadline = time.monotonic() + wait_s
    signalled: set[int] = set()
    while True:
        members = _session(noted)
        if not members:
            return True
        for process in members:
            if process.pid not in signalled:
                signalled.add(process.pid)
                send(process.pid, signal_number)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)


def send(pid: int, signal_number: signal.Signals) -> None:
    try:
        os.kill(pid, signal_number)
    except ProcessLookupError:
        return


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _session(noted: Process) -> list[Process]:
    leader = look(noted.pid)
    if leader is not None and leader.start != noted.start:
        # The kernel hands a pid out again only once no session uses it, so nothing of ours is left.
        return []
    found = [leader] if leader is not None else []
    if noted.session != noted.pid:
        return found
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != noted.pid:
            process = look(int(folder.name))
            if process is not None and process.session == noted.pid:
                found.append(process)
    return found
