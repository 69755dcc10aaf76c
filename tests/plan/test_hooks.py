"""The operator's own programs around a rollout: what they are told, and what their no stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.rollout import exit_codes
from tests.plan.harness import PREFIX_TAG, FakeFleet, release_of, serving

HOSTS = [f"spark-{number}" for number in range(1, 4)]
MOMENTS = ("pre-rollout", "pre-wave", "post-wave", "post-rollout")


@pytest.fixture
def fleet(tmp_path: Path) -> FakeFleet:
    found = FakeFleet(tmp_path, HOSTS)
    found.probes = {name: serving(release_of(PREFIX_TAG)) for name in HOSTS}
    found.data["hooks_dir"] = str(tmp_path / "hooks")
    (tmp_path / "hooks").mkdir()
    return found


def hook(fleet: FakeFleet, moment: str, script: str = "") -> None:
    """A hook that writes down what it was told, and then does as the script says."""
    path = fleet.folder / "hooks" / moment
    path.write_text(f"#!/bin/sh\ncat >> {fleet.folder}/told.jsonl\necho >> {fleet.folder}/told.jsonl\n{script}\n")
    path.chmod(0o755)


def told(fleet: FakeFleet) -> list[dict[str, Any]]:
    path = fleet.folder / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_each_moment_gets_the_roll_out_as_it_stands(fleet: FakeFleet) -> None:
    for moment in MOMENTS:
        hook(fleet, moment)
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    found = told(fleet)
    waves = [pair for number in (1, 2, 3) for pair in (("pre-wave", number), ("post-wave", number))]
    assert [(row["hook"], row["wave"]) for row in found] == [("pre-rollout", None), *waves, ("post-rollout", None)]
    assert found[2]["hosts"]["@fake/spark-1"]["activation"]["state"] == "committed"
    assert found[-1]["outcome"] == "done"


@pytest.mark.parametrize(
    ("moment", "script", "reached", "code"),
    [
        ("pre-rollout", "echo change freeze >&2; exit 1", [], exit_codes.HALTED_OLD),
        (
            "pre-wave",
            "grep -q '\"wave\": 2' {told} && echo change freeze && exit 3",
            HOSTS[:1],
            exit_codes.HALTED_MIXED,
        ),
        ("post-wave", "echo change freeze; exit 1", HOSTS[:1], exit_codes.HALTED_MIXED),
    ],
)
def test_a_no_stops_the_roll_out_there(
    fleet: FakeFleet, moment: str, script: str, reached: list[str], code: int
) -> None:
    hook(
        fleet,
        moment,
        script.format(told=fleet.folder / "told.jsonl") + "\nexit $?"
        if "grep" not in script
        else script.format(told=fleet.folder / "told.jsonl") + "\nexit 0",
    )
    outcome = fleet.run("-y")
    assert outcome.code == code, outcome.output
    assert outcome.activations() == reached
    assert f"hook {moment} refused" in fleet.report()["reason"]
    assert "change freeze" in outcome.output
    assert sorted(set(outcome.named("lease take"))) == sorted(set(outcome.named("lease release")))


def test_the_last_hook_is_heard_and_changes_nothing(fleet: FakeFleet) -> None:
    hook(fleet, "post-rollout", "echo the mail server is down; exit 1")
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert "hook post-rollout refused (1): the mail server is down" in outcome.output


def test_a_gate_that_cannot_be_asked_is_not_passed(fleet: FakeFleet) -> None:
    hook(fleet, "pre-rollout")
    (fleet.folder / "hooks" / "pre-rollout").chmod(0o644)
    outcome = fleet.run("-y", "--limit", "@fake/spark-1")
    assert outcome.code == exit_codes.HALTED_OLD, outcome.output
    assert "hook pre-rollout cannot be run: chmod +x" in outcome.output
    (fleet.folder / "hooks" / "pre-rollout").unlink()
    path = fleet.folder / "hooks" / "pre-wave"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    for report in (fleet.folder / "runs").glob("*"):
        report.unlink()
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_OLD, outcome.output
    assert "hook pre-wave cannot be run" in outcome.output


def test_a_dry_run_asks_no_hook(fleet: FakeFleet) -> None:
    for moment in MOMENTS:
        hook(fleet, moment, "exit 1")
    assert fleet.run("--dry").code == 0
    assert told(fleet) == []


def test_the_page_stands_beside_the_report(fleet: FakeFleet) -> None:
    fleet.fails("spark-2", "acceptance-short: 0.0 % <b>")
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_MIXED, outcome.output
    (page,) = (fleet.folder / "runs").glob("*.html")
    text = page.read_text()
    assert fleet.report()["hosts"]["@fake/spark-1"]["phases"][0]["state"] == "leased"
    assert "leased 5.0, starting 41.0, soaking 74.5" in text
    assert "reverted: acceptance-short: 0.0 % &lt;b&gt;" in text
    assert not [word for word in ("<script", "http://", "https://", " src=") if word in text], (
        "the page needs nothing else"
    )
