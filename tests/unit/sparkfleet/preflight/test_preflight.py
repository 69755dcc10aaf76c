"""Findings: a fit host has none, and each defect of the raw material is named with what was found and what to do."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkfleet.preflight import preflight
from sparkfleet.preflight.checks import CHECKS
from sparkfleet.preflight.checks.view import View
from sparkfleet.preflight.findings import book
from sparkfleet.preflight.seen import Seen
from sparkfleet.release.rules import Finding
from sparknode.base.shape import written
from sparknode.facts.collect import Raw
from sparknode.state.release import Release
from tests.bundles import (
    CONTAINER,
    FIXTURES,
    MISSING,
    TIMEOUT,
    bundle,
    cdi_spec,
    document,
    facts_of,
    meminfo,
    seen,
)
from tests.plan.harness import DRAFTER, DRAFTER_COMMIT, TARGET, TARGET_COMMIT
from tests.unit.sparkfleet.preflight.defects import (
    CATALOG,
    CDI,
    CONTAINERD_STORE,
    DEFECTS,
    PLAIN,
    answers,
    docker,
    gpu,
    release,
    with_files,
)
from tests.unit.sparkfleet.preflight.defects import disk as disk_of
from tests.unit.sparknode.facts.test_facts import FIRST, changed, keys

MODELS = [{"repo": TARGET, "commit": TARGET_COMMIT}, {"repo": DRAFTER, "commit": DRAFTER_COMMIT}]
# Said of a fit host as well.
GOOD_TO_KNOW = {"host.identity", "mem.fits", "fw.versions"}


def check(raw: Raw, of: Release = PLAIN, **fleet: Any) -> dict[str, Finding]:
    found = preflight.check(seen(document(raw, **{"models": MODELS, **fleet})), of, CATALOG)
    return {one.id: one for one in found if one.id not in GOOD_TO_KNOW or one.severity != "info"}


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
    "docker.images",
    "host.busy",
    "host.skew",
}


def test_every_row_of_the_catalogue_has_a_check_and_a_test() -> None:
    without_check = {"probe", "sudo.password", "fleet.skew", "waiver.expired"}
    assert set(CHECKS) == set(book().checks) - without_check
    assert set(DEFECTS) | APART | GOOD_TO_KNOW == set(CHECKS)


@pytest.mark.parametrize("of", [PLAIN, CDI], ids=["gpus", "cdi"])
def test_a_fit_host_has_no_findings(of: Release) -> None:
    assert check(bundle(), of) == {}


@pytest.mark.parametrize(
    ("row", "number"), [(row, number) for row, cases in DEFECTS.items() for number in range(len(cases))]
)
def test_each_defect_is_named(row: str, number: int) -> None:
    raw, severity, words = DEFECTS[row][number]
    found = check(raw)
    assert set(found) - ALONGSIDE.get(row, set()) == {row}
    assert found[row].severity == severity
    assert words in found[row].text()
    assert book().checks[row].remedy, "a finding says what to type"


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
    assert "driver.version" not in check(answers(gpu=gpu(driver="[N/A]"))), "the kernel says it too"
    found = check(bundle({"/sys/module/nvidia/version": None}, {"gpu": gpu(driver="[N/A]")}))
    assert found["driver.version"].severity == "fail"
    assert "unknown: " in found["driver.version"].found


def test_what_an_image_needs_of_the_driver() -> None:
    lines = {
        name: line.model_copy(update={"min_driver": "580.200", "cuda_toolkit": "13.2"})
        for name, line in CATALOG.lines.items()
    }
    picky = CATALOG.model_copy(update={"lines": lines})
    found = {one.id: one for one in preflight.check(seen(document(models=MODELS)), PLAIN, picky)}
    assert "580.200 or newer, which image 2026-06-11-pr41703 needs" in found["driver.image"].text()
    assert "was built with CUDA 13.2, but the driver has 13.0" in found["cuda.toolchain"].text()


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
    node = document(models=MODELS)
    node["host"] = {**node["host"], "time": time}
    found = {one.id: one for one in preflight.check(seen(node, 1_795_000_000.5), PLAIN, CATALOG)}
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
    assert "rollout r1 of ann@desk" in found["host.busy"].text()
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
    (found,) = preflight.check(Seen(error=error), PLAIN, CATALOG)
    assert (found.id, found.severity) == (row, "fail")
    assert words in found.text()


@pytest.mark.parametrize("name", sorted({name for text in book().checks.values() for name in text.reads}))
def test_what_cannot_be_read_is_unknown_and_never_fit(name: str) -> None:
    if name in ("memory", "disk"):
        raw = with_files(memory="") if name == "memory" else answers(disk=TIMEOUT)
    elif name == "containerd":
        raw = answers(docker=docker(**CONTAINERD_STORE), containerd=TIMEOUT)
    else:
        raw = bundle(answers={name: TIMEOUT})
    found = {one.id: one for one in preflight.check(seen(document(raw, models=MODELS)), PLAIN, CATALOG)}
    failed = {row for row, one in found.items() if one.severity == "fail"}
    # What failed for the same reason says it for the rows that need it.
    rows = [row for row, text in book().checks.items() if name in text.reads and not failed & set(text.needs)]
    assert [row for row in rows if row not in found] == []
    assert all(found[row].severity == "fail" for row in rows if book().checks[row].unknown == "fail")


LOST = [{"release": "r2", "elsewhere": True}, {"release": "r1", "elsewhere": False}]


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (LOST, "lacks the images of releases r2, r1; its other store still has r2"),
        (LOST[1:], "lacks the images of releases r1\n"),
    ],
)
def test_images_that_went_with_the_store_are_named(lost: list[dict[str, Any]], words: str) -> None:
    node = document(answers(docker=docker(**CONTAINERD_STORE)), models=MODELS)
    node["docker"]["lost"] = lost
    (found,) = [one for one in preflight.check(seen(node), PLAIN, CATALOG) if one.id == "docker.images"]
    assert found.severity == "warn"
    assert f"Docker's image store (containerd) {words}" in f"{found.found}\n"


def mounts(**free: int) -> str:
    """`df` with these bytes free of 4 TB, by the mount's path with _ for /."""
    return "".join(f"{left} {4 * 10**12} 9000000 10000000 {name.replace('_', '/')}\n" for name, left in free.items())


ROOMY, FULL = 3 * 10**12, 9 * 10**9
ELSEWHERE = {"DockerRootDir": "/mnt/nvme/docker"}


@pytest.mark.parametrize(
    ("store", "containerd", "disk", "named"),
    [
        ({}, "/var/lib/containerd", {"_": FULL, "_mnt": ROOMY}, "/var/lib/docker"),
        (ELSEWHERE, "/var/lib/containerd", {"_": ROOMY, "_mnt": FULL}, "/mnt/nvme/docker"),
        (ELSEWHERE, "/var/lib/containerd", {"_": FULL, "_mnt": ROOMY, "_var_lib_sparkfleet": ROOMY}, None),
        (CONTAINERD_STORE, "/var/lib/containerd", {"_": FULL}, "/var/lib/containerd"),
        (
            {**CONTAINERD_STORE, **ELSEWHERE},
            "/var/lib/containerd",
            {"_": FULL, "_mnt": ROOMY, "_var_lib_sparkfleet": ROOMY},
            "/var/lib/containerd",
        ),
        ({**CONTAINERD_STORE, **ELSEWHERE}, "/var/lib/containerd", {"_": ROOMY, "_mnt": FULL}, None),
        (CONTAINERD_STORE, "/mnt/containerd", {"_": ROOMY, "_mnt": FULL}, "/mnt/containerd"),
        (CONTAINERD_STORE, "/mnt/containerd", {"_": ROOMY, "_mnt": ROOMY}, None),
        (
            {**CONTAINERD_STORE, **ELSEWHERE, "Containerd": {"Address": "/var/run/docker/containerd/containerd.sock"}},
            "/var/lib/containerd",
            {"_": ROOMY, "_mnt": FULL},
            "/mnt/nvme/docker/containerd/daemon",
        ),
    ],
)
def test_the_room_that_counts_is_that_of_the_store_in_use(
    store: dict[str, Any], containerd: str, disk: dict[str, int], named: str | None
) -> None:
    found = check(answers(docker=docker(**store), containerd=f'root = "{containerd}"\n', disk=mounts(**disk)))
    assert ("disk.space" in found) == (named is not None)
    assert not named or f"{named} has 9.0 GB free" in found["disk.space"].text()


def test_a_disk_of_dockers_own_that_runs_full_is_seen_beside_the_images() -> None:
    raw = answers(docker=docker(**CONTAINERD_STORE, **ELSEWHERE), disk=mounts(_=ROOMY, _mnt=FULL))
    assert "/mnt/nvme/docker has 0% free" in check(raw)["disk.low"].text()


@pytest.mark.parametrize(("store", "need"), [({}, "78.5"), (CONTAINERD_STORE, "74.6")])
def test_an_image_needs_more_in_containerds_store(store: dict[str, Any], need: str) -> None:
    image = next(one for one in CATALOG.images.values() if one.containerd_bytes)
    known = CATALOG.model_copy(update={"images": {**CATALOG.images, PLAIN.image_tag: image}})
    node = document(answers(docker=docker(**store), disk=disk_of(FULL)), models=MODELS)
    (found,) = [one for one in preflight.check(seen(node), PLAIN, known) if one.id == "disk.space"]
    assert f"image {float(need):.0f}" in found.text()


@pytest.mark.parametrize("where", list(keys(written(facts_of(FIRST)))), ids=lambda where: ".".join(map(str, where)))
def test_no_value_that_is_read_makes_a_check_raise(where: tuple[Any, ...]) -> None:
    values: list[Any] = [None, "", "x", 0, (1 << 63) - 1, 1e300, [], {}, True]
    nodes = [seen(changed(where, value)) for value in values]
    answered = [node for node in nodes if node.facts]
    for node, of in product(answered, (PLAIN, CDI)):
        assert "probe" not in {one.id for one in preflight.check(node, of, CATALOG)}
    for node in nodes:
        if node not in answered:
            (refused,) = preflight.check(node, PLAIN, CATALOG)
            assert refused.id == "probe"
            assert str(where[-1]) in refused.found


SECTIONS = sorted(document())


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
    node = seen({**document(), **changes})
    found = preflight.check(node, PLAIN, CATALOG)
    said = json.loads(json.dumps(preflight.of_host("x", node, found, CATALOG), default=str))
    assert said["fit"] == all(one["severity"] != "fail" for one in said["findings"])
    assert {one["id"] for one in said["findings"]} <= book().checks.keys()
    assert not any("the check failed" in one.found for one in found)


@pytest.mark.parametrize("problem", [ZeroDivisionError("division by zero"), KeyError("x"), ValueError("no figure")])
def test_a_check_that_fails_is_undecided_and_costs_no_other_check(
    monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def failing(_: View) -> object:
        raise problem

    fit = check(bundle())
    monkeypatch.setitem(CHECKS, "mem.available", failing)
    found = check(bundle())
    assert "unknown: the check failed" in found.pop("mem.available").found
    assert found == {name: one for name, one in fit.items() if name != "mem.available"}


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
    found = {one.id: one for one in preflight.check(seen(document(raw)), PLAIN, CATALOG)}
    assert expected in found["host.identity"].found
    assert ("gpu.kind" in found) == bool(name)


def test_the_platform_line_decides_nothing() -> None:
    text = (FIXTURES / "dgx-release.fe.txt").read_text()
    assert check(with_files(dgx=text)) == {}


def test_the_largest_utilization_that_fits_is_said() -> None:
    found = {
        one.id: one
        for one in preflight.check(seen(document(with_files(memory=meminfo(MemAvailable=80_000_000)))), PLAIN, CATALOG)
    }
    assert "fits now is 0.62 (0.54 with room" in found["mem.fits"].found
