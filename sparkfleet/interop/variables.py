"""`$NAME`, `${NAME}` and `${NAME:-default}`, as shells, Compose and systemd know them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from sparkfleet.interop.served import MARK

_NAME = re.compile(r"[A-Za-z_]\w*|[@*#?!0-9-]")
_OPERATOR = re.compile(r"([A-Za-z_]\w*|[@*0-9]+)(:?[-=?+])?(.*)", re.DOTALL)


def closing(text: str, start: int, opener: str, closer: str) -> int:
    """Return where the bracket that opens at `start` closes, quotes and nested ones respected; the end where it never
    does."""
    depth, quote, at = 0, "", start
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == opener:
            depth += 1
        elif char == closer:
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return len(text)


def reference_at(text: str, dollar: int) -> tuple[str, int] | None:
    """Return what stands behind the dollar sign and where it ends, or None when it is a plain dollar sign."""
    after = text[dollar + 1 : dollar + 2]
    if after in ("{", "("):
        end = closing(text, dollar + 1, after, "}" if after == "{" else ")")
        return text[dollar + 1 : end + 1], end + 1
    name = _NAME.match(text, dollar + 1)
    return ("{" + name[0] + "}", name.end()) if name else None


def value_of(reference: str, values: Mapping[str, str], fill: Callable[[str], str]) -> str:
    """Return the value of a reference as `reference_at` gives it, or the reference itself with `MARK`."""
    parts = _OPERATOR.fullmatch(reference[1:-1]) if reference[0] == "{" else None
    if parts is None:
        return MARK + reference
    name, operator, word = parts[1], parts[2] or "", parts[3]
    if word and not operator:
        return MARK + reference
    value = values.get(name)
    if operator in ("-", "=", ":-", ":="):
        known = value is not None and (value or operator[0] != ":")
        return str(value) if known else fill(word)
    if operator in ("+", ":+"):
        return fill(word) if value else ""
    return value if value is not None else f"{MARK}{{{name}}}"


def filled(text: str, values: Mapping[str, str]) -> str:
    """Fill the references of a text, as Compose does: `$$` is a dollar sign."""
    parts, at = [], 0
    while (dollar := text.find("$", at)) >= 0:
        parts.append(text[at:dollar])
        if text[dollar + 1 : dollar + 2] == "$":
            parts.append("$")
            at = dollar + 2
            continue
        found = reference_at(text, dollar)
        if found is None:
            parts.append("$")
            at = dollar + 1
            continue
        parts.append(value_of(found[0], values, lambda word: filled(word, values)))
        at = found[1]
    return "".join([*parts, text[at:]])
