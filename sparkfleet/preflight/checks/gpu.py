"""The GPU: is it there, is it the right one, and who else holds it?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from sparkfleet.catalog.contract import version_key
from sparkfleet.preflight.checks.view import DAMAGED_INFOROM, LOST, Check, View, is_called, matches, of_kind
from sparkfleet.preflight.findings import Values, book
from sparknode.facts.facts import Tenant
from sparknode.host.owners import Owner

# Kernel drivers that keep a GPU for a virtual machine, and those of other projects.
_FOR_A_GUEST = {"vfio-pci", "pci-stub", "xen-pciback"}
_REJECTED = re.compile(r"is rejected|is restricted")
_OTHERS = {"nouveau", "nova_core", "nova-core", "nova"}


def _visible(view: View) -> Iterator[Values]:
    """The cause of a GPU that can't be used, where the probe shows it: each has a remedy of its own."""
    gpu, kernel, ready = view.facts.gpu, view.facts.host.kernel, view.facts.kernels.with_nvidia
    error, bound = gpu.error, {card.driver: card.address for card in gpu.pci if card.driver}
    if view.gpu_works or (not view.gpu and error is None):
        return
    rejected = [line for line in gpu.kernel_log if _REJECTED.search(line)]
    xid = next((line for line in reversed(gpu.kernel_log) if "Xid" in line), None)
    log = f"; the kernel: {xid}" if xid else ""
    if gpu.module_version and "version mismatch" in str(error):
        yield {"case": "mismatch", "library": view.pending or "of another version", "module": gpu.module_version}
    elif fault := view.fault or (LOST.search(str(error)) and error):
        yield {"case": "lost", "fault": fault, "log": log}
    elif guest := _FOR_A_GUEST.intersection(bound):
        yield {"case": "guest", "bound": next(iter(guest)), "address": bound[next(iter(guest))]}
    elif other := _OTHERS.intersection(bound):
        yield {"case": "other", "bound": next(iter(other)), "address": bound[next(iter(other))]}
    elif not gpu.module_version and ready and kernel not in ready:
        yield {"case": "kernel", "ready": max(ready, key=version_key), "has": ", ".join(ready)}
    elif not gpu.module_version and rejected:
        yield {"case": "unsigned", "line": rejected[-1]}
    else:
        yield {"case": "hangs" if gpu.rc is None else None, "log": log}


def _inforom(view: View) -> list[Values]:
    said = view.facts.gpu.error or ""
    damaged = view.facts.gpu.rc == DAMAGED_INFOROM or "inforom" in said.lower()
    return [{"said": said or "exit code 14"}] if view.gpu and damaged else []


def _kind(view: View) -> Iterator[Values]:
    names, ids = view.hardware.gpu_names, view.facts.gpu.pci_ids
    if view.gpu and not is_called(view.gpu.name, names):
        wanted = " or ".join(one.replace("*", "…") for one in names)
        yield {**of_kind(view), "pci": f" ({', '.join(ids)})" if ids else "", "names": wanted}


def _others(view: View, row: str) -> Iterator[tuple[Tenant, Values]]:
    """Who is on the GPU, not ours, and belongs to this row, with its figures."""
    for tenant in view.facts.gpu.tenants:
        # A process that `ps` did not show is taken for the engine's own where one serves.
        if tenant.ours or (tenant.ours is None and view.serves()):
            continue
        kind = tenant.owner.kind if tenant.owner else None
        native = tenant.engine and kind not in (None, "container")
        if row == ("gpu.tenants" if not native else "gpu.orphan" if kind == "gone" else "gpu.engine"):
            memory = f", {tenant.memory}" if tenant.memory else ""
            yield tenant, {"pid": tenant.pid, "name": tenant.name, "memory": memory}


def _tenants(view: View, row: str) -> Iterator[Values]:
    yield from (values for _, values in _others(view, row))


def _engines(view: View) -> Iterator[Values]:
    for tenant, values in _others(view, "gpu.engine"):
        owner = tenant.owner or Owner("unknown")
        kind, name, uid = owner.kind, owner.unit or "", owner.uid
        # Who stops one of these stops much more than an engine, up to the login that he works through.
        shared = kind == "unit" and (matches(name, book().shared_units) or not name.endswith(".service"))
        case = None if shared or kind not in ("unit", "user-unit") else kind
        where = f"{name or 'no unit that is known'}{f' of user {uid}' if uid is not None else ''}"
        yield {**values, "case": case, "unit": shlex.quote(name), "uid": uid, "where": where}


CHECKS: Mapping[str, Check] = {
    "gpu.visible": _visible,
    "gpu.inforom": _inforom,
    "gpu.kind": _kind,
    "gpu.count": lambda v: len(v.facts.gpu.devices) > v.hardware.limits.gpus,
    "gpu.orphan": lambda v: _tenants(v, "gpu.orphan"),
    "gpu.engine": _engines,
    "gpu.tenants": lambda v: _tenants(v, "gpu.tenants"),
}
