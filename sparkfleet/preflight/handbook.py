"""docs/preflight.md, written from the catalogue, so that operators read what the checks say."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from sparkfleet.catalog.catalog import load
from sparkfleet.preflight.findings import CheckText, Elsewhere, book

SYSTEM_NAMES = {"dgx": "DGX OS", "ubuntu": "Ubuntu", "debian": "Debian", "nixos": "NixOS", "wsl": "WSL2"}


class _Named(str):
    """What stands in a page for a figure that only a host has; a format for the figure does not matter."""

    def __format__(self, _: str) -> str:
        return str(self)


class _Page(string.Formatter):
    """Texts as a page shows them: thresholds and the GB10's limits as they are, a host's figures as names."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        if field_name.startswith(("limits", "v.hardware.")):
            found: tuple[Any, str] = super().get_field(field_name, args, kwargs)
            return found
        names = [word for word in re.findall(r"[A-Za-z]\w*", field_name) if word != "v"]
        return _Named(book().placeholders.get(names[-1], names[-1].upper())), field_name


class _Gb10:
    def __init__(self) -> None:
        self.hardware = load().hardware["gb10"]


def shown(text: str) -> str:
    limits = {name: threshold.value for name, threshold in book().thresholds.items()}
    return _Page().vformat(text, (), {"limits": limits, "v": _Gb10()})


def handbook() -> str:
    rows = {
        "checks": "".join(_section(row, text) for row, text in book().checks.items()),
        "ways": "".join(_way(name) for name in book().ways),
        "elsewhere": "".join(f"| {row} | {place(where)} |\n" for row, where in book().elsewhere.items()),
        "thresholds": "".join(f"| {name} | {one.value} | {one.source} |\n" for name, one in book().thresholds.items()),
    }
    page = book().handbook
    for name, text in rows.items():
        page = page.replace(f"@{name}@", text)
    return page.rstrip("\n") + "\n"


def _section(row: str, text: CheckText) -> str:
    unknown = f"; {text.unknown} where it can't be read" if text.reads else ""
    expected = f"Expected: {shown(text.expected)}\n" if text.expected else None
    parts = [
        f"\n### {row}\n",
        f"*{text.severity}{unknown}*: {shown(text.why)} [{shown(text.source)}]\n",
        expected,
        _steps("", text),
    ]
    for name, case in text.cases.items():
        its = text.of(name)
        why = f" {shown(its.why)} [{shown(its.source)}]." if case.why else ""
        parts += [f"Where {case.when}:{why}\n", _steps(None, its)] if case.remedy else []
    return "\n".join(part for part in parts if part)


def _steps(heading: str | None, text: CheckText) -> str | None:
    """A remedy as lines of code, what this tool repairs itself first."""
    steps = remedy(text)
    if not steps:
        return None
    where = "In a maintenance window, by hand" if text.maintenance else "Next"
    return "\n".join([*([f"{where}:\n"] if heading is not None else []), *(f"    {step}" for step in steps)]) + "\n"


def remedy(text: CheckText) -> list[str]:
    """The steps of a row as a page shows them."""
    repair = f'repairs = ["{text.repair}"]'
    steps = [step for step in text.remedy if not step.startswith(repair)]
    repairs = [step for step in text.remedy if step.startswith(repair)] or ([repair] if text.repair else [])
    given = [*repairs, *steps, *text.also.values()]
    return [f"{step[1:]}, see «Ways» below" if step.startswith("@") else shown(step) for step in given]


def _way(name: str) -> str:
    lines = [f"\n### {name}\n"]
    for system, steps in book().ways[name].items():
        lines += [f"{SYSTEM_NAMES.get(system, 'Any other system')}:\n", *(f"    {shown(step)}" for step in steps), ""]
    return "\n".join(lines)


def place(where: Elsewhere) -> str:
    rules = ", ".join(f"`explain {rule}`" for rule in where.rules)
    named = {"before any host is asked": rules, "stage": where.stage, "gates of an activation": where.gate}
    return "; ".join(f"{when}: {what}" for when, what in named.items() if what)
