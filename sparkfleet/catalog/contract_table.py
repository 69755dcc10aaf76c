"""The table of recorded command lines: each argument once, with the versions that have it.

`catalog/contracts/ENGINE.json` has one line for an argument, a variable or a name, and says in a span which of the
recorded versions it holds for: «0.24.0-» is from there on, «0.20.1-0.23.0» both ends included, «0.26.0» that one
alone; several are separated by commas. An open span takes in what is recorded later, so that a new version changes
only the lines of what it changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sparkfleet import ROOT

CONTRACTS = ROOT / "catalog" / "contracts"

# The cells of an argument that are kept by span within its line.
_SPANNED = ("choices", "fields")


@dataclass(frozen=True)
class Table:
    """The recorded versions in their order, the arguments' lines, and the spans of every other name."""

    versions: tuple[str, ...]
    arguments: tuple[dict[str, Any], ...]
    values: Mapping[str, Mapping[str, str]]

    def recording(self, version: str) -> dict[str, Any]:
        """Return what was recorded of one version: its arguments by name, and its other names by kind."""
        arguments = {}
        for row in self.arguments:
            if self.holds(row["in"], version):
                cells = {key: value for key, value in row.items() if key not in ("name", "in", *_SPANNED)}
                if choices := self._choices(row, version):
                    cells["choices"] = choices
                if fields := self._fields(row, version):
                    cells["fields"] = fields
                arguments[row["name"]] = cells
        values = {
            kind: sorted(name for name, span in spans.items() if self.holds(span, version))
            for kind, spans in self.values.items()
        }
        return {"arguments": arguments, "values": values}

    def holds(self, span: str, version: str) -> bool:
        return version in self.within(span)

    def versions_with(self, kind: str, name: str) -> list[str]:
        """Return the versions that have an option («options»), or a name of another kind."""
        if kind != "options":
            return self.within(self.values.get(kind, {}).get(name, ""))
        rows = [row for row in self.arguments if name in (*row["options"], *row.get("off", ()))]
        return [version for row in rows for version in self.within(row["in"])]

    def choices_of(self, argument: str) -> dict[str, set[str]]:
        """Return every choice that the argument ever had, with the versions that have it."""
        found: dict[str, set[str]] = {}
        for row in self.arguments:
            if row["name"] == argument:
                for span, choices in row.get("choices", {}).items():
                    for choice in choices:
                        found.setdefault(choice, set()).update(self.within(span))
        return found

    def within(self, span: str) -> list[str]:
        """Return the recorded versions that a span takes in."""
        return [self.versions[number] for part in span.split(",") if part for number in self._numbers(part)]

    def ranges(self, versions: Iterable[str]) -> list[tuple[str, str]]:
        """Return the first and last version of each unbroken run of recorded versions."""
        runs: list[list[int]] = []
        for number in sorted({self.versions.index(version) for version in versions}):
            if runs and runs[-1][1] == number - 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])
        return [(self.versions[first], self.versions[last]) for first, last in runs]

    def _numbers(self, part: str) -> range:
        first, dash, last = part.strip().partition("-")
        start = self.versions.index(first)
        end = len(self.versions) - 1 if dash and not last else self.versions.index(last or first)
        return range(start, end + 1)

    def _choices(self, row: Mapping[str, Any], version: str) -> list[str]:
        return sorted(
            choice
            for span, choices in row.get("choices", {}).items()
            if self.holds(span, version)
            for choice in choices
        )

    def _fields(self, row: Mapping[str, Any], version: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for span, fields in row.get("fields", {}).items():
            if self.holds(span, version):
                for field, choices in fields.items():
                    found[field] = sorted({*found.get(field, ()), *choices})
        return found


@cache
def read_table(engine: str, folder: Path = CONTRACTS) -> Table:
    document = json.loads((folder / f"{engine}.json").read_text(encoding="utf-8"))
    return Table(tuple(document["versions"]), tuple(document["arguments"]), document["values"])
