"""What the nodes' own journals say about the releases they had: where a rollback leads, what a restart starts, and
whether a deploy would undo a rollback. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparkfleet.errors import FleetError, RefusedError

Node = Mapping[str, Any]


def fleet_of(node: Node) -> Mapping[str, Any]:
    return node.get("fleet") or {}


def targets(intent: str, nodes: Mapping[str, Node]) -> dict[str, Mapping[str, Any]]:
    """Return what each host shall serve that a rollback or a restart changes, by host.

    Raises FleetError when a host cannot say how it stands, or when there is nothing to go back to anywhere.
    """
    silent = [name for name, node in nodes.items() if "error" in node]
    if silent:
        silence = "; ".join(f"{name}: {nodes[name]['error']}" for name in silent)
        raise FleetError(silence, "hosts that report their state", "fix them, or leave them out with --exclude")
    if intent == "restart":
        return {
            name: fleet["release"]
            for name, node in nodes.items()
            if (fleet := fleet_of(node)).get("release") and fleet.get("current") == fleet.get("verified")
        }
    found = {name: fleet_of(node)["back"] for name, node in nodes.items() if stays(name, nodes) is None}
    if not found and not any(rolled_back(fleet_of(node)) for node in nodes.values()):
        raise RefusedError(
            "there is no release to roll back to: " + "; ".join(f"{name} {stays(name, nodes)}" for name in nodes),
            "a host that was verified with another release before",
            "deploy the release you want by name: deploy.py --data image_tag=…",
        )
    return found


def stays(name: str, nodes: Mapping[str, Node]) -> str | None:
    """Say why a rollback leaves a host as it is, or None when it goes back.

    A rollback undoes the newest rollout: a host that this one did not reach keeps its release, and one that already
    went back does not go forward again.
    """
    fleet = fleet_of(nodes[name])
    back = rolled_back(fleet)
    if back:
        return f"was rolled back at {back.get('t')} already"
    if not fleet.get("back") or not fleet.get("verified"):
        return "was never verified with another release"
    known = [last for node in nodes.values() if (last := brought(fleet_of(node)))]
    newest = max(known, key=lambda row: str(row.get("t")), default=None)
    own = brought(fleet)
    if newest and own and own.get("rollout") != newest.get("rollout") and own["release"] != newest["release"]:
        return f"was not part of the newest rollout ({newest.get('rollout')}); --limit {name} takes it back alone"
    return None


def brought(fleet: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the activation that brought the release which a host is verified with, or None when it is not known."""
    rows = [row for row in fleet.get("history") or () if row.get("state") == "committed"]
    ours = [row for row in rows if row.get("release") == fleet.get("verified") != row.get("from")]
    return ours[-1] if ours else None


def rolled_back(fleet: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the rollback that brought what a host serves now, if one did."""
    row = brought(fleet)
    return row if row and row.get("intent") == "rollback" else None


def undone(fleet: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Say which rollback a deploy of the wanted release would undo, or None when it would undo none."""
    back, left = rolled_back(fleet), fleet.get("back") or {}
    if not back or wanted["id"] == fleet.get("verified"):
        return None
    if wanted["id"] != back.get("from") and wanted["image_tag"] != left.get("image_tag"):
        return None
    return f"{back.get('operator')} rolled back from {wanted['image_tag']} (release {back.get('from')}) at {back['t']}"
