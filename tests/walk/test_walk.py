"""Random walks over a fleet of the real node program: what must always hold, held after every turn."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from sparkfleet.inventory.pace import Pace
from tests.unit.sparknode.world import Engine
from tests.walk.fleet import DOCUMENTS, Fleet, Plan, wired
from tests.walk.walk import walk

SEEDS = int(os.environ.get("SPARKFLEET_WALKS", "150"))
FIRST = int(os.environ.get("SPARKFLEET_WALK_FROM", "0"))
PARTS = 3


@pytest.mark.parametrize("part", range(PARTS))
def test_walks(part: int, capsys: pytest.CaptureFixture[str]) -> None:
    """SPARKFLEET_WALKS=1000 walks them all; SPARKFLEET_WALK_FROM=SEED SPARKFLEET_WALKS=1 repeats one."""
    started, steps = time.monotonic(), Counter[str]()
    seeds = range(FIRST + part, FIRST + SEEDS, PARTS)
    for seed in seeds:
        steps.update(walk(seed))
    with capsys.disabled():
        done = ", ".join(f"{count} {name}" for name, count in sorted(steps.items()))
        print(f"\n{len(seeds)} walks in {time.monotonic() - started:.0f} s: {done}")


@pytest.mark.parametrize("point", [*range(1, 90, 8), "leased", "committed"])
def test_a_killed_worker_is_taken_over_without_an_operator(tmp_path: Path, point: int | str) -> None:
    """Ten minutes with systemd and the watch alone."""
    fleet = Fleet(tmp_path, 1)
    machine = fleet.machines["n1"]
    for document in DOCUMENTS:
        machine.behave(document["id"], Engine(), sound=True)
    with wired(fleet):
        fleet.settle(fleet.roll_out(Plan("first", DOCUMENTS[0], ["n1"], Pace(max_unavailable=1))))
        machine.strike_at, machine.strike = point, lambda: fleet.strike(machine, "worker killed")
        fleet.settle(fleet.roll_out(Plan("second", DOCUMENTS[2], ["n1"], Pace(max_unavailable=1))))
        assert machine.strikes == 1, "the worker was killed"
        for _ in range(10):
            fleet.hub.idle(60.0, lambda: None)
            fleet.settle(machine.sparknode("watch", "watch"))

    assert machine.linked("current") == machine.linked("verified") == machine.running
    assert machine.serves
