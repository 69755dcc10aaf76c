"""Releases as the node reads them: each key checked, refused with what stands there, and found by its id."""

from __future__ import annotations

import re

from sparknode import SCHEMAS
from sparknode.base.document import content_id
from sparknode.base.files import read_text
from sparknode.base.paths import RELEASE_ID, Paths
from sparknode.base.shape import Node, parse
from sparknode.errors import Refused
from sparknode.state.release import Artefact, Container, Hook, Image, Release, Rotation

ENGINES = ("vllm",)
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_URL = re.compile(r"https?://[A-Za-z0-9.-]+(?::(\d{1,5}))?(?:/[!-~]*)?")


def checked_repo(node: Node) -> tuple[str, str]:
    """`repo` and `commit` of a node; both become folders, so nothing that climbs out of one is taken."""
    repo, commit = node.text("repo"), node.text("commit")
    if not _REPO.fullmatch(repo) or ".." in repo:
        raise Refused(f"{node.where}.repo: found {repo!r}, expected ORG/NAME")
    if not _COMMIT.fullmatch(commit):
        raise Refused(f"{node.where}.commit: found {commit!r}, expected 40 hex digits; pin the commit, not a branch")
    return repo, commit


def from_node(node: Node) -> Release:
    """Read and check a whole release."""
    node.schema(SCHEMAS["release"])
    wanted = content_id(node.raw)
    if node.text("id") != wanted:
        raise Refused(
            f"{node.where}.id: found {node.text('id')}, but its content hashes to {wanted}; the document was altered "
            "after it was made: make the release again and stage it again"
        )
    engine = node.node("engine")
    if engine.text("kind") not in ENGINES:
        raise Refused(f"{engine.where}.kind: found {engine.text('kind')!r}, expected one of {', '.join(ENGINES)}")
    image, rotation = node.node("image"), node.optional_node("rotation")
    release = node.build(
        Release,
        image=image.build(Image, digest=image.text("digest")),
        artefacts=tuple(_artefact(item) for item in node.nodes("artefacts")),
        container=node.node("container").build(Container, options=_options(node)),
        rotation=rotation_of(rotation) if rotation else None,
    )
    if not release.serve.served_names:
        raise Refused(f"{node.where}.serve.served_names: found an empty list, expected at least one name")
    return release


def _artefact(node: Node) -> Artefact:
    repo, commit = checked_repo(node)
    return node.build(Artefact, repo=repo, commit=commit, manifest_sha256=node.text("manifest_sha256"))


def _options(node: Node) -> tuple[str, ...]:
    """Docker's options; a release of version 0.1 has its whole command line instead, which holds them."""
    for one, key in ((node.node("container"), "options"), (node, "argv")):
        if one.raw.get(key) is not None:
            return one.texts(key)
    return ()


def rotation_of(node: Node) -> Rotation:
    return node.build(Rotation, out=_hook(node.node("out")), into=_hook(node.node("in")))


def _hook(node: Node) -> Hook:
    hook = node.build(Hook)
    if hook.http is None:
        if not node.texts("command"):
            raise Refused(f"{node.where}.command: found an empty list, expected a program and its arguments")
        return hook
    matched = _URL.fullmatch(hook.http.url)
    if not matched or int(matched[1] or 1) > 65535:
        raise Refused(f"{node.where}.http.url: found {hook.http.url!r}, expected http://HOST[:PORT]/PATH or https://…")
    return hook


def load(paths: Paths, release_id: str) -> Release:
    """A staged release by its id."""
    if not RELEASE_ID.fullmatch(release_id):
        raise Refused(f"release {release_id!r}: expected 16 hex digits; `sparknode status` lists what is staged")
    path = paths.release_dir(release_id) / "release.json"
    text = read_text(path)
    if text is None:
        here = ", ".join(paths.staged()) or "none"
        raise Refused(f"release {release_id} is not staged on this host (staged: {here}); stage it first")
    release = from_node(parse(text, str(path)))
    if release.id != release_id:
        raise Refused(f"{path}: holds release {release.id}; delete this folder and stage {release_id} again")
    return release


def load_linked(paths: Paths, name: str) -> Release | None:
    """The release that `current` or `verified` names, or None when there is none that can be read."""
    release_id = paths.linked(name)
    if release_id is None:
        return None
    try:
        return load(paths, release_id)
    except Refused:
        return None
