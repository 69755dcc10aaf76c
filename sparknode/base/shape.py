"""Reading foreign JSON key by key, so that a wrong document is refused with the key, what stands there and what should.

Keys that this version does not know are left alone: a newer controller may add some.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, get_args, get_origin, get_type_hints

from sparknode.errors import Refused


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=_Dataclass)
# Whole numbers that may be 0, and those that may be negative; where a class says int, they are at least 1.
Count = Annotated[int, "from 0"]
Whole = Annotated[int, "any"]
# What 64 bits hold: reckoning with more could fail.
_WHOLE, _NUMBER = 1 << 63, sys.float_info.max
# Metadata of a field whose key a document does not have where it has no value; others are null there.
ABSENT: dict[str, Any] = {"absent": True}


def parse(text: str, name: str) -> Node:
    """A JSON object from text."""
    try:
        return Node(json.loads(text), name)
    except ValueError as problem:
        raise Refused(f"{name}: this is not JSON ({problem}); send it again") from None


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "…"


class Node:
    """One JSON object and where it stands in its document.

    In a `complete` document only what has a default may be left out, and an empty text says as much as null.
    """

    def __init__(self, value: Any, where: str, complete: bool = False) -> None:
        if not isinstance(value, dict):
            raise Refused(f"{where}: found {_shown(value)}, expected an object")
        self.raw: dict[str, Any] = value
        self.where = where
        self.complete = complete

    def _wrong(self, key: str, expected: str) -> Refused:
        found = _shown(self.raw[key]) if key in self.raw else "nothing"
        return Refused(f"{self.where}.{key}: found {found}, expected {expected}")

    def text(self, key: str) -> str:
        value = self.raw.get(key)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, "a text that is not empty")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self.raw.get(key) is None else self.text(key)

    def number(self, key: str, least: float = 0.0) -> float:
        value = self.raw.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= _NUMBER:
            raise self._wrong(key, f"a number of at least {least:g}")
        # As it stands: what is read and written again keeps its spelling, and with that its hash.
        return value

    def whole(self, key: str, least: int = 0) -> int:
        value = self.raw.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < _WHOLE:
            raise self._wrong(key, f"a whole number of at least {least}")
        return value

    def counts(self, key: str) -> tuple[int, ...]:
        value = self.raw.get(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list of whole numbers")
        return tuple(Node({key: item}, self.where).whole(key) for item in value)

    def flag(self, key: str) -> bool:
        value = self.raw.get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.raw.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of texts")
        return tuple(value)

    def mapping(self, key: str) -> dict[str, str]:
        value = self.raw.get(key)
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise self._wrong(key, "an object whose values are texts")
        return dict(value)

    def node(self, key: str) -> Node:
        if key not in self.raw:
            raise self._wrong(key, "an object")
        return Node(self.raw[key], f"{self.where}.{key}", self.complete)

    def optional_node(self, key: str) -> Node | None:
        return None if self.raw.get(key) is None else self.node(key)

    def nodes(self, key: str) -> Iterator[Node]:
        value = self.raw.get(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list of objects")
        for position, item in enumerate(value):
            yield Node(item, f"{self.where}.{key}[{position}]", self.complete)

    def part(self, key: str) -> Node:
        """The object under a key, or an empty one where there is none."""
        return self.optional_node(key) or Node({}, f"{self.where}.{key}")

    def build(self, kind: type[T], **given: object) -> T:
        """A dataclass whose fields are keys of this object, read as they are annotated; `given` ones are not read.

        What has a default or may be None may be left out; a field that is a dataclass is an object of its own, and one
        whose key is no name in Python has it as metadata.
        """
        return kind(**{one.name: self._read(one, hint) for one, hint in _hints(kind) if one.name not in given}, **given)

    def _read(self, field: Field[Any], kind: Any) -> object:
        key, parts = _key(field), get_args(kind)
        if self.raw.get(key) is None or (self.complete and self.raw[key] == ""):
            if field.default is not MISSING:
                return field.default
            if type(None) in parts and (key in self.raw or not self.complete):
                return None
        if type(None) in parts:
            kind, parts = parts[0], get_args(parts[0])
        if isinstance(kind, type) and is_dataclass(kind):
            return self.node(key).build(kind)
        item = parts[-1] if get_origin(kind) is dict else parts[0] if parts else None
        if isinstance(item, type) and is_dataclass(item):
            if get_origin(kind) is dict:
                inner = self.node(key)
                return {name: inner.node(name).build(item) for name in inner.raw}
            return tuple(node.build(item) for node in self.nodes(key))
        return _READERS[kind](self, key)

    def schema(self, known: int) -> None:
        if self.raw.get("schema") != known:
            raise self._wrong("schema", f"{known}; install the sparknode that belongs to this controller")


_READERS: Mapping[object, Callable[[Node, str], object]] = {
    str: Node.text,
    bool: Node.flag,
    int: lambda node, key: node.whole(key, 1),
    Count: Node.whole,
    Whole: lambda node, key: node.whole(key, -_WHOLE),
    float: Node.number,
    tuple[str, ...]: Node.texts,
    tuple[Count, ...]: Node.counts,
    dict[str, str]: Node.mapping,
    dict[str, Any]: lambda node, key: node.node(key).raw,
}


@cache
def _hints(kind: type[_Dataclass]) -> tuple[tuple[Field[Any], Any], ...]:
    """The fields of a class with their types; kept, as a document may hold hundreds of one."""
    types = get_type_hints(kind, include_extras=True)
    return tuple((field, types[field.name]) for field in fields(kind))


def written(value: Any) -> Any:
    """A dataclass as the JSON object that `Node.build` reads it from; what is ABSENT there is left out."""
    if is_dataclass(value):
        told = ((field, getattr(value, field.name)) for field in fields(value))
        return {_key(one): written(item) for one, item in told if item is not None or not one.metadata.get("absent")}
    if isinstance(value, dict):
        return {key: written(item) for key, item in value.items()}
    return [written(item) for item in value] if isinstance(value, tuple) else value


def _key(one: Field[Any]) -> str:
    return str(one.metadata.get("key", one.name))
