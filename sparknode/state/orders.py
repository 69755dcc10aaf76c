"""The order of the activation under way: what its unit carries out, and the sign that it has not ended.

It is durable before the unit is started, and it goes once everything that the activation's last line means is done. As
long as it stands, each start of the unit goes on from what the journal says: after a kill, a stop, an error and a boot.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from sparknode import RESTART
from sparknode.base.files import atomic_write, read_text, sync_directory
from sparknode.base.paths import ACTIVATE_UNIT, Paths
from sparknode.base.process import Completed
from sparknode.base.shape import parse
from sparknode.base.system import Host

START_S = 60.0


@dataclass(frozen=True)
class Order:
    """Which release to activate, and for whom; a token is that of the lease under which it was given.

    `intent` is kept in the journal: a rollback, which the next deploy must not undo unasked, or a restart of what
    serves already. `boot` is the boot in which the order was given.
    """

    release: str
    rollout: str
    operator: str
    token: int | None = None
    retry: str | None = None
    intent: str | None = None
    activation: str = ""
    boot: str | None = None

    @property
    def restarts(self) -> bool:
        return self.intent == RESTART

    def __str__(self) -> str:
        return f"the activation of release {self.release} by {self.operator} (rollout {self.rollout})"


def boot_id(paths: Paths) -> str | None:
    return (read_text(paths.boot_id) or "").strip() or None


def pending(paths: Paths) -> Order | None:
    """The order that stands, or None when no activation is under way."""
    text = read_text(paths.order)
    return parse(text, str(paths.order)).build(Order) if text is not None else None


def place(paths: Paths, order: Order) -> Order:
    """Make an order durable; the activation has a name from here on."""
    placed = replace(order, activation=order.activation or str(uuid.uuid4()), boot=boot_id(paths))
    atomic_write(paths.order, json.dumps(asdict(placed)).encode())
    return placed


def close(paths: Paths) -> None:
    """The activation has ended."""
    paths.order.unlink(missing_ok=True)
    with suppress(OSError):
        sync_directory(paths.data)


def resume(host: Host) -> Completed:
    """Have systemd carry out the order that stands, or end what was cut off of it; nothing where that is under way."""
    return host.system.run(["systemctl", "start", "--no-block", ACTIVATE_UNIT], START_S)
