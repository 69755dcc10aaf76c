"""What Docker shows against what a release says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparknode.base.process import Completed
from sparknode.base.shape import Node
from sparknode.host import docker
from sparknode.host.docker import Lookup
from sparknode.state.release import Release
from sparknode.state.releases import from_node
from tests.unit.sparknode.builders import container_of, release
from tests.unit.sparknode.world import World

DOCUMENT = release("tag")
RELEASE: Release = from_node(Node(DOCUMENT, "release"))
ASKED = docker.container_argv("x")
GET = "`dockerd GET /containers/x/json`"
FOLDER = DOCUMENT["container"]["mounts"][0]["source"]


def differences(root: Path, change: Callable[[dict[str, Any]], Any]) -> list[str]:
    found = container_of(DOCUMENT)
    change(found)
    return docker.drift(World(root), RELEASE, Lookup(found=found))


def test_a_container_that_is_the_releases_has_no_drift(tmp_path: Path) -> None:
    assert differences(tmp_path, lambda _: None) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c.update(Path="bash"), "entrypoint: the container runs 'bash', the release has 'vllm'"),
        (
            lambda c: c["Args"].append("--enforce-eager"),
            "arguments: the container has ['--enforce-eager'] where the release has nothing",
        ),
        (
            lambda c: c["Args"].__setitem__(3, "8001"),
            "arguments: the container has ['8001'] where the release has ['8000']",
        ),
        (
            lambda c: c["Args"].reverse(),
            "arguments: the container has the release's arguments in another order or number",
        ),
        (lambda c: c["Config"].update(Env=[]), "environment: VLLM_FLAG is not set, the release has 'tag'"),
        (
            lambda c: c["Config"]["Env"].append("VLLM_FLAG=other"),
            "environment: VLLM_FLAG is 'other', the release has 'tag'",
        ),
        (lambda c: c.update(Mounts=[]), f"mount: {FOLDER} on /models/gemma4 (read-only) is missing"),
        (
            lambda c: c["Mounts"].append({"Type": "bind", "Source": "/a", "Destination": "/b", "RW": True}),
            "mount: /a on /b (read-write) is not in the release",
        ),
        (lambda c: c.update(Image="sha256:00"), "image: the container runs sha256:00, the release has sha256:c0"),
        (lambda c: c["State"].update(Running=False), "container sparkfleet-serve: it is not running"),
    ],
)
def test_each_difference_is_a_sentence(tmp_path: Path, change: Callable[[dict[str, Any]], Any], expected: str) -> None:
    (found,) = differences(tmp_path, change)

    assert found.startswith(expected)


def test_a_mount_that_became_writable_is_missing_and_new(tmp_path: Path) -> None:
    found = differences(tmp_path, lambda c: c["Mounts"][0].update(RW=True))

    assert [text.rsplit(" ", 2)[-2:] for text in found] == [["is", "missing"], ["the", "release"]]


def test_what_the_container_has_of_its_own_is_no_drift(tmp_path: Path) -> None:
    def own(found: dict[str, Any]) -> None:
        found["Mounts"].append({"Type": "volume", "Source": "/x", "Destination": "/cache", "RW": True})
        found["Config"]["Env"].append("VLLM_API_KEY=s3cret")

    assert differences(tmp_path, own) == []


def test_a_secret_of_the_container_is_in_no_sentence(tmp_path: Path) -> None:
    def spoil(found: dict[str, Any]) -> None:
        found["Config"]["Env"] = ["VLLM_API_KEY=s3cret"]

    assert "s3cret" not in " ".join(differences(tmp_path, spoil))


def test_an_image_with_another_id_but_the_pinned_digest_is_the_image(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.images["x"] = {"Id": "sha256:other-store", "RepoDigests": [f"mirror:5000/e@{RELEASE.image.digest}"]}
    found = container_of(DOCUMENT)
    found["Image"] = "sha256:other-store"

    assert docker.drift(world, RELEASE, Lookup(found=found)) == []


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (Completed(ASKED, 0, '{"Id": "a"}'), Lookup(found={"Id": "a"})),
        (Completed(ASKED, 404, "", "No such container: x"), Lookup()),
        (Completed(ASKED, 404, "", "no such image: x: No such image: x:latest"), Lookup()),
        (Completed(ASKED, 404, "", "page not found"), Lookup(error=f"{GET} ended with 404: page not found")),
        (Completed(ASKED, 1, "", "No such file"), Lookup(error=f"{GET} ended with 1: No such file")),
        (Completed(ASKED, 0, "[]"), Lookup(None, f"{GET} ended with 0: []")),
        (Completed(ASKED, 0, "<html>"), Lookup(None, f"{GET} ended with 0: <html>")),
    ],
)
def test_there_is_none_is_told_from_nobody_said(done: Completed, expected: Lookup) -> None:
    assert docker.read_lookup(done) == expected


def test_a_silent_daemon_is_no_missing_container() -> None:
    found = docker.read_lookup(Completed(ASKED, None, timeout=20.0))

    assert found.error == f"{GET} did not answer within 20 s"


ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["Path", "Args", "Config", "Env", "Mounts", "State", "Type"]), inner, max_size=4
        )
    ),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["Path", "Args", "Config", "Mounts", "State", "Image", "Id"]), ODD))
def test_a_container_of_any_shape_has_drift_and_never_raises(tmp_path_factory: Any, found: dict[str, Any]) -> None:
    world = World(tmp_path_factory.getbasetemp() / "any-shape")
    json.dumps(found)

    assert docker.drift(world, RELEASE, Lookup(found=found))
