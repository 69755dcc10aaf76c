"""Where everything stands on a node. One object, so that a test can move the whole tree."""

from __future__ import annotations

import re
from pathlib import Path

SERVE_UNIT = "sparkfleet-serve.service"
ACTIVATE_UNIT = "sparkfleet-activate.service"
READY_UNIT = "sparkfleet-ready.service"
# Everything that the tool ever put beside them; what else has such a name belongs to somebody else.
UNITS = (
    SERVE_UNIT,
    ACTIVATE_UNIT,
    READY_UNIT,
    "sparkfleet-recover.service",
    *(f"sparkfleet-{name}.{kind}" for name in ("watch", "verify") for kind in ("service", "timer")),
)
RELEASE_ID = re.compile(r"[0-9a-f]{16}")


class Paths:
    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.data = root / "var/lib/sparkfleet"
        self.releases = self.data / "releases"
        self.models = self.data / "models"
        self.incoming = self.data / "incoming"
        self.journal = self.data / "journal.jsonl"
        self.former_journal = self.data / "journal.1.jsonl"
        self.lock = self.data / "activate.lock"
        self.lease = self.data / "lease.json"
        self.order = self.data / "order.json"
        self.watch = self.data / "watch.json"
        self.metrics = self.data / "metrics/sparkfleet.prom"
        self.out_of_rotation = self.data / "out-of-rotation.json"
        # Gone with a boot, as what it tells of: how far a long work is, and whether this host gives or takes a model.
        volatile = root / "run/sparkfleet"
        self.progress = volatile / "progress.json"
        self.spread = volatile / "spread"
        # There from before the unit changes until systemd has read it.
        self.reload_due = volatile / "reload-due"
        # Held by whatever changes models and images.
        self.store_lock = volatile / "store.lock"
        self.program = root / "usr/local/bin/sparknode"
        # Where its installation unpacks it.
        self.modules = root / "usr/local/lib/sparknode"
        self.unit = root / "etc/systemd/system" / SERVE_UNIT
        # There while systemd starts the engine at each boot.
        self.enabled = self.unit.parent / "multi-user.target.wants" / SERVE_UNIT
        # Where `systemctl edit` puts what changes the serving unit behind its back.
        self.drop_ins = self.unit.with_name(f"{SERVE_UNIT}.d")
        # There while systemd starts the timer at each boot.
        self.verify_timer = self.unit.parent / "timers.target.wants/sparkfleet-verify.timer"
        # Where readiness is answered, and the link that stands while systemd starts it at each boot.
        self.readiness = self.data / "readiness.json"
        self.ready_enabled = self.enabled.with_name(READY_UNIT)
        self.meminfo = root / "proc/meminfo"
        self.boot_id = root / "proc/sys/kernel/random/boot_id"

    def on_host(self, absolute: str) -> Path:
        """A path as a release names it, under this root."""
        return self.root / absolute.lstrip("/")

    def release_dir(self, release_id: str) -> Path:
        return self.releases / release_id

    def link(self, name: str) -> Path:
        """`current`, `previous` or `verified`."""
        return self.data / name

    def linked(self, name: str) -> str | None:
        """The release id that a link names, or None when there's no such link."""
        try:
            target = self.link(name).readlink().name
        except OSError:
            return None
        return target if RELEASE_ID.fullmatch(target) else None

    def staged(self) -> list[str]:
        """The ids of the releases that stand here, sorted."""
        try:
            names = [folder.name for folder in self.releases.iterdir()]
        except OSError:
            return []
        return sorted(name for name in names if RELEASE_ID.fullmatch(name))

    def model_dir(self, repo: str, commit: str) -> Path:
        return self.models / repo / commit

    def model_stamp(self, repo: str, commit: str) -> Path:
        return self.models / repo / f"{commit}.verified.json"

    def stamps(self) -> list[tuple[str, str, Path]]:
        """Repository, commit and stamp of every model that was proven here."""
        found = sorted(self.models.glob("*/*/*.verified.json"))
        return [(f"{one.parent.parent.name}/{one.parent.name}", one.name.split(".", 1)[0], one) for one in found]

    def incoming_dir(self, repo: str, commit: str) -> Path:
        return self.incoming / repo / commit
