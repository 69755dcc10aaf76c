"""Two bridges, and for each host one network namespace with a leg on either."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.lab import ledger
from tests.lab.config import BRIDGE, CONTROL_BRIDGE, CONTROL_GATEWAY, GATEWAY, Host
from tests.lab.run import run


def create_bridges() -> None:
    for bridge, address in ((BRIDGE, GATEWAY), (CONTROL_BRIDGE, CONTROL_GATEWAY)):
        if not Path("/sys/class/net", bridge).exists():
            ledger.record("link", bridge)
            run("ip", "link", "add", bridge, "type", "bridge")
        run("ip", "address", "replace", f"{address}/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")


def attach(host: Host) -> None:
    """Make the host's namespace and its two links; does nothing where they stand already."""
    if not Path("/run/netns", host.netns).exists():
        ledger.record("netns", host.netns)
        run("ip", "netns", "add", host.netns)
        run("ip", "-n", host.netns, "link", "set", "lo", "up")
    legs = (
        (host.link, BRIDGE, "enP7s7", host.address),
        (host.control_link, CONTROL_BRIDGE, "lab0", host.control_address),
    )
    for outside, bridge, inside, address in legs:
        if Path("/sys/class/net", outside).exists():
            continue
        ledger.record("link", outside)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", host.netns)
        run("ip", "link", "set", outside, "master", bridge, "up")
        run("ip", "-n", host.netns, "address", "add", f"{address}/24", "dev", inside)
        run("ip", "-n", host.netns, "link", "set", inside, "up")
    run("ip", "-n", host.netns, "route", "replace", "default", "via", GATEWAY)


def set_link(host: Host, *, up: bool) -> None:
    run("ip", "link", "set", host.link, "up" if up else "down")


def set_rate(host: Host, megabit: float | None) -> None:
    """Let no more than this through to the host; None takes the limit away."""
    if megabit is None:
        subprocess.run(["tc", "qdisc", "del", "dev", host.link, "root"], capture_output=True, timeout=10, check=False)
        return
    rate = ["rate", f"{megabit}mbit", "burst", "256kb", "latency", "400ms"]
    run("tc", "qdisc", "replace", "dev", host.link, "root", "tbf", *rate)
