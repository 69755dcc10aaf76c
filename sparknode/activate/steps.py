"""The steps that take one release down and bring another one up. The way forward and the way back use the same ones."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from sparknode import NOT_JUDGED
from sparknode.activate import rotation
from sparknode.base.paths import SERVE_UNIT
from sparknode.base.system import Host
from sparknode.engine import phases
from sparknode.engine.client import Engine, api_key, in_flight
from sparknode.engine.container import Death, Watch
from sparknode.errors import StepFailed
from sparknode.gates import table
from sparknode.gates.subject import Subject
from sparknode.host import docker, memory, orphans, units
from sparknode.host.drift import install, reload, standing, unready
from sparknode.host.node_status import readiness
from sparknode.state import journal
from sparknode.state.gate_result import FAIL, PASS, GateResult
from sparknode.state.journal_writer import Chronicle
from sparknode.state.release import Release

# systemd itself needs a moment after a unit's own stop timeout: SIGKILL, ExecStopPost, cleaning up.
STOP_MARGIN_S = 30.0
ORDER_S = 30.0
# «systemctl stop» of a unit that was never loaded.
NOT_LOADED = 5
PORT_CLEAR_S = 10.0
# An engine whose core died ends by itself: vLLM 0.26.0 on a GPU closed its port within 1 s and had ended after 1.5 s,
# one on a CPU answered 503 for 4.5 s first.
DYING_S = 10.0
FIRST_POLLS_S, POLL_S, LATER_POLL_S = 30.0, 1.0, 3.0
# A start that is slower than this many seconds is never late by the host's history alone.
LEAST_DEADLINE_S = 60.0
PHASE_LOOK_S = 5.0
PHASE_LINES = 400


def _taken(port: int, by: str) -> str:
    return f"port {port} is taken by {by} that is not {SERVE_UNIT}; find it with `ss -ltnp sport = :{port}` and end it"


def silence(host: Host, *, disable: bool, patience: float) -> None:
    """Stop the unit so that it does not crash-loop, and have no boot start it where it is to be disabled.

    Nothing is asked of the unit any more, so an order that fails changes no decision.
    """
    if disable:
        with suppress(OSError):
            host.paths.enabled.unlink(missing_ok=True)
    units.order(host.system, "stop", timeout=patience + STOP_MARGIN_S)


def await_answer(host: Host, release: Release) -> bool:
    """Wait until the engine answers, for as long as it may load; whether it does."""
    engine = Engine(host.system, release, api_key(host.paths, release))
    until = host.system.monotonic() + release.timing.load_deadline_s
    while engine.health().status != 200:
        if host.system.monotonic() >= until:
            return False
        host.system.sleep(POLL_S)
    return True


class Steps:
    """The steps on one host, each written into the journal before it's taken."""

    def __init__(self, host: Host, story: Chronicle) -> None:
        self._host = host
        self._system = host.system
        self._story = story
        self.load_s: float | None = None
        # The verdicts on each gate of the release that was started last.
        self._verdicts: dict[str, set[str]] = {}

    def drain(self, outgoing: Release | None, release: Release) -> None:
        """Leave the rotation and wait until no request is left; bounded, because the engine's shutdown waits too."""
        longest_s = release.timing.drain_s
        self._refuse_stranger(release, outgoing)
        self._story.enter(journal.DRAINING, f"waiting at most {longest_s:.0f} s for requests to end", longest_s)
        if release.rotation:
            self._story.enter(journal.DRAINING, rotation.take_out(self._host, release.rotation))
        if outgoing is None:
            return
        engine = Engine(self._system, outgoing, api_key(self._host.paths, outgoing))
        started = self._system.monotonic()
        # What was sent before whoever sends noticed may arrive after a look that found nothing.
        told = readiness(self._host.paths)
        calm, enough, notice_s = 0, 2 if release.rotation or told else 1, told.notice_s if told else 0.0
        while True:
            refused = engine.health().refused and not self._still_stopping()
            left = None if refused else in_flight(engine.metrics())
            waited = self._system.monotonic() - started
            calm = calm + 1 if left == 0 else 0
            if refused or (calm >= enough and waited >= notice_s) or waited >= longest_s:
                break
            self._system.sleep(POLL_S)
        if refused:
            outcome = "no engine answers, so no request can be lost"
        elif calm >= enough:
            outcome = f"no request left after {waited:.0f} s"
        else:
            counted = "its metrics can't be read" if left is None else f"{left:.0f} requests run or wait"
            outcome = f"gave up after {waited:.0f} s: {counted}"
        self._story.enter(journal.DRAINING, outcome)

    def _still_stopping(self) -> bool:
        """vLLM 0.26.0 closes its port within half a second of a SIGTERM, and answers what it had taken for a minute."""
        state = units.serve_state(self._system)
        return state is not None and state.active == "deactivating"

    def require_ready(self, release: Release, back: Release | None) -> None:
        """Stop nothing for a release that could not start, or from which no way leads back: since the order was given,
        the disk may have filled up, or Docker's image store may have been switched.
        """
        problem = unready(self._host, release, back)
        if problem:
            raise StepFailed(f"draining: {problem}")

    def stop(self, *releases: Release | None) -> None:
        """Stop whatever serves: the unit, and a container of that name that something else left behind."""
        known = [release for release in releases if release]
        patience = max(release.timing.unit_stop_s for release in known) + STOP_MARGIN_S
        self._story.enter(journal.STOPPING, f"systemctl stop {SERVE_UNIT}, at most {patience:.0f} s", patience)
        names = sorted({release.container.name for release in known})
        containers = self._containers(names)
        done = units.order(self._system, "stop", timeout=patience)
        state = units.serve_state(self._system)
        if not done.ok and done.rc != NOT_LOADED and not (state and state.stopped):
            raise StepFailed(f"stopping: {done.why}; look at `systemctl status {SERVE_UNIT}`")
        for name in names:
            if docker.container(self._system, name).found is None:
                continue
            removed = docker.remove(self._system, name)
            if not removed.ok and docker.container(self._system, name).found is not None:
                raise StepFailed(f"stopping: container {name} can't be removed: {removed.why}")
        said = orphans.end(self._host, containers)
        if said:
            self._story.enter(journal.STOPPING, said)

    def _containers(self, names: Iterable[str]) -> set[str]:
        """Ids of our containers: those that stand, and those that the journal saw."""
        standing = {docker.container(self._system, name).text("Id") for name in names}
        seen = {str(record["container"]) for record in journal.read(self._host.paths) if "container" in record}
        return seen | {container for container in standing if container}

    def _refuse_stranger(self, release: Release, outgoing: Release | None) -> None:
        """Say before anything stops that the new engine would find its port taken."""
        names = {one.container.name for one in (release, outgoing) if one}
        strangers = orphans.on_port(self._host, release.serve.port, self._containers(names))
        if strangers:
            raise StepFailed(_taken(release.serve.port, ", ".join(map(str, strangers))))

    def reclaim(self, release: Release) -> None:
        """Wait for the memory that the next start needs: a stopped container is not free memory yet."""
        longest = release.timing.memory_wait_s
        if release.utilization is None:
            self._story.enter(journal.RECLAIMING, "this release has no memory gate")
            return
        self._story.enter(journal.RECLAIMING, f"waiting at most {longest:.0f} s for memory", longest)
        came, figures = memory.wait(
            self._host, release.utilization, longest, lambda text: self._story.enter(journal.RECLAIMING, text)
        )
        if not came:
            raise StepFailed(f"reclaiming: memory did not come back: {figures}; nothing was started")
        self._story.enter(journal.RECLAIMING, figures)

    def switch(self, release: Release) -> None:
        self._story.enter(journal.SWITCHING, f"{SERVE_UNIT} and `current` become release {release.id}")
        changed = install(self._host, release)
        state = units.serve_state(self._system)
        # A reload can take the GPU away from running containers under hook injection (nvidia-container-toolkit#48), so
        # it happens here alone, while no engine runs, and only for a changed unit.
        if changed or state is None or state.reload_needed:
            done = reload(self._host)
            if not done.ok:
                raise StepFailed(f"switching: {done.why}; look at `systemctl status`")

    def start(self, release: Release) -> Watch:
        """Start the unit and wait until the engine answers; fail at once when it dies."""
        longest, why = self._load_deadline(release)
        note = f"systemctl start {SERVE_UNIT}, at most {longest:.0f} s to load{why}"
        self._story.enter(journal.STARTING, note, longest)
        engine = Engine(self._system, release, api_key(self._host.paths, release))
        self._await_free_port(engine, release)
        units.order(self._system, "reset-failed", timeout=ORDER_S)
        watch = Watch(self._host, release)
        done = units.order(self._system, "start", "--no-block", timeout=ORDER_S)
        if not done.ok:
            raise StepFailed(f"starting: {done.why}")
        self._await_ready(engine, release, watch, longest)
        self.load_s, self._verdicts = round(watch.age, 1), {}
        detail = f"the engine answers after {self.load_s:.0f} s"
        ready = GateResult("ready", self.load_s, longest, "s", PASS, detail)
        loaded, container = release.load_key, watch.container
        self._story.gate(journal.STARTING, ready, load_s=self.load_s, loaded=loaded, container=container)
        return watch

    def _load_deadline(self, release: Release) -> tuple[float, str]:
        """How long a start may take, and why: a new release is late when this host's known starts never took as long.

        The way back has all the time there is; nothing is left to go back to from it.
        """
        longest, factor = release.timing.load_deadline_s, release.timing.history_factor
        known = journal.loads(journal.read(self._host.paths), release.load_key)
        if self._story.going_back or not factor or not known:
            return longest, ""
        late = max(LEAST_DEADLINE_S, factor * max(known))
        return (late, f" ({factor:g} times the {max(known):.0f} s known here)") if late < longest else (longest, "")

    def _await_free_port(self, engine: Engine, release: Release) -> None:
        """Nothing but our engine may hold the port: two vLLM can share one and split the traffic between them."""
        state = units.serve_state(self._system)
        if state is None or not state.stopped:
            return
        until = self._system.monotonic() + PORT_CLEAR_S
        while not engine.health().refused:
            if self._system.monotonic() >= until:
                raise StepFailed(_taken(release.serve.port, "something"))
            self._system.sleep(POLL_S)

    def _await_ready(self, engine: Engine, release: Release, watch: Watch, longest: float) -> None:
        phase, looked = None, 0.0
        while True:
            death = watch.death()
            if death:
                raise self._died(f"starting: after {watch.age:.0f} s {death.reason}", death, "ready", watch)
            if watch.age - looked >= PHASE_LOOK_S:
                looked, known = watch.age, phase
                phase = phases.phase(watch.last_log(PHASE_LINES)) or phase
                if phase != known:
                    self._story.enter(journal.STARTING, f"{phase} after {watch.age:.0f} s", longest)
            answer = engine.health()
            if answer.status == 200 and watch.container is not None:
                return
            if watch.age >= longest:
                raise self._never_ready(answer.error or f"HTTP {answer.status}", release, watch, longest)
            self._system.sleep(POLL_S if watch.age < FIRST_POLLS_S else LATER_POLL_S)

    def _never_ready(self, said: str, release: Release, watch: Watch, longest: float) -> StepFailed:
        unseen = "" if watch.container is not None else f", and no container {release.container.name} was seen running"
        detail = f"/health gave {said} after {watch.age:.0f} s{unseen}, expected HTTP 200 within {longest:.0f} s"
        result = GateResult("ready", round(watch.age, 1), longest, "s", FAIL, detail)
        self._story.gate(journal.STARTING, result)
        # An engine that was never seen had no Docker or no GPU to start with, and a limit by this host's history is not
        # the release's own.
        own = watch.container is not None and longest >= release.timing.load_deadline_s
        return StepFailed(str(result), watch.last_log(), blame="ready" if own else None, again=watch.container is None)

    def prove(self, step: str, release: Release, watch: Watch) -> None:
        """Every gate once; the first that fails ends it."""
        engine = Engine(self._system, release, api_key(self._host.paths, release))
        subject = Subject(self._host, release, engine)
        for result in table.all_gates(subject, soaking=step == journal.SOAKING):
            self._story.gate(step, result)
            self._verdicts.setdefault(result.name, set()).add(result.verdict)
            death = self._last_look(engine, watch) if result.failed else watch.death()
            if death:
                message = f"{result}; {death.reason}" if result.failed else f"{step}: {death.reason}"
                raise self._died(message, death, result.name if result.failed else "alive", watch)
            if result.failed:
                raise StepFailed(str(result), blame=None if result.of_host else result.name)

    def soak(self, release: Release, watch: Watch) -> None:
        """Keep looking: an acceptance that decays passes every check that looks once."""
        timing = release.timing
        every = max(timing.soak_interval_s, POLL_S)
        note = f"{timing.soak_s:.0f} s, every gate again each {every:.0f} s"
        self._story.enter(journal.SOAKING, note, timing.soak_s)
        until = self._system.monotonic() + timing.soak_s
        while (left := until - self._system.monotonic()) > 0:
            self._rest(min(every, left), watch)
            self.prove(journal.SOAKING, release, watch)

    def unjudged(self, release: Release) -> str:
        """What the proof lacks where others were served at each look, for the line that ends the activation."""
        never = [name for name, verdicts in self._verdicts.items() if verdicts == {NOT_JUDGED}]
        if not never:
            return ""
        text = f"; NOT JUDGED, as other requests ran at each look: {', '.join(never)}"
        floor = release.watched.min_acceptance_rate if release.watched else None
        if floor is None or not any(name.startswith("acceptance-") for name in never):
            return text
        return f"{text}; of the acceptance only that it is no collapse (at least {100 * floor:g} %)"

    def vouch(self, release: Release) -> None:
        """Read from the system once more what `committed` promises: link, unit, enabled, container, image and port."""
        current = self._host.paths.linked("current")
        wrong = [one.text for one in standing(self._host, release)]
        wrong += [f"`current` names {current}"] if current != release.id else []
        answer = Engine(self._system, release, api_key(self._host.paths, release)).health()
        if answer.status != 200:
            wrong.append(f"port {release.serve.port} gave {answer.error or f'HTTP {answer.status}'}, expected HTTP 200")
        if wrong:
            raise StepFailed(f"committing: {'; '.join(wrong)}")

    def _rest(self, seconds: float, watch: Watch) -> None:
        until = self._system.monotonic() + seconds
        while (left := until - self._system.monotonic()) > 0:
            death = watch.death()
            if death:
                raise self._died(f"soaking: {death.reason}", death, "alive", watch)
            self._system.sleep(min(LATER_POLL_S, left))

    def _last_look(self, engine: Engine, watch: Watch) -> Death | None:
        """After a failed gate: is the engine dying? It gives its reason only once it's gone."""
        until = self._system.monotonic() + DYING_S
        while True:
            death = watch.death()
            if death or engine.health().status == 200 or self._system.monotonic() >= until:
                return death
            self._system.sleep(POLL_S)

    def _died(self, message: str, death: Death, blame: str, watch: Watch) -> StepFailed:
        if death.memory:
            message += " (it died for want of memory)"
        blamed = None if death.memory or death.from_outside else blame
        return StepFailed(message, death.log, blame=blamed, died=watch.container is not None, again=not death.memory)
