"""An image as a file, so that it goes from host to host as models do: saved by one that has it, loaded by the others.

`docker save | load` forgets the digest (moby#22011), so what was loaded is known by its id, as the release has it.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

from sparknode.base.shape import Node
from sparknode.base.system import Host, Tell
from sparknode.errors import Failed
from sparknode.host import docker
from sparknode.host.drift import read_stamp
from sparknode.models import manifest as manifests
from sparknode.models.manifest import File, Manifest
from sparknode.state.release import Release

REPO, FILE = "sparkfleet/image", "image.tar"
_DOCKER_S = 3600.0


def commit(release: Release) -> str:
    """The folder of a saved image, in the shape of a commit."""
    return release.image.pinned.removeprefix("sha256:")[:40]


def save(host: Host, release: Release) -> tuple[Manifest, Path]:
    """Save the release's image, which is here, into the incoming folder; its manifest and the folder."""
    name = commit(release)
    stamp, kept = read_stamp(host.paths, REPO, name), host.paths.model_dir(REPO, name)
    if stamp and not lacking(kept / FILE):
        return manifests.from_node(Node(stamp, "saved image")), kept
    folder = host.paths.incoming_dir(REPO, name)
    folder.mkdir(parents=True, exist_ok=True)
    done = host.system.run(["docker", "save", "--output", str(folder / FILE), release.image.reference], _DOCKER_S)
    if not done.ok:
        raise Failed(f"image {release.image.reference} can't be saved: {done.why}; set image_distribution to pull")
    missing = lacking(folder / FILE)
    if missing:
        (folder / FILE).unlink()
        raise Failed(
            f"image {release.image.reference} runs here and can't be given to other hosts: Docker's store lacks "
            f"{missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''} of it; they take it from elsewhere"
        )
    digest, size = hashlib.sha256(), 0
    with (folder / FILE).open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
            size += len(chunk)
    return Manifest(REPO, name, (File(FILE, size, digest.hexdigest(), None),)), folder


def lacking(path: Path) -> list[str]:
    """What an archive of an image names and does not hold.

    `docker save` leaves out without a word what containerd's store has unpacked alone, and `docker load` takes the rest
    for an image (github.com/moby/moby/issues/49473).
    """
    try:
        with tarfile.open(path, "r:") as archive:
            held = set(archive.getnames())
            stream = archive.extractfile("manifest.json")
            images = json.load(stream) if stream else []
            named = [name for one in images for name in (one["Config"], *one["Layers"])]
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError) as problem:
        return [f"a list of its parts ({problem})"]
    return [name for name in named if name not in held] if named else ["a list of its parts"]


def load(host: Host, release: Release, origin: str, tell: Tell) -> bool:
    """Load the release's image where its file came; False when none did. The file goes, whatever it held."""
    path = host.paths.incoming_dir(REPO, commit(release)) / FILE
    if not path.is_file():
        return False
    missing = lacking(path)
    if missing:
        path.unlink()
        tell(f"image {release.image.reference}: what came from {origin} lacks {missing[0]}; pulling it instead")
        return False
    tell(f"image {release.image.reference}: loading {path.stat().st_size / 1e9:.2f} GB that came from {origin}")
    done = host.system.run(["docker", "load", "--quiet", "--input", str(path)], _DOCKER_S)
    path.unlink()
    found = docker.image(host.system, release.image.reference)
    if done.ok and docker.is_image_of(host.system, release, found):
        return True
    tell(f"  it is not the pinned image ({found.text('Id') or done.why}); pulling it instead")
    return False
