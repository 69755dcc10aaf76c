"""What an operator's session runs: it starts the worker in a unit of its own and reads the journal aloud.

It may die at any time, with the network or the laptop it belongs to: the worker does not notice. Called again, it
attaches to what is under way.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

from sparknode import activate as worker
from sparknode import journal, lease, lock, rotation, units
from sparknode import release as releases
from sparknode.chronicle import Tell, sentence
from sparknode.errors import Failed
from sparknode.journal import Attempt
from sparknode.paths import ACTIVATE_UNIT, Paths
from sparknode.release import Release
from sparknode.shell import Completed
from sparknode.system import Host

# A look at an unchanged journal costs a third of a millisecond, and a wave ends only once its end was seen.
POLL_S = 0.05
TICK_S = 10.0
# From the start of the unit to its first journal line; a loaded host needs a while to start Python.
FIRST_LINE_S = 60.0
SETTLE_S = 3.0
SPAWN_S = 60.0


def activate(host: Host, order: worker.Order, tell: Tell) -> int:
    """Start an activation or attach to it, follow it to its end; the exit code."""
    release = releases.load(host.paths, order.release)
    under_way = live_attempt(host.paths)
    if order.token is not None:
        lease.renew(host, order.rollout, order.token)
    if under_way is None:
        worker.finish_commit(host.paths)
        if not order.restarts and worker.is_already_serving(host, release):
            settle_dead(host, tell)
            tell(f"release {release.id} is current, verified and running; nothing to do")
            return worker.DONE
        lease.require_free(host, order.rollout)
        worker.require_good(host, release, order.retry)
        worker.require_complete(host, release, worker.way_back(host, release))
        activation = str(uuid.uuid4())
        done = spawn_worker(host, order, activation)
        if done.ok:
            return Follower(host, release, activation, tell).follow()
        # Another session may have been faster by a moment; then there is something to attach to.
        under_way = await_live(host)
        if under_way is None:
            raise Failed(f"the worker could not be started: {done.why}; look at `systemctl status {ACTIVATE_UNIT}`")
    if under_way.release != release.id:
        tell(busy(under_way))
        return worker.BUSY
    tell(f"attached: {busy(under_way)}")
    return Follower(host, release, under_way.activation, tell).follow()


def settle_dead(host: Host, tell: Tell) -> None:
    """Close what a dead worker left open; one that has only just begun is left to itself."""
    with suppress(lock.Busy), lock.hold(host.paths):
        worker.settle(host, tell)
        returned = rotation.give_back(host)
        if returned:
            tell(returned)


def live_attempt(paths: Paths) -> Attempt | None:
    """The activation that a living worker writes, if there is one."""
    return journal.open_attempt(journal.read(paths)) if lock.held(paths) else None


def await_live(host: Host) -> Attempt | None:
    """Give a worker that was just started by someone else the time to write its first line."""
    until = host.system.monotonic() + FIRST_LINE_S
    while host.system.monotonic() < until:
        found = live_attempt(host.paths)
        if found:
            return found
        host.system.sleep(POLL_S)
    return None


def busy(attempt: Attempt) -> str:
    last = attempt.last
    return (
        f"release {attempt.release} is being activated here since {attempt.since} by {last.get('operator')} "
        f"(rollout {last.get('rollout')}, now `{attempt.state}`)"
    )


def unit_argv(paths: Paths, command: list[str], *options: str) -> list[str]:
    """systemd-run for the worker. It is the last that earlyoom or the kernel should end, and it ends before Docker."""
    return [
        "systemd-run",
        f"--unit={ACTIVATE_UNIT}",
        "--collect",
        "--quiet",
        f"--description=sparknode {command[0]}",
        "--property=After=docker.service",
        "--property=OOMScoreAdjust=-900",
        # A worker that is killed must not leave the host as it was at that moment: it begins again, and goes back.
        "--property=Restart=on-abnormal",
        "--property=RestartSec=3",
        *options,
        str(paths.program),
        *command,
    ]


def spawn_worker(host: Host, order: worker.Order, activation: str) -> Completed:
    named = ["--rollout", order.rollout, "--operator", order.operator, "--activation", activation]
    named += ["--token", str(order.token)] if order.token is not None else []
    named += ["--retry-release", order.retry] if order.retry else []
    named += ["--intent", order.intent] if order.intent else []
    return host.system.run(unit_argv(host.paths, ["activate", order.release, *named, "--foreground"]), SPAWN_S)


class Follower:
    """Reads one activation's records aloud until it ends."""

    def __init__(self, host: Host, release: Release, activation: str, tell: Tell) -> None:
        self._host = host
        self._release = release
        self._activation = activation
        self._tell = tell
        self._records: list[journal.Record] = []
        self._offset = journal.tail_offset(host.paths)
        self._spoke = host.system.monotonic()
        self._began = self._spoke
        self._wall = host.system.now()

    def follow(self) -> int:
        """Until the last record; the exit code that it means."""
        while True:
            records = self._tell_new()
            # A worker holds the lock from before its first record until after its last one, so what it wrote
            # between the two looks is read once more before it counts as dead.
            if records and not lock.held(self._host.paths):
                records = self._tell_new()
                if records[-1]["state"] not in journal.TERMINAL and not self._unit_lives():
                    return self._abandoned(f"in `{records[-1]['state']}`")
            if records and records[-1]["state"] in journal.TERMINAL:
                return worker.EXIT_OF[records[-1]["state"]]
            if not records and self._never_began():
                # Another session's worker may have brought the release up just before this one's looked.
                if worker.is_already_serving(self._host, self._release):
                    return worker.DONE
                return self._abandoned("before its first journal line")
            if records and self._host.system.monotonic() - self._spoke >= TICK_S:
                self._say(progress(records, self._host.system.now()))
            self._host.system.sleep(POLL_S)

    def _tell_new(self) -> list[journal.Record]:
        everything, self._offset = journal.read_from(self._host.paths, self._offset)
        for record in everything:
            if record["activation"] == self._activation:
                self._records.append(record)
                self._say(sentence(record))
        return self._records

    def _never_began(self) -> bool:
        waited = self._host.system.monotonic() - self._began
        if waited > FIRST_LINE_S:
            return True
        return waited >= SETTLE_S and not lock.held(self._host.paths) and not self._unit_lives()

    def _unit_lives(self) -> bool:
        """Does the worker's unit run, or will systemd start it again? Silence counts as yes."""
        asked = self._host.system.run(["systemctl", "is-active", ACTIVATE_UNIT], SPAWN_S)
        return asked.timed_out or asked.stdout.strip() in {"active", "activating", "reloading"}

    def _say(self, text: str) -> None:
        self._spoke = self._host.system.monotonic()
        self._tell(text)

    def _abandoned(self, where: str) -> int:
        log = units.logs_since(self._host.system, ACTIVATE_UNIT, self._wall, 1)
        said = f" (it said: {log[-1]})" if log else ""
        self._say(
            f"failed: the worker ended {where} without an outcome{said}; look at `journalctl -u {ACTIVATE_UNIT}`, "
            "then activate again: it takes over from here"
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
