"""Memory, Docker, CDI, drivers, kernels and updates of the field."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sparknode.base.process import Completed
from tests.bundles import cdi_spec, details, meminfo, units
from tests.unit.sparkfleet.preflight.defects import docker
from tests.unit.sparkfleet.preflight.fieldhosts import (
    BY_FLAG,
    BY_RUNTIME,
    GIB,
    HELD,
    KNOWS_CDI,
    NO_REFRESH,
    SPEC,
    FieldHost,
    host,
    ota,
    with_driver,
)

HOSTS: Mapping[str, FieldHost] = {
    # Memory.
    "few huge pages": host(
        (), "mem.available", True, {"/proc/meminfo": meminfo(HugePages_Total=16, HugePages_Free=16)}
    ),
    "huge pages in use": host(
        (), "mem.available", True, {"/proc/meminfo": meminfo(HugePages_Total=512, HugePages_Free=0)}
    ),
    "huge pages of a gigabyte": host(
        ("fail: mem.available", "huge pages hold 64.0 GiB"),
        "sudo reboot",
        False,
        {"/proc/meminfo": meminfo(MemAvailable=50 * GIB, HugePages_Total=64, HugePages_Free=64, Hugepagesize=GIB)},
    ),
    "huge pages of two sizes": host(
        "huge pages hold 70.0 GiB", (), False, {"/proc/meminfo": meminfo(MemAvailable=40 * GIB, Hugetlb=70 * GIB)}
    ),
    "memory that nobody holds": host(
        ("fail: mem.available", "sudo reboot"),
        "0.24",
        False,
        {"/proc/meminfo": meminfo(MemFree=20_000_000, MemAvailable=31_000_000)},
    ),
    "memory of which somebody holds a little": host(
        "sudo reboot",
        (),
        False,
        {"/proc/meminfo": meminfo(MemFree=20_000_000, MemAvailable=31_000_000)},
        tenants="77, python3, 512 MiB\n",
        processes=" 77 python3 0::/user.slice/user-1000.slice/session-3.scope\n",
    ),
    "memory that somebody holds": host(
        "fail: mem.available",
        "sudo reboot",
        False,
        {"/proc/meminfo": meminfo(MemAvailable=31_000_000)},
        tenants="77, python3, 90000 MiB\n",
        processes=" 77 python3 0::/user.slice/user-1000.slice/session-3.scope\n",
    ),
    "no total": host(
        "fail: mem.available: unknown", ("Traceback", "ZeroDivision"), False, {"/proc/meminfo": meminfo(MemTotal=0)}
    ),
    # Docker, or what answers in its place.
    "snap": host(
        ("fail: docker.snap", "snap save docker"),
        (),
        False,
        docker=docker(DockerRootDir="/var/snap/docker/common/var-lib-docker"),
    ),
    "snap with its data elsewhere": host(
        "fail: docker.snap",
        (),
        False,
        docker=docker(
            DockerRootDir="/mnt/nvme",
            Runtimes={"nvidia": {"path": "/snap/docker/current/bin/nvidia-container-runtime"}},
        ),
    ),
    "podman": host(
        "fail: docker.podman: Podman 4.9.3",
        ("Docker 4.9", "only-upgrade"),
        False,
        docker=docker(ServerVersion="4.9.3", DockerRootDir="/var/lib/containers/storage"),
    ),
    "podman 5 of a user": host(
        "Podman 5.4.2",
        "Docker 5",
        False,
        docker=docker(ServerVersion="5.4.2", DockerRootDir="/home/ann/.local/share/containers/storage"),
    ),
    "podman that names Buildah": host(
        "Podman", "found: Docker 24", False, docker=docker(ServerVersion="24.0.0", BuildahVersion="1.33.7")
    ),
    "rootless docker": host(
        "fail: docker.rootless",
        (),
        False,
        docker=docker(SecurityOptions=["name=seccomp,profile=builtin", "name=rootless"]),
    ),
    "rootless docker beside none": host(
        ("fail: docker.access", "a rootless Docker of user 1000"),
        (),
        False,
        docker=Completed((), 1, "", "/run/docker.sock: it is not there"),
        processes=" 900 dockerd 0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service\n",
    ),
    "docker that is stopped": host(
        ("fail: docker.access", "enable --now docker"),
        "docker.unit",
        False,
        docker=Completed((), 1, "", "/run/docker.sock: nobody answers"),
        units=units(docker_service="loaded inactive disabled"),
    ),
    "docker that is not there": host(
        "sudo apt update && sudo apt install docker-ce",
        "docker.unit",
        False,
        docker=Completed((), 1, "", "/run/docker.sock: it is not there"),
        units=units(docker_service="not-found inactive "),
    ),
    "--gpus of Docker 29.2": host(
        (), "reload.safe", True, docker=docker(ServerVersion="29.6.2", DiscoveredDevices=KNOWS_CDI), containers=BY_FLAG
    ),
    "--gpus of Docker 29.1": host(
        "warn: reload.safe",
        (),
        True,
        docker=docker(ServerVersion="29.1.3", DiscoveredDevices=KNOWS_CDI),
        containers=BY_FLAG,
    ),
    "--gpus without a specification": host(
        "warn: reload.safe", (), True, docker=docker(ServerVersion="29.6.2", DiscoveredDevices=[]), containers=BY_FLAG
    ),
    "default runtime without a GPU": host(
        (), "reload.safe", True, docker=docker(DefaultRuntime="nvidia"), containers=BY_RUNTIME
    ),
    # CDI.
    "no specification and no unit": host(
        ("fail: gpu.container", "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"),
        ("restart nvidia-cdi-refresh", "enable --no-reload"),
        False,
        {SPEC: None},
        by_cdi=True,
        units=NO_REFRESH,
        cdi="",
    ),
    "a second specification": host(
        ("cdi.duplicate", "sudo mv /etc/cdi/nvidia-gpu.yaml /etc/cdi/nvidia-gpu.yaml.stale"),
        "mv /etc/cdi/nvidia.yaml",
        True,
        {"/etc/cdi/nvidia-gpu.yaml": cdi_spec()},
    ),
    "a second one as JSON": host(
        "sudo mv /etc/cdi/gpu.json",
        (),
        True,
        {"/etc/cdi/gpu.json": json.dumps({"kind": "nvidia.com/gpu", "devices": [{"name": "all"}]})},
    ),
    "two in one folder, one stale": host(
        "sudo mv /etc/cdi/a.yaml /etc/cdi/a.yaml.stale",
        "mv /etc/cdi/b.yaml",
        None,
        {SPEC: None, "/etc/cdi/a.yaml": cdi_spec("580.95.05"), "/etc/cdi/b.yaml": cdi_spec()},
        units=NO_REFRESH,
    ),
    # Driver and CUDA.
    "590 on a GB10": with_driver(
        ("nvidia-driver-pinning-580", "--allow-downgrades nvidia-driver-580-open"), "DGX Dashboard", "590.48.01"
    ),
    "595 on a GB10": with_driver("nvidia-driver-pinning-580", "dist-upgrade", "595.71.05"),
    "610 on a GB10": with_driver("nvidia-driver-pinning-580", "dist-upgrade", "610.57.04"),
    "580.95 on a GB10": with_driver("DGX Dashboard", "pinning", "580.95.05"),
    "packages without a number": with_driver(
        "warn: driver.installed",
        (),
        "595.71.05",
        "nvidia-open 610.57.04-1ubuntu1 ii \nlibnvidia-compute 610.57.04-1ubuntu1 ii \n",
    ),
    "libraries alone": with_driver(
        "warn: driver.installed", (), "595.71.05", "libnvidia-compute 610.57.04-1ubuntu1 ii \n"
    ),
    "packages of Debian": with_driver(
        "warn: driver.installed", (), "595.71.05", "nvidia-kernel-open-dkms 610.57.04-1 ii \n"
    ),
    "CUDA with a remark": host(
        ("warn: cuda.toolchain", "the driver has 12.8"),
        (),
        True,
        gpu_details=details(cuda="12.8 [Deprecated; will be removed in CUDA 14.0. Use CUDA UMD Version instead]"),
    ),
    "CUDA of 610": host(
        (),
        "cuda.toolchain",
        True,
        gpu_details=details(cuda="13.3 [Deprecated; will be removed in CUDA 14.0. Use CUDA UMD Version instead]")
        + "KMD Version                       : 580.178.04\nCUDA UMD Version                  : 13.3\n",
    ),
    "CUDA of the UMD alone": host(
        "the driver has 12.9",
        (),
        True,
        gpu_details=details().replace("CUDA Version    ", "CUDA UMD Version", 1).replace("13.0", "12.9"),
    ),
    **{
        f"CUDA {words}": host(("warn: cuda.toolchain: unknown", words), (), True, gpu_details=details(cuda=words))
        for words in ("Not Found", "N/A", "ERR!")
    },
    "half-configured": host(
        ("half-configured: nvidia-dkms-580-open", "dpkg --configure -a"),
        (),
        True,
        packages=HELD + "nvidia-dkms-580-open 580.178.04-1 iF \n",
    ),
    "unpacked and held": host(
        "unpacked: libnvidia-compute-580", (), True, packages=HELD + "libnvidia-compute-580 580.178.04-1 hU \n"
    ),
    "removed with its settings left": host((), "driver.", True, packages=HELD + "nvidia-driver-550 550.1-1 rc \n"),
    # Kernels.
    "kho is off": host(
        (),
        ("kernel.kho", "reserves about"),
        True,
        uname="gx10-0001 7.0.0-1019-nvidia aarch64\n",
        kernels="/boot/vmlinuz vmlinuz-7.0.0-1019-nvidia\n/lib/modules/7.0.0-1019-nvidia/kernel/x/nvidia.ko \n",
    ),
    "WSL2": host("warn: host.wsl", (), True, uname="pc 6.6.87.2-microsoft-standard-WSL2 aarch64\n"),
    # The update's own check.
    "another key behind the score": host(
        (), "ota.torn", True, ota='{ "name": "OTA2607", "torn": 0, "total_checks": 153 }\n'
    ),
    "which update": host(
        "torn score of 3 of OTA2.2",
        (),
        True,
        ota='{"name": "OTA2.2", "releaseDate": "2026-03-31T00:00:00.000Z", "torn": 3}',
    ),
    "parts that wait for the maker": host(
        ("info: ota.torn", "SOCFW, EC, TPM"), ("warn: ota.torn", "DGX Dashboard"), True, ota=ota(["SOCFW", "EC", "TPM"])
    ),
    "a kernel of another update": host(("warn: ota.torn", "kernel"), (), True, ota=ota(["kernel", "TPM"])),
    "a driver's package": host("warn: ota.torn", (), True, ota=ota(["nvidia-driver-580-open"])),
    "old firmware package": host(
        "info: ota.torn", "warn: ota.torn", True, ota=ota(["nvidia-firmware-580-580.126.09", "USBPD"], 1)
    ),
    "whole": host((), "ota.torn", True, ota=ota([], 0)),
    "words around it": host(
        "torn score of 1", (), True, ota="checking 153 packages\n" + ota(["kernel"], 1) + "done in 9 s\n"
    ),
    "no score": host("info: ota.torn: unknown", (), True, ota="updated 12 packages\n"),
}
