"""The pages of the documents that cross the border, written from their schemas: docs/release.md, docs/facts.md and
docs/node-status.md.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

from sparknode.facts import facts
from sparknode.host import owners
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
_FACTS = """\
# The facts of a host

Generated from the schema by `python -m sparkfleet explain --facts > docs/facts.md`.

`sparknode probe` prints this document on a host, and the preflight judges it ([preflight.md](preflight.md)). NodeStatus
is that of [node-status.md](node-status.md). The controller refuses a document that lacks a key or whose values are of
other types, and treats that host as one without an answer.
"""
# How types are written for people; the first that matches counts.
_TYPES = (
    (re.compile(r"tuple\[(\w+), \.\.\.\]"), r"list of \1"),
    (re.compile(r"dict\[str, Any\]"), "object"),
    (re.compile(r"dict\[str, (\w+)\]"), r"object of \1"),
    (re.compile(r"\bstr\b"), "text"),
    (re.compile(r"\b(int|Count)\b"), "whole number"),
    (re.compile(r"\bWhole\b"), "whole number, also below 0"),
    (re.compile(r"\bfloat\b"), "number"),
    (re.compile(r"\bbool\b"), "true or false"),
    (re.compile(r" \| None"), ", or null"),
)


def status_page() -> str:
    return _page(_STATUS, status, described)


def facts_page() -> str:
    return _page(_FACTS, facts, owners)


def release_page() -> str:
    return _page(_RELEASE, release)


def _page(head: str, *modules: ModuleType) -> str:
    """Return a page, the whole document first, which is the last class of the first module, and its parts after it."""
    sections = [section for module in modules for section in _sections(module)]
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


# By the option of `explain` that prints each.
PAGES = {"status": status_page, "facts": facts_page, "release": release_page}
