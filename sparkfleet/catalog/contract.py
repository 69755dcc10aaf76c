"""The recorded command line of each engine version: its flags, choices, parsers and environment variables.

Recorded from the real argument parsers (`catalog/contracts/ENGINE.json`). A version that was not recorded is read
from its neighbours: what either of them knows is accepted, and what only one of them knows is listed as doubtful, so
that nobody takes an interpolation for a recording.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from sparkfleet.catalog.contract_table import CONTRACTS as FOLDER
from sparkfleet.catalog.contract_table import Table, read_table
from sparkfleet.errors import nearest

_INTEGERS = {"int", "human_readable_int", "human_readable_int_or_auto"}
_TEXT_OR_DOCUMENT = "union_dict_and_str"
_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_NEGATIVE = re.compile(r"-\d+|-\d*\.\d+", re.ASCII)
_SCALED = re.compile(r"(\d+(?:\.\d+)?)([kmgtKMGT]?)", re.ASCII)


@dataclass(frozen=True)
class Flag:
    """One argument. `fields` are the keys of its JSON, each with its values where the engine lists them; `elsewhere`
    says of choices that only other versions have which those are."""

    dest: str
    options: tuple[str, ...]
    off: tuple[str, ...] = ()
    type: str = "str"
    values: str | None = None
    repeats: bool = False
    choices: tuple[str, ...] = ()
    fields: Mapping[str, frozenset[str]] | None = None
    elsewhere: Mapping[str, str] | None = None
    default: Any = None

    @cached_property
    def option(self) -> str:
        return next(option for option in (*self.options, *self.off) if option.startswith("--"))

    @cached_property
    def negation(self) -> str | None:
        return self.off[0] if self.off else None

    @property
    def boolean(self) -> bool:
        return self.type == "bool"

    @property
    def many(self) -> bool:
        return self.values in ("+", "*")

    @property
    def bare(self) -> bool:
        """Whether it may also stand without a value."""
        return self.values == "?"

    def problem_with(self, value: object) -> str | None:
        """Say why the value cannot be given to this flag, or None when it can."""
        if self.boolean:
            return None if isinstance(value, bool) else f"takes true or false, not {value!r}"
        if self.bare and value is True:
            return None
        document = self._document(value)
        if document is not None:
            return self._problem_with_fields(document)
        if isinstance(value, list) and not (self.many or self.repeats):
            return "takes one value, not a list"
        problems = map(self._problem_with_item, value if isinstance(value, list) else [value])
        return next((problem for problem in problems if problem), None)

    def _document(self, value: object) -> dict[str, Any] | list[Any] | None:
        if self.type not in ("json", _TEXT_OR_DOCUMENT):
            return None
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return None
        return value if isinstance(value, dict) or (isinstance(value, list) and self.type == "json") else None

    def _problem_with_fields(self, document: dict[str, Any] | list[Any]) -> str | None:
        if not self.fields or isinstance(document, list):
            return None
        for key, value in document.items():
            choices = self.fields.get(key)
            if choices is None:
                return f"has no key {key!r}{nearest(key, sorted(self.fields))}"
            if choices and value is not None and _as_name(value) not in set(map(_as_name, choices)):
                return f"takes one of {', '.join(sorted(choices))} as {key}, not {value!r}"
        return None

    def words(self, value: Any) -> list[str]:
        """Return the flag with its value as words of a command line; none where «false» has no flag of its own."""
        if isinstance(value, bool):
            option = self.option if value else self.negation
            return [option] if option else []
        if self.repeats and isinstance(value, list):
            return [word for item in value for word in (self.option, str(item))]
        return [self.option, *(str(item) for item in (value if isinstance(value, list) else [value]))]

    def _problem_with_item(self, item: object) -> str | None:
        if isinstance(item, bool | dict | list) or item is None:
            return f"takes a value, not {item!r}"
        if any(not character.isprintable() for character in str(item)):
            return f"takes printable text, not {item!r}"
        if self.type == "json":
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
        known = {_as_name(choice) for choice in self.choices} if self.type == "name" else self.choices
        word = _as_name(item) if self.type == "name" else str(item)
        if known and word not in known:
            return f"takes one of {', '.join(self.choices)}, not {item!r}{(self.elsewhere or {}).get(word, '')}"
        return None

    def canonical(self, value: Any) -> Any:
        """Return an accepted value as this flag's type: «256k» is 256000 and «0.8» is 0.8."""
        if self._document(value) is not None and not isinstance(value, str):
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


def _as_name(value: object) -> str:
    # vLLM reads the names of its kernels in any case, and a dash as an underscore.
    return str(value).lower().replace("-", "_")


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
    folder: Path = FOLDER

    def elsewhere(self, kind: str, name: str) -> str:
        """Say in brackets which other versions know the name, as «options» or as one of the other kinds.

        Nothing where none does, or where this one does.
        """
        table = read_table(self.engine, self.folder)
        versions = table.versions_with(kind, name)
        return "" if set(versions) & set(self.basis) else _has_it(table, versions)

    @property
    def exact(self) -> bool:
        return self.basis == (self.version,)

    @cached_property
    def options(self) -> dict[str, Flag]:
        return {option: flag for flag in self.flags.values() for option in (*flag.options, *flag.off)}

    def extended(self, adds: Mapping[Any, Iterable[str]]) -> Contract:
        """Return the contract of a build that has more of these kinds of names than the release."""
        return replace(self, **{kind: getattr(self, kind) | set(names) for kind, names in adds.items()})

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


def recorded_versions(engine: str = "vllm", folder: Path = FOLDER) -> tuple[str, ...]:
    """Return the versions whose command line was recorded, the oldest first."""
    return read_table(engine, folder).versions


@cache
def contract_for(version: str, engine: str = "vllm", folder: Path = FOLDER) -> Contract:
    """Return the contract of the version, exact where it was recorded and else from its recorded neighbours."""
    recorded = recorded_versions(engine, folder)
    if version in recorded:
        return _read(engine, version, folder)
    older = [name for name in recorded if version_key(name) < version_key(version)][-1:]
    newer = [name for name in recorded if version_key(name) > version_key(version)][:1]
    neighbours = [_read(engine, name, folder) for name in (*older, *newer)]
    merged = neighbours[0] if len(neighbours) == 1 else _merged(*neighbours)
    return replace(merged, version=version, basis=(*older, *newer))


def _merged(older: Contract, newer: Contract) -> Contract:
    shared = older.flags.keys() & newer.flags.keys()
    return replace(
        older,
        flags={
            **newer.flags,
            **older.flags,
            **{name: _joined(older.flags[name], newer.flags[name]) for name in shared},
        },
        **{name: getattr(older, name) | getattr(newer, name) for name in _VALUES},
        doubtful=frozenset(older.flags.keys() ^ newer.flags.keys()) | (older.env ^ newer.env),
    )


def _joined(older: Flag, newer: Flag) -> Flag:
    """The newer flag with what only the older one takes."""
    choices = {*older.choices, *newer.choices} if older.choices and newer.choices else ()
    before, after = older.fields, newer.fields
    fields = {**before, **after} if before and after else None
    return replace(newer, options=_both(newer.options, older.options), choices=tuple(sorted(choices)), fields=fields)


def _both(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return (*first, *(item for item in second if item not in first))


@cache
def _read(engine: str, version: str, folder: Path) -> Contract:
    table = read_table(engine, folder)
    recording = table.recording(version)
    flags = {name: _flag(table, name, cells) for name, cells in recording["arguments"].items()}
    values = {name: frozenset(recording["values"].get(name, ())) for name in _VALUES}
    return Contract(engine, version, (version,), flags, **values, folder=folder)


def _flag(table: Table, name: str, cells: Mapping[str, Any]) -> Flag:
    choices = tuple(cells.get("choices", ()))
    others = table.choices_of(name) if choices else {}
    return Flag(
        dest=name,
        options=tuple(cells["options"]),
        off=tuple(cells.get("off", ())),
        type=cells["type"],
        values=cells.get("values"),
        repeats=cells.get("repeats", False),
        choices=choices,
        fields={key: frozenset(known) for key, known in cells.get("fields", {}).items()} or None,
        elsewhere={choice: _has_it(table, versions) for choice, versions in others.items() if choice not in choices},
        default=cells.get("default"),
    )


def _has_it(table: Table, versions: Iterable[str]) -> str:
    """Say which of the recorded versions have something, as the end of a sentence that says that one has not."""
    oldest, newest = table.versions[0], table.versions[-1]
    parts = []
    for first, last in table.ranges(versions):
        if last == newest:
            parts.append(f"from {first} on")
        elif first == oldest:
            parts.append(f"up to {last}")
        else:
            parts.append(first if first == last else f"from {first} to {last}")
    return f" (in versions {' and '.join(parts)})" if parts else ""
