"""Readiness on or off: where it is answered, and the unit that does it."""

from __future__ import annotations

import ipaddress
import json

from sparknode.base.files import atomic_write
from sparknode.base.paths import READY_UNIT
from sparknode.base.shape import written
from sparknode.base.system import Host, Tell
from sparknode.errors import Failed, Refused
from sparknode.state.releases import load_linked
from sparknode.state.status import Readiness

ORDER_S = 60.0
_ASK_S = 10.0


def turn_on(host: Host, port: int, network: str | None, notice_s: float, tell: Tell) -> int:
    """Answer on this port from now on and after each boot; raises Refused for the engine's own port."""
    current = load_linked(host.paths, "current")
    if current and current.serve.port == port:
        raise Refused(f"port {port} is the engine's own; give readiness_port another one")
    if network:
        address(host, network)
    chosen = Readiness(port, network, notice_s)
    atomic_write(host.paths.readiness, json.dumps(written(chosen)).encode())
    for verb in (("enable", "--no-reload"), ("restart",)):
        done = host.system.run(["systemctl", *verb, "--quiet", READY_UNIT], ORDER_S)
        if not done.ok:
            raise Failed(f"{READY_UNIT} can't be turned on: {done.why}; look at `systemctl status {READY_UNIT}`")
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
    done = host.system.run(["ip", "-json", "-4", "address", "show", "up"], _ASK_S)
    try:
        found = [entry["local"] for link in json.loads(done.stdout) for entry in link.get("addr_info", [])]
    except ValueError:
        raise Failed(f"this host's addresses can't be read: {done.why}") from None
    inside = [one for one in found if ipaddress.ip_address(one) in ipaddress.ip_network(network)]
    if not inside:
        raise Failed(f"no address of this host is in {network} (it has {', '.join(found) or 'none'})")
    return str(inside[0])
