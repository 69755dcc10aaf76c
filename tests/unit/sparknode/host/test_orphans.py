"""What an engine left behind is ended; what belongs to somebody else is only named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparknode.activate.worker import DONE
from sparknode.host import orphans
from tests.unit.sparknode.acting import activate
from tests.unit.sparknode.world import World

OURS = "/system.slice/docker-c1.scope"


def notes(run_records: list[dict[str, str]]) -> str:
    return "\n".join(record.get("note", "") for record in run_records if record["state"] == "stopping")


def test_an_engine_core_that_outlived_its_container_is_ended(serving: World) -> None:
    serving.spawn_process(4155, "VLLM::EngineCore", OURS)

    run = activate(serving)

    assert run.code == DONE
    assert "ended 1 orphaned processes: VLLM::EngineCore (pid 4155)" in notes(run.records)
    assert not (serving.root / "proc/4155").exists()


def test_what_is_left_in_the_unit_is_ended(serving: World) -> None:
    serving.spawn_process(
        77, "/usr/bin/python3 /usr/bin/vllm serve /models/gemma4", "/system.slice/sparkfleet-serve.service"
    )

    run = activate(serving)

    assert "ended 1 orphaned processes" in notes(run.records)


@pytest.mark.parametrize(
    "cgroup", ["/system.slice/docker-stranger.scope", "/user.slice/user-1000.slice/session-3.scope", "/"]
)
def test_a_stranger_is_named_and_left_alone(serving: World, cgroup: str) -> None:
    serving.spawn_process(99, "VLLM::EngineCore", cgroup)

    run = activate(serving)

    assert "left alone, as it is not ours: VLLM::EngineCore (pid 99)" in notes(run.records)
    assert (serving.root / "proc/99").exists()


def test_an_orphan_of_a_container_that_an_earlier_activation_saw_is_ours(serving: World) -> None:
    assert activate(serving).code == DONE
    seen = serving.container
    assert seen is not None
    serving.spawn_process(4155, "VLLM::EngineCore", f"/docker/{seen['Id']}")
    serving.container = None
    serving.running = None

    run = activate(serving)

    assert "ended 1 orphaned processes" in notes(run.records)


def test_one_that_does_not_end_is_said(serving: World, monkeypatch: pytest.MonkeyPatch) -> None:
    serving.spawn_process(4155, "VLLM::EngineCore", OURS)
    monkeypatch.setattr(World, "kill", lambda *_: None)

    run = activate(serving)

    assert "1 of them do not end: VLLM::EngineCore (pid 4155); a reboot would" in notes(run.records)


def test_other_programs_and_garbage_are_neither(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.spawn_process(1, "/sbin/init", "/init.scope")
    world.spawn_process(2, "vim notes-on-vllm.txt", "/user.slice")
    world.spawn_process(3, "/usr/bin/dockerd", "/system.slice/docker.service")
    (tmp_path / "proc/4").mkdir()
    (tmp_path / "proc/5x").mkdir()

    assert orphans.end(world.host, {"c1"}) is None


@pytest.mark.parametrize(
    "command",
    [
        "VLLM::EngineCore",
        "VLLM::Worker_TP0",
        "/usr/bin/python3 /usr/local/bin/vllm serve /models/x",
        "vllm serve x",
        "python3 -m vllm.entrypoints.openai.api_server",
    ],
)
def test_what_an_engine_is_called(tmp_path: Path, command: str) -> None:
    world = World(tmp_path)
    world.spawn_process(9, command, "/user.slice")

    _, strangers = orphans.find(world.host, [])

    assert [process.pid for process in strangers] == [9]
