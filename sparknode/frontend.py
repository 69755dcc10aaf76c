"""What an operator's session runs: it starts the worker in a unit of its own and reads the journal aloud.

It may die at any time, with the network or the laptop it belongs to: the worker does not notice. Called again, it
attaches to what is under way.
"""

from __future__ import annotations

import uuid
from contextlib import suppress

from sparknode import journal, lock, units
from sparknode import release as releases
from sparknode.activate import (
    BUSY,
    DONE,
    EXIT_OF,
    FAILED,
    finish_commit,
    is_already_serving,
    require_complete,
    settle,
    way_back,
)
from sparknode.chronicle import Tell, sentence
from sparknode.errors import Failed
from sparknode.gates import PASS
from sparknode.journal import Attempt
from sparknode.paths import ACTIVATE_UNIT, Paths
from sparknode.release import Release
from sparknode.shell import Completed
from sparknode.steps import STOP_MARGIN_S
from sparknode.system import Host

POLL_S = 0.5
TICK_S = 10.0
# From the start of the unit to its first journal line; a loaded host needs a while to start Python.
FIRST_LINE_S = 60.0
SETTLE_S = 3.0
SPAWN_S = 60.0


def activate(host: Host, release_id: str, rollout: str, operator: str, tell: Tell) -> int:
    """Start an activation or attach to it, follow it to its end; the exit code."""
    release = releases.load(host.paths, release_id)
    under_way = live_attempt(host.paths)
    if under_way is None:
        finish_commit(host.paths)
        if is_already_serving(host, release):
            settle_dead(host, tell)
            tell(f"release {release.id} is current, verified and running; nothing to do")
            return DONE
        require_complete(host, release, way_back(host, release))
        activation = str(uuid.uuid4())
        done = spawn_worker(host, release.id, rollout, operator, activation)
        if done.ok:
            return Follower(host, release, activation, tell).follow()
        # Another session may have been faster by a moment; then there is something to attach to.
        under_way = await_live(host)
        if under_way is None:
            raise Failed(f"the worker could not be started: {done.why}; look at `systemctl status {ACTIVATE_UNIT}`")
    if under_way.release != release.id:
        tell(busy(under_way))
        return BUSY
    tell(f"attached: {busy(under_way)}")
    return Follower(host, release, under_way.activation, tell).follow()


def settle_dead(host: Host, tell: Tell) -> None:
    """Close what a dead worker left open; one that has only just begun is left to itself."""
    with suppress(lock.Busy), lock.hold(host.paths):
        settle(host, tell)


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
        *options,
        str(paths.program),
        *command,
    ]


def spawn_worker(host: Host, release_id: str, rollout: str, operator: str, activation: str) -> Completed:
    named = ["--rollout", rollout, "--operator", operator, "--activation", activation]
    return host.system.run(unit_argv(host.paths, ["activate", release_id, *named, "--foreground"]), SPAWN_S)


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
                if records[-1]["state"] not in journal.TERMINAL:
                    return self._abandoned(f"in `{records[-1]['state']}`")
            if records and records[-1]["state"] in journal.TERMINAL:
                return EXIT_OF[records[-1]["state"]]
            if not records and self._never_began():
                # Another session's worker may have brought the release up just before this one's looked.
                if is_already_serving(self._host, self._release):
                    return DONE
                return self._abandoned("before its first journal line")
            if records and self._host.system.monotonic() - self._spoke >= TICK_S:
                self._say(progress(records, self._host.system.now(), self._release))
            self._host.system.sleep(POLL_S)

    def _tell_new(self) -> list[journal.Record]:
        everything, self._offset = journal.read_from(self._host.paths, self._offset)
        for record in everything:
            if record["activation"] == self._activation:
                self._records.append(record)
                self._say(sentence(record))
        return self._records

    def _never_began(self) -> bool:
        """No record yet, and nobody left who would write one."""
        waited = self._host.system.monotonic() - self._began
        if waited > FIRST_LINE_S:
            return True
        if waited < SETTLE_S or lock.held(self._host.paths):
            return False
        asked = self._host.system.run(["systemctl", "is-active", ACTIVATE_UNIT], SPAWN_S)
        return not asked.timed_out and asked.stdout.strip() not in {"active", "activating", "reloading"}

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
        return FAILED


def is_routine(record: journal.Record) -> bool:
    """A soak repeats every gate; of those that hold, the drafter's acceptance is the one to watch."""
    gate = record.get("gate")
    if record["state"] != journal.SOAKING or not isinstance(gate, dict):
        return False
    return gate.get("verdict") == PASS and gate.get("name") != "acceptance-short"


def progress(records: list[journal.Record], now: float, release: Release) -> str:
    """How long the step under way has taken, of how long it may take."""
    last = records[-1]
    state = last["state"]
    began = next(record["t"] for record in records if record["state"] == state)
    seconds = max(0.0, now - (journal.seconds_of(began) or now))
    timing = release.timing
    if state == journal.STARTING:
        return f"starting: engine has loaded for {seconds:.0f} s of at most {timing.load_deadline_s:.0f} s"
    longest = {
        journal.DRAINING: timing.drain_s,
        journal.STOPPING: timing.unit_stop_s + STOP_MARGIN_S,
        journal.RECLAIMING: timing.memory_wait_s,
    }.get(state)
    if longest is not None:
        return f"{state}: {seconds:.0f} s of at most {longest:.0f} s"
    if state == journal.SOAKING:
        return f"soaking: {seconds:.0f} s of {timing.soak_s:.0f} s"
    return f"{state}: for {seconds:.0f} s"
