"""How one release differs from another, in words. Pure; both as a node describes them."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from sparkfleet.catalog.contract import is_option
from sparknode.base.shape import written
from sparknode.state.described import Described

ABSENT = "unset"
_NESTED = ("memory", "timing", "gates", "watch", "rotation", "api_key_file", "gpu")
_ELSE = "the serving unit's own text, such as `repairs` with drop_caches, or the format of the release"
_WORDS = {"image_tag": "image", "drafter_backend": "drafter backend", "prefix_caching": "prefix caching"}
_CHOICES = ("model", "profile", *_WORDS)
# Flags that say again what one of these words says.
_FLAGS_OF = {
    "drafter_backend": ("--speculative-config attention_backend",),
    "prefix_caching": ("--enable-prefix-caching", "--no-enable-prefix-caching"),
}


def differences(old: Described | None, new: Described) -> list[str]:
    """Return a line for each thing that changes; a host that had no release gets the new one's choices."""
    if not old:
        return [f"{_WORDS.get(key, key)}: {_said(getattr(new, key))}" for key in _CHOICES]
    told = {flag for key, flags in _FLAGS_OF.items() if getattr(old, key) != getattr(new, key) for flag in flags}
    lines = [
        *(_line(_WORDS.get(key, key), getattr(old, key), getattr(new, key)) for key in _CHOICES),
        _line("image digest", _short(old.digest), _short(new.digest)),
        *_changed(_shortened(old.commits), _shortened(new.commits), "weights of "),
        *_changed(_without(told, old.args), _without(told, new.args), ""),
        *_changed(old.env or {}, new.env or {}, "variable "),
        *(line for key in _NESTED for line in _nested(key, written(getattr(old, key)), written(getattr(new, key)))),
    ]
    found = list(dict.fromkeys(line for line in lines if line))
    # The id is taken over everything, and another one means that the engine is started again.
    return found or ([_ELSE] if old.id != new.id else [])


def _line(name: str, old: object, new: object) -> str:
    return "" if old == new else f"{name}: {_said(old)} → {_said(new)}"


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        yield _line(f"{prefix}{key}", old.get(key), new.get(key))


def _without(told: Container[str], args: Sequence[str] | None) -> dict[str, str]:
    return {flag: value for flag, value in _flags(args or ()).items() if flag not in told}


def _nested(name: str, old: object, new: object) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            yield from _nested(f"{name}.{key}", old.get(key), new.get(key))
    else:
        yield _line(name, "set" if isinstance(old, Mapping) else old, "set" if isinstance(new, Mapping) else new)


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ABSENT if value is None else str(value)


def _short(digest: str | None) -> str | None:
    return digest.removeprefix("sha256:")[:12] if digest else None


def _shortened(commits: Mapping[str, str] | None) -> dict[str, str]:
    return {repo: commit[:12] for repo, commit in (commits or {}).items()}


def _flags(args: Sequence[str]) -> dict[str, str]:
    """Return each flag with its value; the keys of a JSON value stand for themselves."""
    found: dict[str, str] = {}
    flag = ""
    for word in args:
        if is_option(word):
            flag = word
            found[flag] = "set"
        elif flag and word.startswith("{"):
            del found[flag]
            found.update({f"{flag} {key}": _said(value) for key, value in _parsed(word).items()})
        elif flag:
            found[flag] = word if found[flag] == "set" else f"{found[flag]} {word}"
    return found


def _parsed(word: str) -> Mapping[str, Any]:
    try:
        value = json.loads(word)
    except ValueError:
        return {"": word}
    return value if isinstance(value, dict) else {"": word}
