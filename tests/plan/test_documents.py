"""The exit code and the JSON document say how a run ended, whoever answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparkfleet.rollout import exit_codes
from tests.plan.harness import (
    FakeFleet,
    probe,
)

HOSTS = [f"spark-{number}" for number in range(1, 5)]
NO_GPU = probe(gpu={**probe()["gpu"], "devices": [], "error": "No devices were found"})


def test_a_lease_that_cannot_be_written_is_no_other_roll_out(fleet: FakeFleet) -> None:
    fleet.nodes["spark-2"]["lease"] = "sparknode lease: [Errno 28] No space left on device"
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_OLD, outcome.output
    assert outcome.activations() == []


def test_what_a_login_prints_breaks_nothing(fleet: FakeFleet) -> None:
    for name in HOSTS:
        fleet.nodes[name].update(greeting=["welcome", "", "{not json"], farewell=["bye"])
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == HOSTS


@pytest.mark.parametrize(
    ("hosts", "failing", "code"),
    [
        (HOSTS[:3], HOSTS[1:2], exit_codes.HALTED_MIXED),
        (HOSTS[:2], HOSTS[:2], exit_codes.HALTED_OLD),
        (HOSTS[:2], [], 0),
    ],
)
def test_a_retirement_that_fails_says_what_is_gone(
    fleet: FakeFleet, hosts: list[str], failing: list[str], code: int
) -> None:
    for name in failing:
        fleet.nodes[name]["retire"] = "sparknode retire: the drain hook failed"
    limits = [word for name in hosts for word in ("--limit", f"@fake/{name}")]
    outcome = fleet.run("-y", *limits, deploy="tasks/retire.py")
    assert outcome.code == code, outcome.output


@pytest.mark.parametrize("task", ["status", "history", "diff", "logs"])
@pytest.mark.parametrize("unreachable", [HOSTS, HOSTS[:1], []])
def test_a_look_prints_a_document_whoever_answers(fleet: FakeFleet, task: str, unreachable: list[str]) -> None:
    for name in unreachable:
        fleet.nodes[name]["unreachable"] = True
    with fleet.start("--json", deploy=f"tasks/{task}.py", split=True) as run:
        output, said = run.process.communicate(timeout=120)
    assert run.process.returncode == (exit_codes.UNREACHABLE if unreachable else 0), said
    assert isinstance(json.loads(output), dict)


def test_a_look_shows_the_table_of_a_fleet_that_is_gone(fleet: FakeFleet) -> None:
    for name in HOSTS:
        fleet.nodes[name]["unreachable"] = True
    outcome = fleet.run(deploy="tasks/status.py")
    assert outcome.code == exit_codes.UNREACHABLE, outcome.output
    assert outcome.output.count("no answer") == len(HOSTS)


def test_a_host_without_an_answer_is_no_success(fleet: FakeFleet) -> None:
    fleet.probes["spark-2"] = "Welcome to DGX OS"
    outcome = fleet.run(deploy="tasks/status.py")
    assert outcome.code == exit_codes.UNREACHABLE, outcome.output


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda fleet: fleet.fails("spark-1", "ready: never"), exit_codes.REVERTED),
        (lambda fleet: fleet.nodes["spark-1"].update(unreachable=True), exit_codes.UNREACHABLE),
        (lambda fleet: fleet.probes.update({"spark-1": NO_GPU}), exit_codes.REFUSED),
        (lambda fleet: fleet.data.update(image_tag="latest"), exit_codes.REFUSED),
        (lambda fleet: fleet.nodes["spark-1"].update(stage="the disk is full"), exit_codes.HALTED_OLD),
    ],
)
def test_json_prints_a_document_exactly_when_something_went_wrong(fleet: FakeFleet, spoil: object, code: int) -> None:
    assert callable(spoil)
    spoil(fleet)
    with fleet.start("-y", "--json", split=True) as run:
        output, said = run.process.communicate(timeout=120)
    assert run.process.returncode == code, said
    assert json.loads(output)["exit_code"] == code


def test_an_unprovisioned_host_does_not_drift(tmp_path: Path) -> None:
    fleet = FakeFleet(tmp_path, HOSTS[:1])
    fleet.probes["spark-1"]["fleet"]["serving"] = {"unit": "", "drift": ["no release is current here"]}
    outcome = fleet.run(deploy="tasks/status.py")
    assert "drift" not in outcome.output
    assert "unprovisioned" in outcome.output
