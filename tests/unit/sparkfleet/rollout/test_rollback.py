"""Where a rollback leads and what a deploy would undo, from journals alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sparkfleet.errors import FleetError
from sparkfleet.rollout.rollback import stays, targets, undone
from sparknode.base.shape import written
from sparknode.state.described import Described
from sparknode.state.status import NodeStatus

A, B, C = (Described(name * 16, f"tag-{name}", "model", "profile") for name in "abc")


def row(release: Described, source: Described | None, rollout: str, **more: Any) -> dict[str, Any]:
    times = {"r1": "2026-11-01", "r2": "2026-11-02", "r3": "2026-11-03"}
    came = source.id if source else None
    return {
        "release": release.id,
        "from": came,
        "rollout": rollout,
        "t": times[rollout],
        "state": "committed",
        **more,
    }


def node(now: Described, back: Described | None, *history: dict[str, Any], **more: Any) -> NodeStatus:
    document = {"current": now.id, "verified": now.id, "release": written(now), "back": written(back)}
    return NodeStatus.read({**document, "history": list(history), **more})


FIRST = row(A, None, "r1")


@pytest.mark.parametrize(
    ("history", "other", "goes"),
    [
        ([row(B, A, "r2")], node(B, A, row(B, A, "r2")), True),
        # The rollout was resumed: another id, the same release.
        ([row(B, A, "r2")], node(B, A, row(B, A, "r3")), True),
        ([row(B, A, "r2")], node(C, A, row(C, A, "r3")), False),
        # A restart, a repair and a failed attempt bring nothing, so they undo nothing.
        ([row(B, A, "r2"), row(B, B, "r3", intent="restart")], node(B, A, row(B, A, "r2")), True),
        ([row(B, A, "r2"), row(C, B, "r3", state="reverted")], node(B, A, row(B, A, "r2")), True),
        # An older program's journal says nothing of it.
        ([], node(B, A, row(B, A, "r2")), True),
    ],
)
def test_a_roll_back_undoes_the_newest_roll_out(history: list[dict[str, Any]], other: NodeStatus, goes: bool) -> None:
    nodes = {"a": node(B, A, FIRST, *history), "b": other}
    assert (stays("a", nodes) is None) is goes
    assert ("a" in targets("rollback", nodes, {})) is goes


def test_a_host_alone_goes_back_whatever_came_later_elsewhere() -> None:
    assert targets("rollback", {"a": node(B, A, FIRST, row(B, A, "r2"))}, {}) == {"a": A}


def test_who_went_back_stays() -> None:
    nodes = {"a": node(A, B, FIRST, row(B, A, "r2"), row(A, B, "r3", intent="rollback"))}
    assert targets("rollback", nodes, {}) == {}
    assert "was rolled back at 2026-11-03 already" in str(stays("a", nodes))


def test_nothing_anywhere_to_go_back_to_is_refused() -> None:
    with pytest.raises(FleetError, match="was never verified with another release"):
        targets("rollback", {"a": node(A, None, FIRST)}, {})


@pytest.mark.parametrize("intent", ["rollback", "restart"])
def test_a_node_without_an_answer_refuses_both(intent: str) -> None:
    with pytest.raises(FleetError, match="a: no answer"):
        targets(intent, {"a": NodeStatus(), "b": node(B, A, row(B, A, "r2"))}, {"a": "no answer"})


def test_a_restart_is_for_what_is_verified() -> None:
    unproven = node(B, A, row(B, A, "r2"), verified=A.id)
    assert targets("restart", {"a": unproven, "b": node(B, A), "c": NodeStatus()}, {}) == {"b": B}


ROLLED = (FIRST, row(B, A, "r2"), row(A, B, "r3", intent="rollback", operator="ann@desk"))


@pytest.mark.parametrize(
    ("history", "wanted", "says"),
    [
        (ROLLED, B, True),
        # Another id of the image that was left for a reason.
        (ROLLED, replace(C, image_tag=B.image_tag), True),
        (ROLLED, C, False),
        (ROLLED, A, False),
        (ROLLED[:1], B, False),
        ((*ROLLED[:2], row(A, B, "r3")), B, False),
    ],
)
def test_what_a_deploy_would_undo(history: tuple[dict[str, Any], ...], wanted: Described, says: bool) -> None:
    found = undone(node(A, B, *history), wanted)
    assert bool(found) is says
    assert not says or found == f"ann@desk rolled back from {wanted.image_tag} (release {B.id}) at 2026-11-03"
