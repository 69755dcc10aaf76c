"""The memory that an engine would get."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from sparkfleet.preflight.checks.view import Check, Undecided, View, limit
from sparkfleet.preflight.findings import Values
from sparknode.base.parse import number


def _also(share: float) -> tuple[str, ...]:
    """A lower share of the memory is advice only where an engine still does something with it."""
    return ("lower",) if share >= limit("least_utilization") else ()


def _available(view: View) -> Iterator[Values]:
    if view.hardware.unified_memory and view.room < 0:
        heard = "tenants" not in {entry.what for entry in view.facts.unreadable}
        held = [number(tenant.memory) for tenant in view.facts.gpu.tenants]
        # Where those who hold something hold less than is missing, ending them is not enough.
        pinned = heard and None not in held and sum(mib or 0 for mib in held) / 1024 < -view.room
        case = "hugepages" if view.gib["hugetlb"] >= -view.room else "pinned" if pinned else None
        yield {"case": case, "also": _also(view.memory["fits"])}


def _of_the_card(view: View) -> Iterator[Values]:
    if not view.hardware.unified_memory and view.room < 0:
        yield {"also": _also(view.memory["fits"])}


def _headroom(view: View) -> Iterator[Values]:
    if view.hardware.unified_memory and 0 <= view.room < limit("headroom_gib"):
        yield {"also": _also(view.memory["safe"])}


def _critical(view: View) -> bool:
    if view.serves() and "available" not in view.gib:
        raise Undecided("/proc/meminfo does not say what is available")
    return view.serves() and bool(view.gib["available"] < limit("critical_gib"))


CHECKS: Mapping[str, Check] = {
    "mem.available": _available,
    "mem.headroom": _headroom,
    "mem.free": lambda v: v.hardware.unified_memory and 0 <= v.room < math.inf and v.gib["free"] < v.memory["need"],
    "mem.fits": lambda v: [{"case": None if v.hardware.unified_memory else "card"}] if v.memory else [],
    "mem.critical": _critical,
    "mem.swap": lambda v: v.gib["swap_used"] > limit("swap_gib"),
    "mem.pressure": lambda v: (v.facts.memory.stall_percent or 0) > limit("stall_percent"),
    "mem.guard": lambda v: v.hardware.unified_memory and v.facts.unit("earlyoom.service").active != "active",
    "gpu.memory": _of_the_card,
}
