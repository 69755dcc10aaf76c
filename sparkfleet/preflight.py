"""Is this host fit for its release? Pure: a probe document and a plan in, findings out, decided by the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sparkfleet.catalog import Catalog, DriverVerdict, Hardware
from sparkfleet.contract import version_key

KIB_PER_GIB = 1024 * 1024


@dataclass(frozen=True)
class Finding:
    id: str
    severity: Literal["fail", "warn"]
    found: str
    expected: str
    remedy: str

    def text(self) -> str:
        return f"{self.id}: {self.found}; expected {self.expected}; next: {self.remedy}"


def check(node: Mapping[str, Any], release: Mapping[str, Any], catalog: Catalog) -> list[Finding]:
    """Compare a node's probe with what its release needs; failures first."""
    if "error" in node:
        return [
            Finding(
                "probe",
                "fail",
                str(node["error"]),
                "a probe document",
                "run `sudo sparknode probe` on the host",
            )
        ]
    hardware = catalog.hardware[release["host_kind"]["hardware"]]
    findings = [
        *_at_rest(node),
        *_architecture(node, hardware),
        *_gpu(node, hardware),
        *_driver(node, hardware, catalog.driver_verdicts),
        *_docker(node, hardware),
        *_injection(node, release),
        *_memory(node, release),
        *_disk(node, hardware),
        *_port(node, release),
        *_tools(node),
    ]
    return sorted(findings, key=lambda finding: finding.severity != "fail")


def _busy(node: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the roll-out that works on the host, if one does."""
    fleet = node.get("fleet") or {}
    activation = fleet.get("activation") or {}
    busy: Mapping[str, Any] | None = fleet.get("lease") or (activation if activation.get("alive") else None)
    return busy


def _at_rest(node: Mapping[str, Any]) -> Iterator[Finding]:
    busy = _busy(node)
    if busy:
        step = ((node.get("fleet") or {}).get("activation") or {}).get("state")
        yield Finding(
            "host.busy",
            "fail",
            f"roll-out {busy.get('rollout')} of {busy.get('operator')} works on this host since {busy.get('since')}"
            + (f" (from {busy['from']}, until {busy.get('until')})" if busy.get("from") else "")
            + (f", now `{step}`" if step else ""),
            "a host that no roll-out works on",
            "wait for it, or until its lease ends; tasks/status.py shows how far it is",
        )


def _architecture(node: Mapping[str, Any], hardware: Hardware) -> Iterator[Finding]:
    machine = node["host"].get("machine")
    if machine != hardware.machine:
        yield Finding(
            "host.architecture",
            "fail",
            f"the machine is {machine}",
            f"{hardware.machine} ({hardware.description})",
            "set the host's hardware in the inventory",
        )


def _gpu(node: Mapping[str, Any], hardware: Hardware) -> Iterator[Finding]:
    devices = node["gpu"].get("devices") or []
    if not devices:
        yield Finding(
            "gpu.visible",
            "fail",
            f"nvidia-smi shows no GPU ({node['gpu'].get('error') or 'no devices'})",
            hardware.gpu_names[0],
            "journalctl -k | grep -E 'NVRM|Xid'; after an apt upgrade: finish the update in the DGX Dashboard, "
            "reboot, then power-cycle",
        )
        return
    name = str(devices[0].get("name"))
    if not any(name.startswith(known) for known in hardware.gpu_names):
        yield Finding(
            "gpu.kind",
            "fail",
            f"the GPU is {name}",
            " or ".join(hardware.gpu_names),
            "set the host's hardware",
        )
    if len(devices) > hardware.limits.gpus:
        yield Finding("gpu.count", "fail", f"{len(devices)} GPUs", f"{hardware.limits.gpus}", "set the host's hardware")


def _driver(node: Mapping[str, Any], hardware: Hardware, verdicts: list[DriverVerdict]) -> Iterator[Finding]:
    devices = node["gpu"].get("devices") or []
    version = str(devices[0].get("driver_version") or "") if devices else ""
    if not version:
        return
    for row in verdicts:
        if row.verdict != "pass" and _matches(version, row):
            yield Finding(
                "driver.version",
                row.verdict,
                f"driver {version}: {row.why} [{row.source}]",
                f"{hardware.min_driver} or newer, known good",
                "update through the DGX Dashboard in a maintenance window; this tool never changes the driver",
            )
            return


def _matches(version: str, row: DriverVerdict) -> bool:
    if row.version is not None:
        return version == row.version
    if row.prefix is not None:
        return version.startswith(row.prefix)
    if row.below is not None:
        return version_key(version) < version_key(row.below)
    return row.from_ is not None and version_key(version) >= version_key(row.from_)


def _docker(node: Mapping[str, Any], hardware: Hardware) -> Iterator[Finding]:
    version = node["docker"].get("server_version")
    if not version:
        yield Finding(
            "docker.access",
            "fail",
            f"docker does not answer ({node['docker'].get('error') or 'no server'})",
            f"a running Docker {hardware.min_docker} or newer",
            "systemctl status docker; journalctl -u docker -n 50",
        )
    elif version_key(str(version)) < version_key(hardware.min_docker):
        yield Finding("docker.version", "fail", f"Docker {version}", f"{hardware.min_docker} or newer", "update DGX OS")


def _injection(node: Mapping[str, Any], release: Mapping[str, Any]) -> Iterator[Finding]:
    device = release["container"]["gpu"][-1]
    injection = node["injection"]
    if release["container"]["gpu"][0] == "--device":
        if device not in (injection.get("cdi_devices") or []):
            yield Finding(
                "gpu.container",
                "fail",
                f"no CDI device {device}",
                f"{device} in /etc/cdi or /var/run/cdi",
                "systemctl enable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service; nvidia-ctk cdi list",
            )
    elif not injection.get("hook") and not injection.get("cdi_devices"):
        yield Finding(
            "gpu.container",
            "fail",
            "neither nvidia-container-runtime-hook nor a CDI device",
            "the NVIDIA container toolkit",
            "apt install nvidia-container-toolkit && systemctl restart docker",
        )


def _memory(node: Mapping[str, Any], release: Mapping[str, Any]) -> Iterator[Finding]:
    # A host that serves already holds the memory; the node waits for it between stop and start.
    serves = ((node.get("fleet") or {}).get("serving") or {}).get("unit") == "active"
    if release["memory"] is None or serves or _busy(node):
        return
    memory = node["memory"]
    total, available = memory.get("total_kib"), memory.get("available_kib")
    if not total or available is None:
        yield Finding(
            "mem.available",
            "fail",
            "/proc/meminfo is unreadable",
            "MemTotal and MemAvailable",
            "cat /proc/meminfo",
        )
        return
    need = release["memory"]["utilization"] * total
    if available < need:
        fits = int(available / total * 100) / 100
        yield Finding(
            "mem.available",
            "fail",
            f"MemAvailable is {available / KIB_PER_GIB:.1f} of {total / KIB_PER_GIB:.1f} GiB",
            f"{need / KIB_PER_GIB:.1f} GiB (utilization {release['memory']['utilization']:.2f})",
            f"stop other users of the memory, or set gpu_memory_utilization to {fits:.2f} or less",
        )


def _disk(node: Mapping[str, Any], hardware: Hardware) -> Iterator[Finding]:
    reserve = hardware.limits.disk_reserve_bytes
    for row in node.get("disk") or []:
        if row["free_bytes"] < reserve:
            yield Finding(
                "disk.space",
                "fail",
                f"{row['path']} has {row['free_bytes'] / 10**9:.1f} GB free",
                f"at least {reserve / 10**9:.0f} GB",
                f"docker image ls; du -xsh {row['path']}/* | sort -h",
            )


def _port(node: Mapping[str, Any], release: Mapping[str, Any]) -> Iterator[Finding]:
    port = release["serve"]["port"]
    if ((node.get("fleet") or {}).get("serving") or {}).get("unit") in ("active", "activating") or _busy(node):
        return
    for row in node.get("listening") or []:
        if row.get("port") == port:
            owner = f"{row.get('process') or 'a process'} (pid {row.get('pid') or 'unknown'})"
            yield Finding(
                "port.free",
                "fail",
                f"port {port} is taken by {owner}",
                "a free port",
                f"ss -ltnp 'sport = :{port}'",
            )
            return


def _tools(node: Mapping[str, Any]) -> Iterator[Finding]:
    tools = node.get("tools") or {}
    for name, package in (("rsync", "rsync"), ("systemd_run", "systemd")):
        if not tools.get(name):
            yield Finding(
                f"tools.{name}",
                "fail",
                f"{name.replace('_', '-')} is missing",
                "installed",
                f"apt install {package}",
            )
