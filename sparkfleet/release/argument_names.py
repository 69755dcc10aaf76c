"""What an argument is called, however it is spelled, and which ones nobody may set by hand.

A profile, an image line, an inventory and --set all end up on one command line, so all of them are held to the same:
what is staged, mounted or proven by the recipe itself is not set beside it, and a secret is not set at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sparkfleet.catalog.contract import Contract
from sparkfleet.errors import SettingsError
from sparkfleet.release.rules.book import refusal
from sparkfleet.secrets import looks_secret, names_secret

_PLAIN = re.compile(r"[A-Za-z][\w-]*", re.ASCII)
# What vLLM's speculative config would load from elsewhere than the folder that was staged and proven.
_OF_THE_DRAFTER = ("model", "revision", "code_revision", "tokenizer", "draft_model_config")


def spelled(key: str) -> str:
    """Return the name that a spelling stands for: «--api-key=x», «api.key» and «API_KEY» name `api_key`."""
    return re.split(r"[=.\s:]", key.strip().lstrip("-"), maxsplit=1)[0].replace("-", "_").lower()


def meant(key: str, contract: Contract) -> frozenset[str]:
    """Return the arguments that the engine's parser may take this spelling for, abbreviations included."""
    name = spelled(key)
    option = f"--{name.replace('_', '-')}"
    short = contract.options.get(re.split(r"[=.\s]", key.strip(), maxsplit=1)[0])
    exact = contract.options.get(option) or short
    if name in contract.flags or exact is not None:
        return frozenset({name} if exact is None else {exact.dest})
    abbreviated = {flag.dest for known, flag in contract.options.items() if len(name) > 1 and known.startswith(option)}
    return frozenset({name} | abbreviated)


def refuse_arguments(where: str, args: Mapping[str, Any], contract: Contract, reserved: Collection[str]) -> None:
    """Refuse what no profile, line or override may set; the refusal never holds the value."""
    for key, value in args.items():
        names = meant(key, contract)
        named = spelled(key)
        if any(map(names_secret, {named, *names})) or _holds_secret(value) or looks_secret(key):
            raise _refused_secret(f"{where} sets {named}")
        if taken := sorted(names & set(reserved)):
            found = f"{where} sets '{named}'" + (f" ({', '.join(taken)})" if taken != [named] else "")
            raise refusal("reserved-argument", found, "an argument that the recipe does not set itself")
        if not _PLAIN.fullmatch(key):
            raise refusal("argument-name", f"{where} has an argument named '{named}…'", "its full name in snake_case")


def refuse_speculation(where: str, args: Mapping[str, Any], staged: str | None) -> None:
    """Refuse what a speculative config may not set: another drafter than the `staged` folder, or a secret."""
    for key, value in args.items():
        if names_secret(spelled(key)) or _holds_secret(value):
            raise _refused_secret(f"{where} sets {spelled(key)} of the speculative config")
        if spelled(key) in _OF_THE_DRAFTER and (key != "model" or staged is None or value != staged):
            found = f"{where} sets '{spelled(key)}' of the speculative config"
            raise refusal("reserved-argument", found, "the drafter of the model's row, which is staged and verified")


def refuse_variables(where: str, env: Mapping[str, str | None]) -> None:
    for name, value in env.items():
        if value is not None and (names_secret(name) or looks_secret(value)):
            raise _refused_secret(f"{where} sets the variable {name}")


def _refused_secret(found: str) -> SettingsError:
    return refusal("secret-argument", found, "no secret in a command line, a variable or a unit")


def _holds_secret(value: object) -> bool:
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(value)
        except ValueError:
            return looks_secret(str(value))
    return looks_secret(str(value)) or any(names_secret(key) for key in _keys(value))


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
