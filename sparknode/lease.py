"""Which roll-out works on this host, and until when.

A lease ends by itself when its owner died. Its token grows with each owner, so that what an earlier owner left running
can be told from what the present one does. A living worker keeps the lease of its roll-out even when it can't renew it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sparknode import journal, lock, parse
from sparknode.errors import LeaseHeld, StepFailed
from sparknode.files import atomic_write, read_text
from sparknode.journal import Record
from sparknode.system import Host

TTL_S = 60.0
# A worker's own lease lives by the worker; this is for the moment in which systemd starts a killed one again.
OWN_TTL_S = 10.0
OWN = "this host"
# A lease that ends later than it can was written while the clock was wrong.
CLOCK_SLACK_S = 60.0
_TRIES, _PAUSE_S = 50, 0.1


@contextmanager
def _alone(host: Host) -> Iterator[Record]:
    """The lease as it stands, while nobody else changes it."""
    path = host.paths.lease.with_suffix(".lock")
    for attempt in range(_TRIES):
        try:
            with lock.hold_file(path):
                yield _read(host)
            return
        except lock.Busy:
            if attempt == _TRIES - 1:
                raise LeaseHeld(
                    f"{path} is held by a process that does not go on; find it with `fuser {path}`"
                ) from None
            host.system.sleep(_PAUSE_S)


def _read(host: Host) -> Record:
    text = read_text(host.paths.lease)
    if text is None:
        return {"token": 0}
    found = parse.json_object(text)
    if isinstance(found.get("token"), int):
        return found
    # Nothing tells which tokens were given, and none was as large as this.
    return {"token": int(host.system.now())}


def _write(host: Host, lease: Record, ttl_s: float) -> Record:
    until = journal.timestamp(host.system.now() + ttl_s)
    new = {**lease, "ttl_s": ttl_s, "until": until}
    atomic_write(host.paths.lease, json.dumps(new).encode())
    return new


def _alive(host: Host, lease: Record) -> bool:
    now, until = host.system.now(), journal.seconds_of(lease.get("until"))
    latest = now + float(lease.get("ttl_s") or 0.0) + CLOCK_SLACK_S
    return lock.held(host.paths) or (until is not None and now < until <= latest)


def holder(host: Host) -> Record | None:
    """The lease that stands, or None when this host is free."""
    lease = _read(host)
    return lease if lease.get("rollout") and _alive(host, lease) else None


def _said(lease: Record) -> str:
    if not lease.get("rollout"):
        return "an activation is under way on this host; `sparknode status` shows it"
    return (
        f"roll-out {lease['rollout']} of {lease.get('operator')} works on this host since {lease.get('since')} "
        f"(from {lease.get('from')}, until {lease.get('until')}); wait for it, or until its lease ends"
    )


def require_free(host: Host, rollout: str) -> None:
    """Raise LeaseHeld when another roll-out works here."""
    lease = holder(host)
    if lease and lease["rollout"] != rollout:
        raise LeaseHeld(_said(lease))


def take(host: Host, rollout: str, operator: str, source: str, ttl_s: float) -> Record:
    """Take the lease or renew one's own; an expired one of somebody else is taken over, and the journal says so."""
    with _alone(host) as before:
        owner = before.get("rollout")
        if owner == rollout:
            return _write(host, before, ttl_s)
        if lock.held(host.paths) or (owner and _alive(host, before)):
            raise LeaseHeld(_said(before))
        now = host.system.now()
        new = {"token": before["token"] + 1, "rollout": rollout, "operator": operator, "from": source}
        if owner:
            note = f"lease {new['token']} taken over from roll-out {owner} of {before.get('operator')}"
            note += f", which ended at {before.get('until')} without being given back"
            journal.event(host.paths, now, "lease", rollout=rollout, operator=operator, note=note)
        return _write(host, {**new, "since": journal.timestamp(now)}, ttl_s)


def _require_own(lease: Record, rollout: str, token: int) -> None:
    # One's own lease that ended is still one's own until somebody else took it.
    if lease["token"] != token or lease.get("rollout") not in {rollout, None}:
        now = _said(lease) if lease.get("rollout") else "nobody holds the host now"
        raise LeaseHeld(
            f"lease {token} of roll-out {rollout} is not valid any more (token now {lease['token']}): {now}"
        )


def renew(host: Host, rollout: str, token: int, ttl_s: float | None = None, *, revive: bool = True) -> Record:
    """Extend one's own lease; LeaseHeld when it is somebody else's now.

    A worker goes on under a lease that its controller gave back (`revive`); the controller's own renewal, coming late,
    must not take it again.
    """
    with _alone(host) as lease:
        _require_own(lease, rollout, token)
        if not revive and not lease.get("rollout"):
            raise LeaseHeld(f"lease {token} of roll-out {rollout} was given back")
        return _write(host, {**lease, "rollout": rollout}, ttl_s or float(lease.get("ttl_s") or TTL_S))


def release(host: Host, rollout: str, token: int) -> None:
    """Give one's own lease back; only its token stays."""
    with _alone(host) as lease:
        _require_own(lease, rollout, token)
        atomic_write(host.paths.lease, json.dumps({"token": token}).encode())


def drop_own(host: Host) -> None:
    """After a boot no worker lives, and with it ended the lease that it had taken for itself."""
    with _alone(host) as lease:
        if lease.get("from") == OWN:
            atomic_write(host.paths.lease, json.dumps({"token": lease["token"]}).encode())


@dataclass
class Hold:
    """A worker's grip on the lease: renewed while it works, and asked before each step forward."""

    host: Host
    rollout: str
    token: int
    renewed: float = 0.0

    def check(self) -> None:
        """Renew, or fail the step when the host was given to a newer roll-out."""
        try:
            self.renewed = self.host.system.monotonic()
            renew(self.host, self.rollout, self.token)
        except LeaseHeld as problem:
            raise StepFailed(f"lease: {problem}", alive=True) from problem

    def keep(self) -> None:
        """Renew when it is time to; called while a step waits."""
        if self.host.system.monotonic() - self.renewed >= TTL_S / 3:
            self.check()


@contextmanager
def held_for(host: Host, rollout: str, operator: str, token: int | None) -> Iterator[Hold]:
    """The roll-out's own lease; without a token one is taken for the time being."""
    if token is not None:
        renew(host, rollout, token)
        yield Hold(host, rollout, token)
        return
    own = int(take(host, rollout, operator, OWN, OWN_TTL_S)["token"])
    try:
        yield Hold(host, rollout, own)
    except Exception:
        _give_up(host, rollout, own)
        raise
    _give_up(host, rollout, own)


def _give_up(host: Host, rollout: str, token: int) -> None:
    with suppress(LeaseHeld, OSError):
        release(host, rollout, token)
