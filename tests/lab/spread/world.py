"""Light hosts with a model on some of them, and what a test asks of them afterwards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from sparknode.base.paths import Paths
from sparknode.base.shape import Node
from sparknode.base.system import Host, RealSystem
from sparknode.models import manifest as manifests
from sparknode.models.stage import write_stamp
from tests.lab.spread.net import Light, document

REPO, COMMIT = "acme/toy", "a" * 40


def make_model(folder: Path, size: int) -> dict[str, Any]:
    """A model of so many random bytes; its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(os.urandom(size))
    (folder / "config.json").write_text("{}\n")
    (folder / "sub/tokenizer.json").write_text('{"version": 1}\n')
    (folder / "empty.txt").touch()
    return document(folder, REPO, COMMIT)


def put(light: Light, source: Path, model: dict[str, Any]) -> None:
    """Have a host hold the model, proven."""
    paths = Paths(light.root)
    place = paths.model_dir(REPO, COMMIT)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, place)
    write_stamp(Host(paths, RealSystem()), manifests.from_node(Node(model, "model")))


def wrong(light: Light, model: dict[str, Any]) -> list[str]:
    """What is not right with what came to a host; every byte is read."""
    return manifests.problems(manifests.from_node(Node(model, "model")), Paths(light.root).incoming_dir(REPO, COMMIT))


def bound_s(size: int, takers: int, givers: int, bytes_s: float) -> float:
    """The least time in which all can have it, with equal links (Kumar and Ross, HOTWEB 2006)."""
    return max(size / (givers * bytes_s), size / bytes_s, takers * size / ((givers + takers) * bytes_s))
