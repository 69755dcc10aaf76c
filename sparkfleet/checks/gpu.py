"""The GPU: is it there, is it the right one, and who else holds it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparkfleet.checks.view import Check, View
from sparkfleet.findings import Values


def _kind(view: View) -> Iterator[Values]:
    name, names, ids = str(view.gpu.get("name", "")), view.hardware.gpu_names, view["gpu"]["pci_ids"]
    if name and not name.startswith(tuple(names)):
        yield {"pci": f" ({', '.join(ids)})" if ids else "", "names": " or ".join(names)}


def _tenants(view: View, *, orphans: bool) -> Iterator[Values]:
    for tenant in view["gpu"]["tenants"]:
        # A process that `ps` did not show is taken for the engine's own where one serves.
        ours = tenant["ours"] or (tenant["ours"] is None and view.serves())
        if not ours and tenant["orphan"] == orphans:
            yield {**tenant, "memory": f", {tenant['memory']}" if tenant["memory"] else ""}


CHECKS: Mapping[str, Check] = {
    "gpu.visible": lambda v: not v.gpu,
    "gpu.kind": _kind,
    "gpu.count": lambda v: len(v["gpu"]["devices"]) > v.hardware.limits.gpus,
    "gpu.orphan": lambda v: _tenants(v, orphans=True),
    "gpu.tenants": lambda v: _tenants(v, orphans=False),
}
