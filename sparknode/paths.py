"""Where everything stands on a node. One object, so that a test can move the whole tree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SERVE_UNIT = "sparkfleet-serve.service"
ACTIVATE_UNIT = "sparkfleet-activate"
RELEASE_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Paths:
    """The node's layout under one root."""

    root: Path = Path("/")

    def on_host(self, absolute: str) -> Path:
        """A path as a release names it, under this root."""
        return self.root / absolute.lstrip("/")

    @property
    def data(self) -> Path:
        return self.root / "var/lib/sparkfleet"

    @property
    def releases(self) -> Path:
        return self.data / "releases"

    @property
    def models(self) -> Path:
        return self.data / "models"

    @property
    def incoming(self) -> Path:
        return self.data / "incoming"

    @property
    def journal(self) -> Path:
        return self.data / "journal.jsonl"

    @property
    def lock(self) -> Path:
        return self.data / "activate.lock"

    @property
    def progress(self) -> Path:
        """Gone with a boot, as what it tells of."""
        return self.root / "run/sparkfleet/progress.json"

    @property
    def spread(self) -> Path:
        """There while this host gives or takes a model."""
        return self.root / "run/sparkfleet/spread"

    @property
    def fetch_lock(self) -> Path:
        return self.root / "run/sparkfleet/fetch.lock"

    @property
    def spread_lock(self) -> Path:
        return self.root / "run/sparkfleet/spread.lock"

    @property
    def lease(self) -> Path:
        return self.data / "lease.json"

    @property
    def watch(self) -> Path:
        return self.data / "watch.json"

    @property
    def metrics(self) -> Path:
        return self.data / "metrics/sparkfleet.prom"

    @property
    def out_of_rotation(self) -> Path:
        return self.data / "out-of-rotation.json"

    @property
    def program(self) -> Path:
        return self.root / "usr/local/bin/sparknode"

    @property
    def unit(self) -> Path:
        return self.root / "etc/systemd/system" / SERVE_UNIT

    @property
    def drop_ins(self) -> Path:
        """Where `systemctl edit` puts what changes the serving unit behind its back."""
        return self.unit.with_name(f"{SERVE_UNIT}.d")

    @property
    def verify_timer(self) -> Path:
        """There while systemd starts the timer at each boot."""
        return self.unit.parent / "timers.target.wants/sparkfleet-verify.timer"

    @property
    def meminfo(self) -> Path:
        return self.root / "proc/meminfo"

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

    def incoming_dir(self, repo: str, commit: str) -> Path:
        return self.incoming / repo / commit
