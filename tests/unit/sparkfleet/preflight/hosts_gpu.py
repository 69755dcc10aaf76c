"""GPUs of the field, what they are bound to, and engines that run beside ours."""

from __future__ import annotations

from collections.abc import Mapping

from sparknode.base.process import Completed
from sparknode.facts.collect import NOT_ASKED
from tests.bundles import CONTAINER, details
from tests.unit.sparkfleet.preflight.defects import gpu
from tests.unit.sparkfleet.preflight.fieldhosts import (
    BROKEN_SMI,
    HELD,
    MODULE,
    NEW_KERNEL,
    NO_DEVICES,
    OLD_MODULE,
    STATION,
    UEVENT,
    FieldHost,
    faulty,
    host,
    mismatch,
    pc,
    process,
)

HOSTS: Mapping[str, FieldHost] = {
    # Packages that DGX OS brings are no foreign ones; those of a data centre are.
    "station packages": host((), "driver.foreign", True, packages=HELD + STATION),
    "modprobe of a newer driver": host(
        (), ("warn: driver", "fail: driver"), True, packages=HELD + "nvidia-modprobe 610.57.04-1ubuntu1 ii \n"
    ),
    "server driver": host(
        "fail: driver.foreign",
        "nvidia-system",
        False,
        packages=HELD + "nvidia-driver-580-server-open 580.178.04-1 ii \n",
    ),
    "headless server driver": host(
        "fail: driver.foreign", (), False, packages=HELD + "nvidia-headless-no-dkms-580-server-open 580.178.04-1 ii \n"
    ),
    "fabric manager without a number": host(
        "fail: driver.foreign", (), False, packages=HELD + "nvidia-fabricmanager 590.48.01-1 ii \n"
    ),
    # A GPU that is listed and gone.
    **{
        f"row of {words}": host(
            ("fail: gpu.visible", words.strip("[]"), "sudo reboot"), "unknown", False, gpu=faulty(words)
        )
        for words in (
            "[GPU is lost]",
            "[GPU requires reset]",
            "[Unknown Error]",
            "ERR!",
            "[GPU access blocked by the operating system]",
        )
    },
    **{
        f"figure of {words}": host((), "gpu.visible", True, gpu=faulty(words))
        for words in (
            "[N/A]",
            "[Not Supported]",
            "N/A",
            "[Insufficient Permissions]",
            "[Requested functionality has been deprecated]",
        )
    },
    "lost in every cell": host("fail: gpu.visible", (), False, gpu=", ".join(["[GPU is lost]"] * 9) + "\n"),
    "lost without a row": host(
        ("fail: gpu.visible: the GPU can't be used", "sudo reboot"),
        "shows no GPU",
        False,
        gpu=Completed((), 15, "Unable to determine the device handle for GPU0: 000F:01:00.0: GPU is lost.  Reboot\n"),
    ),
    "lost by exit code": host("fail: gpu.visible", (), False, gpu=Completed((), 15, gpu())),
    "one of two lost": host(
        "fail: gpu.visible",
        (),
        False,
        gpu=Completed((), 255, gpu() + "Unable to determine the device handle for GPU1: 0001:01:00.0: Unknown Error\n"),
    ),
    "recovery action": host(
        "fail: gpu.visible",
        (),
        False,
        gpu_details=details() + "    GPU Recovery Action                  : Node Reboot\n",
    ),
    "no recovery action": host(
        (), "gpu.visible", True, gpu_details=details() + "    GPU Recovery Action                  : None\n"
    ),
    "card that requires a reset": pc(
        "fail: gpu.visible",
        "TypeError",
        False,
        row=gpu("NVIDIA GeForce RTX 5090", "12.0", rest=", ".join(["[GPU requires reset]"] * 6)),
    ),
    "card without memory": pc(
        "fail: gpu.memory: unknown", ("Traceback", "ZeroDivision", "mem.fits"), False, memory="0, 0"
    ),
    "damaged infoROM": pc(
        ("warn: gpu.inforom", "infoROM is corrupted"),
        "shows no GPU",
        row=Completed(
            (),
            14,
            gpu("NVIDIA GeForce RTX 5090", "12.0", rest="38, 14.21, 208, 0, 32607, 32100")
            + "WARNING: infoROM is corrupted at gpu 0000:01:00.0\n",
        ),
    ),
    # A GPU that is not there, and why.
    "kernel without module": host(
        ("fail: gpu.visible: kernel 7.0.0-1020-nvidia is running", "boot kernel 6.17.0-1032-nvidia"),
        "unplug",
        False,
        {MODULE: None},
        uname=NEW_KERNEL,
        kernels=OLD_MODULE,
        more=BROKEN_SMI,
    ),
    "given to a guest": host(
        ("fail: gpu.visible: the GPU at 000f:01:00.0 is bound to vfio-pci",),
        ("unplug", "gpu.kind"),
        False,
        {UEVENT: "DRIVER=vfio-pci\nPCI_CLASS=30000\nPCI_ID=10DE:2E12\n"},
        more=NO_DEVICES,
    ),
    "nouveau": host(
        "is bound to nouveau",
        "unplug",
        False,
        {UEVENT: "DRIVER=nouveau\nPCI_CLASS=30000\nPCI_ID=10DE:2E12\n", MODULE: None},
        more=BROKEN_SMI,
    ),
    "a module that Secure Boot refused": host(
        ("fail: gpu.visible: the nvidia module is not loaded", "mokutil --import"),
        "unplug",
        False,
        {MODULE: None},
        more=BROKEN_SMI,
        kernel_log="[   12.345678] Loading of module with unavailable key is rejected\n",
    ),
    "a reason in the kernel's log": host(
        "the kernel: NVRM: Xid (PCI:000f:01:00): 79, GPU has fallen off the bus.",
        (),
        False,
        gpu=faulty("[GPU is lost]"),
        kernel_log="[ 9.1] NVRM: Xid (PCI:000f:01:00): 79, GPU has fallen off the bus.\n[ 9.2] NVRM: failed\n",
    ),
    "an Xid of yesterday": host(
        (), "gpu.visible", True, kernel_log="[ 9.1] NVRM: Xid (PCI:000f:01:00): 43, pid=77, name=python3\n"
    ),
    "audio function of another driver": host(
        (),
        ("gpu.kind", "gpu.visible"),
        True,
        {"/sys/bus/pci/devices/000f:01:00.1/uevent": "DRIVER=snd_hda_intel\nPCI_CLASS=40300\nPCI_ID=10DE:22E8\n"},
    ),
    "versions differ": mismatch(
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.178\n"
    ),
    "versions differ, unnamed": mismatch("Failed to initialize NVML: Driver/library version mismatch\n"),
    "bundle without the answer": host(
        "fail: gpu.visible: unknown",
        "unplug",
        False,
        gpu=Completed((), NOT_ASKED, "", "the bundle has no answer to it"),
    ),
    "a mark before the row": host((), "gpu.kind", True, gpu="\ufeff" + gpu()),
    # Engines beside ours.
    "engine of a unit": host(
        ("fail: gpu.engine", "disable --now vllm-qwen.service"),
        ("gpu.orphan", "kill -9"),
        False,
        processes=process("0::/system.slice/vllm-qwen.service"),
        tenants="4711, VLLM::EngineCore, 61234 MiB\n",
    ),
    "engine of a unit, cgroup v1": host(
        "disable --now vllm.service",
        "kill -9",
        False,
        processes=process("12:pids:/system.slice/vllm.service,1:name=systemd:/system.slice/vllm.service"),
    ),
    "engine of a template unit": host(
        "disable --now vllm@qwen.service",
        "kill -9",
        False,
        processes=process("0::/system.slice/system-vllm.slice/vllm@qwen.service"),
    ),
    "engine of a session": host(
        ("fail: gpu.engine", "ask that user"),
        ("kill -9", "disable --now"),
        False,
        processes=process("0::/user.slice/user-1000.slice/session-3.scope"),
    ),
    "engine of a terminal": host(
        "fail: gpu.engine",
        ("kill -9", "disable --now"),
        False,
        processes=process(
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope"
        ),
    ),
    "engine started over ssh": host(
        "fail: gpu.engine", ("kill -9", "disable --now"), False, processes=process("0::/system.slice/ssh.service")
    ),
    "engine of cron": host(
        "fail: gpu.engine", ("kill -9", "disable --now"), False, processes=process("0::/system.slice/cron.service")
    ),
    **{
        f"engine in {what}": host(
            "warn: gpu.tenants", ("gpu.orphan", "gpu.engine", "kill"), True, processes=process(cgroup)
        )
        for what, cgroup in {
            "podman": "0::/machine.slice/libpod-abc.scope/container",
            "kubernetes": "0::/kubepods.slice/kubepods-besteffort.slice/cri-containerd-abc.scope",
            "rootless docker": "0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service/abc",
            "rootless podman": "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-abc.scope",
            "lxc": "0::/lxc/101/ns/system.slice/vllm.service",
            "lxc of Proxmox": "0::/lxc.payload.101/system.slice/vllm.service",
            "a snap's docker": "0::/system.slice/snap.docker.dockerd.service/docker/abc",
            "another container": "0::/system.slice/docker-0123.scope",
        }.items()
    },
    "engine of a dead container": host(
        ("fail: gpu.orphan", "sudo kill 4711"),
        (),
        False,
        processes=process(f"0::/system.slice/docker-{CONTAINER}.scope"),
    ),
}
