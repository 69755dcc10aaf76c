"""What no release needs any more goes; what serves, what was proven, what it goes back to and what is pinned stays."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sparknode.base import locks
from sparknode.base.shape import parse
from sparknode.base.system import Host, Tell
from sparknode.errors import Failed, Refused
from sparknode.host import docker
from sparknode.host.node_status import QUESTIONS, images, repositories
from sparknode.models.stage import remove_tree
from sparknode.state import lease, orders, releases
from sparknode.state.release import Release

ARRIVING_S = 3600.0


@dataclass(frozen=True)
class Waste:
    """What may go: release ids, folders, and image references."""

    releases: tuple[str, ...]
    folders: tuple[Path, ...]
    images: tuple[str, ...]


def prune(host: Host, request: str, tell: Tell) -> int:
    """Carry out one prune request, or with `dry` only say what would go."""
    node = parse(request, "prune request")
    keep, pinned, dry = node.whole("keep"), node.texts("pinned"), node.flag("dry")
    floor = node.whole("floor_bytes")
    lease.require_free(host, rollout="")
    missing = sorted(set(pinned) - set(host.paths.staged()))
    if missing:
        tell(f"pinned, and not staged here: {', '.join(missing)}")
    purpose = "pruning"
    with locks.hold(host.paths, purpose), locks.hold_file(host.paths.store_lock, purpose):
        free = shutil.disk_usage(host.paths.data).free if host.paths.data.is_dir() else floor
        if free < floor:
            tell(f"{free / 1e9:.1f} GB are free, {floor / 1e9:.1f} GB should be: only what must stay is kept")
            keep = 0
        remove(host, waste(host, kept(host, keep, pinned)), dry, tell)
    return 0


def kept(host: Host, keep: int, pinned: tuple[str, ...]) -> list[Release]:
    """The releases that stay: the linked and the pinned ones, one under way, and the last few that were staged."""
    paths = host.paths
    staged = sorted(paths.staged(), key=lambda name: paths.release_dir(name).stat().st_mtime, reverse=True)
    under_way = orders.pending(paths)
    named = {paths.linked(name) for name in ("current", "previous", "verified")} | set(pinned) | set(staged[:keep])
    named |= {under_way.release} if under_way else set()
    found = []
    for name in staged:
        if name in named:
            try:
                found.append(releases.load(paths, name))
            except Refused as problem:
                # What it needs can't be known, so nothing may go.
                raise Failed(f"release {name} stays and can't be read: {problem}") from None
    return found


def waste(host: Host, staying: list[Release]) -> Waste:
    """Everything of ours that none of these releases needs."""
    paths = host.paths
    ids = {release.id for release in staying}
    models = {paths.model_dir(row.repo, row.commit) for release in staying for row in release.artefacts}
    references = {release.image.reference for release in staying}
    caches = {reference.rsplit(":", 1)[-1] for reference in references}
    gone = [name for name in paths.staged() if name not in ids]
    folders = [paths.release_dir(name) for name in gone]
    folders += [one for one in sorted(paths.models.glob("*/*/*")) if one.is_dir() and one not in models]
    folders += [one for one in sorted((paths.data / "cache").glob("sha256-*")) if one.name not in caches]
    folders += [one for one in sorted(paths.incoming.glob("*/*/*")) if one.is_dir() and not arriving(host, one)]
    listed = images(host.system.run(QUESTIONS["images"], docker.INSPECT_S), repositories(paths))
    return Waste(tuple(gone), tuple(folders), tuple(one for one in listed if one not in references))


def arriving(host: Host, folder: Path) -> bool:
    """Was something written there lately? Whoever sends files here from elsewhere holds no lock."""
    written = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    return host.system.now() - written < ARRIVING_S


def remove(host: Host, found: Waste, dry: bool, tell: Tell) -> None:
    verb = "would remove" if dry else "removing"
    if not found.folders and not found.images:
        tell("nothing to remove")
    for folder in found.folders:
        tell(f"{verb} {folder} ({size_of(folder) / 1e9:.2f} GB)")
        if not dry:
            # The proof first: without it, what a crash leaves of the folder counts as nothing.
            folder.with_name(f"{folder.name}.verified.json").unlink(missing_ok=True)
            remove_tree(folder)
    for reference in found.images:
        tell(f"{verb} image {reference}")
        if not dry:
            why = docker.remove_image(host.system, reference)
            if why:
                tell(f"  {why}")


def size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
