"""One activation on a pretended node, and what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sparknode.activate import follow
from sparknode.activate.worker import work
from sparknode.base.process import Completed
from sparknode.errors import Stopped
from sparknode.state import journal
from sparknode.state.orders import Order
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import World

OLD, NEW = release("old"), release("new")


@dataclass
class Run:
    code: int
    lines: list[str]
    records: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def states(self) -> list[str]:
        """The states in order, each run of one state once."""
        found = [record["state"] for record in self.records]
        return [state for at, state in enumerate(found) if at == 0 or found[at - 1] != state]

    @property
    def last(self) -> dict[str, Any]:
        return self.records[-1]


def activate(world: World, document: dict[str, Any] = NEW, rollout: str = "rollout-1", **more: Any) -> Run:
    """What an operator's session does, with a unit that works to its end as soon as it is started."""
    lines: list[str] = []
    said: list[str] = []
    before = len(journal.read(world.paths))

    def start() -> Completed:
        work_once(world, said)
        return Completed(("systemctl", "start"), 0)

    world.on_work = start
    code = follow.activate(world.host, Order(document["id"], rollout, "ops@desk", **more), lines.append)
    return Run(code, lines, journal.read(world.paths)[before:], said)


def work_once(world: World, said: list[str] | None = None, ready: Callable[[], None] = lambda: None) -> Completed:
    """One start of the activation's unit, and what it says."""
    try:
        return Completed(("work",), work(world.host, (said if said is not None else []).append, ready))
    except Stopped as problem:
        return Completed(("work",), problem.code, "", str(problem))
