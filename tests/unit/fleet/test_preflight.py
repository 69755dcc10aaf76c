"""Findings: a fit host has none, and each defect of the raw material is named with what was found and what to do."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkfleet import ROOT, lock, preflight
from sparkfleet.catalog import load
from sparkfleet.checks import CHECKS
from sparkfleet.decisions import Decisions, Waiver
from sparkfleet.findings import book, finding
from sparkfleet.handbook import handbook
from sparkfleet.recipe import Choice
from sparkfleet.release import compile_release
from sparkfleet.rules import Deployment, Finding, rule_texts
from sparknode.collect import Raw
from sparknode.shell import Completed
from tests.bundles import (
    CONTAINER,
    DOCKER,
    DRIVER,
    FIXTURES,
    MISSING,
    TIMEOUT,
    bundle,
    cdi_spec,
    details,
    document,
    meminfo,
    units,
)
from tests.plan.harness import CURRENT_TAG, DRAFTER, DRAFTER_COMMIT, TARGET, TARGET_COMMIT, lock_document

CATALOG = load()
MODELS = [{"repo": TARGET, "commit": TARGET_COMMIT}, {"repo": DRAFTER, "commit": DRAFTER_COMMIT}]
# Said of a fit host as well.
GOOD_TO_KNOW = {"host.identity", "mem.fits", "fw.versions"}
TODAY = datetime.date(2026, 11, 23)


def release(tag: str = CURRENT_TAG, hardware: str = "gb10", gpu: Any = "gpus", **overrides: Any) -> dict[str, Any]:
    asked = Choice("gemma4-26b-a4b-nvfp4", tag, "agentic", hardware, overrides=overrides)
    locked = lock.Lock.model_validate(lock_document()) if hardware == "gb10" and tag == CURRENT_TAG else None
    return compile_release(CATALOG, locked, asked, Deployment(trial=True), gpu).release


PLAIN, CDI = release(), release(gpu="cdi")


def check(raw: Raw, of: dict[str, Any] = PLAIN, **fleet: Any) -> dict[str, Finding]:
    found = preflight.check(document(raw, **{"models": MODELS, **fleet}), of, CATALOG)
    return {one.id: one for one in found if one.id not in GOOD_TO_KNOW or one.severity != "info"}


def gpu(
    name: str = "NVIDIA GB10",
    capability: str = "12.1",
    driver: str = DRIVER,
    rest: str = "38, 4.2, 208, 0, [N/A], [N/A]",
) -> str:
    return f"{name}, {capability}, {driver}, {rest}\n"


def docker(**changes: Any) -> str:
    return json.dumps(DOCKER | changes)


def disk(free: int, total: int = 4 * 10**12, inodes: int = 200_000_000) -> str:
    return f"{free} {total} {inodes} 250000000 /\n"


def answers(**given: Completed | str) -> Raw:
    return bundle(answers={name.replace("_", "-"): done for name, done in given.items()})


def with_files(**changes: str | None) -> Raw:
    paths = {"dgx": "/etc/dgx-release", "memory": "/proc/meminfo", "psi": "/proc/pressure/memory"}
    paths |= {"spec": "/etc/cdi/nvidia.yaml", "run_spec": "/var/run/cdi/nvidia.yaml", "route": "/proc/net/route"}
    paths |= {"speed": "/sys/class/net/enP7s7/speed", "zone": "/sys/class/thermal/thermal_zone0/temp"}
    paths |= {"reboot": "/var/run/reboot-required", "module": "/sys/module/nvidia/version"}
    return bundle({paths[name]: text for name, text in changes.items()})


ORPHAN = "   4242 VLLM::EngineCor 0::/user.slice/user-1000.slice\n"
BY_CDI = {"Runtime": "runc", "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]}
OTHER_RUNTIME = json.dumps(
    [{"Name": "/ollama", "HostConfig": {"Runtime": "nvidia"}}, {"Name": "/ours", "HostConfig": BY_CDI}]
)
WLAN = "Iface Destination Gateway Flags RefCnt Use Metric Mask\nwlP9s9 00000000 0101A8C0 3 0 0 600 0\n"

# row → the material, the severity, words of the message
DEFECTS: dict[str, list[tuple[Raw, str, str]]] = {
    "host.architecture": [(answers(uname="pc 6.17.0-1032-nvidia x86_64\n"), "fail", "x86_64")],
    "host.os": [(with_files(dgx=None), "warn", "Ubuntu 24.04.5 LTS without /etc/dgx-release")],
    "host.clock": [(answers(clock="NTPSynchronized=no\n"), "warn", "timedatectl set-ntp true")],
    "host.desktop": [(answers(processes="  99 gnome-shell 0::/user.slice\n"), "warn", "gnome-shell")],
    "host.sleep": [
        (answers(units=units(suspend_target="loaded inactive static")), "warn", "not masked: suspend.target")
    ],
    "host.thermal": [
        (answers(gpu=gpu(rest="91, 60, 1400, 96, [N/A], [N/A]")), "warn", "the GPU is at 91 °C"),
        (with_files(zone="95100\n"), "warn", "the hottest thermal zone is at 95 °C"),
    ],
    "kernel.minimum": [(answers(uname="gx10 5.14.0-1-nvidia aarch64\n"), "fail", "kernel 5.14.0-1-nvidia")],
    "kernel.version": [
        (answers(uname="gx10 7.0.0-1019-nvidia aarch64\n"), "warn", "kho=off"),
        (answers(uname="gx10 6.17.0-1008-nvidia aarch64\n"), "warn", "panics"),
        (answers(uname="gx10 6.17.0-1021-nvidia aarch64\n"), "warn", "ConnectX-7"),
    ],
    "kernel.kho": [(with_files(memory=meminfo(CmaTotal=0, CmaFree=9751756)), "warn", "CmaFree 9751756 KiB")],
    "ota.torn": [(answers(ota="detected_ota OTA2607\ntorn-score: 3\n"), "warn", "a torn score of 3")],
    "gpu.visible": [
        (answers(gpu="No devices were found\n"), "fail", "No devices were found"),
        (answers(gpu=Completed((), 6, "No devices were found\n")), "fail", "NVRM|Xid"),
        (
            answers(gpu=Completed((), 9, "", "NVIDIA-SMI has failed because it couldn't communicate")),
            "fail",
            "communicate",
        ),
        (answers(gpu=TIMEOUT), "fail", "did not answer within 10 s"),
        (answers(gpu=MISSING), "fail", "not installed"),
        (answers(gpu="\x00\x7fNVIDIA GB\x1b[31m, ,, [N/A\n<!doctype html>"), "fail", "no GPU"),
    ],
    "gpu.kind": [
        (answers(gpu=gpu("NVIDIA GeForce RTX 5090", "12.0", rest="40, 60, 208, 0, 32607, 30000")), "fail", "RTX 5090"),
    ],
    "gpu.count": [(answers(gpu=gpu() * 2), "fail", "the second is NVIDIA GB10")],
    "gpu.orphan": [(answers(processes=ORPHAN), "fail", "kill -9 4242")],
    "gpu.tenants": [
        (
            answers(tenants="77, ollama, 40123 MiB\n", processes=" 77 ollama 0::/system.slice/ollama\n"),
            "warn",
            "ollama (pid 77, 40123 MiB)",
        ),
        (answers(tenants="77, odd, name, [N/A]\n"), "warn", "odd, name (pid 77, [N/A])"),
    ],
    "reload.safe": [(answers(containers=OTHER_RUNTIME), "warn", "injected by hook: ollama")],
    "driver.version": [
        (answers(gpu=gpu(driver="590.48.01"), gpu_details=""), "warn", "93 GB"),
    ],
    "driver.loaded": [(answers(gpu_details=details("580.173.02")), "fail", "the GPU runs firmware 580.173.02")],
    "driver.installed": [
        (answers(packages="nvidia-driver-580-open 580.190.01-0ubuntu1 hi \n"), "warn", "580.190.01 installed")
    ],
    "driver.reboot": [(with_files(reboot="*** System restart required ***\n"), "warn", "reboot")],
    "driver.next_kernel": [
        (
            answers(
                kernels="/boot/vmlinuz vmlinuz-7.0.0-1020-nvidia\n"
                "/lib/modules/6.17.0-1032-nvidia/kernel/nvidia-580-open/nvidia.ko \n"
            ),
            "fail",
            "linux-modules-nvidia for 7.0.0-1020-nvidia",
        ),
    ],
    "driver.foreign": [
        (answers(packages="nvidia-fabricmanager-580 580.178.04-1 ii \n"), "fail", "apt remove nvidia-fabricmanager-580")
    ],
    "docker.access": [
        (answers(docker=Completed((), 1, "", "/run/docker.sock: nobody answers there")), "fail", "nobody answers"),
        (answers(docker=Completed((), 500, "", "context canceled")), "fail", "context canceled"),
        (answers(docker="{}"), "fail", "names no version"),
        (answers(docker=TIMEOUT), "fail", "did not answer"),
    ],
    "docker.version": [(answers(docker=docker(ServerVersion="23.0.1")), "fail", "Docker 23.0.1")],
    "docker.snap": [(answers(docker=docker(DockerRootDir="/var/snap/docker/common/var-lib-docker")), "warn", "snap")],
    "docker.group": [(answers(docker_group="docker:x:988:\n"), "info", "nobody is in the group docker")],
    "cdi.driver": [
        (with_files(run_spec=cdi_spec("580.159.03")), "warn", "written for driver 580.159.03, and 580.178.04 is loaded")
    ],
    "cdi.duplicate": [(with_files(spec=cdi_spec()), "warn", "/etc/cdi/nvidia.yaml and /var/run/cdi/nvidia.yaml")],
    "cdi.refresh": [
        (
            answers(units=units(**{"nvidia-cdi-refresh.path": "loaded inactive disabled"})),
            "warn",
            "nvidia-cdi-refresh.path is disabled",
        ),
        (
            answers(units=units(**{"nvidia-cdi-refresh.path": "loaded inactive enabled"})),
            "warn",
            "nvidia-cdi-refresh.path is inactive",
        ),
        (answers(units=units(**{"nvidia-cdi-refresh.path": "not-found inactive "})), "warn", "is not installed"),
    ],
    "toolkit.version": [
        (answers(toolkit="NVIDIA Container Toolkit CLI version 1.19.1\n"), "warn", "faulty together with CDI"),
        (
            answers(toolkit=Completed((), 0, "", "NVIDIA Container Toolkit CLI version 1.17.8\n")),
            "warn",
            "renews the CDI file",
        ),
    ],
    "mem.available": [
        (with_files(memory=meminfo(MemAvailable=50_000_000)), "fail", "set gpu_memory_utilization to 0.39 or less"),
        (
            with_files(memory=meminfo(HugePages_Total=1000, HugePages_Free=900)),
            "fail",
            "MemAvailable is 1.8 of 121.6 GiB",
        ),
    ],
    "mem.headroom": [
        (
            with_files(memory=meminfo(MemAvailable=105_000_000, MemFree=104_000_000)),
            "warn",
            "2.8 GiB above what the start needs",
        )
    ],
    "mem.free": [(with_files(memory=meminfo(MemFree=40_000_000)), "warn", "MemFree is 38.1 GiB")],
    "mem.swap": [(with_files(memory=meminfo(SwapFree=10_000_000)), "warn", "6.5 GiB of swap")],
    "mem.pressure": [(with_files(psi="full avg10=1.25 avg60=0.00 avg300=0.00 total=0\n"), "warn", "1.25 %")],
    "mem.guard": [(answers(units=units(earlyoom_service="not-found inactive ")), "info", "earlyoom does not run")],
    "port.free": [
        (answers(ports='LISTEN 0 9 *:8000 *:* users:(("ollama",pid=77,fd=3))\n'), "fail", "taken by ollama (pid 77)"),
        (answers(ports="LISTEN 0 9 *:8000 *:*\n"), "fail", "port 8000 is taken by a process (pid unknown)"),
    ],
    "disk.space": [(answers(disk=disk(4 * 10**9, 4 * 10**10)), "fail", "/var/lib/docker has 4.0 GB free")],
    "disk.low": [(answers(disk=disk(10**11, 4 * 10**12)), "warn", "2% free")],
    "disk.inodes": [(answers(disk=disk(3 * 10**12, inodes=1000)), "warn", "0.0% of its inodes")],
    "net.wifi": [(with_files(route=WLAN), "warn", "the default route is over wlP9s9")],
    "net.speed": [(with_files(speed="100\n"), "warn", "enP7s7 runs at 100 Mbit/s")],
    "tools.rsync": [
        (
            answers(programs="/usr/bin/systemd-run\n/usr/bin/nvidia-container-runtime-hook\n"),
            "fail",
            "apt install rsync",
        )
    ],
    "tools.systemd_run": [
        (answers(programs="/usr/bin/rsync\n/usr/bin/nvidia-container-runtime-hook\n"), "fail", "systemd-run is missing")
    ],
}
# What a defect cannot help but bring with it.
ALONGSIDE = {"gpu.kind": {"host.identity"}, "disk.space": {"disk.low"}, "driver.version": set()}
# Rows that need another release, another state of the fleet, or several hosts; each has a test of its own below.
APART = {
    "gpu.container",
    "driver.image",
    "cuda.toolchain",
    "docker.cdi",
    "mem.critical",
    "gpu.memory",
    "host.busy",
    "host.skew",
}


def test_every_row_of_the_catalogue_has_a_check_and_a_test() -> None:
    without_check = {"probe", "sudo.password", "fleet.skew", "waiver.expired"}
    assert set(CHECKS) == set(book().checks) - without_check
    assert set(DEFECTS) | APART | GOOD_TO_KNOW == set(CHECKS)


@pytest.mark.parametrize("of", [PLAIN, CDI], ids=["gpus", "cdi"])
def test_a_fit_host_has_no_findings(of: dict[str, Any]) -> None:
    assert check(bundle(), of) == {}


@pytest.mark.parametrize(
    ("row", "number"), [(row, number) for row, cases in DEFECTS.items() for number in range(len(cases))]
)
def test_each_defect_is_named(row: str, number: int) -> None:
    raw, severity, words = DEFECTS[row][number]
    found = check(raw)
    assert set(found) - ALONGSIDE.get(row, set()) - UNDECIDED.get(row, set()) == {row}
    assert found[row].severity == severity
    assert words in found[row].text()
    assert book().checks[row].remedy, "a finding says what to type"


# A program that gave no answer leaves these rows undecided as well, which they say.
UNDECIDED = {"gpu.visible": {"host.identity", "host.thermal", "driver.version", "driver.image", "gpu.memory"}}
UNDECIDED |= {"docker.access": {"docker.cdi", "docker.snap"}}


@pytest.mark.parametrize(
    ("version", "severity", "words"),
    [
        ("575.51.03", "fail", "580.65.06 or newer"),
        ("580.95.05", "warn", "launch driver"),
        ("580.159.03", "warn", "CUDA error 800"),
        ("580.173.02", None, ""),
        ("580.142", None, ""),
        ("595.10", "warn", "not support"),
        ("610.1", "warn", "not support"),
    ],
)
def test_verdicts_on_drivers(version: str, severity: str | None, words: str) -> None:
    found = check(bundle({"/sys/module/nvidia/version": None}, {"gpu": gpu(driver=version), "gpu-details": ""}))
    assert found["driver.version"].severity == severity if severity else "driver.version" not in found
    assert not severity or words in found["driver.version"].text()


def test_a_driver_without_a_version_is_unknown_and_not_fit() -> None:
    found = check(answers(gpu=gpu(driver="[N/A]")))
    assert found["driver.version"].severity == "fail"
    assert "unknown: " in found["driver.version"].found


def test_what_an_image_needs_of_the_driver() -> None:
    lines = {
        name: line.model_copy(update={"min_driver": "580.200", "cuda_toolkit": "13.2"})
        for name, line in CATALOG.lines.items()
    }
    picky = CATALOG.model_copy(update={"lines": lines})
    found = {one.id: one for one in preflight.check(document(models=MODELS), PLAIN, picky)}
    assert "580.200 or newer, which image 2026-06-11-pr41703 needs" in found["driver.image"].text()
    assert "was built with CUDA 13.2, the driver has 13.0" in found["cuda.toolchain"].text()


def test_modules_in_an_unknown_place_prove_nothing() -> None:
    assert check(answers(kernels="/boot/vmlinuz vmlinuz-7.0.0-1020-nvidia\n")) == {}


def test_the_ways_into_a_container() -> None:
    nothing = bundle(
        {"/var/run/cdi/nvidia.yaml": None}, {"cdi": MISSING, "programs": "/usr/bin/rsync\n/usr/bin/systemd-run\n"}
    )
    assert "neither nvidia-container-runtime-hook nor a CDI device" in check(nothing)["gpu.container"].text()
    assert "no CDI device nvidia.com/gpu=all" in check(nothing, CDI)["gpu.container"].text()
    # Many stock Sparks have no runtime of the name nvidia, and need none; where there is one it is enough.
    runtime = {
        "docker": docker(Runtimes={"runc": {}, "nvidia": {}}),
        "programs": "/usr/bin/rsync\n/usr/bin/systemd-run\n",
    }
    assert "gpu.container" not in check(bundle({"/var/run/cdi/nvidia.yaml": None}, {"cdi": MISSING, **runtime}))
    # Without nvidia-ctk the specification itself says what there is.
    assert "gpu.container" not in check(answers(cdi=MISSING), CDI)
    assert check(with_files(run_spec=cdi_spec("580.159.03")), CDI)["cdi.driver"].severity == "fail"
    assert "Docker 27.1.0" in check(answers(docker=docker(ServerVersion="27.1.0")), CDI)["docker.cdi"].text()
    assert "docker.cdi" not in check(answers(docker=docker(ServerVersion="27.1.0")))
    assert "docker.cdi" not in check(answers(docker=docker(ServerVersion="27.1.0", CDISpecDirs=["/etc/cdi"])), CDI)


RTX = gpu("NVIDIA GeForce RTX 5090", "12.0", rest="40, 60, 208, 0, 32607, {free}")


def test_a_card_with_memory_of_its_own() -> None:
    of = release(hardware="rtx50", tag="vllm-openai-0.32.0") if "vllm-openai-0.32.0" in CATALOG.images else None
    assert of is not None
    pc = {"uname": "pc 6.17.0-1032-generic x86_64\n"}
    assert not {"gpu.memory", "mem.available", "host.os"} & set(
        check(bundle(None, {**pc, "gpu": RTX.format(free=32000)}), of)
    )
    short = check(bundle(None, {**pc, "gpu": RTX.format(free=8000)}), of)
    assert "7.8 of 31.8 GiB of the GPU's memory are free" in short["gpu.memory"].text()
    assert "mem.available" not in short
    unknown = check(bundle(None, {**pc, "gpu": RTX.format(free="[N/A]")}), of)
    assert unknown["gpu.memory"].found.startswith("unknown: ")


@pytest.mark.parametrize(
    ("time", "off"), [(1_795_000_000.0, None), (1_795_003_600.0, "+3600 s"), (1_794_999_900.0, "-100 s")]
)
def test_a_clock_that_is_off(time: float, off: str | None) -> None:
    node = {**document(models=MODELS), "read_at": 1_795_000_000.5}
    node["host"] = {**node["host"], "time": time}
    found = {one.id: one for one in preflight.check(node, PLAIN, CATALOG)}
    assert ("host.skew" in found) == bool(off)
    assert not off or off in found["host.skew"].text()


ACTIVE = {"unit": "active", "release": "x", "drift": []}


def test_a_serving_host_keeps_its_port_and_memory() -> None:
    memory, ports = meminfo(MemAvailable=20_000_000), "LISTEN 0 9 *:8000 *:*\n"
    inspected = json.dumps({"Id": CONTAINER})
    processes = f"  9 VLLM::EngineCor 0::/system.slice/docker-{CONTAINER}.scope\n"
    seen = {
        "ports": ports,
        "container": inspected,
        "processes": processes,
        "tenants": "9, VLLM::EngineCore, 97000 MiB\n",
    }
    assert check(bundle({"/proc/meminfo": memory}, seen), serving=ACTIVE) == {}
    low = bundle({"/proc/meminfo": meminfo(MemAvailable=3_000_000)}, seen)
    assert "2.9 GiB are available beside the serving engine" in check(low, serving=ACTIVE)["mem.critical"].text()


def test_an_engine_in_a_foreign_container_is_a_tenant_and_no_orphan() -> None:
    found = check(answers(processes="  9 VLLM::EngineCor 0::/system.slice/docker-0123.scope\n"))
    assert set(found) == {"gpu.tenants"}


def test_a_host_under_a_roll_out_is_busy_and_nothing_else() -> None:
    raw = bundle({"/proc/meminfo": meminfo(MemAvailable=20_000_000)}, {"ports": "LISTEN 0 9 *:8000 *:*\n"})
    step = {"rollout": "r1", "operator": "ann@desk", "since": "2026-11-23T10:00:00.000Z"}
    activation = {**step, "state": "reverting", "release": "x", "alive": True}
    found = check(raw, activation=activation)
    assert list(found) == ["host.busy"]
    assert "roll-out r1 of ann@desk" in found["host.busy"].text()
    assert "now `reverting`" in found["host.busy"].text()
    assert set(check(raw, activation={**activation, "alive": False})) == {"mem.available", "port.free"}


@pytest.mark.parametrize(
    ("error", "row", "words"),
    [
        ("the node's probe answered 'x'", "probe", "answered 'x'"),
        ("sudo: a password is required", "sudo.password", "NOPASSWD"),
    ],
)
def test_an_unanswered_probe_is_a_finding(error: str, row: str, words: str) -> None:
    (found,) = preflight.check({"error": error}, PLAIN, CATALOG)
    assert (found.id, found.severity) == (row, "fail")
    assert words in found.text()


@pytest.mark.parametrize("name", sorted({name for text in book().checks.values() for name in text.reads}))
def test_what_cannot_be_read_is_unknown_and_never_fit(name: str) -> None:
    if name in ("memory", "disk"):
        raw = with_files(memory="") if name == "memory" else answers(disk=TIMEOUT)
    else:
        raw = bundle(answers={name: TIMEOUT})
    found = {one.id: one for one in preflight.check(document(raw, models=MODELS), PLAIN, CATALOG)}
    rows = [row for row, text in book().checks.items() if name in text.reads]
    assert [row for row in rows if row not in found] == []
    assert all(found[row].severity == "fail" for row in rows if book().checks[row].unknown == "fail")


SECTIONS = sorted(document())


@given(
    st.dictionaries(
        st.sampled_from(SECTIONS),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=4),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_a_probe_of_any_shape_gives_findings_and_never_an_exception(changes: dict[str, Any]) -> None:
    found = preflight.check({**document(), **changes}, PLAIN, CATALOG)
    json.dumps(preflight.of_host("x", {**document(), **changes}, found, CATALOG), default=str)


def warning(row: str = "net.wifi") -> Finding:
    return Finding(row, "warn", "found", "expected", "why", "source", ("step",))


def test_a_waiver_holds_until_its_day_and_its_end_is_said() -> None:
    waivers = {"net.wifi": Waiver(reason="no cable there", until=TODAY)}
    (one,) = preflight.decided([warning()], Decisions(preflight_waivers=waivers), TODAY)
    assert (one.severity, one.found) == ("info", "found (waived until 2026-11-23: no cable there)")
    after = preflight.decided([warning()], Decisions(preflight_waivers=waivers), TODAY + datetime.timedelta(days=1))
    assert [(one.id, one.severity) for one in after] == [("waiver.expired", "warn"), ("net.wifi", "warn")]
    assert "ended on 2026-11-23 (no cable there)" in after[0].text()


def test_a_failure_is_not_waived_but_forced_by_name() -> None:
    failed = finding("docker.version", {}, PretendedView())
    waivers = {"docker.version": Waiver(reason="we know", until=TODAY)}
    assert not preflight.fit(preflight.decided([failed], Decisions(preflight_waivers=waivers), TODAY))
    (one,) = preflight.decided([failed], Decisions(force_preflight=["docker.version"]), TODAY)
    assert (one.severity, one.found) == ("warn", "passed over by force_preflight: Docker 23")
    assert not preflight.fit(preflight.decided([failed], Decisions(force_preflight=["docker.access"]), TODAY))


class PretendedView:
    hardware = CATALOG.hardware["gb10"]

    def __getitem__(self, _: str) -> dict[str, str]:
        return {"server_version": "23"}


def test_what_a_repair_will_mend_does_not_stop_the_run() -> None:
    found = preflight.check(document(with_files(run_spec=cdi_spec("580.159.03")), models=MODELS), CDI, CATALOG)
    assert not preflight.fit(preflight.decided(found, Decisions(repairs=["sleep_targets"]), TODAY))
    assert preflight.fit(preflight.decided(found, Decisions(repairs=["cdi_spec"]), TODAY))


def test_the_digest_says_each_thing_once_with_its_hosts() -> None:
    failed = Finding("gpu.visible", "fail", "no GPU", "one", "why", "source", ("type this",), maintenance=True)
    lines = preflight.digest({"a": [warning()], "b": [failed, warning()], "c": [warning()]})
    assert lines[0].startswith("fail: b: gpu.visible: no GPU")
    assert "in a maintenance window, by hand: type this" in lines[0]
    assert lines[1].startswith("warn: all hosts: net.wifi")
    assert "1 of 3 hosts are unfit: b; nothing was changed" in lines[2]
    assert lines[3] == "  to go on without them: --exclude b"
    assert preflight.digest({"a": [], "b": []}) == ["preflight: 2 of 2 hosts are fit"]


@pytest.mark.parametrize(
    ("dmi", "name", "expected"),
    [
        ({"sys_vendor": "NVIDIA", "product_name": "NVIDIA_DGX_Spark"}, "", "gb10, Founders Edition, DGX OS 7.6.0"),
        ({"sys_vendor": "Dell Inc.", "product_name": "Dell Pro Max with GB10 FCM1253"}, "", "Dell Pro Max"),
        ({"sys_vendor": "HP", "product_name": "HP ZGX Nano G1n AI Station"}, "", "HP ZGX Nano"),
        ({"sys_vendor": "LENOVO", "product_name": "30KL0004FC"}, "", "Lenovo ThinkStation PGX"),
        ({"sys_vendor": "MSI", "product_name": "MS-C931"}, "", "MSI EdgeXpert"),
        ({"sys_vendor": "GIGABYTE", "product_name": "AI TOP ATOM"}, "", "gb10, GIGABYTE AI TOP ATOM"),
        ({}, "NVIDIA H100 80GB HBM3", "a machine that the catalogue does not know (NVIDIA H100 80GB HBM3)"),
    ],
)
def test_kinds_are_told_by_the_gpu_and_boxes_by_dmi(dmi: dict[str, str], name: str, expected: str) -> None:
    paths = {f"/sys/class/dmi/id/{key}": value for key, value in dmi.items()}
    pci = {"/sys/bus/pci/devices/000f:01:00.0/uevent": None} if name else {}
    raw = bundle({**paths, **pci}, {"gpu": gpu(name)} if name else {})
    found = {one.id: one for one in preflight.check(document(raw), PLAIN, CATALOG)}
    assert expected in found["host.identity"].found
    assert ("gpu.kind" in found) == bool(name)


def test_the_platform_line_decides_nothing() -> None:
    text = (FIXTURES / "dgx-release.fe.txt").read_text()
    assert check(with_files(dgx=text)) == {}


def test_the_largest_utilization_that_fits_is_said() -> None:
    found = {
        one.id: one
        for one in preflight.check(document(with_files(memory=meminfo(MemAvailable=80_000_000))), PLAIN, CATALOG)
    }
    assert "fits now is 0.62 (0.54 with room" in found["mem.fits"].found


def test_rows_that_are_decided_elsewhere_name_rules_that_exist() -> None:
    assert {rule for place in book().elsewhere.values() for rule in place.rules} <= rule_texts().keys()


def test_the_handbook_is_the_catalogue() -> None:
    assert (ROOT / "docs" / "preflight.md").read_text(encoding="utf-8") == handbook()
    assert "    docker info --format '{{json .CDISpecDirs}}'\n" in handbook(), "commands are there as they are typed"
