"""What is true of a host, in one document: what `sparknode probe` writes, and what the controller reads.

Null is what the host does not have or does not tell, and `unreadable` names what could not be read. All keys of this
version are in a document. One that is added later gets a default, which older documents then mean, and which its check
must take for unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparknode import SCHEMAS
from sparknode.base.shape import Count, Node, Whole
from sparknode.host.owners import Owner
from sparknode.state.status import NodeStatus


@dataclass(frozen=True)
class Program:
    """The node's program."""

    # SHA-256 of /usr/local/bin/sparknode; null where it is not installed.
    installed_sha256: str | None


@dataclass(frozen=True)
class Os:
    """/etc/os-release."""

    id: str | None
    id_like: str | None
    version_id: str | None
    pretty_name: str | None


@dataclass(frozen=True)
class Dgx:
    """/etc/dgx-release, without the serial number."""

    name: str | None
    platform: str | None
    software_version: str | None
    # The last update over the air; null before the first.
    ota_version: str | None

    @property
    def update(self) -> str | None:
        """What it was last updated to, or came with."""
        return self.ota_version or self.software_version


@dataclass(frozen=True)
class Dmi:
    """Who built the machine (/sys/class/dmi/id)."""

    sys_vendor: str | None
    product_name: str | None
    bios_version: str | None
    ec_firmware_release: str | None


@dataclass(frozen=True)
class Ota:
    """What nvidia-spark-ota-check says of an update."""

    name: str | None
    # A score: 0 where every part of the update is installed.
    torn: float
    # The parts that are not as the update has them; null where only the score is told.
    failed: tuple[str, ...] | None


@dataclass(frozen=True)
class Host:
    """The machine and its system."""

    hostname: str | None
    # The architecture, as `uname -m` prints it.
    machine: str | None
    kernel: str | None
    os: Os
    # Null on what is no DGX.
    dgx: Dgx | None
    # The version of DGX OS's image (/etc/fastos-release).
    fastos: str | None
    # The version that the probe ran with.
    python: str
    boot_id: str | None
    # When it was read, by the host's clock, in seconds since 1970.
    time: float
    uptime_s: float | None
    dmi: Dmi
    reboot_required: bool
    clock_synchronized: bool | None
    ota: Ota | None
    # The programs of a desktop that run.
    desktop: tuple[str, ...]
    # The hottest thermal zone, in °C.
    hottest_zone_c: float | None


@dataclass(frozen=True)
class Memory:
    """/proc/meminfo, in KiB."""

    total_kib: Count | None
    available_kib: Count | None
    free_kib: Count | None
    swap_total_kib: Count | None
    swap_free_kib: Count | None
    # Huge pages of the default size; how many.
    hugepages_total: Count | None
    hugepages_free: Count | None
    # The default size.
    hugepage_kib: Count | None
    # What huge pages of all sizes hold.
    hugetlb_kib: Count | None
    cma_total_kib: Count | None
    cma_free_kib: Count | None
    # The share of the last 10 s in which every task waited for memory, in percent.
    stall_percent: float | None

    @property
    def hugepages_kib(self) -> int:
        """What huge pages hold; without the line of all sizes, those of the default size."""
        default = (self.hugepages_total or 0) * (self.hugepage_kib or 0)
        return default if self.hugetlb_kib is None else self.hugetlb_kib


@dataclass(frozen=True)
class Device:
    """A GPU as nvidia-smi lists it; a GB10 has no figures of memory."""

    name: str
    compute_capability: str | None
    driver_version: str | None
    # The driver's words for a fault that stands in place of a value.
    fault: str | None
    temperature_c: float | None = None
    power_w: float | None = None
    # The clock of its processors, in MHz.
    clock_mhz: float | None = None
    # In percent.
    utilization: float | None = None
    memory_total_mib: float | None = None
    memory_free_mib: float | None = None


@dataclass(frozen=True)
class Card:
    """A display device of NVIDIA's on the PCI bus."""

    address: str
    # Vendor and device, such as 10de:2e12.
    id: str
    # The kernel driver that it is bound to.
    driver: str | None


@dataclass(frozen=True)
class Tenant:
    """A process that holds memory of the GPU, or an engine."""

    # As nvidia-smi words it, such as 69564 MiB.
    memory: str | None
    pid: Count
    name: str
    # Whether it is the fleet's own; null where `ps` did not show it.
    ours: bool | None
    engine: bool
    owner: Owner | None


@dataclass(frozen=True)
class Gpu:
    """The GPUs, their driver, and who uses them."""

    devices: tuple[Device, ...]
    # What nvidia-smi printed besides them.
    error: str | None
    # Its exit code; null where it did not answer, -1 where a bundle has no answer to this question.
    rc: Whole | None
    # The driver's libraries, where NVML says that they are of another version than the module.
    library_version: str | None
    cuda_version: str | None
    # What stands in place of CUDA's version.
    cuda_said: str | None
    # The firmware that the GPU runs.
    gsp_version: str | None
    # What the GPU needs to recover from a fault.
    recovery: str | None
    # The kernel module that is loaded.
    module_version: str | None
    # What the kernel logged of faults.
    kernel_log: tuple[str, ...]
    pci: tuple[Card, ...]
    pci_ids: tuple[str, ...]
    tenants: tuple[Tenant, ...]

    @property
    def first(self) -> Device | None:
        return next(iter(self.devices), None)


@dataclass(frozen=True, kw_only=True)
class Container:
    """A running container."""

    name: str = ""
    id: str | None
    # How it got the GPU: cdi, hook, flag (`--gpus`, whose way Docker chooses) or runtime (NVIDIA's may do nothing).
    gpu: str | None


@dataclass(frozen=True)
class Lost:
    """A release that this host serves or rolls back to, whose image Docker does not have."""

    release: str
    # Whether Docker's other image store still has it.
    elsewhere: bool


@dataclass(frozen=True)
class Docker:
    """Docker, or what answers in its place."""

    # Null where it does not answer.
    server_version: str | None
    root_dir: str | None
    # docker, podman, snap or rootless.
    engine: str
    storage_driver: str | None
    # graphdriver or containerd.
    image_store: str | None
    containerd_address: str | None
    runtimes: tuple[str, ...]
    default_runtime: str | None
    cdi_dirs: tuple[str, ...]
    cdi_devices: tuple[str, ...]
    error: str | None
    # The users whose rootless daemon runs.
    rootless_uids: tuple[Count, ...]
    # The members of the group docker.
    group: tuple[str, ...]
    containers: tuple[Container, ...]
    lost: tuple[Lost, ...]


@dataclass(frozen=True)
class CdiSpec:
    """A file that describes devices for containers."""

    path: str
    devices: tuple[str, ...]
    # The driver whose libraries it names.
    driver_version: str | None


@dataclass(frozen=True)
class Injection:
    """The ways in which this host can hand its GPU to a container."""

    # Whether nvidia-container-runtime-hook is installed.
    hook: bool
    cdi_devices: tuple[str, ...]
    cdi_specs: tuple[CdiSpec, ...]
    # The NVIDIA container toolkit's.
    toolkit_version: str | None


@dataclass(frozen=True)
class Disk:
    """The file system that a folder is on, or will be; one without inodes of its own has 0 of 0."""

    path: str
    # images, state or docker.
    holds: str
    free_bytes: Count
    total_bytes: Count
    free_inodes: Count
    total_inodes: Count


@dataclass(frozen=True)
class Listener:
    """A TCP port on which a program listens; which one, only root is told."""

    port: Count
    process: str | None
    pid: Count | None


@dataclass(frozen=True)
class Unit:
    """A unit's state, in systemd's words."""

    load: str | None = field(default=None, metadata={"key": "LoadState"})
    active: str | None = field(default=None, metadata={"key": "ActiveState"})
    file: str | None = field(default=None, metadata={"key": "UnitFileState"})


@dataclass(frozen=True)
class Package:
    """An installed package of dpkg's, of NVIDIA's or of what guards the memory."""

    name: str
    version: str
    # Whether `apt upgrade` leaves it alone.
    held: bool
    # installed, or how far it is: triggers awaited, unpacked, half-configured or half-installed.
    state: str


@dataclass(frozen=True)
class Kernels:
    """The kernels in /boot."""

    # The one that the next boot starts.
    next: str | None
    # Those with a module of the driver.
    with_nvidia: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """The default route."""

    interface: str | None
    # Null for what has none, such as Wi-Fi.
    speed_mbit: float | None


@dataclass(frozen=True)
class Tools:
    """Whether programs are installed that this tool calls."""

    rsync: bool
    systemd_run: bool


@dataclass(frozen=True)
class Unread:
    """Something that could not be read: the question's name or a path, and why."""

    what: str
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All of it."""

    # The version of this document.
    schema: int = SCHEMAS["probe"]
    # The node's program, as it is installed.
    sparknode: Program
    # The machine and its system.
    host: Host
    # What the system has and has left.
    memory: Memory
    # The GPUs, their driver, and who uses them.
    gpu: Gpu
    # Docker, or what answers in its place.
    docker: Docker
    # How a container can get the GPU.
    injection: Injection
    # The file systems of images, of weights and of Docker.
    disk: tuple[Disk, ...]
    # The TCP ports that are taken.
    listening: tuple[Listener, ...]
    # Units that matter to an engine, by name.
    units: dict[str, Unit]
    # Those of the driver and of the toolkit, and earlyoom.
    packages: tuple[Package, ...]
    # What a boot starts.
    kernels: Kernels
    # The way to the rest of the world.
    network: Network
    # Versions by device; null where fwupd does not answer.
    firmware: dict[str, str] | None
    # The arguments of earlyoom, in /etc/default/earlyoom.
    earlyoom: str | None
    # Which programs of the system are there.
    tools: Tools
    # What could not be read.
    unreadable: tuple[Unread, ...]
    # How the node stands, which `sparknode status` prints alone.
    fleet: NodeStatus

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Facts:
        """Read what a probe printed; raises Refused where a key is missing or holds something else than it should."""
        node = Node(document, "probe", complete=True)
        node.schema(SCHEMAS["probe"])
        return node.build(cls)

    def unit(self, name: str) -> Unit:
        return self.units.get(name, Unit())
