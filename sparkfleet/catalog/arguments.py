"""Reading a command line against a recorded contract, and saying what is wrong with it.

Stricter than the real parser on purpose: vLLM expands abbreviated flags and lets the last of two equal flags win,
both in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sparkfleet.catalog.contract import Contract, Flag, is_option
from sparkfleet.errors import nearest


@dataclass
class Reading:
    """The arguments by the names of the contract, what is no flag, and the problems as (rule, found, expected)."""

    values: dict[str, Any] = field(default_factory=dict)
    positional: list[str] = field(default_factory=list)
    problems: list[tuple[str, str, str]] = field(default_factory=list)


def read_arguments(contract: Contract, words: Sequence[str]) -> Reading:
    reading = Reading()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not is_option(word):
            reading.positional.append(word)
            continue
        option, equals, attached = word.partition("=")
        flag, problem = _find(contract, option)
        if problem:
            reading.problems.append(problem)
        if flag is None:
            while rest and not is_option(rest[0]):
                rest.pop(0)
            continue
        values = [attached] if equals else _take_values(flag, rest)
        _store(reading, flag, option, values)
    return reading


def _find(contract: Contract, option: str) -> tuple[Flag | None, tuple[str, str, str] | None]:
    # vLLM takes --max_model_len for --max-model-len; the part after a dot is a key of a JSON argument.
    name = option.split(".")[0].replace("_", "-") if option.startswith("--") else option
    flag = contract.options.get(name) or contract.options.get(option)
    if flag is not None:
        return flag, None
    matches = sorted(known for known in contract.options if len(name) > 2 and known.startswith(name))
    if matches:
        return contract.options[matches[0]], ("flag-abbreviated", f"{option} is an abbreviation", ", ".join(matches))
    known = list(contract.options)
    elsewhere = contract.elsewhere("options", name)
    found = f"{option} is unknown to {contract}{elsewhere or nearest(name, known)}"
    return None, ("flag-unknown", found, "a flag that it has")


def _take_values(flag: Flag, rest: list[str]) -> list[str]:
    if flag.boolean:
        return []
    values: list[str] = []
    while rest and not is_option(rest[0]) and (flag.many or not values):
        values.append(rest.pop(0))
    return values


def _store(reading: Reading, flag: Flag, option: str, texts: list[str]) -> None:
    if flag.repeats and texts:
        texts = [*reading.values.get(flag.dest, ()), *texts]
    elif flag.dest in reading.values and "." not in option:
        reading.problems.append(("flag-duplicate", f"{flag.option} is given twice", "once"))
    value: Any
    if flag.boolean:
        value = option.replace("_", "-") not in flag.off
        if texts:
            reading.problems.append(("flag-value", f"{flag.option} takes no value, not '{texts[0]}'", flag.option))
    elif not texts and flag.bare:
        value = True
    elif not texts:
        reading.problems.append(("flag-value", f"{flag.option} has no value", "a value"))
        return
    else:
        value = texts if flag.many or flag.repeats else texts[0]
        problem = None if "." in option else flag.problem_with(value)
        if problem:
            reading.problems.append(("flag-value", f"{flag.option} {problem}", "a value that it accepts"))
        else:
            value = flag.canonical(value)
    reading.values[flag.dest] = value
