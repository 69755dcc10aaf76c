"""What a run can be for. A task says so itself; one run has one."""

from __future__ import annotations

from typing import Literal, get_args

Intent = Literal[
    # Bring the inventory's releases, go back to those before, start again what serves.
    "deploy",
    "rollback",
    "restart",
    # Give hosts back.
    "retire",
    # A step alone.
    "preflight",
    "stage",
    "repair",
    "prune",
    "verify",
    # Change nothing, ask nothing.
    "look",
]
INTENTS: tuple[Intent, ...] = get_args(Intent)
# In waves, each host under a lease.
ROLLING: tuple[Intent, ...] = ("deploy", "rollback", "restart")
# What needs the inventory's releases; the others work from what the nodes hold.
FROM_INVENTORY: tuple[Intent, ...] = ("deploy", "preflight", "stage", "repair", "prune")
