"""What the controller has a node do with models, and what it hears of it: schemas that both sides read and write.

Rates are bytes a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sparknode import SCHEMAS
from sparknode.models.manifest import Manifest
from sparknode.state.status import StagedModel


@dataclass(frozen=True)
class FetchRequest:
    """What `sparknode fetch` reads on standard input, since it may hold a token."""

    manifest: Manifest
    reserve_bytes: float = 0.0
    # The Hub's address; None for its own.
    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    limit_bytes_s: float | None = None
    # Silence of the Hub for so long ends the download.
    patience_s: float = 300.0
    # The download tool's packages with their hashes, and where they come from; not with a Python that has them.
    requirements: str | None = None
    tool_index: str | None = None
    python: str | None = None
    schema: int = SCHEMAS["fetch"]


@dataclass(frozen=True)
class SpreadOrder:
    """What one host does in a spread: `role` is give or take, a rate of 0 has no limit. With a torrent it is a swarm,
    else rsync from the first peer.
    """

    role: str
    torrent: str | None
    address: str
    peers: tuple[str, ...]
    port: int
    limit_bytes_s: float
    stall_s: float
    deadline_s: float
    reserve_bytes: float


@dataclass(frozen=True)
class SpreadRequest:
    """What `sparknode sync share` reads on standard input."""

    manifest: Manifest
    order: SpreadOrder
    schema: int = SCHEMAS["spread"]


@dataclass(frozen=True)
class Progress:
    """How far a long piece of work is, in bytes and bytes a second."""

    phase: str = ""
    done: float = 0.0
    total: float = 0.0
    rate: float = 0.0


@dataclass(frozen=True)
class SpreadReport:
    """What `sparknode sync look` prints: how far this host is, what it has, and where it can be reached."""

    progress: Progress | None = None
    models: tuple[StagedModel, ...] = ()
    # IPv4.
    addresses: tuple[str, ...] = ()
    # Of `swarm` and `rsync`, what this host can do.
    tools: tuple[str, ...] = ()
