"""One run over the fleet: each host's settings and release, the waves, and what the nodes answered.

The plan is made once a run, before any connection (see `sparkfleet.guard`), from the inventory's data alone.
"""

from __future__ import annotations

import getpass
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparkfleet import lock
from sparkfleet.errors import FleetError, LockError, SettingsError
from sparkfleet.lock import Lock
from sparkfleet.release import Compiled, compile_release
from sparkfleet.settings import Settings, parse_settings
from sparkfleet.waves import plan_waves


@dataclass(frozen=True)
class HostEntry:
    """A host as the inventory has it."""

    name: str
    address: str
    groups: tuple[str, ...]
    data: Mapping[str, Any]


@dataclass(frozen=True)
class HostPlan:
    entry: HostEntry
    settings: Settings
    lock: Lock
    compiled: Compiled

    @property
    def release(self) -> dict[str, Any]:
        return self.compiled.release


@dataclass(frozen=True)
class Outcome:
    """How a host's activation ended; the error is empty when it ended well or the node could not be asked."""

    ok: bool
    error: str


@dataclass
class FleetRun:
    """The plan of a run and, as it goes on, what each node said."""

    hosts: dict[str, HostPlan]
    waves: list[list[str]]
    rollout: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    operator: str = field(default_factory=lambda: f"{getpass.getuser()}@{socket.gethostname()}")
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def plan_run(entries: list[HostEntry]) -> FleetRun:
    """Plan a run over the hosts, in inventory order.

    Raises FleetError with the reasons of every host that cannot be planned, so that all are read at once.
    """
    _refuse_same_address(entries)
    hosts: dict[str, HostPlan] = {}
    problems: dict[str, list[str]] = {}
    for entry in entries:
        try:
            hosts[entry.name] = plan_host(entry)
        except FleetError as error:
            problems.setdefault(error.text(), []).append(entry.name)
    if problems:
        raise FleetError("\n".join(f"{', '.join(names)}: {text}" for text, names in problems.items()))
    return FleetRun(hosts, _waves(hosts))


def plan_host(entry: HostEntry) -> HostPlan:
    """Compile what one host shall run; raises FleetError when the lock lacks something of it."""
    settings = parse_settings(entry.name, entry.data)
    catalog = settings.catalog()
    locked = lock.read(settings.lock_path, catalog)
    compiled = compile_release(catalog, locked, settings.choice, settings.deployment, settings.gpu_injection)
    if locked is None or compiled.unlocked:
        raise LockError(
            f"{settings.lock_file} has no digest or commit for {', '.join(compiled.unlocked)}",
            "a lock that names the bytes of everything a host runs",
            "run `python -m sparkfleet lock` and commit the file",
        )
    return HostPlan(entry, settings, locked, compiled)


def _refuse_same_address(entries: list[HostEntry]) -> None:
    seen: dict[str, str] = {}
    for entry in entries:
        other = seen.setdefault(entry.address, entry.name)
        if other != entry.name:
            raise SettingsError(
                f"{other} and {entry.name} have the same address {entry.address}",
                "one inventory entry a machine",
                "remove one of them: two entries would roll the same machine twice",
            )


def _waves(hosts: Mapping[str, HostPlan]) -> list[list[str]]:
    if not hosts:
        return []
    canaries = {
        name
        for name, plan in hosts.items()
        if plan.settings.canary_group is not None and plan.settings.canary_group in plan.entry.groups
    }
    # Hosts of one run share the run's pace: the most careful batch size among them holds.
    batch_size = min(plan.settings.batch_size for plan in hosts.values())
    return plan_waves(list(hosts), canaries, batch_size)


def converged(plan: HostPlan, node: Mapping[str, Any]) -> bool:
    """Say whether the node runs the planned release, verified, and exactly as the release says."""
    fleet = node.get("fleet") or {}
    serving = fleet.get("serving") or {}
    wanted = plan.compiled.id
    return bool(
        fleet.get("current") == wanted
        and fleet.get("verified") == wanted
        and serving.get("release") == wanted
        and not serving.get("drift")
        and not fleet.get("activation")
    )


def staged(plan: HostPlan, node: Mapping[str, Any], program_sha256: str) -> bool:
    """Say whether everything of the planned release is on the node and proven."""
    fleet = node.get("fleet") or {}
    models = {(row["repo"], row["commit"]) for row in fleet.get("models") or []}
    wanted = {(row["repo"], row["commit"]) for row in plan.release["artefacts"]}
    return bool(
        (node.get("sparknode") or {}).get("installed_sha256") == program_sha256
        and plan.compiled.id in (fleet.get("releases") or [])
        and plan.release["image"]["reference"] in (fleet.get("images") or [])
        and wanted <= models
    )
