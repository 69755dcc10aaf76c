"""What is said of a fleet before anything changes, what is passed over, and what is repaired."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bundles import bundle, cdi_spec, document, units
from tests.plan.harness import CURRENT_TAG, FakeFleet, probe, release_of, serving

HOSTS = ["spark-1", "spark-2", "spark-3"]
AWAKE = document(bundle(answers={"units": units(sleep_target="loaded inactive static")}))["units"]
STALE = document(bundle({"/var/run/cdi/nvidia.yaml": cdi_spec("580.159.03")}))["injection"]


@pytest.fixture
def fleet(tmp_path: Path) -> FakeFleet:
    return FakeFleet(tmp_path, HOSTS)


def test_64_hosts_in_one_table_and_one_host_s_garbage_ends_nothing(tmp_path: Path) -> None:
    names = [f"spark-{number:02}" for number in range(64)]
    fleet = FakeFleet(tmp_path, names)
    old = {**probe()["gpu"], "devices": [{**probe()["gpu"]["devices"][0], "driver_version": "580.142"}]}
    fleet.probes |= {"spark-07": probe(gpu=old), "spark-13": "\x1b[31m<!doctype html>", "spark-21": '{"schema": 1}'}
    fleet.probes["spark-42"] = probe(tools={"rsync": False, "systemd_run": True})
    fleet.probes["spark-55"] = {"success": False, "stdout": "", "stderr": "sudo: a password is required"}

    outcome = fleet.run("-y", deploy="tasks/preflight.py")

    assert outcome.code != 0
    assert outcome.changes() == []
    assert "Traceback" not in outcome.output
    rows = {
        line.split()[0]: line
        for line in outcome.output.splitlines()
        if line.startswith("@fake/spark-") and "GiB" in line
    }
    assert len(rows) == 61
    assert "580.142*" in rows["@fake/spark-07"]
    assert "fail: @fake/spark-42: tools.rsync: rsync is missing" in outcome.output
    assert "fail: @fake/spark-55: sudo.password: sudo asks for a password" in outcome.output
    assert "the node's probe answered '\\x1b[31m<!doctype html>'" in outcome.output
    assert "4 of 64 hosts are unfit" in outcome.output
    assert "--exclude @fake/spark-42" in outcome.output
    written = json.loads((tmp_path / "runs" / "preflight.json").read_text())
    assert {host["host"]: host["fit"] for host in written["hosts"]} == {
        f"@fake/{name}": name not in ("spark-13", "spark-21", "spark-42", "spark-55") for name in names
    }


def test_a_deploy_says_each_warning_once_and_goes_on(fleet: FakeFleet) -> None:
    fleet.probes = {name: probe(units=AWAKE) for name in HOSTS}
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert outcome.output.count("host.sleep: not masked: sleep.target") == 1
    assert "warn: all hosts: host.sleep" in outcome.output
    assert "host.identity" not in outcome.output, "what is good to know is said by tasks/preflight.py alone"


def test_waivers_and_forced_failures(fleet: FakeFleet) -> None:
    fleet.probes["spark-2"] = probe(units=AWAKE, tools={"rsync": False, "systemd_run": True})
    fleet.data["preflight_waivers"] = {"host.sleep": {"reason": "the lid is glued open", "until": "2999-01-01"}}
    refused = fleet.run("-y")
    assert refused.code != 0
    assert refused.changes() == []
    assert "host.sleep" not in refused.output
    forced = fleet.run("-y", "--data", 'force_preflight=["tools.rsync"]')
    assert forced.code == 0, forced.output
    assert "passed over by force_preflight: rsync is missing" in forced.output


def test_a_misspelt_id_is_refused_before_any_connection(fleet: FakeFleet) -> None:
    outcome = fleet.run("-y", "--data", 'force_preflight=["tools.rsyncs"]')
    assert outcome.code == 2
    assert "did you mean 'tools.rsync'?" in outcome.output
    assert outcome.commands == []


def test_repairs_are_made_before_the_stage_and_only_where_asked_and_needed(fleet: FakeFleet) -> None:
    fleet.probes |= {"spark-1": probe(units=AWAKE), "spark-2": probe(units=AWAKE)}
    fleet.host_data = {"spark-1": {"repairs": ["sleep_targets"]}, "spark-3": {"repairs": ["sleep_targets", "cdi_spec"]}}
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    assert outcome.named("systemctl mask --no-reload sleep.target") == ["spark-1"]
    first = next(i for i, (_, command) in enumerate(outcome.commands) if "systemctl mask" in command)
    assert first < next(i for i, (_, command) in enumerate(outcome.commands) if "sparknode stage" in command)


def test_a_repair_that_was_asked_for_lets_its_host_through(fleet: FakeFleet) -> None:
    fleet.data["gpu_injection"] = "cdi"
    fleet.probes["spark-2"] = probe(injection=STALE)
    refused = fleet.run("-y")
    assert refused.code != 0
    assert "cdi.driver" in refused.output
    repaired = fleet.run("-y", "--data", 'repairs=["cdi_spec"]')
    assert repaired.code == 0, repaired.output
    assert repaired.named("systemctl restart nvidia-cdi-refresh.service") == ["spark-2"]


def test_repairs_alone_dry_and_repeated(fleet: FakeFleet) -> None:
    release = release_of(CURRENT_TAG)
    fleet.data["repairs"] = ["sleep_targets", "earlyoom"]
    fleet.probes = {name: {**serving(release), "units": AWAKE} for name in HOSTS}
    dry = fleet.run("--dry", deploy="tasks/repair.py")
    assert dry.code == 0, dry.output
    assert dry.changes() == []
    assert "Repair: sleep_targets" in dry.output
    assert sorted(fleet.run("-y", deploy="tasks/repair.py").named("systemctl mask")) == HOSTS
    fleet.probes = {name: serving(release) for name in HOSTS}
    assert fleet.run("-y", deploy="tasks/repair.py").changes() == []
