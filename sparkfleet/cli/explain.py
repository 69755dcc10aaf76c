"""What each id means that the tool prints: rules, checks of the preflight, gates, states of the journal, exit codes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from pydantic import Field

from sparkfleet import ROOT
from sparkfleet.catalog.catalog import read_file
from sparkfleet.catalog.rows import Row
from sparkfleet.preflight.findings import book
from sparkfleet.preflight.handbook import place, remedy, shown
from sparkfleet.release.rules import rule_texts
from sparkfleet.rollout import exit_codes
from sparknode.gates.table import GATES

KINDS = ("short", "long", "very-long")
_SUFFIX = "-KIND"


class Word(Row):
    means: str
    next: str


class Words(Row):
    """catalog/words.yaml."""

    schema_: int = Field(alias="schema")
    states: dict[str, Word]
    gates: dict[str, str]
    watch: dict[str, Word]
    codes: dict[int, Word]


@cache
def words() -> Words:
    return read_file(ROOT / "catalog" / "words.yaml", Words)


def gates() -> dict[str, str]:
    """Return what to do where a gate fails, by the name that it is printed with."""
    found = {}
    for name, step in words().gates.items():
        base = name.removesuffix(_SUFFIX)
        for full in [f"{base}-{kind}" for kind in KINDS] if base != name else [name]:
            found[full] = step
    return found


def known() -> dict[str, str]:
    """Return one line for every id, by the id; where several kinds share it, the first."""
    rows = [
        *((name, text.severity, text.why) for name, text in rule_texts().items()),
        *((name, text.severity, shown(text.why)) for name, text in book().checks.items()),
        *((name, "", place(where)) for name, where in book().elsewhere.items()),
        *((gate.id, "gate", gate.about) for gate in GATES),
        *((name, "state", word.means) for name, word in words().states.items()),
        *((name, "watch", word.means) for name, word in words().watch.items()),
        *((str(code), "code", means) for code, means in codes().items()),
    ]
    found: dict[str, str] = {}
    for name, kind, line in rows:
        found.setdefault(name, f"{kind:6}{line}")
    return found


def codes() -> dict[int, str]:
    return dict(sorted((exit_codes.MEANINGS | {code: word.means for code, word in words().codes.items()}).items()))


def explanation(name: str) -> str:
    """Return what is known of an id; several kinds may share a name. Raises KeyError for an unknown one."""
    found = [text for text in (look(name) for look in _LOOKS) if text]
    if not found:
        raise KeyError(name)
    return "\n\n".join(found)


def _rule(name: str) -> str | None:
    text = rule_texts().get(name)
    if text is None:
        return None
    return f"{name} ({text.severity})\nwhy: {text.why}\nsource: {text.source}\nnext: {text.remedy}"


def _check(name: str) -> str | None:
    text = book().checks.get(name)
    if text is None:
        return None
    lines = [f"{name} ({text.severity}), a check of the preflight", f"found: {shown(text.found)}"]
    lines += [f"expected: {shown(text.expected)}"] if text.expected else []
    lines += [f"why: {shown(text.why)}", f"source: {shown(text.source)}"]
    when = "in a maintenance window, by hand" if text.maintenance else "next"
    lines += [f"{when}: {step}" for step in _steps(remedy(text))]
    for case_name, case in text.cases.items():
        its = text.of(case_name)
        lines += [f"where {case.when}:", *([f"  why: {shown(its.why)}"] if case.why else [])]
        lines += [f"  next: {step}" for step in _steps(remedy(its))]
    return "\n".join(lines)


def _steps(steps: list[str]) -> list[str]:
    """Ways are spelled out where no page follows."""
    return [line for step in steps for line in _way(step)]


def _way(step: str) -> list[str]:
    name = step.partition(",")[0]
    if name not in book().ways or not step.endswith("«Ways» below"):
        return [step]
    return [f"{system}: {'; '.join(map(shown, steps))}" for system, steps in book().ways[name].items()]


def _elsewhere(name: str) -> str | None:
    where = book().elsewhere.get(name)
    return None if where is None else f"{name}, which is decided elsewhere\n{place(where)}"


def _gate(name: str) -> str | None:
    gate = next((gate for gate in GATES if gate.id == name), None)
    return None if gate is None else f"{name}, a gate of an activation\nasks: {gate.about}\nnext: {gates()[name]}"


def _state(name: str) -> str | None:
    word = words().states.get(name)
    return None if word is None else f"{name}, a state of the journal\nmeans: {word.means}\nnext: {word.next}"


def _watched(name: str) -> str | None:
    word = words().watch.get(name)
    return None if word is None else f"{name}, a finding of the watch\nmeans: {word.means}\nnext: {word.next}"


def _code(name: str) -> str | None:
    code = int(name) if name.isdecimal() else -1
    if code not in codes():
        return None
    step = words().codes.get(code)
    return f"exit code {code}\nmeans: {codes()[code]}" + (f"\nnext: {step.next}" if step else "")


_LOOKS: tuple[Callable[[str], str | None], ...] = (_rule, _check, _elsewhere, _gate, _state, _watched, _code)
