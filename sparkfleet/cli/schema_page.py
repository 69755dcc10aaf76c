"""docs/release.md and docs/node-status.md, written from the schemas of the two documents that cross the border."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

from sparknode.state import described, release, status

_STATUS = """\
# The status of a node

Generated from the schema by `python -m sparkfleet explain --status > docs/node-status.md`.

`sparknode status` prints this document on a host, a probe holds it under `fleet`, and `status --json` shows it for each
host. The controller refuses a document whose values are of other types, and treats that host as one without an answer.
The parts of a release that are not listed here are those of [release.md](release.md).
"""
_RELEASE = """\
# A release

Generated from the schema by `python -m sparkfleet explain --release > docs/release.md`.

The controller builds this document, `python -m sparkfleet show HOST --inventory FILE --format json` prints it, and a
host keeps it as `release.json`. A node refuses a document whose values are of other types or whose id is not that of
its content; it keeps keys that it does not know.
"""
# How types are written for people; the first that matches counts.
_TYPES = (
    (re.compile(r"tuple\[(\w+), \.\.\.\]"), r"list of \1"),
    (re.compile(r"dict\[str, Any\]"), "object"),
    (re.compile(r"dict\[str, (\w+)\]"), r"object of \1"),
    (re.compile(r"\bstr\b"), "text"),
    (re.compile(r"\bint\b"), "whole number"),
    (re.compile(r"\bfloat\b"), "number"),
    (re.compile(r"\bbool\b"), "true or false"),
    (re.compile(r" \| None"), ", or null"),
)


def status_page() -> str:
    return _page(_STATUS, status, described)


def release_page() -> str:
    return _page(_RELEASE, release)


def _page(head: str, *modules: ModuleType) -> str:
    """Return a page, the whole document first, which is the last class of the first module, and its parts after it."""
    (whole, *parts), *more = (_sections(module) for module in modules)
    sections = [whole, *parts, *(section for others in more for section in others)]
    return "\n".join([head, *(f"{section}\n" for section in sections)]).rstrip("\n") + "\n"


def _sections(module: ModuleType) -> list[str]:
    source = inspect.getsource(module)
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return ["\n".join([f"## {one.name}\n", *_table(one, source.splitlines())]) for one in (classes[-1], *classes[:-1])]


def _table(found: ast.ClassDef, lines: list[str]) -> Iterator[str]:
    told = " ".join((ast.get_docstring(found) or "").split())
    if told:
        yield f"{told}\n"
    yield from ("| key | value | what it says |", "|---|---|---|")
    for field in found.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            kind = ast.unparse(field.annotation)
            for pattern, words in _TYPES:
                kind = pattern.sub(words, kind)
            above = lines[field.lineno - 2].strip()
            about = above.removeprefix("# ") if above.startswith("# ") else ""
            yield f"| `{_key(field, field.target.id)}` | {kind} | {about} |"


def _key(field: ast.AnnAssign, name: str) -> str:
    """Return the key in the document, which metadata gives where it is no name in Python."""
    for node in ast.walk(field):
        if isinstance(node, ast.Dict) and isinstance(value := node.values[0], ast.Constant):
            return str(value.value)
    return name
