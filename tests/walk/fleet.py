"""A fleet of pretended nodes, the operators who change it, and what must hold whatever happens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.inventory.pace import Pace
from sparkfleet.rollout.waves import Member, obstacle, plan_waves
from sparknode import cli
from sparknode.activate.worker import DONE, FAILED, REVERTED
from sparknode.base import files
from sparknode.state import journal
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import Engine
from tests.walk.hub import Hub, Process
from tests.walk.machine import Broken, Machine

BUSY, HELD, KNOWN_BAD, REFUSED, TROUBLE = 30, 31, 32, 2, 1
# Longer than any activation with every deadline used up, on the way forth and on the way back.
LONGEST_S = 3000.0
LEASE_S = 60.0

TIMING = {"memory_wait_s": 40, "load_deadline_s": 90, "soak_s": 9, "soak_interval_s": 4, "drain_s": 8}
POOL = {"out": {"command": ["pool", "out"]}, "in": {"command": ["pool", "in"]}, "timeout_s": 5}
WATCH = {"enabled": True, "restart_on_collapse": True, "min_acceptance_rate": 0.2, "window_drafts": 20}
WATCH |= {"stalled_s": 120, "slow_factor": 3, "wedged_power_w": 30, "max_restarts": 1, "forget_s": 3600}
WATCH |= {"min_available_gib": 4, "max_stall_percent": 0.1}


def _document(number: int) -> dict[str, Any]:
    timing = {f"timing__{key}": value for key, value in TIMING.items()}
    return release(f"r{number}", **timing, watch=WATCH, rotation=POOL if number % 2 else None)


DOCUMENTS = [_document(number) for number in range(5)]
NAME_OF = {str(document["id"]): str(document["image_tag"]) for document in DOCUMENTS}


@dataclass
class Plan:
    """One rollout as its operator wants it."""

    rollout: str
    document: dict[str, Any]
    names: list[str]
    pace: Pace = field(default_factory=Pace)
    retry: bool = False


class Fleet:
    """Some nodes on one clock."""

    def __init__(self, root: Path, size: int) -> None:
        self.hub = Hub(self._advance)
        self.machines = {f"n{at}": Machine(root / f"n{at}", f"n{at}", self.hub) for at in range(1, size + 1)}
        self.by_root = {machine.paths.root: machine for machine in self.machines.values()}
        # Who may be out of service now, by the rollout that takes them out.
        self.out: dict[str, set[str]] = {}
        # Nodes that something other than a rollout brought down, until they serve again.
        self.excused = set(self.machines)
        # Nodes whose last activation was killed or broke on a fault of the host.
        self.cut: set[str] = set()
        # Which rollout was given the lease of a node, and when.
        self.holders: dict[str, tuple[str, float]] = {}
        self.history: list[str] = []

    def _advance(self, seconds: float) -> None:
        for machine in self.machines.values():
            machine.elapse(seconds)

    def tell(self, text: str) -> None:
        self.history.append(f"{self.hub.now:8.1f} {text}")

    # What the walk does.

    def settle(self, *processes: Process) -> None:
        """Let these run to their end, and whatever they started on the nodes."""

        def done() -> bool:
            return not any(process.alive for process in processes) and not any(
                machine.working or any(session.alive for session in machine.sessions)
                for machine in self.machines.values()
            )

        self.hub.run_until(done, LONGEST_S, self.look)
        self.quiet()

    def strike(self, machine: Machine, how: str) -> None:
        """Something happens to a node that no release can help."""
        self.tell(f"{machine.name}: {how}")
        machine.strikes += 1
        self.excused.add(machine.name)
        if how == "worker killed":
            if machine.working and not machine.kill_worker():
                self.cut.add(machine.name)
        elif how in {"power cut", "power cut in a line"}:
            machine.power_off()
            if how == "power cut in a line":
                with machine.paths.journal.open("a") as stream:
                    stream.write('{"t":"2026-11-23T10:0')
                machine.torn += 1
            self.cut.discard(machine.name)
            machine.power_on()
        elif how == "engine killed":
            machine.kill_engine()
        elif how == "orphan":
            machine.leave_orphan()
        elif how == "session lost":
            machine.end(*machine.sessions)
        else:
            raise AssertionError(how)

    # An operator.

    def roll_out(self, plan: Plan) -> Process:
        pace = f"{plan.pace.batch_size} at once, {plan.pace.max_unavailable} out"
        self.tell(f"{plan.rollout}: {plan.document['image_tag']} to {', '.join(plan.names)}, {pace}")
        return self.hub.start(plan.rollout, lambda: self._rolling(plan))

    def _rolling(self, plan: Plan) -> str:
        try:
            return self._waves(plan)
        finally:
            self.out.pop(plan.rollout, None)

    def _waves(self, plan: Plan) -> str:
        members = [Member(name, serving=self.machines[name].serves) for name in plan.names]
        tokens: dict[str, int] = {}
        ended = "done"
        for wave in plan_waves(members, plan.pace, len(self.machines)):
            serving = {name: machine.serves for name, machine in self.machines.items()}
            why = obstacle(wave, serving, plan.pace)
            if why:
                ended = f"not begun: {why}"
                break
            self._require_room(wave, plan.pace)
            held = [name for name in wave if self._lease(plan, name, tokens) != DONE]
            if held:
                ended = f"another rollout has {', '.join(held)}"
                break
            self.out[plan.rollout] = set(wave)
            sessions = {name: self._session(plan, name, tokens[name]) for name in wave}
            while any(session.alive for session in sessions.values()):
                self.hub.sleep(1.0)
            self.out[plan.rollout] = set()
            failed = {name: session.result for name, session in sessions.items() if session.result != DONE}
            if failed:
                ended = f"stopped: {failed}"
                break
        for name, token in tokens.items():
            if self.holders[name][0] == plan.rollout:
                self.holders.pop(name)
            if self.machines[name].up:
                self.machines[name].call("lease", "release", "--rollout", plan.rollout, "--token", str(token))
        self.tell(f"{plan.rollout}: {ended}")
        return ended

    def _require_room(self, wave: Sequence[str], pace: Pace) -> None:
        down = {name for name, machine in self.machines.items() if not machine.serves and name not in wave}
        going = {name for name in wave if self.machines[name].serves}
        allowed = int(pace.max_unavailable)
        if going and len(down | going) > allowed:
            raise Broken(f"a wave of {going} begins while {down} are down, and {allowed} may be out")

    def _lease(self, plan: Plan, name: str, tokens: dict[str, int]) -> int:
        machine, process = self.machines[name], self.hub.running
        assert process is not None
        if not machine.up:
            return TROUBLE
        owner = ["--rollout", plan.rollout, "--operator", f"ops@{plan.rollout}", "--from", "10.0.0.9"]
        code = machine.call("lease", "take", *owner, "--ttl", str(LEASE_S))
        if code == DONE:
            holder, since = self.holders.get(name, ("", 0.0))
            if holder not in {"", plan.rollout} and (machine.working or self.hub.now - since < LEASE_S):
                raise Broken(f"{name}: {plan.rollout} was given the lease of {holder}")
            self.holders[name] = (plan.rollout, self.hub.now)
            tokens[name] = int(json.loads(process.lines[-1])["token"])
        return code

    def _session(self, plan: Plan, name: str, token: int | None) -> Process:
        machine, document = self.machines[name], plan.document
        if document["id"] not in machine.paths.staged() or document["image"]["reference"] not in machine.images:
            machine.stage(document, machine.engines.get(document["id"]))
        before = Before(machine, document["id"])
        argv = ["activate", document["id"], "--rollout", plan.rollout, "--operator", f"ops@{plan.rollout}"]
        argv += ["--token", str(token)] if token is not None else []
        argv += ["--retry-release", document["id"]] if plan.retry else []

        def session() -> int:
            code = machine.call(*argv)
            self.tell(f"{name}: {plan.rollout} ended with {code}: {(process.lines or [''])[-1][:200]}")
            self._judge(before, code)
            return code

        process = self.hub.start(f"{name}: session of {plan.rollout}", session)
        machine.sessions.append(process)
        return process

    def by_hand(self, plan: Plan) -> list[Process]:
        """Somebody activates the release with the node's own command, without a lease."""
        self.tell(f"{plan.rollout}: {plan.document['image_tag']} by hand on {', '.join(plan.names)}")
        up = [name for name in plan.names if self.machines[name].up]
        return [self._session(plan, name, None) for name in up]

    # What must hold.

    def _judge(self, before: Before, code: int) -> None:
        """Hold a session's exit code against what became of the node."""
        machine, wanted = before.machine, before.release
        current, verified = (machine.linked(name) for name in ("current", "verified"))
        helpless = machine.strikes > before.strikes or machine.ailing or before.ailing
        serves = machine.running == current and machine.serves
        if code in {DONE, REVERTED} and not helpless:
            self.cut.discard(machine.name)
        if code == DONE:
            # A worker that is killed right after its last line leaves the link to whoever comes next.
            if not current == verified == wanted and not helpless:
                raise Broken(f"{machine.name}: exit 0, but current is {current} and verified {verified}")
            if not helpless and not serves and machine.containers_made > before.containers:
                raise Broken(f"{machine.name}: exit 0, but it does not serve")
            if not helpless and not machine.sound[wanted] and machine.containers_made > before.containers:
                raise Broken(f"{machine.name}: a release with a fault was committed")
        elif helpless or code in {BUSY, HELD}:
            return
        elif code == KNOWN_BAD:
            if wanted not in journal.known_bad(machine.records()):
                raise Broken(f"{machine.name}: refused as known bad, and the journal knows nothing of it")
        elif code in {REVERTED, FAILED}:
            if machine.sound[wanted]:
                raise Broken(f"{machine.name}: a good release ended with {code} and nothing had happened to the node")
            if code == REVERTED and not (current == verified == before.verified and serves):
                raise Broken(f"{machine.name}: exit 10, but it does not serve what it served before")
            if code == FAILED and before.verified and machine.sound[before.verified]:
                raise Broken(f"{machine.name}: the way back to a good release failed")
        else:
            raise Broken(f"{machine.name}: exit {code} for no reason that the walk knows")
        if not helpless and code in {DONE, REVERTED} and not machine.pool:
            raise Broken(f"{machine.name}: it serves, proven, and was left out of rotation")

    def look(self) -> None:
        """Hold after every turn of every process."""
        out = {name for names in self.out.values() for name in names}
        for name, machine in self.machines.items():
            if machine.serves and not machine.working:
                self.excused.discard(name)
            elif machine.serves:
                pass
            elif name not in out and name not in self.excused and not machine.ailing and self._healthy(machine):
                raise Broken(f"{name}: it does not serve, and no rollout had the right to take it out")
            current, verified = machine.linked("current"), machine.linked("verified")
            under_way = machine.working or any(session.alive for session in machine.sessions)
            if verified and current != verified and not under_way and name not in self.cut and not machine.ailing:
                raise Broken(f"{name}: current is {current}, verified {verified}, and no activation is under way")

    @staticmethod
    def _healthy(machine: Machine) -> bool:
        """Is what it serves, and what it would go back to, without a fault?"""
        links = [machine.linked(name) for name in ("current", "verified")]
        return all(machine.sound[link] for link in links if link)

    def quiet(self) -> None:
        """Hold when nobody works on the fleet."""
        for machine in self.machines.values():
            machine.strike = None
            machine.sessions.clear()
            if machine.ailing:
                self.cut.add(machine.name)
            read = 0
            for line in machine.lines():
                with suppress(ValueError):
                    json.loads(line)
                    read += 1
            if read != machine.written or len(machine.lines()) > machine.written + machine.torn:
                raise Broken(f"{machine.name}: {machine.written} lines written, {read} of {len(machine.lines())} read")
            last = journal.last_attempt(machine.records())
            if machine.name in self.cut or last is None:
                continue
            if not last.ended:
                raise Broken(f"{machine.name}: nobody works on it, and the journal ends in {last.state}")
            if last.state == journal.COMMITTED and machine.linked("verified") != last.release:
                raise Broken(f"{machine.name}: {last.release} was committed, verified is {machine.linked('verified')}")
            committed = {record["release"] for record in machine.records() if record["state"] == journal.COMMITTED}
            previous = machine.linked("previous")
            if len(committed) > 1 and machine.linked("verified") in committed and previous not in committed:
                raise Broken(f"{machine.name}: two releases were verified, and previous is {previous}")

    @contextmanager
    def untouched(self, names: set[str]) -> Iterator[None]:
        """These nodes keep their containers and journals, unless the walk struck them or takes them out of the set."""

        def seen() -> dict[str, tuple[int, int, int]]:
            return {
                name: (one.strikes, one.containers_made, len(one.lines()))
                for name, one in self.machines.items()
                if name in names
            }

        before = seen()
        yield
        for name, after in seen().items():
            struck = after[0] != before[name][0] or not self._healthy(self.machines[name])
            if not struck and after != before[name]:
                raise Broken(f"{name}: it was touched by what did not concern it")


class Before:
    """What a session found on its node."""

    def __init__(self, machine: Machine, release_id: str) -> None:
        self.machine = machine
        self.release = release_id
        # The journal's last line is the promise; a worker that was killed right after it left the link as it was.
        last = journal.last_attempt(machine.records())
        promised = last.release if last and last.state == journal.COMMITTED else None
        self.verified = promised or machine.linked("verified")
        self.strikes = machine.strikes
        self.ailing = machine.ailing
        self.containers = machine.containers_made


@contextmanager
def wired(fleet: Fleet) -> Iterator[None]:
    """Lead what the program writes past the walk, so that it can be cut off around each line and each file."""
    with pytest.MonkeyPatch.context() as patch:
        append, link, write = journal.append, files.atomic_link, files.atomic_write

        def appending(paths: Any, record: journal.Record) -> None:
            machine = fleet.by_root[paths.root]
            machine.point()
            append(paths, record)
            machine.written += 1
            machine.point(str(record["state"]))

        def at(path: Path) -> None:
            next(fleet.by_root[folder] for folder in path.parents if folder in fleet.by_root).point()

        def linking(path: Path, target: str) -> bool:
            done = link(path, target)
            at(path)
            return done

        def writing(path: Path, data: bytes, mode: int = 0o644) -> None:
            write(path, data, mode)
            at(path)

        def saying(text: str) -> None:
            if fleet.hub.running is not None:
                fleet.hub.running.lines.append(text)

        patch.setattr(journal, "append", appending)
        patch.setattr("sparknode.host.drift.atomic_link", linking)
        patch.setattr("sparknode.activate.worker.atomic_link", linking)
        patch.setattr("sparknode.host.drift.atomic_write", writing)
        patch.setattr(cli, "say", saying)
        # Nothing here outlives this process, so that waiting for the disk proves nothing.
        patch.setattr("os.fsync", lambda _: None)
        yield


FAULTS: dict[str, dict[str, Any]] = {
    "accepts nothing": {"acceptance": 0.0},
    "accepts too little": {"acceptance": 0.1},
    "decays": {"load_s": 5.0, "decay_s": 9.0},
    "dies at the first request": {"dies_on_chat": True},
    "never ready": {"never_ready": True},
    "crash loops": {"load_s": 8.0, "dies_after_s": 3.0, "last_words": ["RuntimeError: no kernel image"]},
    "the unit fails": {"load_s": 8.0, "dies_after_s": 2.0, "restarts": False},
    "dies in the soak": {"load_s": 3.0, "dies_after_s": 10.0},
    "other version": {"version": "0.23.0"},
    "other name": {"names": ["gemma4"]},
    "other model": {"root": "/models/x"},
    "other image": {"changes": {"Image": "sha256:00"}},
    "no speculation": {"drafts": False},
    "slow load": {"load_s": 400.0},
}


def engine_of(load_s: float, fault: str | None) -> Engine:
    """An engine with one fault, or none."""
    changes: dict[str, Any] = FAULTS[fault] if fault else {}
    return Engine(**{"load_s": load_s, **changes})
