"""One model from the hosts that have it to those that lack it: who gives, who takes, by which engine, until when.

The nodes do the work (`sparknode sync`); here it is decided, watched and ended. Nothing in here knows pyinfra.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import gevent
from gevent import Greenlet

from sparkfleet.errors import FleetError
from sparkfleet.node.remote import Answer, ConnectionLost
from sparknode.base.shape import Node, written
from sparknode.errors import Refused
from sparknode.models.manifest import Manifest
from sparknode.models.requests import SpreadOrder, SpreadReport, SpreadRequest

# A host answers after this time, or once it has all. Who gives is asked too, so that it knows that somebody watches.
LOOK_S = 5.0
ANSWER_S = 30
END_S = 20.0
TURNS = 3
Engine = Literal["swarm", "rsync"]
Say = Callable[[str], None]


class Peer(Protocol):
    """A host as this module needs it."""

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str | None:
        """The IPv4 address under which it was reached, if that is known."""

    def call(self, arguments: Sequence[str], stdin: str | None = None, timeout_s: int | None = None) -> Answer:
        """Run the node's program there; raises ConnectionLost."""


@dataclass(frozen=True)
class Ways:
    """How models travel between hosts: seconds, bytes a second (0: no limit)."""

    distribution: Literal["auto", "swarm", "rsync"] = "auto"
    subnet: str | None = None
    port: int = 6891
    limit_bytes_s: float = 0
    stall_s: float = 60
    deadline_s: float = 7200
    reserve_bytes: int = 0


@dataclass
class Seat:
    """A host's part in one spread, and what it said last."""

    peer: Peer
    look: SpreadReport
    address: str
    work: Greenlet | None = None
    problem: str | None = None

    @property
    def done(self) -> int:
        return int(self.look.progress.done) if self.look.progress else 0


def look(peer: Peer, wait_s: float = 0) -> SpreadReport:
    """Return what a host says of itself, at the latest after this time; raises FleetError."""
    try:
        answer = peer.call(["sync", "look", "--wait", str(wait_s)], timeout_s=ANSWER_S)
    except ConnectionLost as error:
        raise FleetError(f"{peer.name}: {error}") from None
    document = answer.document() if answer.ok else None
    if document is None:
        raise FleetError(f"{peer.name}: {answer.last_line}")
    try:
        return Node(document, "sync look").build(SpreadReport)
    except Refused as refused:
        raise FleetError(f"{peer.name}: {refused}") from None


def address_of(addresses: Sequence[str], reached: str | None, subnet: str | None) -> str:
    """Return the address to use between hosts; raises FleetError when none is in the subnet."""
    found = [address for address in addresses if not address.startswith("127.")]
    if subnet is None:
        # Of several the right one is not known where the host was not reached under one of them: a jump host, NAT.
        wanted = [reached] if reached in found else found
        if len(wanted) > 1:
            raise FleetError(
                f"which of {', '.join(found)} other hosts reach is not known",
                "the network between the hosts",
                'set spread_subnet, e.g. spread_subnet = "192.168.100.0/24"',
            )
    else:
        wanted = [one for one in found if ipaddress.ip_address(one) in ipaddress.ip_network(subnet)]
    if not wanted or wanted[0] is None:
        raise FleetError(f"no address in {subnet or 'any network'}, only {', '.join(found) or 'none'}")
    return wanted[0]


def choose(ways: Ways, tools: Sequence[Sequence[str]], takers: int) -> Engine:
    """Return the engine: a swarm pays from two takers on, where every host can join it."""
    if ways.distribution != "auto":
        return ways.distribution
    return "swarm" if takers > 1 and all("swarm" in one for one in tools) else "rsync"


def spread(manifest: Manifest, holders: Sequence[Peer], takers: Sequence[Peer], ways: Ways, say: Say) -> dict[str, str]:
    """Bring a model from holders to takers; return why it did not come, by host. Afterwards nothing gives any more."""
    problems: dict[str, str] = {}
    givers = _seats(holders, ways, {}, say)
    taking = _seats(takers, ways, problems, say)
    if not givers:
        return {peer.name: "no host that has it can be reached" for peer in takers}
    engine = choose(ways, [seat.look.tools for seat in (*givers, *taking)], len(taking))
    for seat in (*givers, *taking):
        if ways.distribution == "auto" and engine == "rsync" and len(taking) > 1 and "swarm" not in seat.look.tools:
            say(f"{seat.peer.name}: aria2c is not installed, so this goes by rsync and slower; apt install aria2")
    if engine == "swarm":
        _swarm(manifest, givers, taking, ways, say)
        late = [seat for seat in taking if seat.problem]
        if late and ways.distribution == "auto":
            say(f"{', '.join(seat.peer.name for seat in late)}: {late[0].problem}; trying rsync")
            _by_rsync(manifest, [*givers, *(seat for seat in taking if not seat.problem)], late, ways, say)
    else:
        _by_rsync(manifest, givers, taking, ways, say)
    return problems | {seat.peer.name: seat.problem for seat in taking if seat.problem}


def _seats(peers: Sequence[Peer], ways: Ways, problems: dict[str, str], say: Say) -> list[Seat]:
    def seat(peer: Peer) -> Seat | None:
        try:
            seen = look(peer)
            return Seat(peer, seen, address_of(seen.addresses, peer.address, ways.subnet))
        except FleetError as error:
            problems[peer.name] = error.text()
            say(f"{peer.name} takes no part: {error.found}")
            return None

    found = [gevent.spawn(seat, peer) for peer in peers]
    gevent.joinall(found)
    return [one.value for one in found if one.value is not None]


def _swarm(manifest: Manifest, givers: list[Seat], takers: list[Seat], ways: Ways, say: Say) -> None:
    text = json.dumps(written(manifest))
    for giver in givers:
        try:
            made = giver.peer.call(["sync", "torrent"], stdin=text)
        except ConnectionLost:
            continue
        if made.ok:
            break
    else:
        for seat in takers:
            seat.problem = "no host that has it could make its torrent"
        return
    peers = [seat.address for seat in (*givers, *takers)]
    _work(manifest, givers, takers, ways, say, peers, made.stdout.strip())


def _by_rsync(manifest: Manifest, givers: list[Seat], takers: list[Seat], ways: Ways, say: Say) -> None:
    """Each taker from one giver; whoever failed tries the next one."""
    for turn in range(min(len(givers), TURNS)):
        groups: dict[int, list[Seat]] = {}
        left = [seat for seat in takers if turn == 0 or seat.problem]
        for number, seat in enumerate(left):
            groups.setdefault((number + turn) % len(givers), []).append(seat)
        gevent.joinall(
            [
                gevent.spawn(_work, manifest, [givers[index]], group, ways, say, None, None)
                for index, group in groups.items()
            ]
        )


def _work(
    manifest: Manifest,
    givers: list[Seat],
    takers: list[Seat],
    ways: Ways,
    say: Say,
    peers: list[str] | None,
    torrent: str | None,
) -> None:
    """Start everybody, watch until every taker has ended or has all, and end everybody."""

    def run(seat: Seat, role: str) -> str | None:
        others = [one.address for one in (takers if role == "give" else givers)]
        order = SpreadOrder(
            *(role, torrent, seat.address, tuple(peers or others)),
            *(ways.port, ways.limit_bytes_s, ways.stall_s, ways.deadline_s, ways.reserve_bytes),
        )
        request = json.dumps(written(SpreadRequest(manifest, order)))
        try:
            answer = seat.peer.call(["sync", "share"], request)
        except ConnectionLost as lost:
            return str(lost)
        return None if answer.ok else answer.last_line or "it ended without a word"

    for seat in givers:
        seat.work = gevent.spawn(run, seat, "give")
    for seat in takers:
        seat.problem, seat.look = None, replace(seat.look, progress=None)
        seat.work = gevent.spawn(run, seat, "take")
    try:
        _watch(manifest.repo, manifest.total_bytes, givers, takers, ways, say)
    finally:
        _end([*givers, *takers])
    for seat in takers:
        ended = seat.work is not None and seat.work.ready()
        seat.problem = seat.work.value if seat.work is not None and ended else "it did not end in time"


def _watch(what: str, total: int, givers: list[Seat], takers: list[Seat], ways: Ways, say: Say) -> None:
    began = time.monotonic()

    def glance(seat: Seat) -> None:
        try:
            seat.look = look(seat.peer, LOOK_S)
        except FleetError:
            gevent.sleep(LOOK_S)  # its own command says how it ended

    while True:
        pending = [seat for seat in takers if seat.work is not None and not seat.work.ready() and seat.done < total]
        if not pending or time.monotonic() - began > ways.deadline_s:
            return
        looks = [gevent.spawn(glance, seat) for seat in (*pending, *givers)]
        works = [seat.work for seat in pending if seat.work is not None]
        # As soon as all have it: those that give would make everybody wait.
        gevent.joinall([gevent.spawn(_either, one, other) for one, other in zip(looks, works, strict=False)])
        for line in progress(what, total, takers, time.monotonic() - began):
            say(line)


def _either(one: Greenlet, other: Greenlet) -> None:
    gevent.wait([one, other], count=1)


def progress(what: str, total: int, takers: list[Seat], seconds: float) -> list[str]:
    """Return how far everybody is: the fleet, then the hosts that are still at it."""
    done = [
        total if seat.work is not None and seat.work.ready() and not seat.work.value else seat.done for seat in takers
    ]
    rate = sum(done) / max(seconds, 1e-3)
    left = f", {(total * len(takers) - sum(done)) / rate:.0f} s left" if rate > 0 else ""
    whole = sum(count >= total for count in done)
    amount = f"{sum(done) / 1e9:.2f} of {total * len(takers) / 1e9:.2f} GB, {rate / 1e6:.0f} MB/s{left}"
    lines = [f"{what}: {whole} of {len(takers)} hosts have all, {amount}"]
    for seat, count in zip(takers, done, strict=True):
        if count < total:
            now = seat.look.progress.rate if seat.look.progress else 0
            lines.append(f"  {seat.peer.name}: {count / 1e9:.2f} GB, {now / 1e6:.0f} MB/s")
    return lines


def _end(seats: list[Seat]) -> None:
    def stop(seat: Seat) -> None:
        # More than once: one that has only just begun cannot hear it yet.
        until = time.monotonic() + END_S
        while seat.work is not None and not seat.work.ready() and time.monotonic() < until:
            try:
                seat.peer.call(["sync", "stop"], timeout_s=ANSWER_S)
            except ConnectionLost:
                return  # it ends by itself when nobody asks any more
            seat.work.join(timeout=1)

    running = [seat for seat in seats if seat.work is not None and not seat.work.ready()]
    gevent.joinall([gevent.spawn(stop, seat) for seat in running])
