"""Power cuts: after each line that an activation can have written, the node boots into something that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparknode import journal, lease, lock, steps
from sparknode.activate import DONE, FAILED, Order, work
from sparknode.errors import LeaseHeld
from sparknode.recover import finish, recover
from sparknode.release import Release
from sparknode.shell import Completed
from sparknode.system import Host

from .builders import release
from .world import Engine, World

OLD, NEW = release("old", timing__soak_s=10), release("new", timing__soak_s=10)


class PowerCut(BaseException):
    """The node is gone at this moment; nothing may catch it."""


def cut_at(monkeypatch: pytest.MonkeyPatch, world: World, line: int, *, torn: bool) -> None:
    real = journal.append
    left = [line]

    def append(paths: Any, record: dict[str, Any]) -> None:
        left[0] -= 1
        if left[0] >= 0 or not torn:
            real(paths, record)
        if left[0] < 0:
            if torn:
                with world.paths.journal.open("a") as stream:
                    stream.write('{"t":"2026-11-23T10:0')
            raise PowerCut

    monkeypatch.setattr(journal, "append", append)


def activate(world: World, document: dict[str, Any], activation: str = "first") -> int:
    order = Order(document["id"], "rollout-1", "ops@desk", retry=document["id"])
    return work(world.host, order, activation, lambda _: None)


def reboot(world: World, lines: list[str]) -> None:
    """The recovery unit, then the serving unit, then the proof that the recovery unit ordered."""
    world.power_cut()
    world.spawned.clear()
    assert recover(world.host, lines.append) == DONE
    world.boot()
    if world.spawned:
        assert world.spawned[0][-2:] == ("recover", "--finish")
        finish(world.host, lines.append)


def lines_of(root: Path, engine: Engine | None) -> int:
    """How many lines an undisturbed activation writes."""
    world = World(root)
    world.stage(OLD)
    world.stage(NEW, engine)
    world.serve(OLD)
    activate(world, NEW)
    return len(journal.read(world.paths))


@pytest.mark.parametrize("torn", [False, True], ids=["after the line", "inside the line"])
@pytest.mark.parametrize("engine", [None, Engine(acceptance=0.0)], ids=["good release", "bad release"])
def test_a_power_cut_at_any_line_ends_with_a_proven_release(tmp_path: Path, engine: Engine | None, torn: bool) -> None:
    count = lines_of(tmp_path / "undisturbed", engine)
    assert count > 10
    for line in range(count):
        world = World(tmp_path / f"cut-{line}")
        world.stage(OLD)
        world.stage(NEW, engine)
        world.serve(OLD)
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, world, line, torn=torn)
            with pytest.raises(PowerCut):
                activate(world, NEW)
        said: list[str] = []
        reboot(world, said)

        serves = world.running
        attempt = journal.last_attempt(journal.read(world.paths))
        assert serves in {OLD["id"], NEW["id"]}, said
        assert world.paths.linked("current") == world.paths.linked("verified") == serves, said
        assert world.paths.unit.read_text() == (OLD if serves == OLD["id"] else NEW)["unit"]
        assert world.enabled
        assert attempt is None or attempt.ended, said
        if attempt and serves == NEW["id"]:
            assert attempt.state == "committed"
        world.engines[NEW["id"]] = Engine()
        assert activate(world, NEW, "second") == DONE
        assert world.running == NEW["id"]


def test_a_power_cut_in_the_first_activation_leaves_no_unit_to_crash_loop(tmp_path: Path) -> None:
    for line in range(8):
        world = World(tmp_path / f"cut-{line}")
        world.stage(NEW)
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, world, line, torn=False)
            with pytest.raises(PowerCut):
                activate(world, NEW)
        reboot(world, [])

        assert world.running is None
        assert not world.enabled
        assert journal.read(world.paths)[-1]["state"] == "failed"
        assert activate(world, NEW, "second") == DONE


def interrupted(world: World, state: str) -> None:
    world.stage(OLD)
    world.stage(NEW)
    world.serve(OLD)
    with pytest.MonkeyPatch.context() as patch:
        real = journal.append

        def append(paths: Any, record: dict[str, Any]) -> None:
            real(paths, record)
            if record["state"] == state:
                raise PowerCut

        patch.setattr(journal, "append", append)
        with pytest.raises(PowerCut):
            activate(world, NEW)
    world.power_cut()
    world.commands.clear()


def test_before_the_switch_nothing_is_changed(tmp_path: Path) -> None:
    world = World(tmp_path)
    interrupted(world, "reclaiming")
    unit = world.paths.unit.stat().st_mtime_ns

    recover(world.host, lambda _: None)

    last = journal.read(world.paths)[-1]
    assert last["state"] == "reverted"
    assert last["error"] == "cut off in `reclaiming`, before anything was switched"
    assert world.paths.unit.stat().st_mtime_ns == unit
    assert world.spawned == []


def test_the_old_release_is_put_back_before_its_engine_is_proven(tmp_path: Path) -> None:
    world = World(tmp_path)
    interrupted(world, "probing")

    recover(world.host, lambda _: None)

    assert world.paths.linked("current") == OLD["id"]
    assert world.paths.unit.read_text() == OLD["unit"]
    assert ("systemctl", "daemon-reload") in world.commands
    assert journal.read(world.paths)[-1]["state"] == "reverting"
    assert len(world.spawned) == 1
    assert not [command for command in world.commands if command[:2] == ("systemctl", "start")]


def test_an_old_release_that_does_not_come_back_is_failed(tmp_path: Path) -> None:
    world = World(tmp_path)
    interrupted(world, "starting")
    world.engines[OLD["id"]] = Engine(dies_after_s=1.0)
    recover(world.host, lambda _: None)
    world.boot()

    assert finish(world.host, lambda _: None) == FAILED

    last = journal.read(world.paths)[-1]
    assert last["state"] == "failed"
    assert "cut off in `starting`" in last["error"]
    assert "nothing serves" in last["error"]


def test_a_release_that_was_never_verified_does_not_survive_a_boot(tmp_path: Path) -> None:
    """Its worker died, the next one closed its story and was cut off before it stopped anything."""
    world = World(tmp_path)
    interrupted(world, "starting")
    with pytest.MonkeyPatch.context() as patch:
        cut_at(patch, world, 2, torn=False)
        with pytest.raises(PowerCut):
            activate(world, NEW, "second")
    assert [record["state"] for record in journal.read(world.paths)[-3:]] == ["failed", "leased", "draining"]

    reboot(world, [])

    assert world.running == world.paths.linked("current") == OLD["id"]
    assert journal.read(world.paths)[-1]["state"] == "reverted"


def test_links_that_disagree_after_an_ended_activation_are_put_right(tmp_path: Path) -> None:
    world = World(tmp_path)
    interrupted(world, "starting")
    with pytest.MonkeyPatch.context() as patch:
        cut_at(patch, world, 0, torn=False)
        with pytest.raises(PowerCut):
            activate(world, NEW, "second")
    assert journal.read(world.paths)[-1]["state"] == "failed"

    reboot(world, [])

    assert world.running == OLD["id"]


def test_a_second_boot_has_nothing_to_do(tmp_path: Path) -> None:
    world = World(tmp_path)
    interrupted(world, "soaking")
    reboot(world, [])
    count = len(journal.read(world.paths))
    said: list[str] = []

    reboot(world, said)

    assert len(journal.read(world.paths)) == count
    assert said == ["no activation was cut off; nothing to recover"]


def test_a_living_activation_is_left_to_itself(tmp_path: Path) -> None:
    world = World(tmp_path)
    interrupted(world, "starting")
    said: list[str] = []

    with lock.hold(world.paths):
        recover(world.host, said.append)

    assert "under way" in said[0]
    assert world.spawned == []
    assert world.paths.linked("current") == NEW["id"]


def test_nobody_begins_between_a_recovery_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    interrupted(world, "starting")
    world.power_cut()
    real, held = steps.install, []

    def install(host: Host, back: Release) -> None:
        held.append(lock.held(world.paths))
        real(host, back)

    def proof(command: tuple[str, ...]) -> Completed:
        held.append(lock.held(world.paths))
        return Completed(command, 0)

    monkeypatch.setattr("sparknode.recover.install", install)
    world.on_spawn = proof
    assert recover(world.host, lambda _: None) == DONE
    assert held == [True, False], "the proof takes the lock for itself"


def test_a_proof_that_can_not_be_started_is_an_error_with_the_old_release_in_place(tmp_path: Path) -> None:
    world = World(tmp_path)
    interrupted(world, "starting")
    world.on_spawn = lambda command: Completed(command, 1, "", "Failed to connect to bus")

    with pytest.raises(Exception, match=r"its proof could not: .*Failed to connect to bus"):
        recover(world.host, lambda _: None)

    assert world.paths.linked("current") == OLD["id"]


@pytest.mark.parametrize("engine", [None, Engine(acceptance=0.0)], ids=["good release", "bad release"])
def test_a_worker_that_is_killed_at_any_line_goes_back_when_systemd_starts_it_again(
    tmp_path: Path, engine: Engine | None
) -> None:
    for line in range(lines_of(tmp_path / "undisturbed", engine)):
        world = World(tmp_path / f"killed-{line}")
        world.stage(OLD)
        world.stage(NEW, engine)
        world.serve(OLD)
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, world, line, torn=False)
            with pytest.raises(PowerCut):
                activate(world, NEW)

        activate(world, NEW)

        last = journal.last_attempt(journal.read(world.paths))
        assert last is not None
        assert last.ended
        assert len(journal.attempts(journal.read(world.paths))) == 1
        assert world.paths.linked("current") == world.paths.linked("verified") == world.running
        assert world.running == (NEW if last.state == "committed" else OLD)["id"]


def test_a_commit_is_finished_by_a_worker_whose_roll_out_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.stage(OLD)
    world.serve(OLD)
    world.stage(NEW)
    token = int(lease.take(world.host, "rollout-1", "ops@desk", "10.0.0.1", 60.0)["token"])
    order = Order(NEW["id"], "rollout-1", "ops@desk", token)
    with monkeypatch.context() as patch:
        patch.setattr("sparknode.activate.point_verified", cut_now)
        with pytest.raises(PowerCut):
            work(world.host, order, "first", lambda _: None)
    assert world.paths.linked("verified") == OLD["id"]
    lease.release(world.host, "rollout-1", token)
    lease.take(world.host, "rollout-2", "ops@desk", "10.0.0.1", 60.0)

    with pytest.raises(LeaseHeld):
        work(world.host, order, "first", lambda _: None)

    assert world.paths.linked("verified") == NEW["id"]
    assert world.paths.linked("previous") == OLD["id"]


def cut_now(*_: Any) -> None:
    raise PowerCut
