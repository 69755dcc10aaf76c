"""Which host gives an image to those that lack it, and who is asked next where that one has none to give."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyinfra.api import State

from sparkfleet.deploy import sync
from sparkfleet.inventory.pace import Pace
from sparkfleet.node.remote import Answer, ConnectionLost
from sparkfleet.rollout.fleet_run import FleetRun, HostPlan
from tests.bundles import document, seen

REFERENCE = "registry.example/engine:new"
FILE = {"path": "image.tar", "size": 7, "sha256": "0" * 64, "git_blob_sha1": None}
GIVES = Answer(True, json.dumps({"repo": "sparkfleet/image", "commit": "0" * 40, "files": [FILE]}), "")
HAS_A_PART = Answer(False, "", "image runs here and can't be given to other hosts")


@dataclass
class World:
    """What each host answers to the question for its image, and what was done."""

    answers: dict[str, Answer | None]
    asked: list[str] = field(default_factory=list)
    spread: list[tuple[list[str], list[str]]] = field(default_factory=list)


@dataclass(frozen=True)
class Peer:
    name: str
    world: World

    def call(self, arguments: Sequence[str], stdin: str) -> Answer:
        assert (list(arguments), stdin) == (["sync", "image"], "{}")
        self.world.asked.append(self.name)
        answer = self.world.answers[self.name]
        if answer is None:
            raise ConnectionLost("no route to the host")
        return answer


def bring(
    monkeypatch: pytest.MonkeyPatch, holders: str, takers: str, answers: dict[str, Answer | None], seeds: str = ""
) -> World:
    """Have the image brought to hosts that lack it."""
    world = World(answers)

    def spread(_: Any, givers: list[Peer], wanting: list[Peer], *__: Any) -> dict[str, str]:
        world.spread.append(([peer.name for peer in givers], [peer.name for peer in wanting]))
        return {}

    monkeypatch.setattr(sync, "spread", spread)
    monkeypatch.setattr(sync, "_reach", lambda _, name: Peer(name, world))
    monkeypatch.setattr(sync, "_ways", lambda _: None)
    monkeypatch.setattr("sparkfleet.deploy.actions.stage_request", lambda _: {})
    release = SimpleNamespace(image=SimpleNamespace(reference=REFERENCE))
    plans = {
        name: SimpleNamespace(
            entry=SimpleNamespace(groups=("seeds",) if name in seeds else ()),
            settings=SimpleNamespace(image_distribution="spread", seed_group="seeds"),
            release=release,
        )
        for name in (*holders, *takers)
    }
    nodes = {name: seen(document(images=[REFERENCE] if name in holders else [])) for name in plans}
    run = FleetRun(cast(dict[str, HostPlan], plans), Pace(), nodes=nodes)
    sync._bring_images(cast(State, None), run, {})
    return world


@pytest.mark.parametrize(
    ("holders", "takers", "answers", "asked", "spread"),
    [
        ("a", "bcd", {"a": GIVES}, ["a"], [(["a"], ["b", "c", "d"])]),
        ("", "bcd", {"b": GIVES}, ["b"], [(["b"], ["c", "d"])]),
        # One that has the image in part, or that is gone, is no giver; the next one is.
        ("ab", "cd", {"a": HAS_A_PART, "b": GIVES}, ["a", "b"], [(["b"], ["c", "d"])]),
        ("a", "bcd", {"a": HAS_A_PART, "b": GIVES}, ["a", "b"], [(["b"], ["c", "d"])]),
        ("a", "bcd", {"a": None, "b": GIVES}, ["a", "b"], [(["b"], ["c", "d"])]),
        ("", "bcd", {"b": None, "c": GIVES}, ["b", "c"], [(["c"], ["b", "d"])]),
        # Whoever says that it gives, and does not say what.
        ("ab", "cd", {"a": Answer(True, "dDE=", ""), "b": GIVES}, ["a", "b"], [(["b"], ["c", "d"])]),
        ("ab", "cd", {"a": Answer(True, '{"files": []}', ""), "b": GIVES}, ["a", "b"], [(["b"], ["c", "d"])]),
        # Two are enough: then each host pulls it.
        ("abc", "d", {"a": HAS_A_PART, "b": None}, ["a", "b"], []),
        ("a", "b", {"a": HAS_A_PART}, ["a"], []),
        # Nobody else wants it.
        ("", "b", {}, [], []),
        ("ab", "", {}, [], []),
    ],
)
def test_the_next_host_gives_where_the_first_cannot(
    monkeypatch: pytest.MonkeyPatch,
    holders: str,
    takers: str,
    answers: dict[str, Answer | None],
    asked: list[str],
    spread: list[tuple[list[str], list[str]]],
) -> None:
    world = bring(monkeypatch, holders, takers, answers)
    assert (world.asked, world.spread) == (asked, spread)


def test_a_seed_pulls_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bring(monkeypatch, "", "abc", {"b": GIVES}, seeds="b").spread == [(["b"], ["a", "c"])]
