"""The order of a deploy, where it stops, what it refuses, and how it ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from sparkfleet.rollout import exit_codes
from tests.plan.harness import CURRENT_TAG, PREFIX_TAG, FakeFleet, lock_document, probe, release_of, serving

HOSTS = [f"spark-{number}" for number in range(1, 5)]


@pytest.fixture
def fleet(tmp_path: Path) -> FakeFleet:
    return FakeFleet(tmp_path, HOSTS)


def test_a_deploy_stages_every_host_before_the_first_one_activates(fleet: FakeFleet) -> None:
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert outcome.activations() == HOSTS
    first_activation = next(i for i, (_, command) in enumerate(outcome.commands) if "sparknode activate" in command)
    staged = [name for name, command in outcome.commands[:first_activation] if "sparknode stage" in command]
    assert sorted(staged) == HOSTS


def test_waves_follow_the_inventory_with_the_batch_size(fleet: FakeFleet) -> None:
    fleet.data["batch_size"] = 2
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    activations = outcome.activations()
    assert activations[0] == "spark-1"
    assert sorted(activations[1:3]) == ["spark-2", "spark-3"]
    assert activations[3] == "spark-4"


def test_the_first_bad_wave_is_the_last(fleet: FakeFleet) -> None:
    fleet.fails("spark-2", "acceptance-short: 0.0 %, expected at least 30.0 %")
    outcome = fleet.run("-y")
    assert outcome.code != 0
    assert outcome.activations() == ["spark-1", "spark-2"]
    assert "0.0 %, expected at least 30.0 %" in outcome.output


def test_a_second_run_asks_once_and_changes_nothing(fleet: FakeFleet) -> None:
    release = release_of(CURRENT_TAG)
    fleet.probes = {name: serving(release) for name in HOSTS}
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert outcome.changes() == []
    assert len(outcome.commands) == len(HOSTS)
    assert f"preflight: {len(HOSTS)} of {len(HOSTS)} hosts are fit" in outcome.output
    assert "Stage" not in outcome.output, "an operation that no host needs was registered"


def test_the_node_s_program_travels_only_to_hosts_that_lack_it(fleet: FakeFleet) -> None:
    fleet.probes = {name: serving(release_of(CURRENT_TAG)) for name in HOSTS}
    fleet.probes["spark-3"] = probe()
    outcome = fleet.run("--dry")
    assert outcome.code == 0, outcome.output
    assert [name for name, command in outcome.commands if "base64 -d" in command] == ["spark-3"]
    assert len(outcome.commands) == len(HOSTS) + 1


def test_a_dry_run_changes_nothing_and_lists_what_would(fleet: FakeFleet) -> None:
    outcome = fleet.run("--dry")
    assert outcome.code == 0, outcome.output
    assert outcome.changes() == []
    assert "wave 1 of 4: spark-1" in outcome.output.replace("@fake/", "")


def test_the_rollback_tag_gets_its_own_release(fleet: FakeFleet) -> None:
    forward, back = release_of(CURRENT_TAG), release_of(PREFIX_TAG)
    fleet.probes = {name: serving(forward) for name in HOSTS}
    outcome = fleet.run("-y", "--data", f"image_tag={PREFIX_TAG}")
    assert outcome.code == 0, outcome.output
    activated = [command for _, command in outcome.commands if "sparknode activate" in command]
    assert all(str(back.id) in command for command in activated)
    assert len(activated) == len(HOSTS)


def test_an_unfit_host_stops_the_run_before_any_change(fleet: FakeFleet) -> None:
    fleet.probes["spark-3"] = probe(gpu={**probe()["gpu"], "devices": [], "error": "No devices were found"})
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.REFUSED
    assert "gpu.visible" in outcome.output
    assert not [command for _, command in outcome.changes() if "sparknode" in command]


def test_a_probe_that_answers_garbage_is_a_finding_and_not_a_crash(fleet: FakeFleet) -> None:
    fleet.probes["spark-2"] = "Welcome to DGX OS"
    outcome = fleet.run("-y")
    assert outcome.code != 0
    assert "Welcome to DGX OS" in outcome.output
    assert "Traceback" not in outcome.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "image_tag=latest"], [CURRENT_TAG, PREFIX_TAG, "a moving name"]),
        (["--data", "image_tag=2026-06-11-pr41073"], [CURRENT_TAG, "did you mean"]),
        (["--data", "image_tag=20260611"], ["'20260611' is not in the catalogue"]),
        (["--data", "profil=production"], ["unknown setting 'profil'", "did you mean 'profile'?"]),
        (["--data", "batch_size=none"], ["batch_size", "'none'"]),
        (["--data", "image_tag=2026-07-27-v0.26.0"], ["lock.json has no digest", "sparkfleet lock"]),
        (["--limit", "sparc-1"], ["no host matches", "spark-1"]),
        (["--limit", "all"], ["no host matches"]),
        (["--limit", "spark-1,spark-2"], ["commas are not understood"]),
        (["--no-wait"], ["--no-wait"]),
        (["--data", 'overrides={"max_num_sequences": 8}'], ["max_num_sequences", "did you mean"]),
        (["--data", 'overrides={"drafter_attention_backend": "flex_attention"}'], ["drafter-backend", "flash_attn"]),
    ],
)
def test_what_cannot_work_is_refused_before_a_host_is_asked_anything(
    fleet: FakeFleet, arguments: list[str], says: list[str]
) -> None:
    outcome = fleet.run("-y", *arguments)
    assert outcome.code == 2, outcome.output
    assert outcome.commands == []
    for words in says:
        assert words in outcome.output


def test_a_refusal_waits_for_no_host_that_is_slow_to_connect(fleet: FakeFleet) -> None:
    fleet.nodes = {name: {"connects_after_s": 600} for name in fleet.hosts}
    outcome = fleet.run("-y", "--data", "image_tag=latest")
    assert outcome.code == 2, outcome.output
    assert "Connected" not in outcome.output


def test_a_missing_inventory_is_refused(fleet: FakeFleet) -> None:
    outcome = fleet.run("-y", inventory=fleet.folder / "typo.py")
    assert outcome.code == 2, outcome.output
    assert "there is no inventory file" in outcome.output


def test_two_entries_for_one_machine_are_refused(fleet: FakeFleet) -> None:
    fleet.host_data = {"spark-1": {"ssh_hostname": "10.0.0.1"}, "spark-3": {"ssh_hostname": "10.0.0.1"}}
    outcome = fleet.run("-y")
    assert outcome.code == 2
    assert "same address" in outcome.output
    assert outcome.commands == []


def test_the_wrong_folder_is_named(fleet: FakeFleet, tmp_path: Path) -> None:
    from sparkfleet import ROOT

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    outcome = fleet.run("-y", deploy=str(ROOT / "deploy.py"), cwd=elsewhere)
    assert outcome.code != 0
    assert "config.py was not loaded" in outcome.output
    assert outcome.changes() == []


def test_a_lock_that_contradicts_the_catalogue_is_refused(fleet: FakeFleet) -> None:
    document = lock_document()
    document["repos"]["z-lab/gemma-4-26B-A4B-it-DFlash"]["commit"] = "0" * 40
    (fleet.folder / "lock.json").write_text(json.dumps(document))
    outcome = fleet.run("-y")
    assert outcome.code == 2
    assert "77d4202772dfe50b2396ec7bac9cfffc7b9e7057" in outcome.output
    assert outcome.commands == []


@pytest.mark.parametrize("text", ["{", '{"schema": 1, "images": {"x": {}}}', '{"schema": 9}'])
def test_an_unreadable_lock_is_refused(fleet: FakeFleet, text: str) -> None:
    (fleet.folder / "lock.json").write_text(text)
    outcome = fleet.run("-y")
    assert outcome.code == 2
    assert "lock.json" in outcome.output
    assert "Traceback" not in outcome.output


def test_a_host_that_cannot_be_reached_ends_the_run_before_any_change(fleet: FakeFleet) -> None:
    fleet.nodes["spark-3"]["unreachable"] = True
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.UNREACHABLE, outcome.output
    assert "no route to the host" in outcome.output
    assert outcome.changes() == []


def test_staging_that_fails_leaves_every_host_on_what_it_served(fleet: FakeFleet) -> None:
    fleet.nodes["spark-3"]["stage"] = "sparknode stage: refused: the image could not be pulled"
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_OLD, outcome.output
    assert outcome.activations() == []


def test_adding_a_node_touches_that_node_alone(fleet: FakeFleet) -> None:
    release = release_of(CURRENT_TAG)
    for name in HOSTS[:3]:
        fleet.probes[name] = serving(release)
    outcome = fleet.run("-y", "--limit", "@fake/spark-4")
    assert outcome.code == 0, outcome.output
    assert {name for name, _ in outcome.commands} == {"spark-4"}
    assert outcome.activations() == ["spark-4"]


def test_ctrl_c_ends_with_130_and_says_what_goes_on(fleet: FakeFleet) -> None:
    with fleet.start("-y", delay_s=20) as run:
        run.wait_for_command()
        run.process.send_signal(signal.SIGINT)
        output, _ = run.process.communicate(timeout=30)
    assert run.process.returncode == 130, output
    assert "no further wave starts" in output


def test_preflight_alone_asks_and_changes_nothing(fleet: FakeFleet) -> None:
    outcome = fleet.run("-y", deploy="tasks/preflight.py")
    assert outcome.code == 0, outcome.output
    assert outcome.changes() == []
    fleet.probes["spark-3"] = probe(gpu={**probe()["gpu"], "devices": [], "error": "No devices were found"})
    outcome = fleet.run("-y", deploy="tasks/preflight.py")
    assert outcome.code == exit_codes.REFUSED
    assert "gpu.visible" in outcome.output
    assert outcome.changes() == []


def test_readiness_is_turned_on_where_it_is_wanted_and_off_where_it_is_not(fleet: FakeFleet) -> None:
    release = release_of(CURRENT_TAG)
    fleet.probes = {name: serving(release) for name in HOSTS}
    on = {"port": 9480, "network": None, "notice_s": 5.0}
    for name in ("spark-1", "spark-2"):
        fleet.probes[name]["fleet"]["readiness"] = on
    for name in ("spark-2", "spark-3"):
        fleet.host_data[name] = {"readiness_port": 9480}
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    changed = [(name, command) for name, command in outcome.changes() if "sparknode readiness" in command]
    assert [name for name, _ in changed] == ["spark-1", "spark-3"]
    assert "sparknode readiness off" in changed[0][1]
    assert "sparknode readiness on --port 9480 --notice 5" in changed[1][1]
    assert outcome.activations() == []
