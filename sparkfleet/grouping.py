"""What is to be said of many hosts, once for those of which the same is said: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sparkfleet.text import some

# A figure that stands alone: no part of a name, a version, an address or a time.
_FIGURE = re.compile(r"(?<![\w.:/-])\d+(?:\.\d+)?(?![\w:/-]|\.\d)")


def grouped(said: Iterable[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """Return each text once, with the hosts it is said of; texts that differ in figures alone become one."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, text in said:
        groups.setdefault(_FIGURE.sub("#", text), []).append((name, text))
    return [
        (list(dict.fromkeys(name for name, _ in group)), merged([text for _, text in group]))
        for group in groups.values()
    ]


def merged(texts: Sequence[str]) -> str:
    """Return texts that differ in figures alone as one, each figure that differs as a range."""
    if len(set(texts)) == 1:
        return texts[0]
    columns = iter(zip(*(_FIGURE.findall(text) for text in texts), strict=True))
    return _FIGURE.sub(lambda _: _range(next(columns)), texts[0])


def _range(figures: Sequence[str]) -> str:
    ordered = sorted(set(figures), key=float)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]}–{ordered[-1]}"


def lines(said: Iterable[tuple[str, str]], hosts: int) -> list[str]:
    """Return a paragraph for each text, begun with its hosts: `all 4 hosts` where it is said of all."""
    return [f"{whom(names, hosts)}: {text}" for names, text in grouped(said)]


def whom(names: Sequence[str], hosts: int) -> str:
    everybody = "both hosts" if hosts == 2 else f"all {hosts} hosts"
    return everybody if len(names) == hosts > 1 else some(names)
