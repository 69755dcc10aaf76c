"""How a run ended, as one number for whoever scripted it. Pure; docs/operating.md has the same table.

The numbers from 10 on that `sparknode activate` has too mean the same there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparkfleet.preflight.seen import Seen
    from sparkfleet.release.rules import Finding
    from sparkfleet.rollout.fleet_run import FleetRun

REFUSED = 2
UNREACHABLE = 3
REVERTED = 10
HALTED_OLD = 11
HALTED_MIXED = 12
HOST_DOWN = 20
LEASE_HELD = 31
INTERRUPTED = 130

MEANINGS = {
    0: "every host of the run ended as requested, or there was nothing to do",
    1: "an error in pyinfra or in the tool itself; the message names it",
    REFUSED: "refused before any change: an impossible combination, an unfit host, too few hosts to serve, no consent",
    UNREACHABLE: "some hosts could not be reached or did not answer; nothing was changed",
    REVERTED: "hosts tried the release and rolled back: every host serves the release that it served before",
    HALTED_OLD: "stopped before any host changed its release (staging, a hook, a lease); or a single task failed",
    HALTED_MIXED: "stopped on the way, or hosts were left out: some serve the new release, others the one before",
    HOST_DOWN: "a host serves no verified release, or stopped answering",
    LEASE_HELD: "another rollout is working on a host; no engine was changed",
    INTERRUPTED: "interrupted; a host that was updating finishes or rolls back on its own",
}


def code_of(run: FleetRun, connected: Collection[str], failed: Collection[str]) -> int | None:
    """Return the code that a run ends with, or None where pyinfra's own says it all."""
    progress = run.progress
    if progress.interrupted:
        return INTERRUPTED
    missing = not set(run.hosts) <= set(connected)
    if not progress.begun:
        return _of_a_task(run, missing, failed)
    now = {**progress.outcomes, **{name: back for name, back in progress.taken_back.items() if not back.ok}}
    if any(outcome.state in ("failed", "no answer") for outcome in now.values()):
        return HOST_DOWN
    new = [name for name, outcome in progress.outcomes.items() if outcome.ok and name not in progress.taken_back]
    if not progress.stopped and len(new) == sum(map(len, run.waves)):
        return HALTED_MIXED if missing else None
    if new:
        return HALTED_MIXED
    if progress.lease_held:
        return LEASE_HELD
    tried = progress.taken_back or any(outcome.state == "reverted" for outcome in now.values())
    return REVERTED if tried else HALTED_OLD


def _of_a_task(run: FleetRun, missing: bool, failed: Collection[str]) -> int | None:
    """Return the code of a run in which no rollout began."""
    retired = set(run.progress.retired.values())
    if "down" in retired:
        return HOST_DOWN
    if "done" in retired and (failed or missing or retired != {"done"}):
        return HALTED_MIXED
    if missing:
        return UNREACHABLE
    return HALTED_OLD if failed else None


def of_findings(found: Mapping[str, Sequence[Finding]]) -> int | None:
    """Return the code of a fleet with unfit hosts, or None if all are fit. If another rollout works on each of them,
    that is no fault.
    """
    failed = [one.id for findings in found.values() for one in findings if one.severity == "fail"]
    if not failed:
        return None
    return LEASE_HELD if set(failed) == {"host.busy"} else REFUSED


def of_a_look(nodes: Mapping[str, Seen], code: int = 0) -> int:
    """Return the code of a task that only looks: what it could not see is no success."""
    return UNREACHABLE if any(not node.facts for node in nodes.values()) else code
