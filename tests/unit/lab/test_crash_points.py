"""The crash matrix' points: all of them, a part, or a fair sample."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from typing import Any

import pytest

from sparknode.state import journal
from tests.lab.crash.points import LINES, MOMENTS, VICTIMS, chosen, drawn_seed, every_point, line_of
from tests.lab.crash.strikes import Watched, strike


def test_every_line_meets_every_victim_at_every_moment() -> None:
    points = every_point()
    assert len(set(points)) == len(points) == sum(map(len, LINES.values())) * len(VICTIMS) * len(MOMENTS)
    assert chosen("all", 1) == points
    assert chosen("0:100", 1) + chosen("100:", 1) == points


def test_a_sample_is_the_seed_s_and_fair() -> None:
    assert chosen("16", 3) == chosen("16", 3) != chosen("16", 4)
    assert set(Counter(point.victim for point in chosen("16", 3)).values()) == {2}
    assert sorted(map(str, chosen("1000", 3))) == sorted(map(str, every_point()))


def test_a_run_draws_another_seed_unless_it_is_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARKFLEET_CRASH_SEED", raising=False)
    drawn = []
    for run in ("a", "a", "b"):
        monkeypatch.setenv("PYTEST_XDIST_TESTRUNUID", run)
        drawn.append(drawn_seed())
    assert drawn[0] == drawn[1] != drawn[2], "all workers of a run draw the same points"
    monkeypatch.setenv("SPARKFLEET_CRASH_SEED", "7")
    assert drawn_seed() == 7


def test_every_state_of_an_activation_is_a_line_of_the_matrix() -> None:
    lines = {line.partition(" ")[0] for lines in LINES.values() for line in lines}
    assert lines == set(journal.STATES) - {"failed"}


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"state": "starting"}, "starting"),
        ({"state": "reverting", "error": "a gate"}, "reverting"),
        ({"state": "reverting", "note": "switching: the unit and `current`"}, "reverting switching"),
        ({"state": "reverting", "note": "x", "gate": {"name": "ready"}}, "reverting starting"),
        ({"state": "reverting", "note": "x", "gate": {"name": "identity"}}, "reverting proving"),
    ],
)
def test_what_a_record_is_called(record: dict[str, Any], line: str) -> None:
    assert line_of(record) == line


@pytest.mark.parametrize("order", [1, -1])
def test_a_victim_that_ended_by_itself_spares_no_other(monkeypatch: pytest.MonkeyPatch, order: int) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    living = subprocess.Popen(["sleep", "60"])
    found = [
        (ended.pid, "python3 /usr/local/bin/sparknode work"),
        (living.pid, "python3 /usr/local/bin/sparknode work"),
    ]
    monkeypatch.setattr(Watched, "processes", lambda *_: iter(found[::order]))

    assert strike(Watched("spark-1"), "worker asked")

    assert living.wait(30) == -signal.SIGTERM
