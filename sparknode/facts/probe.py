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
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any

from sparknode import SCHEMAS
from sparknode.base import parse
from sparknode.base.paths import SERVE_UNIT, Paths
from sparknode.base.process import Completed
from sparknode.base.system import Host, asking
from sparknode.facts import smi, updates
from sparknode.facts.collect import BOM, DEADLINE_S, NOT_ASKED, Raw, collect
from sparknode.host import imagestore, node_status
from sparknode.host.docker import read_lookup
from sparknode.host.owners import owner

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
    journal = [{"what": "journal", "why": unread}] if unread else []
    document = facts(raw)
    store = imagestore.read(document["docker"], raw.commands["containerd"].stdout)
    document["docker"]["lost"] = imagestore.lost(host.paths, store, raw.commands["images"])
    return {
        "schema": SCHEMAS["probe"],
        "sparknode": {"installed_sha256": installed_sha256(host.paths)},
        **document,
        "fleet": node_status.fleet(host, raw.commands),
        "unreadable": [*document["unreadable"], *journal],
    }


def status(host: Host) -> dict[str, Any]:
    return node_status.fleet(host, asking(host.system, node_status.QUESTIONS, DEADLINE_S)())


def installed_sha256(paths: Paths) -> str | None:
    try:
        return hashlib.sha256(paths.program.read_bytes()).hexdigest()
    except OSError:
        return None


def facts(raw: Raw) -> dict[str, Any]:
    """What the material says; pure."""
    raw = without_marks(raw)
    docker = docker_of(raw)
    mounts = parse.disks(answer(raw, "disk"))
    memory = memory_of(raw)
    store = imagestore.read(docker, raw.commands["containerd"].stdout)
    places = {"images": store.folder, "state": STATE, "docker": store.docker_root}
    if store.folder == store.docker_root:
        del places["docker"]
    disks: list[dict[str, Any]] = [
        {"path": path, "holds": what, **mounted(mounts, path)} for what, path in places.items()
    ]
    missing = [] if memory["total_kib"] and memory["available_kib"] else [("memory", "/proc/meminfo names no total")]
    if answer(raw, "ota").strip() and not updates.ota(answer(raw, "ota")):
        missing.append(("ota", "nvidia-spark-ota-check printed no torn score"))
    if docker["image_store"] != imagestore.GRAPHDRIVER and not store.told:
        missing.append(("containerd", f"containerd names no root of its own; {store.containerd_root} was looked at"))
    missing += [(row["path"], "`df` names no file system for it") for row in disks if "free_bytes" not in row]
    return {
        "host": host_of(raw),
        "memory": memory,
        "gpu": gpu_of(raw),
        "docker": docker,
        "injection": injection(raw),
        "disk": [row for row in disks if "free_bytes" in row],
        "listening": parse.listening(answer(raw, "ports")),
        # The first is the fleet's own, and not a matter of the host.
        "units": parse.units(answer(raw, "units").partition("\n\n")[2]),
        "packages": parse.packages(answer(raw, "packages")),
        "kernels": parse.kernels(answer(raw, "kernels")),
        "network": network(raw),
        "firmware": updates.firmware(answer(raw, "firmware")),
        "earlyoom": parse.assignments(raw.files.get("/etc/default/earlyoom", "")).get("EARLYOOM_ARGS"),
        "tools": {name.replace("-", "_"): has(raw, name) for name in ("rsync", "systemd-run")},
        "unreadable": [*({"what": what, "why": why} for what, why in [*unanswered(raw), *missing])],
    }


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


def host_of(raw: Raw) -> dict[str, Any]:
    hostname, kernel, machine = (*answer(raw, "uname").split(), None, None, None)[:3]
    names = {name for _, name, _ in parse.processes(answer(raw, "processes"))}
    zones = [parse.number(text) for path, text in raw.files.items() if path.startswith("/sys/class/thermal/")]
    dmi = ("sys_vendor", "product_name", "bios_version", "ec_firmware_release")
    clock = parse.properties(answer(raw, "clock")).get("NTPSynchronized")
    return {
        "hostname": hostname,
        "machine": machine,
        "kernel": kernel,
        "os": parse.os_release(raw.files.get("/etc/os-release", "")),
        "dgx": parse.dgx_release(raw.files.get("/etc/dgx-release", "")),
        "fastos": parse.assignments(raw.files.get("/etc/fastos-release", "")).get("VERSION"),
        "python": sys.version.split()[0],
        "boot_id": line_of(raw, "/proc/sys/kernel/random/boot_id"),
        "time": raw.at,
        "uptime_s": parse.number(raw.files.get("/proc/uptime", "")),
        "dmi": {name: line_of(raw, f"/sys/class/dmi/id/{name}") for name in dmi},
        "reboot_required": "/var/run/reboot-required" in raw.files,
        "clock_synchronized": None if clock is None else clock == "yes",
        "ota": updates.ota(answer(raw, "ota")),
        "desktop": sorted(names & _DESKTOP),
        # In thousandths; a zone that is off says a figure below zero, which is none here.
        "hottest_zone_c": max((zone / 1000 for zone in zones if zone is not None), default=None),
    }


def memory_of(raw: Raw) -> dict[str, Any]:
    keys = parse.meminfo(raw.files.get("/proc/meminfo", ""))
    named = {
        "total_kib": "MemTotal",
        "available_kib": "MemAvailable",
        "free_kib": "MemFree",
        "swap_total_kib": "SwapTotal",
        "swap_free_kib": "SwapFree",
        "hugepages_total": "HugePages_Total",
        "hugepages_free": "HugePages_Free",
        "hugepage_kib": "Hugepagesize",
        "hugetlb_kib": "Hugetlb",
        "cma_total_kib": "CmaTotal",
        "cma_free_kib": "CmaFree",
    }
    stalled = parse.stall(raw.files.get("/proc/pressure/memory", ""))
    return {**{name: keys.get(key) for name, key in named.items()}, "stall_percent": stalled}


def gpu_of(raw: Raw) -> dict[str, Any]:
    done = raw.commands["gpu"]
    devices: list[dict[str, Any]] = []
    error: str | None = done.why
    if done.rc == NOT_ASKED:
        error = None
    elif not (done.timed_out or done.missing):
        devices, error = smi.gpus(done.stdout, done.rc)
        error = " ".join(done.stderr.split())[:300] or error if not devices else error
    cards = list(pci(raw))
    return {
        "devices": devices,
        "error": error,
        "rc": done.rc,
        "library_version": smi.library(done.stdout + done.stderr),
        **smi.details(answer(raw, "gpu-details")),
        "module_version": line_of(raw, "/sys/module/nvidia/version"),
        "kernel_log": smi.kernel_lines(answer(raw, "kernel-log")),
        "pci": cards,
        "pci_ids": sorted({card["id"] for card in cards}),
        "tenants": list(tenants(raw)),
    }


def pci(raw: Raw) -> Iterator[dict[str, Any]]:
    """NVIDIA's display devices (PCI class 03) and the kernel driver that each is bound to."""
    for path, text in sorted(raw.files.items()):
        keys = parse.properties(text) if path.endswith("/uevent") else {}
        number, kind = keys.get("PCI_ID", "").strip().lower(), keys.get("PCI_CLASS", "30000").strip()
        if re.fullmatch(r"10de:[0-9a-f]{4}", number) and re.fullmatch(r"0?3[0-9a-fA-F]{4}", kind):
            yield {"address": path.split("/")[-2], "id": number, "driver": keys.get("DRIVER", "").strip() or None}


def tenants(raw: Raw) -> Iterator[dict[str, Any]]:
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
        whose = asdict(owner(group, running)) if group is not None else None
        yield {
            "memory": None,
            **one,
            "ours": ours if group is not None else None,
            "engine": pid in engines,
            "owner": whose,
        }


def docker_of(raw: Raw) -> dict[str, Any]:
    done = raw.commands["docker"]
    found = parse.docker_info(done.stdout)
    if not done.ok:
        found["error"] = done.why
    group = answer(raw, "docker-group").strip().rsplit(":", 1)[-1]
    members = sorted(filter(None, group.split(",")))
    daemons = [owner(where, None) for _, name, where in parse.processes(answer(raw, "processes")) if name in _ROOTLESS]
    uids = sorted({one.uid for one in daemons if one.uid is not None})
    return {**found, "rootless_uids": uids, "group": members, "containers": parse.containers(answer(raw, "containers"))}


def injection(raw: Raw) -> dict[str, Any]:
    """The ways in which this host can hand its GPU to a container."""
    listed = raw.commands["cdi"]
    specs: list[dict[str, Any]] = [
        {"path": path, "devices": parse.cdi_spec(text), "driver_version": parse.cdi_driver(text)}
        for path, text in sorted(raw.files.items())
        if _CDI_SPEC.fullmatch(path)
    ]
    # On a host without nvidia-ctk the specifications themselves say what there is.
    written = [str(device) for spec in specs for device in spec["devices"] or []]
    named = listed.stdout.splitlines() if listed.ok else written
    return {
        "hook": has(raw, "nvidia-container-runtime-hook"),
        "cdi_devices": parse.cdi_devices(named),
        "cdi_specs": specs,
        "toolkit_version": parse.toolkit_version(answer(raw, "toolkit") + raw.commands["toolkit"].stderr),
    }


def network(raw: Raw) -> dict[str, Any]:
    """The way to the rest of the world; a speed of -1 is what a wireless or virtual interface says."""
    name = parse.default_interface(raw.files.get("/proc/net/route", ""))
    return {"interface": name, "speed_mbit": parse.number(line_of(raw, f"/sys/class/net/{name}/speed"))}


def mounted(mounts: dict[str, dict[str, int]], path: str) -> dict[str, int]:
    """The file system on which a folder is or will be; empty when that is not known."""
    wanted = PurePosixPath(path)
    above = [mount for mount in mounts if wanted.is_relative_to(mount)]
    return mounts[max(above, key=len)] if above else {}
