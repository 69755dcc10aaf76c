"""The front end: it starts the worker once, follows it, attaches, refuses another release, and may die."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sparknode import fleet, journal, lock
from sparknode.activate import BUSY, DONE, FAILED, REVERTED, Order, work
from sparknode.errors import Failed, Refused
from sparknode.frontend import POLL_S, activate
from sparknode.shell import Completed
from sparknode.system import asking

from .builders import release
from .world import Engine, World

OLD, NEW = release("old"), release("new")
SILENT = ""


@pytest.fixture
def serving(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.stage(OLD)
    world.stage(NEW)
    world.serve(OLD)
    world.on_spawn = lambda command: run_worker(world, command)
    return world


def run_worker(world: World, command: tuple[str, ...]) -> Completed:
    """systemd-run: the worker of the command line, run to its end."""
    named = dict(pairwise(command))
    token = named.get("--token")
    order = Order(
        named["activate"],
        named["--rollout"],
        named["--operator"],
        int(token) if token else None,
        named.get("--retry-release"),
        named.get("--intent"),
    )
    work(world.host, order, named["--activation"], lambda _: None)
    return Completed(command, 0)


def follow(world: World, document: dict[str, Any] = NEW, **more: Any) -> tuple[int, list[str]]:
    lines: list[str] = []
    return activate(world.host, Order(document["id"], "rollout-1", "ops@desk", **more), lines.append), lines


@contextmanager
def living_worker(world: World, document: dict[str, Any], states: list[str]) -> Iterator[None]:
    """A worker in another session: it holds the lock and writes one state each time the reader sleeps."""
    left = list(states)
    release_lock = threading.Event()
    holding = threading.Event()

    def hold() -> None:
        with lock.hold(world.paths):
            holding.set()
            release_lock.wait(10)

    def write() -> None:
        state = left.pop(0) if left else SILENT
        if state != SILENT:
            record = {"t": journal.timestamp(world.now()), "activation": "theirs", "rollout": "rollout-0"}
            record |= {"operator": "else@where", "release": document["id"], "from": OLD["id"], "state": state}
            loading: dict[str, Any] = {"deadline_s": 1800.0, "note": "weights after 5 s"}
            journal.append(world.paths, {**record, **(loading if state == "starting" else {})})

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(10)
    write()
    world.on_sleep = write
    try:
        yield
    finally:
        release_lock.set()
        thread.join(10)


def test_a_good_release_is_followed_to_its_end(serving: World) -> None:
    code, lines = follow(serving)

    assert code == DONE
    assert lines[-1] == f"committed: release {NEW['id']} is verified"
    assert any(line.startswith("probing: acceptance-short pass: 60.0 % of drafted tokens accepted") for line in lines)


def test_the_worker_lives_in_a_unit_of_its_own(serving: World) -> None:
    follow(serving)

    (command,) = serving.spawned
    assert command[0] == "systemd-run"
    assert {"--unit=sparkfleet-activate", "--collect", "--property=After=docker.service"} <= set(command)
    assert command[-1] == "--foreground"


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
    assert serving.spawned == []


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
    assert f"going back to {OLD['id']} failed too (what runs is left running, unproven)" in lines[-1]
    assert serving.running == OLD["id"]


def test_a_roll_back_is_told_from_a_deploy_in_the_history(serving: World) -> None:
    assert follow(serving, NEW)[0] == DONE
    assert follow(serving, OLD, intent="rollback")[0] == DONE

    found = fleet.fleet(serving.host, asking(serving.host.system, fleet.QUESTIONS, 1.0)())
    assert [(row["release"], row["intent"]) for row in found["history"]] == [(NEW["id"], None), (OLD["id"], "rollback")]
    assert all(row["seconds"] > 0 for row in found["history"])
    assert found["back"]["id"] == NEW["id"]
    assert found["release"]["args"] == OLD["container"]["args"]
    assert [phase["state"] for phase in found["last"]["phases"]][:3] == ["leased", "draining", "stopping"]


def test_the_same_release_under_way_is_attached_to(serving: World) -> None:
    with living_worker(serving, NEW, ["leased", "starting", "probing", "committed"]):
        code, lines = follow(serving)

    assert code == DONE
    assert lines[0].startswith(f"attached: release {NEW['id']} is being activated here since 2026-")
    assert serving.spawned == []


def test_another_release_under_way_is_not_disturbed(serving: World) -> None:
    with living_worker(serving, OLD, ["starting"]):
        code, lines = follow(serving)

    assert code == BUSY
    assert f"release {OLD['id']} is being activated here since 2026-" in lines[0]
    assert "by else@where (rollout rollout-0, now `starting`)" in lines[0]


def test_a_session_that_lost_the_race_attaches(serving: World) -> None:
    started = living_worker(serving, NEW, ["leased", "probing", "committed"])

    def lose(command: tuple[str, ...]) -> Completed:
        started.__enter__()
        return Completed(command, 1, "", "Unit sparkfleet-activate.service already exists.")

    serving.on_spawn = lose
    try:
        code, lines = follow(serving)
    finally:
        started.__exit__(None, None, None)

    assert code == DONE
    assert lines[0].startswith("attached: ")


def test_loading_is_told_while_it_takes(serving: World) -> None:
    with living_worker(serving, NEW, ["leased", "starting", *[SILENT] * round(12 / POLL_S), "committed"]):
        _, lines = follow(serving)

    assert "starting: engine has loaded for 10 s of at most 1800 s (weights, 1790 s left)" in lines


def test_a_worker_that_dies_is_said(serving: World) -> None:
    def die(command: tuple[str, ...]) -> Completed:
        named = dict(pairwise(command))
        record = {"t": "2026-11-23T10:00:00.000Z", "activation": named["--activation"], "state": "starting"}
        journal.append(serving.paths, record)
        return Completed(command, 0)

    serving.on_spawn = die

    code, lines = follow(serving)

    assert code == FAILED
    assert "the worker ended in `starting` without an outcome" in lines[-1]


def test_a_worker_that_never_writes_is_said_soon(serving: World) -> None:
    serving.on_spawn = lambda command: Completed(command, 0)

    code, lines = follow(serving)

    assert code == FAILED
    assert "the worker ended before its first journal line" in lines[-1]
    assert serving.clock < 120.0


def test_what_a_dead_worker_left_open_is_closed_and_taken_over(serving: World) -> None:
    record = {"t": "2026-11-23T10:00:00.000Z", "activation": "dead", "release": OLD["id"], "state": "draining"}
    journal.append(serving.paths, record)

    code, lines = follow(serving, OLD)

    assert code == DONE
    assert lines[-1].endswith("nothing to do")
    assert journal.open_attempt(journal.read(serving.paths)) is None


def test_a_commit_that_was_cut_off_before_its_link_counts(serving: World) -> None:
    record = {
        "t": "2026-11-23T10:00:00.000Z",
        "activation": "cut",
        "release": OLD["id"],
        "from": None,
        "state": "committed",
    }
    journal.append(serving.paths, record)
    serving.paths.link("verified").unlink()

    code, _ = follow(serving, OLD)

    assert code == DONE
    assert serving.paths.linked("verified") == OLD["id"]
    assert serving.spawned == []


def test_what_is_incomplete_is_refused_in_the_session_itself(serving: World) -> None:
    del serving.images[NEW["image"]["reference"]]

    with pytest.raises(Refused, match=r"image .* is not here; stage it again"):
        follow(serving)

    assert serving.spawned == []


def test_a_worker_that_can_not_be_started_is_an_error(serving: World) -> None:
    serving.on_spawn = lambda command: Completed(command, 1, "", "Failed to connect to bus")

    with pytest.raises(Failed, match=r"the worker could not be started: .*Failed to connect to bus"):
        follow(serving)
