"""The checks of the preflight, one a row of `catalog/preflight.yaml`: each looks, and gives figures for its texts.

A check whose facts have another shape raises, and its row is then reported as unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from sparkfleet.catalog import Catalog, DriverVerdict, Hardware, Image, Line
from sparkfleet.contract import version_key
from sparkfleet.findings import Values, book

KIB_PER_GIB = 1 << 20
GB = 10**9
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


def _busy(view: View) -> Iterator[Values]:
    if busy := view.busy:
        step = (view["fleet"]["activation"] or {}).get("state")
        more = f" (from {busy['from']}, until {busy.get('until')})" if busy.get("from") else ""
        more += f", now `{step}`" if step else ""
        yield {**{key: busy.get(key) for key in ("rollout", "operator", "since")}, "more": more}


def _identity(view: View) -> Iterator[Values]:
    host, kind = view["host"], kind_of(view.node, view.catalog)
    if kind:
        vendor, product = (str(host["dmi"][name] or "") for name in ("sys_vendor", "product_name"))
        boxes = [box.name for box in book().boxes if vendor.startswith(box.vendor) and box.product in product]
        system = host["dgx"] or {}
        update = system.get("ota_version") or system.get("software_version")
        words = [kind, *(boxes[:1] or [f"{vendor} {product}".strip()]), f"DGX OS {update}" if update else "no DGX OS"]
        yield {"words": ", ".join(filter(None, words))}
    elif view.gpu:
        yield {"severity": "warn", "words": f"a machine that the catalogue does not know ({view.gpu['name']})"}


def _desktop(view: View) -> Iterator[Values]:
    if names := view["host"]["desktop"]:
        severity = "warn" if view.share > limit("desktop_utilization") else "info"
        yield {"names": ", ".join(names), "severity": severity}


def _thermal(view: View) -> Iterator[Values]:
    zone = view["host"]["hottest_zone_c"]
    for what, celsius, name in (
        ("the GPU", view.gpu.get("temperature_c"), "gpu_celsius"),
        ("the hottest thermal zone", zone, "zone_celsius"),
    ):
        if celsius is not None and celsius >= limit(name):
            yield {"what": what, "celsius": celsius, "limit": limit(name)}


def _kind(view: View) -> Iterator[Values]:
    name, names, ids = str(view.gpu.get("name", "")), view.hardware.gpu_names, view["gpu"]["pci_ids"]
    if name and not name.startswith(tuple(names)):
        yield {"pci": f" ({', '.join(ids)})" if ids else "", "names": " or ".join(names)}


def _container(view: View) -> Iterator[Values]:
    device, found = view.release["container"]["gpu"][-1], view["injection"]
    # For `--gpus` Docker takes the hook, a runtime of this name, or CDI; many Sparks lack the runtime (forum 350646).
    ways = found["hook"] or found["cdi_devices"] or "nvidia" in view["docker"]["runtimes"]
    if view.cdi and device not in found["cdi_devices"]:
        yield {"what": f"no CDI device {device}", "wanted": f"{device} in /etc/cdi or /var/run/cdi"}
    elif not view.cdi and not ways:
        what = "neither nvidia-container-runtime-hook nor a CDI device"
        yield {"what": what, "wanted": "the NVIDIA container toolkit"}


def _tenants(view: View, *, orphans: bool) -> Iterator[Values]:
    for tenant in view["gpu"]["tenants"]:
        # A process that `ps` did not show is taken for the engine's own where one serves.
        ours = tenant["ours"] or (tenant["ours"] is None and view.serves())
        if not ours and tenant["orphan"] == orphans:
            yield {**tenant, "memory": f", {tenant['memory']}" if tenant["memory"] else ""}


def _reload(view: View) -> list[Values]:
    ours, running = view.release["container"]["name"], view["docker"]["containers"]
    names = ", ".join(one["name"] for one in running if one["gpu"] == "hook" and one["name"] != ours)
    return [{"names": names}] if names else []


def _driver(view: View) -> list[Values]:
    if view.gpu and not view.gpu["driver_version"]:
        raise ValueError("nvidia-smi names no driver version")
    return judged(view.gpu.get("driver_version"), view.catalog.driver_verdicts)


def _installed(view: View) -> list[Values]:
    found = {
        row["name"]: row["version"].split(":")[-1].split("-")[0] for row in named(view.node, ["nvidia-driver-[0-9]*"])
    }
    others = [(name, version) for name, version in found.items() if view.driver and version != view.driver]
    return [{"package": name, "installed": version} for name, version in others[:1]]


def _next_kernel(view: View) -> list[Values]:
    after, ready = view["kernels"]["next"], view["kernels"]["with_nvidia"]
    # Where not even the running kernel's module was found, modules stand elsewhere, and nothing is known.
    torn = after and after not in ready and view["host"]["kernel"] in ready
    return [{"has": ", ".join(ready)}] if torn else []


def _foreign(view: View) -> list[Values]:
    names = " ".join(row["name"] for row in named(view.node, book().foreign_packages))
    return [{"names": names}] if names and view.hardware.unified_memory else []


def _cdi_driver(view: View) -> Iterator[Values]:
    for spec in view.stale_specs:
        yield {"path": spec["path"], "spec": spec["driver_version"], "severity": "fail" if view.cdi else "warn"}


def _cdi_duplicate(view: View) -> list[Values]:
    paths: dict[str, list[str]] = {}
    for spec in view["injection"]["cdi_specs"]:
        for device in spec["devices"]:
            paths.setdefault(device, []).append(spec["path"])
    twice = [(device, " and ".join(several)) for device, several in paths.items() if len(several) > 1]
    return [{"device": device, "paths": several} for device, several in twice[:1]]


def _space(view: View) -> Iterator[Values]:
    docker, state = view["disk"]
    image, weights = needed(view)
    writes = [(docker, {"image": image}), (state, {"weights": weights})]
    if (docker["free_bytes"], docker["total_bytes"]) == (state["free_bytes"], state["total_bytes"]):
        # Two folders of one file system, which must hold everything together.
        writes = [(docker, {"image": image, "weights": weights})]
    for row, wanted in writes:
        parts = {**wanted, "reserve": view.hardware.limits.disk_reserve_bytes}
        if row["free_bytes"] < (need := sum(parts.values())):
            words = ", ".join(f"{what} {size / GB:.0f}" for what, size in parts.items() if size)
            yield {"path": row["path"], "free": row["free_bytes"] / GB, "need": need / GB, "parts": words}


def needed(view: View) -> tuple[float, float]:
    """Bytes that the stage will write: the image with room to unpack it, and weights; what is there is not counted."""
    fleet, model = view["fleet"], view.catalog.models[view.release["model"]]
    absent = view.image if view.release["image"]["reference"] not in fleet["images"] else None
    wanted = {row["repo"] for row in view.release["artefacts"]} - {row["repo"] for row in fleet["models"]}
    weights = sum(row.disk_bytes or 0 for row in model.repositories() if row.repo in wanted)
    return (absent.unpacked_bytes or 0) * limit("unpack_factor") if absent else 0, weights


def _left(view: View, what: str, least: float) -> Iterator[Values]:
    for row in view["disk"]:
        # File systems without inodes of their own say 0 of 0.
        share = row[f"free_{what}"] / row[f"total_{what}"] if row[f"total_{what}"] else 1.0
        if share < least:
            yield {"path": row["path"], "share": share, "limit": least}


def _firmware(view: View) -> list[Values]:
    versions = ", ".join(f"{name} {version}" for name, version in (view["firmware"] or {}).items())
    return [{"versions": versions}] if versions else []


CHECKS: Mapping[str, Check] = {
    "host.busy": _busy,
    "host.architecture": lambda v: v["host"]["machine"] not in (None, v.hardware.machine),
    "host.identity": _identity,
    "host.os": lambda v: v.hardware.unified_memory and not v["host"]["dgx"],
    "host.clock": lambda v: v["host"]["clock_synchronized"] is False,
    "host.skew": lambda v: abs(v.skew_s) > limit("skew_s"),
    "host.desktop": _desktop,
    "host.sleep": lambda v: bool(v.unmasked),
    "host.thermal": _thermal,
    "kernel.minimum": lambda v: older(v["host"]["kernel"], v.hardware.min_kernel),
    "kernel.version": lambda v: judged(v["host"]["kernel"], v.catalog.kernel_verdicts),
    "kernel.kho": lambda v: v["memory"]["cma_total_kib"] == 0 and bool(v["memory"]["cma_free_kib"]),
    "ota.torn": lambda v: bool(v["host"]["torn"]),
    "gpu.visible": lambda v: not v.gpu,
    "gpu.kind": _kind,
    "gpu.count": lambda v: len(v["gpu"]["devices"]) > v.hardware.limits.gpus,
    "gpu.container": _container,
    "gpu.orphan": lambda v: _tenants(v, orphans=True),
    "gpu.tenants": lambda v: _tenants(v, orphans=False),
    "reload.safe": _reload,
    "driver.version": _driver,
    "driver.image": lambda v: v.line and older(v.gpu.get("driver_version"), v.line.min_driver),
    "driver.loaded": lambda v: v["gpu"]["gsp_version"] not in (None, v["gpu"]["module_version"] or v.driver),
    "driver.installed": _installed,
    "driver.reboot": lambda v: v["host"]["reboot_required"],
    "driver.next_kernel": _next_kernel,
    "driver.foreign": _foreign,
    "cuda.toolchain": lambda v: v.line and v.line.cuda_toolkit and older(v["gpu"]["cuda_version"], v.line.cuda_toolkit),
    "docker.access": lambda v: not v["docker"]["server_version"],
    "docker.version": lambda v: older(v["docker"]["server_version"], v.hardware.min_docker),
    "docker.cdi": lambda v: (
        v.cdi and not v["docker"]["cdi_dirs"] and older(v["docker"]["server_version"], limit("cdi_docker"))
    ),
    "docker.snap": lambda v: (v["docker"]["root_dir"] or "").startswith("/var/snap/"),
    "docker.group": lambda v: not v["docker"]["group"],
    "cdi.driver": _cdi_driver,
    "cdi.duplicate": _cdi_duplicate,
    "cdi.refresh": lambda v: bool(v.refresh_state),
    "toolkit.version": lambda v: judged(v["injection"]["toolkit_version"], v.catalog.toolkit_verdicts),
    "mem.available": lambda v: v.hardware.unified_memory and v.room < 0,
    "mem.headroom": lambda v: 0 <= v.room < limit("headroom_gib"),
    "mem.free": lambda v: v.hardware.unified_memory and 0 <= v.room < math.inf and v.gib["free"] < v.memory["need"],
    "mem.fits": lambda v: bool(v.memory),
    "mem.critical": lambda v: v.serves() and v.gib["available"] < limit("critical_gib"),
    "mem.swap": lambda v: v.gib["swap_used"] > limit("swap_gib"),
    "mem.pressure": lambda v: (v["memory"]["stall_percent"] or 0) > limit("stall_percent"),
    "mem.guard": lambda v: v.hardware.unified_memory and v.unit("earlyoom.service").get("ActiveState") != "active",
    "gpu.memory": lambda v: not v.hardware.unified_memory and v.room < 0,
    "port.free": lambda v: [] if v.serves("active", "activating") else v.on_port,
    "disk.space": _space,
    "disk.low": lambda v: _left(v, "bytes", limit("disk_left_share")),
    "disk.inodes": lambda v: _left(v, "inodes", limit("inodes_left_share")),
    "net.wifi": lambda v: (v["network"]["interface"] or "").startswith("wl"),
    "net.speed": lambda v: (v["network"]["speed_mbit"] or limit("link_mbit")) < limit("link_mbit"),
    "fw.versions": _firmware,
    "tools.rsync": lambda v: not v["tools"]["rsync"],
    "tools.systemd_run": lambda v: not v["tools"]["systemd_run"],
}
