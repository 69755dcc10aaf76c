"""A rollout on fake hosts: leases, lost connections, Ctrl-C, the canary's comparison, and what the knobs do."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.rollout import exit_codes
from tests.plan.harness import CURRENT_TAG, PREFIX_TAG, FakeFleet, Outcome, probe, release_of, serving

HOSTS = [f"spark-{number}" for number in range(1, 5)]
GOOD = {"acceptance-short": 0.6, "tokens-per-second-short": 120.0}
BACK = ("--data", f"image_tag={PREFIX_TAG}")


@pytest.fixture
def fleet(tmp_path: Path) -> FakeFleet:
    """Four hosts that serve the older release, about to take the current one."""
    found = FakeFleet(tmp_path, HOSTS)
    found.probes = {name: serving(release_of(PREFIX_TAG), GOOD) for name in HOSTS}
    return found


def ids() -> tuple[str, str]:
    return release_of(PREFIX_TAG).id, release_of(CURRENT_TAG).id


def leases(outcome: Outcome) -> tuple[list[str], list[str]]:
    """The hosts whose lease was taken, and those that gave it back."""
    return sorted(outcome.named("lease take")), sorted(outcome.named("lease release"))


def test_every_host_that_changes_is_leased_before_the_first_one_does(fleet: FakeFleet) -> None:
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    commands = [command for _, command in outcome.commands]
    first = next(number for number, command in enumerate(commands) if "activate" in command)
    assert sum("lease take" in command for command in commands[:first]) == len(HOSTS)
    assert all("--token 7" in command for command in commands if "activate" in command)
    assert leases(outcome) == (HOSTS, HOSTS)
    assert fleet.report()["outcome"] == "done"


def test_only_what_changes_is_leased(fleet: FakeFleet) -> None:
    for name in HOSTS[:3]:
        fleet.probes[name] = serving(release_of(CURRENT_TAG))
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert leases(outcome) == (["spark-4"], ["spark-4"])
    assert "Wave 1 of 1: @fake/spark-4" in outcome.output


def test_nothing_to_do_leaves_no_report(fleet: FakeFleet) -> None:
    outcome = fleet.run("-y", *BACK)
    assert outcome.code == 0, outcome.output
    assert outcome.changes() == []
    assert not (fleet.folder / "runs").exists()


def test_a_second_operator_is_refused_before_any_host_changes(fleet: FakeFleet) -> None:
    said = "rollout abc of ann@desk works on this host since 10:00 (from 10.0.0.9, until 10:01); wait for it"
    fleet.nodes["spark-3"]["lease"] = said
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.LEASE_HELD, outcome.output
    assert said in outcome.output
    assert outcome.activations() == []
    assert leases(outcome)[1] == ["spark-1", "spark-2", "spark-4"]
    assert fleet.report()["outcome"] == "stopped"


def test_a_lost_lease_stops_before_the_next_wave(fleet: FakeFleet) -> None:
    fleet.data["lease_ttl_s"] = 15
    fleet.nodes["spark-4"]["renew"] = "lease 7 of rollout x is not valid any more"
    fleet.nodes["spark-1"]["activate"] = [{"state": "committed", "delay_s": 7}]
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_MIXED, outcome.output
    assert outcome.activations() == ["spark-1"]
    assert sorted(set(outcome.named("lease renew"))) == HOSTS
    assert "spark-4: the lease was lost" in fleet.report()["reason"]


def test_a_lost_connection_is_attached_to_and_the_run_goes_on(fleet: FakeFleet) -> None:
    fleet.nodes["spark-2"]["activate"] = [{"lost": True}]
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == ["spark-1", "spark-2", "spark-2", "spark-3", "spark-4"]
    first, second = (command for name, command in outcome.commands if name == "spark-2" and "activate" in command)
    assert first == second
    assert "the connection was lost" in outcome.output


def test_what_ended_while_nobody_listened_is_not_begun_again(fleet: FakeFleet) -> None:
    fleet.nodes["spark-2"]["activate"] = [{"lost": True, "state": "reverted", "error": "acceptance-short: 0.0 %"}]
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_MIXED, outcome.output
    assert outcome.activations() == ["spark-1", "spark-2"]
    assert "spark-2: reverted: acceptance-short: 0.0 %" in outcome.output


def test_a_connection_that_never_holds_is_given_up(fleet: FakeFleet) -> None:
    fleet.nodes["spark-1"]["activate"] = [{"lost": True}] * 9
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HOST_DOWN, outcome.output
    assert set(outcome.activations()) == {"spark-1"}
    assert "no answer: the connection was lost" in outcome.output


def test_a_refusal_of_the_node_is_said_as_it_is(fleet: FakeFleet) -> None:
    fleet.nodes["spark-1"]["activate"] = [{"refused": "sparknode activate: release x is not staged here"}]
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_OLD, outcome.output
    assert "spark-1: refused: sparknode activate: release x is not staged here" in outcome.output


def test_ctrl_c_once_lets_the_wave_finish(fleet: FakeFleet) -> None:
    fleet.nodes["spark-1"]["activate"] = [{"state": "committed", "delay_s": 3}]
    with fleet.start("-y") as run:
        run.wait_for_command("activate")
        run.process.send_signal(signal.SIGINT)
        outcome = run.outcome()
    assert outcome.code == 130, outcome.output
    assert outcome.activations() == ["spark-1"]
    assert leases(outcome)[1] == HOSTS
    report = fleet.report()
    assert report["outcome"] == "interrupted"
    assert report["hosts"]["@fake/spark-1"]["ending"] == "committed"
    assert report["hosts"]["@fake/spark-2"]["ending"] == "not touched"


def test_ctrl_c_ends_a_pause(fleet: FakeFleet) -> None:
    fleet.data["pause_between_waves_s"] = 600
    with fleet.start("-y") as run:
        run.wait_for_command("sparknode status")
        run.process.send_signal(signal.SIGINT)
        run.process.communicate(timeout=30)
    assert run.process.returncode == 130
    assert fleet.report()["outcome"] == "interrupted"


def test_ctrl_c_twice_leaves_at_once(fleet: FakeFleet) -> None:
    fleet.nodes["spark-1"]["activate"] = [{"state": "committed", "delay_s": 60}]
    with fleet.start("-y") as run:
        run.wait_for_command("activate")
        run.process.send_signal(signal.SIGINT)
        assert run.process.stdout is not None
        while "interrupted:" not in run.process.stdout.readline():
            pass
        run.process.send_signal(signal.SIGINT)
        run.process.communicate(timeout=10)
    assert run.process.returncode == 130
    assert fleet.report()["outcome"] == "interrupted"


def canary(fleet: FakeFleet, **figures: float) -> None:
    named = {name.replace("_", "-"): figure for name, figure in figures.items()}
    fleet.nodes["spark-1"]["activate"] = [{"state": "committed", "figures": {**GOOD, **named}}]


def test_a_canary_that_is_worse_goes_back_and_the_run_stops(fleet: FakeFleet) -> None:
    old, new = ids()
    canary(fleet, tokens_per_second_short=60.0)
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.REVERTED, outcome.output
    calls = [command.split()[2:] for _, command in outcome.commands if "activate" in command]
    assert [call[0] for call in calls] == [new, old]
    assert calls[0][-2:] == calls[1][-2:] == ["--token", "7"]
    assert outcome.activations() == ["spark-1", "spark-1"]
    report = fleet.report()
    assert report["outcome"] == "taken back"
    assert report["hosts"]["@fake/spark-1"]["verified"] == old
    rows = {row["figure"]: row for row in report["comparison"]}
    assert rows["tokens-per-second-short"]["verdict"] == "worse"
    assert rows["tokens-per-second-short"]["control"] == 120.0
    assert rows["acceptance-short"]["verdict"] == "ok"
    assert "tokens-per-second-short  60   120     120     25 %     worse" in outcome.output


def test_a_canary_within_the_margins_lets_the_run_go_on(fleet: FakeFleet) -> None:
    canary(fleet, tokens_per_second_short=100.0, acceptance_short=0.55)
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert {row["host"] for row in fleet.report()["comparison"]} == {"@fake/spark-1"}


def test_a_worse_canary_may_be_let_through(fleet: FakeFleet) -> None:
    canary(fleet, tokens_per_second_short=60.0)
    outcome = fleet.run("-y", "--data", "judge_canary=false")
    assert outcome.code == 0, outcome.output
    assert {row["verdict"] for row in fleet.report()["comparison"]} == {"not judged"}


def test_the_catalogue_s_way_back_is_not_judged(fleet: FakeFleet) -> None:
    fleet.probes = {name: serving(release_of(CURRENT_TAG), GOOD) for name in HOSTS}
    canary(fleet, tokens_per_second_short=60.0)
    outcome = fleet.run("-y", *BACK)
    assert outcome.code == 0, outcome.output
    assert {row["verdict"] for row in fleet.report()["comparison"]} == {"not judged"}


def test_revert_all_takes_every_host_of_the_run_back(fleet: FakeFleet) -> None:
    old, new = ids()
    fleet.data["on_failure"] = "revert_all"
    fleet.fails("spark-3", "ready: never")
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.REVERTED, outcome.output
    tried = [(name, command.split()[2]) for name, command in outcome.commands if "activate" in command]
    assert tried[:3] == [("spark-1", new), ("spark-2", new), ("spark-3", new)]
    assert sorted(tried[3:]) == [("spark-1", old), ("spark-2", old)]
    report = fleet.report()
    assert report["outcome"] == "taken back"
    assert {host["verified"] for host in report["hosts"].values()} == {old}
    assert leases(outcome)[1] == HOSTS


def test_failures_within_the_budget_do_not_stop_but_are_no_success(fleet: FakeFleet) -> None:
    fleet.data["max_failures"] = 1
    fleet.fails("spark-2", "ready: never")
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_MIXED, outcome.output
    assert outcome.activations() == HOSTS
    assert fleet.report()["outcome"] == "incomplete"


def test_the_budget_counts_over_all_waves(fleet: FakeFleet) -> None:
    fleet.data["max_failures"] = 1
    fleet.fails("spark-1", "ready: never")
    fleet.fails("spark-3", "ready: never")
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_MIXED, outcome.output
    assert outcome.activations() == HOSTS[:3]
    assert "max_failures is 1" in fleet.report()["reason"]


def test_a_failed_host_that_serves_no_more_counts_as_out(fleet: FakeFleet) -> None:
    fleet.data["max_failures"] = 3
    fleet.fails("spark-1", "the way back failed too", state="failed")
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HOST_DOWN, outcome.output
    assert outcome.activations() == ["spark-1"]
    assert "max_unavailable is 1" in fleet.report()["reason"]


@pytest.mark.parametrize("changes", [{"min_serving": 4}, {"min_serving": "80%"}])
def test_too_few_serving_hosts_refuse_the_start(fleet: FakeFleet, changes: dict[str, Any]) -> None:
    fleet.data.update(changes)
    outcome = fleet.run("-y")
    assert outcome.code == 2, outcome.output
    assert "refused:" in outcome.output
    assert "3 of 4 hosts would serve while @fake/spark-1 changes, and min_serving is 4" in outcome.output
    assert outcome.changes() == []


def test_a_host_that_falls_silent_on_the_way_stops_the_run(fleet: FakeFleet) -> None:
    fleet.data["min_serving"] = 3
    fleet.nodes["spark-4"]["silent"] = True
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_MIXED, outcome.output
    assert outcome.activations() == ["spark-1"]
    assert "2 of 4 hosts would serve while @fake/spark-2 changes" in fleet.report()["reason"]


def test_hosts_that_are_down_go_first(fleet: FakeFleet) -> None:
    fleet.probes["spark-3"] = probe()
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == ["spark-3", "spark-1", "spark-2", "spark-4"]


def test_a_ramp_widens_the_waves(fleet: FakeFleet) -> None:
    fleet.data.update(batch_size=[1, "75%"], max_unavailable="75%")
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert "Wave 2 of 2: @fake/spark-2, @fake/spark-3, @fake/spark-4" in outcome.output


def test_a_release_that_failed_here_before_is_refused_until_it_is_named(fleet: FakeFleet) -> None:
    _, new = ids()
    failed = {
        "gate": "acceptance-short",
        "error": "acceptance-short: 0.0 %, expected at least 30.0 %",
        "t": "2026-11-22T10:00:00Z",
    }
    fleet.probes["spark-2"]["fleet"]["failed_releases"] = {new: failed}
    outcome = fleet.run("-y")
    assert outcome.code == 2, outcome.output
    assert f"spark-2: release {new} failed here at 2026-11-22T10:00:00Z: acceptance-short: 0.0 %" in outcome.output
    assert outcome.changes() == []

    fleet.data["retry_release"] = new
    again = fleet.run("-y")
    assert again.code == 0, again.output
    assert all(f"--retry-release {new}" in command for _, command in again.commands if "activate" in command)


@pytest.mark.parametrize(
    ("arguments", "data", "says"),
    [
        (["--serial"], {}, "--serial"),
        ([], {"batch_size": 2}, "batch_size is (1, '10%', '25%') on @fake/spark-1 and (2,) on @fake/spark-2"),
        (["--data", "on_failure=stop"], {}, "on_failure is 'stop'"),
        (["--data", "batch_size=0"], {}, "number of hosts from 1 up"),
    ],
)
def test_a_pace_that_cannot_be_is_refused_before_any_connection(
    fleet: FakeFleet, arguments: list[str], data: dict[str, Any], says: str
) -> None:
    fleet.host_data["spark-2"] = data
    outcome = fleet.run("-y", *arguments)
    assert outcome.code == 2, outcome.output
    assert says in outcome.output
    assert outcome.commands == []


def test_a_report_that_cannot_be_written_stops_nothing(fleet: FakeFleet) -> None:
    (fleet.folder / "file").write_text("")
    fleet.data["runs_dir"] = str(fleet.folder / "file" / "runs")
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert "the report cannot be written" in outcome.output
