"""The serving unit as systemd sees it."""

from __future__ import annotations

from dataclasses import dataclass

from sparknode.parse import properties
from sparknode.paths import SERVE_UNIT
from sparknode.shell import Completed
from sparknode.system import System

SHOW_S = 10.0
ORDER_S = 60.0
_ASKED = "LoadState ActiveState SubState Result NRestarts UnitFileState NeedDaemonReload Job".split()
SHOW_ARGV = ("systemctl", "show", SERVE_UNIT, *(f"--property={name}" for name in _ASKED))


@dataclass(frozen=True)
class UnitState:
    load: str
    active: str
    sub: str
    result: str
    restarts: int
    enabled: bool
    reload_needed: bool
    queued: bool

    @property
    def exists(self) -> bool:
        return self.load not in {"not-found", ""}

    @property
    def stopped(self) -> bool:
        return self.active in {"inactive", "failed"}


def read_state(done: Completed) -> UnitState | None:
    """What `systemctl show` said of its first unit, or None when it said nothing."""
    keys = properties(done.stdout.partition("\n\n")[0]) if done.ok else {}
    if not keys.get("ActiveState"):
        return None
    restarts = keys.get("NRestarts", "")
    return UnitState(
        load=keys.get("LoadState", ""),
        active=keys["ActiveState"],
        sub=keys.get("SubState", ""),
        result=keys.get("Result", ""),
        restarts=int(restarts) if restarts.isascii() and restarts.isdigit() else 0,
        enabled=keys.get("UnitFileState") == "enabled",
        reload_needed=keys.get("NeedDaemonReload") == "yes",
        queued=keys.get("Job", "0") not in {"", "0"},
    )


def serve_state(system: System) -> UnitState | None:
    return read_state(system.run(SHOW_ARGV, SHOW_S))


def order(system: System, verb: str, *options: str, timeout: float = ORDER_S) -> Completed:
    """`systemctl VERB` on the serving unit."""
    return system.run(["systemctl", verb, *options, SERVE_UNIT], timeout)


def daemon_reload(system: System) -> Completed:
    return system.run(["systemctl", "daemon-reload"], ORDER_S)


def logs_since(system: System, unit: str, started: float, lines: int) -> list[str]:
    """A unit's last log lines since a moment; none when the journal can't be read."""
    argv = ["journalctl", f"--unit={unit}", f"--since=@{started:.0f}", f"--lines={lines}"]
    done = system.run([*argv, "--output=cat", "--no-pager"], SHOW_S)
    return [line.rstrip() for line in done.stdout.splitlines() if line.strip()] if done.ok else []
