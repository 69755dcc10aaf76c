"""Room on the file systems that a stage writes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sparkfleet.preflight.checks.view import Check, Undecided, View, limit
from sparkfleet.preflight.findings import Values
from sparknode.facts.facts import Disk

GB = 10**9


def _space(view: View) -> Iterator[Values]:
    rows = {row.holds: row for row in view.facts.disk}
    if missing := [what for what in ("images", "state") if what not in rows]:
        raise Undecided(f"`df` names no file system for {' and '.join(missing)}")
    images, state = rows["images"], rows["state"]
    image, weights = needed(view)
    writes = [(images, {"image": image}), (state, {"weights": weights})]
    if (images.free_bytes, images.total_bytes) == (state.free_bytes, state.total_bytes):
        # Two folders of one file system, which must hold everything together.
        writes = [(images, {"image": image, "weights": weights})]
    for row, wanted in writes:
        parts = {**wanted, "reserve": view.hardware.limits.disk_reserve_bytes}
        if row.free_bytes < (need := sum(parts.values())):
            words = ", ".join(f"{what} {size / GB:.0f}" for what, size in parts.items() if size)
            yield {"path": row.path, "free": row.free_bytes / GB, "need": need / GB, "parts": words}


def needed(view: View) -> tuple[float, float]:
    """Bytes that the stage will write: the image with room to unpack it, and weights; what is there is not counted."""
    fleet, model = view.facts.fleet, view.catalog.models[view.release.model]
    absent = view.image if view.release.image.reference not in fleet.images else None
    wanted = {one.repo for one in view.release.artefacts} - {row.repo for row in fleet.models or ()}
    weights = sum(row.disk_bytes or 0 for row in model.all_repositories() if row.repo in wanted)
    return absent.room(view.facts.docker.image_store, limit("unpack_factor")) if absent else 0, weights


def _left(view: View, part: Callable[[Disk], tuple[int, int]], least: float) -> Iterator[Values]:
    for row in view.facts.disk:
        free, total = part(row)
        # File systems without inodes of their own say 0 of 0.
        share = free / total if total else 1.0
        if share < least:
            yield {"path": row.path, "share": share, "limit": least}


CHECKS: Mapping[str, Check] = {
    "disk.space": _space,
    "disk.low": lambda v: _left(v, lambda row: (row.free_bytes, row.total_bytes), limit("disk_left_share")),
    "disk.inodes": lambda v: _left(v, lambda row: (row.free_inodes, row.total_inodes), limit("inodes_left_share")),
}
