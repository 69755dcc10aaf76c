"""The serving unit as systemd sees it."""

from __future__ import annotations

from dataclasses import dataclass

from sparknode.base.files import read_text
from sparknode.base.parse import properties
from sparknode.base.paths import SERVE_UNIT, Paths
from sparknode.base.process import Completed
from sparknode.base.system import System

SHOW_S = 10.0
ORDER_S = 60.0
# A probe asks the same of other units, of which it also tells whether they are enabled.
_ASKED = "LoadState ActiveState SubState Result NRestarts UnitFileState NeedDaemonReload Job".split()
SHOW_ARGV = ("systemctl", "show", SERVE_UNIT, *(f"--property={name}" for name in _ASKED))


@dataclass(frozen=True)
class UnitState:
    load: str
    active: str
    sub: str
    result: str
    restarts: int
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
        reload_needed=keys.get("NeedDaemonReload") == "yes",
        queued=keys.get("Job", "0") not in {"", "0"},
    )


def serve_state(system: System) -> UnitState | None:
    return read_state(system.run(SHOW_ARGV, SHOW_S))


def enabled(paths: Paths) -> bool:
    """Would the serving unit start at a boot? Read from the disk as a boot reads it: what systemd remembers of it is
    older, where the link came or went without a reload.
    """
    return paths.enabled.is_symlink() and read_text(paths.enabled) is not None


def order(system: System, verb: str, *options: str, timeout: float = ORDER_S) -> Completed:
    """`systemctl VERB` on the serving unit."""
    return system.run(["systemctl", verb, *options, SERVE_UNIT], timeout)


def shutting_down(system: System) -> bool | None:
    """Does this host go down? Then units end for that and for no fault of theirs. None where systemd does not answer,
    as it does in the last moments of a host.
    """
    done = system.run(["systemctl", "show", "shutdown.target", "--property=ActiveState", "--property=Job"], SHOW_S)
    if not done.ok:
        return None
    found = properties(done.stdout)
    return found.get("ActiveState") in {"active", "activating"} or found.get("Job", "0") not in {"", "0"}


def daemon_reload(system: System) -> Completed:
    return system.run(["systemctl", "daemon-reload"], ORDER_S)


def log_end(system: System) -> str | None:
    """Where the log ends now, as an option of journalctl; None when it can't be read."""
    argv = ["journalctl", "--lines=1", "--output=cat", "--show-cursor", "--quiet", "--no-pager"]
    done = system.run(argv, SHOW_S)
    _, found, cursor = done.stdout.rpartition("-- cursor: ")
    return f"--after-cursor={cursor.strip()}" if done.ok and found else None


def logs(system: System, unit: str, begin: str, lines: int) -> list[str]:
    """A unit's last log lines from a place on (an option of journalctl); none when the journal can't be read."""
    argv = ["journalctl", f"--unit={unit}", begin, f"--lines={lines}"]
    done = system.run([*argv, "--output=cat", "--no-pager"], SHOW_S)
    return [line.rstrip() for line in done.stdout.splitlines() if line.strip()] if done.ok else []
