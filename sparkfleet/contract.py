"""The recorded command line of each vLLM version: its flags, choices, parsers and environment variables.

Recorded from the real argument parser (`catalog/contracts/VERSION.json`); versions that were not recorded use the
newest recording that is not newer than they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sparkfleet.catalog import ROOT

CONTRACTS = ROOT / "catalog" / "contracts"

_INTEGERS = {"int", "human_readable_int", "human_readable_int_or_auto"}


@dataclass(frozen=True)
class Flag:
    dest: str
    option: str
    negation: str | None
    kind: str
    type: str | None
    many: bool
    choices: tuple[str, ...]

    @property
    def boolean(self) -> bool:
        return self.kind in ("BooleanOptionalAction", "StoreTrueAction")

    def problem_with(self, value: object) -> str | None:
        """Say why the value cannot be given to this flag, or None when it can."""
        values = value if isinstance(value, list) else [value]
        if self.boolean:
            return None if isinstance(value, bool) else f"takes true or false, not {value!r}"
        if isinstance(value, list) and not self.many:
            return "takes one value, not a list"
        for item in values:
            if isinstance(item, bool) or item is None or isinstance(item, dict):
                return f"takes a value, not {item!r}"
            if self.type in _INTEGERS and not _integer(item, self.type):
                return f"takes a whole number, not {item!r}"
            if self.type == "float" and not _number(item):
                return f"takes a number, not {item!r}"
            if self.choices and str(item) not in self.choices:
                return f"takes one of {', '.join(self.choices)}, not {item!r}"
        return None


def _integer(value: object, kind: str | None) -> bool:
    if isinstance(value, int):
        return True
    if isinstance(value, str) and kind != "int":
        text = value.lower()
        return text.rstrip("kmgt").isdigit() or (text == "auto" and kind == "human_readable_int_or_auto")
    return isinstance(value, str) and value.lstrip("-").isdigit()


def _number(value: object) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, int | float)


@dataclass(frozen=True)
class Contract:
    version: str
    recorded_version: str
    flags: dict[str, Flag]
    env: frozenset[str]
    spec_methods: frozenset[str]
    spec_fields: frozenset[str]
    attention_backends: frozenset[str]
    tool_parsers: frozenset[str]
    reasoning_parsers: frozenset[str]
    quantization: frozenset[str]

    @property
    def exact(self) -> bool:
        return self.version == self.recorded_version


def version_key(version: str) -> tuple[int, ...]:
    """Return a sortable key: «0.22.1» → (0, 22, 1); a suffix ends the key."""
    key: list[int] = []
    for part in version.split("."):
        digits = "".join(c for c in part if c.isdigit()) if part[:1].isdigit() else ""
        if not digits:
            break
        key.append(int(digits))
    return tuple(key)


@cache
def contract_for(version: str, folder: Path = CONTRACTS) -> Contract:
    """Return the contract of the version, or of the newest recorded one that is not newer."""
    recorded = sorted((path.stem for path in folder.glob("*.json")), key=version_key)
    older = [name for name in recorded if version_key(name) <= version_key(version)]
    name = older[-1] if older else recorded[0]
    return _parse(version, name, json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))


def _parse(version: str, recorded_version: str, raw: dict[str, Any]) -> Contract:
    flags: dict[str, Flag] = {}
    for row in raw["flags"]:
        options = [option for option in row["opts"] if option.startswith("--")]
        if not options:
            continue
        option = next((o for o in options if not o.startswith("--no-")), options[0])
        negation = next((o for o in options if o.startswith("--no-")), None)
        flags[row["dest"]] = Flag(
            dest=row["dest"],
            option=option,
            negation=negation,
            kind=row["kind"],
            type=row["type"],
            many=row["nargs"] == "+",
            choices=tuple(row["choices"] or ()),
        )
    return Contract(
        version=version,
        recorded_version=recorded_version,
        flags=flags,
        env=frozenset(raw["env"]),
        spec_methods=frozenset(raw["spec_methods"]),
        spec_fields=frozenset(raw["spec_fields"]),
        attention_backends=frozenset(raw["attention_backends"]),
        tool_parsers=frozenset(raw["tool_parsers"]),
        reasoning_parsers=frozenset(raw["reasoning_parsers"]),
        quantization=frozenset(raw["quantization"]),
    )
