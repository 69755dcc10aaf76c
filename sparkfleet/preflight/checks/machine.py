"""The machine itself: who it is, its kernel, firmware, network and tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparkfleet.preflight.checks.view import Check, View, box_of, judged, kind_of, limit, matches, of_kind, older
from sparkfleet.preflight.findings import Values, book
from sparknode.state.status import Lease


def _busy(view: View) -> Iterator[Values]:
    if busy := view.busy:
        activation = view.facts.fleet.activation
        more = f" (from {busy.source}, until {busy.until})" if isinstance(busy, Lease) and busy.source else ""
        more += f", now `{activation.state}`" if activation and activation.state else ""
        yield {"rollout": busy.rollout, "operator": busy.operator, "since": busy.since, "more": more}


def _architecture(view: View) -> list[Values]:
    wrong = view.facts.host.machine not in (None, view.hardware.machine)
    return [of_kind(view)] if wrong else []


def _identity(view: View) -> Iterator[Values]:
    host, kind = view.facts.host, kind_of(view.facts.gpu, view.catalog)
    if kind:
        # The makers of `boxes` build other machines as well.
        box = box_of(host.dmi) if view.catalog.hardware[kind].unified_memory else None
        dmi = f"{host.dmi.sys_vendor or ''} {host.dmi.product_name or ''}".strip()
        update = host.dgx.update if host.dgx else None
        words = [kind, box or dmi, f"DGX OS {update}" if update else "no DGX OS"]
        yield {"words": ", ".join(filter(None, words))}
    elif view.gpu:
        yield {"severity": "warn", "words": f"a machine that the catalogue does not know ({view.gpu.name})"}


def _desktop(view: View) -> Iterator[Values]:
    if names := view.facts.host.desktop:
        severity = "warn" if view.share > limit("desktop_utilization") else "info"
        yield {"names": ", ".join(names), "severity": severity}


def _thermal(view: View) -> Iterator[Values]:
    for what, celsius, name in (
        ("the GPU", view.gpu.temperature_c if view.gpu else None, "gpu_celsius"),
        ("the hottest thermal zone", view.facts.host.hottest_zone_c, "zone_celsius"),
    ):
        if celsius is not None and celsius >= limit(name):
            yield {"what": what, "celsius": celsius, "limit": limit(name)}


def _kernel(view: View) -> list[Values]:
    """A fault that reserves memory is off where /proc/meminfo shows that nothing is reserved."""
    off = bool(view.facts.memory.cma_total_kib)
    rows = [row for row in view.catalog.kernel_verdicts if not (row.reserves_cma and off)]
    return judged(view.facts.host.kernel, rows, view.kind)


def _torn(view: View) -> Iterator[Values]:
    """Warn where driver or kernel are torn; firmware may wait for the maker of the box for months."""
    ota = view.facts.host.ota
    if ota and ota.torn:
        failed = ota.failed or ()
        serious = not failed or any(matches(part, book().torn_parts) for part in failed)
        yield {
            "torn": ota.torn,
            "update": f" of {ota.name}" if ota.name else "",
            "parts": f"; not as the update has them: {', '.join(failed)}" if failed else "",
            **({} if serious else {"severity": "info", "case": "parts"}),
        }


def _firmware(view: View) -> list[Values]:
    versions = ", ".join(f"{name} {version}" for name, version in (view.facts.firmware or {}).items())
    return [{"versions": versions}] if versions else []


def _bundle(view: View) -> list[Values]:
    return [{"why": row.why} for row in view.facts.unreadable if row.what == "bundle.json"]


CHECKS: Mapping[str, Check] = {
    "probe.bundle": _bundle,
    "host.busy": _busy,
    "host.architecture": _architecture,
    "host.identity": _identity,
    "host.os": lambda v: v.hardware.unified_memory and not v.facts.host.dgx,
    "host.wsl": lambda v: v.system == "wsl",
    "host.clock": lambda v: v.facts.host.clock_synchronized is False,
    "host.skew": lambda v: abs(v.skew_s) > limit("skew_s"),
    "host.desktop": _desktop,
    "host.sleep": lambda v: bool(v.unmasked),
    "host.thermal": _thermal,
    "kernel.minimum": lambda v: older(v.facts.host.kernel, v.hardware.min_kernel),
    "kernel.version": _kernel,
    "kernel.kho": lambda v: v.facts.memory.cma_total_kib == 0 and bool(v.facts.memory.cma_free_kib),
    "ota.torn": _torn,
    "port.free": lambda v: [] if v.serves("active", "activating") else v.on_port,
    "net.wifi": lambda v: (v.facts.network.interface or "").startswith("wl"),
    "net.speed": lambda v: (v.facts.network.speed_mbit or limit("link_mbit")) < limit("link_mbit"),
    "fw.versions": _firmware,
    "tools.rsync": lambda v: [] if v.facts.tools.rsync else [{"tool": "rsync"}],
    "tools.systemd_run": lambda v: [] if v.facts.tools.systemd_run else [{"tool": "systemd"}],
}
