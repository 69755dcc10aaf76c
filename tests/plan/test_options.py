"""pyinfra's own options, questions and ways to name things cannot break what a run promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkfleet import ROOT
from sparkfleet.rollout import exit_codes
from tests.plan.harness import (
    FakeFleet,
    probe,
)

HOSTS = [f"spark-{number}" for number in range(1, 5)]
NO_GPU = probe(gpu={**probe()["gpu"], "devices": [], "error": "No devices were found"})


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--serial"], "--serial"),
        (["--no-wait"], "--no-wait"),
        (["--retry", "2"], "--retry"),
        (["--fail-percent", "50"], "--fail-percent"),
        (["--exclude", "spark-1"], "no host matches --exclude spark-1, did you mean '@fake/spark-1'?"),
        (["--exclude", "@fake/spark-9"], "no host matches --exclude"),
        (["--limit", "@fake/spark-1", "--limit", "@fake/spark-12"], "no host matches --limit @fake/spark-12"),
        (["--limit", "canary", "--exclude", "@fake/spark-1"], "no host is left"),
        (["--data", "_ignore_errors=true"], "_ignore_errors is set for"),
        (["--data", "_retries=3"], "_retries is set for"),
        (["--data", "_timeout=5"], "_timeout is set for"),
    ],
)
def test_options_that_break_a_promise_are_refused(fleet: FakeFleet, arguments: list[str], says: str) -> None:
    outcome = fleet.run("-y", *arguments)
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert says in outcome.output
    assert outcome.commands == []


@pytest.mark.parametrize("answers", ["\n\n\n\n\n\n", "x\n", ""])
def test_an_unfit_canary_stops_a_run_that_asks(fleet: FakeFleet, answers: str) -> None:
    fleet.probes["spark-1"] = NO_GPU
    outcome = fleet.run(answers=answers)
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert outcome.changes() == []
    assert outcome.output.count("gpu.visible") == 1, "each finding is printed once"


def test_a_host_that_fails_in_staging_stops_a_run_that_asks(fleet: FakeFleet) -> None:
    fleet.nodes["spark-1"]["stage"] = "sparknode stage: the disk is full"
    outcome = fleet.run(answers="\n" * 6)
    assert outcome.code == exit_codes.HALTED_OLD, outcome.output
    assert outcome.activations() == []


@pytest.mark.parametrize(("answers", "says"), [("no\n", "Unexpected user input"), ("", "standard input has ended")])
def test_a_no_is_no_success(fleet: FakeFleet, answers: str, says: str) -> None:
    outcome = fleet.run(answers=answers)
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert says in outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.changes() == []


def test_enter_is_a_yes(fleet: FakeFleet) -> None:
    outcome = fleet.run(answers="\n")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == HOSTS


@pytest.mark.parametrize(
    ("inventory", "says"),
    [
        ("inventory/prod", "did you mean inventory/prod.py?"),
        ("tests", "a folder"),
        ("tests.plan.harness.HOSTS", "not for host names or functions"),
    ],
)
def test_an_inventory_that_is_no_file_is_refused(fleet: FakeFleet, inventory: str, says: str) -> None:
    outcome = fleet.run("-y", inventory=Path(inventory))
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert says in outcome.output


def test_another_configuration_is_refused_in_words(fleet: FakeFleet) -> None:
    other = fleet.folder / "other.py"
    other.write_text("")
    outcome = fleet.run("-y", "--config", str(other))
    assert outcome.code == 1, outcome.output
    assert "config.py was not loaded" in outcome.output
    assert "leave --config out" in outcome.output
    assert "Traceback" not in outcome.output
    assert outcome.commands == []


def test_a_task_is_found_as_pyinfra_finds_it(fleet: FakeFleet) -> None:
    outcome = fleet.run("--chdir", ROOT.name, deploy=f"{ROOT.name}/tasks/status.py", cwd=ROOT.parent)
    assert outcome.code == 0, outcome.output
    assert "verified" in outcome.output
