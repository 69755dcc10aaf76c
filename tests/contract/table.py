"""Writes recordings into the table of `sparkfleet.catalog.contract_table`, and tells two of its states apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sparkfleet.catalog.contract import version_key
from sparkfleet.catalog.contract_table import Table

Recording = dict[str, Any]


def written(table: Table | None, recordings: Mapping[str, Recording]) -> str:
    """Return the file's text with these recordings beside, or in place of, those that it has."""
    known = {version: table.recording(version) for version in table.versions} if table else {}
    everything = {**known, **recordings}
    versions = tuple(sorted(everything, key=version_key))
    ordered = {version: everything[version] for version in versions}
    arguments = [row for name in _names(ordered, "arguments") for row in _lines(name, ordered)]
    kinds = sorted({kind for recording in ordered.values() for kind in recording["values"]})
    values = {kind: _spans({v: ordered[v]["values"].get(kind, ()) for v in versions}) for kind in kinds}
    return _text(versions, arguments, values)


def changes(before: Recording, after: Recording) -> list[str]:
    """Say in a line each what the second recording has, lacks or has otherwise than the first."""
    found = []
    for name in sorted(before["arguments"].keys() | after["arguments"].keys()):
        old, new = before["arguments"].get(name), after["arguments"].get(name)
        if old == new:
            continue
        if old is None or new is None:
            shown = json.dumps(old or new, ensure_ascii=False)
            found.append(f"{'+' if old is None else '-'} argument {name} {shown}")
            continue
        cells = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        found.extend(f"~ argument {name}.{key}: {_difference(old.get(key), new.get(key))}" for key in cells)
    for kind in sorted(before["values"].keys() | after["values"].keys()):
        had, has = set(before["values"].get(kind, ())), set(after["values"].get(kind, ()))
        found.extend(f"+ {kind} {name}" for name in sorted(has - had))
        found.extend(f"- {kind} {name}" for name in sorted(had - has))
    return found


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list):
        parts = [f"+{item}" for item in new if item not in old] + [f"-{item}" for item in old if item not in new]
        return " ".join(parts)
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        return "; ".join(f"{key}: {old.get(key)} → {new.get(key)}" for key in keys)
    return f"{json.dumps(old)} → {json.dumps(new)}"


def _names(recordings: Mapping[str, Recording], section: str) -> list[str]:
    return sorted({name for recording in recordings.values() for name in recording[section]})


def _lines(name: str, recordings: Mapping[str, Recording]) -> Iterator[dict[str, Any]]:
    """One line for each shape that the argument had; its choices and fields may change within a line."""
    shapes: dict[str, list[str]] = {}
    for version, recording in recordings.items():
        cells = recording["arguments"].get(name)
        if cells is not None:
            shape = {key: value for key, value in cells.items() if key not in ("choices", "fields")}
            shapes.setdefault(json.dumps(shape, sort_keys=True), []).append(version)
    for text, versions in shapes.items():
        own = {version: recordings[version]["arguments"][name] for version in versions}
        line = {"name": name, "in": _span(versions, list(recordings)), **json.loads(text)}
        if choices := _grouped({v: dict.fromkeys(own[v].get("choices", ()), "") for v in own}, recordings, list):
            line["choices"] = choices
        pairs = {
            v: {
                (field, choice): ""
                for field, choices in own[v].get("fields", {}).items()
                for choice in (choices or [None])
            }
            for v in own
        }
        if fields := _grouped(pairs, recordings, _by_field):
            line["fields"] = fields
        yield line


def _grouped(
    having: Mapping[str, Mapping[Any, str]], recordings: Mapping[str, Recording], shape: Callable[[list[Any]], Any]
) -> dict[str, Any]:
    groups: dict[str, list[Any]] = {}
    for item in sorted({item for items in having.values() for item in items}, key=str):
        span = _span([version for version in having if item in having[version]], list(recordings))
        groups.setdefault(span, []).append(item)
    return {span: shape(items) for span, items in sorted(groups.items())}


def _by_field(pairs: list[tuple[str, str | None]]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for field, choice in pairs:
        fields.setdefault(field, []).extend([] if choice is None else [choice])
    return fields


def _spans(having: Mapping[str, Any]) -> dict[str, str]:
    names = sorted({name for names in having.values() for name in names})
    return {name: _span([version for version in having if name in having[version]], list(having)) for name in names}


def _span(versions: list[str], every: list[str]) -> str:
    parts = []
    for first, last in Table(tuple(every), (), {}).ranges(versions):
        if last == every[-1]:
            parts.append(f"{first}-")
        else:
            parts.append(first if first == last else f"{first}-{last}")
    return ",".join(parts)


def _text(versions: tuple[str, ...], arguments: list[dict[str, Any]], values: dict[str, dict[str, str]]) -> str:
    rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in arguments)
    kinds = [
        f" {json.dumps(kind)}: {{\n   " + ",\n   ".join(f"{json.dumps(n)}: {json.dumps(s)}" for n, s in spans.items())
        for kind, spans in values.items()
    ]
    named = " {\n " + "\n  },\n ".join(kinds) + "\n  }\n }" if kinds else " {}"
    return f'{{\n "versions": {json.dumps(versions)},\n "arguments": [\n  {rows}\n ],\n "values":{named}\n}}\n'
