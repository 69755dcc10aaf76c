"""Reading dataclasses out of JSON: what each kind of field takes, and how what it does not take is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from sparknode.base.document import canonical
from sparknode.base.shape import ABSENT, Count, Node, Whole, written
from sparknode.errors import Refused


@dataclass(frozen=True)
class Part:
    name: str | None
    size: Count = 1


@dataclass(frozen=True)
class Sample:
    least: int
    count: Count
    whole: Whole | None
    share: float
    counts: tuple[Count, ...]
    parts: tuple[Part, ...]
    by_name: dict[str, Part]
    told: str | None
    default: str = "as ever"


GOOD: dict[str, Any] = {
    "least": 1,
    "count": 0,
    "whole": -9,
    "share": 0,
    "counts": [0, 1000],
    "parts": [{"name": "a", "size": 0}, {"name": None}],
    "by_name": {"x": {"name": "b", "size": 3}},
    "told": None,
}


def read(document: dict[str, Any], complete: bool = True) -> Sample:
    return Node(document, "sample", complete).build(Sample)


def test_what_was_written_is_read_again() -> None:
    parts = (Part("a", 0), Part(None, 1))
    expected = Sample(1, 0, -9, 0.0, (0, 1000), parts, {"x": Part("b", 3)}, None)
    assert read(GOOD) == expected
    assert read(written(expected)) == expected


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"least": 0}, "sample.least: found 0, expected a whole number of at least 1"),
        ({"count": -1}, "sample.count: found -1, expected a whole number of at least 0"),
        ({"count": True}, "sample.count: found true"),
        ({"count": 1 << 63}, "sample.count: found 9223372036854775808"),
        ({"whole": -(1 << 63) - 1}, "sample.whole: found -9223372036854775809"),
        ({"whole": 1.5}, "sample.whole: found 1.5"),
        ({"share": 10**400}, "sample.share: found 1000"),
        ({"share": float("nan")}, "sample.share: found NaN, expected a number of at least 0"),
        ({"share": float("inf")}, "sample.share: found Infinity"),
        ({"counts": [1, -1]}, "sample.counts: found -1"),
        ({"counts": {}}, "sample.counts: found {}, expected a list of whole numbers"),
        ({"parts": [{"name": "a"}, {"name": 7}]}, r"sample.parts\[1\].name: found 7"),
        ({"parts": [{}]}, r"sample.parts\[0\].name: found nothing"),
        ({"by_name": {"x": None}}, "sample.by_name.x: found null, expected an object"),
        ({"told": 5}, "sample.told: found 5"),
        ({"count": None}, "sample.count: found null"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why):
        read({**GOOD, **changes})


@pytest.mark.parametrize("key", GOOD)
def test_a_complete_document_has_every_key_without_a_default(key: str) -> None:
    document = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(Refused, match=f"sample.{key}: found nothing"):
        read(document)
    if key in ("told", "whole"):
        assert getattr(read(document, complete=False), key) is None


def test_an_empty_text_says_as_much_as_null_in_a_complete_document() -> None:
    empty = {**GOOD, "told": "", "default": ""}
    assert (read(empty).told, read(empty).default) == (None, "as ever")
    with pytest.raises(Refused, match=r'sample\.told: found "", expected a text that is not empty'):
        read(empty, complete=False)


@dataclass(frozen=True)
class Spelled:
    seconds: float
    name: str | None
    words: tuple[str, ...]
    more: tuple[str, ...] | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Document:
    into: Spelled = field(metadata={"key": "in"})
    parts: tuple[Spelled, ...]
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

    assert canonical(written(Node(document, "it").build(Document))) == canonical(document)
