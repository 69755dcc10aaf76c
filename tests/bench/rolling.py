"""What the controller adds to a rollout: its wall time beside what the nodes' own journals say that they did."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparknode.state.journal import seconds_of
from tests.bench.snapshot import INVENTORY, PYINFRA, ask, run

OTHER_TAG = "2026-06-04-pr44389"
JOURNAL = "/var/lib/sparkfleet/journal.jsonl"


@dataclass(frozen=True)
class Rolled:
    """Seconds of the whole command, and of each wave from its first drain to its last commit."""

    wall: float
    waves: list[float]

    @property
    def ratio(self) -> float:
        return self.wall / sum(self.waves)

    @property
    def added(self) -> float:
        """Seconds that the controller adds to a wave."""
        return (self.wall - sum(self.waves)) / len(self.waves)


def roll(state: dict[str, Any], *data: str) -> Rolled:
    """Stage apart, so that pull and weights are not counted, then roll; and read the journals."""
    settings = [word for pair in data for word in ("--data", pair)]
    run(sys.executable, "-m", "sparkfleet", "lock", "--inventory", INVENTORY, *settings)
    run(PYINFRA, INVENTORY, "tasks/stage.py", "-y", *settings)
    wall = run(PYINFRA, INVENTORY, "deploy.py", "-y", *settings)
    return Rolled(wall, waves([ask(state, ("cat", JOURNAL), host).stdout for host in range(len(state["hosts"]))]))


def waves(journals: Sequence[str]) -> list[float]:
    """Return the lengths of the newest activations, where those that overlap are one wave."""
    spans = []
    for text in journals:
        rows = [json.loads(line) for line in text.splitlines()]
        rows = [row for row in rows if row["activation"] == rows[-1]["activation"]]
        times = {row["state"]: seconds_of(row["t"]) or 0.0 for row in reversed(rows)}
        spans.append((times["draining"], times["committed"]))
    found: list[tuple[float, float]] = []
    for began, ended in sorted(spans):
        if found and began < found[-1][1]:
            found[-1] = (found[-1][0], max(ended, found[-1][1]))
        else:
            found.append((began, ended))
    return [ended - began for began, ended in found]
