"""Finding secrets in what somebody else wrote: by the name of a setting, and by the shape of a value.

A reference to a variable is no secret. A secret is never repeated, not even in the refusal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from sparkfleet.errors import SettingsError
from sparkfleet.interop.served import cannot_carry, is_reference
from sparkfleet.secrets import looks_secret as has_token
from sparkfleet.secrets import names_secret

_SETTING = re.compile(r"[\w.-]+")
_SHAPES = re.compile(
    r"""\bsk-[A-Za-z0-9_-]{4,} | \bhf_[A-Za-z0-9]{16,} | \bgh[pousr]_[A-Za-z0-9]{16,} | \bgithub_pat_\w{16,}
    | \bglpat-[\w-]{12,} | \bnvapi-[\w-]{12,} | \bxox[abprs]-[\w-]{8,} | \bAKIA[0-9A-Z]{12,}
    | \beyJ[\w-]{8,}\.[\w-]{8,} | \b(?:Bearer|Basic)[ ]+[A-Za-z0-9._~+/=-]{4,}
    | \bauthorization["']?\s*[:=]\s*["']?(?!Bearer\b|Basic\b)[^\s"'\ue000]{4,} | ://[^/\s:@$]*:[^/\s@$]+@
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY""",
    re.VERBOSE | re.IGNORECASE,
)


def looks_secret(value: str) -> bool:
    """Say whether a text holds a token, a key or a password by its shape; others are suspected of more."""
    return has_token(value) or _SHAPES.search(value) is not None


def is_harmless(value: Any) -> bool:
    """Say whether the value of a setting that holds secrets is none: nothing at all, or a reference."""
    text = str(value).strip()
    return (
        value is None or isinstance(value, bool) or not text or is_reference(text) or text.startswith("/run/secrets/")
    )


def refuse_secret(name: str, value: Any, where: str) -> None:
    """Raise SettingsError where the setting, or what is nested in it, is a secret."""
    for path, found in _leaves(name, value):
        last = path.rpartition(".")[2]
        if looks_secret(str(found)) or (names_secret(last) and not is_harmless(found)):
            raise secret_found(f"{where}{path}")


def refuse_secret_words(words: list[str], where: str) -> None:
    """The same for words of a command line: a flag and its value in one word or in two."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        flag, equals, attached = word.partition("=")
        if _SETTING.fullmatch(flag) and (flag.startswith("-") or equals):
            value = attached if equals else "" if after.startswith("-") else after
            refuse_secret(flag, value, f"{where}: ")
        if looks_secret(word):
            raise secret_found(f"a word of {where}")


def secret_found(what: str) -> SettingsError:
    remedy = "put the API key into a file on the node and set api_key_file; models are downloaded by the controller"
    return cannot_carry(f"{what} looks like a secret", "no secrets in recipes", remedy)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, str) and value[:1] in ("{", "["):
        with suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}", item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(name, item)
    else:
        yield name, value
