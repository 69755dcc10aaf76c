"""An activation that was cut off: by a power cut, a kill, a stop or an error, it ends with something proven."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparknode.activate import follow
from sparknode.activate.worker import DONE, work
from sparknode.base import locks
from sparknode.base.process import Completed
from sparknode.state import journal, orders
from sparknode.state.orders import Order
from tests.unit.sparknode import acting
from tests.unit.sparknode.acting import work_once
from tests.unit.sparknode.builders import release
from tests.unit.sparknode.world import Engine, World

OLD, NEW = release("old", timing__soak_s=10), release("new", timing__soak_s=10)
# How a unit's process can end before its work: nothing of the process tells them apart afterwards.
UNIT = Path(__file__).parents[4] / "templates/sparkfleet-activate.service"


class CutOff(BaseException):
    """The process is gone at this moment; nothing may catch it."""


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
            raise CutOff

    monkeypatch.setattr(journal, "append", append)


def cut_in(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """Die right after the first line of a state."""
    real = journal.append

    def append(paths: Any, record: dict[str, Any]) -> None:
        real(paths, record)
        if record["state"] == state:
            raise CutOff

    monkeypatch.setattr(journal, "append", append)


def activate(world: World, document: dict[str, Any], **more: Any) -> int:
    return acting.activate(world, document, retry=document["id"], **more).code


def node(root: Path, engine: Engine | None = None) -> World:
    world = World(root)
    world.stage(OLD)
    world.stage(NEW, engine)
    world.serve(OLD)
    return world


def cut(world: World, state: str, **more: Any) -> None:
    """An activation of NEW whose process ends right after a line."""
    with pytest.MonkeyPatch.context() as patch:
        cut_in(patch, state)
        with pytest.raises(CutOff):
            activate(world, NEW, **more)
    world.commands.clear()


def reboot(world: World, lines: list[str] | None = None) -> None:
    """The activation's unit, where it has an order, and the serving unit once that is ready."""
    world.power_cut()
    booted: list[bool] = []

    def ready() -> None:
        if not booted:
            booted.append(True)
            world.boot()

    if world.paths.order.exists():
        work_once(world, lines, ready)
    ready()


def lines_of(root: Path, engine: Engine | None) -> int:
    """How many lines an undisturbed activation writes."""
    world = node(root, engine)
    activate(world, NEW)
    return len(journal.read(world.paths))


def last_state(world: World) -> str | None:
    records = journal.read(world.paths)
    return str(records[-1]["state"]) if records else None


def is_well(world: World, said: list[str]) -> None:
    attempt = journal.last_attempt(journal.read(world.paths))
    serves = world.running
    assert serves in {OLD["id"], NEW["id"]}, said
    assert world.paths.linked("current") == world.paths.linked("verified") == serves, said
    assert world.paths.unit.read_text() == (OLD if serves == OLD["id"] else NEW)["unit"]
    assert world.enabled
    assert orders.pending(world.paths) is None, said
    assert attempt is None or attempt.ended, said
    if attempt and serves == NEW["id"]:
        assert attempt.state == "committed"


@pytest.mark.parametrize("engine", [None, Engine(acceptance=0.0)], ids=["good release", "bad release"])
@pytest.mark.parametrize(
    ("again", "torn"),
    [(reboot, False), (reboot, True), (work_once, False)],
    ids=["power cut after the line", "power cut inside the line", "process"],
)
def test_cut_off_at_any_line_it_ends_with_a_proven_release(
    tmp_path: Path, engine: Engine | None, torn: bool, again: Any
) -> None:
    count = lines_of(tmp_path / "undisturbed", engine)
    assert count > 10
    for line in range(count):
        world = node(tmp_path / f"cut-{line}", engine)
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, world, line, torn=torn)
            with pytest.raises(CutOff):
                activate(world, NEW)
        said: list[str] = []
        again(world, said)

        is_well(world, said)
        assert len(journal.attempts(journal.read(world.paths))) <= 1
        world.engines[NEW["id"]] = Engine()
        assert activate(world, NEW) == DONE
        assert world.running == NEW["id"]


@pytest.mark.parametrize("again", [reboot, work_once], ids=["power cut", "process"])
def test_cut_off_again_and_again_on_its_way_back_it_ends_all_the_same(tmp_path: Path, again: Any) -> None:
    for line in range(12):
        world = node(tmp_path / f"cut-{line}", Engine(acceptance=0.0))
        cut(world, "probing")
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, world, line, torn=False)
            with pytest.raises(CutOff):
                again(world)
        again(world)

        is_well(world, [])
        assert world.running == OLD["id"]


STATES = {state.name: state for state in journal.TABLE}


@pytest.mark.parametrize("name", [name for name in STATES if name != "failed"])
@pytest.mark.parametrize("again", [reboot, work_once], ids=["power cut", "process"])
def test_each_state_ends_as_the_table_says(tmp_path: Path, name: str, again: Any) -> None:
    back = name in {"reverting", "reverted"}
    world = node(tmp_path, Engine(acceptance=0.0) if back else None)
    cut(world, name)
    current = world.paths.linked("current")

    assert STATES[name].current in {"either", "new" if current == NEW["id"] else "old"}
    again(world)

    is_well(world, [])
    last = journal.last_attempt(journal.read(world.paths))
    assert last is not None
    assert last.state == STATES[name].ends


def test_the_table_has_every_state_once_and_each_is_written_by_some_activation(tmp_path: Path) -> None:
    seen = set()
    for at, engine in enumerate((Engine(), Engine(acceptance=0.0))):
        world = node(tmp_path / str(at), engine)
        activate(world, NEW)
        seen |= {str(record["state"]) for record in journal.read(world.paths)}
    first = World(tmp_path / "first")
    first.stage(NEW, Engine(acceptance=0.0))
    activate(first, NEW)
    seen |= {str(record["state"]) for record in journal.read(first.paths)}

    assert sorted(STATES) == sorted(journal.STATES) == sorted(seen)
    assert {state.ends for state in journal.TABLE} == journal.TERMINAL


def test_cut_off_in_the_first_activation_it_leaves_no_unit_to_crash_loop(tmp_path: Path) -> None:
    for line in range(8):
        world = World(tmp_path / f"cut-{line}")
        world.stage(NEW)
        with pytest.MonkeyPatch.context() as patch:
            cut_at(patch, world, line, torn=False)
            with pytest.raises(CutOff):
                activate(world, NEW)
        reboot(world)

        assert world.running is None
        assert not world.enabled
        assert journal.read(world.paths)[-1]["state"] == "failed"
        assert activate(world, NEW) == DONE
        assert world.enabled


def test_before_anything_stops_a_dead_worker_leaves_what_serves_alone(tmp_path: Path) -> None:
    world = node(tmp_path)
    cut(world, "draining")
    engine = world.containers_made

    work_once(world)

    last = journal.read(world.paths)[-1]
    assert last["state"] == "reverted"
    assert (
        last["error"] == "cut off in `draining`: its worker ended; nothing was changed, what served before still serves"
    )
    assert world.containers_made == engine


def test_at_a_boot_the_files_are_right_before_the_engine_may_start(tmp_path: Path) -> None:
    world = node(tmp_path)
    cut(world, "probing")
    world.power_cut()
    seen = []

    def ready() -> None:
        seen.append((world.paths.linked("current"), world.running, journal.read(world.paths)[-1]["state"]))
        world.boot()

    work_once(world, None, ready)

    assert seen[0] == (OLD["id"], None, "reverting")
    assert ("systemctl", "daemon-reload") in world.commands
    assert world.running == OLD["id"]


def test_an_old_release_that_does_not_come_back_is_failed(tmp_path: Path) -> None:
    world = node(tmp_path)
    cut(world, "starting")
    world.engines[OLD["id"]] = Engine(dies_after_s=1.0)

    reboot(world)

    last = journal.read(world.paths)[-1]
    assert last["state"] == "failed"
    assert "cut off in `starting`" in last["error"]
    assert "nothing serves" in last["error"]
    assert orders.pending(world.paths) is None


def test_a_second_boot_has_nothing_to_do(tmp_path: Path) -> None:
    world = node(tmp_path)
    cut(world, "soaking")
    reboot(world)
    count = len(journal.read(world.paths))

    reboot(world)

    assert len(journal.read(world.paths)) == count
    assert world.running == OLD["id"]


def test_an_order_that_had_not_begun_before_a_boot_is_dropped(tmp_path: Path) -> None:
    world = node(tmp_path)
    orders.place(world.paths, Order(NEW["id"], "rollout-1", "ops@desk", activation="late"))
    said: list[str] = []

    reboot(world, said)

    assert "had not begun when this host went down; it is dropped" in said[0]
    assert orders.pending(world.paths) is None
    assert world.running == OLD["id"]
    assert journal.read(world.paths) == []


def test_an_order_that_had_not_begun_is_carried_out_by_the_next_start(tmp_path: Path) -> None:
    world = node(tmp_path)
    orders.place(world.paths, Order(NEW["id"], "rollout-1", "ops@desk", activation="soon"))

    work_once(world)

    assert world.running == world.paths.linked("verified") == NEW["id"]


def test_a_worker_waits_for_whoever_holds_the_host(tmp_path: Path) -> None:
    world = node(tmp_path)
    cut(world, "starting")

    with locks.hold(world.paths, "the watch"):
        done = work_once(world)

    assert done.rc == 30, "systemd starts the unit again"
    assert orders.pending(world.paths) is not None
    assert world.paths.linked("current") == NEW["id"]


def test_a_host_that_goes_down_is_no_fault_of_the_release(tmp_path: Path) -> None:
    """Its engine stops first, and its worker sees that before it is ended itself."""
    world = node(tmp_path)

    def down() -> None:
        if world.running == NEW["id"] and journal.read(world.paths)[-1]["state"] == "soaking":
            world.shutting_down = True
            world._stop()

    world.on_sleep = down
    acting.activate(world, NEW)
    assert journal.read(world.paths)[-1]["state"] == "soaking", "it was ended before it could say anything"
    world.on_sleep, world.shutting_down = None, False

    reboot(world)

    is_well(world, [])
    assert journal.known_bad(journal.read(world.paths)) == {}


@pytest.mark.parametrize("state", ["draining", "stopping", "switching", "starting", "soaking"])
def test_a_systemd_that_does_not_answer_is_waited_for(tmp_path: Path, state: str) -> None:
    """So it is in a host's last moments, and while a busy one starts its manager anew."""
    world = node(tmp_path)

    def gone() -> None:
        if world.manager_gone_until < 0 and last_state(world) == state:
            world.manager_gone_until = world.clock + 60.0

    world.on_command = gone
    acting.activate(world, NEW)

    is_well(world, [])
    assert journal.known_bad(journal.read(world.paths)) == {}
    assert orders.pending(world.paths) is None


def test_a_systemd_that_never_answers_leaves_the_activation_to_the_next_start(tmp_path: Path) -> None:
    world = node(tmp_path)

    def gone() -> None:
        if world.manager_gone_until < 0 and last_state(world) == "switching":
            world.manager_gone_until = 1e9

    world.on_command = gone
    acting.activate(world, NEW)
    assert last_state(world) == "switching", "nothing is written down as failed"
    assert orders.pending(world.paths) is not None
    world.on_command, world.manager_gone_until = None, -1.0

    reboot(world)

    is_well(world, [])
    assert world.running == OLD["id"]


def test_what_follows_a_commit_is_done_by_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = node(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("sparknode.activate.worker.point_verified", cut_now)
        with pytest.raises(CutOff):
            activate(world, NEW)
    engine = world.containers_made
    assert world.paths.linked("verified") == OLD["id"]

    work_once(world)

    assert world.paths.linked("verified") == NEW["id"]
    assert world.paths.linked("previous") == OLD["id"]
    assert world.containers_made == engine
    assert orders.pending(world.paths) is None


def cut_now(*_: Any) -> None:
    raise CutOff


def test_links_that_can_not_be_made_after_a_commit_take_no_engine_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = node(tmp_path)
    full = OSError(28, "No space left on device")

    def fail(*_: Any) -> None:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr("sparknode.activate.worker.point_verified", fail)
        with pytest.raises(OSError, match="No space left"):
            activate(world, NEW)
    assert world.running == NEW["id"]
    assert journal.read(world.paths)[-1]["state"] == "committed"

    work_once(world)

    assert world.paths.linked("verified") == world.running == NEW["id"]


def test_a_dead_activation_is_ended_before_another_one_begins(tmp_path: Path) -> None:
    world = node(tmp_path)
    other = release("other", timing__soak_s=10)
    world.stage(other)
    cut(world, "starting")
    lines: list[str] = []

    code = follow.activate(world.host, Order(other["id"], "rollout-2", "else@where"), lines.append)

    assert code == 30
    assert f"the activation of release {NEW['id']} by ops@desk (rollout rollout-1): since 2026-" in lines[0]
    is_well(world, lines)
    assert activate(world, other) == DONE


def test_the_unit_takes_every_end_but_a_stop_for_a_reason_to_go_on() -> None:
    settings = dict(
        line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")
    )
    assert settings["Restart"] == "on-failure"
    assert {"SIGTERM", "SIGINT", "SIGHUP"} <= set(settings["RestartForceExitStatus"].split())
    assert settings["StartLimitIntervalSec"] == "0"
    assert settings["Before"] == "sparkfleet-serve.service"
    assert settings["ConditionPathExists"] == "/var/lib/sparkfleet/order.json"
    assert settings["Type"] == "notify"


def test_what_can_not_be_read_any_more_goes_back_to_what_is_verified(tmp_path: Path) -> None:
    world = node(tmp_path)
    cut(world, "probing")
    (world.paths.release_dir(NEW["id"]) / "release.json").write_text("{")

    assert work(world.host, lambda _: None, lambda: None) == DONE

    assert world.running == OLD["id"]
    assert journal.read(world.paths)[-1]["state"] == "reverted"


def test_a_unit_that_ended_as_the_order_came_is_started_again(tmp_path: Path) -> None:
    """`systemctl start` of a unit that is about to end with the activation before does nothing."""
    world = node(tmp_path)
    starts = []

    def start() -> Completed:
        starts.append(world.clock)
        return Completed(("start",), 0) if len(starts) == 1 else work_once(world)

    world.on_work = start

    assert follow.activate(world.host, Order(NEW["id"], "rollout-1", "ops@desk"), lambda _: None) == DONE
    assert len(starts) == 2


@pytest.mark.parametrize("engine", [None, Engine(acceptance=0.0)], ids=["good release", "bad release"])
@pytest.mark.parametrize("again", [reboot, work_once], ids=["power cut", "process"])
def test_cut_off_before_any_command_it_ends_with_a_proven_release(
    tmp_path: Path, engine: Engine | None, again: Any
) -> None:
    """Between two lines files change, and what a command was to make of that must not be forgotten."""
    undisturbed = node(tmp_path / "undisturbed", engine)
    activate(undisturbed, NEW)
    orders_given = [
        number
        for number, command in enumerate(undisturbed.commands)
        if command[0] == "systemctl" and "show" not in command
    ]
    assert len(orders_given) >= 4
    for number in orders_given:
        world = node(tmp_path / f"cut-{number}", engine)
        left = itertools.count(number, -1)

        def count(left: Iterator[int] = left) -> None:
            if next(left) == 0:
                raise CutOff

        world.on_command = count
        with pytest.raises(CutOff):
            activate(world, NEW)
        world.on_command = None
        said: list[str] = []
        again(world, said)
        is_well(world, said)
