"""What stands and runs here, held against a release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparknode import docker
from sparknode.files import read_object, read_text
from sparknode.paths import Paths
from sparknode.release import Artefact, Release
from sparknode.system import Host
from sparknode.units import UnitState


def unit_drift(paths: Paths, release: Release, state: UnitState | None) -> list[str]:
    """Each way in which the installed unit is not the release's."""
    texts = []
    if read_text(paths.unit) != release.unit:
        texts.append(f"unit: {paths.unit} is not the text that the release holds")
    texts += [f"unit: {path} changes it" for path in sorted(paths.drop_ins.glob("*.conf"))]
    if state is None:
        texts.append("unit: systemd did not answer")
    elif state.active != "active":
        texts.append(f"unit: it is {state.active}, expected active")
    if state and not state.enabled:
        texts.append("unit: it is not enabled, so nothing would serve after a boot")
    return texts


def read_stamp(paths: Paths, repo: str, commit: str) -> dict[str, Any] | None:
    """The proof that a model's files were hashed here, or None."""
    stamp = read_object(paths.model_stamp(repo, commit))
    return stamp if stamp and isinstance(stamp.get("files"), list) else None


def artefact_problems(paths: Paths, artefact: Artefact) -> list[str]:
    return model_problems(paths, artefact.repo, artefact.commit, artefact.manifest_sha256)


def model_problems(paths: Paths, repo: str, commit: str, manifest_sha256: str) -> list[str]:
    """The quick look: was it proven with this manifest, and does every file still stand at its size?"""
    name = f"{repo}@{commit[:12]}"
    stamp = read_stamp(paths, repo, commit)
    if stamp is None or stamp.get("manifest_sha256") != manifest_sha256:
        return [f"model {name} was not proven here with manifest {manifest_sha256[:12]}"]
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
        problems.append(f"image {release.image.reference}: Docker did not say whether it is here ({image.error})")
    elif image.found is None:
        problems.append(f"image {release.image.reference} is not here")
    elif not docker.is_image_of(host.system, release, image):
        problems.append(
            f"image {release.image.reference} is {image.text('Id')}, not the image of {release.image.digest}"
        )
    return problems
