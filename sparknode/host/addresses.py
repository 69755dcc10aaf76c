"""Under which addresses this host can be reached."""

from __future__ import annotations

import json

from sparknode.base.system import System
from sparknode.errors import Failed

_ASK_S = 10.0


def own(system: System) -> tuple[str, ...]:
    """The IPv4 addresses of what is up, the loopback's among them; raises Failed where they can't be read."""
    done = system.run(["ip", "-json", "-4", "address", "show", "up"], _ASK_S)
    try:
        return tuple(str(entry["local"]) for link in json.loads(done.stdout) for entry in link.get("addr_info", []))
    except ValueError:
        raise Failed(f"this host's addresses can't be read: {done.why}") from None
