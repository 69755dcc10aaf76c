"""Where Docker keeps its images: under its own root with a graph driver, or under containerd's with that one's store.

With containerd's, which is the default of what is installed anew from Docker 29 on, an image takes room both as it came
and unpacked. Either store hides the other's images and leaves them on the disk (docs.docker.com, «containerd image
store with Docker Engine»).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparknode.base import dockerd
from sparknode.base.parse import docker_info, json_object, json_rows
from sparknode.base.paths import Paths
from sparknode.base.process import Completed
from sparknode.base.system import System
from sparknode.state.releases import load_linked

GRAPHDRIVER, CONTAINERD = "graphdriver", "containerd"
DOCKER_ROOT, CONTAINERD_ROOT = "/var/lib/docker", "/var/lib/containerd"
# Only this line: further down the configuration may hold credentials of registries.
ROOT_ARGV = ("sh", "-c", r"containerd config dump | sed -n '/^\[/q;/^root *=/p'")
# Where containerd keeps what it was given, below its root; each file has the name of its digest.
BLOBS = "io.containerd.content.v1.content/blobs"
ASK_S = 20.0


@dataclass(frozen=True)
class Store:
    """The store in use, and the roots of both: each may still have images of the other's time."""

    kind: str
    docker_root: str
    containerd_root: str
    # Whether that is known, or only what containerd comes with.
    told: bool = True

    @property
    def folder(self) -> str:
        return self.containerd_root if self.kind == CONTAINERD else self.docker_root


def read(info: Mapping[str, Any], dump: str) -> Store:
    """What Docker (`docker_info`) and containerd (ROOT_ARGV) say; what they do not say is as both come."""
    root = str(info.get("root_dir") or DOCKER_ROOT)
    # A containerd that dockerd starts for itself keeps everything below Docker's root (moby, libcontainerd).
    own = "/docker/containerd/" in str(info.get("containerd_address") or "")
    named = re.search(r"""^root\s*=\s*(["'])(/[^"'\n]*)\1\s*$""", dump, re.MULTILINE)
    containerd = f"{root}/containerd/daemon" if own else named[2] if named else CONTAINERD_ROOT
    return Store(str(info.get("image_store") or GRAPHDRIVER), root, containerd, own or named is not None)


def in_use(system: System) -> Store:
    """The store of this host."""
    info = docker_info(system.run(dockerd.question("/info"), ASK_S).stdout)
    return read(info, system.run(ROOT_ARGV, ASK_S).stdout)


def lost(paths: Paths, store: Store, images: Completed) -> list[dict[str, Any]]:
    """The releases that this host serves or goes back to whose images are gone, and whether the other store has them.

    The second is a look at names alone: whether all of it is there is seen when it is taken from there.
    """
    if not images.ok:
        return []
    names = {name for row in json_rows(images.stdout) for name in row.get("RepoTags") or []}
    linked = {one.id: one for link in ("current", "verified", "previous") if (one := load_linked(paths, link))}
    found = []
    for release in linked.values():
        if release.image.reference not in names:
            blobs = f"{store.containerd_root}/{BLOBS}"
            other = f"{store.docker_root}/image/overlay2/imagedb/content" if store.kind == CONTAINERD else blobs
            digests = (release.image.pinned, *release.image.image_ids)
            elsewhere = any((paths.on_host(other) / digest.replace(":", "/")).is_file() for digest in digests)
            found.append({"release": release.id, "elsewhere": elsewhere})
    return found


def config_of(system: System, image_id: str, architecture: str) -> str | None:
    """The digest of an image's configuration, which is the same in both stores; None where that can't be told.

    An image that was loaded from a file has an id of its own in containerd's store, and no digest of a registry.
    """
    store = in_use(system)
    if store.kind != CONTAINERD:
        return None
    found = _blob(system, store, image_id)
    for row in found.get("manifests") or []:
        if (row.get("platform") or {}).get("architecture") == architecture:
            found = _blob(system, store, str(row.get("digest")))
            break
    config = found.get("config")
    return str(config.get("digest")) if isinstance(config, dict) else None


def configuration(system: System, image_id: str, architecture: str) -> dict[str, Any]:
    """An image's configuration as containerd's store holds it; empty where that can't be told."""
    digest = config_of(system, image_id, architecture)
    return _blob(system, in_use(system), digest) if digest else {}


def _blob(system: System, store: Store, digest: str) -> dict[str, Any]:
    """The JSON object of this digest in containerd's store; empty where there is none that hashes to it."""
    named = re.fullmatch(r"sha256:([0-9a-f]{64})", digest)
    if named is None:
        return {}
    text = system.run(["cat", f"{store.containerd_root}/{BLOBS}/sha256/{named[1]}"], ASK_S).stdout
    return json_object(text) if hashlib.sha256(text.encode()).hexdigest() == named[1] else {}
