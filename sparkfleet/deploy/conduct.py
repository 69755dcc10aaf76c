"""The rollout itself: leases, waves, what follows from each, and the way back.

pyinfra calls one function on every host that changes; the first call conducts the whole rollout, and all of them wait
for its end. So a wave costs what its own hosts cost, however many others there are.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import gevent
from gevent.pool import Pool
from pyinfra import logger
from pyinfra.api import Host, State

from sparkfleet.deploy import hooks, session
from sparkfleet.node import activation, leases
from sparkfleet.report import live, record
from sparkfleet.rollout import canary
from sparkfleet.rollout.fleet_run import FleetRun, serving
from sparkfleet.rollout.verdict import Outcome, Verdict, judge, outcome_of
from sparkfleet.rollout.waves import next_back, obstacle
from sparkfleet.text import some

# For how long what hosts said of themselves holds, when staging, a hook or a pause came after it.
_HOLDS_S = 5.0
# How many hosts a second may be asked how they stand, and how many at once after a rest: a fleet whose waves take
# minutes is asked whole before each, and the number of questions grows with the time and not with waves times hosts.
_LOOKS_S, _LOOKS = 50.0, 400


def take_part(state: State, host: Host) -> bool:
    """Wait for the end of the rollout; return whether this host ended as asked."""
    run, found = session.run(), session.current()
    if found.conductor is None:
        # In a greenlet of its own: what ends the wait of one host must not end the rollout of all.
        found.conductor = gevent.spawn(RollOut(state, run).conduct)
    found.conductor.join()
    outcome = run.progress.outcomes.get(host.name)
    return outcome is not None and outcome.ok and host.name not in run.progress.taken_back


class RollOut:
    """One rollout over the hosts of its waves; whatever happens, it ends with the leases given back and a report."""

    def __init__(self, state: State, run: FleetRun) -> None:
        self.state, self.run, self.progress = state, run, run.progress
        # Reading the time at which hosts were asked lets a long staging count.
        self._looked = min((node.read_at or 0.0 for node in run.nodes.values()), default=0.0)
        self._looks, self._counted = float(_LOOKS), time.monotonic()

    def conduct(self) -> None:
        self.progress.begun = True
        keeper = gevent.spawn(self._keep_record)
        try:
            self._roll_out()
            self._take_back()
        except Exception as error:
            logger.error(traceback.format_exc())
            self.progress.stop(f"the tool failed: {type(error).__name__}: {error}")
        finally:
            self._together(self._give_back, list(self.progress.leases))
            keeper.kill()
        untouched = [name for wave in self.run.waves for name in wave if name not in self.progress.outcomes]
        if untouched:
            _tell(f"{some(untouched)}: not touched: the rollout stopped before")

    def _roll_out(self) -> None:
        run, progress = self.run, self.progress
        changing = [name for wave in run.waves for name in wave]
        active = {str(host.name) for host in self.state.inventory.get_active_hosts()}
        gone = [name for name in run.hosts if name not in active]
        if gone:
            progress.stop(f"{some(gone)} failed before the first wave and left the run")
            return
        self._ask("pre-rollout")
        if progress.stopped:
            return
        live.begin(run)
        self._together(lambda name: leases.take(self._host(name), run), changing)
        for number, wave in enumerate(run.waves, start=1):
            if not self._may_start(number):
                return
            _tell(f"Wave {number} of {len(run.waves)}: {some(wave)}")
            self._together(self._activate, wave)
            progress.verdicts[number] = verdict = self._conclude(number)
            if verdict.stop is not None:
                progress.stop(verdict.stop)

    def _may_start(self, number: int) -> bool:
        """Ask hosts and hooks whether this wave may start; a hook may take minutes, so what hosts said has an age."""
        if number > 1:
            self._pause()
        self._check(number, 0 if number > 1 else _HOLDS_S)
        if not self.progress.stopped:
            self._ask("pre-wave", number)
        self._check(number, _HOLDS_S)
        return not self.progress.stopped

    def _check(self, number: int, holds_s: float) -> None:
        """Stop where this wave would leave too few serving, judged by what hosts said less than so long ago."""
        if self.progress.stopped:
            return
        wave = self.run.waves[number - 1]
        if time.time() - self._looked > holds_s:
            self._look_round(wave)
        reason = obstacle(wave, serving(self.run), self.run.pace)
        if reason:
            self.progress.stop(reason)

    def _activate(self, name: str) -> None:
        outcome = self._try_activation(name, self.run.wanted(name))
        self.progress.outcomes[name] = outcome
        if not outcome.ok:
            self._host(name).log_styled(outcome.text(), fg="red", log_func=logger.error)
            self._give_back(name)

    def _try_activation(self, name: str, release: str) -> Outcome:
        try:
            return activation.activate(self._host(name), self.run, release)
        # What was not foreseen leaves the host in a state that nobody knows, which is a failure.
        except Exception as error:
            logger.error(traceback.format_exc())
            return Outcome("no answer", f"the tool failed here: {type(error).__name__}: {error}")

    def _conclude(self, number: int) -> Verdict:
        """Judge the wave by what its hosts report and by the canary's figures, and hear the operator's hook."""
        run, wave = self.run, self.run.waves[number - 1]
        committed = [name for name in wave if name in self.progress.outcomes and self.progress.outcomes[name].ok]
        answered = self._look(committed)
        for name in committed:
            ended = outcome_of(run.status(name), run.rollout, run.wanted(name))
            silent = Outcome("no answer", "it committed the release, and has not answered since")
            self.progress.outcomes[name] = (ended or self.progress.outcomes[name]) if name in answered else silent
        self.progress.comparison += canary.comparison(run, number)
        verdict = judge(self.progress, wave, run.pace)
        if verdict.stop is None:
            self._ask("post-wave", number)
            verdict = Verdict(self.progress.stopped)
        return verdict

    def _take_back(self) -> None:
        """Roll back who shall, newest wave first, with the promises of going forward: never too many out at once."""
        run, progress = self.run, self.progress
        asked = {name for verdict in progress.verdicts.values() for name in verdict.take_back}
        left = [[name for name in wave if name in asked] for wave in run.waves]
        while any(left) and not progress.interrupted:
            self._look(list(run.nodes))
            wave, reason = next_back(left, serving(run), run.pace)
            if reason:
                progress.stayed = f"{sum(map(len, left))} hosts keep the new release: {reason}"
                _tell(progress.stayed)
                return
            _tell(f"Rolling back {some(wave)}")
            self._together(self._activate_previous, wave)
            left = [[name for name in before if name not in wave] for before in left]
            if not all(progress.taken_back[name].ok for name in wave):
                return

    def _activate_previous(self, name: str) -> None:
        host, previous = self._host(name), self.progress.previous(name)
        if previous is None:
            return
        outcome = self._try_activation(name, previous)
        activation.look(host, self.run)
        self.progress.taken_back[name] = outcome
        if not outcome.ok:
            host.log_styled(f"could not roll back: {outcome.text()}", fg="red", log_func=logger.error)

    def _give_back(self, name: str) -> None:
        leases.give_back(self._host(name), self.run)

    def _ask(self, moment: hooks.Moment, wave: int | None = None) -> None:
        veto = hooks.call(self.run, moment, wave)
        if veto:
            self.progress.stop(veto)

    def _pause(self) -> None:
        until = time.monotonic() + self.run.pace.pause_between_waves_s
        while time.monotonic() < until and not self.progress.stopped:
            gevent.sleep(min(0.2, max(0.0, until - time.monotonic())))

    def _look_round(self, wave: Sequence[str]) -> None:
        """Read how every host stands, or, where all were asked a moment ago, at least those that are next."""
        now = time.monotonic()
        self._looks, self._counted = min(_LOOKS, self._looks + (now - self._counted) * _LOOKS_S), now
        everybody = self._looks >= len(self.run.nodes)
        self._look(list(self.run.nodes) if everybody else wave)
        if everybody:
            self._looked = time.time()

    def _look(self, names: Sequence[str]) -> set[str]:
        """Read how these hosts stand, all at once; return those that answered. One that does not is down."""
        self._looks -= len(names)
        answered: set[str] = set()

        def look(name: str) -> None:
            if activation.look(self._host(name), self.run):
                answered.add(name)
            else:
                self.run.nodes[name].status = replace(self.run.status(name), serving=None)

        self._together(look, names)
        return answered

    def _together(self, act: Callable[[str], object], names: Iterable[str]) -> None:
        """Do something on hosts at the same time, as many at once as pyinfra was allowed."""
        pool = Pool(self.state.config.PARALLEL)
        working = [pool.spawn(act, name) for name in names]
        gevent.joinall(working)
        for one in working:
            one.get()

    def _host(self, name: str) -> Host:
        found: Host = self.state.inventory.get_host(name)
        return found

    def _keep_record(self) -> None:
        """Write down how the run stands while hosts are at work; the end and an interruption write it once more."""
        written = None
        while True:
            now = (len(self.progress.outcomes), len(self.progress.verdicts), len(self.progress.taken_back))
            if now != written:
                record.write(self.run)
                written = now
            gevent.sleep(1)


def _tell(text: str) -> None:
    """A step of the rollout, which quiet mode prints as well."""
    logger.info(f"--> {text}", extra={"step": True})
