"""The start gate on memory: the engine's own figure, waited for, with an end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparknode import cli
from sparknode.host import memory
from sparknode.host.memory import Memory
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import TOTAL_KIB, World


@pytest.mark.parametrize(
    ("total", "available", "utilization", "enough"),
    [
        (100, 80, 0.8, True),
        (100, 79, 0.8, False),
        (101, 80, 0.8, False),
        (127_535_224, 102_028_180, 0.8, True),
        (127_535_224, 102_028_179, 0.8, False),
    ],
)
def test_the_share_is_of_the_total_and_rounded_up(total: int, available: int, utilization: float, enough: bool) -> None:
    assert Memory(total, available, utilization).enough is enough


def test_figures_are_in_the_engines_own_unit() -> None:
    assert str(Memory(TOTAL_KIB, 23_135_528, 0.8)) == "22.1 GiB available, 97.3 GiB needed (0.80 of 121.6 GiB)"


def test_memory_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path, stopped_at=0.0, memory_return_s=42.0)

    came, figures = memory.wait(world.host, 0.8, 300.0, lambda _: None)

    assert came
    assert figures.endswith("after 42 s")


def test_waiting_has_an_end_and_names_who_holds_the_memory(tmp_path: Path) -> None:
    world = World(tmp_path, stopped_at=0.0, memory_never_returns=True)
    told: list[str] = []

    came, figures = memory.wait(world.host, 0.8, 300.0, told.append)

    assert not came
    assert "after 300 s of at most 300 s; no process is named as the holder" in figures
    assert len(told) == pytest.approx(29, abs=2), "a sign of life each ten seconds"


def test_an_unreadable_meminfo_is_no_memory(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.paths.meminfo.write_text("garbage")

    assert memory.measure(world.paths, 0.8) is None


@pytest.mark.parametrize("section", [None, {"utilization": None}])
def test_a_release_may_ask_for_no_gate(tmp_path: Path, section: object, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path, memory_never_returns=True)
    path = tmp_path / "release.json"
    path.write_text(json.dumps(release("free", memory=section)))

    assert memory.gate(world.host, path, cli.say) == 0
    assert "has none" in capsys.readouterr().out


def test_the_gate_of_the_unit_refuses_with_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path, stopped_at=0.0, memory_never_returns=True)
    path = tmp_path / "release.json"
    path.write_text(json.dumps(release("big")))

    assert memory.gate(world.host, path, cli.say) == 1

    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("memory-gate: refused: 4.8 GiB available, 97.3 GiB needed (0.80 of 121.6 GiB), after 300 s")


def test_the_gate_of_the_unit_passes_with_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path)
    path = tmp_path / "release.json"
    path.write_text(json.dumps(release("big")))

    assert memory.gate(world.host, path, cli.say) == 0
    assert capsys.readouterr().out.startswith("memory-gate: 115.9 GiB available")
