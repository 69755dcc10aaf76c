"""The roll-out as pyinfra runs it: leases, the waves' activations, and what follows from each wave.

pyinfra passes state and host to a function whose parameters have these two names, and takes its result as success.
Every function runs on all its hosts at the same time; what concerns the whole run is decided once, by whichever host
comes first, while the others wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import gevent
from gevent.lock import BoundedSemaphore
from pyinfra import logger
from pyinfra.api import Host, State

from sparkfleet import activation, guard, hooks, lease, live, record
from sparkfleet.compare import comparable, compare
from sparkfleet.fleet import FleetRun, is_canary, serves
from sparkfleet.rollout import Verdict, judge, outcome_of
from sparkfleet.waves import obstacle

# For how long what hosts said of themselves holds, when a hook or a pause came after it.
_HOLDS_S = 5.0
_deciding = BoundedSemaphore()


def take_lease(state: State, host: Host) -> bool:
    """Take the host's lease; from here on this module decides how many failed hosts end the run, and not pyinfra."""
    run = guard.run()
    state.config.FAIL_PERCENT = 100
    with _deciding:
        if not run.progress.begun:
            run.progress.begun = True
            _ask(run, "pre-rollout")
            if run.progress.stopped is None:
                run.progress.opened.add(0)
                live.begin(run)
            _keep_record(run)
    return 0 in run.progress.opened and lease.take(host, run)


def _keep_record(run: FleetRun) -> None:
    """Write down how the run stands while the hosts are at work; the end and an interruption write it once more."""
    gevent.spawn(record.write, run)


def _ask(run: FleetRun, moment: hooks.Moment, wave: int | None = None) -> None:
    veto = hooks.call(run, moment, wave)
    if veto:
        run.progress.stop(veto)


def activate(state: State, host: Host, wave: int) -> bool:  # noqa: ARG001
    run = guard.run()
    with _deciding:
        if wave not in run.progress.opened:
            run.progress.opened.add(wave)
            _ask(run, "pre-wave", wave)
    if run.progress.stopped:
        return True
    outcome = activation.activate(host, run, run.wanted(host.name))
    run.progress.outcomes[host.name] = outcome
    if not outcome.ok:
        host.log_styled(outcome.text(), fg="red", log_func=logger.error)
        lease.give_back(host, run)
    return outcome.ok


def conclude(state: State, host: Host, wave: int) -> bool:
    """Do what follows from a wave on this host: go on, go back, or leave."""
    run = guard.run()
    with _deciding:
        if wave not in run.progress.verdicts:
            run.progress.verdicts[wave] = _decide(state, run, wave)
            _keep_record(run)
    verdict = run.progress.verdicts[wave]
    if host.name in verdict.take_back:
        _take_back(host, run)
    if verdict.stop is not None:
        return leave(state, host)
    if wave == len(run.waves):
        lease.give_back(host, run)
    return True


def leave(state: State, host: Host) -> bool:
    """End the run on this host: it keeps what it serves. Fails where that is not what the run was to bring."""
    run = guard.run()
    # A stopped roll-out is nothing to confirm, and the next operation must not start.
    state.config.FAIL_PERCENT = 0
    state.should_raise_failed_hosts = None
    lease.give_back(host, run)
    if host.name not in run.progress.outcomes:
        host.log_styled("not touched: the roll-out stopped before this host", fg="yellow")
        return False
    return host.name not in run.progress.taken_back


def _decide(state: State, run: FleetRun, number: int) -> Verdict:
    wave, follows = run.waves[number - 1], number < len(run.waves)
    committed = [name for name in wave if name in run.progress.outcomes and run.progress.outcomes[name].ok]
    # One round for the figures of this wave and for who serves before the next.
    looked, answering = time.monotonic(), _look(state, run, run.nodes if follows else committed)
    for name in committed:
        run.progress.outcomes[name] = (
            outcome_of(run.fleet_of(name), run.rollout, run.wanted(name)) or run.progress.outcomes[name]
        )
    _compare(run, number)
    verdict = judge(run.progress, wave, run.pace)
    if verdict.stop is None:
        _ask(run, "post-wave", number)
        verdict = Verdict(run.progress.stopped)
    if verdict.stop is None and follows:
        _pause(run)
        if time.monotonic() - looked > _HOLDS_S:
            answering = _look(state, run, run.nodes)
        serving = {name: name in answering and serves(node) for name, node in run.nodes.items()}
        verdict = Verdict(run.progress.stopped or obstacle(run.waves[number], serving, run.pace))
    if verdict.stop is not None:
        run.progress.stop(verdict.stop)
    return verdict


def _pause(run: FleetRun) -> None:
    until = time.monotonic() + run.pace.pause_between_waves_s
    while time.monotonic() < until and not run.progress.stopped:
        gevent.sleep(min(0.2, max(0.0, until - time.monotonic())))


def _look(state: State, run: FleetRun, names: Iterable[str]) -> set[str]:
    """Read how these hosts stand, all at once; return those that answered."""
    looks = {name: gevent.spawn(activation.look, state.inventory.get_host(name), run) for name in names}
    gevent.joinall(list(looks.values()))
    return {name for name, one in looks.items() if one.value}


def _compare(run: FleetRun, number: int) -> None:
    """Lay the figures of a first wave, or of canaries, beside those of the old release.

    Going back and restarting are not judged like this: both are done because something is wrong already.
    """
    if run.intent != "deploy":
        return
    wave = run.waves[number - 1]
    for name in wave:
        plan, outcome = run.hosts[name], run.progress.outcomes.get(name)
        if not outcome or not outcome.ok or not (number == 1 or is_canary(plan)):
            continue
        old = run.progress.before[name]
        if not comparable(old.get("release"), plan.release):
            continue
        controls = [
            (fleet.get("proof") or {}).get("figures") or {}
            for other in run.nodes
            if other not in run.progress.outcomes
            and serves(run.nodes[other])
            and (fleet := run.fleet_of(other)).get("verified") not in (None, run.wanted(name))
            and comparable(fleet.get("release"), plan.release)
        ]
        before = (old.get("proof") or {}).get("figures") or {}
        run.progress.comparison += compare(name, _figures(run, name), before, controls, _margins(run, name))


def _figures(run: FleetRun, name: str) -> dict[str, object]:
    proof = run.fleet_of(name).get("proof") or {}
    if proof.get("release") == run.wanted(name):
        return dict(proof.get("figures") or {})
    return dict(run.progress.outcomes[name].figures)


def _margins(run: FleetRun, name: str) -> dict[str, float]:
    """Return what the profile allows. Nothing is judged on the catalogue's own way back: it is taken because the newer
    image is worse, whatever the figures of its best days.
    """
    plan = run.hosts[name]
    old = str((run.progress.before[name].get("release") or {}).get("image_tag"))
    going_back = plan.release["image_tag"] in plan.settings.catalog().ways_back(old)
    if going_back or not run.pace.judge_canary:
        return {}
    margins: dict[str, float] = plan.compiled.recipe.gates.compare.model_dump(exclude_none=True)
    return margins


def _take_back(host: Host, run: FleetRun) -> None:
    previous = run.progress.previous(host.name)
    if previous is None:
        return
    host.log_styled(f"going back to release {previous}", fg="yellow")
    outcome = activation.activate(host, run, previous)
    activation.look(host, run)
    run.progress.taken_back[host.name] = outcome
    if not outcome.ok:
        host.log_styled(f"could not go back: {outcome.text()}", fg="red", log_func=logger.error)
