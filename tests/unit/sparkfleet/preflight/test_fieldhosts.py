"""The preflight over hosts of the field: what is said, what is not, and that a remedy can be followed on that host."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from sparkfleet.preflight import preflight
from sparkfleet.preflight.checks.view import View, named
from sparkfleet.preflight.findings import book
from sparkfleet.preflight.repairs import REPAIRS
from sparkfleet.release.rules import Finding
from sparkfleet.rollout import fleetview
from sparknode.base.process import Completed
from sparknode.state.release import Release
from tests.bundles import bundle, document, facts_of, seen
from tests.unit.sparkfleet.preflight import hosts_gpu, hosts_pc, hosts_system
from tests.unit.sparkfleet.preflight.defects import CATALOG, CDI, DEFECTS, PLAIN, release
from tests.unit.sparkfleet.preflight.fieldhosts import FieldHost, skewed
from tests.unit.sparkfleet.preflight.test_preflight import MODELS

HOSTS = {**hosts_gpu.HOSTS, **hosts_system.HOSTS, **hosts_pc.HOSTS}
RTX = release(hardware="rtx50", tag="vllm-openai-0.32.0")


def judged(host: FieldHost) -> list[Finding]:
    of = RTX if host.hardware == "rtx50" else CDI if host.cdi else PLAIN
    return preflight.check(seen(document(host.raw, models=MODELS)), of, CATALOG)


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_of_the_field(name: str) -> None:
    host = HOSTS[name]
    found = judged(host)
    said = "\n".join(f"{one.severity}: {one.text()}" for one in found)
    assert [part for part in host.says if part not in said] == []
    warned = "\n".join(f"{one.severity}: {one.text()}" for one in found if one.severity != "info")
    assert [part for part in host.silent if part in warned] == []
    # The images that are published are made for GB10 alone.
    of_host = [one for one in found if host.hardware == "gb10" or one.id != "disk.space"]
    assert host.fit in (None, preflight.fit(of_host)), said


@pytest.mark.parametrize(
    ("boxes", "odd"),
    [
        ([("NVIDIA", "NVIDIA_DGX_Spark", "7")] * 3 + [("ASUSTeK", "GX10", "3"), ("MSI", "MS-C931", "9")], set()),
        ([("NVIDIA", "NVIDIA_DGX_Spark", "7")] * 3 + [("NVIDIA", "NVIDIA_DGX_Spark", "6")], {"NVID3"}),
        ([("ASUSTeK", "GX10", "3")] * 3 + [("ASUSTeK", "GX10", "4"), ("NVIDIA", "NVIDIA_DGX_Spark", "7")], {"ASUS3"}),
        (
            [("HP", "HP ZGX Nano G1n", "1"), ("HP Inc.", "HP ZGX Nano G1n", "1"), ("HP", "HP ZGX Nano G1n", "2")],
            {"HP2"},
        ),
        ([("Acme", "One", "1"), ("Acme", "One", "1"), ("Acme", "Two", "2")], set()),
    ],
)
def test_firmware_is_compared_within_one_maker(boxes: list[tuple[str, str, str]], odd: set[str]) -> None:
    nodes = {name: seen(document(raw)) for name, raw in skewed(*boxes).items()}
    assert set(fleetview.odd(nodes)) == odd
    assert all(set(columns) == {"firmware"} for columns in fleetview.odd(nodes).values())


# A remedy is a promise: whatever it names is on the host that it is printed for.
UNITS = re.compile(r"systemctl (?:--machine=\S+ --user )?(?:status|start|restart|unmask|enable|disable)([^#;|&]*)")
PID = re.compile(r"(?:\bkill(?: -9)? |-p )(\S+)")
REMOVED = re.compile(r"apt (?:remove|install --reinstall|install --only-upgrade) ([^#&]*)")
MOVED = re.compile(r"\bmv (\S+) (\S+)")


PAIR = ("unit nvidia-cdi-refresh.path", "unit nvidia-cdi-refresh.service")


def every_host() -> Iterator[tuple[str, Any, Release]]:
    for name, host in HOSTS.items():
        yield name, host.raw, RTX if host.hardware == "rtx50" else CDI if host.cdi else PLAIN
    for row, cases in DEFECTS.items():
        for number, (raw, _, _) in enumerate(cases):
            yield f"{row} {number}", raw, PLAIN
            yield f"{row} {number} with CDI", raw, CDI


def broken(view: View, steps: tuple[str, ...]) -> Iterator[str]:
    """What a remedy names and the host has not."""
    facts = view.facts
    pids = {str(tenant.pid) for tenant in facts.gpu.tenants}
    pids |= {str(row.pid) for row in facts.listening} | {"unknown"}
    owners = {str(tenant.owner.unit) for tenant in facts.gpu.tenants if tenant.owner}
    installed = {row.name for row in facts.packages}
    specs = {spec.path for spec in facts.injection.cdi_specs}
    loaded = {name for name, unit in facts.units.items() if unit.load != "not-found"}
    known = {name for unit in loaded | owners for name in (unit, unit.removesuffix(".service"))}
    for step in steps:
        told = step.partition("  #")[0]
        for match in UNITS.finditer(told):
            words = (word for word in shlex.split(match[1]) if not word.startswith("-"))
            yield from (
                f"unit {word}" for word in words if word not in known and not step.startswith("systemctl status")
            )
        yield from (f"pid {match[1]}" for match in PID.finditer(told) if match[1] not in pids)
        for match in REMOVED.finditer(told):
            # Docker's packages are not asked for: where the tool names two, apt takes what is there.
            yield from (
                f"package {word}" for word in match[1].split() if word not in installed and "docker" not in word
            )
        for match in MOVED.finditer(told):
            yield from (f"file {match[1]}" for _ in "x" if match[1] not in specs or match[2] != f"{match[1]}.stale")
        if "Dashboard" in told and not facts.host.dgx:
            yield "the Dashboard"
        if re.search(r"\bapt\b|\bdpkg\b", told) and view.system in ("nixos", "other") and not installed:
            yield "apt"
        if "gpu_memory_utilization to 0.00" in told or "to 0.0" in told:
            yield "a share that serves nothing"
        if "nvidia-ctk cdi generate" in told and not view.gpu_works:
            yield "a GPU to write a specification for"


EVERY = {name: (raw, of) for name, raw, of in every_host()}


@pytest.mark.parametrize(("raw", "of"), EVERY.values(), ids=EVERY)
def test_a_remedy_names_what_is_there(raw: Any, of: Release) -> None:
    node = seen(document(raw, models=MODELS))
    assert node.facts
    view = View(node.facts, of, CATALOG)
    for one in preflight.check(node, of, CATALOG):
        assert list(broken(view, one.remedy)) == [], one.text()
        assert "\n" not in "".join(one.remedy)
    for repair in REPAIRS.values():
        commands = tuple(shlex.join(command) for command in repair(view, "nvidia"))
        # A command before brings earlyoom, and both units of a pair come with one package.
        assert [gap for gap in broken(view, commands) if gap not in ("unit earlyoom", *PAIR)] == []


def test_the_test_of_remedies_sees_what_is_not_there() -> None:
    view = View(facts_of(document()), PLAIN, CATALOG)
    wrong = (
        "sudo systemctl restart other",
        "sudo kill -9 77",
        "sudo apt remove nvidia-x",
        "sudo mv /etc/cdi/a /etc/cdi/b",
    )
    assert [gap.split()[0] for gap in broken(view, wrong)] == ["unit", "pid", "package", "file"]


@pytest.mark.parametrize("system", ["", "ID=nixos\n", "ID=arch\n", "ID=debian\n", 'ID=ubuntu\nVERSION_ID="26.04"\n'])
@pytest.mark.parametrize("row", [row for row in DEFECTS if row not in ("host.os", "host.wsl")])
def test_a_remedy_can_be_followed_on_other_systems(row: str, system: str) -> None:
    for raw, _, _ in DEFECTS[row]:
        files = {**raw.files, "/etc/os-release": system}
        files.pop("/etc/dgx-release", None)
        apart = {} if row.startswith("driver.") else {"packages": replace(raw.commands["packages"], rc=1, stdout="")}
        node = seen(document(replace(raw, files=files, commands={**raw.commands, **apart}), models=MODELS))
        assert node.facts
        view = View(node.facts, PLAIN, CATALOG)
        for one in preflight.check(node, PLAIN, CATALOG):
            gaps = [
                gap
                for gap in broken(view, one.remedy)
                if gap == "the Dashboard" or (gap == "apt" and "apt" in one.text())
            ]
            assert gaps == [], one.text()


# What NVIDIA's recipe of the April 2026 update requires of a Spark (spark-ota-2604.json), as far as the probe asks.
STOCK = (
    "libnvidia-cfg1-580 libnvidia-common-580 libnvidia-compute-580 libnvidia-container-tools libnvidia-container1 "
    "libnvidia-decode-580 libnvidia-egl-wayland1 libnvidia-encode-580 libnvidia-extra-580 libnvidia-fbc1-580 "
    "libnvidia-gl-580 nvidia-compute-utils-580 nvidia-conf-xconfig nvidia-container-toolkit "
    "nvidia-container-toolkit-base nvidia-dgx-telemetry nvidia-driver-580-open nvidia-firmware-580-580.142 "
    "nvidia-kernel-common-580 "
    "nvidia-kernel-defaults nvidia-kernel-source-580-open nvidia-raid-config nvidia-redfish-config nvidia-settings "
    "nvidia-spark-ota-check nvidia-spark-repo nvidia-system-core nvidia-system-extra nvidia-system-station "
    "nvidia-system-station-apps nvidia-system-station-common nvidia-system-station-core nvidia-system-station-games "
    "nvidia-system-station-localization nvidia-system-station-utils nvidia-system-utils nvidia-update-manager "
    "nvidia-utils-580 linux-modules-nvidia-580-open-6.17.0-1032-nvidia"
).split()


def test_no_package_of_a_stock_spark_is_foreign() -> None:
    listed = "".join(f"{name} 580.178.04-1 ii \n" for name in STOCK)
    node = facts_of(document(bundle(answers={"packages": listed})))
    assert named(node, book().foreign_packages) == []
    assert {row.name for row in named(node, book().version_packages)} == {
        "nvidia-driver-580-open",
        "libnvidia-compute-580",
    }


@pytest.mark.parametrize(
    "name",
    [
        *("nvidia-driver-580-server", "nvidia-driver-580-server-open", "nvidia-dkms-570-server-open"),
        *("nvidia-headless-580-server-open", "nvidia-headless-no-dkms-580-server", "nvidia-utils-580-server"),
        *("libnvidia-compute-580-server", "linux-modules-nvidia-580-server-open-6.17.0-1032-nvidia"),
        *("nvidia-kernel-source-580-server-open", "nvidia-firmware-580-server-580.178.04", "nvidia-fabricmanager-580"),
        *("nvidia-fabricmanager", "nvidia-nvswitch-580", "nvidia-compute-utils-580-server"),
    ],
)
def test_packages_of_a_data_centre_are_foreign(name: str) -> None:
    assert named(facts_of(document(bundle(answers={"packages": f"{name} 1 ii \n"}))), book().foreign_packages)


def test_one_cause_is_said_once() -> None:
    silent = Completed((), None, timeout=10.0)
    raw = bundle(answers=dict.fromkeys(("gpu", "gpu-details", "tenants"), silent))
    found = preflight.check(seen(document(raw, models=MODELS)), PLAIN, CATALOG)
    assert [one.id for one in found if one.severity != "info"] == ["gpu.visible"]
