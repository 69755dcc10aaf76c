"""Reads argparse actions into plain data: what each argument is called, takes and begins with.

Runs inside the environments, beside `dump_contract.py` and SGLang's `dump.py`, with the standard library alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import typing
from typing import Any

# The names of converters that mean the same.
_TYPES = {"loads": "json", "parse_dataclass": "json"}


def arguments(parser: argparse.ArgumentParser) -> dict[str, dict[str, Any]]:
    """Every argument that has a long option, by its name in the parsed arguments."""
    options: dict[str, list[str]] = {}
    # Not the actions' own lists: vLLM 0.33 hides the options there that it only still accepts.
    for option, action in parser._option_string_actions.items():
        options.setdefault(action.dest, []).append(option)
    found = {action.dest: action for action in parser._actions if action.dest != "help"}
    return {
        name: _argument(parser, action, options[name])
        for name, action in found.items()
        if any(option.startswith("--") for option in options.get(name, ()))
    }


def _argument(parser: argparse.ArgumentParser, action: argparse.Action, options: list[str]) -> dict[str, Any]:
    boolean = action.nargs == 0
    off = [option for option in options if boolean and _switches_off(parser, action, option)]
    converter = _unwrapped(action.type)
    row: dict[str, Any] = {
        "options": sorted((option for option in options if option not in off), key=options.index),
        "type": "bool" if boolean else _type(converter, bool(action.choices)),
    }
    if off:
        # The spelling that every version has comes first.
        row["off"] = sorted(off, key=lambda option: (not option.startswith("--no-"), options.index(option)))
    if action.nargs in ("+", "*", "?"):
        row["values"] = action.nargs
    if isinstance(action, argparse._AppendAction):
        row["repeats"] = True
    if action.choices:
        row["choices"] = sorted(str(choice) for choice in action.choices if _can_be_given(action, choice))
    if action.default not in (None, argparse.SUPPRESS) and _is_json(action.default):
        row["default"] = action.default
    fields = _fields(converter)
    if fields:
        row["fields"] = fields
    return row


def _can_be_given(action: argparse.Action, choice: Any) -> bool:
    # Some versions list "None", which their converter has turned into None before it is looked up.
    if action.type is None or not isinstance(choice, str):
        return True
    converter: Any = action.type
    return converter(choice) in (action.choices or ())


def _switches_off(parser: argparse.ArgumentParser, action: argparse.Action, option: str) -> bool:
    if isinstance(action, argparse._StoreTrueAction):
        return False
    namespace = argparse.Namespace()
    action(parser, namespace, [], option)
    return getattr(namespace, action.dest, None) is False


def _unwrapped(converter: Any) -> Any:
    """The converter itself, out of vLLM's wrappers for what may be None."""
    while getattr(converter, "__name__", "") in ("_optional_type", "_parse_type"):
        names = converter.__code__.co_freevars
        cells = dict(zip(names, (cell.cell_contents for cell in converter.__closure__), strict=True))
        converter = cells["return_type"]
    return converter


def _type(converter: Any, has_choices: bool) -> str:
    name = getattr(converter, "__name__", "str")
    if name == "<lambda>":
        # vLLM's lambdas before choices read «flashinfer-cutlass» as «flashinfer_cutlass», in any case.
        return "name" if has_choices else "str"
    return _TYPES.get(name, name)


def _fields(converter: Any) -> dict[str, list[str]]:
    """The keys of a JSON argument that is read into a dataclass, each with its values where they are listed."""
    if getattr(converter, "__name__", "") != "parse_dataclass":
        return {}
    described = converter.__defaults__[0]
    hints = typing.get_type_hints(described)
    return {
        field.name: _listed(hints[field.name])
        for field in dataclasses.fields(described)
        if field.init and not field.name.startswith("_")
    }


def _listed(hint: Any) -> list[str]:
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return sorted(str(part) for part in parts)
    rest = [part for part in parts if part is not type(None)]
    if len(rest) == 1 and len(parts) == 2:
        return _listed(rest[0])
    return []


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
