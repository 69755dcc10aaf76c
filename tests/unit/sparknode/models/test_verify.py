"""Verifying again: nothing but the disk is asked, and damage is named by file and remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparknode.host.drift import artefact_problems
from sparknode.host.node_status import models
from sparknode.models import stage as stages
from sparknode.models.stage import stage
from sparknode.models.verify import verify
from sparknode.state.status import StagedModel
from tests.unit.sparknode.builders import COMMIT, FILES, REPO, manifest, release, write_model
from tests.unit.sparknode.models.test_stage import IMAGE, SOURCE, incoming
from tests.unit.sparknode.world import World


@pytest.fixture
def staged(tmp_path: Path) -> World:
    world = World(tmp_path)
    write_model(incoming(world))
    world.images[SOURCE] = dict(IMAGE)
    run(world)
    world.commands.clear()
    return world


def run(world: World) -> None:
    request = {"schema": 1, "release": release("new"), "image_source": SOURCE, "manifests": [manifest()]}
    assert stage(world.host, json.dumps(request), lambda _: None) == 0


def rot(world: World) -> Path:
    """One bit of a file turns, as on an ageing disk: same size, same time."""
    path = world.paths.model_dir(REPO, COMMIT) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[350] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    return path


def test_whole_models_are_said_to_be_whole_and_nothing_is_asked(staged: World) -> None:
    lines: list[str] = []

    assert verify(staged.host, lines.append) == 0

    assert lines[-1] == f"model {REPO}@{COMMIT[:12]}: whole"
    assert staged.commands == []


def test_bit_rot_is_named_by_file_and_the_model_is_brought_again(staged: World) -> None:
    rot(staged)
    lines: list[str] = []

    assert verify(staged.host, lines.append) == 1

    assert any("damaged: model.safetensors: sha256 " in line for line in lines)
    assert models(staged.paths) == ()
    write_model(incoming(staged))
    run(staged)
    assert (staged.paths.model_dir(REPO, COMMIT) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert models(staged.paths) == (StagedModel(REPO, COMMIT),)
    assert verify(staged.host, lines.append) == 0


def test_a_model_that_was_mended_is_counted_again(staged: World) -> None:
    path = rot(staged)
    assert verify(staged.host, lambda _: None) == 1
    path.write_bytes(FILES["model.safetensors"])

    assert verify(staged.host, lambda _: None) == 0

    assert models(staged.paths) == (StagedModel(REPO, COMMIT),)


def test_a_proof_that_cannot_be_read_is_said(staged: World) -> None:
    staged.paths.model_stamp(REPO, COMMIT).write_text("{}")
    lines: list[str] = []

    assert verify(staged.host, lines.append) == 1

    assert "remove it and stage its release again" in lines[0]


@pytest.mark.parametrize("change", ["pruned", "brought again"])
def test_what_changed_while_it_was_read_is_not_judged(
    staged: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    rot(staged)
    stamp, real = staged.paths.model_stamp(REPO, COMMIT), stages.proven

    def proven(*given: Any) -> list[str]:
        found = real(*given)
        if change == "pruned":
            stamp.unlink()
        else:
            stamp.write_text(stamp.read_text() + " ")
        return found

    monkeypatch.setattr("sparknode.models.verify.proven", proven)
    lines: list[str] = []
    assert verify(staged.host, lines.append) == 0
    assert "not judged" in lines[-1]
    assert stamp.exists() == (change == "brought again")
    if stamp.exists():
        assert not json.loads(stamp.read_text())["rot"]


def test_a_damaged_model_is_no_way_back(staged: World) -> None:
    rot(staged)
    verify(staged.host, lambda _: None)
    artefact = release("new")["artefacts"][0]

    from sparknode.base.shape import Node
    from sparknode.state.releases import from_node

    found = artefact_problems(staged.paths, from_node(Node(release("new"), "release")).artefacts[0])

    assert artefact["repo"] == REPO
    assert "model.safetensors: sha256 " in found[0]
