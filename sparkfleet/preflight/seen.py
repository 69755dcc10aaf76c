"""What is known of a host: read here, at the border, and typed from here on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparknode.errors import Refused
from sparknode.facts.facts import Facts
from sparknode.state.status import NodeStatus


@dataclass
class Seen:
    """A host's facts as they were read, or why there are none; and how it stands, which a run reads again."""

    facts: Facts | None = None
    error: str = "it gave no answer"
    # When, by the controller's clock.
    read_at: float | None = None
    status: NodeStatus = field(default_factory=NodeStatus)


def read(line: str, read_at: float | None = None) -> Seen:
    """Read what a probe printed; anything else becomes an error that is a finding."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return of_document(found, read_at)
    return Seen(error=f"the node's probe answered {line[:120]!r}")


def of_document(document: Mapping[str, Any], read_at: float | None = None) -> Seen:
    """Read a probe's document; one of another shape is no answer."""
    try:
        facts = Facts.read(document)
    except (Refused, RecursionError) as problem:
        return Seen(error=f"the node's probe cannot be read: {problem}")
    return Seen(facts, "", read_at, facts.fleet)
