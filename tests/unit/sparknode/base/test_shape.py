"""What is read of a document is written as it stood there, since its hash is taken over its spelling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from sparknode.base.document import canonical
from sparknode.base.shape import ABSENT, Node, written


@dataclass(frozen=True)
class Part:
    seconds: float
    name: str | None
    words: tuple[str, ...]
    more: tuple[str, ...] | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Whole:
    into: Part = field(metadata={"key": "in"})
    parts: tuple[Part, ...]
    free: dict[str, Any]


@pytest.mark.parametrize(
    "part",
    [
        {"seconds": 30, "name": None, "words": []},
        {"seconds": 30.0, "name": "größe", "words": [""]},
        {"seconds": 0.5, "name": "x", "words": ["a", "b"], "more": ["c"]},
    ],
)
def test_what_is_read_is_written_as_it_was(part: dict[str, Any]) -> None:
    document = {"in": part, "parts": [part, part], "free": {"a": [1, 2.0, None], "b": {}}}

    assert canonical(written(Node(document, "it").build(Whole))) == canonical(document)
