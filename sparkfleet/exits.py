"""How a run ended, as one number for whoever scripted it. Pure; docs/operating.md has the same table.

The numbers from 10 on that `sparknode activate` has too mean the same there.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparkfleet.fleet import FleetRun

REFUSED = 2
UNREACHABLE = 3
REVERTED = 10
HALTED_OLD = 11
HALTED_MIXED = 12
HOST_DOWN = 20
LEASE_HELD = 31
INTERRUPTED = 130

MEANINGS = {
    0: "every host of the run ended as asked, or there was nothing to do",
    1: "an error of pyinfra's or of the tool's own; its text says which",
    REFUSED: "refused before any change: a combination that cannot work, an unfit host, too few hosts to serve",
    UNREACHABLE: "some hosts could not be reached; nothing was changed",
    REVERTED: "hosts tried the release and went back: every host serves what it served before",
    HALTED_OLD: "halted before any host changed what it serves (staging, a hook, a lease); a lone task failed",
    HALTED_MIXED: "halted on the way, or hosts were left out: some serve the new release, others what they did before",
    HOST_DOWN: "a host serves nothing that is proven, or did not answer any more",
    LEASE_HELD: "another roll-out works on a host; nothing that serves was changed",
    INTERRUPTED: "interrupted; a host in the middle finishes or goes back by itself",
}


def code_of(run: FleetRun, connected: Collection[str], failed: Collection[str]) -> int | None:
    """Return the code that a run ends with, or None where pyinfra's own says it all."""
    progress = run.progress
    if progress.interrupted:
        return INTERRUPTED
    missing = not set(run.hosts) <= set(connected)
    if missing and not progress.begun:
        return UNREACHABLE
    if progress.refusals:
        return LEASE_HELD if all("host.busy" in reason for reason in progress.refusals) else REFUSED
    if not progress.begun:
        return HALTED_OLD if failed else None
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
