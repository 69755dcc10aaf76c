"""A node's status is one schema: what the node writes is what the controller reads, and nothing else gets through."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparknode.base.shape import Node, written
from sparknode.base.system import asking
from sparknode.errors import Refused
from sparknode.host import node_status
from sparknode.state.described import Described, described
from sparknode.state.releases import from_node
from sparknode.state.status import Ended, Failure, Lease, Look, NodeStatus, Phase, Proof, Serving, StagedModel, UnderWay
from tests.unit.sparknode.builders import WATCH, release
from tests.unit.sparknode.world import World

texts = st.text(min_size=1, max_size=8)
maybe = st.none() | texts
seconds = st.none() | st.floats(0, 1e6)
ended = st.builds(
    Ended,
    *(maybe, maybe, texts, maybe, maybe, maybe, maybe, maybe, seconds, seconds),
    figures=st.none() | st.dictionaries(texts, st.fixed_dictionaries({"figure": seconds})),
    phases=st.lists(st.builds(Phase, texts, maybe), max_size=3).map(tuple),
)
TOLD = {"id": "a" * 16, "image_tag": "tag", "model": "m", "profile": "p"}
hook = {"command": ["pool", "out"]}
RELEASES = [
    described(from_node(Node(release(watch=WATCH, rotation={"out": hook, "in": hook, "timeout_s": 10}), "release"))),
    described(from_node(Node(release(container__env={"EMPTY": ""}, memory=None), "release"))),
    Described("a" * 16, "tag", "model", "profile"),
]
several = st.lists(texts, max_size=3).map(tuple)
KEYS = [
    str(field.metadata.get("key", field.name))
    for part in (NodeStatus, Serving, UnderWay, Ended, Proof, Lease, Look, Failure)
    for field in fields(part)
]
statuses = st.builds(
    NodeStatus,
    *(several, maybe, maybe, maybe),
    serving=st.none() | st.builds(Serving, maybe, texts, maybe, maybe, several, several),
    activation=st.none() | st.builds(UnderWay, texts, texts, maybe, maybe, maybe, st.booleans()),
    last=st.none() | ended,
    proof=st.none() | st.builds(Proof, maybe, seconds, st.none()),
    history=st.lists(ended, max_size=2).map(tuple),
    release=st.none() | st.sampled_from(RELEASES),
    back=st.none() | st.sampled_from(RELEASES),
    failed_releases=st.none() | st.dictionaries(texts, st.builds(Failure, maybe, maybe, maybe), max_size=2),
    models=st.none() | st.lists(st.builds(StagedModel, texts, texts), max_size=2).map(tuple),
    images=several,
)


@settings(max_examples=50)
@given(statuses)
def test_what_a_node_writes_is_read_as_it_was(status: NodeStatus) -> None:
    assert NodeStatus.read(written(status)) == status


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | texts, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200)
@given(JSON)
def test_any_json_is_a_status_or_is_refused(document: Any) -> None:
    with suppress(Refused):
        found = NodeStatus.read(document)
        assert found.failure("x") is None or found.failed_releases
        assert isinstance(found.serves or found.healthy or found.runs("x"), bool)


def test_a_host_that_has_nothing_is_written_with_every_key(tmp_path: Path) -> None:
    world = World(tmp_path)
    document = node_status.fleet(world.host, asking(world.host.system, node_status.QUESTIONS, 1.0)())

    assert set(document) == {field.name for field in fields(NodeStatus)}
    assert not NodeStatus.read(document).serves


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"current": 5}, "status.current: found 5"),
        ({"serving": "active"}, 'status.serving: found "active", expected an object'),
        ({"serving": {"unit": True}}, "status.serving.unit: found true"),
        ({"history": {"state": "committed"}}, "status.history: found"),
        ({"models": [{"repo": "a"}]}, "status.models[0].commit: found nothing"),
        ({"images": [1]}, "status.images: found [1]"),
        ({"failed_releases": {"a": 5}}, "status.failed_releases.a: found 5, expected an object"),
        ({"release": {"id": "a"}}, "status.release.image_tag: found nothing"),
        ({"back": {**TOLD, "gates": {"short": 1}}}, "status.back.gates.short: found 1, expected an object"),
        (["current"], "status: found"),
    ],
)
def test_what_cannot_be_told_is_refused_with_its_key(document: Any, names: str) -> None:
    with pytest.raises(Refused) as refused:
        NodeStatus.read(document)
    assert names in str(refused.value)


def test_a_strange_line_of_the_journal_hides_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    strange = {"activation": "a", "t": 5, "release": ["x"], "rollout": {}, "operator": None, "error": 1, "blame": 2}
    line = json.dumps({**strange, "state": "reverted", "from": 7})
    world.paths.journal.parent.mkdir(parents=True, exist_ok=True)
    world.paths.journal.write_text(f"{line}\n")

    found = NodeStatus.read(node_status.fleet(world.host, asking(world.host.system, node_status.QUESTIONS, 1.0)()))

    assert [one.state for one in found.history] == ["reverted"]


def test_a_text_that_is_empty_is_one_that_was_not_told() -> None:
    figures = {"health": {"figure": None, "unit": ""}}
    last = {"state": "failed", "error": "", "figures": figures}
    found = NodeStatus.read({"last": last, "release": {**TOLD, "env": {"EMPTY": ""}}})
    assert found.last == Ended(state="failed", figures=figures)
    assert found.release is not None
    assert found.release.env == {"EMPTY": ""}


@pytest.mark.parametrize(
    ("document", "serves", "healthy"),
    [
        ({}, False, False),
        ({"serving": {"unit": "failed"}, "current": "a", "verified": "a"}, False, False),
        ({"serving": {"unit": "active"}, "current": "a", "verified": "a"}, True, True),
        ({"serving": {"unit": "active", "drift": ["x"]}, "current": "a", "verified": "a"}, True, False),
        ({"serving": {"unit": "active"}, "current": "a", "verified": "b"}, True, False),
        ({"serving": {"unit": "active"}, "current": "a", "verified": "a", "watch": {"verdict": "bad"}}, True, False),
    ],
)
def test_who_serves_and_who_is_healthy(document: dict[str, Any], serves: bool, healthy: bool) -> None:
    found = NodeStatus.read(document)
    assert (found.serves, found.healthy) == (serves, healthy)
