"""One activation on a pretended node, and what it wrote."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sparknode import journal
from sparknode.activate import Order, work

from .builders import release
from .world import World

OLD, NEW = release("old"), release("new")


@dataclass
class Run:
    code: int
    lines: list[str]
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def states(self) -> list[str]:
        """The states in order, each run of one state once."""
        found = [record["state"] for record in self.records]
        return [state for at, state in enumerate(found) if at == 0 or found[at - 1] != state]

    @property
    def last(self) -> dict[str, Any]:
        return self.records[-1]


def activate(world: World, document: dict[str, Any] = NEW, **more: Any) -> Run:
    lines: list[str] = []
    before = len(journal.read(world.paths))
    order = Order(document["id"], "rollout-1", "ops@desk", **more)
    code = work(world.host, order, f"activation-{before}", lines.append)
    return Run(code, lines, journal.read(world.paths)[before:])
