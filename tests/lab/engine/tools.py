"""Calling the tool that a request offers: the named one or the first, with arguments made from its schema."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_VALUES: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}


@dataclass(frozen=True)
class Call:
    """One call of a tool, in the shape of the OpenAI interface."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"chatcmpl-tool-{uuid.uuid4().hex[:16]}")

    def document(self) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}

    def deltas(self) -> Iterator[dict[str, Any]]:
        """The same in a stream: the name first, then the arguments bit by bit."""
        yield {"index": 0, "id": self.id, "type": "function", "function": {"name": self.name, "arguments": ""}}
        for at in range(0, len(self.arguments), 8):
            yield {"index": 0, "function": {"arguments": self.arguments[at : at + 8]}}


def call_of(request: dict[str, Any], *, broken: bool) -> Call | None:
    """The call that answers a request, or None where it offers no tool or forbids them."""
    choice = request.get("tool_choice", "auto")
    functions = [tool["function"] for tool in request.get("tools") or [] if isinstance(tool.get("function"), dict)]
    if choice == "none" or not functions:
        return None
    named = (choice.get("function") or {}).get("name") if isinstance(choice, dict) else None
    function = next((one for one in functions if named in (None, one.get("name"))), functions[0])
    arguments = json.dumps(_value(function.get("parameters") or {"type": "object"}))
    # A parser that loses its place hands on what it has.
    return Call(str(function.get("name")), arguments[: len(arguments) // 2] if broken else arguments)


def _value(schema: dict[str, Any]) -> Any:
    kind = schema.get("type")
    if schema.get("enum"):
        return schema["enum"][0]
    if kind == "object":
        return {name: _value(part) for name, part in (schema.get("properties") or {}).items()}
    return _VALUES.get(str(kind), "Lisbon")
