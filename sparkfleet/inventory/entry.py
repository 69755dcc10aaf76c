"""A host as the inventory has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class HostEntry:
    """A host as the inventory has it."""

    name: str
    address: str
    groups: tuple[str, ...]
    data: Mapping[str, Any]
    # Who set each setting, in words; empty where nobody asks.
    origins: Mapping[str, str] = field(default_factory=dict)
