"""Staging: everything that a release needs stands here and is proven, and nothing that serves is touched.

Each step looks first whether its work is done; a second run changes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparknode import SCHEMAS
from sparknode.base.files import atomic_write, read_text, sync_directory
from sparknode.base.locks import STORE_S, Held, hold_file, holder
from sparknode.base.progress import Meter
from sparknode.base.shape import Node, parse, written
from sparknode.base.system import Host, Tell
from sparknode.errors import Failed, Refused
from sparknode.host import docker
from sparknode.host.drift import missing_pieces, model_problems
from sparknode.host.imagestore import CONTAINERD, GRAPHDRIVER, Store, in_use
from sparknode.models import leftbehind, saved
from sparknode.models import manifest as manifests
from sparknode.models.manifest import Manifest
from sparknode.state import releases
from sparknode.state.journal import timestamp
from sparknode.state.release import Artefact, Release

PULL_S = 4 * 3600.0
TAG_S = 60.0
SHOWN = 8
# The name under which Docker looks for the credentials of docker.io.
DOCKER_HUB_KEY = "https://index.docker.io/v1/"


def stage(host: Host, request: str, tell: Tell) -> int:
    """Carry out one stage request; the exit code."""
    node = parse(request, "stage request")
    node.schema(SCHEMAS["stage"])
    release = releases.from_node(node.node("release"))
    order = image_order(node)
    given = {(item.repo, item.commit): item for item in map(manifests.from_node, node.nodes("manifests"))}
    models = [matching(artefact, given) for artefact in release.artefacts]
    with hold_store(host, f"staging release {release.id}", tell):
        for manifest in models:
            stage_model(host, manifest, tell)
        stage_image(host, release, order, tell)
        stage_way_back(host, release, order, tell)
        try_gpu(host, release, tell)
        stage_release(host, release, node.node("release").raw, tell)
        prove(host, release, tell)
    return 0


def hold_store(host: Host, purpose: str, tell: Tell) -> Held:
    """Hold the lock of models and images, after whoever holds it now."""
    now = holder(host.paths.store_lock)
    if now:
        tell(f"waiting: {now} is under way on this host")
    return hold_file(host.paths.store_lock, purpose, STORE_S, host.system.sleep)


@dataclass(frozen=True)
class ImageOrder:
    """Where the image comes from and what is known of it: the room that it needs, by Docker's image store.

    `auth` is what Docker's configuration calls so.
    """

    source: str
    needed_bytes: Mapping[str, int]
    entrypoint: tuple[str, ...] | None
    auth: str | None


def image_order(node: Node) -> ImageOrder:
    entrypoint = node.texts("image_entrypoint") if node.raw.get("image_entrypoint") is not None else None
    sizes = node.optional_node("image_bytes")
    needed = {store: sizes.whole(store) for store in (GRAPHDRIVER, CONTAINERD)} if sizes else {}
    return ImageOrder(node.text("image_source"), needed, entrypoint, node.optional_text("image_auth"))


def save_image(host: Host, request: str, tell: Tell) -> int:
    """Have the image of a stage request here, and as a file that other hosts may take; prints the file's manifest."""
    node = parse(request, "stage request")
    release = releases.from_node(node.node("release"))
    with hold_store(host, f"saving image {release.image.reference}", lambda _: None):
        stage_image(host, release, image_order(node), lambda _: None)
        manifest, folder = saved.save(host, release)
        if not complete(host, manifest):
            move_in(folder, host.paths.model_dir(manifest.repo, manifest.commit))
            write_stamp(host, manifest)
    tell(json.dumps(written(manifest)))
    return 0


def matching(artefact: Artefact, given: dict[tuple[str, str], Manifest]) -> Manifest:
    """The manifest of an artefact, which must be the one that the release was made with."""
    found = given.get((artefact.repo, artefact.commit))
    if found is None:
        raise Refused(f"stage request: no manifest for {artefact.repo}@{artefact.commit}; make the lock again")
    if found.sha256 != artefact.pinned:
        raise Refused(
            f"manifest of {found.name}: it hashes to {found.sha256}, the release was made with "
            f"{artefact.pinned}; make lock and release together again"
        )
    return found


def stage_model(host: Host, manifest: Manifest, tell: Tell) -> None:
    """Prove a model's files and put them in place in one step."""
    here = host.paths.model_dir(manifest.repo, manifest.commit)
    incoming = host.paths.incoming_dir(manifest.repo, manifest.commit)
    if complete(host, manifest):
        tell(f"model {manifest.name}: already staged ({len(manifest.files)} files)")
        return
    if here.is_dir() and not (standing := proven(host, manifest, here, tell)):
        write_stamp(host, manifest)
        tell(f"model {manifest.name}: the files in place are verified ({size_of(manifest)})")
        return
    if not incoming.is_dir():
        found = f"{here} is damaged: {listed(standing)}" if here.is_dir() else f"neither {here} nor {incoming} is there"
        raise Failed(f"model {manifest.name}: {found}; send the files to {incoming} and stage again")
    wrong = proven(host, manifest, incoming, tell)
    if wrong:
        discard(incoming, wrong)
        raise Failed(f"model {manifest.name}: {incoming} is not the manifest: {listed(wrong)}; send it again")
    move_in(incoming, here)
    write_stamp(host, manifest)
    tell(f"model {manifest.name}: verified and in place ({size_of(manifest)})")


def complete(host: Host, manifest: Manifest) -> bool:
    """The quick look: was this model proven here, and does it still stand?"""
    return not model_problems(host.paths, manifest.repo, manifest.commit, manifest.sha256)


def proven(host: Host, manifest: Manifest, folder: Path, tell: Tell) -> list[str]:
    """Read every byte of a folder; each thing that is wrong with it."""
    with Meter(host, f"model {manifest.name}: checking", manifest.total_bytes, tell) as meter:
        return manifests.problems(manifest, folder, meter.add)


def discard(folder: Path, wrong: list[str]) -> None:
    """Remove the files that a folder's problems name: what sends them would skip those that have the right size."""
    for text in wrong:
        path = folder / text.partition(": ")[0]
        # A disk that failed for a moment says nothing of the file.
        if "it can't be read" not in text and (path.is_symlink() or path.is_file()):
            path.unlink()


def size_of(manifest: Manifest) -> str:
    return f"{len(manifest.files)} files, {manifest.total_bytes / 1e9:.2f} GB"


def listed(texts: list[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return "; ".join(texts[:SHOWN]) + more


def move_in(incoming: Path, here: Path) -> None:
    """Make a proven folder read-only and give it its final name; a damaged one of that name steps aside."""
    for base, folders, files in os.walk(incoming):
        for name in files:
            own(Path(base) / name, 0o444)
        for name in folders:
            own(Path(base) / name, 0o555)
        sync_directory(Path(base))
    here.parent.mkdir(parents=True, exist_ok=True)
    damaged = here.with_name(f"{here.name}.damaged")
    if here.is_dir():
        remove_tree(damaged)
        here.rename(damaged)
    incoming.rename(here)
    sync_directory(here.parent)
    sync_directory(incoming.parent)
    # Only now: a folder that is read-only itself can't be moved by anyone but root.
    own(here, 0o555)
    remove_tree(damaged)


def own(path: Path, mode: int) -> None:
    """Take a path away from the login that sent it, which could change it again otherwise."""
    if os.geteuid() == 0:
        os.chown(path, 0, 0)
    path.chmod(mode)


def remove_tree(folder: Path) -> None:
    """Remove a read-only tree."""
    if folder.is_dir():
        for base, _, _ in os.walk(folder):
            Path(base).chmod(0o755)
        shutil.rmtree(folder)


def write_stamp(host: Host, manifest: Manifest, rot: Sequence[str] = ()) -> None:
    """The proof, outside the tree: with which manifest, for a look at any time; `rot` is what was found wrong since."""
    stamp = {
        "schema": 1,
        **written(manifest),
        "manifest_sha256": manifest.sha256,
        "verified_at": timestamp(host.system.now()),
        "rot": rot,
    }
    atomic_write(host.paths.model_stamp(manifest.repo, manifest.commit), json.dumps(stamp, indent=1).encode())


def stage_image(host: Host, release: Release, order: ImageOrder, tell: Tell) -> None:
    """Have the pinned image here under the local tag that the release starts."""
    image, source = release.image, order.source
    found = docker.image(host.system, image.reference)
    if found.found and docker.is_image_of(host.system, release, found):
        why = docker.unstartable(host.system, image.reference, found)
        if why is None:
            tell(f"image {image.reference}: already staged")
            return
        tell(f"image {image.reference}: no container can be made of what is here ({why}); fetching it again")
    store = in_use(host.system)
    needed = require_docker_room(host, store, order)
    left = leftbehind.export(host, store, release, needed, tell)
    if not saved.load(host, release, "Docker's other image store" if left else "another host", tell):
        pull(host, order, tell)
        found = docker.image(host.system, source)
        if found.found is None:
            why = found.error or "no such image"
            raise Failed(f"image {source}: it was pulled, but Docker does not show it ({why})")
    else:
        source, found = image.reference, docker.image(host.system, image.reference)
    made_for, entrypoint = docker.described(host.system, found, image.architecture)
    if made_for is None:
        raise Failed(
            f"image {source}: Docker shows no architecture of it, and its configuration can't be read in "
            f"{store.folder}; remove what is there (docker image rm {source}), then run this again"
        )
    if made_for != image.architecture:
        raise Failed(
            f"image {source}: its architecture is {made_for}, expected {image.architecture}; "
            "choose an image that is built for this host"
        )
    if not docker.is_image_of(host.system, release, found):
        raise Failed(
            f"image {source}: its id is {found.text('Id')}, expected {' or '.join(image.image_ids)} "
            f"(digest {image.digest}); resolve the tag again"
        )
    if order.entrypoint is not None and entrypoint != list(order.entrypoint):
        raise Failed(
            f"image {source}: its entrypoint is {entrypoint}, the lock has {list(order.entrypoint)}; "
            "make the lock again"
        )
    tagged = host.system.run(["docker", "tag", found.text("Id") or source, image.reference], TAG_S)
    if not tagged.ok:
        raise Failed(f"image {source}: it can't be tagged as {image.reference}: {tagged.why}")
    tell(f"image {image.reference}: here, {image.architecture}, digest {image.digest}, id {found.text('Id')}")


def require_docker_room(host: Host, store: Store, order: ImageOrder) -> int:
    """Refuse to begin what would fill the disk of Docker's images; the bytes that the image needs there."""
    needed, folder = order.needed_bytes.get(store.kind, 0), host.paths.on_host(store.folder)
    if needed and folder.is_dir() and (free := shutil.disk_usage(folder).free) < needed:
        raise Failed(
            f"{folder}: {free / 1e9:.1f} GB are free, the image needs {needed / 1e9:.1f} GB packed and unpacked in "
            f"Docker's {store.kind} image store; remove what is not needed (tasks/prune.py) and run this again"
        )
    return needed


def pull(host: Host, order: ImageOrder, tell: Tell) -> None:
    """Pull by digest; credentials stand in a folder of their own for that long, and in no command line."""
    source = order.source
    tell(f"image {source}: pulling")
    with tempfile.TemporaryDirectory(prefix="sparkfleet-") as folder:
        config = []
        if order.auth:
            registry = source.partition("/")[0]
            document = {"auths": {DOCKER_HUB_KEY if registry == "docker.io" else registry: {"auth": order.auth}}}
            atomic_write(Path(folder) / "config.json", json.dumps(document).encode(), 0o600)
            config = ["--config", folder]
        done = host.system.stream(["docker", *config, "pull", source], PULL_S, lambda line: tell(f"  {line}"))
    if not done.ok:
        raise Failed(f"image {source}: {done.why}; is the registry reachable from this host, and is the digest there?")


def stage_way_back(host: Host, release: Release, order: ImageOrder, tell: Tell) -> None:
    """Have the images of the releases to go back to here: a change of Docker's image store takes away every one."""
    for link in ("verified", "previous"):
        back = releases.load_linked(host.paths, link)
        found = docker.image(host.system, back.image.reference) if back and back.id != release.id else None
        if back is None or found is None or found.found or found.error:
            continue
        # A login is for the registry that it was given for.
        same = back.image.repository == release.image.repository
        place, auth = (order.source.partition("@")[0], order.auth) if same else (back.image.repository, None)
        its = replace(order, source=f"{place}@{back.image.pinned}", entrypoint=None, auth=auth)
        try:
            stage_image(host, back, its, tell)
        except Failed as problem:
            # The proof at the end decides what can't be done without.
            tell(str(problem))


def try_gpu(host: Host, release: Release, tell: Tell) -> None:
    """Look into a container of this image before the engine that serves is stopped for it."""
    seen, said = docker.hands_gpu(host.system, release)
    if seen is False:
        raise Failed(f"image {release.image.reference}: {said}; see gpu.container in docs/preflight.md")
    tell(f"image {release.image.reference}: {said}")


def stage_release(host: Host, release: Release, document: dict[str, Any], tell: Tell) -> None:
    """Write the release's folder in one step, the document with whatever a newer controller added to it."""
    folder = host.paths.release_dir(release.id)
    content = {
        "release.json": json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n",
        host.paths.unit.name: release.unit,
    }
    if folder.is_dir():
        stale = {name: text for name, text in content.items() if read_text(folder / name) != text}
        for name, text in stale.items():
            atomic_write(folder / name, text.encode())
        # The last releases stay by their age here, and this one was asked for now.
        if folder != max(host.paths.releases.glob("[!.]*"), key=lambda one: one.stat().st_mtime):
            os.utime(folder)
        tell(f"release {release.id}: " + (f"{', '.join(stale)} written again" if stale else "already staged"))
        return
    host.paths.releases.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=host.paths.releases) as parent:
        new = Path(parent) / release.id
        for name, text in content.items():
            atomic_write(new / name, text.encode())
        new.chmod(0o755)
        new.rename(folder)
        sync_directory(host.paths.releases)
    tell(f"release {release.id}: written to {folder}")


def prove(host: Host, release: Release, tell: Tell) -> None:
    """The end of staging: a start of this release, and the way back from it, need no network."""
    verified = host.paths.linked("verified")
    back = releases.load(host.paths, verified) if verified and verified != release.id else None
    for role, one in (("release", release), ("the release to roll back to,", back)):
        problems = missing_pieces(host, one) if one else []
        if problems:
            raise Failed(f"{role} {one.id if one else ''} is not complete here: {listed(problems)}")
    tell(f"proof: release {release.id} is complete here")
    if back:
        tell(f"proof: the release to roll back to, {back.id}, is complete here")
    elif verified:
        tell(f"proof: release {verified} is the verified one already")
    else:
        tell("proof: no release is verified here yet, so there is none to roll back to")
