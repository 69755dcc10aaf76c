"""Everything that a check or a plan asks of a node, in one document and one trip.

Nothing here raises and nothing waits for long: all programs are asked at once under one deadline. What can't be read
is None or empty in the document, and listed under `unreadable` with its reason, so that nobody takes it for a good
answer. It works without root, which then can't see some things. Serial numbers and the UUIDs of hardware never leave
the node.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from sparknode.base import parse
from sparknode.base.paths import SERVE_UNIT, Paths
from sparknode.base.process import Completed
from sparknode.base.shape import written
from sparknode.base.system import Host
from sparknode.facts import facts as schema
from sparknode.facts import smi, updates
from sparknode.facts.collect import BOM, NOT_ASKED, Raw, collect
from sparknode.facts.facts import Facts
from sparknode.host import imagestore, node_status
from sparknode.host.docker import read_lookup
from sparknode.host.owners import owner
from sparknode.state.status import NodeStatus

STATE = "/var/lib/sparkfleet"
_CDI_SPEC = re.compile(r"/(?:etc|var/run)/cdi/.*\.(?:yaml|yml|json)")
_ENGINE = re.compile(r"VLLM::|sglang::")
_ROOTLESS = {"dockerd", "rootlesskit"}
_DESKTOP = {"gnome-shell", "Xorg", "Xwayland", "plasmashell"}
# Programs that end otherwise than with 0 although they answered: no such group, no such folder, none that matches.
# nvidia-smi ends with 14 where it answers for a card whose infoROM is damaged.
_ANSWERS = {
    **{"docker-group": {2}, "kernels": {1}, "packages": {1}, "disk": {1}},
    **{name: {14} for name in ("gpu", "gpu-details", "tenants")},
}


def probe(host: Host, raw: Raw | None = None) -> dict[str, Any]:
    """The whole document, of this machine or of a bundle."""
    raw = raw or collect(host)
    _, unread = node_status.history(host.paths)
    found = facts(raw)
    lost = imagestore.lost(host.paths, store_of(without_marks(raw)), raw.commands["images"])
    found = replace(
        found,
        sparknode=schema.Program(installed_sha256(host.paths)),
        docker=replace(found.docker, lost=tuple(schema.Lost(**row) for row in lost)),
        unreadable=(*found.unreadable, *([schema.Unread("journal", unread)] if unread else [])),
    )
    return {**written(found), "fleet": node_status.fleet(host, raw.commands)}


def installed_sha256(paths: Paths) -> str | None:
    try:
        return hashlib.sha256(paths.program.read_bytes()).hexdigest()
    except OSError:
        return None


def facts(raw: Raw) -> Facts:
    """What the material says; pure. What only the host's own files say is as on a bare one."""
    raw = without_marks(raw)
    mounts = parse.disks(answer(raw, "disk"))
    memory = memory_of(raw)
    docker, store = docker_of(raw), store_of(raw)
    places = {"images": store.folder, "state": STATE, "docker": store.docker_root}
    if store.folder == store.docker_root:
        del places["docker"]
    disks = [(path, what, mounted(mounts, path)) for what, path in places.items()]
    missing = [] if memory.total_kib and memory.available_kib else [("memory", "/proc/meminfo names no total")]
    if answer(raw, "ota").strip() and not updates.ota(answer(raw, "ota")):
        missing.append(("ota", "nvidia-spark-ota-check printed no torn score"))
    if docker.image_store != imagestore.GRAPHDRIVER and not store.told:
        missing.append(("containerd", f"containerd names no root of its own; {store.containerd_root} was looked at"))
    missing += [(path, "`df` names no file system for it") for path, _, sizes in disks if not sizes]
    return Facts(
        sparknode=schema.Program(None),
        host=host_of(raw),
        memory=memory,
        gpu=gpu_of(raw),
        docker=docker,
        injection=injection(raw),
        disk=tuple(schema.Disk(path, what, **sizes) for path, what, sizes in disks if sizes),
        listening=tuple(schema.Listener(**row) for row in parse.listening(answer(raw, "ports"))),
        # The first is the fleet's own, and not a matter of the host.
        units={
            name: schema.Unit(*(row.get(key) for key in ("LoadState", "ActiveState", "UnitFileState")))
            for name, row in parse.units(answer(raw, "units").partition("\n\n")[2]).items()
        },
        packages=tuple(schema.Package(**row) for row in parse.packages(answer(raw, "packages"))),
        kernels=schema.Kernels(**parse.kernels(answer(raw, "kernels"))),
        network=network(raw),
        firmware=updates.firmware(answer(raw, "firmware")),
        earlyoom=parse.assignments(raw.files.get("/etc/default/earlyoom", "")).get("EARLYOOM_ARGS"),
        tools=schema.Tools(has(raw, "rsync"), has(raw, "systemd-run")),
        unreadable=tuple(schema.Unread(str(what), str(why)) for what, why in [*unanswered(raw), *missing]),
        fleet=NodeStatus(),
    )


def store_of(raw: Raw) -> imagestore.Store:
    return imagestore.read(parse.docker_info(raw.commands["docker"].stdout), raw.commands["containerd"].stdout)


def without_marks(raw: Raw) -> Raw:
    """The same without byte order marks, which a file that somebody saved anew may begin with."""
    files = {path: text.removeprefix(BOM) for path, text in raw.files.items()}
    answers = {name: replace(done, stdout=done.stdout.removeprefix(BOM)) for name, done in raw.commands.items()}
    return Raw(files, raw.unread, answers, raw.at)


def answer(raw: Raw, name: str) -> str:
    """What a program printed, where it ended as it does when it answers."""
    done = raw.commands[name]
    return done.stdout if understood(name, done) else ""


def understood(name: str, done: Completed) -> bool:
    """A container that does not exist is an answer; so is nvidia-smi that names no device."""
    if name == "container":
        return read_lookup(done).error is None
    nothing = name in {"gpu", "gpu-details", "tenants"} and "No devices" in done.stdout + done.stderr
    return done.ok or nothing or done.rc in _ANSWERS.get(name, set())


def unanswered(raw: Raw) -> Iterator[tuple[str, str]]:
    for name, done in raw.commands.items():
        # Not every system has these, and without them there is nothing that they could say.
        # Where it matters, containerd's answer is looked at beside Docker's.
        absent = name == "containerd" or (name in {"ota", "firmware"} and done.missing)
        if not understood(name, done) and not absent:
            yield name, done.why
    yield from raw.unread.items()


def has(raw: Raw, program: str) -> bool:
    return any(line.endswith(f"/{program}") for line in answer(raw, "programs").splitlines())


def line_of(raw: Raw, path: str) -> str | None:
    return raw.files.get(path, "").strip() or None


def host_of(raw: Raw) -> schema.Host:
    hostname, kernel, machine = (*answer(raw, "uname").split(), None, None, None)[:3]
    names = {name for _, name, _ in parse.processes(answer(raw, "processes"))}
    zones = [parse.number(text) for path, text in raw.files.items() if path.startswith("/sys/class/thermal/")]
    dgx = parse.dgx_release(raw.files.get("/etc/dgx-release", ""))
    dmi = ("sys_vendor", "product_name", "bios_version", "ec_firmware_release")
    clock = parse.properties(answer(raw, "clock")).get("NTPSynchronized")
    return schema.Host(
        hostname=hostname,
        machine=machine,
        kernel=kernel,
        os=schema.Os(**parse.os_release(raw.files.get("/etc/os-release", ""))),
        dgx=schema.Dgx(**dgx) if dgx else None,
        fastos=parse.assignments(raw.files.get("/etc/fastos-release", "")).get("VERSION"),
        python=sys.version.split()[0],
        boot_id=line_of(raw, "/proc/sys/kernel/random/boot_id"),
        time=raw.at,
        uptime_s=parse.number(raw.files.get("/proc/uptime", "")),
        dmi=schema.Dmi(*(line_of(raw, f"/sys/class/dmi/id/{name}") for name in dmi)),
        reboot_required="/var/run/reboot-required" in raw.files,
        clock_synchronized=None if clock is None else clock == "yes",
        ota=updates.ota(answer(raw, "ota")),
        desktop=tuple(sorted(names & _DESKTOP)),
        # In thousandths; a zone that is off says a figure below zero, which is none here.
        hottest_zone_c=max((zone / 1000 for zone in zones if zone is not None), default=None),
    )


def memory_of(raw: Raw) -> schema.Memory:
    keys = parse.meminfo(raw.files.get("/proc/meminfo", ""))
    return schema.Memory(
        total_kib=keys.get("MemTotal"),
        available_kib=keys.get("MemAvailable"),
        free_kib=keys.get("MemFree"),
        swap_total_kib=keys.get("SwapTotal"),
        swap_free_kib=keys.get("SwapFree"),
        hugepages_total=keys.get("HugePages_Total"),
        hugepages_free=keys.get("HugePages_Free"),
        hugepage_kib=keys.get("Hugepagesize"),
        hugetlb_kib=keys.get("Hugetlb"),
        cma_total_kib=keys.get("CmaTotal"),
        cma_free_kib=keys.get("CmaFree"),
        stall_percent=parse.stall(raw.files.get("/proc/pressure/memory", "")),
    )


def gpu_of(raw: Raw) -> schema.Gpu:
    done = raw.commands["gpu"]
    devices: tuple[schema.Device, ...] = ()
    error: str | None = done.why
    if done.rc == NOT_ASKED:
        error = None
    elif not (done.timed_out or done.missing):
        devices, error = smi.gpus(done.stdout, done.rc)
        error = " ".join(done.stderr.split())[:300] or error if not devices else error
    cards, details = tuple(pci(raw)), smi.details(answer(raw, "gpu-details"))
    return schema.Gpu(
        devices=devices,
        error=error,
        rc=done.rc,
        library_version=smi.library(done.stdout + done.stderr),
        cuda_version=details.cuda_version,
        cuda_said=details.cuda_said,
        gsp_version=details.gsp_version,
        recovery=details.recovery,
        module_version=line_of(raw, "/sys/module/nvidia/version"),
        kernel_log=tuple(smi.kernel_lines(answer(raw, "kernel-log"))),
        pci=cards,
        pci_ids=tuple(sorted({card.id for card in cards})),
        tenants=tuple(tenants(raw)),
    )


def pci(raw: Raw) -> Iterator[schema.Card]:
    """NVIDIA's display devices (PCI class 03) and the kernel driver that each is bound to."""
    for path, text in sorted(raw.files.items()):
        keys = parse.properties(text) if path.endswith("/uevent") else {}
        number, kind = keys.get("PCI_ID", "").strip().lower(), keys.get("PCI_CLASS", "30000").strip()
        if re.fullmatch(r"10de:[0-9a-f]{4}", number) and re.fullmatch(r"0?3[0-9a-fA-F]{4}", kind):
            yield schema.Card(path.split("/")[-2], number, keys.get("DRIVER", "").strip() or None)


def tenants(raw: Raw) -> Iterator[schema.Tenant]:
    """Who holds GPU memory, and engines that run already; `ours` where it is the fleet's own container."""
    groups = {pid: (name, group) for pid, name, group in parse.processes(answer(raw, "processes"))}
    container = read_lookup(raw.commands["container"]).text("Id")
    held = {one["pid"]: one for one in parse.gpu_processes(answer(raw, "tenants"))}
    engines = {pid: {"pid": pid, "name": name} for pid, (name, _) in groups.items() if _ENGINE.match(name)}
    ids = [one["id"] for one in parse.containers(answer(raw, "containers"))]
    running = None if None in ids or not raw.commands["containers"].ok else ids
    for pid, one in sorted({**engines, **held}.items()):
        group = groups.get(pid, ("", None))[1]
        ours = group is not None and (SERVE_UNIT in group or bool(container and container in group))
        yield schema.Tenant(
            memory=one.get("memory"),
            pid=pid,
            name=one["name"],
            ours=ours if group is not None else None,
            engine=pid in engines,
            owner=owner(group, running) if group is not None else None,
        )


def docker_of(raw: Raw) -> schema.Docker:
    done = raw.commands["docker"]
    found = parse.docker_info(done.stdout)
    if not done.ok:
        found["error"] = done.why
    group = answer(raw, "docker-group").strip().rsplit(":", 1)[-1]
    daemons = [owner(where, None) for _, name, where in parse.processes(answer(raw, "processes")) if name in _ROOTLESS]
    return schema.Docker(
        **found,
        rootless_uids=tuple(sorted({one.uid for one in daemons if one.uid is not None})),
        group=tuple(sorted(filter(None, group.split(",")))),
        containers=tuple(schema.Container(**row) for row in parse.containers(answer(raw, "containers"))),
        lost=(),
    )


def injection(raw: Raw) -> schema.Injection:
    """The ways in which this host can hand its GPU to a container."""
    listed = raw.commands["cdi"]
    specs = tuple(
        schema.CdiSpec(path, parse.cdi_spec(text), parse.cdi_driver(text))
        for path, text in sorted(raw.files.items())
        if _CDI_SPEC.fullmatch(path)
    )
    # On a host without nvidia-ctk the specifications themselves say what there is.
    named = listed.stdout.splitlines() if listed.ok else [device for spec in specs for device in spec.devices]
    return schema.Injection(
        hook=has(raw, "nvidia-container-runtime-hook"),
        cdi_devices=parse.cdi_devices(named),
        cdi_specs=specs,
        toolkit_version=parse.toolkit_version(answer(raw, "toolkit") + raw.commands["toolkit"].stderr),
    )


def network(raw: Raw) -> schema.Network:
    """The way to the rest of the world; a speed of -1 is what a wireless or virtual interface says."""
    name = parse.default_interface(raw.files.get("/proc/net/route", ""))
    return schema.Network(name, parse.number(line_of(raw, f"/sys/class/net/{name}/speed")))


def mounted(mounts: dict[str, dict[str, int]], path: str) -> dict[str, int]:
    """The file system on which a folder is or will be; empty when that is not known."""
    wanted = PurePosixPath(path)
    above = [mount for mount in mounts if wanted.is_relative_to(mount)]
    return mounts[max(above, key=len)] if above else {}
