"""One walk: a seed, some steps, and a fleet that serves one good release at its end."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparkfleet.inventory.pace import Pace
from sparknode.state import journal
from tests.walk.fleet import DOCUMENTS, FAULTS, LEASE_S, NAME_OF, Fleet, Plan, engine_of, wired
from tests.walk.hub import Process
from tests.walk.machine import Machine

NODES, STEPS = 3, 7
STRIKES = ("worker killed", "power cut", "power cut in a line", "engine killed", "session lost")
IDLE_STRIKES = ("power cut", "engine killed", "orphan")
# An activation has some hundred points at which it can be cut off; beyond the last one nothing happens.
LAST_POINT = 130


def shared_memory() -> str | None:
    """Where files cost least."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


class Walk:
    """A seeded walk; `history` tells what happened, for the one that breaks."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.root = Path(tempfile.mkdtemp(prefix=f"walk-{seed}-", dir=shared_memory()))
        self.fleet = Fleet(self.root, NODES)
        self.rollouts = 0
        self.steps: dict[str, int] = {}
        for machine in self.machines:
            machine.memory_return_s = self.random.choice((1.0, 4.0, 15.0))
            for document in DOCUMENTS:
                machine.behave(document["id"], engine_of(self.random.choice((2.0, 7.0, 20.0)), None), sound=True)

    @property
    def machines(self) -> list[Machine]:
        return list(self.fleet.machines.values())

    def run(self) -> dict[str, int]:
        """The whole walk; what was done how often."""
        rules: list[tuple[int, Callable[[], None]]] = [
            (14, self.deploy),
            (4, self.roll_back),
            (2, self.strike_idle),
            (2, self.pass_time),
            (1, self.turn_bad),
            (3, self.mend),
            (1, self.break_host),
        ]
        weights = [weight for weight, _ in rules]
        try:
            with wired(self.fleet):
                if self.random.random() < 0.8:
                    self._roll(DOCUMENTS[0], list(self.fleet.machines))
                for _ in range(STEPS):
                    rule = self.random.choices(rules, weights)[0][1]
                    self.steps[rule.__name__] = self.steps.get(rule.__name__, 0) + 1
                    rule()
                self.converge()
        except BaseException as broken:
            broken.add_note(f"walk with seed {self.seed}:\n" + "\n".join(self.fleet.history))
            raise
        finally:
            shutil.rmtree(self.root)
        return self.steps

    # Rules.

    def deploy(self) -> None:
        """A release, good or with a fault, to all or some, in waves; something may happen in the middle."""
        verified = {machine.linked("verified") for machine in self.machines}
        others = [document for document in DOCUMENTS if document["id"] not in verified]
        document = self.random.choice(others if others and self.random.random() < 0.8 else DOCUMENTS)
        if document in others:
            self._turn(document, self.random.choice(sorted(FAULTS)) if self.random.random() < 0.4 else None)
        self._roll(document, self._some())

    def roll_back(self) -> None:
        """What served before, to the nodes that have it."""
        previous = [machine.linked("previous") for machine in self.machines]
        known = sorted({name for name in previous if name})
        if known:
            wanted = self.random.choice(known)
            document = next(document for document in DOCUMENTS if document["id"] == wanted)
            self._roll(document, [machine.name for machine in self.machines if machine.linked("previous") == wanted])

    def strike_idle(self) -> None:
        machine, how = self.random.choice(self.machines), self.random.choice(IDLE_STRIKES)
        others = {other.name for other in self.machines if other is not machine}
        with self.fleet.untouched(others):
            self.fleet.strike(machine, how)
            self.fleet.settle()
            self.fleet.hub.idle(60.0, self.fleet.look)

    def pass_time(self) -> None:
        """Minutes in which nobody does anything but the watch of each node."""
        self.fleet.tell("time passes")
        for _ in range(self.random.randint(1, 3)):
            self.fleet.hub.idle(60.0, self.fleet.look)
            watches = [machine.sparknode("watch", "watch") for machine in self.machines if machine.up]
            self.fleet.settle(*watches)

    def turn_bad(self) -> None:
        """A release that was good here and there gets a fault."""
        self._turn(self.random.choice(DOCUMENTS), self.random.choice(sorted(FAULTS)))

    def mend(self) -> None:
        """Everything is good again."""
        self.fleet.tell("everything is mended")
        for machine in self.machines:
            machine.heal()
            for document in DOCUMENTS:
                if not machine.sound[document["id"]]:
                    machine.behave(document["id"], engine_of(5.0, None), sound=True)
            if not machine.serves:
                self.fleet.excused.add(machine.name)

    def break_host(self) -> None:
        """One fault of a node that only a person mends."""
        machine = self.random.choice(self.machines)
        fault = self.random.choice(("stop_hangs", "docker_silent", "memory_never_returns", "stranger_on_port"))
        self.fleet.tell(f"{machine.name}: {fault}")
        setattr(machine, fault, True)
        machine.strikes += 1
        self.fleet.excused.add(machine.name)

    def converge(self) -> None:
        """Whatever happened: mended, and after the leases of the dead have ended, one deploy brings every node."""
        self.mend()
        self.fleet.hub.idle(LEASE_S + 1.0, lambda: None)
        document = self.random.choice(DOCUMENTS)
        plan = Plan(self._name(), document, [machine.name for machine in self.machines], retry=True)
        # Nodes that are down one and all are no reason to leave them so.
        plan.pace = Pace(batch_size=(NODES,), max_unavailable=NODES)
        process = self.fleet.roll_out(plan)
        self.fleet.settle(process)
        assert process.result == "done", process.result
        for machine in self.machines:
            links = [machine.linked(name) for name in ("current", "verified")]
            assert [machine.running, *links] == [document["id"]] * 3, f"{machine.name} serves {links}"
            assert machine.pool, f"{machine.name} is out of rotation"

    # Of what rules are made.

    def _some(self) -> list[str]:
        names = [machine.name for machine in self.machines]
        if self.random.random() < 0.6:
            return names
        return sorted(self.random.sample(names, self.random.randint(1, NODES - 1)))

    def _name(self) -> str:
        self.rollouts += 1
        return f"rollout-{self.rollouts}"

    def _pace(self) -> Pace:
        batch = self.random.choice(((1,), (2,), (1, 2)))
        return Pace(batch_size=batch, max_unavailable=self.random.choice((1, 1, 2)))

    def _turn(self, document: dict[str, Any], fault: str | None) -> None:
        self.fleet.tell(f"{document['image_tag']} is now {fault or 'good'}")
        for machine in self.machines:
            if machine.sound[document["id"]] != (fault is None):
                machine.behave(document["id"], engine_of(5.0, fault), sound=fault is None)
                machine.strikes += machine.running == document["id"]

    def _roll(self, document: dict[str, Any], names: list[str]) -> None:
        plan = Plan(self._name(), document, names, self._pace(), retry=self.random.random() < 0.8)
        outside = set(self.fleet.machines) - set(names)
        extra: list[Process] = []
        controller = self.fleet.roll_out(plan)
        if self.random.random() < 0.6:
            self._arm(self.fleet.machines[self.random.choice(names)], plan, controller, extra, outside)
        with self.fleet.untouched(outside):
            self.fleet.settle(controller)
            self.fleet.settle(*extra)
        serves = {machine.name: NAME_OF.get(machine.running or "", "nothing") for machine in self.machines}
        self.fleet.tell(f"serves {serves}")

    def _arm(self, machine: Machine, plan: Plan, controller: Process, extra: list[Process], outside: set[str]) -> None:
        """At some point of the activation on this node, something happens."""
        how = self.random.choice((*STRIKES, "controller killed", "second operator", "watch", "second session"))
        machine.strike_at = self.random.choice((self.random.randint(1, LAST_POINT), self.random.choice(journal.STATES)))

        def happen() -> None:
            if how == "controller killed":
                self.fleet.tell("the controller is killed")
                controller.kill()
                self.fleet.excused.update(plan.names)
                for one in self.machines:
                    one.end(*one.sessions)
            elif how == "second operator":
                other = Plan(self._name(), self.random.choice(DOCUMENTS), self._some(), self._pace())
                started = [self.fleet.roll_out(other)]
                if self.random.random() < 0.5:
                    other.names = [machine.name]
                    started = self.fleet.by_hand(other)
                outside.difference_update(other.names)
                extra.extend(started)
            elif how == "watch":
                extra.append(machine.sparknode("watch", "watch"))
            elif how == "second session":
                extra.extend(self.fleet.by_hand(Plan(plan.rollout, plan.document, [machine.name])))
            else:
                self.fleet.strike(machine, how)

        machine.strike = happen


def walk(seed: int) -> dict[str, int]:
    return Walk(seed).run()
