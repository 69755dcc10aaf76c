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
    return {key: keys.get(key.upper()) or None for key in ("id", "id_like", "version_id", "pretty_name")}


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


def number(text: str | None) -> float | None:
    """A figure at the start of a text, such as «35.65 W»; None for «[N/A]» and anything else."""
    match = re.match(r"\s*(\d{1,12}(?:\.\d{1,6})?)(?![\w.])", text or "", re.ASCII)
    return float(match[1]) if match else None


TENANTS_ARGV = ("nvidia-smi", "--query-compute-apps=pid,process_name,used_gpu_memory", "--format=csv,noheader")


def gpu_processes(stdout: str) -> list[dict[str, Any]]:
    """What TENANTS_ARGV prints: who holds GPU memory, with the share as nvidia-smi words it."""
    found = []
    for line in stdout.splitlines():
        cells = [cell.strip() for cell in line.rsplit(",", 1)]
        pid, _, name = cells[0].partition(",")
        if len(cells) == 2 and pid.strip().isdecimal() and len(pid) < 19 and name.strip():
            found.append({"pid": int(pid), "name": name.strip(), "memory": cells[1]})
    return found


POWER_ARGV = ("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits")


LOAD_ARGV = ("nvidia-smi", "--query-gpu=power.draw,clocks.sm,utilization.gpu", "--format=csv,noheader,nounits")


def load(stdout: str) -> tuple[float, float, float] | None:
    """What LOAD_ARGV prints for the first GPU: watts, MHz and percent."""
    power, clock, busy = (*map(number, stdout.partition("\n")[0].split(",")), None, None, None)[:3]
    return None if power is None or clock is None or busy is None else (power, clock, busy)


def watts(stdout: str) -> float | None:
    """What POWER_ARGV prints for the first GPU."""
    return number(stdout.partition("\n")[0])


def stall(text: str) -> float | None:
    """/proc/pressure/memory: the share in % of the last 10 s in which every task waited for memory."""
    match = re.search(r"^full avg10=(\d{1,3}(?:\.\d{1,4})?) ", text, re.MULTILINE | re.ASCII)
    return float(match[1]) if match else None


def cdi_devices(lines: Iterable[object]) -> tuple[str, ...]:
    """The names of CDI devices, without those that are made of a serial number."""
    names = {str(line).strip() for line in lines}
    return tuple(sorted(name for name in names if _CDI_DEVICE.fullmatch(name) and not _UNIQUE.search(name)))


def cdi_spec(text: str) -> tuple[str, ...]:
    """The devices of one CDI specification, JSON or the YAML that nvidia-ctk writes."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        kind = re.search(r'^\s*"?kind"?:\s*"?([\w./-]+)', text, re.MULTILINE)
        names = re.findall(r'^\s*(?:-\s*)?"?name"?:\s*"?([\w.:-]+)"?\s*$', text, re.MULTILINE)
        return cdi_devices(f"{kind[1]}={name}" for name in names) if kind else ()
    if not isinstance(document, dict) or not isinstance(document.get("devices"), list):
        return ()
    named = [device["name"] for device in document["devices"] if isinstance(device, dict) and "name" in device]
    return cdi_devices(f"{document.get('kind')}={name}" for name in named)


def cdi_driver(text: str) -> str | None:
    """The driver version whose libraries a CDI specification names."""
    match = re.search(r"lib(?:cuda|nvidia-ml)\.so\.(\d{3}(?:\.\d+){1,2})", text)
    return match[1] if match else None


def toolkit_version(text: str) -> str | None:
    match = re.search(r"version\s+v?(\d[\w.+~-]*)", text)
    return match[1] if match else None


def as_dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def as_text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, or an empty one for anything else."""
    try:
        return as_dict(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def json_rows(text: str) -> list[dict[str, Any]]:
    """The objects in a JSON list; none for anything else."""
    try:
        return [row for row in as_list(json.loads(text)) if isinstance(row, dict)]
    except (ValueError, RecursionError):
        return []


def docker_info(text: str) -> dict[str, Any]:
    """What Docker's daemon says of itself."""
    info = json_object(text)
    discovered = [as_dict(device).get("ID") for device in as_list(info.get("DiscoveredDevices"))]
    version = as_text(info.get("ServerVersion"))
    return {
        "server_version": version,
        "root_dir": as_text(info.get("DockerRootDir")),
        "engine": _engine(info),
        "storage_driver": as_text(info.get("Driver")),
        "image_store": _image_store(info) if version else None,
        "containerd_address": as_text(as_dict(info.get("Containerd")).get("Address")),
        "runtimes": tuple(sorted(str(name) for name in as_dict(info.get("Runtimes")))),
        "default_runtime": as_text(info.get("DefaultRuntime")),
        "cdi_dirs": tuple(str(folder) for folder in as_list(info.get("CDISpecDirs"))),
        "cdi_devices": cdi_devices(discovered),
        "error": None if version else "Docker names no version of itself",
    }


def _engine(info: dict[str, Any]) -> str:
    """What answers as Docker: `docker`, or `podman`, `snap` and `rootless`, which can't run a service of the system."""
    root = as_text(info.get("DockerRootDir")) or ""
    runtimes = [str(as_dict(runtime).get("path")) for runtime in as_dict(info.get("Runtimes")).values()]
    options = [str(option) for option in as_list(info.get("SecurityOptions"))]
    major = re.match(r"v?(\d{1,4})\.", as_text(info.get("ServerVersion")) or "")
    # Docker's versions went from 1.13 to 17.03; Podman's are in between.
    if "/containers/storage" in root or "BuildahVersion" in info or (major and 1 < int(major[1]) < 17):
        return "podman"
    if any(path.startswith(("/snap/", "/var/snap/")) for path in [root, *runtimes]):
        return "snap"
    home = re.match(r"/home/[^/]+/\.local/|/root/\.local/", root)
    return "rootless" if home or any("rootless" in option for option in options) else "docker"


def _image_store(info: dict[str, Any]) -> str:
    """Which of its two stores Docker keeps images in: the rows of its driver's status name containerd's."""
    cells = {str(cell) for row in as_list(info.get("DriverStatus")) for cell in as_list(row)}
    return "containerd" if "io.containerd.snapshotter.v1" in cells else "graphdriver"


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


def containers(text: str) -> list[dict[str, Any]]:
    """The running containers, and how each got the GPU: cdi, hook, or flag for `--gpus`, whose way Docker chooses."""
    found = []
    for row in json_rows(text):
        settings = as_dict(row.get("HostConfig"))
        requests = [as_dict(request) for request in as_list(settings.get("DeviceRequests"))]
        gpu = "cdi" if any(request.get("Driver") == "cdi" for request in requests) else "flag" if requests else None
        if not gpu and settings.get("Runtime") == "nvidia":
            gpu = _by_runtime(row.get("Env"))
        found.append({"name": str(row.get("Name")).lstrip("/"), "id": as_text(row.get("Id")), "gpu": gpu})
    return found


def _by_runtime(environment: object) -> str | None:
    """What NVIDIA's runtime does for a container, by its environment; without that, `runtime`: it may do nothing.

    A daemon whose default is this runtime starts every container with it, also those without a GPU.
    """
    if not isinstance(environment, list):
        return "runtime"
    pairs = dict(str(line).split("=", 1) for line in environment if "=" in str(line))
    devices = pairs.get("NVIDIA_VISIBLE_DEVICES", "")
    return None if devices in {"", "void", "none"} else "cdi" if "nvidia.com/" in devices else "hook"


def disks(text: str) -> dict[str, dict[str, int]]:
    """`df -a -B1 --output=avail,size,iavail,itotal,target`: bytes and inodes by mount point."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"\s*(\d{1,18})\s+(\d{1,18})\s+(\d{1,18}|-)\s+(\d{1,18}|-)\s+(/.*?)\s*", line, re.ASCII)
        if match:
            names = ("free_bytes", "total_bytes", "free_inodes", "total_inodes")
            found[match[5]] = dict(
                zip(names, (int(cell.replace("-", "0")) for cell in match.groups()[:4]), strict=True)
            )
    return found


def processes(text: str) -> list[tuple[int, str, str]]:
    """`ps -e -o pid=,comm=,cgroup=`: pid, name and control group, which may be marked as deleted."""
    pattern = re.compile(r"\s*(\d{1,18})\s+(\S.*?)\s+(\S+(?: \(deleted\))?)\s*", re.ASCII)
    matches = (pattern.fullmatch(line) for line in text.splitlines())
    return [(int(match[1]), match[2], match[3]) for match in matches if match]


def units(text: str) -> dict[str, dict[str, str]]:
    """`systemctl show` of several units: the state of each under every name that it has."""
    found: dict[str, dict[str, str]] = {}
    for block in text.split("\n\n"):
        keys = properties(block)
        kept: dict[str, str] = {key: keys[key] for key in ("LoadState", "ActiveState", "UnitFileState") if key in keys}
        found.update(dict.fromkeys(keys.get("Names", "").split(), kept))
    return found


# The second letter of ${db:Status-Abbrev} (dpkg-query(1)); a third, R, asks for a new installation.
_STATES = {
    "i": "installed",
    "t": "installed",
    "W": "triggers awaited",
    "U": "unpacked",
    "F": "half-configured",
    "H": "half-installed",
}


def packages(text: str) -> list[dict[str, Any]]:
    """`dpkg-query` with package, version and status: what is there, how far it is installed, and whether it is held."""
    found = []
    for row in (line.split() for line in text.splitlines()):
        if len(row) == 3 and (state := _STATES.get(row[2][1:2])):
            broken = "half-installed" if row[2][2:] == "R" else state
            found.append({"name": row[0], "version": row[1], "held": row[2].startswith("h"), "state": broken})
    return found


def kernels(text: str) -> dict[str, Any]:
    """The kernel that boots next, and those for which an nvidia module is there; from `find` over /boot and modules."""
    after = re.search(r"^/boot/vmlinuz (?:\S*/)?vmlinuz-(\S+)$", text, re.MULTILINE)
    with_module = re.findall(r"^/lib/modules/([^/\s]+)/\S*nvidia\.ko", text, re.MULTILINE)
    return {"next": after[1] if after else None, "with_nvidia": tuple(sorted(set(with_module)))}


def default_interface(text: str) -> str | None:
    """/proc/net/route: the interface of the default route with the lowest metric."""
    rows = (line.split() for line in text.splitlines()[1:])
    metric = [(int(row[6]), row[0]) for row in rows if len(row) >= 8 and row[1] == "0" * 8 and row[6].isdecimal()]
    return min(metric)[1] if metric else None


def properties(text: str) -> dict[str, str]:
    """`systemctl show -p …`: KEY=value lines."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


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
