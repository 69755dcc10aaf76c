"""The node that most tests begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.sparknode.acting import NEW, OLD
from tests.unit.sparknode.world import World


@pytest.fixture
def serving(tmp_path: Path) -> World:
    """A node that serves OLD, verified, and has NEW staged."""
    world = World(tmp_path)
    world.stage(OLD)
    world.stage(NEW)
    world.serve(OLD)
    return world


@pytest.fixture(autouse=True)
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here outlives this process, so that waiting for the disk proves nothing."""
    monkeypatch.setattr("os.fsync", lambda _: None)
