"""The memory that an engine would get."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sparkfleet.checks.view import Check, limit

CHECKS: Mapping[str, Check] = {
    "mem.available": lambda v: v.hardware.unified_memory and v.room < 0,
    "mem.headroom": lambda v: 0 <= v.room < limit("headroom_gib"),
    "mem.free": lambda v: v.hardware.unified_memory and 0 <= v.room < math.inf and v.gib["free"] < v.memory["need"],
    "mem.fits": lambda v: bool(v.memory),
    "mem.critical": lambda v: v.serves() and v.gib["available"] < limit("critical_gib"),
    "mem.swap": lambda v: v.gib["swap_used"] > limit("swap_gib"),
    "mem.pressure": lambda v: (v["memory"]["stall_percent"] or 0) > limit("stall_percent"),
    "mem.guard": lambda v: v.hardware.unified_memory and v.unit("earlyoom.service").get("ActiveState") != "active",
    "gpu.memory": lambda v: not v.hardware.unified_memory and v.room < 0,
}
