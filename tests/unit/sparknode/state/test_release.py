"""Release documents: named by their content, and refused with the key, what stands there and what should."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparknode.base.document import content_id
from sparknode.base.paths import Paths
from sparknode.base.shape import Node, parse
from sparknode.errors import Refused
from sparknode.state.releases import from_node, load, load_linked
from tests.unit.sparknode.builders import point, put_release, release, sealed


def read(document: dict[str, Any]) -> Any:
    return from_node(Node(document, "release"))


def test_a_release_is_read_whole() -> None:
    found = read(release("tag"))

    assert (found.image_tag, found.utilization, found.gates.short.min_acceptance_rate) == ("tag", 0.8, 0.3)
    assert found.gates.long is not None
    assert found.gates.long.prompt_tokens == 2500
    assert found.container.mounts[0].read_only


def test_the_id_depends_on_the_content_and_on_nothing_else() -> None:
    document = release("tag")
    shuffled = dict(reversed(list(document.items())))

    assert content_id(document) == content_id(shuffled) == document["id"]
    assert content_id({**document, "profile": "production"}) != document["id"]


def test_text_outside_of_ascii_hashes_as_itself() -> None:
    assert release("größe")["id"] == read(release("größe")).id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, r"release\.schema: found 2, expected 1; install the sparknode that belongs"),
        ({"engine__kind": "sglang"}, r"release\.engine\.kind: found 'sglang', expected one of vllm"),
        ({"serve__port": "8000"}, r'release\.serve\.port: found "8000", expected a whole number of at least 1'),
        ({"serve__port": True}, r"release\.serve\.port: found true"),
        ({"serve__served_names": []}, r"release\.serve\.served_names: found an empty list"),
        ({"serve__speculative": None}, r"release\.serve\.speculative: found null, expected true or false"),
        ({"container__env": {"A": 1}}, r"release\.container\.env: .*expected an object whose values are texts"),
        ({"container__args": "serve"}, r'release\.container\.args: found "serve", expected a list of texts'),
        ({"timing__soak_s": -1}, r"release\.timing\.soak_s: found -1, expected a number of at least 0"),
        ({"timing__load_deadline_s": float("inf")}, r"release\.timing\.load_deadline_s: found Infinity"),
        ({"artefacts": [{"role": "target"}]}, r"release\.artefacts\[0\]\.repo: found nothing, expected a text"),
        ({"unit": ""}, r'release\.unit: found "", expected a text that is not empty'),
        ({"image__digest": None}, r"release\.image\.digest: found null, expected a text that is not empty"),
        ({"gates__long": {"max_tokens": 8}}, r"release\.gates\.long\.prompt_tokens: found nothing, expected a whole"),
        ({"host_kind": {}}, r"release\.host_kind\.hardware: found nothing, expected a text"),
        ({"serve__prefix_caching": "on"}, r'release\.serve\.prefix_caching: found "on", expected true or false'),
        ({"gates__short": None}, r"release\.gates\.short: found null, expected an object"),
    ],
)
def test_a_wrong_document_is_refused_with_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        read(release("tag", **changes))


@pytest.mark.parametrize("repo", ["../../etc", "a/../b", "/abs/x", "one", "a/b/c", "a/.."])
def test_a_repository_that_climbs_out_of_its_folder_is_refused(repo: str) -> None:
    document = release("tag")
    document["artefacts"][0]["repo"] = repo

    with pytest.raises(Refused, match="expected ORG/NAME"):
        read(sealed(document))


@pytest.mark.parametrize("commit", ["main", "unlocked", "A" * 40, "a" * 39])
def test_a_commit_that_is_none_is_refused(commit: str) -> None:
    document = release("tag")
    document["artefacts"][0]["commit"] = commit

    with pytest.raises(Refused, match="expected 40 hex digits"):
        read(sealed(document))


def test_weights_without_a_manifest_are_refused() -> None:
    document = release("tag")
    document["artefacts"][0]["manifest_sha256"] = None

    with pytest.raises(Refused, match=r"release\.artefacts\[0\]\.manifest_sha256: found null, expected a text"):
        read(sealed(document))


def test_an_altered_document_is_refused() -> None:
    document = release("tag")
    document["image_tag"] = "other"

    with pytest.raises(Refused, match="the document was altered"):
        read(document)


def test_what_is_staged_under_another_id_is_refused(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    good, other = release("good"), release("other")
    put_release(paths, good)
    paths.release_dir(good["id"]).rename(paths.release_dir(other["id"]))

    with pytest.raises(Refused, match=f"holds release {good['id']}"):
        load(paths, other["id"])


@pytest.mark.parametrize("release_id", ["", "../x", "A" * 16, "0" * 15])
def test_an_id_that_is_none_is_refused(tmp_path: Path, release_id: str) -> None:
    with pytest.raises(Refused, match="expected 16 hex digits"):
        load(Paths(tmp_path), release_id)


def test_a_link_to_nothing_readable_is_no_release(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    document = release("good")
    put_release(paths, document)
    point(paths, "current", document["id"])
    (paths.release_dir(document["id"]) / "release.json").write_text("{")

    assert load_linked(paths, "current") is None
    assert load_linked(paths, "verified") is None


@given(st.text())
def test_text_that_is_no_release_is_refused_and_nothing_else(text: str) -> None:
    with pytest.raises(Refused):
        from_node(parse(text, "release"))


@given(st.data())
def test_a_release_with_one_key_spoiled_is_read_or_refused(data: st.DataObject) -> None:
    document = copy.deepcopy(release("tag"))
    node: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(node)))
        if not isinstance(node[key], dict) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({}))

    with suppress(Refused):
        assert read(sealed(document)).id
