"""Everything that a check or a plan asks of a node, in one document and one trip.

Nothing here raises and nothing waits for long: all programs are asked at once under one deadline, and what can't be
read is listed with its reason. It works without root, which then can't see some things. Serial numbers and the UUIDs
of hardware never leave the node.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sparknode import SCHEMAS, fleet, parse
from sparknode.files import read_text
from sparknode.paths import Paths
from sparknode.shell import Completed
from sparknode.system import Host, System

DEADLINE_S = 10.0
DOCKER_ROOT = "/var/lib/docker"
_HOOK = "nvidia-container-runtime-hook"
_SEARCHED = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"]
)
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    **fleet.QUESTIONS,
    "gpu": ("nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"),
    "docker": ("docker", "info", "--format", "{{json .}}"),
    "cdi": ("nvidia-ctk", "cdi", "list"),
    "toolkit": ("nvidia-ctk", "--version"),
    "ports": ("ss", "-H", "-ltnp"),
}


def probe(host: Host) -> dict[str, Any]:
    """The whole document."""
    paths = host.paths
    answers = ask(host.system, QUESTIONS)
    docker = docker_of(answers["docker"])
    unreadable = [{"what": name, "why": done.why} for name, done in answers.items() if not understood(name, done)]
    disk = [usage(paths, path) for path in (docker["root_dir"] or DOCKER_ROOT, "/var/lib/sparkfleet")]
    unreadable += [{"what": entry["path"], "why": entry["why"]} for entry in disk if "why" in entry]
    _, unread = fleet.history(paths)
    if unread:
        unreadable.append({"what": str(paths.journal), "why": unread})
    memory = memory_of(read_text(paths.meminfo) or "")
    if memory["total_kib"] is None:
        unreadable.append({"what": "memory", "why": f"{paths.meminfo} has no MemTotal"})
    return {
        "schema": SCHEMAS["probe"],
        "sparknode": {"installed_sha256": installed_sha256(paths)},
        "host": host_of(paths),
        "memory": memory,
        "gpu": gpu_of(answers["gpu"]),
        "docker": docker,
        "injection": injection(paths, answers),
        "disk": [entry for entry in disk if "why" not in entry],
        "listening": parse.listening(answers["ports"].stdout),
        "tools": {"rsync": has("rsync"), "systemd_run": has("systemd-run")},
        "fleet": fleet.fleet(host, answers),
        "unreadable": unreadable,
    }


def status(host: Host) -> dict[str, Any]:
    """The document's `fleet` object alone."""
    return fleet.fleet(host, ask(host.system, fleet.QUESTIONS))


def ask(system: System, questions: Mapping[str, tuple[str, ...]]) -> dict[str, Completed]:
    """Every question at once, so that a program that hangs costs one deadline and not one each."""
    with ThreadPoolExecutor(len(questions)) as pool:
        waiting = {name: pool.submit(system.run, argv, DEADLINE_S) for name, argv in questions.items()}
        return {name: answer.result() for name, answer in waiting.items()}


def understood(name: str, done: Completed) -> bool:
    """A container that does not exist is an answer; so is nvidia-smi that names no device."""
    if name == "container":
        return done.ok or (not done.timed_out and "no such" in done.stderr.lower())
    return done.ok or (name == "gpu" and "No devices" in done.stdout + done.stderr)


def has(program: str) -> bool:
    return shutil.which(program, path=_SEARCHED) is not None


def installed_sha256(paths: Paths) -> str | None:
    try:
        return hashlib.sha256(paths.program.read_bytes()).hexdigest()
    except OSError:
        return None


def host_of(paths: Paths) -> dict[str, Any]:
    names = os.uname()
    boot_id = read_text(paths.root / "proc/sys/kernel/random/boot_id")
    return {
        "hostname": names.nodename,
        "machine": names.machine,
        "kernel": names.release,
        "os": parse.os_release(read_text(paths.root / "etc/os-release") or ""),
        "dgx": parse.dgx_release(read_text(paths.root / "etc/dgx-release") or ""),
        "python": platform.python_version(),
        "boot_id": boot_id.strip() if boot_id else None,
        "uptime_s": parse.uptime(read_text(paths.root / "proc/uptime") or ""),
    }


def memory_of(text: str) -> dict[str, int | None]:
    keys = parse.meminfo(text)
    named = {
        "total_kib": "MemTotal",
        "available_kib": "MemAvailable",
        "free_kib": "MemFree",
        "swap_total_kib": "SwapTotal",
        "swap_free_kib": "SwapFree",
        "hugepages_total": "HugePages_Total",
        "hugepages_free": "HugePages_Free",
        "hugepage_kib": "Hugepagesize",
    }
    return {name: keys.get(key) for name, key in named.items()}


def gpu_of(done: Completed) -> dict[str, Any]:
    if done.timed_out or done.missing:
        return {"devices": [], "error": done.why}
    devices, error = parse.gpus(done.stdout, done.rc)
    said = " ".join(done.stderr.split())[:300]
    return {"devices": devices, "error": None if devices else said or error}


def docker_of(done: Completed) -> dict[str, Any]:
    answer = parse.docker_info(done.stdout)
    # An older client ends with 1 and no JSON when there is no daemon; then its own words are the better reason.
    if answer["error"] and not done.ok:
        answer["error"] = done.why
    return answer


def injection(paths: Paths, answers: Mapping[str, Completed]) -> dict[str, Any]:
    """The ways in which this host can hand its GPU to a container."""
    listed = answers["cdi"]
    return {
        "hook": has(_HOOK),
        "cdi_devices": parse.cdi_devices(listed.stdout.splitlines()) if listed.ok else specified(paths),
        "toolkit_version": parse.toolkit_version(answers["toolkit"].stdout) if answers["toolkit"].ok else None,
    }


def specified(paths: Paths) -> list[str]:
    """CDI devices out of the specifications themselves, for a host without nvidia-ctk."""
    names: set[str] = set()
    for folder in ("etc/cdi", "var/run/cdi"):
        for spec in sorted((paths.root / folder).glob("*.*")):
            if spec.suffix in {".yaml", ".yml", ".json"}:
                names.update(parse.cdi_spec(read_text(spec) or ""))
    return sorted(names)


def usage(paths: Paths, asked: str) -> dict[str, Any]:
    """The room on the file system on which a folder is or will be."""
    path = paths.on_host(asked)
    while True:
        try:
            room = os.statvfs(path)
        except (FileNotFoundError, NotADirectoryError):
            path = path.parent
        except OSError as problem:
            return {"path": asked, "why": problem.strerror}
        else:
            free, total = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
            return {"path": asked, "free_bytes": free, "total_bytes": total}
