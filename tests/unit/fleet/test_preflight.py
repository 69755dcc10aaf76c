"""Findings: a fit host has none, and each defect is named with what was found, expected and to be done."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sparkfleet import lock, preflight
from sparkfleet.catalog import load
from sparkfleet.recipe import Choice
from sparkfleet.release import compile_release
from sparkfleet.rules import Deployment
from tests.plan.harness import CURRENT_TAG, lock_document, probe

CATALOG = load()
GB10 = {"name": "NVIDIA GB10", "compute_capability": "12.1", "driver_version": "580.178.04"}


def release(**choice: Any) -> dict[str, Any]:
    asked = Choice("gemma4-26b-a4b-nvfp4", CURRENT_TAG, "agentic", "gb10", **choice)
    locked = lock.Lock.model_validate(lock_document())
    return compile_release(CATALOG, locked, asked, Deployment(trial=True)).release


def check(node: dict[str, Any], of: dict[str, Any] | None = None) -> dict[str, preflight.Finding]:
    return {finding.id: finding for finding in preflight.check(node, of or release(), CATALOG)}


def changed(path: str, value: Any) -> dict[str, Any]:
    node = copy.deepcopy(probe())
    *parents, last = path.split(".")
    inner: Any = node
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return node


def test_a_fit_host_has_no_findings() -> None:
    assert check(probe()) == {}


@pytest.mark.parametrize(
    ("path", "value", "finding", "severity", "words"),
    [
        ("host.machine", "x86_64", "host.architecture", "fail", "x86_64"),
        ("gpu", {"devices": [], "error": "No devices were found"}, "gpu.visible", "fail", "No devices were found"),
        ("gpu.devices", [{**GB10, "name": "NVIDIA GeForce RTX 5090"}], "gpu.kind", "fail", "RTX 5090"),
        ("gpu.devices", [GB10, GB10], "gpu.count", "fail", "2 GPUs"),
        ("gpu.devices", [{**GB10, "driver_version": "575.51.03"}], "driver.version", "fail", "580.65.06"),
        ("gpu.devices", [{**GB10, "driver_version": "580.159.03"}], "driver.version", "warn", "CUDA error 800"),
        ("gpu.devices", [{**GB10, "driver_version": "590.48.01"}], "driver.version", "warn", "93 GB"),
        ("gpu.devices", [{**GB10, "driver_version": "595.10"}], "driver.version", "warn", "not support"),
        ("docker", {"server_version": None, "error": "permission denied"}, "docker.access", "fail", "permission"),
        ("docker.server_version", "23.0.1", "docker.version", "fail", "23.0.1"),
        ("injection", {"hook": False, "cdi_devices": []}, "gpu.container", "fail", "container toolkit"),
        ("memory.available_kib", 50_000_000, "mem.available", "fail", "0.39 or less"),
        ("memory", {"total_kib": None, "available_kib": None}, "mem.available", "fail", "unreadable"),
        (
            "disk",
            [{"path": "/var/lib/docker", "free_bytes": 10**9, "total_bytes": 10**12}],
            "disk.space",
            "fail",
            "1.0 GB",
        ),
        ("listening", [{"port": 8000, "process": "ollama", "pid": 77}], "port.free", "fail", "ollama (pid 77)"),
        ("tools", {"rsync": False, "systemd_run": True}, "tools.rsync", "fail", "apt install rsync"),
    ],
)
def test_each_defect_is_named(path: str, value: Any, finding: str, severity: str, words: str) -> None:
    found = check(changed(path, value))
    assert list(found) == [finding]
    assert found[finding].severity == severity
    assert words in found[finding].text()


def test_a_serving_host_keeps_its_port_and_memory() -> None:
    node = changed("fleet.serving", {"unit": "active", "release": "x", "drift": []})
    node["listening"] = [{"port": 8000, "process": "vllm", "pid": 4}]
    node["memory"]["available_kib"] = 20_000_000
    assert check(node) == {}


def test_a_host_under_a_roll_out_is_busy_and_nothing_else() -> None:
    node = changed("fleet.serving", {"unit": "inactive", "release": None, "drift": []})
    node["listening"] = [{"port": 8000, "process": "vllm", "pid": 4}]
    node["memory"]["available_kib"] = 20_000_000
    step = {"rollout": "r1", "operator": "ann@desk", "since": "2026-11-23T10:00:00.000Z"}
    node["fleet"] |= {"activation": {**step, "state": "reverting", "release": "x", "alive": True}, "lease": None}
    found = check(node)
    assert list(found) == ["host.busy"]
    assert "roll-out r1 of ann@desk" in found["host.busy"].text()
    assert "now `reverting`" in found["host.busy"].text()
    node["fleet"]["activation"]["alive"] = False
    assert set(check(node)) == {"mem.available", "port.free"}


def test_cdi_injection_needs_the_cdi_device() -> None:
    asked = Choice("gemma4-26b-a4b-nvfp4", CURRENT_TAG, "agentic", "gb10")
    locked = lock.Lock.model_validate(lock_document())
    cdi = compile_release(CATALOG, locked, asked, Deployment(trial=True), "cdi").release
    assert check(probe(), cdi) == {}
    assert "gpu.container" in check(changed("injection", {"hook": True, "cdi_devices": []}), cdi)


def test_an_unanswered_probe_is_a_finding() -> None:
    assert list(check({"error": "the node's probe answered 'x'"})) == ["probe"]
