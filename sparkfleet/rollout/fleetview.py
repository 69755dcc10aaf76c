"""What differs between the hosts of a fleet, and what is to be said of each: pure."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sparkfleet.preflight.checks.view import KIB_PER_GIB, View, box_of, matches
from sparkfleet.preflight.findings import book, finding
from sparkfleet.preflight.preflight import check, decided, of_host
from sparkfleet.preflight.seen import Seen
from sparkfleet.release.rules import Finding
from sparkfleet.rollout.fleet_run import FleetRun
from sparknode.facts.facts import Facts


def _firmware(facts: Facts) -> str | None:
    known, patterns = facts.firmware or {}, book().firmware_devices
    parts = [f"{name} {version}" for name, version in sorted(known.items()) if matches(name, patterns)]
    return ", ".join(parts) or facts.host.dmi.bios_version


def _memory(facts: Facts) -> str | None:
    total = facts.memory.total_kib
    return None if total is None else f"{total / KIB_PER_GIB:.1f} GiB"


COLUMNS: Mapping[str, Callable[[Facts], str | None]] = {
    "driver": lambda facts: facts.gpu.first.driver_version if facts.gpu.first else None,
    "kernel": lambda facts: facts.host.kernel,
    "OTA": lambda facts: facts.host.dgx.update if facts.host.dgx else None,
    "firmware": _firmware,
    "toolkit": lambda facts: facts.injection.toolkit_version,
    "docker": lambda facts: facts.docker.server_version,
    "MemTotal": _memory,
}
# What each maker numbers for its own boxes, and what goes with that: one maker's product is compared with itself.
OF_ITS_MAKER = ("firmware", "MemTotal")
HEADINGS = ("host", "fit", *COLUMNS)
# What a narrow terminal does without, first to last; where hosts differ is said as a finding too.
DISPENSABLE = ("firmware", "toolkit", "docker", "OTA", "MemTotal", "kernel")


def cell(column: str, node: Seen) -> str | None:
    """Return a cell as text, or None where the host does not say."""
    return (COLUMNS[column](node.facts) or None) if node.facts else None


def odd(nodes: Mapping[str, Seen]) -> dict[str, dict[str, str]]:
    """Return, for each host that differs, the columns in which it does, with what more than half of the others have."""
    found: dict[str, dict[str, str]] = {}
    for column in COLUMNS:
        groups: dict[object, dict[str, str]] = {}
        for name, node in nodes.items():
            if value := cell(column, node):
                group = maker(node) if column in OF_ITS_MAKER else None
                groups.setdefault(group, {})[name] = value
        for cells in groups.values():
            usual, count = Counter(cells.values()).most_common(1)[0]
            if len(cells) > 2 and count * 2 > len(cells):
                for name in (name for name, value in cells.items() if value != usual):
                    found.setdefault(name, {})[column] = usual
    return found


def maker(node: Seen) -> object:
    """Return what tells one maker's product from another's; several spellings of a vendor are one."""
    dmi = node.facts.host.dmi if node.facts else None
    return dmi and (box_of(dmi) or (dmi.sys_vendor, dmi.product_name))


def rows(run: FleetRun) -> list[tuple[str, ...]]:
    """Return a row a host in the order of HEADINGS; a star marks what differs from most hosts."""
    differs = odd(run.nodes)

    def shown(name: str, column: str) -> str:
        value = cell(column, run.nodes[name])
        return f"{value or '–'}{'*' if column in differs.get(name, {}) else ''}"

    worst = {name: next((one.severity for one in found), "info") for name, found in run.findings.items()}
    words = {"fail": "unfit", "warn": "yes, with warnings", "info": "yes"}
    return [(name, words[worst[name]], *(shown(name, column) for column in COLUMNS)) for name in worst]


def examine(run: FleetRun, today: datetime.date) -> dict[str, list[Finding]]:
    """Return what is to be said of each host that answered, after what its operator decided."""
    differs = odd(run.nodes)
    found = {}
    for name, plan in run.hosts.items():
        if name not in run.nodes:
            continue
        node = run.nodes[name]
        said = check(node, plan.release, plan.settings.catalog())
        if node.facts and name in differs:
            view = View(node.facts, plan.release, plan.settings.catalog())
            words = (
                f"{column} is {cell(column, node)}, most hosts have {usual}" for column, usual in differs[name].items()
            )
            said.append(finding("fleet.skew", {"what": "; ".join(words)}, view))
        found[name] = decided(said, plan.settings, today)
    return found


def document(run: FleetRun) -> dict[str, Any]:
    hosts = [
        {
            **of_host(name, node, run.findings[name], run.hosts[name].settings.catalog()),
            **{"fleet": {column: cell(column, node) for column in COLUMNS}, "odd": odd(run.nodes).get(name, {})},
        }
        for name, node in ((name, run.nodes[name]) for name in run.findings)
    ]
    return {"schema": 1, "hosts": hosts}
