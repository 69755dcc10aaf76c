"""How a node stands, in one document: what the program writes on the node, and what the controller reads.

Times are UTC in ISO 8601.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparknode.base.shape import Node
from sparknode.state.described import Described
from sparknode.state.journal import COMMITTED

ACTIVE = "active"
BAD = "bad"


@dataclass(frozen=True)
class Serving:
    """What runs here, and how that and what a start would bring differ from the current release."""

    # The current release, where it is what runs.
    release: str | None = None
    # What systemd calls the serving unit's state.
    unit: str = "unknown"
    container_started_at: str | None = None
    image_id: str | None = None
    drift: tuple[str, ...] = ()
    # Of these, what takes another start of the engine; None where an older program does not write it.
    restarts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class UnderWay:
    """The activation that has not ended; not `alive` where nobody works on it until its unit is started again."""

    release: str = ""
    state: str = ""
    since: str | None = None
    rollout: str | None = None
    operator: str | None = None
    alive: bool = False


@dataclass(frozen=True)
class Phase:
    """When a state of the journal was entered."""

    state: str
    t: str | None = None


@dataclass(frozen=True)
class Ended:
    """How one activation ended."""

    t: str | None = None
    release: str | None = None
    state: str = ""
    # The release that served before.
    before: str | None = field(default=None, metadata={"key": "from"})
    rollout: str | None = None
    operator: str | None = None
    # None for a deploy.
    intent: str | None = None
    error: str | None = None
    seconds: float | None = None
    load_s: float | None = None
    # By gate, as the journal holds them. Of the last activation alone, as the phases are.
    figures: dict[str, Any] | None = None
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True)
class Proof:
    """The figures that a release's gates had here when it was last proven."""

    release: str | None = None
    load_s: float | None = None
    figures: dict[str, Any] | None = None


@dataclass(frozen=True)
class Lease:
    """Which rollout works on this host, and until when."""

    rollout: str = ""
    operator: str | None = None
    # The address that the operator comes from.
    source: str | None = field(default=None, metadata={"key": "from"})
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True)
class Failure:
    """Which gate a release failed here, and when."""

    gate: str | None = None
    error: str | None = None
    t: str | None = None


@dataclass(frozen=True)
class Look:
    """What the watchdog saw last; figures are None where it could not measure them."""

    verdict: str = ""
    release: str | None = None
    findings: dict[str, Any] | None = None
    acceptance: float | None = None
    tokens_per_second: float | None = None
    # A share of the KV cache.
    kv_use: float | None = None

    @property
    def complains(self) -> bool:
        return self.verdict == BAD


@dataclass(frozen=True)
class Readiness:
    """Where this host answers whether requests may come, for a balancer in front of it."""

    port: int
    # The address of this host in that network alone; null for all of them.
    network: str | None = None
    # Seconds within which a balancer notices another answer.
    notice_s: float = 5.0


@dataclass(frozen=True)
class StagedModel:
    repo: str
    commit: str


_OBJECTS = {"release", "back", "figures", "findings"}


def _told(value: Any) -> Any:
    """The same without texts that are empty: what is not told must not make the rest unreadable.

    What is an object to this schema stays whole: an empty value of a release is a setting.
    """
    if isinstance(value, dict):
        return {key: item if key in _OBJECTS else _told(item) for key, item in value.items() if item != ""}
    return [_told(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class NodeStatus:
    """All of it. A host that was never deployed to has none of this."""

    # The ids of the releases that are staged.
    releases: tuple[str, ...] = ()
    # The release that the serving unit starts.
    current: str | None = None
    # The release that a rollback of the host leads to.
    previous: str | None = None
    # The release that passed every gate last.
    verified: str | None = None
    # What runs; null where no unit was ever installed.
    serving: Serving | None = None
    # The activation that has not ended, if there is one.
    activation: UnderWay | None = None
    # The newest activation that ended.
    last: Ended | None = None
    # The figures of the verified release.
    proof: Proof | None = None
    # The rollout that holds the host, if one does.
    lease: Lease | None = None
    # By release: what it failed here, unless it was verified since.
    failed_releases: dict[str, Failure] | None = None
    # What the watchdog saw last, unless an activation has ended since.
    watch: Look | None = None
    # Whether requests are kept from this host.
    out_of_rotation: bool = False
    # Whether the weights are hashed once a week.
    verify_timer: bool = False
    # Where it answers whether requests may come; null where that is off, or its program does not run.
    readiness: Readiness | None = None
    # The last 20 activations that ended, the newest last.
    history: tuple[Ended, ...] = ()
    # The current release: image, model, profile, arguments, gates and limits.
    release: Described | None = None
    # The previous release, in the same form.
    back: Described | None = None
    # The models that are verified here and complete; null where they were not looked up.
    models: tuple[StagedModel, ...] | None = None
    # The images of releases that Docker has here.
    images: tuple[str, ...] = ()

    @classmethod
    def read(cls, document: Mapping[str, Any] | None) -> NodeStatus:
        """Read what a node wrote; raises Refused where a key holds something else than it should."""
        return Node(_told({} if document is None else document), "status").build(cls)

    @property
    def serves(self) -> bool:
        """Is the server up?"""
        return self.serving is not None and self.serving.unit == ACTIVE

    @property
    def healthy(self) -> bool:
        """Does it serve the release that it was proven with, and has the watchdog no complaint?"""
        complaint = self.watch is not None and self.watch.complains
        return self.serves and not self.drift and not complaint and self.current == self.verified

    @property
    def drift(self) -> tuple[str, ...]:
        return self.serving.drift if self.serving else ()

    @property
    def present(self) -> set[tuple[str, str]]:
        """The models here, by repository and commit."""
        return {(model.repo, model.commit) for model in self.models or ()}

    @property
    def figures(self) -> Mapping[str, Any]:
        """The figures of the verified release's proof."""
        return (self.proof.figures if self.proof else None) or {}

    def runs(self, release: str) -> bool:
        """Does it run this release, verified, and exactly as that says?"""
        return (
            self.current == self.verified == release
            and self.serving is not None
            and self.serving.release == release
            and not self.drift
            and self.activation is None
        )

    def failure(self, release: str) -> Failure | None:
        """How this release failed here, unless it was verified since."""
        return (self.failed_releases or {}).get(release)

    @property
    def committed(self) -> list[Ended]:
        return [one for one in self.history if one.state == COMMITTED]
