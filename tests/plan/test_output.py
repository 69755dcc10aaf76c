"""How much a deploy prints: a line for each host and phase, failures whole, every gate only where it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkfleet.rollout import exit_codes
from tests.plan.harness import CURRENT_TAG, PREFIX_TAG, FakeFleet, release_of, serving

HOSTS = [f"spark-{number}" for number in range(1, 5)]
PHASES = ("leased", "draining", "stopping", "reclaiming", "switching", "starting", "probing", "soaking", "committed")
GATES = [f"gate-{number} pass: as expected" for number in range(20)]
RATE = "acceptance-short pass: 60.0 % of drafted tokens accepted, expected at least 30.0 %"
FAILED = "probing: tool-call fail: the arguments are not JSON; asked twice"
LAYERS = [f"  {number:012x}: {word}" for number in range(12) for word in ("Pulling fs layer", "Pull complete")]


@pytest.fixture
def fleet(tmp_path: Path) -> FakeFleet:
    """Four bare hosts whose nodes print what real ones do."""
    found = FakeFleet(tmp_path, HOSTS)
    checking = [f"model a/b@1d7e8dbc4456: checking {done}.00 of 18.00 GB, 800 MB/s, 9 s left" for done in range(18)]
    stage = [*checking, "image ghcr.io/a/b@sha256:ab: pulling", *LAYERS, "proof: release x is complete here"]
    starting = [f"starting: engine has loaded for {second} s of at most 900 s" for second in range(0, 240, 10)]
    story = [f"{state}: what is done now" for state in PHASES[:5]]
    story += [*starting, "starting: ready pass: the engine answers after 240 s"]
    story += [f"{state}: {gate}" for state in ("probing", "soaking", "soaking") for gate in (*GATES, RATE)]
    for name in HOSTS:
        found.nodes[name]["says"] = {"stage": stage, "activate": story}
    return found


def of(output: str, host: str) -> list[str]:
    """The lines that begin with this host's name, without it."""
    mark = f"[@fake/{host}] "
    return [line.partition(mark)[2] for line in output.splitlines() if mark in line]


def test_a_first_deploy_prints_a_line_for_each_host_and_phase(fleet: FakeFleet) -> None:
    outcome = fleet.run("-y")
    assert outcome.code == 0, outcome.output
    for host in HOSTS:
        words = [line.partition(":")[0] for line in of(outcome.output, host)]
        assert words == ["staged", *PHASES], outcome.output
    assert "probing: 21 gates pass: acceptance rate 60.0 %" in outcome.output
    assert "soaking: 21 gates pass in 2 rounds: acceptance rate 60.0 %" in outcome.output
    assert len(outcome.output.splitlines()) < 110, outcome.output


def test_with_v_every_line_of_a_node_is_printed(fleet: FakeFleet) -> None:
    outcome = fleet.run("-y", "-v")
    assert outcome.code == 0, outcome.output
    said = fleet.nodes["spark-1"]["says"]
    printed = of(outcome.output, "spark-1")
    assert [line for line in printed if line in said["stage"] + said["activate"]] == said["stage"] + said["activate"]


def test_a_failed_gate_is_printed_whole_and_the_rest_of_its_host_folded(fleet: FakeFleet) -> None:
    fleet.nodes["spark-1"]["says"]["activate"] += [FAILED, "reverting: tool-call: x; last log lines:", "    CUDA error"]
    fleet.fails("spark-1", "tool-call: the arguments are not JSON")
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.REVERTED, outcome.output
    tail = [FAILED, "reverting: tool-call: x; last log lines:", "    CUDA error"]
    assert of(outcome.output, "spark-1")[-5:-2] == tail, outcome.output
    assert "gate-3 pass" not in outcome.output


def test_staging_that_fails_prints_its_reason_and_no_layer(fleet: FakeFleet) -> None:
    fleet.nodes["spark-2"]["says"] = {"stage": fleet.nodes["spark-2"]["says"]["stage"][:-1]}
    fleet.nodes["spark-2"]["stage"] = "sparknode stage: image x: no route to the registry; is it reachable?"
    outcome = fleet.run("-y")
    assert outcome.code == exit_codes.HALTED_OLD, outcome.output
    assert of(outcome.output, "spark-2")[0] == fleet.nodes["spark-2"]["stage"]
    assert "Pull complete" not in outcome.output


def test_quiet_leaves_the_steps_out(fleet: FakeFleet) -> None:
    fleet.fails("spark-2", "acceptance-short: 0.0 %")
    outcome = fleet.run("-y", environment={"SPARKFLEET_QUIET": "1"})
    assert outcome.code == exit_codes.HALTED_MIXED, outcome.output
    assert of(outcome.output, "spark-1") == []
    assert "reverted: acceptance-short: 0.0 %" in of(outcome.output, "spark-2")


COLUMNS, ROWS = 120, 40


@pytest.mark.parametrize("hosts", [4, 40])
def test_the_plan_of_an_upgrade_fits_one_screen(tmp_path: Path, hosts: int) -> None:
    names = [f"spark-{number:02}" for number in range(1, hosts + 1)]
    fleet = FakeFleet(tmp_path, names)
    fleet.probes = dict.fromkeys(names, serving(release_of(CURRENT_TAG)))
    outcome = fleet.run("--dry", "--data", f"image_tag={PREFIX_TAG}")
    assert outcome.code == 0, outcome.output
    for words in (
        f"all {hosts} hosts: {CURRENT_TAG} (release ",
        "drafter backend: flash_attn → flex_attention",
        f"downloads: image {PREFIX_TAG}, 8.2 GB, to all {hosts} hosts",
        "hosts serve; its duration is not known",
        f"preflight: {hosts} of {hosts} hosts are fit",
        "Roll out | Roll out in ",
    ):
        assert words in outcome.output
    rows = sum(max(1, -(-len(line) // COLUMNS)) for line in outcome.output.splitlines())
    assert rows <= ROWS, outcome.output


def test_hosts_with_another_way_are_a_group_of_their_own(tmp_path: Path) -> None:
    names = [f"spark-{number:02}" for number in range(1, 41)]
    fleet = FakeFleet(tmp_path, names)
    fleet.probes = dict.fromkeys(names, serving(release_of(CURRENT_TAG)))
    fleet.probes |= dict.fromkeys(names[10:13], serving(release_of(PREFIX_TAG)))
    outcome = fleet.run("--dry", "--data", f"image_tag={PREFIX_TAG}")
    assert outcome.code == 0, outcome.output
    assert "  37 hosts (@fake/spark-01 … @fake/spark-40): " in outcome.output
    assert "  @fake/spark-11, @fake/spark-12, @fake/spark-13: stays: serves its release already" in outcome.output


def test_a_dry_run_still_tells_what_is_odd(fleet: FakeFleet) -> None:
    odd = serving(release_of(CURRENT_TAG))
    odd["fleet"]["out_of_rotation"] = True
    fleet.probes["spark-3"] = odd
    outcome = fleet.run("--dry")
    assert outcome.code == 0, outcome.output
    assert "@fake/spark-3: out of its rotation" in outcome.output


def test_waves_of_one_host_cost_the_same_for_each_host(tmp_path: Path) -> None:
    """One operation holds all waves, so that neither calls nor lines grow with waves times hosts."""
    lines, calls = [], []
    for hosts in (10, 20, 30):
        folder = tmp_path / str(hosts)
        folder.mkdir()
        fleet = FakeFleet(folder, [f"spark-{number:02}" for number in range(hosts)])
        outcome = fleet.run("-y", "--data", "batch_size=1")
        assert outcome.code == 0, outcome.output
        assert f"Wave {hosts} of {hosts}: " in outcome.output
        lines.append(len(outcome.output.splitlines()))
        calls.append(sum("sparknode status" not in command for _, command in outcome.commands))
    assert lines[2] - lines[1] <= lines[1] - lines[0] + 10
    assert calls[2] - calls[1] == calls[1] - calls[0]
