"""A change of Docker's image store under a host that has releases: seen, and fixed without a download if it can be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sparknode.base.process import Completed
from sparknode.errors import Failed
from sparknode.facts.probe import probe
from sparknode.host import docker, imagestore
from sparknode.host.drift import missing_pieces
from sparknode.models.leftbehind import qualified
from sparknode.state.releases import load_linked
from tests.unit.sparknode.builders import point, put_release, release, sealed, write_model
from tests.unit.sparknode.models.test_stage import incoming, run
from tests.unit.sparknode.stores import (
    CONFIG,
    INDEX,
    LAYERS,
    MANIFEST,
    PACKED,
    SwitchedWorld,
    containerd,
    graphdriver,
    sha256,
)

ROOTS = {"graphdriver": "var/lib/docker", "containerd": "var/lib/containerd"}
FILL: dict[str, Callable[[Path], None]] = {"graphdriver": graphdriver, "containerd": containerd}
SWITCHES = [("graphdriver", "containerd"), ("containerd", "graphdriver")]


def document(tag: str = "new") -> dict[str, Any]:
    made = release(tag)
    ids = sorted({sha256(CONFIG), sha256(MANIFEST), sha256(INDEX)})
    reference = f"registry.example/engine:{sha256(INDEX).replace(':', '-')}"
    return sealed(
        {**made, "image": {**made["image"], "digest": sha256(INDEX), "image_ids": ids, "reference": reference}}
    )


NEW = document()


def switched(tmp_path: Path, before: str, now: str) -> SwitchedWorld:
    """A node whose Docker kept the image in one store and has used the other since."""
    world = SwitchedWorld(tmp_path, store=now)
    FILL[before](tmp_path / ROOTS[before])
    (tmp_path / ROOTS[now]).mkdir(parents=True, exist_ok=True)
    write_model(incoming(world))
    return world


def pulled(world: SwitchedWorld) -> bool:
    return any("pull" in command for command in world.commands)


@pytest.mark.parametrize(("before", "now"), SWITCHES)
def test_the_next_stage_takes_the_image_from_the_other_store(tmp_path: Path, before: str, now: str) -> None:
    world = switched(tmp_path, before, now)

    lines = run(world, NEW)

    assert any("Docker's other image store has it" in line for line in lines)
    assert any("GB that came from Docker's other image store" in line for line in lines)
    assert not pulled(world)
    (files,) = world.loaded
    layers = LAYERS if before == "graphdriver" else PACKED
    assert {f"blobs/{sha256(blob).replace(':', '/')}": blob for blob in (CONFIG, *layers)}.items() <= files.items()
    assert not [path for path in world.paths.incoming.rglob("*") if path.is_file()]
    point(world.paths, "current", NEW["id"])
    staged = load_linked(world.paths, "current")
    assert staged
    assert missing_pieces(world.host, staged) == []
    world.commands.clear()
    assert any("already staged" in line for line in run(world, NEW))
    assert len(world.loaded) == 1


def test_an_image_that_was_loaded_is_known_by_its_configuration_alone(tmp_path: Path) -> None:
    world = switched(tmp_path, "graphdriver", "containerd")
    run(world, NEW)
    point(world.paths, "current", NEW["id"])
    staged = load_linked(world.paths, "current")
    assert staged
    found = docker.image(world, staged.image.reference)
    assert found.text("Id") not in staged.image.image_ids
    assert docker.is_image_of(world, staged, found)
    blob = world.root / ROOTS["containerd"] / imagestore.BLOBS / str(found.text("Id")).replace(":", "/")
    changed = json.loads(blob.read_text())
    blob.write_text(json.dumps({**changed, "layers": []}))
    assert not docker.is_image_of(world, staged, found), "a manifest that is not what it is named by proves nothing"


def without(root: Path, *blobs: bytes) -> None:
    for content in blobs:
        removed(blob(content))(root)


@pytest.mark.parametrize(
    "gone",
    [
        # Loaded from a file: its manifest has no name that anybody knows.
        (*PACKED, MANIFEST, INDEX),
        # Pulled over what was loaded from a file: all of its layers, or one, stand there plain.
        PACKED,
        PACKED[1:],
        (INDEX,),
    ],
)
def test_layers_that_came_out_of_a_file_are_taken_from_containerds_store(
    tmp_path: Path, gone: tuple[bytes, ...]
) -> None:
    world = switched(tmp_path, "containerd", "graphdriver")
    root = tmp_path / ROOTS["containerd"]
    without(root, *gone)
    for layer in LAYERS:
        (root / imagestore.BLOBS / "sha256" / blob(layer)).write_bytes(layer)

    lines = run(world, NEW)

    assert not pulled(world), lines
    assert NEW["image"]["reference"] in world.images


def removed(pattern: str) -> Callable[[Path], None]:
    return lambda root: next(iter(sorted(root.rglob(pattern)))).unlink()


def changed(pattern: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = next(iter(sorted(root.rglob(pattern))))
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    return change


def blob(content: bytes) -> str:
    return sha256(content)[7:]


def spoilt_plain(root: Path) -> None:
    without(root, PACKED[1])
    (root / imagestore.BLOBS / "sha256" / blob(LAYERS[1])).write_bytes(LAYERS[0])


DAMAGE: list[tuple[str, Callable[[Path], None]]] = [
    ("graphdriver", removed("tar-split.json.gz")),
    ("graphdriver", removed("cache-id")),
    ("graphdriver", removed("two")),
    ("graphdriver", changed("two")),
    ("graphdriver", changed("tar-split.json.gz")),
    ("graphdriver", changed(blob(CONFIG))),
    ("containerd", removed(blob(PACKED[1]))),
    ("containerd", changed(blob(PACKED[1]))),
    ("containerd", changed(blob(CONFIG))),
    ("containerd", lambda root: without(root, MANIFEST, INDEX)),
    ("containerd", spoilt_plain),
]


@pytest.mark.parametrize("number", range(len(DAMAGE)))
def test_what_is_not_whole_there_is_downloaded(tmp_path: Path, number: int) -> None:
    before, harm = DAMAGE[number]
    world = switched(tmp_path, before, dict(SWITCHES)[before])
    harm(tmp_path / ROOTS[before])
    world.images["mirror:5000/engine@new"] = {"Id": sha256(INDEX), "Architecture": "arm64"}

    lines = run(world, NEW, image_source="mirror:5000/engine@new")

    assert pulled(world), lines
    assert not world.loaded
    assert not [path for path in world.paths.incoming.rglob("*") if path.is_file()]


def test_without_room_for_both_it_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = switched(tmp_path, "graphdriver", "containerd")
    world.images["mirror:5000/engine@new"] = {"Id": sha256(INDEX), "Architecture": "arm64"}
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("sparknode.models.stage.shutil.disk_usage", lambda _: usage._replace(free=2000))
    lines = run(world, NEW, image_source="mirror:5000/engine@new", image_bytes={"graphdriver": 0, "containerd": 1000})
    assert any("must be free to take it from there" in line for line in lines)
    assert pulled(world)


SOURCE = f"mirror:5000/engine@{sha256(INDEX)}"
# What Docker shows of an image whose packed layers containerd's store lacks, since they stand unpacked there already.
PART = {"Architecture": "", "Config": None, "RepoDigests": [SOURCE]}


def in_part(tmp_path: Path, shown: bytes = INDEX) -> SwitchedWorld:
    """A node that pulls such an image, under the id of its index or of its manifest."""
    world = SwitchedWorld(tmp_path, store="containerd")
    root = tmp_path / ROOTS["containerd"]
    containerd(root)
    without(root, *PACKED)
    write_model(incoming(world))
    world.images[SOURCE] = {**PART, "Id": sha256(shown)}
    return world


@pytest.mark.parametrize("shown", [INDEX, MANIFEST])
def test_an_image_that_is_here_unpacked_alone_is_staged_by_its_own_configuration(tmp_path: Path, shown: bytes) -> None:
    world = in_part(tmp_path, shown)
    with pytest.raises(Failed, match=r"its entrypoint is \['bash'\], the lock has \['vllm'\]"):
        run(world, NEW, image_source=SOURCE, image_entrypoint=["vllm"])

    run(world, NEW, image_source=SOURCE, image_entrypoint=["bash"])

    assert NEW["image"]["reference"] in world.images
    world.commands.clear()
    assert any("already staged" in line for line in run(world, NEW, image_source=SOURCE))
    assert not pulled(world)
    trials = [command[3] for command in world.commands if command[1] == "create"]
    assert trials
    assert {("docker", "rm", "-f", name) for name in trials} <= set(world.commands), "nothing of a trial stays"


@pytest.mark.parametrize(
    ("harm", "architecture", "why"),
    [
        (removed(blob(CONFIG)), "arm64", "Docker shows no architecture of it, and its configuration can't be read in"),
        (changed(blob(CONFIG)), "arm64", "Docker shows no architecture of it, and its configuration can't be read in"),
        (
            removed(blob(MANIFEST)),
            "arm64",
            "Docker shows no architecture of it, and its configuration can't be read in",
        ),
        (removed(blob(INDEX)), "arm64", f"remove what is there .docker image rm {SOURCE}."),
        (lambda _: None, "amd64", "Docker shows no architecture of it, and its configuration can't be read in"),
    ],
)
def test_an_image_of_which_nothing_says_what_it_is_made_for_is_not_staged(
    tmp_path: Path, harm: Callable[[Path], None], architecture: str, why: str
) -> None:
    world = in_part(tmp_path)
    harm(tmp_path / ROOTS["containerd"])
    asked = sealed({**NEW, "image": {**NEW["image"], "architecture": architecture}})
    with pytest.raises(Failed, match=why):
        run(world, asked, image_source=SOURCE)
    assert not world.paths.releases.exists()


def test_an_image_that_is_here_unpacked_alone_may_be_of_another_architecture(tmp_path: Path) -> None:
    world = in_part(tmp_path, MANIFEST)
    asked = sealed({**NEW, "image": {**NEW["image"], "architecture": "amd64"}})
    with pytest.raises(Failed, match="its architecture is arm64, expected amd64; choose an image"):
        run(world, asked, image_source=SOURCE)


def test_an_image_of_which_no_container_can_be_made_is_fetched_again(tmp_path: Path) -> None:
    world = in_part(tmp_path)
    run(world, NEW, image_source=SOURCE)
    world.unpacked = False
    point(world.paths, "current", NEW["id"])
    staged = load_linked(world.paths, "current")
    assert staged
    (problem,) = missing_pieces(world.host, staged)
    assert "is here by name, but no container can be made of it" in problem

    with pytest.raises(Failed, match=r"is not complete here: .* no container can be made of it: .* not found"):
        run(world, NEW, image_source=SOURCE)
    assert pulled(world)
    # This time the pull brings all of it.
    world.images[SOURCE] = {"Id": sha256(INDEX), "Architecture": "arm64", "RepoDigests": [SOURCE]}
    lines = run(world, NEW, image_source=SOURCE)

    assert any("no container can be made of what is here" in line for line in lines)
    assert missing_pieces(world.host, staged) == []


@pytest.mark.parametrize(("store", "refused"), [("graphdriver", False), ("containerd", True)])
def test_the_room_that_is_asked_for_is_that_of_the_store_in_use(tmp_path: Path, store: str, refused: bool) -> None:
    world = SwitchedWorld(tmp_path, store=store)
    write_model(incoming(world))
    world.images["mirror:5000/engine@new"] = {"Id": sha256(INDEX), "Architecture": "arm64"}
    for root in ROOTS.values():
        (tmp_path / root).mkdir(parents=True)
    sizes = {"graphdriver": 1, "containerd": 10**18}
    if refused:
        with pytest.raises(Failed, match=r"var/lib/containerd: .* in Docker's containerd image store"):
            run(world, NEW, image_source="mirror:5000/engine@new", image_bytes=sizes)
    else:
        run(world, NEW, image_source="mirror:5000/engine@new", image_bytes=sizes)


OLD = release("old")
OLD_SOURCE = f"mirror:5000/engine@{OLD['image']['digest']}"


@pytest.mark.parametrize("link", ["verified", "previous"])
def test_the_way_back_is_staged_again_as_well(tmp_path: Path, link: str) -> None:
    world = switched(tmp_path, "graphdriver", "containerd")
    put_release(world.paths, OLD)
    point(world.paths, link, OLD["id"])
    world.images[OLD_SOURCE] = {"Id": OLD["image"]["image_ids"][0], "Architecture": "arm64"}

    run(world, NEW, image_source=f"mirror:5000/engine@{sha256(INDEX)}", image_auth="c2VjcmV0")

    assert OLD["image"]["reference"] in world.images
    assert not any("c2VjcmV0" in word for command in world.commands for word in command)


def test_a_login_goes_to_no_other_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = switched(tmp_path, "graphdriver", "containerd")
    other = release("old", image__repository="elsewhere.example/engine", image__reference="elsewhere.example/engine:x")
    put_release(world.paths, other)
    point(world.paths, "previous", other["id"])
    asked: list[list[str]] = []
    stream = SwitchedWorld.stream

    def noted(self: SwitchedWorld, argv: Sequence[str], *rest: Any) -> Completed:
        asked.append(list(argv))
        return stream(self, argv, *rest)

    monkeypatch.setattr(SwitchedWorld, "stream", noted)

    lines = run(world, NEW, image_source=f"mirror:5000/engine@{sha256(INDEX)}", image_auth="c2VjcmV0")

    assert asked == [["docker", "pull", f"elsewhere.example/engine@{other['image']['digest']}"]]
    assert any("is the registry reachable" in line for line in lines), "a way back that nothing hangs on is only told"


@pytest.mark.parametrize(("before", "now"), SWITCHES)
def test_a_probe_names_the_releases_whose_images_went(tmp_path: Path, before: str, now: str) -> None:
    world = switched(tmp_path, before, now)
    for one, links in ((NEW, ("current", "verified")), (OLD, ("previous",))):
        put_release(world.paths, one)
        for link in links:
            point(world.paths, link, one["id"])
    lost = [{"release": NEW["id"], "elsewhere": True}, {"release": OLD["id"], "elsewhere": False}]
    assert probe(world.host)["docker"]["lost"] == lost
    world.images[OLD["image"]["reference"]] = {"Id": OLD["image"]["image_ids"][0]}
    assert probe(world.host)["docker"]["lost"] == lost[:1]
    world.docker_silent = True
    assert probe(world.host)["docker"]["lost"] == [], "what Docker does not tell is not gone"


@pytest.mark.parametrize(
    ("reference", "whole"),
    [
        ("ghcr.io/acme/engine:x", "ghcr.io/acme/engine:x"),
        ("localhost/engine:x", "localhost/engine:x"),
        ("mirror:5000/engine:x", "mirror:5000/engine:x"),
        ("vllm/vllm-openai:x", "docker.io/vllm/vllm-openai:x"),
        ("debian:13", "docker.io/library/debian:13"),
    ],
)
def test_containerd_wants_whole_names(reference: str, whole: str) -> None:
    assert qualified(reference) == whole


@pytest.mark.parametrize(
    ("info", "dump", "folder", "told"),
    [
        ({"image_store": "graphdriver"}, "", "/var/lib/docker", False),
        ({"image_store": None, "root_dir": None}, "", "/var/lib/docker", False),
        ({"image_store": "graphdriver", "root_dir": "/mnt/d"}, 'root = "/x"\n', "/mnt/d", True),
        ({"image_store": "containerd"}, "", "/var/lib/containerd", False),
        ({"image_store": "containerd"}, "root = '/mnt/c'\n", "/mnt/c", True),
        ({"image_store": "containerd"}, 'root = "relative"\n', "/var/lib/containerd", False),
        ({"image_store": "containerd"}, "sh: 1: containerd: not found\n", "/var/lib/containerd", False),
        (
            {"image_store": "containerd", "root_dir": "/d", "containerd_address": "/run/containerd/containerd.sock"},
            'root = "/c"\n',
            "/c",
            True,
        ),
        (
            {
                "image_store": "containerd",
                "root_dir": "/d",
                "containerd_address": "/var/run/docker/containerd/containerd.sock",
            },
            'root = "/c"\n',
            "/d/containerd/daemon",
            True,
        ),
    ],
)
def test_where_images_are(info: dict[str, Any], dump: str, folder: str, told: bool) -> None:
    store = imagestore.read(info, dump)
    assert (store.folder, store.told) == (folder, told)
