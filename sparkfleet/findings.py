"""What is said of a host: the texts of `catalog/preflight.yaml` with the figures of a check in them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import Field

from sparkfleet import ROOT
from sparkfleet.catalog import read_file
from sparkfleet.rows import Row
from sparkfleet.rules.book import Finding, Severity

FILE = ROOT / "catalog" / "preflight.yaml"


class CheckText(Row):
    """What is said of one check; `reads` names what of the probe's `unreadable` leaves it undecided."""

    severity: Severity
    unknown: Severity = "warn"
    reads: tuple[str, ...] = ()
    found: str
    expected: str
    why: str
    source: str
    remedy: list[str]
    maintenance: bool = False
    repair: str | None = None


class Threshold(Row):
    value: float | str
    source: str


class Box(Row):
    vendor: str
    product: str
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
    firmware_devices: list[str]
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


def finding(row: str, values: Values, view: object = None) -> Finding:
    """Put figures into the texts of a row: those given, `v` for what the check looked at, and `limits`.

    A `severity` among the figures is that of this one finding.
    """
    text = book().checks[row]
    limits = {name: threshold.value for name, threshold in book().thresholds.items()}
    words = (text.found, text.expected, text.source, *text.remedy)
    found, expected, source, *remedy = (part.format_map({**values, "v": view, "limits": limits}) for part in words)
    severity = values.get("severity", text.severity)
    return Finding(row, severity, found, expected, text.why, source, tuple(remedy), text.maintenance)


def unknown(row: str, why: str) -> Finding:
    """Say that a check could not decide, which is never the same as fit."""
    text = book().checks[row]
    said, steps = f"unknown: {why}", ("sudo sparknode probe",)
    return Finding(row, text.unknown, said, "an answer", text.why, "the probe", steps)
