"""One rollout at a time on a host: leases that a heartbeat keeps while this process lives."""

from __future__ import annotations

import gevent
from pyinfra import logger
from pyinfra.api import Host

from sparkfleet.node import remote
from sparkfleet.node.remote import ConnectionLost
from sparkfleet.rollout.fleet_run import FleetRun

# A host that loads an engine takes its time, and a connection that is taken for dead is closed under whatever uses it.
_ANSWER_S = 15
# By what a node's refusal says that somebody else has the host; anything else is a fault (`sparknode/state/lease.py`).
HELD = ("works on this host", "under way on this host")


def take(host: Host, run: FleetRun) -> bool:
    """Take the host's lease and keep it; a refusal stops the rollout before anything was touched."""
    ttl = str(run.pace.lease_ttl_s)
    owner = ["--rollout", run.rollout, "--operator", run.operator, "--from", remote.local_address(host)]
    try:
        answer = remote.ask(host, ["lease", "take", *owner, "--ttl", ttl])
        token = int((answer.document() or {})["token"]) if answer.ok else None
        run.progress.lease_held |= not answer.ok and any(words in answer.last_line for words in HELD)
        reason = answer.last_line
    except KeyError:
        token, reason = None, "the lease could not be taken: the node's answer is no lease"
    except (ConnectionLost, ValueError, TypeError) as error:
        token, reason = None, f"the lease could not be taken: {error}"
    if token is None:
        host.log_styled(reason, fg="red", log_func=logger.error)
        run.progress.stop(f"{host.name}: {reason}")
        return False
    run.progress.leases[host.name] = token
    gevent.spawn(_keep, host, run)
    return True


def give_back(host: Host, run: FleetRun) -> None:
    """Release the host's lease; one that cannot be given back ends by itself."""
    token = run.progress.leases.pop(host.name, None)
    if token is None:
        return
    try:
        remote.ask(host, ["lease", "release", *_own(run, token)])
    except ConnectionLost as error:
        host.log(f"the lease was not given back ({error}); it ends within {run.pace.lease_ttl_s} s")


def _keep(host: Host, run: FleetRun) -> None:
    """Renew the lease three times in each time-to-live until it is given back; a host that hangs delays no other."""
    interval = run.pace.lease_ttl_s / 3
    while host.name in run.progress.leases:
        gevent.sleep(interval)
        _renew(host, run, max(_ANSWER_S, int(interval)))


def _renew(host: Host, run: FleetRun, timeout_s: int) -> None:
    token = run.progress.leases.get(host.name)
    if token is None:
        return
    try:
        answer = remote.ask(host, ["lease", "renew", *_own(run, token), "--ttl", str(run.pace.lease_ttl_s)], timeout_s)
    except ConnectionLost:
        return
    if not answer.ok and host.name in run.progress.leases:
        run.progress.stop(f"{host.name}: the lease was lost: {answer.last_line}")


def _own(run: FleetRun, token: int) -> list[str]:
    return ["--rollout", run.rollout, "--token", str(token)]
