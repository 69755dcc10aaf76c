"""Pure readers of what foreign programs and files say.

Each takes raw text and gives plain data. Garbage gives less data, never an exception: a host with an odd line in one
file must still answer every other question.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_CDI_DEVICE = re.compile(r"[\w.-]+/[\w.-]+=[\w.:-]+")
_UNIQUE = re.compile(r"=(?:GPU|MIG)-", re.IGNORECASE)
_SS_PROCESS = re.compile(r'"((?:[^"\\]|\\.)*)",pid=(\d+)')


def assignments(text: str) -> dict[str, str]:
    """os-release and dgx-release: KEY=value, quoted or not; a key that repeats means its last value."""
    found = {}
    for line in text.splitlines():
        if match := _ASSIGNMENT.fullmatch(line):
            value = match[2].strip()
            if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            found[match[1]] = value.strip()
    return found


def os_release(text: str) -> dict[str, str | None]:
    keys = assignments(text)
    return {key: keys.get(key.upper()) or None for key in ("id", "version_id", "pretty_name")}


def dgx_release(text: str) -> dict[str, str | None] | None:
    """What a DGX says of itself, without its serial number; no OTA line yet is normal."""
    keys = assignments(text)
    if not any(key.startswith("DGX_") for key in keys):
        return None
    wanted = {
        "name": "NAME",
        "platform": "PLATFORM",
        "software_version": "SWBUILD_VERSION",
        "ota_version": "OTA_VERSION",
    }
    return {name: keys.get(f"DGX_{key}") or None for name, key in wanted.items()}


def meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo, in its own units: KiB, and a count where no unit stands."""
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"([\w()]+):\s+(\d{1,18})(?:\s+kB)?\s*", line, re.ASCII):
            found[match[1]] = int(match[2])
    return found


def _cell(value: str) -> str | None:
    value = value.strip()
    return None if not value or value in {"[N/A]", "N/A", "[Not Supported]", "[Unknown Error]"} else value


def gpus(stdout: str, rc: int | None) -> tuple[list[dict[str, str | None]], str | None]:
    """`nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader`: the GPUs, or why there are none.

    «No devices were found» comes with exit code 6, and on some drivers with 0, so the text decides as well.
    """
    devices: list[dict[str, str | None]] = []
    for line in stdout.splitlines():
        cells = line.split(",")
        if rc == 0 and len(cells) == 3 and (name := _cell(cells[0])):
            capability, driver = _cell(cells[1]), _cell(cells[2])
            devices.append({"name": name, "compute_capability": capability, "driver_version": driver})
    if devices:
        return devices, None
    said = " ".join(stdout.split())[:300]
    return [], said or f"nvidia-smi ended with {rc} and named no GPU"


def gpu_processes(stdout: str) -> list[str]:
    """`--query-compute-apps=pid,process_name,used_gpu_memory --format=csv,noheader`, as text for a person."""
    found = []
    for line in stdout.splitlines():
        cells = [cell.strip() for cell in line.rsplit(",", 1)]
        pid, _, name = cells[0].partition(",")
        if len(cells) == 2 and pid.strip().isdigit() and name.strip():
            found.append(f"{name.strip()} (pid {pid.strip()}, {cells[1]})")
    return found


POWER_ARGV = ("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits")


def watts(stdout: str) -> float | None:
    """What POWER_ARGV prints for the first GPU."""
    match = re.match(r"\s*(\d{1,6}(?:\.\d{1,4})?)(?: W)?\s*$", stdout.partition("\n")[0], re.ASCII)
    return float(match[1]) if match else None


def stall(text: str) -> float | None:
    """/proc/pressure/memory: the share in % of the last 10 s in which every task waited for memory."""
    match = re.search(r"^full avg10=(\d{1,3}(?:\.\d{1,4})?) ", text, re.MULTILINE | re.ASCII)
    return float(match[1]) if match else None


def cdi_devices(lines: Iterable[object]) -> list[str]:
    """The names of CDI devices, without those that are made of a serial number."""
    names = {str(line).strip() for line in lines}
    return sorted(name for name in names if _CDI_DEVICE.fullmatch(name) and not _UNIQUE.search(name))


def cdi_spec(text: str) -> list[str]:
    """The devices of one CDI specification, JSON or the YAML that nvidia-ctk writes."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        kind = re.search(r'^\s*"?kind"?:\s*"?([\w./-]+)', text, re.MULTILINE)
        names = re.findall(r'^\s*(?:-\s*)?"?name"?:\s*"?([\w.:-]+)"?\s*$', text, re.MULTILINE)
        return cdi_devices(f"{kind[1]}={name}" for name in names) if kind else []
    if not isinstance(document, dict) or not isinstance(document.get("devices"), list):
        return []
    named = [device["name"] for device in document["devices"] if isinstance(device, dict) and "name" in device]
    return cdi_devices(f"{document.get('kind')}={name}" for name in named)


def toolkit_version(text: str) -> str | None:
    match = re.search(r"version\s+v?(\d[\w.+~-]*)", text)
    return match[1] if match else None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def docker_info(text: str) -> dict[str, Any]:
    """`docker info --format '{{json .}}'`. The client answers even when no daemon does: then an error is named."""
    empty: dict[str, Any] = {
        "server_version": None,
        "root_dir": None,
        "storage_driver": None,
        "runtimes": [],
        "cdi_devices": [],
    }
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        return {**empty, "error": "docker info gave no JSON"}
    if not isinstance(info, dict):
        return {**empty, "error": "docker info gave no JSON object"}
    problems = [str(problem) for problem in _list(info.get("ServerErrors"))]
    discovered = [_dict(device).get("ID") for device in _list(info.get("DiscoveredDevices"))]
    version = _text(info.get("ServerVersion"))
    return {
        "server_version": version,
        "root_dir": _text(info.get("DockerRootDir")),
        "storage_driver": _text(info.get("Driver")),
        "runtimes": sorted(str(name) for name in _dict(info.get("Runtimes"))),
        "cdi_devices": cdi_devices(discovered),
        "error": None if version else "; ".join(problems)[:300] or "docker info names no server",
    }


def listening(text: str) -> list[dict[str, Any]]:
    """`ss -H -ltnp`: each port once; who holds it is only told to root."""
    found: dict[int, dict[str, Any]] = {}
    for line in text.splitlines():
        cells = line.split()
        if len(cells) < 4 or cells[0] != "LISTEN":
            continue
        port = cells[3].rsplit(":", 1)[-1]
        if not (port.isascii() and port.isdigit() and len(port) <= 5):
            continue
        process = _SS_PROCESS.search(line)
        entry = found.setdefault(int(port), {"port": int(port), "process": None, "pid": None})
        if process and entry["pid"] is None:
            entry.update(process=process[1], pid=int(process[2][:18]))
    return [found[port] for port in sorted(found)]


def properties(text: str) -> dict[str, str]:
    """`systemctl show -p …`: KEY=value lines."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def uptime(text: str) -> float | None:
    match = re.match(r"(\d{1,15}(?:\.\d{1,9})?)(?:\s|$)", text, re.ASCII)
    return float(match[1]) if match else None


_SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*", re.ASCII)
_LABEL = re.compile(r'\s*([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"\s*,?', re.ASCII)
Sample = tuple[str, dict[str, str], float]


def metrics(text: str) -> list[Sample]:
    """Prometheus text: name, labels, value. A line that is none, or whose value is no finite number, is left out."""
    samples = []
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.fullmatch(line)
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if math.isfinite(value):
            labels = {name: re.sub(r"\\(.)", r"\1", text) for name, text in _LABEL.findall(match[2] or "")}
            samples.append((match[1], labels, value))
    return samples
