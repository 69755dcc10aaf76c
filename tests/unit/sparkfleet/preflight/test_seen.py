"""The border: what a probe printed becomes facts, or the reason why there are none."""

from __future__ import annotations

import json

import pytest

from sparkfleet.preflight.seen import read
from tests.bundles import document


def test_an_answer_is_facts_and_how_the_node_stands() -> None:
    found = read(json.dumps(document(current="r1")), 17.5)
    assert found.facts is not None
    assert found.facts.host.hostname == "gx10-0001"
    assert (found.status, found.status.current, found.read_at) == (found.facts.fleet, "r1", 17.5)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "the node's probe answered ''"),
        ("Welcome", "the node's probe answered 'Welcome'"),
        ("[1]", "the node's probe answered '[1]'"),
        ("[" * 100_000, "the node's probe answered '[[["),
        ("{}", "probe.schema: found nothing, expected 1; install the sparknode that belongs to this controller"),
        ('{"schema": 2}', "probe.schema: found 2, expected 1"),
        ('{"schema": 1}', "the node's probe cannot be read: probe.sparknode: found nothing, expected an object"),
        (json.dumps({**document(), "gpu": None}), "probe.gpu: found null, expected an object"),
        (json.dumps(document(serving=[])), "probe.fleet.serving: found [], expected an object"),
        (json.dumps({**document(), "disk": [{}]}), "probe.disk[0].path: found nothing"),
    ],
)
def test_anything_else_is_no_answer_and_says_why(line: str, why: str) -> None:
    found = read(line, 17.5)
    assert (found.facts, found.read_at, found.status.releases) == (None, None, ())
    assert why in found.error


@pytest.mark.parametrize("depth", [500, 900, 950, 980, 2000])
def test_no_depth_of_a_document_ends_the_run(depth: int) -> None:
    deep = json.dumps({**document(), "sparknode": "DEEP"}).replace('"DEEP"', "[" * depth + "]" * depth)
    assert read(deep).facts is None
