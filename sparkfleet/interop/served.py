"""What every reader of a foreign form gives: one engine's command line, with what stands around it.

A variable that the file does not set stays in the texts as a reference. Its dollar sign is `MARK`, so that a literal
one is never taken for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sparkfleet.errors import SettingsError

# From Unicode's private area: no file has it.
MARK = "\ue000"
_REFERENCE = re.compile(MARK + r"(\{[A-Za-z_]\w*\}|\(.*\))", re.DOTALL)


def cannot_carry(what: str, expected: str, remedy: str = "") -> SettingsError:
    found = f"the recipe cannot be carried over: {plain(what)}"
    return SettingsError(found, plain(expected), plain(remedy))


def plain(text: str) -> str:
    """Write references as their author did."""
    return text.replace(MARK, "$")


def is_reference(text: str) -> bool:
    """Say whether the text is nothing but one reference to a variable or to a command's output."""
    return _REFERENCE.fullmatch(text) is not None


@dataclass(frozen=True)
class Mount:
    source: str
    target: str


@dataclass(frozen=True)
class Served:
    """One engine as its author starts it; `words` is what follows `vllm serve`.

    `model` is the repository where the form names one apart from the command line. `declared` are the variables that
    the file gives the engine, `notes` what the reader left out because it changes nothing.
    """

    form: str
    name: str
    words: list[str]
    description: str = ""
    model: str | None = None
    revision: str | None = None
    version: str | None = None
    image: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
