"""The front end: it starts the worker once, follows it, attaches, refuses another release, and may die."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sparknode.activate.follow import POLL_S, activate
from sparknode.activate.worker import BUSY, DONE, FAILED, REVERTED
from sparknode.base import locks
from sparknode.base.paths import ACTIVATE_UNIT
from sparknode.base.process import Completed
from sparknode.base.system import asking
from sparknode.errors import Failed, Refused
from sparknode.host import node_status
from sparknode.state import journal, orders
from sparknode.state.orders import Order
from tests.unit.sparknode.acting import work_once
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import Engine, World

OLD, NEW = release("old"), release("new")
SILENT = ""


@pytest.fixture
def serving(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.stage(OLD)
    world.stage(NEW)
    world.serve(OLD)
    world.on_work = lambda: work_once(world)
    return world


def follow(world: World, document: dict[str, Any] = NEW, **more: Any) -> tuple[int, list[str]]:
    lines: list[str] = []
    return activate(world.host, Order(document["id"], "rollout-1", "ops@desk", **more), lines.append), lines


def starts(world: World) -> list[tuple[str, ...]]:
    """How often systemd was told to start the worker."""
    return [command for command in world.commands if command[-1] == ACTIVATE_UNIT and command[1] == "start"]


@contextmanager
def living_worker(world: World, document: dict[str, Any], states: list[str]) -> Iterator[None]:
    """A worker in another session: it holds the lock and writes one state each time the reader sleeps."""
    left = list(states)
    theirs = Order(document["id"], "rollout-0", "else@where", activation="theirs")

    def write() -> None:
        state = left.pop(0) if left else SILENT
        if state == SILENT:
            return
        record = {"t": journal.timestamp(world.now()), "activation": "theirs", "rollout": "rollout-0"}
        record |= {"operator": "else@where", "release": document["id"], "from": OLD["id"], "state": state}
        loading: dict[str, Any] = {"deadline_s": 1800.0, "note": "weights after 5 s"}
        journal.append(world.paths, {**record, **(loading if state == "starting" else {})})
        if state in journal.TERMINAL:
            orders.close(world.paths)

    orders.place(world.paths, theirs)
    write()
    world.on_sleep, world.on_work, world.worker_lives = write, None, True
    with locks.hold(world.paths, str(theirs)):
        yield


def test_a_good_release_is_followed_to_its_end(serving: World) -> None:
    code, lines = follow(serving)

    assert code == DONE
    assert lines[-1] == f"committed: release {NEW['id']} is verified"
    assert any(line.startswith("probing: acceptance-short pass: 60.0 % of drafted tokens accepted") for line in lines)


def test_the_order_is_durable_before_the_worker_is_started(serving: World) -> None:
    seen = []

    def start() -> Completed:
        seen.append(orders.pending(serving.paths))
        return work_once(serving)

    serving.on_work = start

    follow(serving)

    assert seen[0] is not None
    assert (seen[0].release, seen[0].rollout, seen[0].boot) == (NEW["id"], "rollout-1", "boot-0")
    assert starts(serving) == [("systemctl", "start", "--no-block", ACTIVATE_UNIT)]
    assert orders.pending(serving.paths) is None


def test_a_bad_release_ends_with_ten_and_the_gate(serving: World) -> None:
    serving.engines[NEW["id"]] = Engine(acceptance=0.0)

    code, lines = follow(serving)

    assert code == REVERTED
    assert lines[-1].startswith(
        "reverted: acceptance-short: 0.0 % of drafted tokens accepted, expected at least 30.0 %"
    )


def test_nothing_to_do_starts_no_worker(serving: World) -> None:
    code, lines = follow(serving, OLD)

    assert code == DONE
    assert lines == [f"release {OLD['id']} is current, verified and running; nothing to do"]
    assert starts(serving) == []


def test_a_restart_starts_what_serves_already(serving: World) -> None:
    code, _ = follow(serving, OLD, intent="restart")

    assert code == DONE
    (attempt,) = journal.attempts(journal.read(serving.paths))
    assert [phase["state"] for phase in attempt.phases][-1] == journal.COMMITTED
    assert {record["intent"] for record in attempt.records} == {"restart"}
    assert serving.running == OLD["id"]
    assert serving.paths.linked("previous") is None, "a restart is no way back from itself"


def test_a_restart_that_fails_a_gate_starts_the_release_once_more(serving: World) -> None:
    old = serving.engines[OLD["id"]] = Engine(acceptance=0.0)
    made = serving.containers_made

    def mend() -> None:
        old.acceptance = 0.6 if serving.containers_made > made + 1 else 0.0

    serving.on_sleep = mend
    code, lines = follow(serving, OLD, intent="restart")

    assert code == REVERTED
    assert lines[-1].startswith("reverted: acceptance-short: 0.0 %")
    assert serving.running == OLD["id"]
    assert serving.containers_made == made + 2
    assert follow(serving, OLD, intent="restart")[0] == DONE, "what was proven again is not held against it"


def test_a_restart_that_fails_twice_is_said_and_left_running(serving: World) -> None:
    serving.engines[OLD["id"]] = Engine(acceptance=0.0)

    code, lines = follow(serving, OLD, intent="restart")

    assert code == FAILED
    assert f"the rollback to {OLD['id']} failed too (the running engine is left running, unverified)" in lines[-1]
    assert serving.running == OLD["id"]


def test_a_roll_back_is_told_from_a_deploy_in_the_history(serving: World) -> None:
    assert follow(serving, NEW)[0] == DONE
    assert follow(serving, OLD, intent="rollback")[0] == DONE

    found = node_status.fleet(serving.host, asking(serving.host.system, node_status.QUESTIONS, 1.0)())
    assert [(row["release"], row["intent"]) for row in found["history"]] == [(NEW["id"], None), (OLD["id"], "rollback")]
    assert all(row["seconds"] > 0 for row in found["history"])
    assert found["back"]["id"] == NEW["id"]
    assert found["release"]["args"] == OLD["container"]["args"]
    assert [phase["state"] for phase in found["last"]["phases"]][:3] == ["leased", "draining", "stopping"]


def test_the_same_release_under_way_is_attached_to(serving: World) -> None:
    with living_worker(serving, NEW, ["leased", "starting", "probing", "committed"]):
        code, lines = follow(serving)

    assert code == DONE
    assert lines[0].startswith(f"attached: the activation of release {NEW['id']} by else@where (rollout rollout-0): ")


def test_another_release_under_way_is_not_disturbed(serving: World) -> None:
    with living_worker(serving, OLD, ["starting"]):
        code, lines = follow(serving)

    assert code == BUSY
    assert lines[0].startswith(f"the activation of release {OLD['id']} by else@where (rollout rollout-0): since 2026-")
    assert lines[0].endswith(", now `starting`; wait for its end")


def test_loading_is_told_while_it_takes(serving: World) -> None:
    with living_worker(serving, NEW, ["leased", "starting", *[SILENT] * round(12 / POLL_S), "committed"]):
        _, lines = follow(serving)

    assert "starting: engine has loaded for 10 s of at most 1800 s (weights, 1790 s left)" in lines


def test_a_worker_that_dies_for_good_is_said(serving: World) -> None:
    def die() -> Completed:
        order = orders.pending(serving.paths)
        assert order is not None
        record = {"t": "2026-11-23T10:00:00.000Z", "activation": order.activation, "state": "starting"}
        journal.append(serving.paths, record)
        return Completed(("start",), 0)

    serving.on_work = die

    code, lines = follow(serving)

    assert code == FAILED
    assert "the worker ended in `starting` without an outcome" in lines[-1]
    assert "`systemctl start sparkfleet-activate.service` finishes what it left" in lines[-1]


def test_a_worker_that_never_writes_is_said_soon(serving: World) -> None:
    serving.on_work = lambda: Completed(("start",), 0)

    code, lines = follow(serving)

    assert code == FAILED
    assert "the worker ended before its first journal line" in lines[-1]
    assert serving.clock < 200.0
    assert len(starts(serving)) > 2, "a unit that was about to end takes a start for its own"


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda world: world.paths.enabled.unlink(), "unit: it is not enabled"),
        (lambda world: rename(world, NEW["image"]), "image: the name registry.example/engine:sha256-"),
    ],
    ids=["not enabled", "image name"],
)
def test_drift_that_needs_no_restart_is_repaired_without_one(
    serving: World, spoil: Callable[[World], None], text: str
) -> None:
    spoil(serving)
    found = node_status.fleet(serving.host, asking(serving.host.system, node_status.QUESTIONS, 1.0)())
    assert text in found["serving"]["drift"][0]
    assert found["serving"]["restarts"] == []
    engine = serving.containers_made

    code, lines = follow(serving, OLD)

    assert code == DONE
    assert lines[0].startswith(f"put right without a restart: {text}")
    assert serving.containers_made == engine
    assert starts(serving) == []
    found = node_status.fleet(serving.host, asking(serving.host.system, node_status.QUESTIONS, 1.0)())
    assert found["serving"]["drift"] == []
    assert follow(serving, OLD)[1] == [f"release {OLD['id']} is current, verified and running; nothing to do"]


def rename(world: World, image: dict[str, Any]) -> None:
    world.images["left"] = world.images[OLD["image"]["reference"]]
    world.images[OLD["image"]["reference"]] = world.images[image["reference"]]


def test_an_edited_unit_is_put_back_without_a_restart_where_a_reload_takes_no_gpu(tmp_path: Path) -> None:
    """By CDI Docker hands out the GPU itself; the runtime's hook loses it in a reload."""
    cdi = release("cdi", container__gpu=["--device", "nvidia.com/gpu=all"])
    world = World(tmp_path)
    world.stage(cdi)
    world.serve(cdi)
    world.paths.unit.write_text("edited through the link")
    engine = world.containers_made

    assert follow(world, cdi)[0] == DONE

    assert world.paths.unit.read_text() == cdi["unit"]
    assert world.containers_made == engine
    assert ("systemctl", "daemon-reload") in world.commands


def test_a_reload_that_was_cut_off_is_made_up_for(tmp_path: Path) -> None:
    """The file is right by then, so that nothing but what was noted tells of it."""
    cdi = release("cdi", container__gpu=["--device", "nvidia.com/gpu=all"])
    world = World(tmp_path)
    world.stage(cdi)
    world.serve(cdi)
    world.paths.unit.write_text("edited through the link")

    def cut() -> None:
        if world.commands[-1] == ("systemctl", "daemon-reload"):
            raise KeyboardInterrupt

    world.on_command = cut
    with pytest.raises(KeyboardInterrupt):
        follow(world, cdi)
    world.on_command = None
    world.commands.clear()
    assert "unit: systemd has not read it since it was changed" in drift_of(world)

    assert follow(world, cdi)[0] == DONE

    assert ("systemctl", "daemon-reload") in world.commands
    assert drift_of(world) == []
    assert world.containers_made == 1


def drift_of(world: World) -> list[str]:
    found: list[str] = node_status.report(world.host)["serving"]["drift"]
    return found


def test_a_full_disk_is_refused_before_anything_stops(serving: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 3_000_000})
    monkeypatch.setattr("sparknode.host.drift.shutil.disk_usage", lambda _: usage)

    with pytest.raises(Refused, match="3 MB are free"):
        follow(serving)

    assert orders.pending(serving.paths) is None
    assert serving.running == OLD["id"]


def test_what_is_incomplete_is_refused_in_the_session_itself(serving: World) -> None:
    del serving.images[NEW["image"]["reference"]]

    with pytest.raises(Refused, match=r"image .* is not here; stage it again"):
        follow(serving)

    assert starts(serving) == []


def test_a_worker_that_can_not_be_started_is_an_error(serving: World) -> None:
    serving.on_work = lambda: Completed(("start",), 1, "", "Failed to connect to bus")

    with pytest.raises(Failed, match=r"the worker could not be started: .*Failed to connect to bus"):
        follow(serving)

    assert orders.pending(serving.paths) is None


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("active", DONE),
        # Between a kill and the restart that follows, and while a stop waits for the worker's children.
        ("deactivating", DONE),
        ("activating", DONE),
        ("reloading", DONE),
        ("inactive", FAILED),
        ("failed", FAILED),
    ],
)
def test_a_worker_that_systemd_has_not_given_up_is_followed(serving: World, word: str, code: int) -> None:
    with living_worker(serving, NEW, ["probing", *[SILENT] * 200, "committed"]):
        serving.worker_unit = f"{word}\n"

        found, lines = follow(serving)

    assert found == code
    assert any("the worker ended in `probing` without an outcome" in line for line in lines) == (code == FAILED)
