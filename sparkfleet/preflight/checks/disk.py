"""Room on the file systems that a stage writes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparkfleet.preflight.checks.view import Check, View, limit
from sparkfleet.preflight.findings import Values

GB = 10**9


def _space(view: View) -> Iterator[Values]:
    rows = {row["holds"]: row for row in view["disk"]}
    images, state = rows["images"], rows["state"]
    image, weights = needed(view)
    writes = [(images, {"image": image}), (state, {"weights": weights})]
    if (images["free_bytes"], images["total_bytes"]) == (state["free_bytes"], state["total_bytes"]):
        # Two folders of one file system, which must hold everything together.
        writes = [(images, {"image": image, "weights": weights})]
    for row, wanted in writes:
        parts = {**wanted, "reserve": view.hardware.limits.disk_reserve_bytes}
        if row["free_bytes"] < (need := sum(parts.values())):
            words = ", ".join(f"{what} {size / GB:.0f}" for what, size in parts.items() if size)
            yield {"path": row["path"], "free": row["free_bytes"] / GB, "need": need / GB, "parts": words}


def needed(view: View) -> tuple[float, float]:
    """Bytes that the stage will write: the image with room to unpack it, and weights; what is there is not counted."""
    fleet, model = view["fleet"], view.catalog.models[view.release.model]
    absent = view.image if view.release.image.reference not in fleet["images"] else None
    wanted = {one.repo for one in view.release.artefacts} - {row["repo"] for row in fleet["models"]}
    weights = sum(row.disk_bytes or 0 for row in model.all_repositories() if row.repo in wanted)
    return absent.room(view["docker"]["image_store"], limit("unpack_factor")) if absent else 0, weights


def _left(view: View, what: str, least: float) -> Iterator[Values]:
    for row in view["disk"]:
        # File systems without inodes of their own say 0 of 0.
        share = row[f"free_{what}"] / row[f"total_{what}"] if row[f"total_{what}"] else 1.0
        if share < least:
            yield {"path": row["path"], "share": share, "limit": least}


CHECKS: Mapping[str, Check] = {
    "disk.space": _space,
    "disk.low": lambda v: _left(v, "bytes", limit("disk_left_share")),
    "disk.inodes": lambda v: _left(v, "inodes", limit("inodes_left_share")),
}
