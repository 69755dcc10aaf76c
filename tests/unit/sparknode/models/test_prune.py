"""Pruning: what serves, was proven, is gone back to or pinned is never touched, and all else goes together."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sparknode.base import locks
from sparknode.errors import Busy, Failed, LeaseHeld
from sparknode.models.prune import prune
from sparknode.state import lease
from tests.unit.sparknode.builders import COMMIT, REPO, manifest, manifest_sha256, point, put_release, release
from tests.unit.sparknode.world import World

TAGS = ("one", "two", "three", "four", "five")
OTHER = "c" * 40


def with_model(tag: str) -> dict[str, Any]:
    """A release of its own image; the first two have one model, the others another one."""
    commit = COMMIT if tag in ("one", "two") else OTHER
    row = {
        "role": "target",
        "repo": REPO,
        "commit": commit,
        "host_path": f"/var/lib/sparkfleet/models/{REPO}/{commit}",
        "container_path": "/models/gemma4",
        "manifest_sha256": manifest_sha256(manifest()),
    }
    return release(tag, artefacts=[row])


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Five releases, staged one after the other."""
    made = World(tmp_path)
    for age, tag in enumerate(TAGS):
        document = with_model(tag)
        put_release(made.paths, document)
        os.utime(made.paths.release_dir(document["id"]), (1000 + age, 1000 + age))
        made.images[document["image"]["reference"]] = {"Id": document["image"]["image_ids"][0]}
        (made.paths.data / "cache" / document["image"]["digest"].replace(":", "-")).mkdir(parents=True)
    model = made.paths.model_dir(REPO, OTHER)
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"w")
    model.chmod(0o555)
    made.paths.model_stamp(REPO, OTHER).write_text("{}")
    return made


def ids(*tags: str) -> list[str]:
    return sorted(with_model(tag)["id"] for tag in tags)


def run(world: World, keep: int, pinned: list[str], *, dry: bool = False, floor: int = 0) -> list[str]:
    lines: list[str] = []
    request = {"keep": keep, "pinned": pinned, "dry": dry, "floor_bytes": floor}
    assert prune(world.host, json.dumps(request), lines.append) == 0
    return lines


def link(world: World, **links: str) -> None:
    for name, tag in links.items():
        point(world.paths, name, ids(tag)[0])


def removed_images(world: World) -> int:
    return len([command for command in world.commands if tuple(command[:3]) == ("docker", "image", "rm")])


def everything(world: World) -> list[str]:
    return sorted(
        str(path)
        for path in world.root.rglob("*")
        if "lock" not in path.name and path.name not in ("run", "sparkfleet")
    )


@pytest.mark.parametrize("name", ["current", "previous", "verified"])
def test_what_is_linked_stays_with_all_that_it_needs(world: World, name: str) -> None:
    link(world, **{name: "one"})

    run(world, 0, [])

    assert world.paths.staged() == ids("one")
    assert world.paths.model_dir(REPO, COMMIT).is_dir()
    assert not world.paths.model_dir(REPO, OTHER).exists()
    assert not world.paths.model_stamp(REPO, OTHER).exists()
    assert len(list((world.paths.data / "cache").iterdir())) == 1
    assert removed_images(world) == 4


def test_what_is_pinned_stays(world: World) -> None:
    run(world, 0, ids("three"))
    assert world.paths.staged() == ids("three")
    assert world.paths.model_dir(REPO, OTHER).is_dir()


def test_the_last_few_stay(world: World) -> None:
    link(world, current="one")
    run(world, 2, [])
    assert world.paths.staged() == ids("one", "four", "five")


def test_a_dry_run_says_all_and_removes_nothing(world: World) -> None:
    before = everything(world)

    lines = run(world, 1, [], dry=True)

    # Four releases with their images and caches, and the model that only they had.
    assert len([line for line in lines if line.startswith("would remove ")]) == 4 + 4 + 4 + 1
    assert everything(world) == before
    assert removed_images(world) == 0


def test_below_the_floor_only_what_must_stay_is_kept(world: World) -> None:
    link(world, current="one")
    lines = run(world, 5, [], floor=10**18)
    assert world.paths.staged() == ids("one")
    assert "only what must stay is kept" in lines[0]


def test_a_second_time_there_is_nothing_to_remove(world: World) -> None:
    link(world, current="one")
    run(world, 0, [])
    assert run(world, 0, []) == ["nothing to remove"]


def test_nothing_goes_while_an_activation_is_under_way(world: World) -> None:
    with locks.hold(world.paths), pytest.raises(Busy, match="is under way on this host"):
        run(world, 0, [])
    assert world.paths.staged() == ids(*TAGS)


def test_nothing_goes_when_a_release_that_stays_cannot_be_read(world: World) -> None:
    link(world, current="one")
    (world.paths.release_dir(ids("one")[0]) / "release.json").write_text("{")

    with pytest.raises(Failed, match="can't be read"):
        run(world, 0, [])

    assert world.paths.staged() == ids(*TAGS)


def test_a_roll_out_between_its_waves_loses_nothing(world: World) -> None:
    lease.take(world.host, "r9", "ann@desk", "10.0.0.9", 60.0)
    before = everything(world)
    with pytest.raises(LeaseHeld, match="rollout r9 of ann@desk works on this host"):
        run(world, 0, [])
    assert everything(world) == before


def test_what_is_arriving_stays_and_what_was_left_goes(world: World) -> None:
    here, left = (world.paths.incoming_dir(REPO, commit) for commit in ("d" * 40, "e" * 40))
    for folder, age_s in ((here, 60), (left, 7200)):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"w")
        for path in (folder / "model.safetensors", folder):
            os.utime(path, (world.now() - age_s,) * 2)
    run(world, 5, [])
    assert here.is_dir()
    assert not left.exists()


def test_a_pinned_release_that_is_not_here_is_said(world: World) -> None:
    assert run(world, 5, ["0123456789abcdef"])[0] == "pinned, and not staged here: 0123456789abcdef"
