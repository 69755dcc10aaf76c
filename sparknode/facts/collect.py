"""The raw material of a node: files and what programs answer, read once, all programs at once under one deadline.

A bundle is that material in a folder or an archive, with what names a machine or opens a door taken out, so that a
report of a problem can be looked at elsewhere: `files/…` mirrors absolute paths, `commands/NAME.json` holds one program
each.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from sparknode import SCHEMAS
from sparknode.base import dockerd, parse
from sparknode.base.paths import READY_UNIT
from sparknode.base.process import Completed
from sparknode.base.system import Host, asking
from sparknode.errors import Refused
from sparknode.facts import smi, updates
from sparknode.facts.redact import redacted as redacted
from sparknode.host import imagestore, node_status, units

DEADLINE_S = node_status.DEADLINE_S
# Some editors put it in front of what they save.
BOM = "\ufeff"
# In place of an exit code: what is looked at holds no answer to this question.
NOT_ASKED = -1
_BIGGEST = 1 << 20
UNITS = (
    "default.target docker.service nvidia-cdi-refresh.path nvidia-cdi-refresh.service earlyoom.service sleep.target "
    "suspend.target hibernate.target hybrid-sleep.target"
).split()
PROGRAMS = ("rsync", "systemd-run", "nvidia-container-runtime-hook", "nvidia-ctk")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    **node_status.QUESTIONS,
    "gpu": ("nvidia-smi", f"--query-gpu={smi.GPU_FIELDS}", "--format=csv,noheader,nounits"),
    "gpu-details": ("nvidia-smi", "-q"),
    "tenants": parse.TENANTS_ARGV,
    "docker": dockerd.question("/info"),
    "containerd": imagestore.ROOT_ARGV,
    "containers": dockerd.RUNNING,
    "docker-group": ("getent", "group", "docker"),
    "cdi": ("nvidia-ctk", "cdi", "list"),
    "toolkit": ("nvidia-ctk", "--version"),
    "ports": ("ss", "-H", "-ltnp"),
    "uname": ("uname", "-n", "-r", "-m"),
    "disk": ("df", "-a", "-B1", "--output=avail,size,iavail,itotal,target"),
    "processes": ("ps", "-e", "-o", "pid=", "-o", "comm=", "-o", "cgroup="),
    "units": (*units.SHOW_ARGV, READY_UNIT, *UNITS, "--property=Names"),
    "packages": (
        *("dpkg-query", "--show", "--showformat=${Package} ${Version} ${db:Status-Abbrev}\n"),
        *("nvidia-*", "linux-modules-nvidia-*", "libnvidia-*", "earlyoom"),
    ),
    "kernels": (
        *("find", "/boot", "/lib/modules", "-maxdepth", "4", "(", "-name", "vmlinuz", "-o", "-name", "nvidia.ko*", ")"),
        *("-printf", "%p %l\n"),
    ),
    # The ring buffer, since the journal would be read from its end to its beginning.
    "kernel-log": ("sh", "-c", f"dmesg 2>/dev/null | grep -E '{smi.KERNEL_LINES}' | tail -n 20; true"),
    "clock": ("timedatectl", "show", "--property=NTPSynchronized"),
    "firmware": ("fwupdmgr", "get-devices", "--json"),
    "ota": ("nvidia-spark-ota-check", "summary"),
    "programs": ("sh", "-c", f"for name in {' '.join(PROGRAMS)}; do command -v $name; done; true"),
}
# What no check reads and whoever helps wants to see: a bundle has it, a probe does without.
STORY: Mapping[str, tuple[str, ...]] = {
    "journal": ("tail", "-n", "300", "/var/lib/sparkfleet/journal.jsonl"),
    "log": ("journalctl", "--no-pager", "-o", "short-iso", "-n", "500", "-u", "sparkfleet-*"),
    "kernel": ("journalctl", "--no-pager", "-k", "-o", "short-iso", "-n", "200", "-p", "warning"),
}
FILES = (
    "etc/dgx-release etc/fastos-release etc/os-release etc/default/earlyoom etc/cdi/* var/run/cdi/* "
    "var/run/reboot-required proc/meminfo proc/uptime proc/net/route proc/pressure/memory "
    "proc/sys/kernel/random/boot_id sys/module/nvidia/version sys/class/dmi/id/sys_vendor "
    "sys/class/dmi/id/product_name sys/class/dmi/id/bios_version sys/class/dmi/id/ec_firmware_release "
    "sys/class/net/*/speed sys/class/thermal/thermal_zone*/temp sys/bus/pci/devices/*/uevent"
).split()


@dataclass(frozen=True)
class Raw:
    """What was read: texts of files and answers of programs, and when; `unread` says why a file can't be read."""

    files: Mapping[str, str]
    unread: Mapping[str, str]
    commands: Mapping[str, Completed]
    at: float = 0.0


def collect(host: Host, questions: Mapping[str, tuple[str, ...]] = COMMANDS) -> Raw:
    answers = asking(host.system, questions, DEADLINE_S)
    files: dict[str, str] = {}
    unread: dict[str, str] = {}
    for pattern in FILES:
        for path in sorted(host.paths.root.glob(pattern)):
            name = "/" + path.relative_to(host.paths.root).as_posix()
            try:
                with path.open("rb") as stream:
                    text = stream.read(_BIGGEST).decode("utf-8", "replace")
            except FileNotFoundError:
                continue
            except OSError as problem:
                # A network interface that is down has a speed that can't be read: that is what it says, not a fault.
                if not name.endswith("/speed"):
                    unread[name] = problem.strerror or str(problem)
                continue
            if not name.endswith("/uevent") or "PCI_ID=10DE" in text:
                files[name] = text
    return Raw(files, unread, answers(), host.system.now())


def documents(raw: Raw) -> dict[str, str]:
    """The files of a bundle, by their path in it."""
    about = {"schema": SCHEMAS["bundle"], "at": raw.at, "unread": dict(raw.unread)}
    found = {"bundle.json": json.dumps(about, indent=1)}
    found |= {f"files{name}": redacted(text) for name, text in raw.files.items()}
    for name, done in raw.commands.items():
        shown = {
            **asdict(done),
            "seconds": round(done.seconds, 3),
            "stdout": redacted(done.stdout, updates.firmware_guids(done.stdout) if name == "firmware" else ()),
            "stderr": redacted(done.stderr),
        }
        found[f"commands/{name}.json"] = json.dumps(shown, indent=1, ensure_ascii=False)
    return found


def pack(documents: Mapping[str, str]) -> bytes:
    """Return a bundle's files as a tar.gz."""
    # Not above: a probe does without.
    import tarfile

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in documents.items():
            content, entry = text.encode(), tarfile.TarInfo(f"bundle/{name}")
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def keep(host: Host, folder: Path | None) -> None:
    """Write a bundle of this host into a folder, or as a tar.gz to standard output."""
    found = documents(collect(host, {**COMMANDS, **STORY}))
    if folder:
        write(found, folder)
    else:
        sys.stdout.buffer.write(pack(found))


def write(documents: Mapping[str, str], folder: Path) -> None:
    """Write a bundle's files into a folder that is new or empty; raises Refused for any other."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"{folder}: it is there and not empty; name a new folder for the bundle")
    for name, text in documents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
