"""Rolling back, restarting, the plan that is printed first, and what the next deploy says after a rollback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparkfleet.rollout import exit_codes
from tests.plan.harness import CURRENT_TAG, PREFIX_TAG, FakeFleet, Outcome, probe, release_of, rolled, serving

HOSTS = [f"spark-{number}" for number in range(1, 5)]
OLD, NEW = release_of(PREFIX_TAG), release_of(CURRENT_TAG)


@pytest.fixture
def fleet(tmp_path: Path) -> FakeFleet:
    """Four hosts that took the current release two days after the older one."""
    found = FakeFleet(tmp_path, HOSTS)
    found.probes = {name: rolled(OLD, NEW) for name in HOSTS}
    return found


def activated(outcome: Outcome) -> list[str]:
    return [command for _, command in outcome.commands if "sparknode activate" in command]


def test_a_roll_back_takes_each_host_to_what_it_had_and_fetches_nothing(fleet: FakeFleet) -> None:
    outcome = fleet.run("-y", deploy="tasks/rollback.py")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == HOSTS
    assert all(f"activate {OLD.id}" in command and "--intent rollback" in command for command in activated(outcome))
    assert not outcome.named("sparknode stage")
    assert sorted(outcome.named("lease take")) == HOSTS
    assert f"{CURRENT_TAG} (release {NEW.id}) → {PREFIX_TAG} (release {OLD.id})" in outcome.output
    assert "downloads: none" in outcome.output
    report = fleet.report()
    assert (report["intent"], report["outcome"]) == ("rollback", "done")
    assert report["hosts"]["@fake/spark-4"]["image_tag"] == PREFIX_TAG


def test_a_roll_back_needs_no_release_of_the_inventory(fleet: FakeFleet) -> None:
    (fleet.folder / "lock.json").unlink()
    outcome = fleet.run("-y", "--data", "image_tag=no-such-tag", deploy="tasks/rollback.py")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == HOSTS


def test_a_roll_back_of_a_halted_roll_out_leaves_the_others(fleet: FakeFleet) -> None:
    for name in HOSTS[1:]:
        fleet.probes[name] = rolled(NEW, OLD, rollout="r0", t="2026-11-01T10:00:00.000Z")
    outcome = fleet.run("-y", deploy="tasks/rollback.py")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == ["spark-1"]
    assert "stays: was not part of the newest rollout (r2)" in outcome.output


def test_rolling_back_twice_does_not_go_forward(fleet: FakeFleet) -> None:
    fleet.probes = {name: rolled(NEW, OLD, intent="rollback") for name in HOSTS}
    fleet.probes["spark-3"] = rolled(OLD, NEW)
    outcome = fleet.run("-y", deploy="tasks/rollback.py")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == ["spark-3"]
    fleet.probes["spark-3"] = rolled(NEW, OLD, intent="rollback")
    outcome = fleet.run("-y", deploy="tasks/rollback.py")
    assert outcome.code == 0, outcome.output
    assert outcome.changes() == []
    assert "nothing to do" in outcome.output


@pytest.mark.parametrize(
    ("found", "says"), [(serving(NEW), "no release to roll back to"), (probe(), "no release to roll back to")]
)
def test_nothing_to_go_back_to_is_refused(fleet: FakeFleet, found: dict[str, object], says: str) -> None:
    fleet.probes = dict.fromkeys(HOSTS, found)
    outcome = fleet.run("-y", deploy="tasks/rollback.py")
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert says in outcome.output
    assert outcome.changes() == []


def test_a_host_that_cannot_answer_refuses_the_roll_back(fleet: FakeFleet) -> None:
    fleet.probes["spark-2"] = "Welcome to DGX OS"
    outcome = fleet.run("-y", deploy="tasks/rollback.py")
    assert outcome.code == exit_codes.REFUSED, outcome.output
    assert "--exclude" in outcome.output
    assert outcome.changes() == []


def test_the_next_plain_deploy_asks_for_the_choice_in_writing(fleet: FakeFleet) -> None:
    fleet.probes = {name: rolled(NEW, OLD, intent="rollback") for name in HOSTS}
    for arguments in (["-y"], ["--dry"]):
        outcome = fleet.run(*arguments)
        assert outcome.code == exit_codes.REFUSED, outcome.output
        assert "would roll forward again: ann@desk rolled back from" in outcome.output
        assert f'image_tag = "{PREFIX_TAG}"' in outcome.output
        assert "never fewer than 3 of 4 hosts serve" in outcome.output, "the plan is shown all the same"
        assert outcome.changes() == []


@pytest.mark.parametrize("data", [f"roll_forward={NEW.id}", f"image_tag={CURRENT_TAG}"])
def test_the_written_choice_rolls_forward(fleet: FakeFleet, data: str) -> None:
    fleet.probes = {name: rolled(NEW, OLD, intent="rollback") for name in HOSTS}
    outcome = fleet.run("-y", "--data", data)
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == HOSTS


def test_staying_needs_no_further_word(fleet: FakeFleet) -> None:
    fleet.probes = {name: rolled(NEW, OLD, intent="rollback") for name in HOSTS}
    fleet.data["image_tag"] = PREFIX_TAG
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert outcome.changes() == []


def test_a_restart_starts_what_serves_in_waves(fleet: FakeFleet) -> None:
    fleet.probes["spark-4"] = probe()
    fleet.data["batch_size"] = 1
    outcome = fleet.run("-y", deploy="tasks/restart.py")
    assert outcome.code == exit_codes.REFUSED, "a host is down already, and max_unavailable is 1"
    fleet.data["max_unavailable"] = 2
    outcome = fleet.run("-y", deploy="tasks/restart.py")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == HOSTS[:3]
    assert all(f"activate {NEW.id}" in command and "--intent restart" in command for command in activated(outcome))
    assert "spark-4: stays: serves nothing that is verified" in outcome.output


def test_a_restart_that_fails_its_gates_stops(fleet: FakeFleet) -> None:
    fleet.fails("spark-1", "acceptance-short: 0.0 %", state="failed")
    outcome = fleet.run("-y", deploy="tasks/restart.py")
    assert outcome.code == exit_codes.HOST_DOWN, outcome.output
    assert outcome.activations() == ["spark-1"]


def test_a_dry_run_prints_the_plan_and_writes_nothing(fleet: FakeFleet) -> None:
    fleet.probes = {name: rolled(NEW, OLD) for name in HOSTS}
    fleet.probes["spark-4"]["fleet"]["models"] = []
    before = {path: path.read_bytes() for path in fleet.folder.rglob("*") if path.is_file()}
    outcome = fleet.run("--dry")
    assert outcome.code == 0, outcome.output
    for words in (
        "3 of 4 hosts serve meanwhile, about 4 min",
        f"{PREFIX_TAG} (release {OLD.id}) → {CURRENT_TAG} (release {NEW.id})",
        "drafter backend: flex_attention → flash_attn",
        "prefix caching: off → on",
        f"downloads: image {CURRENT_TAG}, 8.2 GB",
        "to @fake/spark-4",
        "about 15 min in all",
    ):
        assert words in outcome.output
    assert outcome.changes() == []
    after = {path: path.read_bytes() for path in fleet.folder.rglob("*") if path.is_file()}
    own = {fleet.folder / name for name in ("trace.jsonl", "nodes.json", "fleet.py")}
    assert {path: text for path, text in after.items() if path not in own} == before


@pytest.mark.parametrize("elsewhere", [True, False])
def test_images_that_went_with_the_store_are_staged_again(fleet: FakeFleet, elsewhere: bool) -> None:
    """One host lost what it serves, another what it goes back to, and all the others have everything."""
    for name, release in (("spark-2", NEW), ("spark-3", OLD)):
        found = fleet.probes[name]
        found["docker"]["lost"] = [{"release": release.id, "elsewhere": elsewhere}]
        found["fleet"]["images"] = [one for one in found["fleet"]["images"] if one != release.image.reference]
    fleet.probes["spark-2"]["fleet"]["serving"]["unit"] = "failed"
    fleet.probes["spark-2"]["fleet"]["serving"]["drift"] = ["unit: it is failed, expected active"]
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert "spark-2: docker.images: Docker's image store" in outcome.output
    assert ("(or out of Docker's other image store)" in outcome.output) == elsewhere
    assert sorted(outcome.named("sparknode stage")) == ["spark-2", "spark-3"]
    assert outcome.activations() == ["spark-2"]


def test_a_host_is_retired_by_name_and_keeps_its_weights(fleet: FakeFleet) -> None:
    refused = fleet.run("-y", deploy="tasks/retire.py")
    assert refused.code == exit_codes.REFUSED, refused.output
    assert "add --limit HOST" in refused.output
    assert refused.commands == []
    outcome = fleet.run("-y", "--limit", "@fake/spark-2", deploy="tasks/retire.py")
    assert outcome.code == 0, outcome.output
    (retired,) = [(name, command) for name, command in outcome.commands if "sparknode retire" in command]
    assert retired[0] == "spark-2"
    assert "--models" not in retired[1]
    more = fleet.run("-y", "--limit", "@fake/spark-2", "--data", "retire_models=true", deploy="tasks/retire.py")
    assert "--models" in next(command for _, command in more.commands if "sparknode retire" in command)


def test_json_is_all_that_standard_output_holds(fleet: FakeFleet) -> None:
    fleet.probes = {name: serving(NEW) for name in HOSTS}
    with fleet.start("-y", "--json", split=True) as run:
        output, said = run.process.communicate(timeout=60)
    assert run.process.returncode == 0, said
    assert "results" in json.loads(output)
    assert "Plan: rollout" in said


def test_the_plan_says_why_a_release_is_brought_again(fleet: FakeFleet) -> None:
    fleet.probes = {name: serving(NEW) for name in HOSTS}
    fleet.probes["spark-2"]["fleet"]["serving"]["drift"] = ["image: another one runs"]
    fleet.probes["spark-3"]["fleet"]["verified"] = OLD.id
    outcome = fleet.run("--dry")
    assert outcome.code == 0, outcome.output
    again = f"{CURRENT_TAG} (release {NEW.id}) is started again"
    assert f"@fake/spark-2: {again}: image: another one runs" in outcome.output
    assert f"@fake/spark-3: {again}: it is not verified here" in outcome.output
    assert "@fake/spark-1, @fake/spark-4: stays: serves its release already" in outcome.output
    assert "its duration is not known" in outcome.output


def test_the_plan_says_which_hosts_restart_and_which_do_not(fleet: FakeFleet) -> None:
    fleet.probes = {name: serving(NEW) for name in HOSTS}
    link, running = "unit: it is not enabled, so nothing would serve after a boot", "arguments: others"
    fleet.probes["spark-2"]["fleet"]["serving"] |= {"drift": [link], "restarts": []}
    fleet.probes["spark-3"]["fleet"]["serving"] |= {"drift": [link, running], "restarts": [running]}
    outcome = fleet.run("--dry")
    assert outcome.code == 0, outcome.output
    release = f"{CURRENT_TAG} (release {NEW.id})"
    assert f"@fake/spark-2: {release} is put right without a restart: {link}" in outcome.output
    assert f"@fake/spark-3: {release} is started again: {running}" in outcome.output
    assert "never fewer than 3 of 4 hosts serve" in outcome.output
