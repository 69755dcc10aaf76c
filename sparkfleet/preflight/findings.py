"""What is said of a host: the texts of `catalog/preflight.yaml` with the figures of a check in them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from pydantic import Field

from sparkfleet import ROOT
from sparkfleet.catalog.catalog import read_file
from sparkfleet.catalog.rows import Row
from sparkfleet.release.rules.book import Finding, Severity

FILE = ROOT / "catalog" / "preflight.yaml"


# Which ways of installing and updating there are; `other` is whatever is none of them.
System = Literal["dgx", "ubuntu", "debian", "nixos", "wsl", "other"]
SYSTEMS: tuple[System, ...] = ("ubuntu", "debian", "nixos")


class Case(Row):
    """What is said otherwise of a check where a cause is known; `when` names that for the handbook."""

    when: str
    found: str | None = None
    expected: str | None = None
    why: str | None = None
    source: str | None = None
    remedy: list[str] | None = None
    maintenance: bool | None = None


class CheckText(Row):
    """What is said of one check; `reads` names what of the probe's `unreadable` leaves it undecided.

    `needs` are rows whose failure says already why this one is undecided, `also` steps that help some hosts alone. A
    step that begins with @ stands for those of `ways`, as the host's system has them.
    """

    severity: Severity
    unknown: Severity = "warn"
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    found: str
    expected: str
    why: str
    source: str
    remedy: list[str]
    cases: dict[str, Case] = {}
    also: dict[str, str] = {}
    maintenance: bool = False
    repair: str | None = None

    def of(self, case: str | None) -> CheckText:
        """Return the row as it is in one of its cases."""
        given = self.cases[case].model_dump(exclude_none=True, exclude={"when"}) if case else {}
        return self.model_copy(update=given)


class Threshold(Row):
    value: float | str
    source: str


class Box(Row):
    """A maker's box with a GB10, by DMI: how its vendor begins, and what its product contains."""

    vendor: list[str]
    product: list[str]
    name: str


class Earlyoom(Row):
    arguments: str
    capabilities: str
    source: str


class Elsewhere(Row):
    """Where else a row of the field's list is decided."""

    rules: tuple[str, ...] = ()
    stage: str = ""
    gate: str = ""


class Book(Row):
    schema_: int = Field(alias="schema")
    thresholds: dict[str, Threshold]
    foreign_packages: list[str]
    driver_packages: list[str]
    version_packages: list[str]
    firmware_devices: list[str]
    torn_parts: list[str]
    shared_units: list[str]
    ways: dict[str, dict[System, list[str]]]
    placeholders: dict[str, str]
    boxes: list[Box]
    earlyoom: Earlyoom
    elsewhere: dict[str, Elsewhere]
    checks: dict[str, CheckText]
    handbook: str


@cache
def book() -> Book:
    """Return the texts and thresholds; raises CatalogError naming the key that cannot be used."""
    return read_file(FILE, Book)


Values = Mapping[str, Any]


def finding(row: str, values: Values, view: Any = None) -> Finding:
    """Put figures into the texts of a row: those given, `v` for what the check looked at, and `limits`.

    Among the figures, `severity` is that of this one finding, `case` one of the row's cases, and `also` further steps.
    """
    text = book().checks[row].of(values.get("case"))
    limits = {name: threshold.value for name, threshold in book().thresholds.items()}
    steps = [*text.remedy, *(text.also[name] for name in values.get("also", ()))]
    steps = [told for step in steps for told in way(step, view.system if step.startswith("@") else "other")]
    words = (text.found, text.expected, text.why, text.source, *steps)
    found, expected, why, source, *remedy = (part.format_map({**values, "v": view, "limits": limits}) for part in words)
    severity = values.get("severity", text.severity)
    return Finding(row, severity, found, expected, why, source, tuple(remedy), text.maintenance)


def way(step: str, system: System) -> list[str]:
    """Return the steps that a step of a remedy stands for on a system."""
    if not step.startswith("@"):
        return [step]
    ways = book().ways[step.removeprefix("@")]
    return ways.get(system, ways["other"])


def unknown(row: str, why: str) -> Finding:
    """Say that a check could not decide, which is never the same as fit."""
    text = book().checks[row]
    said, steps = f"unknown: {why}", ("sudo sparknode probe",)
    # The row's own reason may name what was found, which nothing was.
    because = text.why if "{" not in text.why else "what could not be read is never taken for good"
    return Finding(row, text.unknown, said, "an answer", because, "the probe", steps)
