"""Adding a host to an inventory file without touching anything else in it. Pure: text in, text out."""

from __future__ import annotations

import ast

from sparkfleet.errors import SettingsError


def with_host(text: str, group: str, host: str, line: str) -> str:
    """Return the file's text with the line at the end of the group's list; comments and layout stay.

    Raises SettingsError when the host is there already, or the group is no list that is written out in the file.
    """
    tree = ast.parse(text)
    lists = {
        name.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
        for name in node.targets
        if isinstance(name, ast.Name)
    }
    if any(isinstance(node, ast.Constant) and node.value == host for node in ast.walk(tree)):
        raise SettingsError(f"{host} is in the inventory already", "a host that is not", "nothing is to be added")
    if group not in lists:
        raise SettingsError(f"there is no list {group} in the inventory", f"one of {', '.join(lists)}", "give --group")
    found = lists[group]
    # ast counts columns in bytes, and ends an element before its comma.
    rows = [row.encode() for row in text.splitlines(keepends=True)]
    end_row, end = (found.end_lineno or 1) - 1, (found.end_col_offset or 1) - 1
    indent = found.elts[0].col_offset if found.elts and found.elts[0].lineno != found.lineno else 4
    head, tail = rows[end_row][:end], rows[end_row][end:]
    opening = head.rstrip() + b"\n" if head.strip() else b""
    rows[end_row] = opening + f"{' ' * indent}{line}\n".encode() + tail
    if found.elts:
        last, column = (found.elts[-1].end_lineno or 1) - 1, found.elts[-1].end_col_offset or 0
        if not rows[last][column:].lstrip().startswith(b","):
            rows[last] = rows[last][:column] + b"," + rows[last][column:]
    return b"".join(rows).decode()
