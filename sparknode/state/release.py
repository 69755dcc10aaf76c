"""A release: the one document that crosses the border, immutable and named by the hash of its own content.

The controller builds it, and a node refuses what differs from this. Sizes and lengths are tokens unless a key names a
unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sparknode.base.document import content_id
from sparknode.base.shape import ABSENT
from sparknode.errors import Refused

# The commit of a repository that no lock names.
UNLOCKED = "unlocked"


@dataclass(frozen=True)
class HostKind:
    """What the release was made for."""

    # A row of catalog/hardware.yaml.
    hardware: str


@dataclass(frozen=True)
class Engine:
    """The serving engine in the image."""

    # `vllm`; no host takes another.
    kind: str
    # What `/version` must answer; null where the image's version is not known.
    version: str | None
    # The engine's HTTP paths and the names of its metrics.
    api: dict[str, Any] | None


@dataclass(frozen=True)
class Image:
    """What the container is started from."""

    # Where it was published, without a tag.
    repository: str
    # As Docker names it, such as arm64.
    architecture: str
    # Null where the release is not locked; no host takes one like that.
    digest: str | None
    # The ids that Docker may show for it, by image store.
    image_ids: tuple[str, ...]
    # The local tag that the container is started from.
    reference: str

    @property
    def pinned(self) -> str:
        """The digest, which no release on a host is without."""
        return _locked(self.digest, f"image {self.reference}")


@dataclass(frozen=True)
class Artefact:
    """One model's files, as its repository has them at a commit."""

    # `target`, or `drafter`.
    role: str
    repo: str
    # 40 hex digits; `unlocked` or a name where the release is not locked, and no host takes that.
    commit: str
    # Where the files are on the host.
    host_path: str
    # Where the engine finds them.
    container_path: str
    # Of the list of files with sizes and hashes; null where the release is not locked.
    manifest_sha256: str | None

    @property
    def pinned(self) -> str:
        """The manifest's hash, which no release on a host is without."""
        return _locked(self.manifest_sha256, f"{self.repo} at {self.commit}")


def _locked(value: str | None, what: str) -> str:
    if value is None:
        raise Refused(f"{what} is not locked; run `python -m sparkfleet lock`, and stage the release that it makes")
    return value


@dataclass(frozen=True)
class Mount:
    # A folder of the host.
    source: str
    # The same in the container.
    target: str
    read_only: bool

    def __str__(self) -> str:
        return f"{self.source} on {self.target} ({'read-only' if self.read_only else 'read-write'})"


@dataclass(frozen=True)
class Container:
    """What `docker run` is given; the serving unit has the same as one command line."""

    name: str
    entrypoint: str
    # The arguments of the entrypoint.
    args: tuple[str, ...]
    env: dict[str, str]
    mounts: tuple[Mount, ...]
    # Docker's words that give it the GPU.
    gpu: tuple[str, ...]
    # Docker's words that the engine needs besides.
    options: tuple[str, ...]


@dataclass(frozen=True)
class Serve:
    """How clients and gates see the engine."""

    port: int
    # The names that clients ask for.
    served_names: tuple[str, ...]
    # The context, in tokens.
    max_model_len: int
    # The folder that `/v1/models` must name.
    model_root: str
    # The drafter's attention backend; null without a drafter that has one.
    drafter_backend: str | None
    prefix_caching: bool
    # Whether it drafts tokens.
    speculative: bool


@dataclass(frozen=True)
class Memory:
    """What the memory gate waits for before a start."""

    # The engine's share of the machine's memory, from 0 to 1; null where none is set.
    utilization: float | None


@dataclass(frozen=True)
class Timing:
    """Deadlines and pauses, in seconds."""

    # The longest wait for requests that are being answered, before a stop.
    drain_s: float
    # What the engine itself has for them, once it is told to stop.
    shutdown_timeout_s: float
    # What `docker stop` waits before it kills.
    docker_stop_s: float
    # What systemd waits before it kills.
    unit_stop_s: float
    # The longest wait for enough free memory.
    memory_wait_s: float
    # The longest load of the engine.
    load_deadline_s: float
    # A load is late sooner, after so many times the slowest that this host knows; null for no such limit.
    history_factor: float | None
    # The longest answer to one request of a gate.
    request_timeout_s: float
    # How long the gates are repeated before the release counts as verified.
    soak_s: float
    # The pause between two rounds of them.
    soak_interval_s: float


@dataclass(frozen=True)
class Floors:
    """What the gates over short prompts ask, and the least they take; a floor of null only measures."""

    # The share of drafted tokens that are accepted, from 0 to 1.
    min_acceptance_rate: float | None
    # Tokens a step.
    min_mean_acceptance_length: float | None
    # The longest answer, in tokens.
    max_tokens: int
    # The prompt's length; null where the prompts are fixed.
    prompt_tokens: int | None


@dataclass(frozen=True)
class LongFloors(Floors):
    """The same over one long prompt."""

    # The prompt's length.
    prompt_tokens: int


@dataclass(frozen=True)
class Throughput:
    """Floors of one stream over short prompts."""

    min_tokens_per_second: float | None = None
    # The longest wait for the first token, in seconds.
    max_ttft_s: float | None = None


@dataclass(frozen=True)
class AfterLoad:
    """What the host must show beside the loaded engine."""

    # Of the machine's memory (MemAvailable).
    min_available_gib: float | None = None
    # What the GPU draws while it works, in watts.
    min_power_w: float | None = None
    # A GPU that is busy below this clock and that power is wedged.
    min_clock_mhz: float | None = None


@dataclass(frozen=True)
class Burst:
    """So many requests at once within the soak, and the least acceptance that is no collapse."""

    requests: int
    # The longest answer, in tokens.
    max_tokens: int
    # The share of drafted tokens that are accepted, from 0 to 1.
    min_acceptance_rate: float | None


@dataclass(frozen=True)
class Gates:
    """What is asked of the engine before it counts as proven ([activation.md](activation.md) has each gate)."""

    # Three fixed prompts; the longest answer of most other gates is theirs.
    short: Floors
    # One long prompt; null where it is not asked, as everywhere below.
    long: LongFloors | None
    # One very long prompt.
    very_long: LongFloors | None
    # Speed and first token.
    throughput: Throughput | None
    # The host beside the engine.
    after_load: AfterLoad | None
    # A chat as a stream of events.
    streaming: bool = False
    # Thinking in a field of its own.
    reasoning: bool = False
    # A call of a tool.
    tool_call: bool = False
    # A picture.
    image: bool = False
    # The GPU, seen from within the container.
    gpu: bool = False
    # Several requests at once.
    burst: Burst | None = None
    # The engine's parser cannot force a call, so that none is forced.
    tool_call_unforced: bool = False
    # Texts that no answer may hold.
    control_tokens: tuple[str, ...] = ()

    @property
    def floors(self) -> Throughput:
        return self.throughput or Throughput()

    @property
    def limits(self) -> AfterLoad:
        return self.after_load or AfterLoad()


@dataclass(frozen=True)
class HttpCall:
    """What counts as done where the answer is 200 to 299."""

    method: str
    url: str
    # A file of the host with HTTP headers, a line each, for what identifies the caller; no key where there is none.
    header_file: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Hook:
    """A command or an HTTP call; the key of the other is absent."""

    # A program with its arguments.
    command: tuple[str, ...] | None = field(default=None, metadata=ABSENT)
    http: HttpCall | None = field(default=None, metadata=ABSENT)

    def __str__(self) -> str:
        if self.http is None:
            return " ".join(self.command or ())
        # A query may hold a secret, and this stands in the journal.
        address, query, _ = self.http.url.partition("?")
        return f"{self.http.method} {address}{query and '?…'}"


@dataclass(frozen=True)
class Rotation:
    """How this host leaves and enters the rotation of whatever sends it requests."""

    out: Hook
    # The way back in.
    into: Hook = field(metadata={"key": "in"})
    # What one call may take, in seconds.
    timeout_s: float


@dataclass(frozen=True)
class WatchRules:
    """What the watchdog asks of the running engine, and how often it may restart it."""

    # Where this is false, nothing is watched.
    enabled: bool
    # Whether a restart is known to cure a drafter whose acceptance collapsed.
    restart_on_collapse: bool
    # The share of drafted tokens below which a drafter has collapsed, from 0 to 1.
    min_acceptance_rate: float | None
    # The acceptance is measured over at least so many drafts.
    window_drafts: int
    # An engine with requests that does nothing so long is stalled, if its GPU draws less than `wedged_power_w`.
    stalled_s: float
    # After so many times `stalled_s` it is stalled, whatever its GPU draws.
    slow_factor: float
    # What must be left of the machine's memory (MemAvailable).
    min_available_gib: float
    # The largest share of 10 s in which everything waited for memory (PSI), in percent.
    max_stall_percent: float
    # A restart is forgotten after so many seconds without a reason for another.
    forget_s: float
    # Of the engine, until they are forgotten.
    max_restarts: float
    # What the GPU draws at least while it works, in watts; 0 where that is not known.
    wedged_power_w: float


@dataclass(frozen=True)
class Release:
    """Everything that runs on a host, and how it is proven."""

    # The version of this format.
    schema: int
    # The kind of machine that it was made for.
    host_kind: HostKind
    # A row of catalog/models.yaml.
    model: str
    # A row of catalog/profiles.yaml.
    profile: str
    # A row of catalog/images.yaml.
    image_tag: str
    # The known line that an unknown tag was declared to behave like.
    image_line: str | None
    # The arguments that the inventory changed, with their values.
    overrides: dict[str, Any] | None
    # The engine's kind and version.
    engine: Engine
    # The image by digest.
    image: Image
    # The weights by commit: the target's, then its drafter's.
    artefacts: tuple[Artefact, ...]
    # What is started.
    container: Container
    # Port, names and context.
    serve: Serve
    # The engine's share of unified memory; null on a machine whose GPU has memory of its own.
    memory: Memory | None
    # Deadlines and pauses.
    timing: Timing
    # What the engine must show before it counts as proven.
    gates: Gates
    # How the host leaves and enters the rotation; null where nothing is called.
    rotation: Rotation | None
    # What the watchdog asks.
    watch: WatchRules | None
    # A file of the host with the API key, as an env file for Docker.
    api_key_file: str | None
    # The text of sparkfleet-serve.service.
    unit: str
    # 16 hex digits of the SHA-256 of everything else, as canonical JSON.
    id: str

    @property
    def load_key(self) -> str:
        """What the time to load depends on: the image and the weights."""
        return content_id({"image": self.image.pinned, "weights": [one.commit for one in self.artefacts]})

    @property
    def cdi(self) -> bool:
        """Does the container get its GPU from a CDI specification, and not from a hook of the runtime?"""
        return "--device" in self.container.gpu

    @property
    def utilization(self) -> float | None:
        return self.memory.utilization if self.memory else None

    @property
    def watched(self) -> WatchRules | None:
        """What the watchdog asks, where it is on."""
        return self.watch if self.watch and self.watch.enabled else None
