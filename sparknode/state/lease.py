"""Which rollout works on this host, and until when.

A lease ends by itself when its owner died. Its token grows with each owner, so that what an earlier owner left running
can be told from what the present one does. It is asked for once, when an activation is ordered: from then on the order
itself keeps everybody else away.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from sparknode.base import locks, parse
from sparknode.base.files import atomic_write, read_text
from sparknode.base.system import Host
from sparknode.errors import LeaseHeld
from sparknode.state import journal, orders
from sparknode.state.journal import Record

TTL_S = 60.0
# A lease that ends later than it can was written while the clock was wrong.
CLOCK_SLACK_S = 60.0
# Whoever changes the lease is done within two writes, also where those wait for a disk.
_CHANGE_S = 15.0


@contextmanager
def alone(host: Host) -> Iterator[Record]:
    """The lease as it stands, while nobody else changes it."""
    path = host.paths.lease.with_suffix(".lock")
    try:
        with locks.hold_file(path, "a change of the lease", _CHANGE_S, host.system.sleep):
            yield _read(host)
    except locks.Busy as busy:
        raise LeaseHeld(f"{busy}; if it does not end, find it with `fuser {path}`") from None


def _read(host: Host) -> Record:
    text = read_text(host.paths.lease)
    if text is None:
        return {"token": 0}
    found = parse.json_object(text)
    if isinstance(found.get("token"), int):
        return found
    # Nothing tells which tokens were given, and none was as large as this.
    return {"token": int(host.system.now())}


def _write(host: Host, lease: Record, ttl_s: float | None) -> Record:
    ttl_s = ttl_s or TTL_S
    until = journal.timestamp(host.system.now() + ttl_s)
    new = {**lease, "ttl_s": ttl_s, "until": until}
    atomic_write(host.paths.lease, json.dumps(new).encode())
    return new


def _alive(host: Host, lease: Record) -> bool:
    """Does a rollout hold this lease? One whose activation is under way does, however late its renewal is."""
    if not lease.get("rollout"):
        return False
    working = orders.pending(host.paths)
    now, until = host.system.now(), journal.seconds_of(lease.get("until"))
    latest = now + float(lease.get("ttl_s") or 0.0) + CLOCK_SLACK_S
    return (working is not None and working.rollout == lease["rollout"]) or (
        until is not None and now < until <= latest
    )


def holder(host: Host) -> Record | None:
    """The lease that stands, or None when this host is free."""
    lease = _read(host)
    return lease if _alive(host, lease) else None


def _said(lease: Record) -> str:
    return (
        f"rollout {lease['rollout']} of {lease.get('operator')} works on this host since {lease.get('since')} "
        f"(from {lease.get('from')}, until {lease.get('until')}); wait for it, or until its lease ends"
    )


def require_free(host: Host, rollout: str, lease: Record | None = None) -> None:
    """Raise LeaseHeld when another rollout works here."""
    lease = lease or _read(host)
    if lease.get("rollout") != rollout and _alive(host, lease):
        raise LeaseHeld(_said(lease))


def take(host: Host, rollout: str, operator: str, source: str, ttl_s: float | None = None) -> Record:
    """Take the lease or renew one's own; an expired one of somebody else is taken over, and the journal says so."""
    with alone(host) as before:
        owner = before.get("rollout")
        if owner == rollout:
            return _write(host, before, ttl_s)
        require_free(host, rollout, before)
        working = orders.pending(host.paths)
        if working:
            orders.resume(host)
            raise LeaseHeld(f"{working} is under way on this host; wait for its end: `sparknode status` shows it")
        now = host.system.now()
        new = {"token": before["token"] + 1, "rollout": rollout, "operator": operator, "from": source}
        if owner:
            note = f"lease {new['token']} taken over from rollout {owner} of {before.get('operator')}"
            note += f", which ended at {before.get('until')} without being given back"
            journal.event(host.paths, now, "lease", rollout=rollout, operator=operator, note=note)
        return _write(host, {**new, "since": journal.timestamp(now)}, ttl_s)


def require_own(lease: Record, rollout: str, token: int) -> None:
    """Raise LeaseHeld unless this is the lease of that rollout; one that ended is still its owner's until taken."""
    if lease["token"] != token or lease.get("rollout") != rollout:
        gone = lease["token"] == token and not lease.get("rollout")
        now = _said(lease) if lease.get("rollout") else "no one holds the host now"
        what = "was given back" if gone else f"is not valid any more (token now {lease['token']})"
        raise LeaseHeld(f"lease {token} of rollout {rollout} {what}: {now}")


def renew(host: Host, rollout: str, token: int, ttl_s: float | None = None) -> Record:
    """Extend one's own lease; LeaseHeld when it is somebody else's now, or was given back."""
    with alone(host) as lease:
        require_own(lease, rollout, token)
        return _write(host, lease, ttl_s)


def release(host: Host, rollout: str, token: int) -> None:
    """Give one's own lease back; only its token stays."""
    with alone(host) as lease:
        if lease.get("rollout") is None and lease["token"] == token:
            return
        require_own(lease, rollout, token)
        atomic_write(host.paths.lease, json.dumps({"token": token}).encode())
