"""The GPU: is it there, is it the right one, and who else holds it?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from sparkfleet.catalog.contract import version_key
from sparkfleet.preflight.checks.view import DAMAGED_INFOROM, LOST, Check, View, is_called, matches, of_kind
from sparkfleet.preflight.findings import Values, book

# Kernel drivers that keep a GPU for a virtual machine, and those of other projects.
_FOR_A_GUEST = {"vfio-pci", "pci-stub", "xen-pciback"}
_REJECTED = re.compile(r"is rejected|is restricted")
_OTHERS = {"nouveau", "nova_core", "nova-core", "nova"}


def _visible(view: View) -> Iterator[Values]:
    """The cause of a GPU that can't be used, where the probe shows it: each has a remedy of its own."""
    gpu, error, kernel = view["gpu"], view["gpu"]["error"], view["host"]["kernel"]
    ready, bound = view["kernels"]["with_nvidia"], {card["driver"]: card["address"] for card in gpu["pci"]}
    if view.gpu_works or (not view.gpu and error is None):
        return
    rejected = [line for line in gpu["kernel_log"] if _REJECTED.search(line)]
    xid = next((line for line in reversed(gpu["kernel_log"]) if "Xid" in line), None)
    log = f"; the kernel: {xid}" if xid else ""
    if gpu["module_version"] and "version mismatch" in str(error):
        yield {"case": "mismatch", "library": view.pending or "of another version", "module": gpu["module_version"]}
    elif fault := view.fault or (LOST.search(str(error)) and error):
        yield {"case": "lost", "fault": fault, "log": log}
    elif guest := _FOR_A_GUEST.intersection(filter(None, bound)):
        yield {"case": "guest", "bound": next(iter(guest)), "address": bound[next(iter(guest))]}
    elif other := _OTHERS.intersection(filter(None, bound)):
        yield {"case": "other", "bound": next(iter(other)), "address": bound[next(iter(other))]}
    elif not gpu["module_version"] and ready and kernel not in ready:
        yield {"case": "kernel", "ready": max(ready, key=version_key), "has": ", ".join(ready)}
    elif not gpu["module_version"] and rejected:
        yield {"case": "unsigned", "line": rejected[-1]}
    else:
        yield {"case": "hangs" if gpu["rc"] is None else None, "log": log}


def _inforom(view: View) -> list[Values]:
    said = str(view["gpu"]["error"] or "")
    damaged = view["gpu"]["rc"] == DAMAGED_INFOROM or "inforom" in said.lower()
    return [{"said": said or "exit code 14"}] if view.gpu and damaged else []


def _kind(view: View) -> Iterator[Values]:
    name, names, ids = view.gpu.get("name"), view.hardware.gpu_names, view["gpu"]["pci_ids"]
    if name and not is_called(name, names):
        wanted = " or ".join(one.replace("*", "…") for one in names)
        yield {**of_kind(view), "pci": f" ({', '.join(ids)})" if ids else "", "names": wanted}


def _others(view: View) -> Iterator[tuple[str, dict[str, Any]]]:
    """Who is on the GPU and not ours, with the row that it belongs to."""
    for tenant in view["gpu"]["tenants"]:
        # A process that `ps` did not show is taken for the engine's own where one serves.
        if tenant["ours"] or (tenant["ours"] is None and view.serves()):
            continue
        kind = (tenant["owner"] or {}).get("kind")
        native = tenant["engine"] and kind not in (None, "container")
        row = "gpu.tenants" if not native else "gpu.orphan" if kind == "gone" else "gpu.engine"
        yield row, {**tenant, "memory": f", {tenant['memory']}" if tenant["memory"] else ""}


def _tenants(view: View, row: str) -> Iterator[Values]:
    yield from (tenant for belongs, tenant in _others(view) if belongs == row)


def _engines(view: View) -> Iterator[Values]:
    for tenant in _tenants(view, "gpu.engine"):
        kind, unit, uid = (tenant["owner"][key] for key in ("kind", "unit", "uid"))
        name = str(unit or "")
        # Who stops one of these stops much more than an engine, up to the login that he works through.
        shared = kind == "unit" and (matches(name, book().shared_units) or not name.endswith(".service"))
        case = None if shared or kind not in ("unit", "user-unit") else kind
        where = f"{name or 'no unit that is known'}{f' of user {uid}' if uid is not None else ''}"
        yield {**tenant, "case": case, "unit": shlex.quote(name), "uid": uid, "where": where}


CHECKS: Mapping[str, Check] = {
    "gpu.visible": _visible,
    "gpu.inforom": _inforom,
    "gpu.kind": _kind,
    "gpu.count": lambda v: len(v["gpu"]["devices"]) > v.hardware.limits.gpus,
    "gpu.orphan": lambda v: _tenants(v, "gpu.orphan"),
    "gpu.engine": _engines,
    "gpu.tenants": lambda v: _tenants(v, "gpu.tenants"),
}
