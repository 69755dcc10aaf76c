"""What an operator's session runs: it starts the worker in a unit of its own and reads the journal aloud.

It may die at any time, with the network or the laptop it belongs to: the worker does not notice. Called again, it
attaches to what is under way.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from sparknode.activate import rotation
from sparknode.activate import worker as worker
from sparknode.base import locks
from sparknode.base.paths import ACTIVATE_UNIT
from sparknode.base.system import Host, Tell
from sparknode.errors import Failed, KnownBad, Refused
from sparknode.host import units
from sparknode.host.drift import put_right, standing, unready
from sparknode.state import journal, lease, orders, releases
from sparknode.state.journal_writer import sentence
from sparknode.state.orders import Order
from sparknode.state.release import Release

# A look at an unchanged journal costs a third of a millisecond, and a wave ends only once its end was seen.
POLL_S = 0.05
TICK_S = 10.0
# From the start of the unit to its first journal line; a loaded host needs a while to start Python.
FIRST_LINE_S = 60.0
LOOK_S = 3.0


def ordered(host: Host, *given: Any) -> int:
    """`activate` of the command line."""
    *order, tell = given
    return activate(host, Order(*order), tell)


def activate(host: Host, order: Order, tell: Tell) -> int:
    """Have an activation carried out or attach to the one under way, follow it to its end; the exit code."""
    release = releases.load(host.paths, order.release)
    order = replace(order, activation=str(uuid.uuid4()))
    placed = _place(host, order, release, tell)
    if placed is None:
        return worker.DONE
    done = orders.resume(host)
    if placed.activation == order.activation:
        if not done.ok:
            orders.close(host.paths)
            raise Failed(f"the worker could not be started: {done.why}; look at `systemctl status {ACTIVATE_UNIT}`")
    elif placed.release != release.id:
        tell(f"{_so_far(host, placed)}; wait for its end")
        return worker.BUSY
    else:
        tell(f"attached: {_so_far(host, placed)}")
    return Follower(host, placed, tell).follow()


def _place(host: Host, order: Order, release: Release, tell: Tell) -> Order | None:
    """Give the order, unless there is one already; None where nothing needs a restart."""
    purpose, deadline = f"the order to activate release {release.id}", host.system.monotonic() + worker.LOCK_S
    while True:
        standing = orders.pending(host.paths)
        if standing:
            return standing
        try:
            with locks.hold(host.paths, purpose):
                return orders.pending(host.paths) or _begin(host, order, release, tell)
        except locks.Busy:
            if host.system.monotonic() >= deadline:
                raise
        host.system.sleep(POLL_S)


def _begin(host: Host, order: Order, release: Release, tell: Tell) -> Order | None:
    paths = host.paths
    with lease.alone(host) as held:
        if order.token is not None:
            lease.require_own(held, order.rollout, order.token)
        else:
            lease.require_free(host, order.rollout, held)
        if not order.restarts and _serves(host, release, tell):
            return None
        require_good(host, release, order.retry)
        require_complete(host, release)
        journal.rotate(paths)
        return orders.place(paths, order)


def _serves(host: Host, release: Release, tell: Tell) -> bool:
    """Does this release serve, verified, or can that be had without a restart?"""
    if not host.paths.linked("current") == host.paths.linked("verified") == release.id:
        return False
    drift = standing(host, release)
    if any(one.restarts for one in drift):
        return False
    if drift:
        put_right(host, release, drift)
        note = f"put right without a restart: {'; '.join(one.text for one in drift)}"
        journal.event(host.paths, host.system.now(), "repair", release=release.id, note=note)
        tell(note)
    last = journal.last_ended(journal.read(host.paths))
    returned = rotation.give_back(host) if last is None or last.state in journal.PROVEN else None
    if returned:
        tell(returned)
    tell(f"release {release.id} is current, verified and running; nothing to do")
    return True


def require_good(host: Host, release: Release, retry: str | None) -> None:
    """Refuse a release that failed here by its own fault, unless it is named to be tried again."""
    bad = journal.known_bad(journal.read(host.paths)).get(release.id)
    if bad and retry != release.id:
        raise KnownBad(
            f"release {release.id} failed gate {bad['gate']} on this host at {bad['t']}: {bad['error']}; deploy "
            f"another release, or try it again with --retry-release {release.id}"
        )


def require_complete(host: Host, release: Release) -> None:
    """Refuse before anything is stopped when a start, or the way back from it, would lack something."""
    verified = host.paths.linked("verified")
    problem = unready(host, release, releases.load(host.paths, verified) if verified else None)
    if problem:
        raise Refused(problem)


def _so_far(host: Host, order: Order) -> str:
    attempt = journal.attempt(journal.read(host.paths), order.activation)
    return f"{order}: " + (f"since {attempt.since}, now `{attempt.state}`" if attempt else "about to begin")


class Follower:
    """Reads one activation's records aloud until it ends."""

    def __init__(self, host: Host, order: Order, tell: Tell) -> None:
        self._host = host
        self._order = order
        self._tell = tell
        self._records: list[journal.Record] = []
        self._offset = journal.tail_offset(host.paths)
        self._spoke = self._looked = self._began = host.system.monotonic()
        self._wall = host.system.now()

    def follow(self) -> int:
        """Until its order is closed; the exit code."""
        while True:
            standing = orders.pending(self._host.paths)
            # Only now: its last line was written before its order went.
            records = self._tell_new()
            if standing is None or standing.activation != self._order.activation:
                return self._outcome()
            if self._host.system.monotonic() - self._looked >= LOOK_S and not self._is_worked_on():
                return self._abandoned()
            if records and self._host.system.monotonic() - self._spoke >= TICK_S:
                self._say(progress(records, self._host.system.now()))
            self._host.system.sleep(POLL_S)

    def _tell_new(self) -> list[journal.Record]:
        everything, self._offset = journal.read_from(self._host.paths, self._offset)
        for record in everything:
            if record["activation"] == self._order.activation:
                self._records.append(record)
                self._say(sentence(record))
        return self._records

    def _is_worked_on(self) -> bool:
        """Does the worker's unit run, or will systemd start it again? Silence counts as yes."""
        self._looked = self._host.system.monotonic()
        asked = self._host.system.run(["systemctl", "is-active", ACTIVATE_UNIT], orders.START_S)
        if asked.timed_out or asked.stdout.strip() in {"active", "activating", "reloading", "deactivating"}:
            return True
        # A unit that was about to end with the activation before takes a new order for its own.
        return not self._records and self._looked - self._began < FIRST_LINE_S and orders.resume(self._host).ok

    def _outcome(self) -> int:
        paths, release = self._host.paths, self._order.release
        if self._records and self._records[-1]["state"] in journal.TERMINAL:
            return worker.EXIT_OF[self._records[-1]["state"]]
        # The journal could not be written, so what stands here has to tell.
        current, state = paths.linked("current"), units.serve_state(self._host.system)
        if current is None or current != paths.linked("verified") or not state or state.active != "active":
            return self._abandoned()
        self._say(f"the journal has no record of its end; release {current} is verified and runs")
        return worker.DONE if current == release else worker.REVERTED

    def _say(self, text: str) -> None:
        self._spoke = self._host.system.monotonic()
        self._tell(text)

    def _abandoned(self) -> int:
        state = self._records[-1]["state"] if self._records else None
        if state in journal.TERMINAL:
            return worker.EXIT_OF[state]
        system = self._host.system
        where = f"in `{state}`" if state else "before its first journal line"
        log = units.logs(system, ACTIVATE_UNIT, f"--since=@{int(self._wall)}", 1)
        said = f" (its last line: {log[-1]})" if log else ""
        self._say(
            f"failed: the worker ended {where} without an outcome{said}; look at `journalctl -u {ACTIVATE_UNIT}`, then "
            f"`systemctl start {ACTIVATE_UNIT}` finishes what it left, as the watchdog and each boot do"
        )
        return worker.FAILED


def progress(records: list[journal.Record], now: float) -> str:
    """How long the step under way has taken, of how long it may take, and how far its engine is."""
    state = records[-1]["state"]
    since = [record for record in records if record["state"] == state]
    seconds = max(0.0, now - (journal.seconds_of(since[0]["t"]) or now))
    longest = next((record["deadline_s"] for record in reversed(since) if "deadline_s" in record), None)
    if not isinstance(longest, (int, float)):
        return f"{state}: for {seconds:.0f} s"
    left = f"{max(0.0, longest - seconds):.0f} s left"
    if state != journal.STARTING:
        return f"{state}: {seconds:.0f} s of at most {longest:.0f} s, {left}"
    phase = str(since[-1].get("note", "")).partition(" after ")
    named = f"{phase[0]}, " if phase[1] else ""
    return f"starting: engine has loaded for {seconds:.0f} s of at most {longest:.0f} s ({named}{left})"
