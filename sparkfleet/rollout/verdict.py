"""How a rollout stands, and what follows from it: go on, stop, or take hosts back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sparkfleet.inventory.pace import Pace
from sparknode.state.status import NodeStatus, UnderWay

if TYPE_CHECKING:
    from sparkfleet.rollout.compare import Row

Retired = Literal["done", "serves", "down"]
State = Literal["committed", "reverted", "failed", "refused", "no answer"]
# How a node writes that an activation ended.
_ENDS: tuple[State, ...] = ("committed", "reverted", "failed")


@dataclass(frozen=True)
class Outcome:
    """How an activation ended on a host."""

    state: State
    error: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    load_s: float | None = None

    @property
    def ok(self) -> bool:
        return self.state == "committed"

    def text(self) -> str:
        return f"{self.state}: {self.error}" if self.error else self.state


@dataclass(frozen=True)
class Verdict:
    """What follows from a wave: the reason to stop, if there is one, and who goes back to what it served before."""

    stop: str | None = None
    take_back: tuple[str, ...] = ()


@dataclass
class Progress:
    before: dict[str, NodeStatus] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    taken_back: dict[str, Outcome] = field(default_factory=dict)
    comparison: list[Row] = field(default_factory=list)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    begun: bool = False
    # Whether a lease was somebody else's.
    lease_held: bool = False
    # Why hosts that were to go back did not.
    stayed: str | None = None
    # How giving a host back ended: whether it is done, and where it is not, whether the host still serves.
    retired: dict[str, Retired] = field(default_factory=dict)
    stopped: str | None = None
    interrupted: bool = False

    def stop(self, reason: str) -> None:
        """No further wave starts; the first reason stays."""
        self.stopped = self.stopped or reason

    def previous(self, name: str) -> str | None:
        """Return the verified release that a host had before this run."""
        return self.before[name].verified if name in self.before else None

    def failures(self) -> list[str]:
        """Return the hosts that do not serve the new release although they tried."""
        return [name for name, outcome in self.outcomes.items() if not outcome.ok or name in self.taken_back]


def judge(progress: Progress, wave: Sequence[str], pace: Pace) -> Verdict:
    """Decide after a wave, from its outcomes and its comparison. A member without an outcome is no success."""
    if progress.stopped:
        return Verdict(progress.stopped)
    unknown = [name for name in wave if name not in progress.outcomes]
    if unknown:
        return Verdict(f"how it ended is not known: {', '.join(unknown)}", _back(progress, (), pace))
    worse = list(dict.fromkeys(row.host for row in progress.comparison if row.verdict == "worse" and row.host in wave))
    failed = progress.failures()
    reason = None
    if worse:
        rows = [row for row in progress.comparison if row.verdict == "worse" and row.host in wave]
        reason = "worse than the old release: " + "; ".join(_worse(row) for row in rows)
    elif len(failed) > pace.max_failures:
        texts = "; ".join(f"{name} {progress.outcomes[name].text()}" for name in failed)
        budget = f" (max_failures is {pace.max_failures})" if pace.max_failures else ""
        reason = f"{texts}{budget}"
    if reason is None:
        return Verdict()
    return Verdict(reason, _back(progress, worse, pace))


def _back(progress: Progress, worse: Sequence[str], pace: Pace) -> tuple[str, ...]:
    committed = [name for name, outcome in progress.outcomes.items() if outcome.ok]
    back = committed if pace.on_failure == "revert_all" else worse
    return tuple(name for name in back if progress.previous(name))


def _worse(row: Row) -> str:
    against = [
        f"{label} {value:g}" for label, value in (("before", row.before), ("others", row.control)) if value is not None
    ]
    return f"{row.host} {row.figure} {row.now:g}, {', '.join(against)}, {row.margin:.0%} allowed"


def outcome_of(node: NodeStatus, rollout: str, release: str) -> Outcome | None:
    """Return how this rollout's activation of the release ended, as the node's journal says; None while it has not."""
    last = node.last
    if node.activation or last is None or (last.rollout, last.release) != (rollout, release):
        return None
    for state in _ENDS:
        if last.state == state:
            return Outcome(state, last.error or "", last.figures or {}, last.load_s)
    return None


def under_way(node: NodeStatus, release: str) -> UnderWay | None:
    return node.activation if node.activation and node.activation.release == release else None
