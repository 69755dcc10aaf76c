"""What the nodes' own journals say about the releases they had: where a rollback leads, what a restart starts, and
whether a deploy would undo a rollback. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparkfleet.errors import FleetError, RefusedError
from sparknode.state.described import Described
from sparknode.state.status import Ended, NodeStatus


def targets(intent: str, nodes: Mapping[str, NodeStatus], silent: Mapping[str, str]) -> dict[str, Described]:
    """Return what each host shall serve that a rollback or a restart changes, by host.

    Raises FleetError when a host could not be read (`silent` has the reasons), or when there is nothing to go back to
    anywhere.
    """
    if silent:
        silence = "; ".join(f"{name}: {why}" for name, why in silent.items())
        raise FleetError(silence, "hosts that report their state", "fix them, or leave them out with --exclude")
    if intent == "restart":
        return {name: node.release for name, node in nodes.items() if node.release and node.current == node.verified}
    found = {name: node.back for name, node in nodes.items() if node.back and stays(name, nodes) is None}
    if not found and not any(rolled_back(node) for node in nodes.values()):
        raise RefusedError(
            "there is no release to roll back to: " + "; ".join(f"{name} {stays(name, nodes)}" for name in nodes),
            "a host that was verified with another release before",
            "deploy the release you want by name: deploy.py --data image_tag=…",
        )
    return found


def stays(name: str, nodes: Mapping[str, NodeStatus]) -> str | None:
    """Say why a rollback leaves a host as it is, or None when it goes back.

    A rollback undoes the newest rollout: a host that this one did not reach keeps its release, and one that already
    went back does not go forward again.
    """
    node = nodes[name]
    back = rolled_back(node)
    if back:
        return f"was rolled back at {back.t} already"
    if not node.back or not node.verified:
        return "was never verified with another release"
    newest = max(filter(None, map(brought, nodes.values())), key=lambda one: str(one.t), default=None)
    own = brought(node)
    if newest and own and own.rollout != newest.rollout and own.release != newest.release:
        return f"was not part of the newest rollout ({newest.rollout}); --limit {name} takes it back alone"
    return None


def brought(node: NodeStatus) -> Ended | None:
    """Return the activation that brought the release which a host is verified with, or None when it is not known."""
    ours = [one for one in node.committed if one.release == node.verified != one.before]
    return ours[-1] if ours else None


def rolled_back(node: NodeStatus) -> Ended | None:
    """Return the rollback that brought what a host serves now, if one did."""
    found = brought(node)
    return found if found and found.intent == "rollback" else None


def undone(node: NodeStatus, wanted: Described) -> str | None:
    """Say which rollback a deploy of the wanted release would undo, or None when it would undo none."""
    back, left = rolled_back(node), node.back
    if not back or wanted.id == node.verified:
        return None
    if wanted.id != back.before and not (left and wanted.image_tag == left.image_tag):
        return None
    return f"{back.operator} rolled back from {wanted.image_tag} (release {back.before}) at {back.t}"
