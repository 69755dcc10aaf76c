"""The raw material of a fit GB10 host, and of the same host with something changed: what the probe is tested with.

The shapes are those of tests/fixtures/gb10 and of public reports; nothing of it is a real machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparkfleet.preflight.seen import Seen, read
from sparknode.base.process import Completed
from sparknode.base.shape import written
from sparknode.facts.collect import COMMANDS, Raw
from sparknode.facts.facts import Facts
from sparknode.facts.probe import facts

FIXTURES = Path(__file__).parent / "fixtures" / "gb10"
DRIVER = "580.178.04"
CDI_LIST = (FIXTURES / "nvidia-ctk-cdi-list.txt").read_text()
CONTAINER = "c0ffee" * 10 + "abcd"


def cdi_spec(driver: str = DRIVER, devices: tuple[str, ...] = ("0", "all")) -> str:
    names = "".join(f'- name: "{name}"\n  containerEdits: {{}}\n' for name in devices)
    mount = f"containerEdits:\n  mounts:\n  - hostPath: /usr/lib/aarch64-linux-gnu/libcuda.so.{driver}\n"
    return f"---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n{names}{mount}"


def details(driver: str = DRIVER, cuda: str = "13.0") -> str:
    return (
        f"Driver Version                            : {driver}\nCUDA Version                              : {cuda}\n"
        "GPU 0000000F:01:00.0\n    Product Name                          : NVIDIA GB10\n"
        f"    GSP Firmware Version                  : {driver}\n"
    )


def meminfo(**kib: int) -> str:
    keys = {"MemTotal": 127535224, "MemFree": 118000000, "MemAvailable": 121000000, "SwapTotal": 16777212}
    keys |= {"SwapFree": 16777212, "HugePages_Total": 0, "HugePages_Free": 0, "Hugepagesize": 2048}
    keys |= {"CmaTotal": 131072, "CmaFree": 126976}
    return "".join(f"{key}: {value} kB\n" for key, value in (keys | kib).items())


def units(**states: str) -> str:
    """What `systemctl show` says of no engine and of these; a state is LoadState ActiveState UnitFileState."""
    known = {
        "default.target": "loaded active indirect",
        "docker.service": "loaded active enabled",
        "nvidia-cdi-refresh.path": "loaded active enabled",
        "nvidia-cdi-refresh.service": "loaded inactive enabled",
        "earlyoom.service": "loaded active enabled",
        **dict.fromkeys(
            ("sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target"), "masked inactive masked"
        ),
    }
    known |= {name.replace("__", "-").replace("_", "."): state for name, state in states.items()}
    blocks = ["LoadState=not-found\nActiveState=inactive\n"]
    for name, state in known.items():
        load, active, file = state.split(" ")
        blocks.append(f"Names={name}\nLoadState={load}\nActiveState={active}\nUnitFileState={file}\n")
    return "\n".join(blocks)


DOCKER = {
    "ServerVersion": "29.2.1",
    "DockerRootDir": "/var/lib/docker",
    "Driver": "overlay2",
    "Runtimes": {"runc": {}},
    "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}],
}
FILES = {
    "/etc/dgx-release": (FIXTURES / "dgx-release.asus.txt").read_text(),
    "/etc/fastos-release": 'NAME="DGX SPARK FASTOS"\nVERSION="1.120.38"\n',
    "/etc/os-release": 'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.5 LTS"\n',
    "/etc/default/earlyoom": "EARLYOOM_ARGS=\"-m 2 -s 80 --prefer '(vllm|VLLM|sglang|python3|python)' "
    "--avoid '(systemd|sshd|dockerd|containerd|dbus-daemon|NetworkManager)'\"\n",
    "/var/run/cdi/nvidia.yaml": cdi_spec(),
    "/proc/meminfo": meminfo(),
    "/proc/uptime": "86400.11 1000.00\n",
    "/proc/net/route": "Iface Destination Gateway Flags RefCnt Use Metric Mask\nenP7s7 00000000 0101A8C0 3 0 0 100 0\n",
    "/proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 total=0\n",
    "/proc/sys/kernel/random/boot_id": "11111111-2222-3333-4444-555555555555\n",
    "/sys/module/nvidia/version": f"{DRIVER}\n",
    "/sys/class/dmi/id/sys_vendor": "ASUSTeK COMPUTER INC.\n",
    "/sys/class/dmi/id/product_name": "GX10\n",
    "/sys/class/dmi/id/bios_version": "GX10DGX.0105\n",
    "/sys/class/net/enP7s7/speed": "10000\n",
    "/sys/class/thermal/thermal_zone0/temp": "45000\n",
    "/sys/bus/pci/devices/000f:01:00.0/uevent": "DRIVER=nvidia\nPCI_CLASS=30000\nPCI_ID=10DE:2E12\n",
}
ANSWERS = {
    "container": Completed((), 404, "", "No such container: sparkfleet-serve"),
    "images": Completed((), 0, "[]"),
    "gpu": Completed((), 0, f"NVIDIA GB10, 12.1, {DRIVER}, 38, 4.21, 208, 0, [N/A], [N/A]\n"),
    "gpu-details": Completed((), 0, details()),
    "tenants": Completed((), 0, ""),
    "docker": Completed((), 0, json.dumps(DOCKER)),
    "containerd": Completed((), 0, 'root = "/var/lib/containerd"\n'),
    "containers": Completed((), 0, "[]"),
    "docker-group": Completed((), 0, "docker:x:988:nvidia\n"),
    "cdi": Completed((), 0, CDI_LIST.partition("\n")[2], CDI_LIST.partition("\n")[0]),
    "toolkit": Completed((), 0, "NVIDIA Container Toolkit CLI version 1.20.1\ncommit: dffc40b4\n"),
    "ports": Completed((), 0, 'LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=7,fd=3))\n'),
    "uname": Completed((), 0, "gx10-0001 6.17.0-1032-nvidia aarch64\n"),
    "disk": Completed(
        (), 0, "  Avail 1B-blocks IFree Inodes Mounted on\n3600000000000 4000000000000 200000000 250000000 /\n"
    ),
    "processes": Completed(
        (), 0, "      1 systemd         0::/init.scope\n      7 sshd            0::/system.slice/ssh\n"
    ),
    "units": Completed((), 0, units()),
    "packages": Completed(
        (),
        1,
        f"nvidia-driver-580-open {DRIVER}-0ubuntu0.24.04.1 hi \n",
        "dpkg-query: no packages found matching earlyoom",
    ),
    "kernels": Completed(
        (),
        0,
        "/boot/vmlinuz vmlinuz-6.17.0-1032-nvidia\n/lib/modules/6.17.0-1032-nvidia/kernel/nvidia-580-open/nvidia.ko \n",
    ),
    "kernel-log": Completed((), 0, ""),
    "clock": Completed((), 0, "NTPSynchronized=yes\n"),
    "firmware": Completed(
        (), 0, json.dumps({"Devices": [{"Name": "UEFI Device Firmware", "Version": "0x02009b0b"}, {"Name": "TPM"}]})
    ),
    "ota": Completed((), 0, "torn-score: 0\n"),
    "programs": Completed((), 0, "/usr/bin/rsync\n/usr/bin/systemd-run\n/usr/bin/nvidia-container-runtime-hook\n"),
}
TIMEOUT = Completed((), None, timeout=10.0)
MISSING = Completed((), 127, "", "not found")


def bundle(
    files: Mapping[str, str | None] | None = None,
    answers: Mapping[str, Completed | str] | None = None,
    unread: Mapping[str, str] | None = None,
) -> Raw:
    """The fit host with these files (None: absent) and these answers (a text: printed, exit code 0) instead."""
    kept = {path: text for path, text in {**FILES, **(files or {})}.items() if text is not None}
    given = {name: Completed((), 0, done) if isinstance(done, str) else done for name, done in (answers or {}).items()}
    commands = {name: replace(done, argv=COMMANDS[name]) for name, done in {**ANSWERS, **given}.items()}
    return Raw(kept, unread or {}, commands)


BARE_FLEET: dict[str, Any] = {
    "releases": [],
    "current": None,
    "previous": None,
    "verified": None,
    "serving": None,
    "activation": None,
    "last": None,
    "proof": None,
    "release": None,
    "lease": None,
    "failed_releases": {},
    "watch": None,
    "models": [],
    "images": [],
}


def document(raw: Raw | None = None, **fleet: Any) -> dict[str, Any]:
    """The probe of a host of this material, without a trip to any host."""
    return {**written(facts(raw or bundle())), "fleet": {**BARE_FLEET, **fleet}}


def seen(document: Mapping[str, Any], read_at: float | None = None) -> Seen:
    """What the controller makes of a probe's document."""
    return read(json.dumps(document), read_at)


def facts_of(document: Mapping[str, Any]) -> Facts:
    found = seen(document)
    assert found.facts, found.error
    return found.facts
