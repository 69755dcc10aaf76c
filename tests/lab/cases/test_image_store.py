"""Docker's image store is switched under hosts that serve: said, and fixed by the next stage out of the other store."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab import faults
from tests.lab.cases.reading import AT_ONCE, CURRENT_TAG, OTHER_TAG, Node, pyinfra, shown
from tests.lab.config import host_named

FEATURE = "containerd-snapshotter"
# What each store keeps on the disk, by the name that the lab gives to it.
FOLDERS = {"containerd": "/var/lib/containerd", "graphdriver": "/var/lib/docker"}


def use(node: Node, store: str) -> None:
    """Switch the store as an operator does: the feature in daemon.json, and a restart."""
    settings = json.loads(node.sudo("cat /etc/docker/daemon.json"))
    settings["features"] = {**settings.get("features", {}), FEATURE: store == "containerd"}
    node.sudo(f"cat >/etc/docker/daemon.json <<'=end='\n{json.dumps(settings)}\n=end=\nsystemctl restart docker")
    driver = node.sudo("docker info --format '{{.DriverStatus}}'")
    assert ("io.containerd.snapshotter.v1" in driver) == (store == "containerd")


def other(store: str) -> str:
    return "graphdriver" if store == "containerd" else "containerd"


@pytest.fixture
def switched(nodes: list[Node]) -> Iterator[dict[str, Node]]:
    """A host that came to each store from the other, both with a release that serves and one to go back to."""
    for tag in (OTHER_TAG, CURRENT_TAG):
        outcome = pyinfra("--data", f"image_tag={tag}", *AT_ONCE)
        assert outcome.code == 0, outcome.output
    found = {other(host_named(node.name).kind.image_store): node for node in nodes[1:3]}
    assert len(found) == 2
    for store, node in found.items():
        use(node, store)
    yield found
    for store, node in found.items():
        use(node, other(store))


def images(node: Node) -> str:
    return node.sudo("docker image ls --format '{{.Repository}}:{{.Tag}}'")


def test_a_way_back_that_went_with_the_store_is_refused_by_the_host(
    nodes: list[Node], switched: dict[str, Node]
) -> None:
    before = {node.name: (len(node.journal()), node.link("current")) for node in nodes}

    limits = [word for node in switched.values() for word in ("--limit", node.name)]
    outcome = pyinfra(*limits, *AT_ONCE, deploy="tasks/rollback.py")

    assert outcome.code != 0
    for node in switched.values():
        assert f"release {node.link('previous')} is not complete here: image " in outcome.output
    assert "is not here; stage it again" in outcome.output
    assert {node.name: (len(node.journal()), node.link("current")) for node in nodes} == before, "nothing was begun"


def test_a_switched_store_is_said_and_filled_from_the_other(nodes: list[Node], switched: dict[str, Node]) -> None:
    names = [shown(nodes[1].name, f"image_tag={tag}")["image"]["reference"] for tag in (CURRENT_TAG, OTHER_TAG)]
    outcome = pyinfra(deploy="tasks/preflight.py")
    for store, node in switched.items():
        assert not [name for name in names if name in images(node)], "the switch hid them"
        current, back = node.link("current"), node.link("previous")
        assert f"{node.name}: docker.images: Docker's image store ({store}) lacks the images of" in outcome.output
        assert f"its other store still has {current}, {back}" in outcome.output

    # Neither image can come from anywhere else.
    faults.pause_service("registry")
    try:
        outcome = pyinfra(*AT_ONCE)
        assert outcome.code == 0, outcome.output
        for node in nodes:
            assert node.serves(), node.name
        for node in switched.values():
            assert [name for name in names if name in images(node)] == names
            assert node.link("current") == node.link("verified") == shown(node.name)["id"]
        again = pyinfra()
        assert "nothing to do: every host serves what it should, verified" in again.output
        outcome = pyinfra("--data", f"image_tag={OTHER_TAG}", *AT_ONCE)
        assert outcome.code == 0, outcome.output
        assert all(node.serves() for node in nodes)
    finally:
        faults.resume_service("registry")


def test_images_that_no_store_has_are_pulled(nodes: list[Node], switched: dict[str, Node]) -> None:
    for store, node in switched.items():
        node.sudo(
            "systemctl stop docker.socket docker containerd;"
            f"find {FOLDERS[other(store)]} -mindepth 1 -maxdepth 1 -exec rm -rf {{}} +;"
            "systemctl start containerd docker"
        )

    outcome = pyinfra(*AT_ONCE)

    assert outcome.code == 0, outcome.output
    assert all(node.serves() for node in nodes)
