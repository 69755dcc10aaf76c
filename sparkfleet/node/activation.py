"""Activating a release on one host, through lost connections: the node does the work, this end asks until it knows."""

from __future__ import annotations

import time

import gevent
from pyinfra import logger
from pyinfra.api import Host

from sparkfleet.node import remote
from sparkfleet.node.remote import ConnectionLost
from sparkfleet.rollout.fleet_run import FleetRun
from sparkfleet.rollout.verdict import Outcome, outcome_of, under_way

# How often a connection may die, or a worker end without an outcome, before the host counts as failed.
TRIES = 5
# After a boot, or after a worker's death, the node takes a moment until something of it goes on.
TAKE_OVER_S = 60.0
_LOOK_S = 2.0


def activate(host: Host, run: FleetRun, release: str) -> Outcome:
    """Bring the host to the release, and know how it ended; the figures of one that is committed come with `look`.

    `sparknode activate` attaches to what is under way, so it is called again after a lost connection; never before the
    node was asked, because it may have ended in the meantime.
    """
    problem = ""
    for attempt in range(TRIES):
        try:
            if attempt:
                _wait_for_a_worker(host, run, release)
                ended = outcome_of(run.status(host.name), run.rollout, release)
                if ended:
                    return ended
            answer = remote.call(host, _arguments(host, run, release), show=True)
            if answer.ok:
                return Outcome("committed")
            _look(host, run)
        except ConnectionLost as lost:
            problem = f"the connection was lost ({lost})"
            host.log_styled(f"{problem}; the node goes on by itself, connecting again", fg="yellow")
            if not remote.reconnect(host, lost):
                break
            continue
        ended = outcome_of(run.status(host.name), run.rollout, release)
        if ended:
            return ended
        problem = answer.last_line
        if not under_way(run.status(host.name), release):
            return Outcome("refused", problem)
    return Outcome("no answer", f"{problem}; the node finishes or rolls back on its own; `tasks/status.py` shows how")


def look(host: Host, run: FleetRun) -> bool:
    """Read the host's state again; return whether it answered."""
    try:
        return _look(host, run)
    except ConnectionLost as lost:
        host.log_styled(f"no answer: {lost}", fg="yellow", log_func=logger.warning)
        return False


def _look(host: Host, run: FleetRun) -> bool:
    status = remote.status(host)
    if status:
        run.nodes[host.name].status = status
    return status is not None


def _wait_for_a_worker(host: Host, run: FleetRun, release: str) -> None:
    until = time.monotonic() + TAKE_OVER_S
    while True:
        _look(host, run)
        activation = under_way(run.status(host.name), release)
        if not activation or activation.alive or time.monotonic() > until:
            return
        gevent.sleep(_LOOK_S)


def _arguments(host: Host, run: FleetRun, release: str) -> list[str]:
    arguments = ["activate", release, "--rollout", run.rollout, "--operator", run.operator]
    token = run.progress.leases.get(host.name)
    if token is not None:
        arguments += ["--token", str(token)]
    if run.intent in ("rollback", "restart") and release == run.wanted(host.name):
        arguments += ["--intent", run.intent]
    retry = run.hosts[host.name].settings.retry_release
    return [*arguments, "--retry-release", retry] if retry else arguments
