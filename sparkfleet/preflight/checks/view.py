"""What the checks of the preflight look at: a probe, a release and the catalogue, and figures made of them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from sparkfleet.catalog.catalog import Catalog, Hardware, Image, Line
from sparkfleet.catalog.contract import version_key
from sparkfleet.catalog.rows import DriverVerdict
from sparkfleet.preflight.findings import SYSTEMS, System, Values, book
from sparknode.facts.facts import CdiSpec, Device, Dmi, Facts, Gpu, Package
from sparknode.state.release import Release
from sparknode.state.status import Lease, UnderWay

KIB_PER_GIB = 1 << 20
# nvidia-smi(1): what ends with this lists the GPU, whose damaged infoROM is all that is wrong with it.
DAMAGED_INFOROM = 14
LOST = re.compile(r"lost|fallen off|requires? reset|unknown error|device handle", re.IGNORECASE)
RENEWED = "/var/run/cdi/nvidia.yaml"
SLEEP_TARGETS = ("sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target")


def limit(name: str) -> Any:
    return book().thresholds[name].value


class Undecided(Exception):
    """What was read does not tell; the text says what is missing."""


@dataclass(frozen=True)
class View:
    """What a check looks at; `read_at` is when the facts were read, by the controller's clock."""

    facts: Facts
    release: Release
    catalog: Catalog
    read_at: float | None = None

    @cached_property
    def hardware(self) -> Hardware:
        return self.catalog.hardware[self.release.host_kind.hardware]

    @property
    def kind(self) -> str:
        return self.hardware.simulates or self.release.host_kind.hardware

    @cached_property
    def image(self) -> Image | None:
        return self.catalog.images.get(self.release.image_tag)

    @cached_property
    def line(self) -> Line | None:
        return self.catalog.lines[self.image.line] if self.image else None

    @property
    def gpu(self) -> Device | None:
        return self.facts.gpu.first

    @property
    def driver(self) -> str | None:
        return self.facts.gpu.module_version or (self.gpu.driver_version if self.gpu else None)

    @cached_property
    def fault(self) -> str | None:
        """What is wrong with a GPU that is listed: it was lost, must be reset, or lets nvidia-smi fail."""
        gpu = self.facts.gpu
        faults = [device.fault for device in gpu.devices if device.fault]
        faults += [f"GPU Recovery Action is {gpu.recovery}"] if gpu.recovery else []
        failed = gpu.rc not in (0, DAMAGED_INFOROM) or LOST.search(gpu.error or "")
        faults += [str(gpu.error)] if gpu.devices and failed else []
        return next(iter(faults), None)

    @property
    def gpu_works(self) -> bool:
        return self.gpu is not None and not self.fault

    @cached_property
    def pending(self) -> str | None:
        """The driver that the next boot brings, where its files are there and another one is loaded."""
        installed = next((version for _, version in self.installed if version != self.driver), None)
        return self.facts.gpu.library_version or (installed if self.driver else None)

    @cached_property
    def installed(self) -> list[tuple[str, str]]:
        """The packages that carry the driver's version, with it."""
        rows = named(self.facts, book().version_packages)
        return [(row.name, row.version.split(":")[-1].split("-")[0]) for row in rows]

    @cached_property
    def system(self) -> System:
        """Which ways of installing and updating this host has; `other` where it does not say."""
        host = self.facts.host
        names = [host.os.id, *(host.os.id_like or "").split()]
        if "microsoft" in (host.kernel or "").lower():
            return "wsl"
        if host.dgx:
            return "dgx"
        return next((system for system in SYSTEMS if system in names), "other")

    @property
    def busy(self) -> Lease | UnderWay | None:
        """The rollout that works on the host, if one does."""
        fleet = self.facts.fleet
        return fleet.lease or (fleet.activation if fleet.activation and fleet.activation.alive else None)

    def serves(self, *states: str) -> bool:
        """Whether the engine holds port and memory already: the node itself waits for them between stop and start."""
        serving = self.facts.fleet.serving
        return bool(self.busy) or (serving is not None and serving.unit in (states or ("active",)))

    @cached_property
    def cdi(self) -> bool:
        return self.release.cdi

    @cached_property
    def share(self) -> float:
        """The engine's share of the memory: of the machine's, or of the card's own; 0 where it sets none."""
        if self.release.memory is not None:
            return self.release.memory.utilization or 0.0
        argv, flag = self.release.container.args, "--gpu-memory-utilization"
        return float(argv[argv.index(flag) + 1]) if flag in argv else 0.0

    @cached_property
    def gib(self) -> dict[str, float]:
        """The figures of the machine's memory in GiB, by their names in the probe, and what is used of its swap."""
        memory = self.facts.memory
        found = {
            name.removesuffix("_kib"): value / KIB_PER_GIB
            for name, value in vars(memory).items()
            if name.endswith("_kib") and value is not None
        }
        swap_used = found.get("swap_total", 0.0) - found.get("swap_free", 0.0)
        return {"free": 0.0, **found, "hugetlb": memory.hugepages_kib / KIB_PER_GIB, "swap_used": swap_used}

    @cached_property
    def memory(self) -> dict[str, float]:
        """Figures in GiB for an engine that is yet to start; empty for one that runs.

        On a card with its own memory they are the card's. `fits` and `safe` are the largest utilization without and
        with room for CUDA's start. Huge pages are no part of MemAvailable, which engine and gate compare.
        """
        if self.serves():
            return {}
        if self.hardware.unified_memory:
            available, total = self.gib.get("available"), self.gib.get("total")
        elif self.gpu:
            figures = (self.gpu.memory_free_mib, self.gpu.memory_total_mib)
            available, total = (None if mib is None else mib / 1024 for mib in figures)
        else:
            return {}
        if available is None or not total:
            # NVML names 0 of 0 MiB on some drivers (nvitop#208, nvtop#411).
            whose = "/proc/meminfo" if self.hardware.unified_memory else "nvidia-smi"
            raise Undecided(f"{whose} names no memory (total {total}, free {available})")
        headroom, need = limit("headroom_gib"), self.share * total
        most = self.hardware.limits.memory_utilization
        fits, safe = (max(0.0, min(most, int(gib / total * 100) / 100)) for gib in (available, available - headroom))
        return {"available": available, "total": total, "need": need, "fits": fits, "safe": safe}

    @property
    def skew_s(self) -> float:
        """How far the host's clock is before ours; 0 where either is not known."""
        theirs = self.facts.host.time
        return theirs - self.read_at if theirs and self.read_at else 0.0

    @property
    def room(self) -> float:
        """What is available beyond what a start needs, in GiB; endless where nothing is to start."""
        return self.memory["available"] - self.memory["need"] if self.memory else math.inf

    @property
    def on_port(self) -> list[Values]:
        """Who listens where the engine will; the name is told to root alone."""
        port = self.release.serve.port
        return [
            {"port": port, "process": row.process or "a process", "pid": row.pid or "unknown"}
            for row in self.facts.listening
            if row.port == port
        ]

    @property
    def unmasked(self) -> str:
        states = {name: self.facts.unit(name) for name in SLEEP_TARGETS if self.facts.units}
        return ", ".join(name for name, unit in states.items() if "masked" not in (unit.load, unit.active, unit.file))

    @property
    def stale_specs(self) -> list[CdiSpec]:
        """CDI specifications that were written for another driver than the one that is loaded."""
        specs = self.facts.injection.cdi_specs
        return [spec for spec in specs if self.driver and spec.driver_version not in (None, self.driver)]

    @property
    def renews(self) -> bool:
        """Whether a unit of the toolkit writes /var/run/cdi/nvidia.yaml."""
        return self.facts.unit("nvidia-cdi-refresh.service").load == "loaded"

    def early(self, spec: CdiSpec) -> bool:
        """Whether a specification is of the driver that is loaded after the next boot."""
        return bool(self.pending) and f"{spec.driver_version}.".startswith(f"{self.pending}.")

    @property
    def surplus_specs(self) -> list[tuple[str, list[CdiSpec]]]:
        """Devices that several CDI specifications name, with the ones to move aside; what is renewed stays."""
        found: dict[str, list[CdiSpec]] = {}
        for spec in self.facts.injection.cdi_specs:
            for device in spec.devices:
                found.setdefault(device, []).append(spec)
        stale = self.stale_specs

        def worth(spec: CdiSpec) -> tuple[bool, bool]:
            return self.renews and spec.path == RENEWED, spec not in stale

        several = {device: specs for device, specs in found.items() if len(specs) > 1}
        return [
            (device, [spec for spec in specs if spec is not max(specs, key=worth)]) for device, specs in several.items()
        ]

    @property
    def refresh_state(self) -> str | None:
        """What is wrong with the unit that renews the CDI specification; None where it is right, or not there yet."""
        unit, version = self.facts.unit("nvidia-cdi-refresh.path"), self.facts.injection.toolkit_version
        # NixOS renews it by a unit of its own at each boot and each change of the system.
        if not version or older(version, limit("refresh_toolkit")) or not unit.load or self.system == "nixos":
            return None
        if unit.load == "not-found":
            return "not installed"
        return next((state for state, good in ((unit.file, "enabled"), (unit.active, "active")) if state != good), None)


# True where the row's texts say it all, or figures for them, once for each thing that was found.
Check = Callable[[View], object]


def older(version: object, least: str) -> bool:
    return bool(version) and version_key(str(version)) < version_key(least)


def judged(version: object, verdicts: Iterable[DriverVerdict], kind: str) -> list[Values]:
    """The first verdict on a version for a kind of machine, unless it is good."""
    rows = (row for row in verdicts if not row.hardware or kind in row.hardware)
    row = next((row for row in rows if version and _matches(str(version), row)), None)
    bad = row is not None and row.verdict != "pass"
    return [{"severity": row.verdict, "why": row.why, "source": row.source}] if row and bad else []


def _matches(version: str, row: DriverVerdict) -> bool:
    if row.version is not None:
        return version == row.version
    if row.prefix is not None:
        return version.startswith(row.prefix)
    if row.below is not None:
        return version_key(version) < version_key(row.below)
    return row.from_ is not None and version_key(version) >= version_key(row.from_)


def matches(name: object, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(str(name), pattern) for pattern in patterns)


def named(facts: Facts, patterns: Iterable[str]) -> list[Package]:
    return [row for row in facts.packages if matches(row.name, patterns)]


def box_of(dmi: Dmi) -> str | None:
    """Which maker's box with a GB10 it is, where it is a known one."""
    vendor, product = dmi.sys_vendor or "", dmi.product_name or ""
    boxes = (box for box in book().boxes if vendor.lower().startswith(tuple(map(str.lower, box.vendor))))
    return next((box.name for box in boxes if any(part in product for part in box.product)), None)


def is_called(name: object, patterns: Iterable[str]) -> bool:
    """Whether a GPU's name begins like one of the catalogue's."""
    return bool(name) and matches(name, (f"{pattern}*" for pattern in patterns))


def kind_of(gpu: Gpu, catalog: Catalog) -> str | None:
    """Return the kind of machine, by its GPU's PCI id or else its name; None for one that the catalogue lacks."""
    ids, names = set(gpu.pci_ids), [device.name for device in gpu.devices]
    known = {row_id: row for row_id, row in catalog.hardware.items() if row.simulates is None}
    by_id = [row_id for row_id, row in known.items() if ids & set(row.pci_ids)]
    by_name = [row_id for row_id, row in known.items() if any(is_called(name, row.gpu_names) for name in names)]
    return next(iter([*by_id, *by_name]), None)


def of_kind(view: View) -> Values:
    """The case of a host that is another machine than its inventory says: one that the catalogue knows, or none."""
    kind = kind_of(view.facts.gpu, view.catalog)
    return {"case": "known", "kind": kind} if kind and kind != view.kind else {"case": None}
