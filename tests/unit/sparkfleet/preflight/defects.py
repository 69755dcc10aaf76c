"""What is wrong with hosts in the field: raw material, and the finding that must name it."""

from __future__ import annotations

import json
from typing import Any

from sparkfleet.catalog.catalog import load
from sparkfleet.release import lockfile
from sparkfleet.release.recipe import Choice
from sparkfleet.release.release import compile_release
from sparkfleet.release.rules import Deployment
from sparknode.base.process import Completed
from sparknode.facts.collect import Raw
from sparknode.state.release import Release
from tests.bundles import (
    CONTAINER,
    DOCKER,
    DRIVER,
    MISSING,
    TIMEOUT,
    bundle,
    cdi_spec,
    details,
    meminfo,
    units,
)
from tests.plan.harness import CURRENT_TAG, lock_document

CATALOG = load()


def release(tag: str = CURRENT_TAG, hardware: str = "gb10", gpu: Any = "gpus", **overrides: Any) -> Release:
    asked = Choice("gemma4-26b-a4b-nvfp4", tag, "agentic", hardware, overrides=overrides)
    locked = lockfile.Lock.model_validate(lock_document()) if hardware == "gb10" and tag == CURRENT_TAG else None
    return compile_release(CATALOG, locked, asked, Deployment(trial=True), gpu).release


PLAIN, CDI = release(), release(gpu="cdi")


def gpu(
    name: str = "NVIDIA GB10",
    capability: str = "12.1",
    driver: str = DRIVER,
    rest: str = "38, 4.2, 208, 0, [N/A], [N/A]",
) -> str:
    return f"{name}, {capability}, {driver}, {rest}\n"


def docker(**changes: Any) -> str:
    return json.dumps(DOCKER | changes)


CONTAINERD_STORE = {"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}


def disk(free: int, total: int = 4 * 10**12, inodes: int = 200_000_000) -> str:
    return f"{free} {total} {inodes} 250000000 /\n"


def answers(**given: Completed | str) -> Raw:
    return bundle(answers={name.replace("_", "-"): done for name, done in given.items()})


def with_files(**changes: str | None) -> Raw:
    paths = {"dgx": "/etc/dgx-release", "memory": "/proc/meminfo", "psi": "/proc/pressure/memory"}
    paths |= {"spec": "/etc/cdi/nvidia.yaml", "run_spec": "/var/run/cdi/nvidia.yaml", "route": "/proc/net/route"}
    paths |= {"speed": "/sys/class/net/enP7s7/speed", "zone": "/sys/class/thermal/thermal_zone0/temp"}
    paths |= {"reboot": "/var/run/reboot-required", "module": "/sys/module/nvidia/version"}
    return bundle({paths[name]: text for name, text in changes.items()})


ORPHAN = "   4242 VLLM::EngineCor 0::/user.slice/user-1000.slice\n"
BY_CDI = {"Runtime": "runc", "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]}
OTHER_RUNTIME = json.dumps(
    [{"Name": "/ollama", "HostConfig": {"Runtime": "nvidia"}}, {"Name": "/ours", "HostConfig": BY_CDI}]
)
WLAN = "Iface Destination Gateway Flags RefCnt Use Metric Mask\nwlP9s9 00000000 0101A8C0 3 0 0 600 0\n"

# row → the material, the severity, words of the message
DEFECTS: dict[str, list[tuple[Raw, str, str]]] = {
    "host.architecture": [(answers(uname="pc 6.17.0-1032-nvidia x86_64\n"), "fail", "x86_64")],
    "host.os": [(with_files(dgx=None), "warn", "Ubuntu 24.04.5 LTS without /etc/dgx-release")],
    "host.clock": [(answers(clock="NTPSynchronized=no\n"), "warn", "timedatectl set-ntp true")],
    "host.desktop": [(answers(processes="  99 gnome-shell 0::/user.slice\n"), "warn", "gnome-shell")],
    "host.sleep": [
        (answers(units=units(suspend_target="loaded inactive static")), "warn", "not masked: suspend.target")
    ],
    "host.thermal": [
        (answers(gpu=gpu(rest="91, 60, 1400, 96, [N/A], [N/A]")), "warn", "the GPU is at 91 °C"),
        (with_files(zone="95100\n"), "warn", "the hottest thermal zone is at 95 °C"),
    ],
    "kernel.minimum": [(answers(uname="gx10 5.14.0-1-nvidia aarch64\n"), "fail", "kernel 5.14.0-1-nvidia")],
    "kernel.version": [
        (
            bundle({"/proc/meminfo": meminfo(CmaTotal=0, CmaFree=0)}, {"uname": "gx10 7.0.0-1019-nvidia aarch64\n"}),
            "warn",
            "kho=off",
        ),
        (answers(uname="gx10 6.17.0-1008-nvidia aarch64\n"), "warn", "panics"),
        (answers(uname="gx10 6.17.0-1008-nvidia-64k aarch64\n"), "warn", "panics"),
        (answers(uname="gx10 6.17.0-1029-nvidia aarch64\n"), "info", "ConnectX-7"),
    ],
    "kernel.kho": [(with_files(memory=meminfo(CmaTotal=0, CmaFree=9751756)), "warn", "CmaFree 9751756 KiB")],
    "probe.bundle": [(bundle(unread={"bundle.json": "it is missing"}), "warn", "it is missing")],
    "host.wsl": [(answers(uname="pc 6.6.87.2-microsoft-standard-WSL2 aarch64\n"), "warn", "WSL2")],
    "gpu.inforom": [
        (
            answers(gpu=Completed((), 14, gpu() + "WARNING: infoROM is corrupted at gpu 000F:01:00.0\n")),
            "warn",
            "infoROM is corrupted",
        )
    ],
    "driver.configured": [
        (answers(packages="nvidia-dkms-580-open 580.178.04-1 iF \n"), "warn", "sudo dpkg --configure -a"),
        (answers(packages="nvidia-dkms-580-open 580.178.04-1 iU \n"), "warn", "unpacked: nvidia-dkms-580-open"),
        (answers(packages="libnvidia-compute-580 580.178.04-1 iHR\n"), "warn", "--reinstall libnvidia-compute-580"),
    ],
    "ota.torn": [(answers(ota="detected_ota OTA2607\ntorn-score: 3\n"), "warn", "a torn score of 3")],
    "gpu.visible": [
        (answers(gpu="No devices were found\n"), "fail", "No devices were found"),
        (answers(gpu=Completed((), 6, "No devices were found\n")), "fail", "NVRM|Xid"),
        (
            answers(gpu=Completed((), 9, "", "NVIDIA-SMI has failed because it couldn't communicate")),
            "fail",
            "communicate",
        ),
        (answers(gpu=TIMEOUT), "fail", "did not answer within 10 s"),
        (answers(gpu=MISSING), "fail", "not installed"),
        (answers(gpu="\x00\x7fNVIDIA GB\x1b[31m, ,, [N/A\n<!doctype html>"), "fail", "no GPU"),
    ],
    "gpu.kind": [
        (answers(gpu=gpu("NVIDIA GeForce RTX 5090", "12.0", rest="40, 60, 208, 0, 32607, 30000")), "fail", "RTX 5090"),
    ],
    "gpu.count": [(answers(gpu=gpu() * 2), "fail", "the second is NVIDIA GB10")],
    "gpu.orphan": [
        (answers(processes=ORPHAN), "fail", "kill -9 4242"),
        (
            answers(processes=f"   4242 VLLM::EngineCor 0::/system.slice/docker-{CONTAINER}.scope\n"),
            "fail",
            "kill 4242",
        ),
        (answers(processes="   4242 VLLM::EngineCor 0::/system.slice/x.service (deleted)\n"), "fail", "kill 4242"),
    ],
    "gpu.engine": [
        (
            answers(processes="   4711 VLLM::EngineCor 0::/system.slice/vllm-qwen.service\n"),
            "fail",
            "sudo systemctl disable --now vllm-qwen.service",
        ),
        (
            answers(processes="   4711 sglang::schedul 0::/user.slice/user-1000.slice/user@1000.service/llm.service\n"),
            "fail",
            "systemctl --machine=1000@.host --user disable --now llm.service",
        ),
        (
            answers(processes="   4711 VLLM::EngineCor 0::/user.slice/user-1000.slice/session-3.scope\n"),
            "fail",
            "an engine of session-3.scope of user 1000",
        ),
        (answers(processes="   4711 VLLM::EngineCor 0::/system.slice/ssh.service\n"), "fail", "ask that user"),
        (
            answers(processes="   4711 VLLM::EngineCor 0::/system.slice/node_slurmstepd.scope/job_1\n"),
            "fail",
            "ask that",
        ),
        (answers(processes="   4711 VLLM::EngineCor 0::/\n"), "fail", "ask that user"),
    ],
    "gpu.tenants": [
        (
            answers(tenants="77, ollama, 40123 MiB\n", processes=" 77 ollama 0::/system.slice/ollama\n"),
            "warn",
            "ollama (pid 77, 40123 MiB)",
        ),
        (answers(tenants="77, odd, name, [N/A]\n"), "warn", "odd, name (pid 77, [N/A])"),
    ],
    "reload.safe": [(answers(containers=OTHER_RUNTIME), "warn", "injected by hook: ollama")],
    "driver.version": [
        (
            bundle(
                {"/sys/module/nvidia/version": "590.48.01\n", "/var/run/cdi/nvidia.yaml": cdi_spec("590.48.01")},
                {
                    "gpu": gpu(driver="590.48.01"),
                    "gpu-details": details("590.48.01"),
                    "packages": "nvidia-driver-590-open 590.48.01-0ubuntu1 ii \n",
                },
            ),
            "warn",
            "93 GB",
        ),
    ],
    "driver.loaded": [(answers(gpu_details=details("580.173.02")), "fail", "the GPU runs firmware 580.173.02")],
    "driver.installed": [
        (answers(packages="nvidia-driver-580-open 580.190.01-0ubuntu1 hi \n"), "warn", "580.190.01 is installed")
    ],
    "driver.reboot": [(with_files(reboot="*** System restart required ***\n"), "warn", "reboot")],
    "driver.next_kernel": [
        (
            answers(
                kernels="/boot/vmlinuz vmlinuz-7.0.0-1020-nvidia\n"
                "/lib/modules/6.17.0-1032-nvidia/kernel/nvidia-580-open/nvidia.ko \n"
            ),
            "fail",
            "linux-modules-nvidia for 7.0.0-1020-nvidia",
        ),
    ],
    "driver.foreign": [
        (answers(packages="nvidia-fabricmanager-580 580.178.04-1 ii \n"), "fail", "apt remove nvidia-fabricmanager-580")
    ],
    "docker.access": [
        (answers(docker=Completed((), 1, "", "/run/docker.sock: nobody answers there")), "fail", "nobody answers"),
        (answers(docker=Completed((), 500, "", "context canceled")), "fail", "context canceled"),
        (answers(docker="{}"), "fail", "names no version"),
        (answers(docker=TIMEOUT), "fail", "did not answer"),
    ],
    "docker.version": [(answers(docker=docker(ServerVersion="23.0.1")), "fail", "Docker 23.0.1")],
    "docker.snap": [
        (answers(docker=docker(DockerRootDir="/var/snap/docker/common/var-lib-docker")), "fail", "snap save docker"),
        (answers(docker=docker(Runtimes={"runc": {"path": "/snap/docker/current/bin/runc"}})), "fail", "snap"),
    ],
    "docker.podman": [
        (
            answers(docker=docker(ServerVersion="5.4.0", DockerRootDir="/home/ann/.local/share/containers/storage")),
            "fail",
            "Podman 5.4.0 answers",
        ),
        (answers(docker=docker(ServerVersion="4.9.3")), "fail", "Podman 4.9.3"),
    ],
    "docker.rootless": [
        (answers(docker=docker(DockerRootDir="/home/ann/.local/share/docker")), "fail", "a rootless Docker answers"),
        (answers(docker=docker(SecurityOptions=["name=seccomp", "name=rootless"])), "fail", "a rootless Docker"),
    ],
    "docker.unit": [
        (answers(units=units(docker_service="not-found inactive ")), "fail", "no docker.service"),
        (answers(units=units(docker_service="masked inactive masked")), "fail", "unmask docker.service"),
    ],
    "docker.group": [(answers(docker_group="docker:x:988:\n"), "info", "the group docker is empty")],
    "cdi.driver": [
        (with_files(run_spec=cdi_spec("580.159.03")), "warn", "written for driver 580.159.03, and 580.178.04 is loaded")
    ],
    "cdi.duplicate": [(with_files(spec=cdi_spec()), "warn", "/etc/cdi/nvidia.yaml and /var/run/cdi/nvidia.yaml")],
    "cdi.refresh": [
        (
            answers(units=units(**{"nvidia-cdi-refresh.path": "loaded inactive disabled"})),
            "warn",
            "nvidia-cdi-refresh.path is disabled",
        ),
        (
            answers(units=units(**{"nvidia-cdi-refresh.path": "loaded inactive enabled"})),
            "warn",
            "nvidia-cdi-refresh.path is inactive",
        ),
        (answers(units=units(**{"nvidia-cdi-refresh.path": "not-found inactive "})), "warn", "is not installed"),
    ],
    "toolkit.version": [
        (answers(toolkit="NVIDIA Container Toolkit CLI version 1.19.1\n"), "warn", "faulty together with CDI"),
        (
            answers(toolkit=Completed((), 0, "", "NVIDIA Container Toolkit CLI version 1.17.8\n")),
            "warn",
            "renews the CDI file",
        ),
    ],
    "mem.available": [
        (with_files(memory=meminfo(MemAvailable=60_000_000)), "fail", "set gpu_memory_utilization to 0.47 or less"),
        (with_files(memory=meminfo(MemAvailable=31_000_000)), "fail", "sudo reboot"),
        (
            with_files(memory=meminfo(MemAvailable=60_000_000, HugePages_Total=32_000, HugePages_Free=32_000)),
            "fail",
            "huge pages hold 62.5 GiB",
        ),
        (
            with_files(memory=meminfo(MemAvailable=60_000_000, Hugetlb=64 << 20)),
            "fail",
            "vm.nr_hugepages",
        ),
    ],
    "mem.headroom": [
        (
            with_files(memory=meminfo(MemAvailable=105_000_000, MemFree=104_000_000)),
            "warn",
            "2.8 GiB above what the start needs",
        )
    ],
    "mem.free": [(with_files(memory=meminfo(MemFree=40_000_000)), "warn", "MemFree is 38.1 GiB")],
    "mem.swap": [(with_files(memory=meminfo(SwapFree=10_000_000)), "warn", "6.5 GiB of swap")],
    "mem.pressure": [(with_files(psi="full avg10=1.25 avg60=0.00 avg300=0.00 total=0\n"), "warn", "1.25 %")],
    "mem.guard": [(answers(units=units(earlyoom_service="not-found inactive ")), "info", "earlyoom does not run")],
    "port.free": [
        (answers(ports='LISTEN 0 9 *:8000 *:* users:(("ollama",pid=77,fd=3))\n'), "fail", "taken by ollama (pid 77)"),
        (answers(ports="LISTEN 0 9 *:8000 *:*\n"), "fail", "port 8000 is taken by a process (pid unknown)"),
    ],
    "disk.space": [
        (answers(disk=disk(4 * 10**9, 4 * 10**10)), "fail", "/var/lib/docker has 4.0 GB free"),
        (
            answers(disk=disk(4 * 10**9, 4 * 10**10), docker=docker(**CONTAINERD_STORE)),
            "fail",
            "/var/lib/containerd has 4.0 GB free",
        ),
    ],
    "disk.low": [(answers(disk=disk(10**11, 4 * 10**12)), "warn", "2% free")],
    "disk.inodes": [(answers(disk=disk(3 * 10**12, inodes=1000)), "warn", "0.0% of its inodes")],
    "net.wifi": [(with_files(route=WLAN), "warn", "the default route is over wlP9s9")],
    "net.speed": [(with_files(speed="100\n"), "warn", "enP7s7 runs at 100 Mbit/s")],
    "tools.rsync": [
        (
            answers(programs="/usr/bin/systemd-run\n/usr/bin/nvidia-container-runtime-hook\n"),
            "fail",
            "apt install rsync",
        )
    ],
    "tools.systemd_run": [
        (answers(programs="/usr/bin/rsync\n/usr/bin/nvidia-container-runtime-hook\n"), "fail", "systemd-run is missing")
    ],
}
