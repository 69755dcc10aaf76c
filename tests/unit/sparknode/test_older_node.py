"""A host that version 0.1 deployed to (`tests/fixtures/node-0.1`, from a pretended node): it is read, and goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sparknode.base.shape import Node
from sparknode.base.system import asking
from sparknode.host import node_status
from sparknode.state.described import described
from sparknode.state.releases import from_node
from sparknode.state.status import NodeStatus
from tests.unit.sparknode.acting import NEW, activate
from tests.unit.sparknode.builders import point
from tests.unit.sparknode.world import World

FIXTURE = Path(__file__).parents[2] / "fixtures/node-0.1"
FORMER, OLDER = (
    json.loads((FIXTURE / f"release-{name}.json").read_text()) for name in ("e9fab9a042828e43", "92fadc075a2395ff")
)

UNTOLD = ("reference", "drafter_backend", "prefix_caching", "gpu", "overrides", "rotation", "api_key_file")


@pytest.fixture
def older(tmp_path: Path) -> World:
    """It went from FORMER to OLDER. That version kept the unit as a file, where now a link stands."""
    world = World(tmp_path)
    world.stage(FORMER)
    world.stage(OLDER)
    world.serve(OLDER)
    point(world.paths, "previous", FORMER["id"])
    text = world.paths.unit.read_text()
    world.paths.unit.unlink()
    world.paths.unit.write_text(text)
    shutil.copyfile(FIXTURE / "journal.jsonl", world.paths.journal)
    return world


def status(world: World) -> NodeStatus:
    return NodeStatus.read(node_status.fleet(world.host, asking(world.host.system, node_status.QUESTIONS, 1.0)()))


def test_its_journal_and_its_releases_are_read(older: World) -> None:
    found = status(older)

    assert (found.current, found.verified, found.previous) == (OLDER["id"], OLDER["id"], FORMER["id"])
    assert found.serves
    assert [(one.state, one.release, one.before) for one in found.history] == [("committed", OLDER["id"], FORMER["id"])]
    assert found.proof is not None
    assert found.proof.release == OLDER["id"]
    assert found.figures["acceptance-short"]["figure"] == pytest.approx(0.6)
    assert found.release is not None
    assert found.release.image_tag == OLDER["image_tag"]


def test_what_its_own_program_told_of_a_release_is_read() -> None:
    """That version wrote the release's own objects, and not the newest keys."""
    said = {key: OLDER[key] for key in ("id", "image_tag", "model", "profile", "gates", "timing", "memory")}
    said |= {"digest": OLDER["image"]["digest"], "commits": {one["repo"]: one["commit"] for one in OLDER["artefacts"]}}
    said |= {"args": OLDER["container"]["args"], "env": OLDER["container"]["env"], "watch": None}

    found = NodeStatus.read({"current": OLDER["id"], "release": said}).release

    whole = described(from_node(Node(OLDER, "release")))
    assert found is not None
    assert {name: value for name, value in vars(found).items() if name not in UNTOLD} == {
        name: value for name, value in vars(whole).items() if name not in UNTOLD
    }
    assert {getattr(found, name) for name in UNTOLD} == {None}


@pytest.mark.parametrize("document", [NEW, FORMER, OLDER], ids=["a new release", "its former one", "its own again"])
def test_it_goes_on_from_there(older: World, document: dict[str, Any]) -> None:
    if document is NEW:
        older.stage(NEW)

    activated = activate(older, document)

    assert activated.code == 0, activated.lines
    found = status(older)
    assert found.current == found.verified == document["id"]
    assert found.healthy
    # A unit that is a file with the right text is right, and stays until another release comes.
    assert older.paths.unit.is_symlink() == (document is not OLDER)
