"""What stands and runs here, held against a release."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparknode.base.files import atomic_link, atomic_write, read_object, read_text
from sparknode.base.paths import SERVE_UNIT, Paths
from sparknode.base.process import Completed
from sparknode.base.system import Host
from sparknode.errors import Failed
from sparknode.host import docker, units
from sparknode.host.units import UnitState
from sparknode.state.release import Artefact, Release

TAG_S = 60.0
# An activation's lines and links take some dozen kB, Docker's own files for a container a few MB.
ROOM = 64 << 20


@dataclass(frozen=True)
class Drift:
    """One way in which this host is not as its release says, and whether the engine is restarted to put it right."""

    text: str
    restarts: bool = True


def unit_drift(paths: Paths, release: Release, state: UnitState | None) -> list[Drift]:
    """Each way in which the installed unit is not the release's."""
    found = []
    # What a changed unit was read into goes with a reload, and that can take the GPU from a running container.
    reload_hurts = not release.cdi
    if read_text(paths.unit) != release.unit:
        found.append(Drift(f"unit: {paths.unit} is not the text that the release holds", reload_hurts))
    found += [Drift(f"unit: {path} changes it", reload_hurts) for path in sorted(paths.drop_ins.glob("*.conf"))]
    if paths.reload_due.exists():
        found.append(Drift("unit: systemd has not read it since it was changed", reload_hurts))
    if state is None:
        found.append(Drift("unit: systemd did not answer"))
    elif state.active != "active":
        found.append(Drift(f"unit: it is {state.active}, expected active"))
    if not units.enabled(paths):
        found.append(Drift("unit: it is not enabled, so nothing would serve after a boot", restarts=False))
    return found


def name_drift(release: Release, image_id: str | None) -> list[Drift]:
    """Why the next start would not run the release's image; `image_id` is what its name stands for, if anything."""
    reference = release.image.reference
    if image_id is None:
        return [Drift(f"image: nothing here has the name {reference}, so no start would find it", restarts=False)]
    ids = " or ".join(release.image.image_ids)
    return [Drift(f"image: the name {reference} stands for {image_id}, the release has {ids}", restarts=False)]


def standing(host: Host, release: Release) -> list[Drift]:
    """How this host differs from a release that is current here; Failed where nobody can tell."""
    found, state = docker.container(host.system, release.container.name), units.serve_state(host.system)
    named = docker.image(host.system, release.image.reference)
    silence = found.error or named.error
    if silence:
        raise Failed(
            f"Docker did not report what runs here ({silence}); nothing was changed: fix Docker, then try again"
        )
    if state is None:
        raise Failed("systemd did not report the state of the serving unit; nothing was changed: try again")
    drift = unit_drift(host.paths, release, state)
    drift += [Drift(text) for text in docker.drift(host.system, release, found)]
    return drift if docker.is_image_of(host.system, release, named) else drift + name_drift(release, named.text("Id"))


def install(host: Host, release: Release) -> bool:
    """Make this release the one that the unit starts, in one rename; whether systemd has to read the unit again, also
    for what was changed before and never read. systemd itself tells that of a newer file alone, and the unit of the
    release to go back to is an older one (fragment_mtime_newer in its src/core/unit.c).

    The unit is a link into `current`, so that the two can't disagree. Where systemd could not follow it at a boot (a
    file system of its own below /var is mounted after units are read: systemctl(1), `link`), it is a copy.
    """
    paths = host.paths
    changes = read_text(paths.unit) != release.unit or paths.drop_ins.exists()
    if changes:
        with suppress(OSError):
            paths.reload_due.parent.mkdir(parents=True, exist_ok=True)
            paths.reload_due.touch()
    shutil.rmtree(paths.drop_ins, ignore_errors=True)
    staged = paths.release_dir(release.id) / SERVE_UNIT
    if read_text(staged) != release.unit:
        # Who edits the unit writes through the link.
        atomic_write(staged, release.unit.encode())
    if _mounted_late(paths):
        if read_text(paths.unit) != release.unit or paths.unit.is_symlink():
            atomic_write(paths.unit, release.unit.encode())
    else:
        atomic_link(paths.unit, os.path.relpath(paths.link("current") / SERVE_UNIT, paths.unit.parent))
    atomic_link(paths.enabled, f"../{SERVE_UNIT}")
    atomic_link(paths.link("current"), f"releases/{release.id}")
    return changes or paths.reload_due.exists()


def reload(host: Host) -> Completed:
    """Have systemd read what `install` changed."""
    done = units.daemon_reload(host.system)
    if done.ok:
        host.paths.reload_due.unlink(missing_ok=True)
    return done


def _mounted_late(paths: Paths) -> bool:
    table = [line.split() for line in (read_text(paths.root / "etc/fstab") or "").splitlines()]
    points = {row[1] for row in table if len(row) > 1 and not row[0].startswith("#")} - {"/"}
    return any(f"/{folder.relative_to(paths.root)}" in points for folder in (paths.data, *paths.data.parents[:2]))


def room_problem(paths: Paths) -> str | None:
    free = shutil.disk_usage(paths.data).free
    return f"{paths.data}: {free / 1e6:.0f} MB are free; make room first (tasks/prune.py)" if free < ROOM else None


def unready(host: Host, release: Release, back: Release | None) -> str | None:
    """Why nothing may be stopped for this release: what a start of it, or of the one to go back to, would lack."""
    full = room_problem(host.paths)
    if full:
        return full
    roles = {"release": release, "the release to roll back to,": back if back and back.id != release.id else None}
    for role, one in roles.items():
        problems = missing_pieces(host, one) if one else []
        if one and problems:
            return f"{role} {one.id} is not complete here: {'; '.join(problems)}; stage it again"
    return None


def put_right(host: Host, release: Release, drift: list[Drift]) -> None:
    """Repair drift that needs no restart of the engine; raises Failed."""
    if install(host, release):
        done = reload(host)
        if not done.ok:
            raise Failed(f"{done.why}; look at `systemctl status`, then try again")
    if any(one.text.startswith("image:") for one in drift):
        digest = f"{release.image.repository}@{release.image.pinned}"
        names = (*release.image.image_ids, digest)
        tried = [host.system.run(["docker", "tag", name, release.image.reference], TAG_S) for name in names]
        if not any(one.ok for one in tried):
            raise Failed(f"image {release.image.reference}: {tried[-1].why}; stage the release again")


def read_stamp(paths: Paths, repo: str, commit: str) -> dict[str, Any] | None:
    """The proof that a model's files were hashed here, or None."""
    stamp = read_object(paths.model_stamp(repo, commit))
    return stamp if stamp and isinstance(stamp.get("files"), list) else None


def artefact_problems(paths: Paths, artefact: Artefact) -> list[str]:
    return model_problems(paths, artefact.repo, artefact.commit, artefact.pinned)


def model_problems(paths: Paths, repo: str, commit: str, manifest_sha256: str) -> list[str]:
    """The quick look: was it proven with this manifest, and does every file still stand at its size?"""
    name = f"{repo}@{commit[:12]}"
    stamp = read_stamp(paths, repo, commit)
    if stamp is None or stamp.get("manifest_sha256") != manifest_sha256:
        return [f"model {name} was not verified here with manifest {manifest_sha256[:12]}"]
    return [f"model {name}: {text}" for text in folder_problems(paths.model_dir(repo, commit), stamp)]


def folder_problems(folder: Path, stamp: dict[str, Any]) -> list[str]:
    """Each file of a stamp that does not stand at its size."""
    problems = [str(line) for line in stamp.get("rot") or []]
    for entry in stamp["files"]:
        try:
            name, size = str(entry["path"]), entry["size"]
        except (KeyError, TypeError):
            problems.append("its stamp can't be read")
            continue
        try:
            found = (folder / name).lstat().st_size
        except OSError:
            problems.append(f"{name} is missing")
            continue
        if found != size:
            problems.append(f"{name} has {found} bytes, expected {size}")
    return problems


def missing_pieces(host: Host, release: Release) -> list[str]:
    """Everything that a start of this release would lack; none means it needs no network."""
    problems = [problem for artefact in release.artefacts for problem in artefact_problems(host.paths, artefact)]
    image = docker.image(host.system, release.image.reference)
    if image.error:
        problems.append(f"image {release.image.reference}: Docker did not report whether it is here ({image.error})")
    elif image.found is None:
        problems.append(f"image {release.image.reference} is not here")
    elif not docker.is_image_of(host.system, release, image):
        problems.append(
            f"image {release.image.reference} is {image.text('Id')}, not the image of {release.image.digest}"
        )
    elif why := docker.unstartable(host.system, release.image.reference, image):
        problems.append(f"image {release.image.reference} is here by name, but no container can be made of it: {why}")
    return problems
