"""Readiness on or off: where it is answered, and the unit that does it."""

from __future__ import annotations

import ipaddress
import json

from sparknode.base.files import atomic_write
from sparknode.base.http import Request
from sparknode.base.paths import READY_UNIT
from sparknode.base.shape import written
from sparknode.base.system import Host, Tell
from sparknode.errors import Failed, Refused
from sparknode.host import addresses
from sparknode.readiness.answer import is_ours
from sparknode.state.releases import load_linked
from sparknode.state.status import Readiness

ORDER_S = 60.0
# By when it answers, which takes a start of Python and a look at the host, and how long one answer may take.
ANSWER_S, ASK_S, PAUSE_S = 20.0, 5.0, 0.5


def turn_on(host: Host, port: int, network: str | None, notice_s: float, tell: Tell) -> int:
    """Answer on this port from now on and after each boot; raises Refused for the engine's own port.

    A program that answers already takes up its new settings by itself: told to end, it would call this host draining.
    """
    current = load_linked(host.paths, "current")
    if current and current.serve.port == port:
        raise Refused(f"port {port} is the engine's own; give readiness_port another one")
    place = address(host, network)
    atomic_write(host.paths.readiness, json.dumps(written(Readiness(port, network, notice_s))).encode())
    # Ordered after the engine's unit, which may be starting for minutes, it would be waited for.
    for verb in (("enable", "--no-reload"), ("start", "--job-mode=ignore-dependencies")):
        done = host.system.run(["systemctl", *verb, "--quiet", READY_UNIT], ORDER_S)
        if not done.ok:
            raise Failed(f"{READY_UNIT} can't be turned on: {done.why}; look at `systemctl status {READY_UNIT}`")
    until = host.system.monotonic() + ANSWER_S
    asked = Request(port, "GET", "/ready", ASK_S, host=place or "127.0.0.1")
    while not is_ours((said := host.system.http(asked)).status, said.body):
        if host.system.monotonic() >= until:
            found = said.error or f"HTTP {said.status} from another program"
            raise Failed(
                f"{READY_UNIT} can't be turned on: port {port} gives {found}; look at `systemctl status {READY_UNIT}`"
            )
        host.system.sleep(PAUSE_S)
    tell(f"readiness is answered on port {port}")
    return 0


def turn_off(host: Host, tell: Tell) -> int:
    """Answer no more. What asks takes a closed port for a host that is down, so take it out there first."""
    done = host.system.run(["systemctl", "disable", "--no-reload", "--now", "--quiet", READY_UNIT], ORDER_S)
    if not done.ok:
        raise Failed(f"{READY_UNIT} can't be turned off: {done.why}; look at `systemctl status {READY_UNIT}`")
    host.paths.readiness.unlink(missing_ok=True)
    tell("readiness is off")
    return 0


def address(host: Host, network: str | None) -> str:
    """The address of this host in a network, or all of them without one; raises Failed where it has none there."""
    if network is None:
        return ""
    found = addresses.own(host.system)
    inside = [one for one in found if ipaddress.ip_address(one) in ipaddress.ip_network(network)]
    if not inside:
        raise Failed(f"no address of this host is in {network} (it has {', '.join(found) or 'none'})")
    return inside[0]
