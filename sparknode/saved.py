"""An image as a file, so that it goes from host to host as models do: saved by one that has it, loaded by the others.

`docker save | load` forgets the digest (moby#22011), so what was loaded is known by its id, as the release has it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sparknode import docker
from sparknode import manifest as manifests
from sparknode.chronicle import Tell
from sparknode.errors import Failed
from sparknode.manifest import Manifest
from sparknode.release import Release
from sparknode.serving import read_stamp
from sparknode.shape import Node
from sparknode.system import Host

REPO, FILE = "sparkfleet/image", "image.tar"
_DOCKER_S = 3600.0


def commit(release: Release) -> str:
    """The folder of a saved image, in the shape of a commit."""
    return release.image.digest.removeprefix("sha256:")[:40]


def save(host: Host, release: Release) -> tuple[Manifest, Path]:
    """Save the release's image, which is here, into the incoming folder; its manifest and the folder."""
    name = commit(release)
    stamp = read_stamp(host.paths, REPO, name)
    if stamp:
        return manifests.from_node(Node(stamp, "saved image")), host.paths.model_dir(REPO, name)
    folder = host.paths.incoming_dir(REPO, name)
    folder.mkdir(parents=True, exist_ok=True)
    done = host.system.run(["docker", "save", "--output", str(folder / FILE), release.image.reference], _DOCKER_S)
    if not done.ok:
        raise Failed(f"image {release.image.reference} can't be saved: {done.why}; set image_distribution to pull")
    digest, size = hashlib.sha256(), 0
    with (folder / FILE).open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
            size += len(chunk)
    row: dict[str, Any] = {"path": FILE, "size": size, "sha256": digest.hexdigest(), "git_blob_sha1": None}
    document = {"repo": REPO, "commit": name, "files": [row]}
    return manifests.from_node(Node(json.loads(json.dumps(document)), "saved image")), folder


def load(host: Host, release: Release, origin: str, tell: Tell) -> bool:
    """Load the release's image where its file came; False when none did. The file goes, whatever it held."""
    path = host.paths.incoming_dir(REPO, commit(release)) / FILE
    if not path.is_file():
        return False
    tell(f"image {release.image.reference}: loading {path.stat().st_size / 1e9:.2f} GB that came from {origin}")
    done = host.system.run(["docker", "load", "--quiet", "--input", str(path)], _DOCKER_S)
    path.unlink()
    found = docker.image(host.system, release.image.reference)
    if done.ok and docker.is_image_of(host.system, release, found):
        return True
    tell(f"  it is not the pinned image ({found.text('Id') or done.why}); pulling it instead")
    return False
