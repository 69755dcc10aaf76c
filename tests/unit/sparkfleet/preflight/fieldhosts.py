"""Hosts as public reports and captures show them, each as what differs from a fit one, and what must be said of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sparknode.base.process import Completed
from sparknode.facts.collect import Raw
from tests.bundles import DRIVER, bundle, cdi_spec, details, meminfo, units
from tests.unit.sparkfleet.preflight.defects import gpu

Answers = dict[str, Completed | str]
Files = dict[str, str | None]
UEVENT = "/sys/bus/pci/devices/000f:01:00.0/uevent"
MODULE, SPEC = "/sys/module/nvidia/version", "/var/run/cdi/nvidia.yaml"
HELD = "nvidia-driver-580-open 580.178.04-0ubuntu0.24.04.1 hi \n"
NO_DEVICES: Answers = dict.fromkeys(("gpu", "gpu-details", "tenants"), Completed((), 6, "No devices were found\n"))
GIB = 1 << 20


@dataclass(frozen=True)
class FieldHost:
    """`says` and `silent` are parts of findings' texts; a part with a row's id and a colon is a finding's beginning."""

    raw: Raw
    says: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    fit: bool | None = None
    hardware: str = "gb10"
    cdi: bool = False


def host(
    says: str | tuple[str, ...] = (),
    silent: str | tuple[str, ...] = (),
    fit: bool | None = None,
    files: Files | None = None,
    *,
    by_cdi: bool = False,
    more: Answers | None = None,
    **answers: Completed | str,
) -> FieldHost:
    given = {**(more or {}), **{name.replace("_", "-"): done for name, done in answers.items()}}
    return FieldHost(bundle(files, given), _many(says), _many(silent), fit, cdi=by_cdi)


def _many(one: str | tuple[str, ...]) -> tuple[str, ...]:
    return (one,) if isinstance(one, str) else one


def gb10(driver: str, packages: str = "") -> tuple[Files, Answers]:
    """A GB10 with another driver, whole in itself."""
    listed = packages or f"nvidia-driver-{driver[:3]}-open {driver}-0ubuntu1 ii \n"
    files: Files = {MODULE: f"{driver}\n", SPEC: cdi_spec(driver)}
    return files, {"gpu": gpu(driver=driver), "gpu-details": details(driver, "13.2"), "packages": listed}


def with_driver(says: str | tuple[str, ...], silent: str | tuple[str, ...] = (), *of: str) -> FieldHost:
    files, answers = gb10(*of)
    return FieldHost(bundle(files, answers), _many(says), _many(silent))


def pc(
    says: str | tuple[str, ...] = (),
    silent: str | tuple[str, ...] = (),
    fit: bool | None = None,
    *,
    name: str = "NVIDIA GeForce RTX 5090",
    driver: str = DRIVER,
    kernel: str = "6.17.0-35-generic",
    memory: str = "32607, 32100",
    vendor: str = "ASUS",
    product: str = "System Product Name",
    system: str = 'ID=ubuntu\nVERSION_ID="24.04"\n',
    row: Completed | str | None = None,
) -> FieldHost:
    files: Files = {
        "/sys/class/dmi/id/sys_vendor": f"{vendor}\n",
        "/sys/class/dmi/id/product_name": f"{product}\n",
        "/etc/dgx-release": None,
        "/etc/fastos-release": None,
        "/etc/os-release": system,
        UEVENT: None,
        "/sys/bus/pci/devices/0000:01:00.0/uevent": "DRIVER=nvidia\nPCI_CLASS=30000\nPCI_ID=10DE:2B85\n",
        "/proc/meminfo": meminfo(MemTotal=65_000_000, MemFree=40_000_000, MemAvailable=58_000_000),
        MODULE: f"{driver}\n",
        SPEC: cdi_spec(driver),
    }
    # Only Debian's descendants have dpkg.
    listed = f"nvidia-driver-{driver[:3]}-open {driver}-0ubuntu0.24.04.1 ii \n" if "ubuntu" in system else ""
    answers: Answers = {
        "uname": f"rig-01 {kernel} x86_64\n",
        "gpu": gpu(name, "12.0", driver, f"38, 14.21, 208, 0, {memory}") if row is None else row,
        "gpu-details": details(driver),
        "packages": listed,
        "kernels": f"/boot/vmlinuz vmlinuz-{kernel}\n/lib/modules/{kernel}/updates/dkms/nvidia.ko.zst \n",
        "ota": Completed((), 127, "", "not found"),
    }
    return FieldHost(bundle(files, answers), _many(says), _many(silent), fit, "rtx50")


def faulty(words: str) -> str:
    return f"NVIDIA GB10, 12.1, {DRIVER}, {', '.join([words] * 6)}\n"


def process(cgroup: str, name: str = "VLLM::EngineCor") -> str:
    return f"      1 systemd         0::/init.scope\n   4711 {name} {cgroup}\n"


def ota(failed: list[str], torn: float = 2.6) -> str:
    mine = {"ota": "OTA2607", "torn": torn, "total_checks": 155, "failed": failed}
    other = {"ota": "OTA2604", "torn": 31.2, "failed": ["kernel"]}
    return json.dumps({"detected_ota": "OTA2607", "torn": torn, "scores": [other, mine]}, indent=2)


def mismatch(text: str) -> FieldHost:
    answers: Answers = dict.fromkeys(("gpu", "gpu-details", "tenants"), Completed((), 18, text))
    silent = ("unknown", "restart nvidia-cdi-refresh", "No devices")
    return host(("fail: gpu.visible", "sudo reboot"), silent, False, {MODULE: "580.159.03\n"}, more=answers)


BROKEN_SMI: Answers = dict.fromkeys(
    ("gpu", "gpu-details", "tenants"),
    Completed((), 9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"),
)
NEW_KERNEL = "gx10-0001 7.0.0-1020-nvidia aarch64\n"
OLD_MODULE = (
    "/boot/vmlinuz vmlinuz-7.0.0-1020-nvidia\n/lib/modules/6.17.0-1032-nvidia/kernel/nvidia-580-open/nvidia.ko \n"
)
NO_REFRESH = units(
    **{"nvidia-cdi-refresh.path": "not-found inactive ", "nvidia-cdi-refresh.service": "not-found inactive "}
)
STATION = "".join(
    f"nvidia-system-{name} 2404.26.01-1 ii \n"
    for name in ("core", "extra", "utils", "station", "station-apps", "station-common", "station-games")
)
FLAG = {"Runtime": "runc", "DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]}
BY_FLAG = json.dumps([{"Name": "/ollama", "Id": "0" * 64, "HostConfig": FLAG}])
KNOWS_CDI = [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]
BY_RUNTIME = json.dumps([{"Name": "/db", "Id": "0" * 64, "HostConfig": {"Runtime": "nvidia"}, "Env": []}])


def skewed(*boxes: tuple[str, str, str]) -> dict[str, Any]:
    """Raw material of hosts by name: maker, product and SoC firmware of each."""
    found = {}
    for at, (vendor, product, version) in enumerate(boxes):
        dmi: Files = {"/sys/class/dmi/id/sys_vendor": f"{vendor}\n", "/sys/class/dmi/id/product_name": f"{product}\n"}
        devices = [
            {"Name": "UEFI Device Firmware", "Version": version},
            {"Name": "Embedded Controller", "Version": "1"},
        ]
        found[f"{vendor[:4]}{at}"] = bundle(dmi, {"firmware": json.dumps({"Devices": devices})})
    return found
