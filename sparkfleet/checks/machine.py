"""The machine itself: who it is, its kernel, firmware, network and tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparkfleet.checks.view import Check, View, judged, kind_of, limit, older
from sparkfleet.findings import Values, book


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
    "port.free": lambda v: [] if v.serves("active", "activating") else v.on_port,
    "net.wifi": lambda v: (v["network"]["interface"] or "").startswith("wl"),
    "net.speed": lambda v: (v["network"]["speed_mbit"] or limit("link_mbit")) < limit("link_mbit"),
    "fw.versions": _firmware,
    "tools.rsync": lambda v: not v["tools"]["rsync"],
    "tools.systemd_run": lambda v: not v["tools"]["systemd_run"],
}
