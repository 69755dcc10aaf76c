"""The canary against the old release: what is judged, against what, and which way is worse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet.rollout.compare import HEADINGS, cells, comparable, compare
from sparknode.state.described import described
from tests.unit.sparkfleet.release.combos import compiled

MARGINS = {"max_acceptance_drop": 0.15, "max_tokens_per_second_drop": 0.25, "max_ttft_rise": 1.0}


def figures(**values: float | None) -> dict[str, Any]:
    return {name.replace("_", "-"): {"figure": value} for name, value in values.items()}


@pytest.mark.parametrize(
    ("now", "before", "controls", "verdict"),
    [
        ({"acceptance_short": 0.52}, {"acceptance_short": 0.60}, [], "ok"),
        ({"acceptance_short": 0.50}, {"acceptance_short": 0.60}, [], "worse"),
        ({"acceptance_short": 0.50}, {}, [0.60], "worse"),
        # The median of the others: one host that is off decides nothing.
        ({"acceptance_short": 0.50}, {}, [0.5, 0.5, 0.9], "ok"),
        # Worse than either is worse.
        ({"acceptance_short": 0.50}, {"acceptance_short": 0.5}, [0.9], "worse"),
        ({"mean_acceptance_length_long": 3.0}, {"mean_acceptance_length_long": 7.0}, [], "worse"),
        ({"tokens_per_second_short": 76}, {"tokens_per_second_short": 100}, [], "ok"),
        ({"tokens_per_second_short": 74}, {"tokens_per_second_short": 100}, [], "worse"),
        # The first token comes later: the other way round.
        ({"ttft": 0.3}, {"ttft": 0.1}, [], "worse"),
        ({"ttft": 0.05}, {"ttft": 0.1}, [], "ok"),
    ],
)
def test_verdicts(now: dict[str, float], before: dict[str, float], controls: list[float], verdict: str) -> None:
    others = [figures(acceptance_short=value) for value in controls]
    (row,) = compare("spark-1", figures(**now), figures(**before), others, MARGINS)
    assert row.verdict == verdict


def test_what_has_nothing_beside_it_is_left_out() -> None:
    now = figures(acceptance_short=0.5, acceptance_long=None, health=200.0)
    assert list(compare("spark-1", now, {}, [], MARGINS)) == []
    assert list(compare("spark-1", now, figures(acceptance_short=0.0, health=200.0), [], MARGINS)) == []


def test_without_a_margin_a_figure_is_shown_and_not_judged() -> None:
    (row,) = compare("spark-1", figures(acceptance_short=0.1), figures(acceptance_short=0.6), [], {})
    assert row.verdict == "not judged"
    assert cells([row]) == [("spark-1", "acceptance-short", "0.1", "0.6", "–", "–", "not judged")]
    assert len(cells([row])[0]) == len(HEADINGS)


@pytest.mark.parametrize(
    ("old", "same"),
    [
        ({}, True),
        ({"profile": "production"}, False),
        ({"model": "gemma4-31b-deckard-awq"}, False),
        (None, False),
    ],
)
def test_only_the_same_model_under_the_same_profile_shall_be_as_good(old: dict[str, Any] | None, same: bool) -> None:
    new = compiled().release
    assert comparable(None if old is None else replace(described(new), id="f" * 16, **old), new) is same


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 0.99))
def test_a_better_figure_is_never_worse(now: float, before: float, margin: float) -> None:
    rows = list(
        compare(
            "h", figures(acceptance_short=now), figures(acceptance_short=before), [], {"max_acceptance_drop": margin}
        )
    )
    assert rows[0].verdict == ("worse" if before - now > margin * before else "ok")
    if now >= before:
        assert rows[0].verdict == "ok"


def test_a_figure_that_was_measured_beside_other_requests_is_shown_and_compared_with_nothing() -> None:
    crowded = {"ttft": {"figure": 8.0, "verdict": "not-judged"}}
    (row,) = compare("spark-1", crowded, figures(ttft=0.1), [], MARGINS)
    assert (row.now, row.verdict) == (8.0, "not judged")
    assert list(compare("spark-1", figures(ttft=0.1), crowded, [crowded], MARGINS)) == []
