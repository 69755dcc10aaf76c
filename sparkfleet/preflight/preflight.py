"""Is this host fit for its release? Pure: its facts and a release in, findings out, decided by the catalogue.

The checks are in `sparkfleet.preflight.checks`; their texts, severities and thresholds in `catalog/preflight.yaml`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sparkfleet import grouping
from sparkfleet.catalog.catalog import Catalog
from sparkfleet.preflight.checks import CHECKS
from sparkfleet.preflight.checks.view import Check, Undecided, View, kind_of
from sparkfleet.preflight.findings import book, finding, unknown
from sparkfleet.preflight.seen import Seen
from sparkfleet.preflight.waivers import Decisions
from sparkfleet.release.rules.book import ORDER, Finding, Severity
from sparkfleet.text import some
from sparknode.state.release import Release


def check(seen: Seen, release: Release, catalog: Catalog) -> list[Finding]:
    """Compare a host's facts with what its release needs; failures first, and what could not be read is said."""
    if seen.facts is None:
        row = "sudo.password" if "password is required" in seen.error else "probe"
        return [finding(row, {"error": seen.error})]
    view = View(seen.facts, release, catalog, seen.read_at)
    found = [one for row, look in CHECKS.items() for one in _apply(row, look, view)]
    failed = {one.id for one in found if one.severity == "fail"}
    # One cause is said once: what stays undecided because of it adds nothing.
    told = [one for one in found if not (_undecided(one) and failed.intersection(book().checks[one.id].needs))]
    return sorted(told, key=lambda one: ORDER[one.severity])


def _undecided(one: Finding) -> bool:
    return one.found.startswith("unknown: ")


def _apply(row: str, look: Check, view: View) -> list[Finding]:
    unread = [entry.why for entry in view.facts.unreadable if entry.what in book().checks[row].reads]
    try:
        said = look(view)
        things: Iterable[Any] = said if isinstance(said, Iterable) else [{}] if said else []
        found = [finding(row, values, view) for values in things]
    except Undecided as problem:
        unread, found = unread or [str(problem)], []
    except (ArithmeticError, LookupError, TypeError, ValueError) as problem:
        # Figures that nobody thought of concern this check of this host, and no other.
        unread, found = [f"the check failed ({type(problem).__name__}: {problem})"], []
    return found or [unknown(row, why) for why in unread[:1]]


def decided(findings: Iterable[Finding], decisions: Decisions, today: datetime.date) -> list[Finding]:
    """Apply decisions: a failure that is forced or about to be repaired warns, a waived warning informs."""
    result = []
    for one in findings:
        waiver, repair = decisions.preflight_waivers.get(one.id), book().checks[one.id].repair
        if one.severity == "fail" and one.id in decisions.force_preflight:
            one = replace(one, severity="warn", found=f"passed over by force_preflight: {one.found}")
        elif one.severity != "info" and repair in decisions.repairs:
            one = replace(one, severity="warn", found=f"{one.found}; the repair {repair} was asked for")
        elif one.severity == "warn" and waiver and waiver.until >= today:
            one = replace(one, severity="info", found=f"{one.found} (waived until {waiver.until}: {waiver.reason})")
        elif one.severity == "warn" and waiver:
            result.append(finding("waiver.expired", {"id": one.id, "until": waiver.until, "reason": waiver.reason}))
        result.append(one)
    return sorted(result, key=lambda found: ORDER[found.severity])


def fit(findings: Iterable[Finding]) -> bool:
    return all(one.severity != "fail" for one in findings)


def of_host(host: str, seen: Seen, findings: Sequence[Finding], catalog: Catalog) -> dict[str, Any]:
    kind = kind_of(seen.facts.gpu, catalog) if seen.facts else None
    return {"host": host, "kind": kind, "fit": fit(findings), "findings": [asdict(one) for one in findings]}


def digest(findings: Mapping[str, Sequence[Finding]], least: Severity = "warn") -> list[str]:
    """Return lines for a person: each thing once, with the hosts that have it; failures first."""
    lines = []
    for severity in ORDER:
        said: dict[str, list[tuple[str, str]]] = {}
        for name, found in findings.items():
            for one in found:
                if one.severity == severity and ORDER[severity] <= ORDER[least]:
                    said.setdefault(one.id, []).append((name, one.text()))
        for texts in said.values():
            for names, text in grouping.grouped(texts):
                whom = "all hosts" if len(names) == len(findings) > 1 else some(names)
                lines.append(f"{severity}: {whom}: {text}")
    unfit = [name for name, found in findings.items() if not fit(found)]
    if unfit:
        without = " ".join(f"--exclude {name}" for name in unfit)
        lines.append(f"{len(unfit)} of {len(findings)} hosts are unfit: {some(unfit)}; nothing was changed")
        if len(unfit) < len(findings):
            lines.append(f"  to go on without them: {without}")
    elif findings:
        lines.append(f"preflight: {len(findings)} of {len(findings)} hosts are fit")
    return lines
