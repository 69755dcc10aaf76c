"""A power cut, a full disk or a wrong clock while a model is put in place: it is whole or absent, and the next run
mends it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sparknode.base import files
from sparknode.errors import Failed
from sparknode.host.node_status import models
from sparknode.models import stage
from sparknode.state.status import StagedModel
from tests.unit.sparknode.builders import COMMIT, FILES, REPO, write_model
from tests.unit.sparknode.models.test_stage import IMAGE, SOURCE, in_place, incoming, run
from tests.unit.sparknode.world import World


class Cut(BaseException):
    """The power went; nothing may catch it."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    write_model(incoming(made))
    made.images[SOURCE] = dict(IMAGE)
    return made


def fails_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> list[str]:
    """Let the so-manieth step that changes the disk fail; the steps that were begun."""
    begun: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            begun.append(name)
            if len(begun) == number:
                raise error
            return real(*arguments, **options)

        return step

    for owner, name in ((Path, "rename"), (Path, "replace"), (Path, "chmod"), (Path, "mkdir"), (os, "fsync")):
        monkeypatch.setattr(owner, name, counted(name, getattr(owner, name)))
    monkeypatch.setattr(stage, "sync_directory", counted("sync_directory", files.sync_directory))
    return begun


def steps_of_a_whole_run(tmp_path: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        world = World(tmp_path / "counted")
        write_model(incoming(world))
        world.images[SOURCE] = dict(IMAGE)
        begun = fails_at(patch, 0, Cut())
        run(world)
        return len(begun)


@pytest.mark.parametrize("error", [Cut(), OSError(28, "No space left on device")], ids=["power", "disk"])
def test_a_cut_at_any_step_leaves_it_whole_or_absent(tmp_path: Path, error: BaseException) -> None:
    total = steps_of_a_whole_run(tmp_path)
    assert total > 15
    for number in range(1, total + 1):
        world = World(tmp_path / str(number))
        write_model(incoming(world))
        world.images[SOURCE] = dict(IMAGE)
        with pytest.MonkeyPatch.context() as patch:
            fails_at(patch, number, error)
            # What only says how far it is may fail for itself.
            with suppress(Cut, OSError, Failed):
                run(world)
        assert in_place(world).is_dir() or models(world.paths) == ()
        if in_place(world).is_dir():
            assert all((in_place(world) / name).read_bytes() == data for name, data in FILES.items()), number

        run(world)

        assert models(world.paths) == (StagedModel(REPO, COMMIT),), number
        assert all((in_place(world) / name).read_bytes() == data for name, data in FILES.items())


@pytest.mark.parametrize("year_s", [0.0, 4e9])
def test_clocks_prove_nothing_and_spoil_nothing(world: World, year_s: float) -> None:
    for path in incoming(world).rglob("*"):
        os.utime(path, (year_s, year_s))
    world.clock = 4e9 - year_s
    run(world)
    assert models(world.paths) == (StagedModel(REPO, COMMIT),)
    shutil.rmtree(world.paths.incoming)
    assert any("already staged" in line for line in run(world))
