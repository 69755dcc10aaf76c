"""What follows from a wave, and how a node's journal is read."""

from __future__ import annotations

from typing import Any

import pytest

from sparkfleet.inventory.pace import Pace
from sparkfleet.rollout.compare import Row
from sparkfleet.rollout.verdict import Outcome, Progress, judge, outcome_of, under_way
from sparknode.state.status import NodeStatus, UnderWay

GOOD, BAD = Outcome("committed"), Outcome("reverted", "acceptance-short: 0.0 %")


def progress(outcomes: dict[str, Outcome], **fields: Any) -> Progress:
    return Progress(before={name: NodeStatus(verified=f"old-{name}") for name in outcomes}, outcomes=outcomes, **fields)


def worse(host: str) -> Row:
    return Row(host, "acceptance-short", 0.3, 0.6, None, 0.15, "worse")


def test_a_good_wave_goes_on() -> None:
    assert judge(progress({"a": GOOD}), ["a"], Pace()).stop is None


def test_the_first_failure_stops_and_leaves_the_others() -> None:
    verdict = judge(progress({"a": GOOD, "b": BAD}), ["b"], Pace())
    assert verdict.stop == "b reverted: acceptance-short: 0.0 %"
    assert verdict.take_back == ()


@pytest.mark.parametrize(("failed", "allowed", "stops"), [(1, 1, False), (2, 1, True), (2, 2, False)])
def test_failures_count_over_the_whole_roll_out(failed: int, allowed: int, stops: bool) -> None:
    outcomes = {f"h{number}": BAD for number in range(failed)} | {"z": GOOD}
    assert (judge(progress(outcomes), ["z"], Pace(max_failures=allowed)).stop is not None) is stops


@pytest.mark.parametrize("allowed", [0, 5])
def test_a_member_without_an_outcome_stops_whatever_may_fail(allowed: int) -> None:
    verdict = judge(progress({"a": GOOD}), ["a", "b"], Pace(max_failures=allowed))
    assert verdict.stop == "how it ended is not known: b"


def test_revert_all_takes_back_who_had_something_before() -> None:
    state = progress({"a": GOOD, "bare": GOOD, "c": BAD})
    state.before["bare"] = NodeStatus()
    assert judge(state, ["c"], Pace(on_failure="revert_all")).take_back == ("a",)


def test_a_worse_canary_goes_back_whatever_may_fail() -> None:
    state = progress({"a": GOOD}, comparison=[worse("a")])
    verdict = judge(state, ["a"], Pace(max_failures=5))
    assert verdict.take_back == ("a",)
    assert verdict.stop == "worse than the old release: a acceptance-short 0.3, before 0.6, 15% allowed"
    state.outcomes["b"] = GOOD
    assert judge(state, ["b"], Pace()).stop is None, "an earlier wave's comparison was judged then"


def test_a_stopped_run_takes_nobody_back() -> None:
    state = progress({"a": GOOD, "b": BAD})
    state.stop("interrupted")
    state.stop("something later")
    verdict = judge(state, ["b"], Pace(on_failure="revert_all"))
    assert (verdict.stop, verdict.take_back) == ("interrupted", ())


LAST = {"rollout": "r1", "release": "new", "state": "reverted", "error": "no", "figures": {}, "load_s": 3}


@pytest.mark.parametrize(
    ("fleet", "state"),
    [
        ({"last": LAST}, "reverted"),
        ({"last": {**LAST, "state": "committed"}}, "committed"),
        ({"last": LAST, "activation": {"release": "new"}}, None),
        ({"last": {**LAST, "rollout": "r0"}}, None),
        ({"last": {**LAST, "release": "old"}}, None),
        ({"last": {**LAST, "state": "a state of a later version"}}, None),
        ({"last": None}, None),
        ({}, None),
    ],
)
def test_an_outcome_is_this_run_s_and_this_release_s(fleet: dict[str, Any], state: str | None) -> None:
    found = outcome_of(NodeStatus.read(fleet), "r1", "new")
    assert (found.state if found else None) == state


def test_under_way_is_this_release_s() -> None:
    assert under_way(NodeStatus(activation=UnderWay("new", alive=True)), "new")
    assert not under_way(NodeStatus(activation=UnderWay("other")), "new")
    assert not under_way(NodeStatus(), "new")
