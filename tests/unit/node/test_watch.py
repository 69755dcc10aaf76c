"""What an engine died of, read out of its last lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparknode.release import from_node
from sparknode.shape import Node
from sparknode.watch import Watch, cause

from .builders import release
from .world import MEMORY_ERROR, Engine, World

DEATHS = {
    "memory of vLLM": (
        [MEMORY_ERROR, "RuntimeError: Engine core initialization failed. See root cause above."],
        "ValueError: Free memory",
        True,
    ),
    "memory gate": (["memory-gate: refused: 4.8 GiB available, 97.3 GiB needed"], "memory-gate: refused", True),
    "memory gate that passed": (["memory-gate: 115.9 GiB available", "KeyError: 'x'"], "KeyError: 'x'", False),
    "root cause before its echo": (
        [
            "(EngineCore pid=9) ERROR 11-23 08:06:35 [core.py:1] KeyError: \"Reasoning parser 'gemma5' not found\"",
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        ],
        "KeyError: \"Reasoning parser 'gemma5' not found\"",
        False,
    ),
    "docker": (
        ["docker: Error response from daemon: could not select device driver."],
        "docker: Error response",
        False,
    ),
    "module of its own": (["torch.cuda.OutOfMemoryError: CUDA out of memory."], "torch.cuda.OutOfMemoryError", False),
    "nothing that looks like it": (["starting", "killed"], "killed", False),
    "silence": ([], None, False),
}


@pytest.mark.parametrize("death", DEATHS)
def test_cause(death: str) -> None:
    log, expected, for_memory = DEATHS[death]

    said, memory = cause(log)

    assert memory is for_memory
    assert (said or "").startswith(expected or "")
    assert (said is None) == (expected is None)


@pytest.fixture
def started(tmp_path: Path) -> tuple[World, Watch]:
    world = World(tmp_path)
    document = release("tag")
    world.stage(document, Engine())
    world.serve(document)
    watch = Watch(world.host, from_node(Node(document, "release")))
    assert watch.death() is None
    return world, watch


def test_a_container_that_was_replaced_is_a_death(started: tuple[World, Watch]) -> None:
    world, watch = started
    assert world.container is not None
    world.container["Id"] = "another"

    death = watch.death()

    assert death is not None
    assert death.reason.startswith("the container was replaced by another one")


def test_a_container_that_is_gone_is_a_death(started: tuple[World, Watch]) -> None:
    world, watch = started
    world.container = None

    death = watch.death()

    assert death is not None
    assert death.reason.startswith("the container is gone")


def test_a_unit_that_ended_by_itself_is_a_death(started: tuple[World, Watch]) -> None:
    world, watch = started
    world.running = None

    death = watch.death()

    assert death is not None
    assert death.reason.startswith("the engine ended and the unit is inactive")


def test_a_restart_is_a_death_though_the_unit_is_active(started: tuple[World, Watch]) -> None:
    world, watch = started
    world.restarts += 1

    death = watch.death()

    assert death is not None
    assert death.reason.startswith("the engine died and systemd started it again")


def test_a_daemon_that_does_not_answer_is_no_death(started: tuple[World, Watch]) -> None:
    world, watch = started
    world.docker_silent = True

    assert watch.death() is None
