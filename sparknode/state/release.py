"""A release as the node reads it: checked, immutable, and named by the hash of its own content."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sparknode import SCHEMAS
from sparknode.base.document import content_id
from sparknode.base.files import read_text
from sparknode.base.paths import RELEASE_ID, Paths
from sparknode.base.shape import Node, parse
from sparknode.errors import Refused

ENGINES = ("vllm",)
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_URL = re.compile(r"https?://[A-Za-z0-9.-]+(?::(\d{1,5}))?(?:/[!-~]*)?")


@dataclass(frozen=True)
class Image:
    repository: str
    digest: str
    image_ids: tuple[str, ...]
    architecture: str
    reference: str


@dataclass(frozen=True)
class Artefact:
    repo: str
    commit: str
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
    history_factor: float | None


@dataclass(frozen=True)
class Floors:
    """What one acceptance gate asks and the least it takes; a floor of None only measures."""

    max_tokens: int
    prompt_tokens: int
    min_acceptance_rate: float | None
    min_mean_acceptance_length: float | None


@dataclass(frozen=True)
class Burst:
    """So many requests at once within the soak, and the least acceptance that is no collapse."""

    requests: int
    max_tokens: int
    min_acceptance_rate: float | None


@dataclass(frozen=True)
class Gates:
    """What is asked of the engine before it counts as proven; what a release does not name is not asked."""

    short: Floors
    long: Floors | None
    very_long: Floors | None
    min_tokens_per_second: float | None
    max_ttft_s: float | None
    control_tokens: tuple[str, ...]
    min_available_gib: float | None
    min_power_w: float | None
    min_clock_mhz: float | None = None
    streaming: bool = False
    tool_call: bool = False
    tool_call_unforced: bool = False
    reasoning: bool = False
    image: bool = False
    gpu: bool = False
    burst: Burst | None = None


@dataclass(frozen=True)
class Hook:
    command: tuple[str, ...] = ()
    method: str = ""
    url: str = ""
    # On the host: HTTP headers, a line each, for what identifies the caller.
    header_file: str | None = None

    def __str__(self) -> str:
        # A query may hold a secret, and this stands in the journal.
        address, query, _ = self.url.partition("?")
        return " ".join(self.command) or f"{self.method} {address}{query and '?…'}"


@dataclass(frozen=True)
class Rotation:
    """How this host leaves and enters the rotation of whatever sends it requests."""

    raw: dict[str, Any]
    out: Hook
    into: Hook
    timeout_s: float


@dataclass(frozen=True)
class WatchRules:
    """What the watch asks of the running engine, and how often it may restart it."""

    min_acceptance_rate: float | None
    window_drafts: int
    stalled_s: float
    slow_factor: float
    wedged_power_w: float
    min_available_gib: float
    max_stall_percent: float
    forget_s: float
    max_restarts: float
    restart_on_collapse: bool = False


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
    gates: Gates
    rotation: Rotation | None
    watch: WatchRules | None
    api_key_file: str | None
    unit: str

    @property
    def load_key(self) -> str:
        """What the time to load depends on: the image and the weights."""
        return content_id({"image": self.image.digest, "weights": [one.commit for one in self.artefacts]})

    @property
    def cdi(self) -> bool:
        """Does the container get its GPU from a CDI specification, and not from a hook of the runtime?"""
        given = self.raw["container"].get("gpu")
        return isinstance(given, list) and "--device" in given


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
    rotation, watch = node.optional_node("rotation"), node.optional_node("watch")
    release = node.build(
        Release,
        raw=node.raw,
        id=wanted,
        engine_version=engine.optional_text("version"),
        artefacts=tuple(_artefact(item) for item in node.nodes("artefacts")),
        utilization=node.part("memory").optional_number("utilization"),
        gates=_gates(node.node("gates")),
        rotation=rotation_of(rotation) if rotation else None,
        watch=watch.build(WatchRules) if watch and watch.flag("enabled") else None,
    )
    if not release.serve.served_names:
        raise Refused(f"{node.where}.serve.served_names: found an empty list, expected at least one name")
    return release


def _artefact(node: Node) -> Artefact:
    repo, commit = checked_repo(node)
    return node.build(Artefact, repo=repo, commit=commit)


def _gates(node: Node) -> Gates:
    throughput, loaded = node.part("throughput"), node.part("after_load")
    return node.build(
        Gates,
        short=node.node("short").build(Floors, prompt_tokens=0),
        control_tokens=node.texts("control_tokens") if node.raw.get("control_tokens") else (),
        **{name: throughput.optional_number(name) for name in ("min_tokens_per_second", "max_ttft_s")},
        **{name: loaded.optional_number(name) for name in ("min_available_gib", "min_power_w", "min_clock_mhz")},
    )


def rotation_of(node: Node) -> Rotation:
    return node.build(Rotation, raw=node.raw, out=_hook(node.node("out")), into=_hook(node.node("in")))


def _hook(node: Node) -> Hook:
    http = node.optional_node("http")
    if http is None:
        command = node.texts("command")
        if not command:
            raise Refused(f"{node.where}.command: found an empty list, expected a program and its arguments")
        return Hook(command=command)
    url = http.text("url")
    matched = _URL.fullmatch(url)
    if not matched or int(matched[1] or 1) > 65535:
        raise Refused(f"{http.where}.url: found {url!r}, expected http://HOST[:PORT]/PATH or https://…")
    return Hook(method=http.text("method"), url=url, header_file=http.optional_text("header_file"))


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
