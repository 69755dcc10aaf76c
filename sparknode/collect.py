"""The raw material of a node: files and what programs answer, read once, all programs at once under one deadline.

A bundle is that material in a folder or an archive, with what names a machine or opens a door taken out, so that a
report of a problem can be looked at elsewhere: `files/…` mirrors absolute paths, `commands/NAME.json` holds one program
each.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sparknode import SCHEMAS, dockerd, fleet, imagestore, parse, smi, units, updates
from sparknode.errors import Refused
from sparknode.files import read_text
from sparknode.paths import Paths
from sparknode.redact import redacted as redacted
from sparknode.shell import Completed
from sparknode.system import Host, RealSystem, asking

DEADLINE_S = 10.0
# Some editors put it in front of what they save.
BOM = "\ufeff"
# In place of an exit code: a bundle holds no answer to this question.
NOT_ASKED = -1
_BIGGEST = 1 << 20
UNITS = (
    "default.target docker.service nvidia-cdi-refresh.path nvidia-cdi-refresh.service earlyoom.service sleep.target "
    "suspend.target hibernate.target hybrid-sleep.target"
).split()
PROGRAMS = ("rsync", "systemd-run", "nvidia-container-runtime-hook", "nvidia-ctk")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    **fleet.QUESTIONS,
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
    "units": (*units.SHOW_ARGV, *UNITS, "--property=Names"),
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


def write(documents: Mapping[str, str], folder: Path) -> None:
    """Write a bundle's files into a folder that is new or empty; raises Refused for any other."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"{folder}: it is there and not empty; name a new folder for the bundle")
    for name, text in documents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


class Recorded(RealSystem):
    def __init__(self, commands: Mapping[str, Completed]) -> None:
        self.answers = {done.argv: done for done in commands.values()}

    def run(self, argv: Sequence[str], timeout: float) -> Completed:
        absent = Completed(tuple(argv), 127, "", "the bundle has no answer to it", timeout)
        return self.answers.get(tuple(argv), absent)


def read(path: Path) -> tuple[Host, Raw]:
    """A bundle, an archive or a folder, as a host and its material; raises Refused where there is none."""
    texts = _folder(path) if path.is_dir() else _archive(path)
    files = {name.removeprefix("files"): text for name, text in texts.items() if name.startswith("files/")}
    about = parse.json_object(texts.get("bundle.json", "").removeprefix(BOM))
    unread, at = about.get("unread"), about.get("at")
    if not about:
        unread = {"bundle.json": "it is missing or spoilt, so that nobody knows which files the host could not read"}
    commands = {name: _answer(texts.get(f"commands/{name}.json", ""), argv) for name, argv in COMMANDS.items()}
    reasons = unread if isinstance(unread, dict) else {}
    moment = float(at) if isinstance(at, (int, float)) else 0.0
    return Host(Paths(path / "nothing"), Recorded(commands)), Raw(files, reasons, commands, moment)


def _folder(path: Path) -> dict[str, str]:
    texts = {
        file.relative_to(path).as_posix(): read_text(file) or "" for file in sorted(path.rglob("*")) if file.is_file()
    }
    if not any(name.startswith(("commands/", "files/")) for name in texts):
        raise Refused(f"{path}: no bundle is there; make one with `sparknode collect DIR`")
    return texts


def _archive(path: Path) -> dict[str, str]:
    import tarfile
    import zipfile
    import zlib

    try:
        found = _zipped(path) if zipfile.is_zipfile(path) else _tarred(path)
    except (OSError, EOFError, ValueError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as problem:
        raise Refused(f"{path}: no bundle is there ({problem}); tasks/doctor.py makes one") from None
    # Whoever packs a folder anew may pack what it lies in as well.
    cuts = [at for name in found if (at := name.find("bundle.json")) >= 0 or (at := name.find("commands/")) >= 0]
    cut = min(cuts, default=0)
    return {name[cut:]: data.decode("utf-8", "replace") for name, data in found.items()}


def _tarred(path: Path) -> dict[str, bytes]:
    import tarfile

    with tarfile.open(path, "r:gz") as archive:
        streams = {member.name: archive.extractfile(member) for member in archive}
        return {name: stream.read() for name, stream in streams.items() if stream}


def _zipped(path: Path) -> dict[str, bytes]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return {member.filename: archive.read(member) for member in archive.infolist() if not member.is_dir()}


def _answer(text: str, argv: tuple[str, ...]) -> Completed:
    found = parse.json_object(text.removeprefix(BOM))
    rc, texts = found.get("rc"), [found.get(key) for key in ("stdout", "stderr")]
    # An older sparknode may have asked otherwise, and what it heard then says something else.
    if found.get("argv") != list(argv):
        return Completed(argv, NOT_ASKED, "", "the bundle has no answer to it", DEADLINE_S)
    stdout, stderr = (text if isinstance(text, str) else "" for text in texts)
    return Completed(argv, rc if isinstance(rc, int) else None, stdout, stderr, DEADLINE_S)
