"""A release as the node reads it: checked, immutable, and named by the hash of its own content."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from sparknode import SCHEMAS
from sparknode.errors import Refused
from sparknode.files import read_text
from sparknode.paths import RELEASE_ID, Paths
from sparknode.shape import Node, canonical, parse

ENGINES = ("vllm",)
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Image:
    repository: str
    digest: str
    image_ids: tuple[str, ...]
    architecture: str
    reference: str


@dataclass(frozen=True)
class Artefact:
    role: str
    repo: str
    commit: str
    host_path: str
    manifest_sha256: str


@dataclass(frozen=True, order=True)
class Mount:
    target: str
    source: str
    read_only: bool

    def __str__(self) -> str:
        return f"{self.source} on {self.target} ({'read-only' if self.read_only else 'read-write'})"


@dataclass(frozen=True)
class Container:
    name: str
    entrypoint: str
    args: tuple[str, ...]
    env: dict[str, str]
    mounts: tuple[Mount, ...]


@dataclass(frozen=True)
class Serve:
    port: int
    served_names: tuple[str, ...]
    max_model_len: int
    model_root: str
    drafter_backend: str | None
    prefix_caching: bool
    speculative: bool


@dataclass(frozen=True)
class Timing:
    drain_s: float
    unit_stop_s: float
    memory_wait_s: float
    load_deadline_s: float
    request_timeout_s: float
    soak_s: float
    soak_interval_s: float


@dataclass(frozen=True)
class Floors:
    """What one acceptance gate asks and the least it takes; a floor of None only measures."""

    max_tokens: int
    prompt_tokens: int
    acceptance_rate: float | None
    mean_acceptance_length: float | None


@dataclass(frozen=True)
class Release:
    """Everything that runs on this host, and how it is proven."""

    raw: dict[str, Any]
    id: str
    image_tag: str
    model: str
    profile: str
    engine_version: str | None
    image: Image
    artefacts: tuple[Artefact, ...]
    container: Container
    serve: Serve
    utilization: float | None
    timing: Timing
    short: Floors
    long: Floors | None
    api_key_file: str | None
    unit: str


def content_id(raw: dict[str, Any]) -> str:
    """The id that a release's content has."""
    content = {key: value for key, value in raw.items() if key != "id"}
    return hashlib.sha256(canonical(content)).hexdigest()[:16]


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
    memory = node.optional_node("memory")
    gates = node.node("gates")
    return Release(
        raw=node.raw,
        id=wanted,
        image_tag=node.text("image_tag"),
        model=node.text("model"),
        profile=node.text("profile"),
        engine_version=engine.optional_text("version"),
        image=_image(node.node("image")),
        artefacts=tuple(_artefact(item) for item in node.nodes("artefacts")),
        container=_container(node.node("container")),
        serve=_serve(node.node("serve")),
        utilization=memory.optional_number("utilization") if memory else None,
        timing=_timing(node.node("timing")),
        short=_floors(gates.node("short"), prompted=False),
        long=_floors(long, prompted=True) if (long := gates.optional_node("long")) else None,
        api_key_file=node.optional_text("api_key_file"),
        unit=node.text("unit"),
    )


def _image(node: Node) -> Image:
    return Image(
        repository=node.text("repository"),
        digest=node.text("digest"),
        image_ids=node.texts("image_ids"),
        architecture=node.text("architecture"),
        reference=node.text("reference"),
    )


def _artefact(node: Node) -> Artefact:
    repo, commit = checked_repo(node)
    return Artefact(
        role=node.text("role"),
        repo=repo,
        commit=commit,
        host_path=node.text("host_path"),
        manifest_sha256=node.text("manifest_sha256"),
    )


def _container(node: Node) -> Container:
    return Container(
        name=node.text("name"),
        entrypoint=node.text("entrypoint"),
        args=node.texts("args"),
        env=node.mapping("env"),
        mounts=tuple(
            Mount(mount.text("target"), mount.text("source"), mount.flag("read_only")) for mount in node.nodes("mounts")
        ),
    )


def _serve(node: Node) -> Serve:
    names = node.texts("served_names")
    if not names:
        raise Refused(f"{node.where}.served_names: found an empty list, expected at least one name")
    return Serve(
        port=node.whole("port", 1),
        served_names=names,
        max_model_len=node.whole("max_model_len", 1),
        model_root=node.text("model_root"),
        drafter_backend=node.optional_text("drafter_backend"),
        prefix_caching=node.flag("prefix_caching"),
        speculative=node.flag("speculative"),
    )


def _timing(node: Node) -> Timing:
    return Timing(
        drain_s=node.number("drain_s"),
        unit_stop_s=node.number("unit_stop_s"),
        memory_wait_s=node.number("memory_wait_s"),
        load_deadline_s=node.number("load_deadline_s"),
        request_timeout_s=node.number("request_timeout_s", 0.001),
        soak_s=node.number("soak_s"),
        soak_interval_s=node.number("soak_interval_s"),
    )


def _floors(node: Node, *, prompted: bool) -> Floors:
    return Floors(
        max_tokens=node.whole("max_tokens", 1),
        prompt_tokens=node.whole("prompt_tokens", 1) if prompted else 0,
        acceptance_rate=node.optional_number("min_acceptance_rate"),
        mean_acceptance_length=node.optional_number("min_mean_acceptance_length"),
    )


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
