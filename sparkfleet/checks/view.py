"""What the checks of the preflight look at: a probe, a release and the catalogue, and figures made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from sparkfleet.catalog import Catalog, DriverVerdict, Hardware, Image, Line
from sparkfleet.contract import version_key
from sparkfleet.findings import Values, book

KIB_PER_GIB = 1 << 20
SLEEP_TARGETS = ("sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target")


def limit(name: str) -> Any:
    return book().thresholds[name].value


@dataclass(frozen=True)
class View:
    """What a check looks at; a section of the probe by its name."""

    node: Mapping[str, Any]
    release: Mapping[str, Any]
    catalog: Catalog

    def __getitem__(self, section: str) -> Any:
        return self.node[section]

    @cached_property
    def hardware(self) -> Hardware:
        return self.catalog.hardware[self.release["host_kind"]["hardware"]]

    @cached_property
    def image(self) -> Image | None:
        return self.catalog.images.get(self.release["image_tag"])

    @cached_property
    def line(self) -> Line | None:
        return self.catalog.lines[self.image.line] if self.image else None

    @cached_property
    def gpu(self) -> Mapping[str, Any]:
        """The first GPU, or an empty mapping."""
        return next(iter(self["gpu"]["devices"]), {})

    @cached_property
    def driver(self) -> str | None:
        version: str | None = self["gpu"]["module_version"] or self.gpu.get("driver_version")
        return version

    @cached_property
    def busy(self) -> Mapping[str, Any] | None:
        """The roll-out that works on the host, if one does."""
        activation = self["fleet"]["activation"] or {}
        working: Mapping[str, Any] | None = self["fleet"]["lease"] or (activation if activation.get("alive") else None)
        return working

    def serves(self, *states: str) -> bool:
        """Whether the engine holds port and memory already: the node itself waits for them between stop and start."""
        return bool(self.busy) or (self["fleet"]["serving"] or {}).get("unit") in (states or ("active",))

    @cached_property
    def cdi(self) -> bool:
        return bool(self.release["container"]["gpu"][0] == "--device")

    @cached_property
    def share(self) -> float:
        """The engine's share of the memory: of the machine's, or of the card's own; 0 where it sets none."""
        if self.release["memory"] is not None:
            return float(self.release["memory"]["utilization"] or 0)
        argv, flag = self.release["argv"], "--gpu-memory-utilization"
        return float(argv[argv.index(flag) + 1]) if flag in argv else 0.0

    @cached_property
    def gib(self) -> dict[str, float]:
        """The figures of the machine's memory in GiB, by their names in the probe, and what is used of its swap."""
        found = {
            name: value / KIB_PER_GIB
            for name, value in self["memory"].items()
            if name[-3:] == "kib" and value is not None
        }
        gib = {name.removesuffix("_kib"): value for name, value in found.items()}
        return {"free": 0.0, "swap_used": gib.get("swap_total", 0.0) - gib.get("swap_free", 0.0), **gib}

    @cached_property
    def memory(self) -> dict[str, float]:
        """Figures in GiB for an engine that is yet to start; empty for one that runs.

        On a card with its own memory they are the card's. `fits` and `safe` are the largest utilization without and
        with room for CUDA's start. With huge pages NVIDIA counts those alone (DGX Spark known issues).
        """
        if self.serves() or not (self.hardware.unified_memory or self.gpu):
            return {}
        if self.hardware.unified_memory:
            available, total = self.gib["available"], self.gib["total"]
            if self["memory"]["hugepages_total"]:
                available = self["memory"]["hugepages_free"] * self.gib["hugepage"]
        else:
            available, total = self.gpu["memory_free_mib"] / 1024, self.gpu["memory_total_mib"] / 1024
        headroom, need = limit("headroom_gib"), self.share * total
        most = self.hardware.limits.memory_utilization
        fits, safe = (max(0.0, min(most, int(gib / total * 100) / 100)) for gib in (available, available - headroom))
        return {"available": available, "total": total, "need": need, "fits": fits, "safe": safe}

    @property
    def skew_s(self) -> float:
        """How far the host's clock is before ours; 0 where either is not known."""
        theirs, ours = self["host"]["time"], self.node.get("read_at")
        return float(theirs - ours) if theirs and ours else 0.0

    @property
    def room(self) -> float:
        """What is available beyond what a start needs, in GiB; endless where nothing is to start."""
        return self.memory["available"] - self.memory["need"] if self.memory else math.inf

    @property
    def on_port(self) -> list[Values]:
        """Who listens where the engine will; the name is told to root alone."""
        rows, nobody = self["listening"], {"process": "a process", "pid": "unknown"}
        taken = [row for row in rows if row["port"] == self.release["serve"]["port"]]
        return [{**nobody, **{key: value for key, value in row.items() if value}} for row in taken]

    def unit(self, name: str) -> Mapping[str, str]:
        found: Mapping[str, str] = self["units"].get(name, {})
        return found

    @property
    def unmasked(self) -> str:
        states = {name: self.unit(name).values() for name in SLEEP_TARGETS if self["units"]}
        return ", ".join(name for name, state in states.items() if "masked" not in state)

    @property
    def stale_specs(self) -> list[dict[str, Any]]:
        """CDI specifications that were written for another driver than the one that is loaded."""
        specs = self["injection"]["cdi_specs"]
        return [spec for spec in specs if self.driver and spec["driver_version"] not in (None, self.driver)]

    @property
    def refresh_state(self) -> str | None:
        """What is wrong with the unit that renews the CDI specification; None where it is right, or not there yet."""
        unit, version = self.unit("nvidia-cdi-refresh.path"), self["injection"]["toolkit_version"]
        if not version or older(version, limit("refresh_toolkit")) or not unit:
            return None
        if unit["LoadState"] == "not-found":
            return "not installed"
        wanted = {"UnitFileState": "enabled", "ActiveState": "active"}
        return next((unit[key] for key, good in wanted.items() if unit[key] != good), None)


# True where the row's texts say it all, or figures for them, once for each thing that was found.
Check = Callable[[View], object]


def older(version: object, least: str) -> bool:
    return bool(version) and version_key(str(version)) < version_key(least)


def judged(version: object, verdicts: list[DriverVerdict]) -> list[Values]:
    """The first verdict on a version, unless it is good."""
    row = next((row for row in verdicts if version and _matches(str(version), row)), None)
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


def named(node: Values, patterns: Iterable[str]) -> list[dict[str, Any]]:
    return [row for row in node["packages"] if any(fnmatchcase(row["name"], pattern) for pattern in patterns)]


def kind_of(node: Values, catalog: Catalog) -> str | None:
    """Return the kind of machine, by its GPU's PCI id or else its name; None for one that the catalogue lacks."""
    ids, names = set(node["gpu"]["pci_ids"]), [str(device["name"]) for device in node["gpu"]["devices"]]
    known = {row_id: row for row_id, row in catalog.hardware.items() if not row.simulated}
    by_id = [row_id for row_id, row in known.items() if ids & set(row.pci_ids)]
    by_name = [row_id for row_id, row in known.items() if any(name.startswith(tuple(row.gpu_names)) for name in names)]
    return next(iter([*by_id, *by_name]), None)
