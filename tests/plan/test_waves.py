"""Waves end at the first that is not known to be good, forward and on the way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkfleet.rollout import exit_codes
from tests.plan.harness import (
    CURRENT_TAG,
    PREFIX_TAG,
    FakeFleet,
    Outcome,
    release_of,
    serving,
)

HOSTS = [f"spark-{number}" for number in range(1, 5)]
OLD, NEW = release_of(PREFIX_TAG), release_of(CURRENT_TAG)


def most_out(outcome: Outcome) -> int:
    """The most activations that were under way at the same time."""
    moments = sorted([(began, 1) for _, _, began, _ in outcome.spans] + [(ended, -1) for *_, ended in outcome.spans])
    now = most = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


@pytest.mark.parametrize("on_failure", ["halt", "revert_all"])
def test_an_error_that_nobody_foresaw_is_a_failed_host(fleet: FakeFleet, on_failure: str) -> None:
    fleet.nodes["spark-1"]["activate"] = [{"raises": "unexpected"}]
    outcome = fleet.run("-y", "--data", f"on_failure={on_failure}")
    assert outcome.code == exit_codes.HOST_DOWN, outcome.output
    assert outcome.activations() == ["spark-1"]
    assert "no answer: the tool failed here: TypeError" in outcome.output
    assert sorted(set(outcome.named("lease take"))) == sorted(set(outcome.named("lease release")))


def test_a_canary_that_is_gone_stops_the_run(fleet: FakeFleet) -> None:
    fleet.data.update(max_unavailable=3)
    fleet.nodes["spark-1"]["silent"] = True
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HOST_DOWN, outcome.output
    assert outcome.activations() == ["spark-1"]
    assert "it committed the release, and has not answered since" in outcome.output


def test_going_back_keeps_the_promises_of_going_forward(tmp_path: Path) -> None:
    hosts = [f"spark-{number}" for number in range(1, 9)]
    fleet = FakeFleet(tmp_path, hosts)
    fleet.probes = {name: serving(OLD) for name in hosts}
    fleet.nodes = {name: {"activate": [{"state": "committed", "delay_s": 0.05}] * 2} for name in hosts}
    fleet.nodes["spark-8"] = {"activate": [{"state": "reverted", "error": "ready: never"}]}
    fleet.data.update(batch_size=[2], max_unavailable=2, min_serving=6, on_failure="revert_all")
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.REVERTED, outcome.output
    assert most_out(outcome) <= 2
    back = [host for host, release, *_ in outcome.spans if release == OLD.id]
    assert sorted(back) == hosts[:7]
    waves = [hosts[0:1], hosts[1:3], hosts[3:5], hosts[5:7]]
    places = [next(number for number, wave in enumerate(waves) if host in wave) for host in back]
    assert places == sorted(places, reverse=True), "newest wave first"
    assert fleet.report()["outcome"] == "taken back"


def test_nobody_goes_back_where_that_would_leave_too_few(fleet: FakeFleet) -> None:
    fleet.data.update(on_failure="revert_all")
    fleet.fails("spark-3", "the way back failed too", state="failed")
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HOST_DOWN, outcome.output
    assert outcome.activations() == HOSTS[:3]
    assert "2 hosts keep the new release: @fake/spark-3 does not serve" in outcome.output


def test_a_way_back_that_fails_is_the_last(fleet: FakeFleet) -> None:
    fleet.data.update(on_failure="revert_all", max_unavailable=1)
    fleet.fails("spark-4", "ready: never")
    fleet.nodes["spark-3"]["activate"] = [{"state": "committed"}, {"state": "reverted", "error": "ready: never"}]
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_MIXED, outcome.output
    assert outcome.activations() == [*HOSTS, "spark-3"]


def test_unreachable_hosts_end_a_run_and_are_named(fleet: FakeFleet) -> None:
    fleet.nodes["spark-4"]["unreachable"] = True
    outcome = fleet.run(answers="\n\n\n")
    assert outcome.code == exit_codes.UNREACHABLE, outcome.output
    assert "1 of 4 hosts cannot be reached: @fake/spark-4; nothing was changed" in outcome.output
    assert "--exclude @fake/spark-4" in outcome.output
    assert outcome.commands == []
    again = fleet.run("-y", "--exclude", "@fake/spark-4")
    assert again.code == 0, again.output
    assert again.activations() == HOSTS[:3]


def test_a_limit_smaller_than_min_serving_is_told_so(fleet: FakeFleet) -> None:
    fleet.data["min_serving"] = 3
    outcome = fleet.run("-y", "--limit", "@fake/spark-1")
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert "the 3 hosts that --limit or --exclude left out are not counted" in outcome.output
