"""Adding a host to an inventory file without touching anything else in it. Pure: text in, text out."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from sparkfleet.errors import SettingsError


def entry_line(host: str, data: Mapping[str, object]) -> str:
    """Return the inventory's line for a host."""
    pairs = ", ".join(f'"{key}": {_literal(value)}' for key, value in data.items())
    return f"({_literal(host)}, {{{pairs}}}),"


def _literal(value: object) -> str:
    text = repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and '"' not in text and "\\" not in text else text


def with_host(text: str, group: str, host: str, line: str) -> str:
    """Return the file's text with the line at the end of the group's list; comments and layout stay.

    Raises SettingsError when the host is there already, or the group is no list that is written out in the file.
    """
    tree = ast.parse(text)
    lists = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if any(isinstance(node, ast.Constant) and node.value == host for node in ast.walk(tree)):
        raise SettingsError(f"{host} is in the inventory already", "a host that is not", "nothing is to be added")
    if group not in lists:
        raise SettingsError(
            f"there is no list {group} in the inventory", f"one of {', '.join(lists)}", "give --group, or add the line"
        )
    found = lists[group]
    lines = text.splitlines(keepends=True)
    last = found.end_lineno or 1
    # ast counts columns in bytes.
    row = lines[last - 1].encode()
    before, after = row[: (found.end_col_offset or 1) - 1].decode(), row[(found.end_col_offset or 1) - 1 :].decode()
    if before.strip() and found.elts and not before.rstrip().endswith(","):
        before = f"{before.rstrip()},"
    elif not before.strip() and found.elts:
        _end_with_comma(lines, found.elts[-1])
    indent = " " * (found.elts[0].col_offset if found.elts and found.lineno != found.elts[0].lineno else 4)
    head = f"{before.rstrip()}\n" if before.strip() else ""
    lines[last - 1] = f"{head}{indent}{line}\n{after}"
    new = "".join(lines)
    ast.parse(new)
    return new


def _end_with_comma(lines: list[str], element: ast.expr) -> None:
    row, column = (element.end_lineno or 1) - 1, element.end_col_offset or 0
    line = lines[row].encode()
    if not line[column:].lstrip().startswith(b","):
        lines[row] = (line[:column] + b"," + line[column:]).decode()
