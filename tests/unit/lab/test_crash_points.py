"""The crash matrix' points: all of them, a part, or a fair sample."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.lab.crash.points import LINES, MOMENTS, VICTIMS, chosen, every_point, line_of


def test_every_line_meets_every_victim_at_every_moment() -> None:
    points = every_point()
    assert len(set(points)) == len(points) == sum(map(len, LINES.values())) * len(VICTIMS) * len(MOMENTS)
    assert chosen("all", 1) == points
    assert chosen("0:100", 1) + chosen("100:", 1) == points


def test_a_sample_is_the_seed_s_and_fair() -> None:
    assert chosen("10", 3) == chosen("10", 3) != chosen("10", 4)
    assert set(Counter(point.victim for point in chosen("10", 3)).values()) == {2}
    assert sorted(map(str, chosen("1000", 3))) == sorted(map(str, every_point()))


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
