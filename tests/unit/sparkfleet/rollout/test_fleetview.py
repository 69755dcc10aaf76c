"""What differs between hosts, and how it is shown."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.inventory.entry import HostEntry
from sparkfleet.preflight.seen import Seen
from sparkfleet.rollout import fleetview
from sparkfleet.rollout.fleet_run import FleetRun, plan_run
from tests.bundles import bundle, document, seen
from tests.plan.harness import FakeFleet, probe
from tests.unit.sparkfleet.preflight.defects import gpu

TODAY = date(2026, 11, 23)
OLDER = document(bundle(answers={"gpu": gpu(driver="580.142"), "gpu-details": ""}))


def read(nodes: dict[str, Any]) -> dict[str, Seen]:
    return {name: seen(node) for name, node in nodes.items()}


def run_of(folder: Path, nodes: dict[str, Any], **data: Any) -> FleetRun:
    fleet = FakeFleet(folder, list(nodes))
    base = {
        "model": "gemma4-26b-a4b-nvfp4",
        "image_tag": "2026-06-11-pr41703",
        "profile": "agentic",
        "hardware": "gb10",
    }
    run = plan_run([HostEntry(name, name, (), {**base, **fleet.data, **data}) for name in nodes])
    run.nodes = read(nodes)
    run.findings = fleetview.examine(run, TODAY)
    return run


def test_the_odd_one_is_marked_and_told(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"a": probe(), "b": probe(), "c": probe(gpu=OLDER["gpu"])})
    assert fleetview.odd(run.nodes) == {"c": {"driver": "580.178.04"}}
    cells = {row[0]: dict(zip(fleetview.HEADINGS, row, strict=True)) for row in fleetview.rows(run)}
    assert (cells["a"]["driver"], cells["c"]["driver"]) == ("580.178.04", "580.142*")
    assert (cells["a"]["fit"], cells["c"]["fit"]) == ("yes", "yes, with warnings")
    assert cells["a"]["MemTotal"] == "121.6 GiB"
    (skew,) = [one for one in run.findings["c"] if one.id == "fleet.skew"]
    assert skew.found == "driver is 580.142, most hosts have 580.178.04"
    assert not [one for one in run.findings["a"] if one.id == "fleet.skew"]


@pytest.mark.parametrize(
    "nodes",
    [
        {"a": probe(), "b": OLDER},
        {"a": probe(), "b": probe(), "c": OLDER, "d": OLDER},
        {"a": probe(), "b": {"error": "x"}, "c": {"error": "y"}},
    ],
    ids=["two hosts", "two halves", "one that answers"],
)
def test_without_a_majority_nobody_is_odd(nodes: dict[str, Any]) -> None:
    assert fleetview.odd(read(nodes)) == {}


@pytest.mark.parametrize(
    "garbage", [{"error": "Welcome"}, {"schema": 1}, {"schema": 1, "gpu": [], "memory": 7, "host": None}]
)
def test_one_host_s_garbage_spoils_nothing_of_the_others(tmp_path: Path, garbage: dict[str, Any]) -> None:
    run = run_of(tmp_path, {"a": probe(), "b": garbage, "c": probe(), "d": probe()})
    shown = {row[0]: row for row in fleetview.rows(run)}
    assert shown["b"][1:3] == ("unfit", "–")
    assert shown["a"][1] == "yes"
    assert {host["host"]: host["fit"] for host in fleetview.document(run)["hosts"]} == {
        "a": True,
        "b": False,
        "c": True,
        "d": True,
    }


def test_decisions_of_the_inventory_are_applied(tmp_path: Path) -> None:
    bad = probe(host={**probe()["host"], "clock_synchronized": False}, tools={"rsync": False, "systemd_run": True})
    assert {one.id for one in run_of(tmp_path, {"a": bad}).findings["a"] if one.severity == "fail"} == {"tools.rsync"}
    waived = {"host.clock": {"reason": "no NTP here", "until": "2026-12-31"}}
    run = run_of(tmp_path, {"a": bad}, force_preflight=["tools.rsync"], preflight_waivers=waived)
    severities = {one.id: one.severity for one in run.findings["a"]}
    assert (severities["tools.rsync"], severities["host.clock"]) == ("warn", "info")
