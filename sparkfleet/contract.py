"""The recorded command line of each engine version: its flags, choices, parsers and environment variables.

Recorded from the real argument parsers (`catalog/contracts/VERSION.json` for vLLM, `catalog/contracts/sglang/`). A
version that was not recorded is read from its neighbours: what either of them knows is accepted, and what only one of
them knows is listed as doubtful, so that nobody takes an interpolation for a recording.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from sparkfleet import ROOT
from sparkfleet.yamltext import parse_yaml

CONTRACTS = ROOT / "catalog" / "contracts"
# What the recordings call `_optional_type`: an argument that may also be None, without the type that it has else.
OPTIONAL_TYPES = ROOT / "catalog" / "argument_types.yaml"

_INTEGERS = {"int", "human_readable_int", "human_readable_int_or_auto"}
_DOCUMENTS = {"loads", "parse_dataclass", "json"}
_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_NEGATIVE = re.compile(r"-\d+|-\d*\.\d+", re.ASCII)
_SCALED = re.compile(r"(\d+(?:\.\d+)?)([kmgtKMGT]?)", re.ASCII)


@dataclass(frozen=True)
class Flag:
    dest: str
    options: tuple[str, ...]
    kind: str
    type: str | None
    many: bool
    choices: tuple[str, ...]

    @cached_property
    def option(self) -> str:
        long = [option for option in self.options if option.startswith("--")]
        return next((option for option in long if not option.startswith("--no-")), long[0])

    @cached_property
    def negation(self) -> str | None:
        return next((option for option in self.options if option.startswith("--no-")), None)

    @property
    def boolean(self) -> bool:
        return "BooleanOptional" in self.kind or "StoreTrue" in self.kind

    def problem_with(self, value: object) -> str | None:
        """Say why the value cannot be given to this flag, or None when it can."""
        if self.boolean:
            return None if isinstance(value, bool) else f"takes true or false, not {value!r}"
        if self.type in _DOCUMENTS and _is_document(value):
            return None
        if isinstance(value, list) and not self.many:
            return "takes one value, not a list"
        problems = map(self._problem_with_item, value if isinstance(value, list) else [value])
        return next((problem for problem in problems if problem), None)

    def words(self, value: Any) -> list[str]:
        """Return the flag with its value as words of a command line; none where «false» has no flag of its own."""
        if isinstance(value, bool):
            option = self.option if value else self.negation
            return [option] if option else []
        return [self.option, *(str(item) for item in (value if isinstance(value, list) else [value]))]

    def _problem_with_item(self, item: object) -> str | None:
        if isinstance(item, bool | dict | list) or item is None:
            return f"takes a value, not {item!r}"
        if any(not character.isprintable() for character in str(item)):
            return f"takes printable text, not {item!r}"
        if self.type in _DOCUMENTS:
            return f"takes JSON, not {item!r}"
        if self.type in _INTEGERS and whole_number(item, self.type) is None:
            return f"takes a whole number, not {item!r}"
        if self.type == "float":
            number = _real_number(item)
            if number is None or not math.isfinite(number):
                return f"takes a number, not {item!r}"
            item = number
        if is_option(str(item)):
            return f"takes a value that is not read as a flag, not {item!r}"
        if self.choices and str(item) not in self.choices:
            return f"takes one of {', '.join(self.choices)}, not {item!r}"
        return None

    def canonical(self, value: Any) -> Any:
        """Return an accepted value as this flag's type: «256k» is 256000 and «0.8» is 0.8."""
        if self.type in _DOCUMENTS and isinstance(value, dict | list):
            return json.dumps(value, separators=(",", ":"))
        if isinstance(value, list):
            return [self.canonical(item) for item in value]
        if self.type in _INTEGERS and value != "auto":
            return whole_number(value, self.type)
        if self.type == "float":
            return _real_number(value)
        return value if isinstance(value, bool) else str(value)


def is_option(word: str) -> bool:
    """Say whether argparse takes the word for a flag: a dash in front of anything but a plain number."""
    return word.startswith("-") and len(word) > 1 and not _NEGATIVE.fullmatch(word)


def whole_number(value: object, kind: str | None = "human_readable_int_or_auto") -> int | None:
    """Return what vLLM makes of a whole number: a lower-case suffix is decimal, an upper-case one binary.

    «auto» is -1, as vLLM has it, where the kind allows it; None when it is no whole number.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if not isinstance(value, str):
        return None
    if re.fullmatch(r"-?\d+", value, re.ASCII):
        return int(value)
    if kind == "int":
        return None
    if value == "auto":
        return -1 if kind == "human_readable_int_or_auto" else None
    scaled = _SCALED.fullmatch(value)
    if scaled is None:
        return None
    number = float(scaled[1]) * _SCALES[scaled[2]]
    return int(number) if number.is_integer() else None


def _real_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _is_document(value: object) -> bool:
    if isinstance(value, dict | list):
        return True
    try:
        return isinstance(value, str) and isinstance(json.loads(value), dict | list)
    except ValueError:
        return False


# What a recording lists beside the flags.
_VALUES = tuple("env spec_methods spec_fields attention_backends tool_parsers reasoning_parsers quantization".split())


@dataclass(frozen=True)
class Contract:
    """What one version accepts; `basis` are the recorded versions that this was read from."""

    engine: str
    version: str
    basis: tuple[str, ...]
    flags: dict[str, Flag]
    env: frozenset[str]
    spec_methods: frozenset[str]
    spec_fields: frozenset[str]
    attention_backends: frozenset[str]
    tool_parsers: frozenset[str]
    reasoning_parsers: frozenset[str]
    quantization: frozenset[str]
    doubtful: frozenset[str] = frozenset()

    @property
    def exact(self) -> bool:
        return self.basis == (self.version,)

    @cached_property
    def options(self) -> dict[str, Flag]:
        return {option: flag for flag in self.flags.values() for option in flag.options}

    def __str__(self) -> str:
        recorded = " and ".join(self.basis)
        return f"{self.engine} {self.version}" + ("" if self.exact else f" (read from {recorded})")


def version_key(version: str) -> tuple[int, ...]:
    """Return a sortable key: «0.22.1» and «0.22.1+cpu» → (0, 22, 1); a part without a number ends the key."""
    key: list[int] = []
    for part in version.split("."):
        digits = re.match(r"\d+", part, re.ASCII)
        if digits is None:
            break
        key.append(int(digits[0]))
    return tuple(key)


@cache
def contract_for(version: str, engine: str = "vllm", folder: Path = CONTRACTS) -> Contract:
    """Return the contract of the version, exact where it was recorded and else from its recorded neighbours."""
    place = folder if engine == "vllm" else folder / engine
    recorded = sorted((path.stem for path in place.glob("*.json")), key=version_key)
    if version in recorded:
        return _read(engine, version, place)
    older = [name for name in recorded if version_key(name) < version_key(version)][-1:]
    newer = [name for name in recorded if version_key(name) > version_key(version)][:1]
    neighbours = [_read(engine, name, place) for name in (*older, *newer)]
    merged = neighbours[0] if len(neighbours) == 1 else _merged(*neighbours)
    return replace(merged, version=version, basis=(*older, *newer))


def _merged(older: Contract, newer: Contract) -> Contract:
    return replace(
        older,
        flags={**newer.flags, **older.flags},
        **{name: getattr(older, name) | getattr(newer, name) for name in _VALUES},
        doubtful=frozenset(older.flags.keys() ^ newer.flags.keys()) | (older.env ^ newer.env),
    )


@cache
def _read(engine: str, version: str, folder: Path) -> Contract:
    raw: dict[str, Any] = json.loads((folder / f"{version}.json").read_text(encoding="utf-8"))
    optional = _optional_types() if engine == "vllm" else {}
    flags = {
        row["dest"]: Flag(
            dest=row["dest"],
            options=tuple(row["opts"]),
            kind=row["kind"],
            type=optional.get(row["dest"], row["type"]),
            many=row["nargs"] in ("+", "*"),
            choices=tuple(row["choices"] or ()),
        )
        for row in raw["flags"]
        if any(option.startswith("--") for option in row["opts"])
    }
    return Contract(engine, version, (version,), flags, **{name: frozenset(raw.get(name, ())) for name in _VALUES})


@cache
def _optional_types() -> dict[str, str]:
    document = parse_yaml(OPTIONAL_TYPES.read_text(encoding="utf-8"))
    return {dest: kind for kind, dests in document["types"].items() for dest in dests}
